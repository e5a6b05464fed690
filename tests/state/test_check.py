"""Contract 10: state of another routing, another tree or another optimizer raises with the path and the way out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import jaxopt_tour as jt
from jaxopt_tour.optimizers._state_check import checked_chain, with_state_check
from tests.contenders import Contender, every_optimizer
from tests.contenders import make_params as three_params
from tests.state.problem import UP, make_params

PARAMS = make_params()
REROUTED = {UP: "other"}


def change(state: Any, function: Callable[[Any], Any]) -> Any:
    """The state with another array in place of every matrix."""
    return jax.tree.map(lambda leaf: function(leaf) if jnp.ndim(leaf) == 2 else leaf, state)


CASES = {
    "another routing": (jt.muon(0.1), lambda: jt.muon(0.1, routing=REROUTED).init(PARAMS), f"momentum of '{UP}'.*hole"),
    "another tree": (
        jt.muon(0.1),
        lambda: jt.muon(0.1).init({"blocks": {"1": PARAMS["blocks"]["0"]}}),
        f"'{UP}'.*missing",
    ),
    "another optimizer": (
        jt.adamw(0.1),
        lambda: jt.muon(0.1).init(PARAMS),
        "MultiTransformState.*expected 3 chained transformations",
    ),
    "another chain": (jt.adamw(0.1), lambda: jt.sgd(0.1).init(PARAMS), "2 chained transformations, expected 3"),
    "Optax's Adam": (jt.adamw(0.1), lambda: optax.adamw(0.1).init(PARAMS), "ScaleByAdamState.*expected AdamState"),
    "a sum, not an average": (
        jt.momentum(0.1, form="ema"),
        lambda: jt.momentum(0.1).init(PARAMS),
        r"MomentumState\(count, trace\), expected EmaMomentumState\(count, mu\)",
    ),
    "None": (jt.muon(0.1), lambda: change(jt.muon(0.1).init(PARAMS), lambda _: None), f"momentum of '{UP}'.*is None"),
    "empty": (
        jt.muon(0.1),
        lambda: change(jt.muon(0.1).init(PARAMS), lambda _: jnp.zeros(0)),
        rf"momentum of '{UP}'.*has shape \(0,\), expected \(6, 8\)",
    ),
    "transposed": (
        jt.adamw(0.1),
        lambda: change(jt.adamw(0.1).init(PARAMS), jnp.transpose),
        rf"'{UP}'.*shape \(8, 6\)",
    ),
    "narrower": (
        jt.adamw(0.1),
        lambda: change(jt.adamw(0.1).init(PARAMS), lambda leaf: leaf.astype(jnp.bfloat16)),
        f"'{UP}'.*dtype bfloat16, expected float32",
    ),
    "dictionaries": (
        jt.adamw(0.1),
        lambda: [{"count": 0, "mu": PARAMS, "nu": PARAMS}, None, None],
        "dict, expected AdamState",
    ),
    "one moment less": (
        jt.rmsprop(0.1, centered=True),
        lambda: jt.rmsprop(0.1).init(PARAMS),
        "mean of '.*'.*missing, expected an array",
    ),
    "one moment more": (
        jt.rmsprop(0.1),
        lambda: jt.rmsprop(0.1, centered=True).init(PARAMS),
        "and no parameter for it",
    ),
    "eps in the average": (
        jt.adamw(0.1),
        lambda: jt.eadam(0.1).init(PARAMS),
        r"EAdamState\(count, mu, nu_with_eps\), expected AdamState",
    ),
    "Shampoo's sums": (
        jt.shampoo(0.1),
        lambda: jt.shampoo(0.1, b2=None).init(PARAMS),
        r"ShampooSumState\(.*\), expected ShampooState",
    ),
    "Shampoo's roots": (
        jt.shampoo(0.1, update_every=2),
        lambda: jt.shampoo(0.1).init(PARAMS),
        "left_root of '.*'.*missing",
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_a_state_of_something_else_raises_with_the_path_and_the_way_out(name: str, compiled: bool):
    tx, make_state, found = CASES[name]
    update = jax.jit(tx.update) if compiled else tx.update
    with pytest.raises(ValueError, match=found) as error:
        update(PARAMS, make_state(), PARAMS)
    assert "jt.migrate_state(state, tx, params)" in str(error.value)


@every_optimizer
def test_every_optimizer_refuses_the_state_of_another(contender: Contender):
    params = three_params()
    other = jt.momentum(0.1) if contender.factory in (jt.adam, jt.adamw) else jt.adamw(0.1)
    if contender.name.startswith("interpolate"):  # chained by optax.chain, which counts its states first
        other = jt.sgd(0.1)
    with pytest.raises(ValueError, match="migrate_state"):
        contender().update(params, other.init(params), params)


@every_optimizer
def test_every_optimizer_refuses_the_state_of_another_tree(contender: Contender):
    if contender.factory in (jt.sgd, jt.signsgd) or "rest" in contender.arguments:
        pytest.skip("its state has nothing of the parameters, or nothing of those that are no matrices")
    params = three_params()
    state = contender().init({"up": params["up"]})
    with pytest.raises(ValueError, match=r"of 'gain'.* is missing"):
        contender().update(params, state, params)


def test_the_message_shows_three_arrays_and_counts_the_rest():
    state = jt.adamw(0.1).init({})
    with pytest.raises(ValueError, match="; and 5 more"):
        jt.adamw(0.1).update(PARAMS, state, PARAMS)


def test_a_compiled_step_is_the_same_program_with_and_without_the_check(monkeypatch: pytest.MonkeyPatch):
    def program() -> str:
        tx = jt.adamw(0.1)
        return str(jax.make_jaxpr(tx.update)(PARAMS, tx.init(PARAMS), PARAMS))

    checked = program()
    monkeypatch.setattr("jaxopt_tour.optimizers._state_check._is_own_state", lambda *_: False)
    assert program() == checked


def test_code_that_is_not_compiled_traces_init_once():
    traces = []

    def init(params: Any) -> Any:
        traces.append(params)
        return inner.init(params)

    inner = jt.scale_by_adam()
    tx = jt.multi_transform({"matrix": jt.scale_by_adam(), "other": inner._replace(init=init)})
    params = {"gain": jnp.asarray(1.0)}
    state = tx.init(params)
    for _ in range(3):
        _, state = tx.update(params, state, params)
    assert len(traces) == 2, "init, and the first check"


def test_a_wider_accumulator_than_that_of_init_is_accepted():
    tx = jt.adamw(0.1, mu_dtype="bfloat16")
    jax.eval_shape(tx.update, PARAMS, jt.adamw(0.1).init(PARAMS), PARAMS)


def test_a_gradient_may_be_missing_where_no_parameters_are_passed():
    tx = jt.scale_by_adam()
    block = PARAMS["blocks"]["0"]
    gradients = {"blocks": {"0": {**block, "up": {**block["up"], "bias": None}}}}
    updates, state = tx.update(gradients, tx.init(PARAMS))
    assert updates["blocks"]["0"]["up"]["bias"] is None
    assert state.mu["blocks"]["0"]["up"]["bias"].shape == (8,)


def test_a_transformation_whose_init_needs_values_is_not_checked():
    def init(params: Any) -> Any:
        assert all(float(jnp.sum(leaf)) is not None for leaf in jax.tree.leaves(params))
        return optax.EmptyState()

    concrete = optax.GradientTransformation(init, lambda updates, state, params=None: (updates, state))
    tx = jt.muon(0.1, rest=concrete)
    tx.update(PARAMS, tx.init(PARAMS), PARAMS)


UNRELATED = {
    "sgd": (jt.sgd, {}, {"l2": 0.1}),
    "momentum": (jt.momentum, {}, {"nesterov": True, "l2": 0.1, "beta": 0.5}),
    "adam": (jt.adam, {}, {"nesterov": True, "bias_correction": False, "l2": 0.1}),
    "adamw": (jt.adamw, {}, {"weight_decay": 0.0, "cautious": True}),
    "adamw, scheduled decay": (jt.adamw, {}, {"weight_decay": optax.constant_schedule(0.1)}),
    "rmsprop": (jt.rmsprop, {}, {"bias_correction": True, "eps_in_sqrt": True}),
    "muon": (jt.muon, {}, {"orthogonalizer": "fast", "shape_factor": None, "nesterov": False, "weight_decay": 0.0}),
    "shampoo": (jt.shampoo, {}, {"b2": 0.9, "root": 2, "bias_correction": False, "shape_factor": "original"}),
}


@pytest.mark.parametrize("name", UNRELATED)
def test_a_rate_that_becomes_a_schedule_and_an_unrelated_option_leave_the_tree(name: str):
    factory, before, after = UNRELATED[name]
    states = [
        jax.eval_shape(tx.init, PARAMS)
        for tx in (
            factory(0.1, **before),
            factory(optax.constant_schedule(0.1), **before),
            factory(0.1, **after),
            factory(optax.constant_schedule(0.1), **after),
        )
    ]
    for state in states[1:]:
        assert jax.tree.structure(state) == jax.tree.structure(states[0])
        assert jax.tree.leaves(state) == jax.tree.leaves(states[0])
    tx = factory(optax.constant_schedule(0.1), **after)
    jax.eval_shape(tx.update, PARAMS, states[0], PARAMS)


def test_a_trace_makes_the_state_once_for_all_transformations_in_each_other():
    made = []

    def init(params: Any) -> optax.EmptyState:
        made.append(params)
        return optax.EmptyState()

    counting = optax.GradientTransformation(init, lambda updates, state, params=None: (updates, state))
    tx = jt.multi_transform(
        {"other": checked_chain(jt.scale_by_adam(), with_state_check(counting))}, lambda *_: "other"
    )
    state = tx.init(PARAMS)
    made.clear()
    jax.jit(tx.update).lower(PARAMS, state, PARAMS)
    assert len(made) == 1
