"""The exact polar factor against NumPy's SVD, and its derivative against finite differences."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_tour.orthogonalization.svd import polar_factor


def by_hand(x: np.ndarray) -> np.ndarray:
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    return (u * (s > 1e-9 * max(s.max(), 1e-300))) @ vt


@pytest.mark.parametrize("shape", [(4, 4), (3, 7), (7, 3), (1, 5), (5, 1)])
def test_agrees_with_the_svd(shape: tuple[int, int], x64: None) -> None:
    x = np.random.default_rng(0).normal(size=shape)
    np.testing.assert_allclose(polar_factor(jnp.asarray(x)), by_hand(x), atol=1e-12)


def test_rank_deficient_matrices_give_partial_isometries(x64: None) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(6, 2)) @ rng.normal(size=(2, 8))
    o = polar_factor(jnp.asarray(x))
    np.testing.assert_allclose(o, by_hand(x), atol=1e-10)
    assert np.linalg.matrix_rank(o) == 2
    np.testing.assert_array_equal(polar_factor(jnp.zeros((3, 4))), 0)


@pytest.mark.parametrize("shape", [(4, 4), (3, 6), (6, 3)])
def test_derivative_agrees_with_finite_differences(shape: tuple[int, int], x64: None) -> None:
    x, weights, direction = np.random.default_rng(2).normal(size=(3, *shape))
    step = 1e-6
    difference = np.sum(weights * (by_hand(x + step * direction) - by_hand(x - step * direction))) / (2 * step)
    gradient = jax.grad(lambda x: jnp.sum(polar_factor(x) * weights))(jnp.asarray(x))
    # Central differences at 1e-6 in float64 carry about 1e-9.
    np.testing.assert_allclose(np.sum(gradient * direction), difference, rtol=1e-6)


def test_derivative_at_equal_singular_values_and_at_zero_is_finite() -> None:
    assert np.isfinite(jax.grad(lambda x: jnp.sum(polar_factor(x) ** 2))(jnp.eye(3, 5))).all()
    assert np.isfinite(jax.grad(lambda x: jnp.sum(polar_factor(x)))(jnp.zeros((3, 5)))).all()
