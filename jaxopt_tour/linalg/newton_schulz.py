"""The Newton-Schulz iteration on X, the same on its Gram matrix, and the choice between them.

Both apply the functions of a schedule to the singular values of ``X / S(X)`` and leave the singular vectors alone.
Written for wide matrices, m <= n; tall ones are transposed on the way in and out.

Standard form, T steps: ``A = X X^T``, ``X <- a X + (b A + c A A) X``.

Gram form: all T steps happen on the m x m matrices ``R`` (the Gram matrix of the iterate) and ``Q`` (the product of the
steps), and X is touched twice::

    R = X X^T
    Z = b R + c R R;   Q <- Q Z + a Q;   R <- Z (R Z + a R) + a (R Z + a R)      T times
    X <- Q X

Z is that of a step of degree 5; one of degree 9 or 17 takes one or two products more
(:mod:`jaxopt_tour.linalg.polynomials`). Every matrix commutes with R, so each is symmetric. Source: Dao-AILab,
gram-newton-schulz, 2026, https://github.com/Dao-AILab/gram-newton-schulz

Rational functions have the Gram form alone, with inverses in it (:mod:`jaxopt_tour.linalg.rational_steps`).

The prescale costs no pass over X, because every norm in use is a function of the Gram matrix A that step one forms
anyway: Frobenius^2 = tr A, Schatten-4^4 = |A|_F^2, Schatten-8^8 = |A A|_F^2.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_tour._checks import check_choice, check_float_dtype, check_nonnegative
from jaxopt_tour._types import Array, DTypeLike, Float
from jaxopt_tour.linalg import rational_steps
from jaxopt_tour.linalg.flops import flops, takes_square
from jaxopt_tour.linalg.polar import polar_factor
from jaxopt_tour.linalg.polynomials import Polynomial, factors, is_cubic
from jaxopt_tour.linalg.products import product
from jaxopt_tour.linalg.schedules import AnySchedule, Exact, RationalSchedule, Schedule, ScheduleLike, as_schedule
from jaxopt_tour.linalg.symmetric import METHODS as SYMMETRIC_METHODS
from jaxopt_tour.linalg.symmetric import symmetric_product

METHODS: Final = ("auto", "standard", "gram")

#: What the iteration runs in when nothing is said, by backend, for matrices of float32 and less; elsewhere float32.
#: Measured polar errors are in docs/accuracy.md: the default's quintics keep their place in both.
DEFAULT_DTYPES: Final = {"gpu": "float16", "tpu": "bfloat16"}

#: From so many rows on the steps of polynomials are a loop in the program.
LOOP_FROM: Final = 512

#: From so many rows on, on CPU, a schedule of inverses runs itself and not the polynomials that stand in for it.
#: ``python benchmarks/inverses.py`` measures where they pay (benchmarks/results/inverses-cpu.json): from 128 rows on,
#: at 192 x 192 by 1 % for ``fast``; at 96 rows nowhere.
INVERSES_FROM: Final = 128


def orthogonalize(
    x: Float[Array, "*batch m n"],
    schedule: ScheduleLike = "auto",
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
        schedule: the functions of singular values and their prescale, by name or as a value, see
            :mod:`jaxopt_tour.linalg.schedules`; ``"exact"`` takes the polar factor by SVD instead.
        method: ``"standard"``, ``"gram"``, or ``"auto"``: the one with fewer floating-point operations at this shape
            (:func:`flops`), where its rounding is harmless in ``dtype``. Inverses have the Gram form alone:
            ``"standard"`` takes the polynomials that stand in for them.
        dtype: of the products; None: float16 on a GPU and bfloat16 on a TPU (:data:`DEFAULT_DTYPES`), float32 on CPU,
            float64 for x of float64. Products of half precision are summed in float32.
        eps: added to the prescaling norm, in the units of x. Keller Jordan's Muon has 1e-7, Optax's 1e-8. Any eps > 0
            makes small gradients count less; not used by the exact method.
        symmetric: how X X^T and products of polynomials of it are computed, which are symmetric: ``"plain"``,
            ``"blocks"``, ``"kernel"`` or ``"auto"``, see :func:`jaxopt_tour.linalg.symmetric.symmetric_product`.

    Returns:
        Matrices of the shape and dtype of x, with singular values near 1 (how near, the schedule says).

    Raises:
        ValueError: x is not a batch of real floating matrices, or an argument is not one of those named above.
    """
    if x.ndim < 2 or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"x must be real floating matrices of shape (..., m, n), got {x.dtype}{list(x.shape)}")
    return Orthogonalization.of(schedule, method=method, dtype=dtype, eps=eps, symmetric=symmetric)(x)


@dataclasses.dataclass(frozen=True)
class Orthogonalization:
    """:func:`orthogonalize` with its arguments checked and fixed; whole, or in the three parts of the Gram form.

    The parts are for whoever has many matrices: those of one m share the stack of their Gram matrices, however long
    their other sides are, and X itself is read in place, where and how it is stored::

        scale = operation.unit_scale(x)
        unit = operation.near_unit(x, scale)
        factor = operation.factor(operation.gram(unit), scale)     # m x m matrices alone
        o = operation.apply(factor, unit).astype(x.dtype)
    """

    schedule: AnySchedule
    method: str = "auto"
    dtype: DTypeLike | None = None
    eps: float | Array = 0.0
    symmetric: str = "auto"

    @classmethod
    def of(
        cls,
        schedule: ScheduleLike,
        *,
        method: str = "auto",
        dtype: DTypeLike | None = None,
        eps: float | Array = 0.0,
        symmetric: str = "auto",
    ) -> Orthogonalization:
        """Check the arguments of :func:`orthogonalize`.

        Raises:
            ValueError: one of them is not among those allowed.
        """
        check_choice("method", method, METHODS)
        check_choice("symmetric", symmetric, SYMMETRIC_METHODS)
        check_nonnegative("eps", eps)
        known, dtype = as_schedule(schedule), check_float_dtype("dtype", dtype)
        if _in_full_precision_alone(known) and dtype is not None and _is_half(dtype):
            kind = f"of degree {known.degree} without in_half=" if isinstance(known, Schedule) else "of inverses alone"
            raise ValueError(f"dtype must be float32 or float64 for a schedule {kind}, got {jnp.dtype(dtype)}")
        if isinstance(known, RationalSchedule) and known.polynomial is None and method == "standard":
            raise ValueError(f"method must be 'auto' or 'gram' for a schedule with inverses, got {method!r}")
        return cls(known, method, dtype, eps, symmetric)

    def __call__(self, x: Float[Array, "*batch m n"]) -> Float[Array, "*batch m n"]:
        """All of it."""
        if isinstance(self.schedule, Exact):
            return polar_factor(x)
        if x.size == 0:
            return x
        tall = x.shape[-2] > x.shape[-1]
        wide = x.mT if tall else x
        scale = self.unit_scale(wide)
        schedule = self.schedule_for(wide.shape[-2], self.work_dtype(x.dtype))
        unit, eps = self.near_unit(wide, scale), self._eps_unit(scale)
        if isinstance(schedule, Schedule) and self.form(wide.shape, x.dtype) == "standard":
            result = _standard(unit, schedule, eps, self.symmetric)
        else:
            result = _gram(unit, schedule, eps, self.symmetric)
        return (result.mT if tall else result).astype(x.dtype)

    def work_dtype(self, dtype: DTypeLike) -> DTypeLike:
        """The iteration's dtype for matrices of this one; at least float32 if the schedule cannot do with less."""
        if self.dtype is not None:
            return jnp.dtype(self.dtype)
        wide = jnp.dtype(_wide(dtype))
        if _in_full_precision_alone(self.schedule):
            return wide
        return wide if wide == jnp.float64 else jnp.dtype(DEFAULT_DTYPES.get(jax.default_backend(), wide))

    def schedule_for(self, m: int, work_dtype: DTypeLike) -> Schedule | RationalSchedule:
        """The schedule that an iteration on matrices of short side m runs in this dtype: itself, or its stand-in.

        Not for the exact method.
        """
        schedule = self.schedule
        assert not isinstance(schedule, Exact)
        if isinstance(schedule, RationalSchedule) and schedule.polynomial is not None:
            inverses_pay = jax.default_backend() == "cpu" and not _is_half(work_dtype) and m >= INVERSES_FROM
            schedule = schedule if inverses_pay and self.method != "standard" else schedule.polynomial
        if isinstance(schedule, Schedule) and schedule.in_half is not None and _is_half(work_dtype):
            schedule = schedule.in_half
        return schedule

    def form(self, shape: tuple[int, ...], dtype: DTypeLike) -> str:
        """``"standard"`` or ``"gram"`` for matrices of this shape and dtype; ``"exact"`` by SVD."""
        if isinstance(self.schedule, Exact):
            return "exact"
        if self.method != "auto":
            return self.method
        m, n = sorted(shape[-2:])
        work_dtype = self.work_dtype(dtype)
        return cheaper_method(self.schedule_for(m, work_dtype), m, n, work_dtype)

    def has_parts(self, shape: tuple[int, ...], dtype: DTypeLike) -> bool:
        """Whether the parts below may be used for such matrices: in the Gram form, if no step returns to X."""
        return 0 not in shape and self.form(shape, dtype) == "gram" and not _is_half(self.work_dtype(dtype))

    def unit_scale(self, x: Float[Array, "*batch m n"]) -> Array:
        """The power of two that brings the largest entry of every matrix into [0.5, 1), of shape (..., 1, 1).

        1 for a matrix of zeros; where it would be denormal, entries are brought below 4. A constant to differentiation:
        the iteration does not depend on the size of x.
        """
        largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=(-2, -1), keepdims=True)).astype(_wide(x.dtype))
        mantissa, _ = jnp.frexp(largest)
        scale = jnp.where(largest > 0, mantissa / jnp.where(largest > 0, largest, 1.0), 1.0)
        return jnp.maximum(scale, jnp.finfo(scale.dtype).tiny)

    def near_unit(self, x: Float[Array, "*batch m n"], scale: Array) -> Array:
        """``scale x`` in the iteration's dtype, its largest entry in [0.5, 1): neither squares nor sums overflow."""
        return (x.astype(_wide(x.dtype)) * scale).astype(self.work_dtype(x.dtype))

    def gram(self, unit: Float[Array, "*batch m n"]) -> Array:
        """The Gram matrix of the short side, ``X X^T`` or, of a tall X, ``X^T X``."""
        return _gram_matrix(unit if unit.shape[-2] <= unit.shape[-1] else unit.mT, self.symmetric)

    def factor(self, gram: Float[Array, "*batch m m"], scale: Array) -> Float[Array, "*batch m m"]:
        """The Q of ``O = Q X`` (``X Q``, of a tall X), from the Gram matrix of a unit X and its scale."""
        schedule = self.schedule_for(gram.shape[-1], gram.dtype)
        start = _prescaled(gram, gram.dtype, schedule, self._eps_unit(scale), self.symmetric)
        if isinstance(schedule, RationalSchedule):
            q = rational_steps.product_of_steps(start.gram, schedule.functions, self.symmetric)
        else:
            q, _ = _product_of_steps(start.gram, start.square, schedule.polynomials, self.symmetric)
        return q * start.row_scale.mT

    def apply(self, factor: Float[Array, "*batch k k"], unit: Float[Array, "*batch m n"]) -> Array:
        """``Q X``, or ``X Q`` of a tall X."""
        if unit.shape[-2] <= unit.shape[-1]:
            return product(factor, unit)
        return product(unit, factor.mT)

    def _eps_unit(self, scale: Array) -> Array | float:
        # In the units of x, eps would be lost to overflow for tiny x; in those of a unit x it is at most huge.
        return 0.0 if _is_zero(self.eps) else jnp.asarray(self.eps, scale.dtype) * scale


def cheaper_method(schedule: Schedule | RationalSchedule, m: int, n: int, dtype: DTypeLike) -> str:
    """``"gram"`` where it takes fewer operations at this shape, else ``"standard"``; inverses have the Gram form alone.

    Polynomials take the standard form always in bfloat16: its eight bits are too few for the product of the steps to
    stay symmetric, and the error shows on square and on steep spectra. So in float16 beyond five steps, over which
    rounding grows until nothing else is left.
    """
    if isinstance(schedule, RationalSchedule):
        return "gram"
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
    start = _prescaled(_gram_matrix(x, symmetric, keep=True), x.dtype, schedule, eps, symmetric)
    x, late_scale = _scaled_rows(x, start.row_scale)
    z, a = _polynomial_of(start.gram, start.square, schedule.polynomials[0], symmetric)
    x = _apply(z, a, x, late_scale)

    def step(x: Array, polynomial: Any, cubic: bool) -> Array:
        gram = _gram_matrix(x, symmetric)
        square = None if cubic else _commuting(gram, gram, symmetric)
        return _apply(*_polynomial_of(gram, square, polynomial, symmetric), x, None)

    return _repeat(step, x, schedule.polynomials[1:], _loop_pays(x, schedule.polynomials[1:]))


def _gram(x: Array, schedule: Schedule | RationalSchedule, eps: Array | float, symmetric: str) -> Array:
    start = _prescaled(_gram_matrix(x, symmetric, keep=True), x.dtype, schedule, eps, symmetric)
    gram, square = start.gram, start.square
    x, late_scale = _scaled_rows(x, start.row_scale)
    if isinstance(schedule, RationalSchedule):
        return _apply(rational_steps.product_of_steps(gram, schedule.functions, symmetric), 0.0, x, late_scale)
    edges = (0, *_restarts(schedule, x.dtype), schedule.steps)
    for first, last in itertools.pairwise(edges):
        if first:
            gram, square = _gram_matrix(x, symmetric), None
        q, identity_part = _product_of_steps(gram, square, schedule.polynomials[first:last], symmetric)
        x = _apply(q, identity_part, x, late_scale)
        late_scale = None
    return x


def _product_of_steps(
    r: Array, square: Array | None, polynomials: Sequence[Polynomial], symmetric: str
) -> tuple[Array, float]:
    """Q and f with ``(Q + f I) X`` the result of all steps, from the Gram matrix R of X; f is 0 in full precision.

    ``square`` is R R where the caller has it.
    """
    if square is None and not is_cubic(polynomials[0]):
        square = _commuting(r, r, symmetric)
    z, a = _polynomial_of(r, square, polynomials[0], symmetric)

    def step(carry: tuple[Any, ...], polynomial: Any, cubic: bool) -> tuple[Any, ...]:
        q, f, r, z, a = carry
        rz = _sum(r, (1.0, _commuting(r, z, symmetric, keep=True)), (a, r))
        r = _sum(r, (1.0, _commuting(z, rz, symmetric, keep=True)), (a, rz))
        square = None if cubic else _commuting(r, r, symmetric)
        z, a = _polynomial_of(r, square, polynomial, symmetric)
        # (Q + f I)(Z + a I) = Q Z + a Q + f Z + a f I, where a and f are 0 in full precision.
        q = _sum(q, (1.0, _commuting(q, z, symmetric, keep=True)), (a, q), (f, z))
        return q, a * f, r, z, a

    others = polynomials[1:]
    if not _loop_pays(r, others):
        return _repeat(step, (z, a, r, z, a), others, False)[:2]

    def step_without_identity(carry: tuple[Array, ...], polynomial: Any, cubic: bool) -> tuple[Array, ...]:
        q, r, z = carry
        q, _, r, z, _ = step((q, 0.0, r, z, 0.0), polynomial, cubic)
        return q, r, z

    return _repeat(step_without_identity, (z, r, z), others, True)[0], 0.0


def _loop_pays(matrix: Array, polynomials: Sequence[Polynomial]) -> bool:
    """Whether these steps become one step in a loop: it compiles in less time, and beside large products costs none."""
    alike = len({(len(polynomial), is_cubic(polynomial)) for polynomial in polynomials}) == 1
    alike &= all(len(polynomial) < 9 for polynomial in polynomials)  # factors are numbers of the program, not its data
    return alike and len(polynomials) > 2 and matrix.shape[-2] >= LOOP_FROM and not _is_half(matrix.dtype)


def _repeat(step: Callable[[Any, Any, bool], Any], carry: Any, polynomials: Sequence[Polynomial], loop: bool) -> Any:
    """``carry = step(carry, polynomial, is_cubic(polynomial))`` for every polynomial."""
    if not loop:
        for polynomial in polynomials:
            carry = step(carry, polynomial, is_cubic(polynomial))
        return carry
    cubic = is_cubic(polynomials[0])
    dtype = jax.tree.leaves(carry)[0].dtype

    def body(carry: Any, polynomial: Array) -> tuple[Any, None]:
        return step(carry, tuple(polynomial), cubic), None

    return jax.lax.scan(body, carry, jnp.asarray(polynomials, dtype))[0]


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


def _prescaled(
    gram: Array, dtype: DTypeLike, schedule: Schedule | RationalSchedule, eps: Array | float, symmetric: str
) -> _Start:
    """Fold ``X / (S(X) + eps)`` into the Gram matrix of X and, where it is needed, its square, both in ``dtype``.

    For half precision ``gram`` comes in float32: norms and scales are taken before rounding.
    """
    if schedule.prescale == "aol":
        scale = _safe_reciprocal(jnp.sqrt(_positive(jnp.sum(jnp.abs(gram), axis=-1, keepdims=True))) + eps)
        gram = (gram * scale * scale.mT).astype(dtype)
        return _Start(gram, _square_if_needed(schedule, gram, symmetric), scale)
    if schedule.prescale == "frobenius":
        norm_squared = jnp.trace(gram, axis1=-2, axis2=-1)[..., None, None]
    else:
        norm_squared = _frobenius(gram)
    gram = (gram * _safe_reciprocal(norm_squared)).astype(dtype)
    norm = jnp.sqrt(_positive(norm_squared))
    square = _square_if_needed(schedule, gram, symmetric, keep=True)
    if schedule.prescale == "schatten8":
        assert square is not None
        shrink = jnp.sqrt(_positive(_frobenius(square)))  # (S8 / S4)^2
        gram = (gram * _safe_reciprocal(shrink)).astype(dtype)
        square = square * _safe_reciprocal(shrink**2)
        norm = norm * jnp.sqrt(_positive(shrink))
    if not _is_zero(eps):
        with_eps = norm * _safe_reciprocal(norm + eps)
        gram = (gram * with_eps**2).astype(dtype)
        square = None if square is None else square * with_eps**4
        return _Start(gram, _cast(square, dtype), _safe_reciprocal(norm + eps))
    return _Start(gram, _cast(square, dtype), _safe_reciprocal(norm))


def _square_if_needed(
    schedule: Schedule | RationalSchedule, gram: Array, symmetric: str, keep: bool = False
) -> Array | None:
    return _commuting(gram, gram, symmetric, keep=keep) if takes_square(schedule) else None


def _restarts(schedule: Schedule, dtype: DTypeLike) -> tuple[int, ...]:
    """Steps before which the Gram form returns to X: after two in half precision, never in float32 and float64."""
    return (2,) if _is_half(dtype) and schedule.steps > 2 else ()


def _polynomial_of(gram: Array, square: Array | None, polynomial: Sequence[Any], symmetric: str) -> tuple[Array, float]:
    """Z and f with ``Z + f I = a I + b A + c A A + ...``, in the dtype of A.

    In full precision f is 0: one matrix, and no pass over memory after a product. In half precision a I stays apart:
    the sum would lose the last bits of b A + c A A.
    """
    if square is None or len(polynomial) == 3:
        a, b, c = polynomial
        z = b * gram if square is None else b * gram + c * square
        if _is_half(gram.dtype):
            return z.astype(gram.dtype), a
        return (z + a * jnp.eye(gram.shape[-1], dtype=gram.dtype)).astype(gram.dtype), 0.0
    identity = jnp.eye(gram.shape[-1], dtype=gram.dtype)
    if len(polynomial) == 5:
        a, b, c, d, e = polynomial
        product_of_two = _commuting(square, d * gram + e * square, symmetric)
        return product_of_two + (a * identity + b * gram + c * square), 0.0
    known = factors(tuple(polynomial))
    y1, y0 = known.y
    y = square + y1 * gram + y0 * identity
    v = _commuting(y, y, symmetric)

    def combined(weights: Sequence[float]) -> Array:
        of_v, of_square, of_gram, of_identity = weights
        return of_v * v + of_square * square + of_gram * gram + of_identity * identity

    return _commuting(combined(known.left), combined(known.right), symmetric) + combined(known.rest), 0.0


def _in_full_precision_alone(schedule: AnySchedule) -> bool:
    if isinstance(schedule, RationalSchedule):
        return schedule.polynomial is None or _in_full_precision_alone(schedule.polynomial)
    return isinstance(schedule, Schedule) and schedule.degree > 5 and schedule.in_half is None


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


def _wide(dtype: DTypeLike) -> DTypeLike:
    return jnp.promote_types(dtype, jnp.float32)


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
