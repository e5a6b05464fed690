"""Eigenvectors in order, the same in two programs, and the power step of SOAP."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_tour.linalg.eigenbasis import eigenbasis, power_step


def covariance(m: int, rank: int, batch: int = 2) -> np.ndarray:
    x = np.random.default_rng(0).normal(size=(batch, m, rank))
    return x @ x.swapaxes(-1, -2)


def test_the_columns_are_eigenvectors_with_the_largest_eigenvalue_first(x64: None) -> None:
    a = covariance(5, 5)
    q = np.asarray(eigenbasis(jnp.asarray(a)))
    rotated = q.swapaxes(-1, -2) @ a @ q
    values = np.diagonal(rotated, axis1=-2, axis2=-1)
    assert np.all(np.diff(values) < 0)
    np.testing.assert_allclose(rotated, values[..., None] * np.eye(5), atol=1e-12)
    np.testing.assert_allclose(q.swapaxes(-1, -2) @ q, np.broadcast_to(np.eye(5), q.shape), atol=1e-12)


def test_vectors_without_an_eigenvalue_do_not_depend_on_rounding() -> None:
    """Of a rank of 2 in 6 dimensions: `eigh` gives four vectors that two roundings of one matrix do not share."""
    a = covariance(6, 2).astype(np.float32)
    noise = 1 + 1e-7 * np.random.default_rng(1).normal(size=a.shape)
    first, second = (
        np.asarray(eigenbasis(jnp.asarray((x + x.swapaxes(-1, -2)) / 2))) for x in (a, np.float32(a * noise))
    )
    same = np.abs(np.sum(first * second, axis=-2))  # signs are arbitrary
    np.testing.assert_allclose(same, 1, atol=1e-5)
    np.testing.assert_allclose(first.swapaxes(-1, -2) @ first, np.broadcast_to(np.eye(6), a.shape), atol=1e-5)


def test_no_size_is_out_of_range() -> None:
    a = covariance(4, 4).astype(np.float32)
    for factor in (2.0**-100, 2.0**100):
        np.testing.assert_array_equal(eigenbasis(jnp.asarray(a * np.float32(factor))), eigenbasis(jnp.asarray(a)))
    zero = jnp.zeros((1, 3, 3))
    assert np.all(np.isfinite(eigenbasis(zero))) and np.all(np.isfinite(power_step(zero, jnp.eye(3)[None])[0]))


def test_power_steps_sort_and_converge_to_the_eigenvectors(x64: None) -> None:
    a = covariance(4, 4)
    a[:] = np.diag([1.0, 8.0, 0.1, 3.0])
    q, order = power_step(jnp.asarray(a), jnp.broadcast_to(jnp.eye(4), a.shape))
    np.testing.assert_array_equal(order, [[1, 3, 0, 2]] * 2)
    b = covariance(4, 6)
    step = jax.jit(power_step)
    for _ in range(200):
        q, order = step(jnp.asarray(b), q)
    np.testing.assert_array_equal(order, [[0, 1, 2, 3]] * 2)
    np.testing.assert_allclose(np.abs(np.sum(q * eigenbasis(jnp.asarray(b)), axis=-2)), 1, atol=1e-9)


def test_a_column_without_an_eigenvalue_is_kept() -> None:
    a = np.diag(np.float32([4.0, 2.0, 0.0, 0.0]))[None]
    turned = np.eye(4, dtype=np.float32)
    turned[2:, 2:] = [[0.6, -0.8], [0.8, 0.6]]
    q, _ = power_step(jnp.asarray(a), jnp.asarray(turned[None]))
    np.testing.assert_allclose(np.abs(q[0]), np.abs(turned), atol=1e-6)
