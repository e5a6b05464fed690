"""One table of wrong arguments: each raises a ValueError that names the argument, the parameter and the way out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import pytest
from flax import nnx

import jaxopt_tour as jt
from tests.routing import frameworks, zoo

PARAMS = {"dense": {"kernel": jnp.zeros((4, 8)), "bias": jnp.zeros(8)}}
X = zoo.floats(2, 4)
NNX = nnx.eval_shape(lambda: nnx.Linear(4, 8, rngs=nnx.Rngs(0)))
EQUINOX = frameworks.equinox_model()
by_use = jt.routing.from_function


def init(**options: Any) -> Any:
    return jt.muon(1e-3, **options).init(PARAMS)


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    # Models in place of parameters or functions
    "an unfiltered module": (lambda: jt.muon(1e-3).init(EQUINOX), r"'layers/1/bias'|'activation'.*eqx\.filter"),
    **{
        f"an unfiltered module of {name}": (
            lambda optimizer=optimizer: optimizer(1e-3).init(EQUINOX),
            r"'activation' is no array.*eqx\.filter",
        )
        for name, optimizer in {"adamw": jt.adamw, "momentum": jt.momentum, "rmsprop": jt.rmsprop}.items()
    },
    "a number as parameter": (lambda: jt.muon(1e-3).init({"w": 1.0}), "'w' is no array, but 1.0"),
    "an nnx model as routing": (lambda: init(routing=NNX), "routing is a model.*from_function"),
    "a linen model as routing": (lambda: init(routing=nn.Dense(3)), r"routing is a model \(Dense\).*from_function"),
    "an Equinox model as routing": (lambda: init(routing=EQUINOX), "routing is a model.*from_function"),
    "parameters as function": (lambda: by_use(PARAMS, X), "fn must be a function, got parameters"),
    "a linen model as parameters": (lambda: by_use(lambda p, x: x, nn.Dense(3), X), "params must be parameters.*Dense"),
    "a linen model without variables": (lambda: by_use(nn.Dense(3)), "variables are missing"),
    "a linen model without a mapping": (lambda: by_use(nn.Dense(3), X), "variables of a linen Module.*mapping"),
    "a Keras model without variables": (lambda: by_use(frameworks.KerasModel(False), X), "model.build"),
    "a Haiku pair without state": (lambda: by_use(frameworks.haiku_pair(True, True), PARAMS), "state is missing"),
    # Inputs
    "no inputs": (lambda: by_use(lambda p, x: x, PARAMS), "example inputs are missing"),
    "no inputs of an nnx model": (lambda: by_use(NNX), "example inputs are missing"),
    "no inputs of an Equinox model": (lambda: by_use(EQUINOX), "example inputs are missing"),
    "too many inputs": (lambda: by_use(lambda p, x: x, PARAMS, X, X), "fn does not take the arguments.*3"),
    "too few inputs": (lambda: by_use(lambda p, x, y: x, PARAMS, X), "fn does not take the arguments.*'y'"),
    "unknown keyword": (lambda: by_use(lambda p, x: x, PARAMS, X, train=True), "fn does not take.*'train'"),
    # Labels and axes
    "a label": (lambda: init(routing={"dense/kernel": "matirx"}), "'dense/kernel'.*'matirx'.*did you mean 'matrix'"),
    "a path": (lambda: init(routing={"dense/kernle": "other"}), "'dense/kernle'.*did you mean 'dense/kernel'"),
    "a pattern": (lambda: init(routing={"blocks/*/kernel": "other"}), r"'blocks/\*/kernel'.*no parameter that matches"),
    "an axis": (lambda: init(routing={"dense/kernel": jt.MatrixAxes(0, 2)}), "'dense/kernel'.*axis 2.*not exist"),
    "an axis of factors": (
        lambda: init(routing={"dense/kernel": jt.MatrixAxes(0, 2, factors={1: (3,)})}),
        "'dense/kernel'.*not divisible",
    ),
    "an entry": (lambda: init(routing={"dense/kernel": 3}), "'dense/kernel'.*must be a label"),
    "a vector as matrix": (lambda: init(routing={"dense/bias": "matrix"}), "'dense/bias'.*cannot be"),
    "a role of rest": (lambda: jt.muon(1e-3, rest={"embeding": jt.sgd(1.0)}), "rest.*did you mean 'embedding'"),
    # The mesh
    "layouts": (lambda: jt.OnMesh("data", layouts="nonsense"), "layouts must be None.*'nonsense'"),
    "a layout": (lambda: jt.OnMesh("data", layouts={"w": "nonsense"}), "layouts.*'w'.*'nonsense'"),
    "layouts of a function": (lambda: jt.OnMesh("data", layouts=lambda: None), "layouts must be.*cannot be called"),
    # Functions with other arguments
    "a routing without leaf": (lambda: jt.muon(1e-3, routing=lambda path: "matrix"), "routing must be.*path, leaf"),
    "a routing of labels": (lambda: jt.multi_transform({}, lambda: "matrix"), "routing must be.*path, leaf"),
    **{
        f"{what} of {name}": (
            lambda optimizer=optimizer, what=what, function=function: optimizer(
                **{"learning_rate": 0.1, what: function}
            ),
            f"{what} must be .*cannot be called with 1",
        )
        for name, optimizer in {"muon": jt.muon, "shampoo": jt.shampoo, "adamw": jt.adamw, "laprop": jt.laprop}.items()
        for what, function in {
            "learning_rate": lambda: 0.1,
            "weight_decay": lambda step, other: 0.1,
            "mask": lambda path, leaf: True,
        }.items()
    },
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_argument_raises_a_value_error_that_names_it(name: str) -> None:
    call, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        call()
