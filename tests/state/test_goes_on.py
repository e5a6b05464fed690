"""A run goes on after any change of optimizer and routing, and its loss does not rise."""

from __future__ import annotations

import functools
import itertools
import random
from typing import Any

import jax
import numpy as np
import pytest

import jaxopt_tour as jt
from tests.state.problem import DOWN, UP, make_params, train

STEPS = 20
UP_ALONE, DOWN_ALONE, BOTH = {DOWN: "other"}, {UP: "other"}, None

#: Optimizers at rates at which they come to rest within 300 steps; those of matrices with several routings.
RUNS: dict[str, Any] = {
    "sgd": lambda: jt.sgd(0.1),
    "momentum": lambda: jt.momentum(0.02),
    "adagrad": lambda: jt.adagrad(0.1),
    "adadelta": lambda: jt.adadelta(1.0),
    "rmsprop": lambda: jt.rmsprop(0.01),
    "adam": lambda: jt.adam(0.02),
    "adamw": lambda: jt.adamw(0.02, b2=0.95),
    "laprop": lambda: jt.laprop(0.02),
    "muon": lambda: jt.muon(0.05, routing=BOTH),
    "muon, up alone": lambda: jt.muon(0.05, routing=UP_ALONE),
    "shampoo, down alone": lambda: jt.shampoo(0.05, routing=DOWN_ALONE, update_every=3),
}


@functools.cache
def run_of(name: str) -> tuple[Any, Any]:
    tx = RUNS[name]()
    return tx, train(tx, STEPS)


@functools.cache
def at_rest(name: str) -> tuple[Any, Any, float]:
    """Parameters and state after 300 steps, and the largest loss of the last steps."""
    tx, run = run_of(name)
    params = make_params()
    state = tx.init(params)
    for key in jax.random.split(jax.random.key(0), 300 // STEPS):
        params, state, losses = run(params, state, key)
    return params, state, float(np.max(losses))


def worst_loss(new: str, params: Any, state: Any) -> float:
    return float(np.max(run_of(new)[1](params, state, jax.random.key(1))[2]))


def rises(old: str, new: str) -> bool:
    """Whether a migrated run gets above both optimizers at rest, and above a new start of the new one.

    A margin of 15 %: the noise of 20 steps.
    """
    params, state, before = at_rest(old)
    tx, _ = run_of(new)
    migrated = worst_loss(new, params, jt.migrate_state(state, tx, params, beta=0.9).state)
    allowed = max(before, at_rest(new)[2])
    return migrated > 1.15 * allowed and migrated > 1.15 * worst_loss(new, params, tx.init(params))


PAIRS = random.Random(0).sample([*itertools.product(RUNS, RUNS)], 100)


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS, ids=" to ".join)
def test_the_loss_does_not_rise(pair: tuple[str, str]):
    assert not rises(*pair)


def test_the_loss_does_not_rise_where_a_sum_becomes_an_average_and_squares_are_estimated():
    assert not rises("momentum", "adam")


@pytest.mark.slow
@pytest.mark.parametrize(("old", "new", "times"), [("muon", "adam", 10), ("muon, up alone", "muon", 3)])
def test_the_loss_would_rise_if_second_moments_started_at_zero(old: str, new: str, times: float):
    params, state, before = at_rest(old)
    state = jt.migrate_state(state, run_of(new)[0], params).state
    has_squares = lambda node: "nu" in getattr(node, "_fields", ())  # noqa: E731
    zeros = jax.tree.map(
        lambda node: node._replace(nu=jax.tree.map(np.zeros_like, node.nu)) if has_squares(node) else node,
        state,
        is_leaf=has_squares,
    )
    assert worst_loss(new, params, zeros) > times * max(before, at_rest(new)[2])
