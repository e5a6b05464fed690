"""By name is right or AdamW, never wrong: on trees of models that other people published."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxopt_tour.routing.axes import MatrixAxes
from jaxopt_tour.routing.by_name.routes import ByName
from tests.routing.public_models import MODELS, REST, Model


def tree(model: Model) -> dict[str, Any]:
    return {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, (shape, _) in model.items()}


def pairs(axes: MatrixAxes, rank: int) -> tuple[set[int], set[int]]:
    """Fan-in and fan-out as sets: order within a side permutes rows or columns, which Muon does not see."""
    return {axis % rank for axis in axes.fan_in}, {axis % rank for axis in axes.fan_out}


@pytest.mark.parametrize("model", MODELS)
def test_is_right_or_adamw_and_never_wrong(model: str) -> None:
    routes = ByName().routes(tree(MODELS[model]))
    wrong = {}
    for name, (shape, right) in MODELS[model].items():
        route = routes[name]
        if route.role != "matrix":
            continue
        if not isinstance(right, MatrixAxes) or pairs(route.axes, len(shape)) != pairs(right, len(shape)):
            wrong[name] = (route, right)
    assert not wrong


@pytest.mark.parametrize("model", ["MaxText, layers second", "MaxText, layers first", "big_vision ViT", "T5X"])
def test_misses_nothing_of_a_conventional_model(model: str) -> None:
    routes = ByName().routes(tree(MODELS[model]))
    missed = {
        name: math.prod(shape)
        for name, (shape, right) in MODELS[model].items()
        if right != REST and routes[name].role != "matrix" and "embedding" not in name
    }
    assert not missed


def test_what_is_not_understood_says_why_and_what_helps() -> None:
    route = ByName().routes(tree(MODELS["MaxText, as many layers as width"]))["decoder/layers/mlp/wi/kernel"]
    assert route.role == "not understood" and "axis 0 or axis 1" in route.reason and "route by use" in route.reason
