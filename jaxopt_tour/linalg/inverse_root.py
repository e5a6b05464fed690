"""Inverse roots of symmetric matrices without negative eigenvalues."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.lax import Precision

from jaxopt_tour._types import Array, Float
from jaxopt_tour.linalg.decompositions import decompose


def inverse_root(
    a: Float[Array, "*batch m m"], p: int | float | Array, ridge: int | float | Array = 0.0
) -> Float[Array, "*batch m m"]:
    """`(A + ridge I)^(-1/p) = V diag((lambda + ridge)^(-1/p)) V^T` for `A = V diag(lambda) V^T`.

    Negative eigenvalues of A, which are rounding, count as zero. Without a ridge those up to `m eps` times the
    largest count as zero too and stay zero in the result, as in a pseudo-inverse; the zero matrix gives zero.

    The derivative is that of the matrix function, with respect to A, p and ridge: it holds at equal eigenvalues too,
    where that of the eigenvectors does not exist.

    Args:
        a: symmetric real matrices; computed in at least float32.
        p: which root, a number > 0; it need not be an integer.
        ridge: added to the eigenvalues: a number >= 0, or one for each matrix, with the shape of the batch.

    Raises:
        ValueError: p is not above zero.

    Source: Higham, Functions of Matrices, 2008, section 3.2 (derivative: theorem 3.11, Daleckii and Krein).
    """
    if not isinstance(p, jax.core.Tracer) and not float(p) > 0:
        raise ValueError(f"p must be a number > 0, got {p!r}")
    if a.size == 0:
        return a
    wide = jnp.promote_types(a.dtype, jnp.float32)
    ridges = jnp.broadcast_to(jnp.asarray(ridge, wide), a.shape[:-2])
    return _inverse_root(a.astype(wide), jnp.asarray(p, wide), ridges).astype(a.dtype)


@jax.custom_jvp
def _inverse_root(a: Array, p: Array, ridge: Array) -> Array:
    vectors, values, kept = _spectrum(a, ridge)
    return _rotate(vectors * jnp.where(kept, values ** (-1 / p), 0)[..., None, :], vectors)


def _spectrum(a: Array, ridge: Array) -> tuple[Array, Array, Array]:
    """Eigenvectors, eigenvalues of A + ridge I, and which of these are not zero (the others read 1)."""
    # A power of two brings the largest entry near 1: the decomposition neither overflows nor underflows.
    largest = jnp.max(jnp.abs(a), axis=(-2, -1), keepdims=True)
    _, exponent = jnp.frexp(largest)
    values, vectors = decompose(_eigh, jnp.ldexp(a, -exponent))
    values = jnp.ldexp(values, exponent[..., 0])
    cutoff = a.shape[-1] * jnp.finfo(a.dtype).eps * jnp.max(values, axis=-1, keepdims=True)
    kept = ~((values <= cutoff) & (ridge[..., None] <= 0))  # in this form NaN is kept, and seen
    values = jnp.where(values < 0, 0, values) + ridge[..., None]
    return vectors, jnp.where(kept, values, 1), kept


def _rotate(left: Array, right: Array) -> Array:
    """`left right^T` in full precision: TF32 would leave three digits."""
    return jnp.matmul(left, right.mT, precision=Precision.HIGHEST)


@_inverse_root.defjvp
def _inverse_root_jvp(primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]) -> tuple[Array, Array]:
    """`V (F * (V^T dA V + dridge I) + dp D) V^T` with F the divided differences of `f(x) = x^-q`, q = 1/p.

    `F_ij = (s^-q - t^-q) / (s - t) = t^(-q-1) (e^(-q d) - 1) / (e^d - 1)` with `d = log(s / t)` for eigenvalues s
    and t, and `-q t^(-q-1)` where they are equal: a smooth function of d, which loses no digits in a difference.
    `D = df/dp = x^-q log(x) / p^2` on the diagonal.
    """
    (a, p, ridge), (da, dp, dridge) = primals, tangents
    vectors, values, kept = _spectrum(a, ridge)
    q = 1 / p
    roots = values**-q
    result = _rotate(vectors * jnp.where(kept, roots, 0)[..., None, :], vectors)
    logs = jnp.log(values)
    d = logs[..., :, None] - logs[..., None, :]
    apart = jnp.where(d == 0, 1, d)
    ratio = jnp.where(d == 0, -q, jnp.expm1(-q * apart) / jnp.expm1(apart))
    f = ratio * (roots / values)[..., None, :]
    eye = jnp.eye(a.shape[-1], dtype=a.dtype)
    inner = f * (_rotate(_rotate(vectors.mT, da.mT), vectors.mT) + dridge[..., None, None] * eye)
    inner = inner + eye * (roots * logs * (dp / p**2))[..., None, :]
    inner = jnp.where(kept[..., :, None] & kept[..., None, :], inner, 0)
    return result, _rotate(_rotate(vectors, inner.mT), vectors)


def _eigh(a: Array) -> tuple[Array, Array]:
    values, vectors = jnp.linalg.eigh(a)
    return values, vectors
