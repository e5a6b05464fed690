"""Odd rational functions of singular values: their values and the best ones for an interval; coefficients of them.

`r(s) = s (C + sum_j a_j / (s^2 + c_j))` with every c_j > 0. It acts on a matrix as `q(R) X`, `R = X X^T`, with
`q(R) = C I + sum_j a_j (R + c_j I)^-1`: one inverse of a positive definite matrix for every two degrees
(`positive_inverse`). An inverse takes the operations of little more than one product and does
what many products do: on [1e-3, 1] five quintics, of degree 3,125 together, end within .512 of 1, and two rational
functions of degree 3 within .019 (`docs/accuracy.md`).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Final, NamedTuple, TypeVar

import numpy as np

from jaxopt_tour._checks import check_choice
from jaxopt_tour.coefficients.cached import cached
from jaxopt_tour.coefficients.polynomial import PRESCALES, PolynomialCoefficients, check_bound, check_steps

_Values = TypeVar("_Values", float, np.ndarray)

#: The smallest c_j, for a matrix of norm 1, that leaves R + c I positive definite in float32.
SMALLEST_SHIFT: Final = 1e-5


class Rational(NamedTuple):
    """`r(s) = s (constant + sum_j weights[j] / (s^2 + shifts[j]))`."""

    constant: float
    weights: tuple[float, ...]
    shifts: tuple[float, ...]


def value(function: Rational, s: _Values) -> _Values:
    """r(s)."""
    weights, shifts = function.weights, function.shifts
    return s * (function.constant + sum(a / (s * s + c) for a, c in zip(weights, shifts, strict=True)))


def image(function: Rational, low: float, high: float) -> tuple[float, float]:
    """The smallest and the largest r(s) for s in [low, high], at the ends or where `r' = 0`."""
    # r' = C + sum_j a_j (c_j - t) / (t + c_j)^2 with t = s^2, times all denominators.
    squares = [np.polynomial.polynomial.polypow((c, 1.0), 2) for c in function.shifts]
    numerator: np.ndarray = function.constant * _product(squares)
    for j, (a, c) in enumerate(zip(function.weights, function.shifts, strict=True)):
        numerator = np.polynomial.polynomial.polyadd(
            numerator, a * np.polynomial.polynomial.polymul((c, -1.0), _product(squares, without=j))
        )
    roots = np.polynomial.polynomial.polyroots(numerator)
    real = roots.real[(np.abs(roots.imag) < 1e-9 * np.abs(roots)) & (roots.real > 0)]
    inside = [s for s in np.sqrt(real) if low < s < high]
    values = [value(function, float(s)) for s in (low, high, *inside)]
    return min(values), max(values)


def best(low: float, high: float, inverses: int) -> Rational:
    """The odd rational function of degree `2 inverses + 1` that is closest to 1 on [low, high], in the largest error.

    Zolotarev's solution in elliptic functions: on [l, 1], `r(s) = M s prod_j (s^2 + d_{2j}) / (s^2 + d_{2j-1})` with
    `d_i = l^2 tan^2 am(i K / (2 inverses + 1))`, K and the amplitude am of modulus `sqrt(1 - l^2)`, and the M that
    centers the error.

    Source: Nakatsukasa & Freund, Computing fundamental matrix decompositions accurately via the matrix sign function in
    two iterations, SIAM Review 2016, equations (3.1) to (3.5), https://doi.org/10.1137/140990334
    """
    l = low / high  # noqa: E741 (the paper's name)
    d = (l * np.tan(_amplitudes(np.arange(1, 2 * inverses + 1) / (2 * inverses + 1), l))) ** 2
    odd, even = d[0::2], d[1::2]
    if not odd.min() > 0:
        raise ValueError(f"lower_bound must be larger: that of {low!r} is lost to rounding")

    def weight(j: int) -> float:
        return float(np.prod(even - odd[j]) / np.prod(np.delete(odd, j) - odd[j]))

    plain = Rational(1.0, tuple(weight(j) for j in range(inverses)), tuple(odd.tolist()))
    center = 2 / sum(image(plain, l, 1.0))
    # From [l, 1] to [low, high]: s / high in place of s.
    return Rational(
        center / high,
        tuple(center * a * high for a in plain.weights),
        tuple(c * high**2 for c in plain.shifts),
    )


@dataclasses.dataclass(frozen=True)
class RationalCoefficients:
    """Odd rational functions applied one after the other to `X / S(X)`, with S the norm named by `prescale`.

    Attributes:
        name: shown in tables and messages.
        functions: one a step, of one degree.
        prescale: the norm that bounds the spectral norm of X from above, see
            `PolynomialCoefficients`. Schatten-4 and Frobenius are read off
            the Gram matrix; Schatten-8 takes a product.
        source: where the numbers come from.
        polynomial: the coefficients that replace these where inverses do not pay or cannot be computed: on a GPU or
            TPU, in half precision, for small matrices, and in the standard form; they have a prescale of their own.
            Without them the inverses run everywhere, at least in float32, and a dtype of half precision is refused.
    """

    name: str
    functions: tuple[Rational, ...]
    prescale: str = "schatten4"
    source: str = ""
    polynomial: PolynomialCoefficients | None = None

    def __post_init__(self) -> None:
        check_choice("prescale", self.prescale, PRESCALES)
        functions = tuple(Rational(float(c), tuple(map(float, a)), tuple(map(float, s))) for c, a, s in self.functions)
        counts = {len(values) for function in functions for values in (function.weights, function.shifts)}
        if len(counts) != 1 or 0 in counts:
            raise ValueError(
                "functions must be a non-empty sequence of (constant, weights, shifts) with as many weights as shifts, "
                f"at least one and as many in all functions, got {self.functions!r}"
            )
        if not all(np.isfinite((f.constant, *f.weights, *f.shifts)).all() for f in functions):
            raise ValueError(f"functions must be finite, got {self.functions!r}")
        if min(min(f.shifts) for f in functions) < SMALLEST_SHIFT:
            raise ValueError(
                f"functions must have shifts >= {SMALLEST_SHIFT:g}, below which R + c I is singular to float32: take a "
                f"larger lower bound, or more steps of fewer inverses; got {self.functions!r}"
            )
        if self.polynomial is not None and not isinstance(self.polynomial, PolynomialCoefficients):
            raise ValueError(f"polynomial must be a PolynomialCoefficients or None, got {self.polynomial!r}")
        object.__setattr__(self, "functions", functions)

    @property
    def steps(self) -> int:
        """The number of steps."""
        return len(self.functions)

    def map_singular_values(self, values: np.ndarray) -> np.ndarray:
        """Map singular values that are already divided by the prescale."""
        values = np.asarray(values, np.float64)
        for function in self.functions:
            values = value(function, values)
        return values

    def worst_error(self, lower_bound: float) -> float:
        """The largest `|s - 1|` that a singular value in [lower_bound, 1] of the prescaled matrix ends with."""
        low, high = check_bound(lower_bound), 1.0
        for function in self.functions:
            low, high = image(function, low, high)
        return max(abs(low - 1), abs(high - 1))


@cached
def zolotarev(
    steps: int = 2, lower_bound: float = 1e-3, prescale: str = "schatten4", inverses: int = 1
) -> RationalCoefficients:
    """The best odd rational functions for singular values in [lower_bound, 1], generated for the arguments.

    Each step is the one closest to 1 (in the largest error) on the interval that the step before it left. Composed,
    they are the best of all of the degree `(2 inverses + 1)^steps`: `zolotarev(2)` has degree 9 and two inverses.
    With one inverse a step is the dynamically weighted Halley iteration (QDWH).

    For full precision: the inverses are of matrices with a condition of ten thousand and more.

    Args:
        steps: number of functions.
        lower_bound: the smallest singular value, as a share of the prescaling norm, that is to reach 1. Smaller values
            are enlarged as much as the functions can.
        prescale: the norm that X is divided by.
        inverses: of one step.

    Raises:
        ValueError: an argument is out of range, or the functions would need more digits than float32 has.

    Source: `best`; Nakatsukasa, Bai & Gygi, Optimizing Halley's iteration for computing the matrix polar
    decomposition, 2010, https://doi.org/10.1137/090774999
    """
    low, high = check_bound(lower_bound), 1.0
    if isinstance(inverses, bool) or not isinstance(inverses, int) or not 1 <= inverses <= 100:
        raise ValueError(f"inverses must be an integer from 1 to 100, got {inverses!r}")
    functions = []
    for _ in range(check_steps(steps)):
        functions.append(best(low, high, inverses))
        low, high = image(functions[-1], low, high)
    return RationalCoefficients(
        "zolotarev", tuple(functions), prescale, "Nakatsukasa & Freund 2016, https://doi.org/10.1137/140990334"
    )


def _amplitudes(shares: np.ndarray, complement: float) -> np.ndarray:
    """`am(share K)` for the elliptic integral K of modulus `sqrt(1 - complement^2)`.

    Source: Abramowitz & Stegun, Handbook of Mathematical Functions, 16.4 (by arithmetic-geometric means).
    """
    a, b, ratios = 1.0, complement, []
    while a - b > 1e-15 * a:
        a, b, c = (a + b) / 2, np.sqrt(a * b), (a - b) / 2
        ratios.append(c / a)
    phi = 2.0 ** len(ratios) * shares * np.pi / 2  # 2^n a_n u with u = share K and K = pi / (2 a_n)
    for ratio in reversed(ratios):
        phi = (phi + np.arcsin(ratio * np.sin(phi))) / 2
    return phi


def _product(factors: list[np.ndarray], without: int | None = None) -> np.ndarray:
    kept = [factor for j, factor in enumerate(factors) if j != without]
    return functools.reduce(np.polynomial.polynomial.polymul, kept, np.ones(1))
