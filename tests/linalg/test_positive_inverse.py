"""The inverse of positive definite matrices."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_tour.coefficients import zolotarev
from jaxopt_tour.coefficients.operations import operations as operations_of
from jaxopt_tour.linalg.positive_inverse import operations, positive_inverse
from jaxopt_tour.orthogonalization.orthogonalizer import orthogonalize


def positive(m: int, shift: float = 1e-2, batch: tuple[int, ...] = ()) -> np.ndarray:
    x = np.random.default_rng(m).normal(size=(*batch, m, m)) / np.sqrt(m)
    return x @ x.swapaxes(-1, -2) + shift * np.eye(m)


@pytest.mark.parametrize("m", [1, 2, 15, 16, 17, 33, 64, 65, 128, 200])
def test_is_the_inverse(m: int, x64: None) -> None:
    a = positive(m)
    np.testing.assert_allclose(positive_inverse(jnp.asarray(a)), np.linalg.inv(a), atol=1e-9)  # entries up to 1e2


def test_batches_and_vmap_are_one_by_one(x64: None) -> None:
    a = jnp.asarray(positive(70, batch=(2, 3)))
    expected = np.linalg.inv(np.asarray(a))
    np.testing.assert_allclose(jax.jit(positive_inverse)(a), expected, atol=1e-9)
    np.testing.assert_allclose(jax.vmap(jax.vmap(positive_inverse))(a), expected, atol=1e-9)


def test_a_nearly_singular_matrix_keeps_the_digits_it_has() -> None:
    """Errors are those of Cholesky, condition times rounding, not the square of the condition."""
    a = positive(256, 1e-5)
    a /= np.linalg.norm(a, 2)
    found, expected = np.asarray(positive_inverse(jnp.asarray(a, jnp.float32)), np.float64), np.linalg.inv(a)
    error = np.linalg.norm(found - expected, 2) / np.linalg.norm(expected, 2)
    assert error < 10 * np.linalg.cond(a) * np.finfo(np.float32).eps


def test_the_derivative_is_that_of_an_inverse(x64: None) -> None:
    a, direction = positive(5), positive(5, batch=(2,))[1]
    _, tangent = jax.jvp(positive_inverse, (jnp.asarray(a),), (jnp.asarray(direction),))
    inverse = np.linalg.inv(a)
    np.testing.assert_allclose(tangent, -inverse @ direction @ inverse, rtol=1e-8)


def test_many_batches_in_one_program_do_not_lock_up() -> None:
    """Batches of decompositions that meet in XLA's thread pool can wait for each other for ever."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(64, 64, 96)), jnp.float32)
    run = jax.jit(lambda x: sum(orthogonalize(x[:, :m], zolotarev(1, 1e-2, inverses=2)).sum() for m in (64, 62, 60)))
    assert np.isfinite(run(x))


def test_empty() -> None:
    assert positive_inverse(jnp.zeros((3, 0, 0))).shape == (3, 0, 0)


def test_operations_are_counted_by_hand() -> None:
    """A test of the benchmarks compares them with the products of a compiled program."""
    assert operations(64) == 3 * 2 * 64**3  # the columns times the triangle, G G^T, and the triangle row by row
    assert operations(768) / (2 * 768**3) == pytest.approx(1.09, abs=0.01)
    # Two inverses and two products between them; X X^T and Q X have 2 m m n each.
    m, n = 768, 1024
    assert operations_of(zolotarev(), m, n, "gram") == 2 * operations(m) + 2 * 2 * m**3 + 2 * 2 * m * m * n
