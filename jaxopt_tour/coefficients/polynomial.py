"""Polynomial coefficients as a value: the polynomials of every step and the prescale they were made for.

A value cannot be cycled, cut short or used with another prescale: each of these can turn an update uphill.

One step maps every singular value s of the iterate to `p(s) = a s + b s^3 + c s^5`, or to an odd polynomial of degree
9 or 17 (`odd_polynomials`).
"""

from __future__ import annotations

import dataclasses
from typing import Final

import numpy as np

from jaxopt_tour._checks import check_choice, check_number
from jaxopt_tour.coefficients import odd_polynomials as odd
from jaxopt_tour.coefficients.odd_polynomials import Polynomial

PRESCALES: Final = ("frobenius", "schatten4", "schatten8", "aol")

#: Largest accepted rounding-error amplification of a factored polynomial of degree 17; generated ones stay below 1e3.
_MOST_GROWTH: Final = 1e4


@dataclasses.dataclass(frozen=True)
class PolynomialCoefficients:
    """Odd polynomials applied one after the other to `X / S(X)`, with S the norm named by `prescale`.

    Attributes:
        name: shown in tables and messages.
        polynomials: `(a, b, c)` of every step, or the five or nine coefficients of an odd polynomial of degree 9 or
            17.
        prescale: the norm that bounds the spectral norm of X from above: `frobenius` = (sum s_i^2)^(1/2),
            `schatten4` = (sum s_i^4)^(1/4), `schatten8` = (sum s_i^8)^(1/8), or `aol`, which scales every row
            of X by `rsqrt(sum_j |X X^T|_ij)` (almost-orthogonal layers; it also turns the singular vectors a little).
        source: where the numbers come from.
        in_half: the coefficients that replace these where the iteration runs in half precision. Polynomials of degree
            9 and 17 have coefficients too large for it: without a replacement they run in float32, and a dtype of half
            precision is refused.
    """

    name: str
    polynomials: tuple[Polynomial, ...]
    prescale: str = "frobenius"
    source: str = ""
    in_half: PolynomialCoefficients | None = None

    def __post_init__(self) -> None:
        check_choice("prescale", self.prescale, PRESCALES)
        polynomials = tuple(tuple(float(value) for value in polynomial) for polynomial in self.polynomials)
        if not polynomials or not all(len(polynomial) in odd.PRODUCTS for polynomial in polynomials):
            raise ValueError(
                "polynomials must be a non-empty sequence of (a, b, c), or of five or nine coefficients for degree 9 "
                f"or 17, got {self.polynomials!r}"
            )
        if not all(np.isfinite(value) for polynomial in polynomials for value in polynomial):
            raise ValueError(f"polynomials must be finite, got {self.polynomials!r}")
        polynomials = tuple(odd.shortest(polynomial) for polynomial in polynomials)
        if any(len(polynomial) == 9 and polynomial[-1] == 0 for polynomial in polynomials):
            raise ValueError(f"polynomials must be of degree up to 9 or of degree 17, got {self.polynomials!r}")
        if any(len(polynomial) == 9 and odd.growth(polynomial) > _MOST_GROWTH for polynomial in polynomials):
            raise ValueError(
                "polynomials of degree 17 must have a last coefficient that is not small beside the others: rounding "
                f"would take the result, got {self.polynomials!r}"
            )
        if self.in_half is not None and not (
            isinstance(self.in_half, PolynomialCoefficients) and self.in_half.degree <= 5
        ):
            raise ValueError(f"in_half must be a PolynomialCoefficients of degree 3 or 5, got {self.in_half!r}")
        if self.in_half is not None and self.in_half.prescale != self.prescale:
            raise ValueError(
                f"in_half must have the same prescale, {self.prescale!r}, got one with {self.in_half.prescale!r}"
            )
        object.__setattr__(self, "polynomials", polynomials)

    @property
    def steps(self) -> int:
        """The number of steps."""
        return len(self.polynomials)

    @property
    def degree(self) -> int:
        """The largest degree of a step: 3, 5, 9 or 17."""
        return max(odd.degree(polynomial) for polynomial in self.polynomials)

    def map_singular_values(self, values: np.ndarray) -> np.ndarray:
        """Map singular values that are already divided by the prescale."""
        values = np.asarray(values, np.float64)
        for polynomial in self.polynomials:
            values = odd.value(polynomial, values)
        return values

    def worst_error(self, lower_bound: float) -> float:
        """The largest `|s - 1|` that a singular value in [lower_bound, 1] of the prescaled matrix ends with.

        Exact up to rounding: a polynomial maps an interval onto an interval.
        """
        low, high = check_bound(lower_bound), 1.0
        for polynomial in self.polynomials:
            low, high = odd.image(polynomial, low, high)
        return max(abs(low - 1), abs(high - 1))


def check_steps(steps: int) -> int:
    """The number of steps, an integer; every step is a part of the program, and none needs a hundred."""
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or not 1 <= steps <= 100:
        raise ValueError(f"steps must be an integer from 1 to 100, got {steps!r}")
    return int(steps)


def check_bound(lower_bound: float) -> float:
    """The lower bound, inside (0, 1)."""
    check_number("lower_bound", lower_bound, "a number with 0 < lower_bound < 1", lambda number: 0 < number < 1)
    return float(lower_bound)
