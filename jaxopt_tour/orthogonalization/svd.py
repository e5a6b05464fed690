"""The exact polar factor by singular value decomposition, also the oracle for the iterations."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxopt_tour._types import Array, Float
from jaxopt_tour.linalg.decompositions import decompose


@jax.custom_jvp
def polar_factor(x: Float[Array, "*batch m n"]) -> Float[Array, "*batch m n"]:
    """The orthogonal polar factor `U V^T` of `X = U S V^T`, over the singular values that are not zero.

    Singular values below `max(m, n) * eps * s_max` count as zero, so a matrix of rank r gives a partial isometry of
    rank r and the zero matrix gives zero, as the iterations do. It minimizes `|X - O|` in every unitarily invariant
    norm, and `<O, X>` is the nuclear norm of X. The derivative is defined through the polar factor, not the singular
    vectors, so equal singular values do no harm.

    Args:
        x: real matrices of a floating dtype; computed in at least float32.

    Source: Higham, Functions of Matrices, 2008, chapter 8.
    """
    u, _, vt, kept = _svd(x)
    return ((u * kept[..., None, :]) @ vt).astype(x.dtype)


def _thin_svd(x: Array) -> tuple[Array, Array, Array]:
    u, s, vt = jnp.linalg.svd(x, full_matrices=False)
    return u, s, vt


def _svd(x: Array) -> tuple[Array, Array, Array, Array]:
    """U, S, V^T in at least float32, and which singular values are not zero."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    # A power of two brings the largest entry near 1: the decomposition neither overflows nor underflows.
    largest = jnp.max(jnp.abs(wide), axis=(-2, -1), keepdims=True, initial=0.0)
    _, exponent = jnp.frexp(largest)
    u, s, vt = decompose(_thin_svd, jnp.ldexp(wide, -exponent))
    cutoff = max(x.shape[-2:]) * jnp.finfo(wide.dtype).eps * jnp.max(s, axis=-1, keepdims=True, initial=0.0)
    kept = (s > cutoff).astype(wide.dtype)
    return u, jnp.ldexp(s, exponent[..., 0]), vt, kept


@polar_factor.defjvp
def _polar_factor_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    """`dO = U [(U^T dX V - V^T dX^T U) / (s_i + s_j)] V^T` plus the parts outside the spans of U and V."""
    (x,), (dx,) = primals, tangents
    u, s, vt, kept = _svd(x)
    dx = dx.astype(u.dtype)
    u, vt, s = u * kept[..., None, :], vt * kept[..., :, None], jnp.where(kept > 0, s, jnp.inf)
    inner = u.mT @ dx @ vt.mT
    rotation = (inner - inner.mT) / (s[..., :, None] + s[..., None, :])
    left = (dx @ vt.mT - u @ inner) / s[..., None, :]  # (I - U U^T) dX V S^-1
    right = (u.mT @ dx - inner @ vt) / s[..., :, None]  # S^-1 U^T dX (I - V V^T)
    tangent = u @ rotation @ vt + left @ vt + u @ right
    return ((u @ vt).astype(x.dtype)), tangent.astype(x.dtype)
