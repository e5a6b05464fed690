"""Scaling before the first step: entries near one, then a norm that bounds the spectral norm.

A norm costs no pass over X, because every norm in use is a function of the Gram matrix A that step one forms anyway:
Frobenius^2 = tr A, Schatten-4^4 = |A|_F^2, Schatten-8^8 = |A A|_F^2.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_tour._types import Array, DTypeLike, Float
from jaxopt_tour.coefficients import PolynomialCoefficients, RationalCoefficients
from jaxopt_tour.coefficients.operations import takes_square
from jaxopt_tour.linalg.symmetric import Method, symmetric_product


def unit_scale(x: Float[Array, "*batch m n"]) -> Array:
    """The power of two that brings the largest entry of every matrix into [0.5, 1), of shape (..., 1, 1).

    1 for a matrix of zeros; where it would be denormal, entries are brought below 4. A constant to differentiation: the
    iteration does not depend on the size of x.
    """
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=(-2, -1), keepdims=True)).astype(wide_dtype(x.dtype))
    mantissa, _ = jnp.frexp(largest)
    scale = jnp.where(largest > 0, mantissa / jnp.where(largest > 0, largest, 1.0), 1.0)
    return jnp.maximum(scale, jnp.finfo(scale.dtype).tiny)


def near_unit(x: Float[Array, "*batch m n"], scale: Array, dtype: DTypeLike) -> Array:
    """`scale x` in the iteration's dtype, largest entry in [0.5, 1): neither squares nor sums overflow."""
    return (x.astype(wide_dtype(x.dtype)) * scale).astype(dtype)


def eps_in_units(eps: Array | float, scale: Array) -> Array | float:
    """Eps in the units of the scaled x. In those of x it would be lost to overflow for tiny x."""
    return 0.0 if is_zero(eps) else jnp.asarray(eps, scale.dtype) * scale


class Prescaled(NamedTuple):
    """What step one needs of X / S."""

    gram: Array  # A, (..., m, m)
    square: Array | None  # A A, where the prescale or the first polynomial needs it
    row_scale: Array  # 1 / S, which X has still to be multiplied by: (..., 1, 1), or (..., m, 1) under AOL


def prescaled(
    gram: Float[Array, "*batch m m"],
    dtype: DTypeLike,
    coefficients: PolynomialCoefficients | RationalCoefficients,
    eps: Array | float,
    commuting_product: Method,
) -> Prescaled:
    """Fold `X / (S(X) + eps)` into the Gram matrix of X and, where it is needed, its square, both in `dtype`.

    For half precision `gram` comes in float32: norms and scales are taken before rounding.
    """

    def square_if_needed(gram: Array, wide_result: bool = False) -> Array | None:
        if not takes_square(coefficients):
            return None
        return symmetric_product(gram, gram, method=commuting_product, wide_result=wide_result, right_symmetric=True)

    if coefficients.prescale == "aol":
        scale = _safe_reciprocal(jnp.sqrt(_positive(jnp.sum(jnp.abs(gram), axis=-1, keepdims=True))) + eps)
        gram = (gram * scale * scale.mT).astype(dtype)
        return Prescaled(gram, square_if_needed(gram), scale)
    if coefficients.prescale == "frobenius":
        norm_squared = jnp.trace(gram, axis1=-2, axis2=-1)[..., None, None]
    else:
        norm_squared = _frobenius(gram)
    gram = (gram * _safe_reciprocal(norm_squared)).astype(dtype)
    norm = jnp.sqrt(_positive(norm_squared))
    square = square_if_needed(gram, wide_result=True)
    if coefficients.prescale == "schatten8":
        assert square is not None
        shrink = jnp.sqrt(_positive(_frobenius(square)))  # (S8 / S4)^2
        gram = (gram * _safe_reciprocal(shrink)).astype(dtype)
        square = square * _safe_reciprocal(shrink**2)
        norm = norm * jnp.sqrt(_positive(shrink))
    if not is_zero(eps):
        with_eps = norm * _safe_reciprocal(norm + eps)
        gram = (gram * with_eps**2).astype(dtype)
        square = None if square is None else square * with_eps**4
        norm = norm + eps
    return Prescaled(gram, None if square is None else square.astype(dtype), _safe_reciprocal(norm))


def wide_dtype(dtype: DTypeLike) -> DTypeLike:
    """At least float32."""
    return jnp.promote_types(dtype, jnp.float32)


def is_zero(eps: Array | float) -> bool:
    """Whether eps is the number zero; an array may hold anything."""
    return isinstance(eps, (int, float)) and eps == 0


def _frobenius(x: Array) -> Array:
    return jnp.sqrt(_positive(jnp.sum(jnp.square(x), axis=(-2, -1), keepdims=True)))


def _positive(x: Array) -> Array:
    """x with zeros, which only zero matrices have, replaced by ones: the derivative of a square root stays finite."""
    return jnp.where(x > 0, x, 1.0) if x.size else x


def _safe_reciprocal(x: Array) -> Array:
    return jnp.where(x > 0, 1.0 / jnp.where(x > 0, x, 1.0), 1.0)
