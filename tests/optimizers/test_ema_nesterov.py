"""EMA-Nesterov against the authors' form with two copies of the parameters, and its laws."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_tour as jt
from tests import test_composition as composition
from tests import test_contract as contract
from tests.agreement import STEPS, follow, replay
from tests.contenders import Contender
from tests.references import ema_nesterov_by_hand

CURVATURES = np.array([1.0, 0.1, 0.02])


def gradient(x: Any) -> Any:
    return CURVATURES * x


def descend(tx: optax.GradientTransformation, start: np.ndarray, steps: int = STEPS) -> tuple[Any, Any]:
    """Where gradients are taken, and what is evaluated, after every step."""

    def step(carry: Any, _: None) -> Any:
        y, state = carry
        u, state = tx.update(gradient(y), state, y)
        y = optax.apply_updates(y, u)
        return (y, state), (y, jt.ema_nesterov_params(state, y))

    return jax.jit(lambda y: jax.lax.scan(step, (y, tx.init(y)), length=steps)[1])(jnp.asarray(start))


@pytest.mark.parametrize(
    ("beta", "gamma"),
    [
        (lambda t: 0.8, 0.9),
        (lambda t: -0.5, 0.9),
        (lambda t: jnp.where((t >= 10) & (t < 40), 0.9 * (1 - t / 50), 0.0), 0.8),
    ],
    ids=["constant", "negative", "on and off"],
)
def test_agrees_with_the_form_of_the_authors(beta: Any, gamma: float, x64: None) -> None:
    start = np.array([1.0, -2.0, 3.0])
    ys, xs = descend(jt.ema_nesterov(jt.sgd(0.5), beta, gamma=gamma), start)
    by_hand = ema_nesterov_by_hand(start, gradient, STEPS, 0.5, lambda t: float(beta(t)), gamma)
    # beta is a float32 number in the state: 6e-8 of a look-ahead of size one.
    for ours, expected in zip((ys, xs), by_hand, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("inner", [jt.adamw(0.02), jt.momentum(0.02)], ids=["adamw", "momentum"])
def test_without_a_look_ahead_it_is_the_inner_optimizer_bit_for_bit(inner: Any) -> None:
    theta, gradients = jax.tree.map(np.float32, replay())
    wrapped, plain = (follow(tx, theta, gradients) for tx in (jt.ema_nesterov(inner, 0.0), inner))
    jax.tree.map(np.testing.assert_array_equal, wrapped, plain)


@pytest.mark.parametrize("beta", [0.6, -0.5])
def test_equal_steps_become_longer_by_one_over_one_minus_beta(beta: float, x64: None) -> None:
    tx = jt.ema_nesterov(jt.sgd(0.1), beta, gamma=0.9)
    path = follow(tx, jnp.zeros(2), np.ones((400, 2)))
    # The average forgets at the rate 0.9 + 0.1 beta, 0.96 at most: 1e-7 is left after 400 steps.
    np.testing.assert_allclose(path[-1] - path[-2], -0.1 / (1 - beta), rtol=1e-5)


def test_a_tail_average_inside_averages_what_is_evaluated(x64: None) -> None:
    tx = jt.ema_nesterov(optax.chain(jt.sgd(0.5), jt.tail_average(1, 1.0)), 0.8, gamma=0.9)
    y = jnp.ones(3)
    state = tx.init(y)
    for _ in range(3):
        u, state = tx.update(gradient(y), state, y)
        y = optax.apply_updates(y, u)
    x = jt.ema_nesterov_params(state, y)
    assert np.abs(x - y).max() > 0.01
    np.testing.assert_allclose(jt.tail_average_params(state, y, 1.0), x, rtol=1e-6)


def ahead_of_adamw(learning_rate: optax.ScalarOrSchedule, beta: float = 0.5) -> Any:
    return jt.ema_nesterov(jt.adamw(learning_rate), beta, gamma=0.9)


#: The promises that a wrapper keeps whose updates go on when the rate is zero.
PROMISES = [
    contract.test_the_state_is_arrays_like_the_parameters_and_an_int32_count,
    contract.test_the_count_counts_and_stops_at_its_end,
    contract.test_structure_and_dtypes_of_the_state_never_change,
    contract.test_an_unknown_keyword_is_ignored,
    contract.test_it_compiles_once,
    contract.test_parameters_and_state_can_be_donated,
    composition.test_a_step_with_nan_can_be_left_out,
    contract.test_dtypes_can_be_mixed_and_gradients_wider_than_parameters,
]


@pytest.mark.parametrize("promise", PROMISES)
def test_the_contract_holds(promise: Any) -> None:
    promise(Contender("ema_nesterov", ahead_of_adamw, 0.1))


def test_map_params_finds_the_average_step() -> None:
    tx = ahead_of_adamw(0.1)
    state = tx.init({"bias": jnp.ones(3)})
    marked = optax.tree.map_params(tx, lambda leaf: "params", state, transform_non_params=lambda leaf: "other")
    assert marked.look_ahead.trend == {"bias": "params"} and marked.look_ahead.beta == "other"


def test_gradients_that_are_none_stay_none() -> None:
    tx = jt.ema_nesterov(jt.sgd(0.1), 0.5)
    params = {"a": jnp.ones(2), "b": jnp.ones(3)}
    updates, state = tx.update({"a": jnp.ones(2), "b": None}, tx.init(params), params)
    assert updates["b"] is None and not state.look_ahead.trend["b"].any()


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: jt.ema_nesterov(0.1), "inner"),  # type: ignore[arg-type]
        (lambda: jt.ema_nesterov(jt.sgd(0.1), "fast"), "beta"),  # type: ignore[arg-type]
        (lambda: jt.ema_nesterov(jt.sgd(0.1), float("nan")), "beta"),
        (lambda: jt.ema_nesterov(jt.sgd(0.1), 1.0), "beta must be a number < 1"),
        (lambda: jt.ema_nesterov(jt.sgd(0.1), lambda: 0.1), "beta"),  # type: ignore[misc, arg-type]
        (lambda: jt.ema_nesterov(jt.sgd(0.1), gamma=1.0), "gamma"),
        (lambda: jt.ema_nesterov(jt.sgd(0.1), mu_dtype="int8"), "mu_dtype"),
        (lambda: jt.ema_nesterov_params(jt.sgd(0.1).init(jnp.ones(2)), jnp.ones(2)), "LookAheadState, got 0"),
    ],
)
def test_wrong_arguments_are_named(call: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        call()
