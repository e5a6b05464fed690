"""Proximal decay against the minimization that defines it, and its laws."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_tour as jt
from tests.agreement import replay


def prox_by_hand(theta: np.ndarray, eta: float, l1: float, l2: float) -> np.ndarray:
    """Soft thresholding, then shrinking, an entry at a time."""
    result = np.zeros_like(theta)
    for index, x in np.ndenumerate(theta):
        result[index] = np.sign(x) * max(abs(x) - eta * l1, 0) / (1 + eta * l2)
    return result


def test_agrees_with_the_operator_by_hand_under_schedules(x64: None) -> None:
    theta, gradients = replay(steps=6)
    rate = lambda count: 0.1 / (1 + count)  # noqa: E731
    tx = optax.chain(optax.sgd(rate), jt.proximal_decay(rate, l1=lambda count: 0.5 * count, weight_decay=0.3))
    params, state, update = jax.tree.map(jnp.asarray, theta), tx.init(theta), jax.jit(tx.update)
    for t in range(6):
        g = jax.tree.map(lambda x, t=t: x[t], gradients)
        updates, state = update(g, state, params)
        params = optax.apply_updates(params, updates)
        theta = {
            name: prox_by_hand(np.asarray(x - rate(t) * g[name]), rate(t), 0.5 * t, 0.3) for name, x in theta.items()
        }
        for name, expected in theta.items():
            np.testing.assert_allclose(params[name], expected, rtol=1e-9, atol=1e-12)


def test_it_is_the_minimum_that_defines_it() -> None:
    eta, l1, l2, theta, u = 0.3, 0.7, 0.4, 1.1, -0.2
    tx = jt.proximal_decay(eta, l1=l1, weight_decay=l2)
    found = theta + float(tx.update(jnp.float32(u), tx.init(0.0), jnp.float32(theta))[0])
    grid = np.linspace(-2, 2, 400_001)
    objective = eta * (l1 * np.abs(grid) + l2 / 2 * grid**2) + (grid - theta - u) ** 2 / 2
    assert abs(grid[objective.argmin()] - found) < 2e-5


def test_l1_finds_the_zeros_of_a_sparse_regression_and_a_gradient_does_not() -> None:
    rng = np.random.default_rng(0)
    truth = np.where(np.arange(20) < 4, 1.0, 0.0)
    x = jnp.float32(rng.normal(size=(64, 20)))
    y = x @ jnp.float32(truth) + 0.1 * jnp.float32(rng.normal(size=64))

    def end(tx: optax.GradientTransformation, penalty: float) -> jax.Array:
        def step(carry, _):
            w, state = carry
            g = jax.grad(lambda w: jnp.mean((x @ w - y) ** 2) + penalty * jnp.abs(w).sum())(w)
            updates, state = tx.update(g, state, w)
            return (optax.apply_updates(w, updates), state), None

        return jax.lax.scan(step, (jnp.ones(20), tx.init(jnp.ones(20))), length=400)[0][0]

    chain = optax.chain(optax.sgd(0.05), jt.proximal_decay(0.05, l1=0.1))
    proximal, gradient = jax.jit(lambda: (end(chain, 0.0), end(optax.sgd(0.05), 0.1)))()
    np.testing.assert_array_equal(proximal == 0, truth == 0)
    assert not (gradient == 0).any()


def test_the_squared_part_is_decoupled_decay_to_first_order_and_stable_beyond() -> None:
    theta, u = jnp.array([1.0, -2.0, 3.0]), jnp.array([0.1, 0.1, 0.0])
    for decay in (1e-3, 1e3):
        tx = jt.proximal_decay(0.1, weight_decay=decay)
        after = theta + tx.update(u, tx.init(theta), theta)[0]
        np.testing.assert_allclose(after, (theta + u) / (1 + 0.1 * decay), rtol=1e-4, atol=1e-6)
        if decay < 1:
            assert jnp.abs(after - ((1 - 0.1 * decay) * theta + u)).max() < 2e-5


def test_without_a_penalty_the_update_is_bit_for_bit_what_came_in_and_the_mask_is_kept() -> None:
    params = {"up": {"kernel": jnp.full((2, 3), 0.37), "bias": jnp.full(3, 0.01)}, "frozen": None}
    updates = {"up": {"kernel": jnp.full((2, 3), 1e-9), "bias": jnp.full(3, 1e-9)}, "frozen": None}
    tx = jt.proximal_decay(0.1)
    jax.tree.map(np.testing.assert_array_equal, tx.update(updates, tx.init(params), params)[0], updates)
    tx = jt.proximal_decay(0.1, l1=1.0, mask="matrices")
    masked, _ = tx.update(updates, tx.init(params), params)
    np.testing.assert_array_equal(masked["up"]["bias"], updates["up"]["bias"])
    np.testing.assert_allclose(masked["up"]["kernel"], -0.1, rtol=1e-6)


def test_wrong_calls_are_named() -> None:
    for arguments in ({"l1": -1.0}, {"weight_decay": -1.0}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            jt.proximal_decay(0.1, **arguments)
    tx = jt.proximal_decay(0.1, l1=1.0)
    with pytest.raises(ValueError, match="params"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
