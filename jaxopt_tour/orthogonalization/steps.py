"""One step of a polynomial, as both forms of the iteration take it, and several of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_tour._types import Array
from jaxopt_tour.coefficients.odd_polynomials import Polynomial, factors, is_cubic
from jaxopt_tour.linalg.products import product
from jaxopt_tour.linalg.symmetric import Method, symmetric_product


def polynomial_of(
    gram: Array, square: Array | None, polynomial: Sequence[Any], commuting_product: Method
) -> tuple[Array, float]:
    """Z and f with `Z + f I = a I + b A + c A A + ...`, in the dtype of A.

    In full precision f is 0: one matrix, and no pass over memory after a product. In half precision a I is kept
    separate, because the sum would lose the last bits of b A + c A A.
    """
    if square is None or len(polynomial) == 3:
        a, b, c = polynomial
        if is_half(gram.dtype):
            wide = gram.astype(jnp.float32)  # the terms nearly cancel: they are rounded once, when they are added
            z = b * wide if square is None else b * wide + c * square.astype(jnp.float32)
            return z.astype(gram.dtype), a
        z = b * gram if square is None else b * gram + c * square
        return (z + a * jnp.eye(gram.shape[-1], dtype=gram.dtype)).astype(gram.dtype), 0.0
    identity = jnp.eye(gram.shape[-1], dtype=gram.dtype)
    if len(polynomial) == 5:
        a, b, c, d, e = polynomial
        product_of_two = commuting(square, d * gram + e * square, commuting_product)
        return product_of_two + (a * identity + b * gram + c * square), 0.0
    parts = factors(tuple(polynomial))
    y1, y0 = parts.y
    y = square + y1 * gram + y0 * identity
    v = commuting(y, y, commuting_product)

    def combined(weights: Sequence[float]) -> Array:
        of_v, of_square, of_gram, of_identity = weights
        return of_v * v + of_square * square + of_gram * gram + of_identity * identity

    return commuting(combined(parts.left), combined(parts.right), commuting_product) + combined(parts.rest), 0.0


def repeat(step: Callable[[Any, Any, bool], Any], carry: Any, polynomials: Sequence[Polynomial], loop: bool) -> Any:
    """`carry = step(carry, polynomial, is_cubic(polynomial))` for every polynomial."""
    if not loop or not polynomials:
        for polynomial in polynomials:
            carry = step(carry, polynomial, is_cubic(polynomial))
        return carry
    cubic = is_cubic(polynomials[0])
    dtype = jax.tree.leaves(carry)[0].dtype

    def body(carry: Any, polynomial: Array) -> tuple[Any, None]:
        return step(carry, tuple(polynomial), cubic), None

    return jax.lax.scan(body, carry, jnp.asarray(polynomials, dtype))[0]


def apply(q: Array, identity_part: float, x: Array, scale: Array | None) -> Array:
    """`(Q + f I) X`, times the prescale where that is still to come."""
    if scale is not None and not identity_part:
        q, scale = q * scale.astype(q.dtype), None  # m x m entries to scale, not m x n
    result = weighted_sum(x, (1.0, product(q, x, wide_result=True)), (identity_part, x))
    return result if scale is None else result * scale.astype(result.dtype)


def scale_rows(x: Array, row_scale: Array) -> tuple[Array, Array | None]:
    """X with its prescale applied now; or X and the prescale for later, where it is one number and range allows."""
    if row_scale.shape[-2] > 1 or is_half(x.dtype):
        return x * row_scale.astype(x.dtype), None
    return x, row_scale


def commuting(left: Array, right: Array, method: Method, wide_result: bool = False) -> Array:
    """The product of two symmetric matrices that commute, which is symmetric as well."""
    return symmetric_product(left, right, method=method, wide_result=wide_result, right_symmetric=True)


def weighted_sum(like: Array, *terms: tuple[float, Array]) -> Array:
    """`sum weight * term`, added in the widest dtype among the terms and rounded once, to that of `like`."""
    wide = jnp.result_type(*(term for _, term in terms))
    # Weighted in the wide dtype: a X and Q X nearly cancel, so that rounding a X by itself would cost 1 % of the sum.
    weighted = [weight * term.astype(wide) if weight != 1 else term.astype(wide) for weight, term in terms if weight]
    return sum(weighted[1:], weighted[0]).astype(like.dtype)


def is_half(dtype: Any) -> bool:
    """float16 or bfloat16."""
    return jnp.finfo(dtype).bits == 16
