"""A wrong argument of an optimizer is a ValueError that names it, and what is allowed; only the rate is positional."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import optax
import pytest

import jaxopt_tour as jt
from tests.contenders import Contender, every_optimizer, make_gradients, make_params


@every_optimizer
@pytest.mark.parametrize("rate", [-1.0, float("nan"), float("inf"), "fast", None, np.ones(2)], ids=repr)
def test_a_wrong_rate_is_named(contender: Contender, rate: Any):
    with pytest.raises(ValueError, match="learning_rate"):
        contender.factory(rate, **contender.arguments)


WRONG = [
    (jt.sgd, {"l2": -0.1}),
    (jt.momentum, {"beta": -0.1}),
    (jt.momentum, {"beta": 1.0}),
    (jt.momentum, {"form": "average"}),
    (jt.momentum, {"nesterov": "yes"}),
    (jt.momentum, {"mu_dtype": "int32"}),
    (jt.nesterov, {"beta": 1.5}),
    (jt.nesterov, {"form": None}),
    (jt.adagrad, {"eps": -1.0}),
    (jt.adagrad, {"initial_accumulator": -1.0}),
    (jt.adadelta, {"beta": 1.0}),
    (jt.adadelta, {"eps": -1e-6}),
    (jt.adadelta, {"nu_dtype": "int32"}),
    (jt.rmsprop, {"beta": 1.0}),
    (jt.rmsprop, {"eps": float("nan")}),
    (jt.rmsprop, {"momentum": -0.5}),
    (jt.rmsprop, {"initial_scale": -1.0}),
    (jt.rmsprop, {"centered": 1}),
    (jt.signum, {"beta": 2.0}),
    (jt.signsgd, {"weight_decay": -1.0}),
    (jt.adam, {"b1": 1.0}),
    (jt.adam, {"b2": -0.1}),
    (jt.adam, {"eps": -1e-8}),
    (jt.adam, {"eps_root": -1e-8}),
    (jt.adam, {"initial_moments": "ones"}),
    (jt.adam, {"bias_correction": None}),
    (jt.adam, {"mu_dtype": "float31"}),
    (jt.adam, {"l2": float("nan")}),
    (jt.adamw, {"weight_decay": -1e-4}),
    (jt.adamw, {"b1": "0.9"}),
    (jt.adamw, {"cautious": 2}),
    (jt.laprop, {"b2": 1.0}),
    (jt.eadam, {"eps": -1.0}),
    (jt.lion, {"b1": 1.0}),
    (jt.lion, {"b2": -0.1}),
    (jt.lion, {"weight_decay": -1.0}),
    (jt.lion, {"mu_dtype": "int32"}),
    (jt.adamh, {"b1": 1.0}),
    (jt.adamh, {"b2": 1.0}),
    (jt.adamh, {"eps": -1.0}),
    (jt.adamh, {"mu_dtype": "int8"}),
    (jt.adamh, {"rest": 3}),
    (jt.adamh, {"mesh": ()}),
    (jt.muown, {"b2": 1.0}),
    (jt.muown, {"shape_factor": "muon"}),
    (jt.dion2, {"fraction": 0.0}),
    (jt.dion2, {"decay": 1.0}),
    (jt.muonh, {"beta": 1.0}),
    (jt.muonh, {"nesterov": "yes"}),
    (jt.muonh, {"orthogonalizer": "newton"}),
    (jt.muonh, {"mu_dtype": "int8"}),
    (jt.muonh, {"routing": 3.0}),
    (jt.muon, {"weight_decay": -1.0}),
    (jt.muon, {"beta": 1.0}),
    (jt.muon, {"nesterov": "yes"}),
    (jt.muon, {"bias_correction": 3}),
    (jt.muon, {"orthogonalizer": "newton"}),
    (jt.muon, {"shape_factor": "square"}),
    (jt.muon, {"mu_dtype": "int8"}),
    (jt.muon, {"cautious": "yes"}),
    (jt.muon, {"mask": True}),
    (jt.muon, {"mask": "matrix"}),
    (jt.adamw, {"mask": "matrix"}),
    (jt.muon, {"rest": 3}),
    (jt.muon, {"rest": {"heads": jt.adamw(0.1)}}),
    (jt.muon, {"routing": 3.0}),
    (jt.muon, {"mesh": ()}),
    (jt.normuon, {"weight_decay": -1.0}),
    (jt.normuon, {"beta": 1.0}),
    (jt.normuon, {"b2": 1.0}),
    (jt.normuon, {"along": "rows"}),
    (jt.normuon, {"orthogonalizer": "newton"}),
    (jt.normuon, {"shape_factor": "square"}),
    (jt.normuon, {"mu_dtype": "int8"}),
    (jt.normuon, {"mesh": ()}),
    (jt.scion, {"radius": -1.0}),
    (jt.scion, {"norms": {"head": "sign"}}),
    (jt.scion, {"constrained": 1}),
    (jt.scion, {"beta": 1.0}),
    (jt.scion, {"orthogonalizer": "newton"}),
    (jt.scion, {"mu_dtype": "int8"}),
    (jt.scion, {"routing": 3.0}),
    (jt.scion, {"mesh": ()}),
    (jt.shampoo, {"weight_decay": -1.0}),
    (jt.shampoo, {"beta": 1.0}),
    (jt.shampoo, {"nesterov": "yes"}),
    (jt.shampoo, {"b2": 1.0}),
    (jt.shampoo, {"root": 1}),
    (jt.shampoo, {"eps": -1.0}),
    (jt.shampoo, {"bias_correction": 3}),
    (jt.shampoo, {"update_every": 0}),
    (jt.shampoo, {"shape_factor": "square"}),
    (jt.shampoo, {"mu_dtype": "int8"}),
    (jt.shampoo, {"nu_dtype": "float16"}),
    (jt.shampoo, {"mask": True}),
    (jt.shampoo, {"rest": {"matrix": jt.adamw(0.1)}}),
    (jt.soap, {"weight_decay": -1.0}),
    (jt.soap, {"b1": 1.0}),
    (jt.soap, {"update_every": 0}),
    (jt.soap, {"max_size": 2.5}),
    (jt.soap, {"mu_dtype": "int8"}),
    (jt.soap_muon, {"weight_decay": -1.0}),
    (jt.soap_muon, {"beta": 1.0}),
    (jt.soap_muon, {"b2": 1.0}),
    (jt.soap_muon, {"orthogonalizer": "newton"}),
    (jt.soap_muon, {"shape_factor": "square"}),
    (jt.soap_muon, {"mesh": jt.OnMesh("fsdp", layouts={})}),
]


@pytest.mark.parametrize(
    ("factory", "arguments"),
    WRONG,
    ids=[f"{factory.__name__} {next(iter(a))} {number}" for number, (factory, a) in enumerate(WRONG)],
)
def test_a_wrong_argument_is_named(factory: Callable[..., Any], arguments: dict[str, Any]):
    (name,) = arguments
    with pytest.raises(ValueError, match=name):
        factory(0.1, **arguments).init(make_params())


@pytest.mark.parametrize(
    ("factory", "known"),
    [
        (lambda: jt.momentum(0.1, form="average"), ("sum", "ema")),
        (lambda: jt.adam(0.1, initial_moments="ones"), ("zeros", "first_gradient")),
        (lambda: jt.muon(0.1, shape_factor="square"), ("original", "match_rms_adamw", "spectral")),
        (lambda: jt.muon(0.1, orthogonalizer="newton"), ("keller_jordan", "polar_express")),
    ],
    ids=["form", "initial_moments", "shape_factor", "orthogonalizer"],
)
def test_an_unknown_choice_lists_the_known_ones(factory: Callable[[], Any], known: tuple[str, ...]):
    with pytest.raises(ValueError) as error:
        factory()
    assert all(choice in str(error.value) for choice in known)


@pytest.mark.parametrize(
    ("leaf", "entry"),
    [
        ("up/bias", "matrix"),
        ("gain", "matrix"),
        ("up/bias", jt.MatrixAxes(0, 1)),
        ("up/kernel", jt.MatrixAxes(0, 2)),
        ("up/weight", "matrix"),
        ("up/kernel", 3),
    ],
    ids=["a vector", "a scalar", "a vector with axes", "an axis that does not exist", "no such leaf", "no such entry"],
)
def test_what_cannot_be_routed_is_named_by_its_path(leaf: str, entry: Any):
    with pytest.raises(ValueError, match=leaf):
        jt.muon(0.1, routing={leaf: entry}).init(make_params())


def test_a_label_without_a_transformation_is_named():
    params = make_params()
    labels = {"up": {"kernel": "matrices", "bias": "vectors"}, "gain": "vectors"}
    with pytest.raises(ValueError, match="matrices"):
        jt.multi_transform({"vectors": jt.adam(0.1)}, labels).init(params)


@pytest.mark.parametrize(
    ("factory", "argument"),
    [(jt.sgd, "l2"), (jt.adam, "l2"), (jt.adamw, "weight_decay"), (jt.muon, "weight_decay")],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_decay_asks_for_the_parameters(factory: Callable[..., optax.GradientTransformation], argument: str):
    params = make_params()
    tx = factory(0.1, **{argument: 0.1})
    with pytest.raises(ValueError, match="params"):
        tx.update(make_gradients(params), tx.init(params))


def positional(factory: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(factory).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is not parameter.KEYWORD_ONLY]


@pytest.mark.parametrize(
    "factory",
    [jt.sgd, jt.momentum, jt.nesterov, jt.adagrad, jt.adadelta, jt.rmsprop, jt.signsgd, jt.signum],
    ids=lambda factory: factory.__name__,
)
def test_only_the_learning_rate_is_positional(factory: Callable[..., Any]):
    assert positional(factory) == ["learning_rate"]


@pytest.mark.parametrize(
    "factory", [jt.adam, jt.adamw, jt.laprop, jt.eadam, jt.adamh], ids=lambda factory: factory.__name__
)
def test_positions_are_those_of_optax_adamw(factory: Callable[..., Any]):
    names = positional(factory)
    assert names == positional(optax.adamw)[: len(names)]


def test_positions_of_lion_are_those_of_optax():
    assert positional(jt.lion) == positional(optax.lion)[:3]
