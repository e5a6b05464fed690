"""The Newton-Schulz iteration on X, the same on its Gram matrix, and the choice between them.

Both apply the polynomials of a schedule to the singular values of ``X / S(X)`` and leave the singular vectors alone.
Written for wide matrices, m <= n; tall ones are transposed on the way in and out.

Standard form, T steps: ``A = X X^T``, ``X <- a X + (b A + c A A) X``.

Gram form: all T steps happen on the m x m matrices ``R`` (the Gram matrix of the iterate) and ``Q`` (the product of the
steps), and X is touched twice::

    R = X X^T
    Z = b R + c R R;   Q <- Q Z + a Q;   R <- Z (R Z + a R) + a (R Z + a R)      T times
    X <- Q X

Every matrix commutes with R, so each is symmetric. Source: Dao-AILab, gram-newton-schulz, 2026,
https://github.com/Dao-AILab/gram-newton-schulz

The prescale costs no pass over X, because every norm in use is a function of the Gram matrix A that step one forms
anyway: Frobenius^2 = tr A, Schatten-4^4 = |A|_F^2, Schatten-8^8 = |A A|_F^2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_tour._checks import check_choice, check_float_dtype, check_nonnegative
from jaxopt_tour._types import Array, DTypeLike, Float
from jaxopt_tour.linalg.coefficients import Exact, Polynomial, Schedule, as_schedule
from jaxopt_tour.linalg.flops import flops, needs_square
from jaxopt_tour.linalg.polar import polar_factor
from jaxopt_tour.linalg.products import product
from jaxopt_tour.linalg.symmetric import METHODS as SYMMETRIC_METHODS
from jaxopt_tour.linalg.symmetric import symmetric_product

METHODS: Final = ("auto", "standard", "gram")


def orthogonalize(
    x: Float[Array, "*batch m n"],
    schedule: str | Schedule | Exact | Sequence[Sequence[float]] = "polar_express",
    *,
    method: str = "auto",
    dtype: DTypeLike | None = None,
    eps: float | Array = 0.0,
    symmetric: str = "auto",
) -> Float[Array, "*batch m n"]:
    """Bring every singular value of every matrix near 1: ``U S V^T -> U p(S / |S|) V^T``.

    The result does not depend on the size of X (at ``eps=0``), and zero stays zero.

    Args:
        x: a batch of real matrices, wide or tall.
        schedule: the polynomials and their prescale, by name or as a value, see
            :mod:`jaxopt_tour.linalg.coefficients`; ``"exact"`` takes the polar factor by SVD instead.
        method: ``"standard"``, ``"gram"``, or ``"auto"``: the one with fewer floating-point operations at this shape
            (:func:`flops`), where its rounding is harmless in ``dtype``.
        dtype: of the products; None: that of x, but at least float32. Products of half precision are summed in
            float32.
        eps: added to the prescaling norm, in the units of x. Keller Jordan's Muon has 1e-7, Optax's 1e-8. Any eps > 0
            makes small gradients count less; not used by the exact method.
        symmetric: how X X^T and products of polynomials of it are computed, which are symmetric: ``"plain"``,
            ``"blocks"``, ``"kernel"`` or ``"auto"``, see :func:`jaxopt_tour.linalg.symmetric.symmetric_product`.

    Returns:
        Matrices of the shape and dtype of x, with singular values near 1 (how near, the schedule says).

    Raises:
        ValueError: x is not a batch of real floating matrices, or an argument is not one of those named above.
    """
    schedule = as_schedule(schedule)
    check_choice("method", method, METHODS)
    check_choice("symmetric", symmetric, SYMMETRIC_METHODS)
    check_nonnegative("eps", eps)
    work_dtype = check_float_dtype("dtype", dtype)
    if x.ndim < 2 or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"x must be real floating matrices of shape (..., m, n), got {x.dtype}{list(x.shape)}")
    if isinstance(schedule, Exact):
        return polar_factor(x)
    if work_dtype is None:
        work_dtype = jnp.promote_types(x.dtype, jnp.float32)
    if x.size == 0:
        return x
    tall = x.shape[-2] > x.shape[-1]
    wide = x.mT if tall else x
    unit, exponent = _near_unit(wide)
    # In the units of x, eps would be lost to overflow for tiny x; in those of `unit` it is at most huge.
    eps_unit = jnp.ldexp(jnp.asarray(eps, unit.dtype), -exponent) if not _is_zero(eps) else 0.0
    if method == "auto":
        method = cheaper_method(schedule, wide.shape[-2], wide.shape[-1], work_dtype)
    iterate = _gram if method == "gram" else _standard
    result = iterate(unit.astype(work_dtype), schedule, eps_unit, symmetric)
    return (result.mT if tall else result).astype(x.dtype)


def cheaper_method(schedule: Schedule, m: int, n: int, dtype: DTypeLike) -> str:
    """``"gram"`` where it takes fewer operations at this shape, else ``"standard"``.

    Always the standard form in bfloat16: its eight bits are too few for the product of the steps to stay symmetric, and
    the error shows on square and on steep spectra. So in float16 beyond five steps, over which rounding grows until
    nothing else is left.
    """
    if jnp.dtype(dtype) == jnp.bfloat16 or (_is_half(dtype) and schedule.steps > 5):
        return "standard"
    gram = flops(schedule, m, n, "gram", len(_restarts(schedule, dtype)))
    return "gram" if gram < flops(schedule, m, n, "standard") else "standard"


class _Start(NamedTuple):
    """What step one needs, prescaled: the Gram matrix, its square, and what X has still to be multiplied by."""

    gram: Array  # A of X / S, (..., m, m)
    square: Array | None  # A A, where the prescale or the first polynomial needs it
    row_scale: Array  # 1 / S, (..., 1, 1), or (..., m, 1) under AOL


def _standard(x: Array, schedule: Schedule, eps: Array | float, symmetric: str) -> Array:
    start = _prescaled(x, schedule, eps, symmetric)
    gram, square = start.gram, start.square
    x, late_scale = _scaled_rows(x, start.row_scale)
    for step, polynomial in enumerate(schedule.polynomials):
        if step:
            gram = _gram_matrix(x, symmetric)
            square = _commuting(gram, gram, symmetric) if polynomial[2] else None
        z, a = _polynomial_of(gram, square, polynomial, x.dtype)
        x = _apply(z, a, x, late_scale)
        late_scale = None
    return x


def _gram(x: Array, schedule: Schedule, eps: Array | float, symmetric: str) -> Array:
    start = _prescaled(x, schedule, eps, symmetric)
    r, square = start.gram, start.square
    x, late_scale = _scaled_rows(x, start.row_scale)
    restarts = _restarts(schedule, x.dtype)
    q: Array | None = None
    identity_part = 0.0  # while q is None the product of the steps is the identity
    for step, polynomial in enumerate(schedule.polynomials):
        if step in restarts and q is not None:
            x = _apply(q, identity_part, x, late_scale)
            late_scale, q = None, None
            r = _gram_matrix(x, symmetric)
            square = None
        if square is None and polynomial[2]:
            square = _commuting(r, r, symmetric)
        z, a = _polynomial_of(r, square, polynomial, x.dtype)
        if q is None:
            q, identity_part = z, a
        else:
            # (Q + f I)(Z + a I) = Q Z + a Q + f Z + a f I, where a and f are 0 in full precision.
            q = _sum(q, (1.0, _commuting(q, z, symmetric, keep=True)), (a, q), (identity_part, z))
            identity_part = a * identity_part
        if step + 1 < schedule.steps and step + 1 not in restarts:
            rz = _sum(r, (1.0, _commuting(r, z, symmetric, keep=True)), (a, r))
            r = _sum(r, (1.0, _commuting(z, rz, symmetric, keep=True)), (a, rz))
        square = None
    assert q is not None
    return _apply(q, identity_part, x, late_scale)


def _apply(q: Array, identity_part: float, x: Array, scale: Array | None) -> Array:
    """(Q + f I) X, times the prescale where that is still to come."""
    if scale is not None and not identity_part:
        q, scale = q * scale.astype(q.dtype), None  # m x m entries to scale, not m x n
    result = _sum(x, (1.0, product(q, x, keep=True)), (identity_part, x))
    return result if scale is None else result * scale.astype(result.dtype)


def _scaled_rows(x: Array, row_scale: Array) -> tuple[Array, Array | None]:
    """X with its prescale applied now, or X and the prescale for later, where it is one number and range allows."""
    if row_scale.shape[-2] > 1 or _is_half(x.dtype):
        return x * row_scale.astype(x.dtype), None
    return x, row_scale


def _prescaled(x: Array, schedule: Schedule, eps: Array | float, symmetric: str) -> _Start:
    """Fold ``X / (S(X) + eps)`` into the Gram matrix and, where it is needed, its square."""
    # Half precision keeps float32 here: norms and scales are taken before rounding.
    gram = _gram_matrix(x, symmetric, keep=True)
    if schedule.prescale == "aol":
        scale = _safe_reciprocal(jnp.sqrt(_positive(jnp.sum(jnp.abs(gram), axis=-1, keepdims=True))) + eps)
        gram = (gram * scale * scale.mT).astype(x.dtype)
        return _Start(gram, _square_if_needed(schedule, gram, symmetric), scale)
    if schedule.prescale == "frobenius":
        norm_squared = jnp.trace(gram, axis1=-2, axis2=-1)[..., None, None]
    else:
        norm_squared = _frobenius(gram)
    gram = (gram * _safe_reciprocal(norm_squared)).astype(x.dtype)
    norm = jnp.sqrt(_positive(norm_squared))
    square = _square_if_needed(schedule, gram, symmetric, keep=True)
    if schedule.prescale == "schatten8":
        assert square is not None
        shrink = jnp.sqrt(_positive(_frobenius(square)))  # (S8 / S4)^2
        gram = (gram * _safe_reciprocal(shrink)).astype(x.dtype)
        square = square * _safe_reciprocal(shrink**2)
        norm = norm * jnp.sqrt(_positive(shrink))
    if not _is_zero(eps):
        with_eps = norm * _safe_reciprocal(norm + eps)
        gram = (gram * with_eps**2).astype(x.dtype)
        square = None if square is None else square * with_eps**4
        return _Start(gram, _cast(square, x.dtype), _safe_reciprocal(norm + eps))
    return _Start(gram, _cast(square, x.dtype), _safe_reciprocal(norm))


def _square_if_needed(schedule: Schedule, gram: Array, symmetric: str, keep: bool = False) -> Array | None:
    if schedule.polynomials[0][2] == 0 and not needs_square(schedule):
        return None
    return _commuting(gram, gram, symmetric, keep=keep)


def _restarts(schedule: Schedule, dtype: DTypeLike) -> tuple[int, ...]:
    """Steps before which the Gram form returns to X: after two in half precision, never in float32 and float64."""
    return (2,) if _is_half(dtype) and schedule.steps > 2 else ()


def _polynomial_of(gram: Array, square: Array | None, polynomial: Polynomial, dtype: DTypeLike) -> tuple[Array, float]:
    """Z and f with ``Z + f I = a I + b A + c A A``.

    In full precision f is 0: one matrix, and no pass over memory after a product. In half precision a I stays apart:
    the sum would lose the last bits of b A + c A A.
    """
    a, b, c = polynomial
    z = b * gram if square is None or not c else b * gram + c * square
    if _is_half(dtype):
        return z.astype(dtype), a
    return (z + a * jnp.eye(gram.shape[-1], dtype=dtype)).astype(dtype), 0.0


def _is_half(dtype: DTypeLike) -> bool:
    return jnp.finfo(dtype).bits == 16


def _gram_matrix(x: Array, symmetric: str, keep: bool = False) -> Array:
    """``X X^T``."""
    return symmetric_product(x, x, method=symmetric, keep=keep)


def _commuting(left: Array, right: Array, symmetric: str, keep: bool = False) -> Array:
    """The product of two symmetric matrices that commute, which is symmetric as well."""
    return symmetric_product(left, right, method=symmetric, keep=keep, right_symmetric=True)


def _sum(like: Array, *terms: tuple[float, Array]) -> Array:
    """``sum factor * term``, added in the widest dtype among the terms and rounded once, to that of ``like``."""
    kept = [factor * term if factor != 1 else term for factor, term in terms if factor]
    return sum(kept[1:], kept[0]).astype(like.dtype)


def _near_unit(x: Array) -> tuple[Array, Array]:
    """x in at least float32 and divided by the power of two that brings its largest entry into [0.5, 1).

    The power is a constant to differentiation: the iteration does not depend on the size of x.
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(wide), axis=(-2, -1), keepdims=True))
    _, exponent = jnp.frexp(largest)
    return _ldexp(wide, -exponent), exponent


def _ldexp(x: Array, exponent: Array) -> Array:
    """``x 2^exponent`` in two exact multiplications, so that a factor beyond the dtype's range is no trouble."""
    half = exponent // 2
    first, second = (jnp.ldexp(jnp.ones((), x.dtype), part) for part in (half, exponent - half))
    return x * first * second


def _frobenius(x: Array) -> Array:
    return jnp.sqrt(_positive(jnp.sum(jnp.square(x), axis=(-2, -1), keepdims=True)))


def _positive(x: Array) -> Array:
    """x with zeros replaced by ones where a square root is to be differentiated; only zero matrices have them."""
    return jnp.where(x > 0, x, 1.0) if x.size else x


def _safe_reciprocal(x: Array) -> Array:
    return jnp.where(x > 0, 1.0 / jnp.where(x > 0, x, 1.0), 1.0)


def _cast(x: Array | None, dtype: DTypeLike) -> Array | None:
    return None if x is None else x.astype(dtype)


def _is_zero(eps: Array | float) -> bool:
    return isinstance(eps, (int, float)) and eps == 0
