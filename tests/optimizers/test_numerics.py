from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_tour.optimizers._numerics import (
    abs_squared,
    clip_to_square_range,
    full_like_second_moment,
    map_rule,
    one_minus_power,
    safe_divide,
    safe_sqrt,
    scale_by_learning_rate,
)
from jaxopt_tour.optimizers.adam import scale_by_adam


@pytest.mark.parametrize("b", [0.0, 0.5, 0.9, 0.999, 0.99999])
@pytest.mark.parametrize("as_array", [False, True])
def test_one_minus_power(b, as_array):
    t = np.array([1, 2, 10, 1000, 2**31 - 1], np.int32)
    given = np.float32(b) if as_array else b
    expected = -np.expm1(t.astype(float) * np.log(np.float64(given))) if b else np.ones(5)
    result = one_minus_power(jnp.float32(b) if as_array else b, jnp.asarray(t))
    # log(b) of a float32 array near 1 loses digits that were never there: 6e-8 / (1 - b).
    rtol = 6e-8 / (1 - b) if as_array else 1e-6
    np.testing.assert_allclose(np.broadcast_to(result, 5), expected, rtol=max(rtol, 1e-6))


@pytest.mark.parametrize("b", [0.0, 0.9])
def test_one_minus_power_has_a_derivative(b):
    derivative = jax.grad(lambda b: jnp.asarray(one_minus_power(b, jnp.int32(3))))(jnp.float32(b))
    np.testing.assert_allclose(derivative, -3 * b**2, rtol=1e-5)  # float32


def test_safe_sqrt_and_divide():
    assert (float(safe_sqrt(jnp.float32(4))), float(safe_sqrt(jnp.float32(0)))) == (2.0, 0.0)
    assert float(jax.grad(safe_sqrt)(0.0)) == 0.0
    assert float(safe_divide(jnp.float32(1), jnp.float32(0))) == 0.0
    assert jax.grad(safe_divide, argnums=(0, 1))(1.0, 0.0) == (0.0, 0.0)
    assert np.isnan(safe_sqrt(jnp.float32(np.nan)))
    assert np.isnan(safe_divide(jnp.float32(1), jnp.float32(np.nan)))


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_clip_to_square_range(dtype):
    g = jnp.array([0.0, 1.0, -1e14, 1e30, -3e38, np.inf, np.nan]).astype(dtype)
    clipped = clip_to_square_range(g)
    np.testing.assert_array_equal(clipped[:3], g[:3])
    assert bool(jnp.isfinite(abs_squared(clipped[:5]) * 4e9 / 2).all())  # a complex number has two parts
    assert not bool(jnp.isfinite(clipped[5:]).any())


def test_an_overflowed_gradient_is_seen_and_not_made_a_step():
    tx = scale_by_adam()
    u, _ = tx.update(jnp.array([np.inf, np.nan, 1.0]), tx.init(jnp.zeros(3)))
    assert np.isfinite(u).tolist() == [False, False, True]


def test_abs_squared():
    np.testing.assert_array_equal(abs_squared(jnp.array([3 + 4j, 0])), [25.0, 0.0])
    assert float(jax.grad(abs_squared)(0.0)) == 0.0


def test_map_rule_widens_inside_and_keeps_dtypes_outside():
    def rule(g, m):
        assert g.dtype == m.dtype == jnp.float32
        return g + m, m + 1

    updates = {"a": jnp.ones(2, jnp.bfloat16), "b": None, "c": 2.0, "d": np.zeros((0, 3))}
    moments = {"a": jnp.ones(2, jnp.float16), "b": jnp.ones(1), "c": jnp.ones([]), "d": jnp.zeros((0, 3))}
    u, m = map_rule(rule, updates, None, moments)
    assert (u["a"].dtype, m["a"].dtype, u["b"], float(u["c"]), u["d"].shape) == (
        jnp.bfloat16,
        jnp.float16,
        None,
        3.0,
        (0, 3),
    )
    assert m["b"] is moments["b"]
    params = {"a": jnp.ones(2, jnp.float32), "b": jnp.ones(1), "c": 1.0, "d": np.zeros((0, 3))}
    assert map_rule(rule, updates, params, moments)[0]["a"].dtype == jnp.float32


def test_map_rule_of_empty_trees_and_holes():
    def rule(g, m):
        raise AssertionError("there is no leaf")

    hole = {"a": optax.MaskedNode()}
    assert map_rule(rule, {}, {}, {}) == ({}, {})
    assert map_rule(rule, hole, hole, hole) == (hole, hole)


def test_a_real_accumulator_refuses_complex_gradients():
    g = jnp.ones(2, jnp.complex64)
    tx = scale_by_adam(mu_dtype="float32")
    with pytest.raises(ValueError, match="complex"):
        tx.update(g, tx.init(g))


def test_second_moment_is_real_and_at_least_float32():
    params = {"half": jnp.ones(1, jnp.float16), "complex": jnp.ones(1, jnp.complex64), "python": 1.0}
    v = full_like_second_moment(params, fill=0.5)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(v)} == {"float32"}
    assert full_like_second_moment(params, dtype=np.dtype("bfloat16"), fill=0.5)["half"].dtype == jnp.bfloat16


@pytest.mark.parametrize("rate", [0.5, jnp.float32(0.5), lambda step: 0.5], ids=["number", "array", "schedule"])
def test_a_rate_keeps_the_dtype_of_the_updates(rate):
    tx = scale_by_learning_rate(rate)
    updates = {"w": jnp.ones(2, jnp.bfloat16), "none": None}
    scaled, _ = tx.update(updates, tx.init(updates))
    assert (scaled["w"].dtype, scaled["none"], scaled["w"].tolist()) == (jnp.bfloat16, None, [-0.5, -0.5])
