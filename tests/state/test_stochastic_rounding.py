"""Rounding at random: two neighbors, the right probabilities, and a mean that moves by the update."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_tour as jt
from jaxopt_tour.state.rounding import round_stochastically
from tests.contenders import make_gradients, make_params

half_precision = pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
SAMPLES = 2**14
rounded = jax.jit(round_stochastically, static_argnums=2)


def neighbors(x: np.float32, dtype) -> tuple[float, float]:
    """The largest number of the dtype that is at most x, and the smallest that is at least x."""
    nearest = np.asarray(x).astype(dtype)
    if float(nearest) == float(x):
        return float(x), float(x)
    other = np.nextafter(nearest, dtype(np.inf if float(nearest) < float(x) else -np.inf))
    return tuple(sorted((float(nearest), float(other))))


@half_precision
@pytest.mark.parametrize(
    "x", [1.001, -1.001, 0.999, 3.14159, -0.0123, 1e-5, 5.2e-6, -1000.3, 0.0, 1.5, 2.0**-14 * 0.9999]
)
def test_a_number_becomes_one_of_its_neighbors_as_often_as_it_is_near(dtype, x: float) -> None:
    x = np.float32(x)
    low, high = neighbors(x, dtype)
    draws = np.asarray(rounded(jax.random.key(0), jnp.full((SAMPLES,), x), dtype))
    assert set(np.unique(draws)) <= {np.float32(low), np.float32(high)}
    if low == high:
        return
    share = (float(x) - low) / (high - low)
    # Five standard deviations of a share of SAMPLES draws: a wrong probability of 0.02 fails.
    assert abs((draws == np.float32(high)).mean() - share) < 5 * np.sqrt(share * (1 - share) / SAMPLES) + 1e-12


@half_precision
def test_the_mean_is_the_number_over_many_numbers(dtype) -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((200, 1)) * 2.0 ** rng.uniform(-20, 10, (200, 1))).astype(np.float32)
    draws = np.asarray(rounded(jax.random.key(1), jnp.broadcast_to(x, (200, SAMPLES)), dtype), np.float64)
    spacing = np.array([np.subtract(*neighbors(value, dtype)[::-1]) for value in x[:, 0]])
    # A draw deviates by at most the spacing, with standard deviation at most half of it.
    assert (np.abs(draws.mean(1) - x[:, 0]) <= 5 * spacing / 2 / np.sqrt(SAMPLES)).all()


def test_numbers_that_the_dtype_holds_stay_and_so_do_infinities_and_nan() -> None:
    x = jnp.asarray([1.0, -0.5, 0.0, 2.0**-24, jnp.inf, -jnp.inf, jnp.nan], jnp.float32)
    for dtype in (jnp.bfloat16, jnp.float16):
        np.testing.assert_array_equal(rounded(jax.random.key(0), x, dtype), x)


def train(tx, params, steps: int = 200):
    def body(carry, _):
        params, state = carry
        updates, state = tx.update(jax.tree.map(jnp.ones_like, params), state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.jit(lambda p: jax.lax.scan(body, (p, tx.init(p)), length=steps)[0][0])(params)


def test_small_updates_move_weights_in_expectation() -> None:
    """Two hundred steps of -0.0005 take weights of 1 to 0.9 on average, and to 1 without."""
    params = {"w": jnp.ones(10_000, jnp.bfloat16)}
    assert (train(jt.sgd(5e-4), params)["w"] == 1).all()
    moved = np.asarray(train(jt.with_stochastic_rounding(jt.sgd(5e-4), 0), params)["w"], np.float64)
    # A step's variance is at most 0.0005 times the spacing of 0.004: over 200 steps a deviation of 0.02 a weight.
    assert abs(moved.mean() - 0.9) < 5 * 0.02 / np.sqrt(moved.size)
    assert moved.std() < 0.03


def test_the_key_decides_everything() -> None:
    params = make_params(jnp.bfloat16)

    def result(key):
        tx = jt.with_stochastic_rounding(jt.sgd(1e-3), key)
        updates, state = jax.jit(tx.update)(make_gradients(params), tx.init(params), params)
        return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(optax.apply_updates(params, updates))], state

    first, state = result(jax.random.key(3))
    assert first == result(3)[0] == result(jax.random.PRNGKey(3))[0] != result(4)[0]
    assert state.count.dtype == jnp.int32 and int(state.count) == 1
    assert all(isinstance(leaf, jax.Array) and leaf.dtype != "key<fry>" for leaf in jax.tree.leaves(state))


def test_entries_parameters_and_steps_draw_different_numbers() -> None:
    tx = jt.with_stochastic_rounding(jt.sgd(1e-3), 0)
    params = {"a": jnp.ones(1000, jnp.bfloat16), "b": jnp.ones(1000, jnp.bfloat16)}
    state = tx.init(params)
    draws = []
    for _ in range(2):
        updates, state = tx.update(jax.tree.map(jnp.ones_like, params), state, params)
        draws += [np.asarray(updates["a"]) != 0, np.asarray(updates["b"]) != 0]
    for i, one in enumerate(draws):
        assert 0.15 < one.mean() < 0.4  # 0.001 / 0.0039 is 0.256
        assert not any((one == other).all() for other in draws[:i])


@half_precision
def test_applied_updates_give_numbers_next_to_the_float32_sum(dtype) -> None:
    rng = np.random.default_rng(0)
    params = jnp.asarray(rng.standard_normal(2000), dtype)
    g = jnp.asarray(rng.standard_normal(2000), jnp.float32)
    tx = jt.with_stochastic_rounding(jt.sgd(0.01), 5)
    updates, _ = jax.jit(tx.update)(g, tx.init(params), params)
    moved = optax.apply_updates(params, updates)
    exact = np.asarray(params, np.float32) + np.float32(-0.01) * np.asarray(g)
    for value, x in zip(np.asarray(moved), exact, strict=True):
        assert float(value) in neighbors(x, dtype)


def test_float32_parameters_are_not_rounded() -> None:
    params = make_params()
    tx, plain = jt.with_stochastic_rounding(jt.sgd(1e-2), 0), jt.sgd(1e-2)
    g = make_gradients(params)
    for a, b in zip(
        jax.tree.leaves(tx.update(g, tx.init(params), params)[0]),
        jax.tree.leaves(plain.update(g, plain.init(params), params)[0]),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_inside_multi_steps_it_rounds_once_an_update() -> None:
    tx = optax.MultiSteps(jt.with_stochastic_rounding(jt.sgd(1e-3), 0), 2)
    params = {"w": jnp.ones(1000, jnp.bfloat16)}
    state = tx.init(params)
    for k in range(4):
        updates, state = jax.jit(tx.update)({"w": jnp.ones(1000, jnp.bfloat16)}, state, params)
        assert (np.asarray(updates["w"]) != 0).any() == (k % 2 == 1)
        params = optax.apply_updates(params, updates)
    assert int(state.inner_opt_state.count) == 2


@pytest.mark.parametrize("key", [0.5, True, "seed", None, jnp.ones(3), jnp.zeros((2, 2), jnp.uint32)])
def test_a_wrong_key_is_named(key) -> None:
    with pytest.raises(ValueError, match="key must be a key"):
        jt.with_stochastic_rounding(jt.sgd(1.0), key)


def test_parameters_are_needed() -> None:
    tx = jt.with_stochastic_rounding(jt.sgd(1.0), 0)
    with pytest.raises(ValueError, match="needs the parameters"):
        tx.update({"w": jnp.ones(1)}, tx.init({"w": jnp.ones(1)}))
