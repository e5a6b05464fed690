"""A run goes on after any change of optimizer and routing without a jump in its loss."""

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

#: Optimizers at rates at which the loss falls; those of matrices with several routings.
RUNS: dict[str, Any] = {
    "sgd": lambda: jt.sgd(0.03),
    "momentum": lambda: jt.momentum(0.01),
    "momentum_ema": lambda: jt.momentum(0.1, form="ema"),
    "adagrad": lambda: jt.adagrad(0.02),
    "adadelta": lambda: jt.adadelta(0.1),
    "rmsprop": lambda: jt.rmsprop(3e-3),
    "adam": lambda: jt.adam(3e-3),
    "adamw": lambda: jt.adamw(3e-3, b2=0.95),
    "laprop": lambda: jt.laprop(3e-3),
    "muon": lambda: jt.muon(3e-3, routing=BOTH),
    "muon, up alone": lambda: jt.muon(3e-3, routing=UP_ALONE),
    "muon, down alone": lambda: jt.muon(3e-3, routing=DOWN_ALONE),
    "shampoo": lambda: jt.shampoo(3e-3, routing=BOTH),
    "shampoo, up alone": lambda: jt.shampoo(3e-3, routing=UP_ALONE, update_every=3),
}


@functools.cache
def run_of(name: str) -> tuple[Any, Any]:
    tx = RUNS[name]()
    return tx, train(tx, STEPS)


@functools.cache
def after_a_while(name: str) -> tuple[Any, Any, float]:
    """Parameters and state after 200 steps, and the last loss: bias corrections of first moments have ended."""
    tx, run = run_of(name)
    params = make_params()
    state = tx.init(params)
    for _ in range(10):
        params, state, losses = run(params, state)
    return params, state, float(losses[-1])


def worst_after(old: str, new: str) -> float:
    """The largest loss of the migrated run, relative to the last before."""
    params, state, before = after_a_while(old)
    tx, run = run_of(new)
    state = jt.migrate_state(state, tx, params, beta=0.9).state
    return float(np.max(run(params, state)[2])) / before


PAIRS = random.Random(0).sample([*itertools.product(RUNS, RUNS)], 100)


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS, ids=" to ".join)
def test_the_loss_does_not_jump(pair: tuple[str, str]):
    assert worst_after(*pair) < 1.05


@pytest.mark.parametrize("pair", [("momentum", "adam"), ("muon", "muon, up alone")], ids=" to ".join)
def test_the_loss_does_not_jump_where_a_form_or_a_route_changes(pair: tuple[str, str]):
    assert worst_after(*pair) < 1.05


@pytest.mark.slow
def test_a_second_moment_of_zero_would_let_it_jump():
    params, state, before = after_a_while("muon")
    tx, run = run_of("adam")
    adam = jt.migrate_state(state, tx, params).state
    zeros = adam[1]._replace(nu=jax.tree.map(np.zeros_like, adam[1].nu))
    assert float(np.max(run(params, (adam[0], zeros, adam[2]))[2])) / before > 1.05
