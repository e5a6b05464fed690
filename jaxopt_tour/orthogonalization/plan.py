"""Every decision of an orthogonalization: pure functions of shapes, dtypes, options and the platform.

`plan_groups` says which matrices are processed together and how. Executing that, in
`run`, decides nothing. No array and no device is looked at here, so a plan can be
made, printed and compared for a platform that is not there. Each table below names the measurement behind its numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal, NamedTuple

import jax.numpy as jnp

from jaxopt_tour._checks import check_choice
from jaxopt_tour._types import DTypeLike
from jaxopt_tour.coefficients import Coefficients, Exact, PolynomialCoefficients, RationalCoefficients
from jaxopt_tour.coefficients.odd_polynomials import is_cubic
from jaxopt_tour.coefficients.operations import operations
from jaxopt_tour.linalg.symmetric import Method
from jaxopt_tour.orthogonalization.options import Options, needs_full_precision

Platform = Literal["cpu", "gpu", "tpu"]
PLATFORMS: Final[tuple[Platform, ...]] = ("cpu", "gpu", "tpu")

#: Default dtype of the iteration, for matrices of float32 and less. The polar errors of the default's quintics in all
#: three are in docs/accuracy.md (benchmarks/accuracy.py); float32 products are not faster in bfloat16 on a CPU.
DEFAULT_DTYPE: Final[dict[Platform, str]] = {"cpu": "float32", "gpu": "float16", "tpu": "bfloat16"}

#: Short side from which rational coefficients run on a CPU, and not the polynomials given for elsewhere.
#: benchmarks/inverses.py: from 128 rows on they are faster (at 192 x 192 by 1 % for `fast`), at 96 rows nowhere.
INVERSES_FROM: Final = 128

#: Short side from which a CPU computes products of two symmetric matrices in blocks. benchmarks/symmetric.py: from
#: 1,024 rows on all quartiles are faster than the plain product's; at 768 the median is, by less than blocks add to the
#: time to compile. X X^T stays plain: its blocks would first have to be copied.
BLOCKS_FROM: Final = 1024

#: Short side from which more than two equal steps are a loop of the program. benchmarks/compile_time.py: it compiles in
#: less time, and large products hide the loop's cost.
LOOP_FROM: Final = 512

#: Bound on the memory of one slice of a stack, besides the stack itself, on accelerators: 1 GiB. A CPU works on one
#: matrix at a time, whose products use all cores; XLA's batched product is slower there (benchmarks/stacking.py).
SLICE_BYTES: Final[dict[Platform, int]] = {"cpu": 0, "gpu": 2**30, "tpu": 2**30}

#: Standard form on a CPU: matrices of so many rows, up to so many of one shape, are not stacked. A loop over few small
#: matrices costs more than it saves (benchmarks/stacking.py); more of them would take more time to compile.
SEPARATE_ROWS: Final = range(128, 513)
SEPARATE_COUNT: Final = 16

#: A CPU divides a group into stacks of equal length, at most so many matrices and at least half as many. Slices of
#: equal stacks are the same kernels, each of which XLA compiles once (benchmarks/compile_time.py).
STACK_COUNT: Final = 16


@dataclasses.dataclass(frozen=True)
class Iteration:
    """What is done to one matrix, with every option decided.

    Attributes:
        coefficients: the polynomials, the rational functions, or the exact polar factor.
        form: `"standard"`, `"gram"`, or `"exact"` by SVD.
        dtype: of the products.
        gram_product: how `X X^T` is computed, see `symmetric_product`.
        commuting_product: how products of two polynomials of `X X^T` are computed.
        restarts: steps before which the Gram form returns to X.
        loop: equal steps are a loop of the program.
    """

    coefficients: Coefficients
    form: Literal["standard", "gram", "exact"]
    dtype: str
    gram_product: Method = "plain"
    commuting_product: Method = "plain"
    restarts: tuple[int, ...] = ()
    loop: bool = False

    def operations(self, m: int, n: int) -> int:
        """Floating-point operations for one m x n matrix, m <= n; of an SVD, about 6 m^2 n + 20 m^3."""
        if isinstance(self.coefficients, Exact):
            return 6 * m * m * n + 20 * m**3  # R-SVD with both thin factors: Golub & Van Loan, section 8.6
        return operations(self.coefficients, m, n, self.form, len(self.restarts))


class Key(NamedTuple):
    """A piece of a parameter: its path name, and which one of a split fan-out."""

    name: str
    piece: int


class Matrices(NamedTuple):
    """A batch of matrices of one shape, as they are stored: tall or wide."""

    batch: int
    rows: int
    columns: int
    dtype: str

    @property
    def wide(self) -> tuple[int, int]:
        """The shape with the short side first."""
        return min(self.rows, self.columns), max(self.rows, self.columns)


@dataclasses.dataclass(frozen=True)
class Group:
    """Matrices that are processed together.

    Attributes:
        members: which matrices, in the order of the stack.
        iteration: what is done to each.
        stacked: what is stacked: `"gram matrices"`, of which those of one short side share a stack however long the
            other side is, or the `"matrices"` themselves, tall ones transposed.
        slice_bytes: bound on the memory of one slice of the stack; 0: one matrix at a time.
    """

    members: tuple[tuple[Key, Matrices], ...]
    iteration: Iteration
    stacked: Literal["gram matrices", "matrices"]
    slice_bytes: int

    @property
    def operations(self) -> int:
        """Floating-point operations of one update."""
        return sum(matrices.batch * self.iteration.operations(*matrices.wide) for _, matrices in self.members)


def check_platform(platform: str) -> Platform:
    """The platform whose plan is meant; `"cuda"` and `"rocm"` are GPUs."""
    check_choice("platform", platform, (*PLATFORMS, "cuda", "rocm"))
    return "gpu" if platform in ("cuda", "rocm") else platform  # type: ignore[return-value]


def plan_iteration(options: Options, m: int, n: int, dtype: DTypeLike, platform: Platform) -> Iteration:
    """Decide what is done to one m x n matrix of this dtype, m <= n."""
    coefficients = options.value
    if isinstance(coefficients, Exact):
        return Iteration(coefficients, "exact", str(jnp.promote_types(dtype, jnp.float32)))
    work_dtype = _iteration_dtype(options, dtype, platform)
    half = jnp.finfo(work_dtype).bits == 16
    chosen = _coefficients_at(options, m, half, platform)
    form = _form(options, chosen, m, n, work_dtype) if options.form == "auto" else options.form
    if isinstance(chosen, RationalCoefficients):
        form = "gram"
    in_blocks: Method = "blocks" if platform == "cpu" and m >= BLOCKS_FROM else "plain"
    return Iteration(
        chosen,
        form,
        str(work_dtype),
        gram_product="blocks" if options.symmetric == "blocks" else "plain",
        commuting_product=in_blocks if options.symmetric == "auto" else options.symmetric,
        restarts=_restarts(chosen, half) if form == "gram" else (),
        loop=not half and m >= LOOP_FROM and _steps_are_alike(chosen),
    )


def plan_groups(options: Options, pieces: Mapping[Key, Matrices], platform: Platform) -> tuple[Group, ...]:
    """Decide which matrices are processed together, and how."""
    groups: list[Group] = []
    iterations = {
        key: plan_iteration(options, *matrices.wide, matrices.dtype, platform)
        for key, matrices in pieces.items()
        if matrices.batch and matrices.rows and matrices.columns
    }

    def add(keys: Iterable[Key], stacked: Literal["gram matrices", "matrices"], kind: Callable[[Key], object]) -> None:
        by_kind: dict[object, list[Key]] = {}
        for key in keys:
            by_kind.setdefault((iterations[key], key if options.grouping == "none" else kind(key)), []).append(key)
        for members in by_kind.values():
            for stack in _stacks(members, stacked, pieces, options, platform):
                # A single matrix has no slices: plans that differ in their size alone would be equal.
                single = sum(pieces[key].batch for key in stack) == 1
                slice_bytes = 0 if single else SLICE_BYTES[platform]
                groups.append(
                    Group(tuple((key, pieces[key]) for key in stack), iterations[stack[0]], stacked, slice_bytes)
                )

    by_gram = [key for key, iteration in iterations.items() if _stacks_gram_matrices(iteration)]
    add(by_gram, "gram matrices", lambda key: (pieces[key].wide[0], pieces[key].dtype))
    others = [key for key in iterations if key not in set(by_gram)]
    add(others, "matrices", lambda key: (pieces[key].wide, pieces[key].dtype))
    return tuple(groups)


def at_once(slice_bytes: int, m: int, n: int, itemsize: int) -> int:
    """How many m x n matrices of a stack are worked on together: as many as fit into a slice, at least one.

    An iteration holds of each its input, its output and five m x m matrices.
    """
    m, n = min(m, n), max(m, n)
    return max(1, slice_bytes // (itemsize * (2 * m * n + 5 * m * m)))


def _iteration_dtype(options: Options, dtype: DTypeLike, platform: Platform) -> jnp.dtype:
    if options.dtype is not None:
        return jnp.dtype(options.dtype)
    wide = jnp.dtype(jnp.promote_types(dtype, jnp.float32))
    full = wide == jnp.float64 or needs_full_precision(options.value)
    return wide if full else jnp.dtype(DEFAULT_DTYPE[platform])


def _coefficients_at(
    options: Options, m: int, half: bool, platform: Platform
) -> PolynomialCoefficients | RationalCoefficients:
    """The coefficients that run: the given ones, or those that they carry for elsewhere and for half precision."""
    chosen = options.value
    assert not isinstance(chosen, Exact)
    if isinstance(chosen, RationalCoefficients) and chosen.polynomial is not None:
        inverses_pay = platform == "cpu" and not half and m >= INVERSES_FROM
        chosen = chosen if inverses_pay and options.form != "standard" else chosen.polynomial
    if isinstance(chosen, PolynomialCoefficients) and chosen.in_half is not None and half:
        chosen = chosen.in_half
    return chosen


def _form(
    options: Options, coefficients: PolynomialCoefficients | RationalCoefficients, m: int, n: int, dtype: jnp.dtype
) -> Literal["standard", "gram"]:
    """`"gram"` where it takes fewer operations at this shape; inverses have the Gram form alone.

    In bfloat16 polynomials always take the standard form: eight bits are too few for the product of the steps to stay
    symmetric, and the error shows on square and on steep spectra. So does float16 beyond five steps, over which its
    rounding grows.
    """
    if isinstance(coefficients, RationalCoefficients):
        return "gram"
    half = jnp.finfo(dtype).bits == 16
    if dtype == jnp.bfloat16 or (half and coefficients.steps > 5):
        return "standard"
    restarts = len(_restarts(coefficients, half))
    gram = operations(coefficients, m, n, "gram", restarts)
    return "gram" if gram < operations(coefficients, m, n, "standard") else "standard"


def _restarts(coefficients: PolynomialCoefficients | RationalCoefficients, half: bool) -> tuple[int, ...]:
    """In half precision the Gram form returns to X after two steps; in float32 and float64 never."""
    return (2,) if half and isinstance(coefficients, PolynomialCoefficients) and coefficients.steps > 2 else ()


def _steps_are_alike(coefficients: PolynomialCoefficients | RationalCoefficients) -> bool:
    """Whether all steps but the first can be one step in a loop: more than two, of one degree up to 9."""
    if isinstance(coefficients, RationalCoefficients):
        return False
    steps = coefficients.polynomials[1:]
    # The factors of a polynomial of degree 17 are numbers of the program, not its data.
    kinds = {(len(polynomial), is_cubic(polynomial)) for polynomial in steps}
    return len(steps) > 2 and len(kinds) == 1 and len(steps[0]) < 9


def _stacks_gram_matrices(iteration: Iteration) -> bool:
    """Only if no step returns to X: the Gram form in full precision."""
    return iteration.form == "gram" and jnp.finfo(iteration.dtype).bits > 16


def _stacks(
    keys: list[Key], stacked: str, pieces: Mapping[Key, Matrices], options: Options, platform: Platform
) -> list[list[Key]]:
    """The stacks of one kind of matrices."""
    if options.grouping != "auto" or platform != "cpu":
        return [keys]
    if stacked == "matrices" and len(keys) <= SEPARATE_COUNT and pieces[keys[0]].wide[0] in SEPARATE_ROWS:
        return [[key] for key in keys]
    lengths = [n for n in range(STACK_COUNT // 2, STACK_COUNT + 1) if len(keys) % n == 0]
    length = max(lengths, default=len(keys))
    return [keys[start : start + length] for start in range(0, len(keys), length)]
