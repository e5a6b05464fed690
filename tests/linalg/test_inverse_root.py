"""Inverse roots: their law, their derivative, and matrices that have none."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxopt_tour.linalg.inverse_root import inverse_root


def positive(m: int, seed: int = 0, batch: tuple[int, ...] = ()) -> np.ndarray:
    g = np.random.default_rng(seed).normal(size=(*batch, m, m + 3))
    return g @ g.swapaxes(-1, -2)


@pytest.mark.parametrize("p", [1, 2, 4, 6])
def test_its_power_times_the_matrix_is_the_identity(p: int, x64: None) -> None:
    a = positive(5, batch=(3,))
    root = np.asarray(inverse_root(jnp.asarray(a), p))
    # Condition numbers up to 1e3 in float64.
    np.testing.assert_allclose(np.linalg.matrix_power(root, p) @ a, np.broadcast_to(np.eye(5), a.shape), atol=1e-10)
    np.testing.assert_allclose(root, root.swapaxes(-1, -2), atol=1e-13)
    ridges = np.array([0.5, 1.0, 2.0])
    ridged = np.asarray(inverse_root(jnp.asarray(a), p, jnp.asarray(ridges)))
    np.testing.assert_allclose(
        np.linalg.matrix_power(ridged, p) @ (a + ridges[:, None, None] * np.eye(5)),
        np.broadcast_to(np.eye(5), a.shape),
        atol=1e-10,
    )


def test_a_root_between_two_is_between_their_powers(x64: None) -> None:
    a = jnp.asarray(positive(4))
    # (A^(-1/2.5))^5 = A^-2, and p may be traced.
    root = jax.jit(inverse_root)(a, 2.5)
    np.testing.assert_allclose(np.linalg.matrix_power(root, 5) @ a @ a, np.eye(4), atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("p", [1.0, 2.0, 4.0, 3.3])
def test_derivatives_agree_with_finite_differences(p: float, x64: None) -> None:
    g = jnp.asarray(np.random.default_rng(1).normal(size=(4, 6)))

    def of_gram(g: jax.Array, p: float, ridge: float) -> jax.Array:
        return inverse_root(jnp.asarray(g @ g.T), p, ridge)

    check_grads(of_gram, (g, p, 0.3), order=1, atol=1e-5, rtol=1e-5)
    # A matrix of rank 4 with a ridge: two eigenvalues are the ridge alone.
    check_grads(lambda g, ridge: inverse_root(jnp.asarray(g.T @ g), p, ridge), (g, 0.3), order=1, atol=1e-5, rtol=1e-5)
    # Equal eigenvalues, where eigenvectors have no derivative: d(A^(-1/p)) = -1/p dA at the identity.
    da = jnp.asarray(positive(4))
    _, moved = jax.jvp(lambda a: inverse_root(a, p), (jnp.eye(4),), (da,))
    np.testing.assert_allclose(moved, -da / p, atol=1e-12)


def test_nearly_equal_eigenvalues_cost_the_derivative_no_digits(x64: None) -> None:
    values = 1 + np.array([0.0, 1e-15, 1e-12, 1e-8])
    da = positive(4)
    _, moved = jax.jvp(lambda a: inverse_root(a, 4), (jnp.asarray(np.diag(values)),), (jnp.asarray(da),))
    # A plain difference quotient would be off by 1e-16 / 1e-12 = 1e-4; the function itself bends by 1e-8.
    np.testing.assert_allclose(moved, -da / 4, rtol=1e-7)


@pytest.mark.slow
def test_what_is_zero_stays_zero(x64: None) -> None:
    assert not np.any(inverse_root(jnp.zeros((2, 3, 3)), 4))
    low_rank = np.outer([1.0, 2.0, 0.0], [1.0, 2.0, 0.0])
    expected = low_rank / 5 * 5**-0.25
    np.testing.assert_allclose(inverse_root(jnp.asarray(low_rank), 4), expected, atol=1e-12)
    gradient = jax.grad(lambda a: jnp.sum(inverse_root(a, 4)))(jnp.zeros((3, 3)))
    assert np.all(np.isfinite(gradient))
    assert inverse_root(jnp.zeros((2, 0, 0)), 4).shape == (2, 0, 0)


def test_a_ridge_keeps_every_direction_however_small() -> None:
    # 1e-6 of the largest eigenvalue is below what counts as zero without a ridge in 64 dimensions of float32 (8e-6).
    low_rank = jnp.zeros((64, 64)).at[0, 0].set(1.0)
    root = np.asarray(inverse_root(low_rank, 4, 1e-6))
    np.testing.assert_allclose(np.diag(root), [1.0] + [1e-6**-0.25] * 63, rtol=1e-4)


def test_nan_is_seen() -> None:
    assert np.all(np.isnan(inverse_root(jnp.full((3, 3), jnp.nan), 4)))


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_any_size_in_float32(size: float) -> None:
    a = positive(4).astype(np.float32)
    scaled = np.asarray(inverse_root(jnp.asarray(a) * np.float32(size), 4), np.float64) * size**0.25
    # float32 eigenvalues, relative to the largest, at a condition number below 100.
    np.testing.assert_allclose(scaled, inverse_root(jnp.asarray(a), 4), rtol=1e-3, atol=1e-5)


def test_half_precision_is_computed_in_float32() -> None:
    a = jnp.asarray(positive(4), jnp.bfloat16)
    root = inverse_root(a, 2)
    assert root.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        root.astype(jnp.float32), inverse_root(a.astype(jnp.float32), 2), rtol=2**-8, atol=2**-10
    )


@pytest.mark.parametrize("p", [0, -1.0, float("nan")])
def test_a_wrong_root_is_named(p: float) -> None:
    with pytest.raises(ValueError, match="p must be"):
        inverse_root(jnp.eye(2), p)
