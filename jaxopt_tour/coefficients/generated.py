"""Polynomial coefficients generated for a number of steps and a smallest singular value: Polar Express and CANS."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final

from jaxopt_tour._checks import check_choice, check_number
from jaxopt_tour.coefficients import odd_polynomials as odd
from jaxopt_tour.coefficients.cached import cached
from jaxopt_tour.coefficients.polynomial import PRESCALES, PolynomialCoefficients, check_bound, check_steps

#: Lower end of the interval of one Polar Express step, as a share of its upper end, by degree. 5: the authors' code;
#: 9 and 17: the end at which the error of the best polynomial is as large as the quintic's at its end.
_CUSHION: Final = {5: 0.02407327424182761, 9: 0.013486970356131226, 17: 0.007160122504144433}


def polar_express(
    steps: int = 5,
    lower_bound: float = 3e-3,
    prescale: str = "schatten8",
    safety: float = 1.02,
    degree: int | Sequence[int] = 5,
) -> PolynomialCoefficients:
    """The best composition of odd polynomials for singular values in [lower_bound, 1], generated for the arguments.

    Each step is the odd polynomial closest to 1 (in the largest error) on the interval that the steps before it left,
    `[l, u] -> [p(l), 2 - p(l)]`. Its lower end is raised, for quintics to 0.0241 u, while the interval is wide, which
    keeps a step from enlarging smaller values too much.

    With its default arguments, five quintics for [3e-3, 1] under the Schatten-8 norm, it needs the products of five
    Keller Jordan steps and ends closer to the polar factor.

    Args:
        steps: number of polynomials.
        lower_bound: the smallest singular value, as a share of the prescaling norm, that is to reach 1. Smaller values
            are enlarged as much as the steps can.
        prescale: the norm that X is divided by, see `PolynomialCoefficients`.
        safety: every step but the last is stretched by this factor, so that singular values up to `safety`, which
            rounding in half precision makes, are mapped as if they were at most 1. At 1, the plain optimum, bfloat16
            iterations blow up; 1.01 to 1.05 is usual.
        degree: 5, 9 or 17, of every step or one for each: products of fewer steps of a higher degree reach further, in
            full precision alone. `polar_express(3, 3e-3, degree=(9, 17, 17))` is closer than five quintics and needs
            three m x m products fewer in the Gram form. In float32 a first step of degree 17 costs digits that a third
            step multiplies in the Gram form: begin with 9 there.

    Raises:
        ValueError: an argument is out of range.

    Source: Amsel et al., The Polar Express, 2025, Algorithm 1 and Theorem 3.1, https://arxiv.org/abs/2505.16932; the
    paper's code has degree 5 alone.
    """
    _check_safety(safety)
    check_bound(lower_bound)
    check_choice("prescale", prescale, PRESCALES)
    degrees = tuple(degree) if isinstance(degree, (tuple, list)) else (degree,) * check_steps(steps)
    known = all(isinstance(one, int) and one in _CUSHION for one in degrees)
    if len(degrees) != check_steps(steps) or not known:
        raise ValueError(f"degree must be 5, 9 or 17, or {steps} of them, one a step; got {degree!r}")
    return _polar_express(degrees, lower_bound, prescale, safety)


@functools.cache
def _polar_express(
    degrees: tuple[int, ...], lower_bound: float, prescale: str, safety: float
) -> PolynomialCoefficients:
    low, high = lower_bound, 1.0
    polynomials = []
    for step, one in enumerate(degrees):
        best = odd.best(max(low, _CUSHION[one] * high), high, one)
        # With the raised lower end the image of [low, high] is not centered about 1: scale it so that it is.
        at_low, at_high = (odd.value(best, end) for end in (low, high))
        center = 2 / (at_low + at_high)
        low = at_low * center
        high = 2 - low
        # The last step is not stretched: it is the one that lands on 1.
        stretch = safety if step < len(degrees) - 1 else 1.0
        polynomials.append(odd.scaled(best, values=center, stretch=stretch))
    return PolynomialCoefficients(
        "polar_express", tuple(polynomials), prescale, "Amsel et al. 2025, https://arxiv.org/abs/2505.16932"
    )


@cached
def cans(
    steps: int = 7, lower_bound: float = 3e-3, degree: int = 3, prescale: str = "schatten8", safety: float = 1.0
) -> PolynomialCoefficients:
    """Chebyshev-type optimal polynomials of degree 3 (or 5), generated for the arguments.

    Each step is the odd polynomial of the given degree closest to 1 on `[l, u]`; the next interval is its image
    `[1 - E, 1 + E]`. Degree 3 has the closed form

        `p(s) = (2 (l^2 + l u + u^2) s - 2 s^3) / (2 e^3 + l^2 u + l u^2)`, `e^2 = (l^2 + l u + u^2) / 3`

    and needs two products a step where degree 5 needs three.

    Args:
        steps: number of polynomials.
        lower_bound: the smallest singular value, as a share of the prescaling norm, that is to reach 1.
        degree: 3 or 5.
        prescale: the norm that X is divided by, see `PolynomialCoefficients`.
        safety: as in `polar_express`; the paper has none (1). Without it, a cubic step for a wide interval sends
            singular values just above its upper end below zero, and then to -1: half precision needs it.

    Source: Grishina, Smirnov & Rakhuba, CANS, 2025, Propositions 1 and 2, https://arxiv.org/abs/2506.10935
    """
    if degree not in (3, 5):
        raise ValueError(f"degree must be 3 or 5, got {degree!r}")
    _check_safety(safety)
    low, high = check_bound(lower_bound), 1.0
    polynomials = []
    for step in range(check_steps(steps)):
        best = odd.best(low, high, degree)
        low = odd.value(best, low)
        high = 2 - low
        stretch = safety if step < steps - 1 else 1.0
        polynomials.append(odd.scaled(best, stretch=stretch))
    return PolynomialCoefficients(
        "cans", tuple(polynomials), prescale, "Grishina et al. 2025, https://arxiv.org/abs/2506.10935"
    )


def _check_safety(safety: float) -> None:
    check_number("safety", safety, "a number with 1 <= safety < 2", lambda number: 1 <= number < 2)
