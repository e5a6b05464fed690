"""Newton-Schulz schedules of polynomials: published tables with their sources, and the generators.

A schedule is a value: it carries its polynomials, hence its number of steps, and the prescale it was made for. It is
never cycled, cut short or used with another prescale, because each of these can turn an update uphill.

One step maps every singular value s of the iterate to ``p(s) = a s + b s^3 + c s^5``, or to an odd polynomial of degree
9 or 17 (:mod:`jaxopt_tour.linalg.polynomials`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from jaxopt_tour._checks import check_choice
from jaxopt_tour.linalg import polynomials as odd
from jaxopt_tour.linalg.polynomials import Polynomial

PRESCALES: Final = ("frobenius", "schatten4", "schatten8", "aol")

#: Lower end of the interval of one Polar Express step, as a share of its upper end, by degree. 5: the authors' code;
#: 9 and 17: the end at which the error of the best polynomial is as large as the quintic's at its end.
_CUSHION: Final = {5: 0.02407327424182761, 9: 0.013486970356131226, 17: 0.007160122504144433}

#: How much larger than a polynomial of degree 17 what it is evaluated from may be; of generated ones it is below 1e3.
_MOST_GROWTH: Final = 1e4

#: What for_tolerance generates its candidates with.
_SAFETY: Final = 1.02
_MOST_STEPS: Final = 20


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Odd polynomials applied one after the other to ``X / S(X)``, with S the norm named by ``prescale``.

    Attributes:
        name: what the schedule is called in tables and messages.
        polynomials: ``(a, b, c)`` of every step, or the five or nine coefficients of an odd polynomial of degree 9 or
            17.
        prescale: the norm that bounds the spectral norm of X from above: ``frobenius`` = (sum s_i^2)^(1/2),
            ``schatten4`` = (sum s_i^4)^(1/4), ``schatten8`` = (sum s_i^8)^(1/8), or ``aol``, which scales every row
            of X by rsqrt(sum_j |X X^T|_ij) (almost-orthogonal layers; it also turns the singular vectors a little).
        source: where the numbers come from.
        in_half: the schedule that stands in for this one where the iteration runs in half precision. Polynomials of
            degree 9 and 17 have coefficients too large for it: without a stand-in they run in float32, and a dtype of
            half precision is refused.
    """

    name: str
    polynomials: tuple[Polynomial, ...]
    prescale: str = "frobenius"
    source: str = ""
    in_half: Schedule | None = None

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
        if self.in_half is not None and not (isinstance(self.in_half, Schedule) and self.in_half.degree <= 5):
            raise ValueError(f"in_half must be a Schedule of degree 3 or 5, got {self.in_half!r}")
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
        """What the schedule makes of singular values that are already divided by the prescale."""
        values = np.asarray(values, np.float64)
        for polynomial in self.polynomials:
            values = odd.value(polynomial, values)
        return values

    def worst_error(self, lower_bound: float) -> float:
        """The largest ``|s - 1|`` that a singular value in [lower_bound, 1] of the prescaled matrix ends with.

        Exact up to rounding: a polynomial maps an interval onto an interval.
        """
        low, high = check_bound(lower_bound), 1.0
        for polynomial in self.polynomials:
            low, high = odd.image(polynomial, low, high)
        return max(abs(low - 1), abs(high - 1))


def cubic(steps: int = 10) -> Schedule:
    """The classical iteration ``1.5 s - 0.5 s^3``; converges for every s in (0, sqrt 3), slowly for small s.

    Source: Björck & Bowie, An iterative algorithm for computing the best estimate of an orthogonal matrix, 1971.
    """
    return Schedule(
        "cubic", ((1.5, -0.5, 0.0),) * check_steps(steps), "frobenius", "Björck & Bowie 1971, doi:10.1137/0708036"
    )


def keller_jordan(steps: int = 5) -> Schedule:
    """The original Muon's polynomial: steepest at zero, singular values end in about [0.7, 1.2], never at 1.

    Source: Jordan et al., Muon, 2024, https://kellerjordan.github.io/posts/muon/
    """
    return Schedule(
        "keller_jordan",
        ((3.4445, -4.7750, 2.0315),) * check_steps(steps),
        "frobenius",
        "Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/",
    )


def you() -> Schedule:
    """Five polynomials found by Jiacheng You's search; Optax calls them ``dion``.

    Source: J. You, https://gist.github.com/YouJiacheng/393c90cbdc23b09d5688815ba382288b
    """
    return Schedule(
        "you",
        (
            (4.0848, -6.8946, 2.9270),
            (3.9505, -6.3029, 2.6377),
            (3.7418, -5.5913, 2.3037),
            (2.8769, -3.1427, 1.2046),
            (2.8366, -3.0525, 1.2012),
        ),
        "frobenius",
        "You 2024, https://gist.github.com/YouJiacheng/393c90cbdc23b09d5688815ba382288b",
    )


def modula() -> Schedule:
    """The six polynomials of Modula (F. L. Cesista, J. You and K. Jordan), in 1024ths.

    Source: https://docs.modula.systems/algorithms/newton-schulz/
    """
    numerators = (
        (3955, -8306, 5008),
        (3735, -6681, 3463),
        (3799, -6499, 3211),
        (4019, -6385, 2906),
        (2677, -3029, 1162),
        (2172, -1833, 682),
    )
    return Schedule(
        "modula",
        tuple((a / 1024, b / 1024, c / 1024) for a, b, c in numerators),
        "frobenius",
        "Modula, https://docs.modula.systems/algorithms/newton-schulz/",
    )


def turbo() -> Schedule:
    """Four polynomials made for the AOL prescale.

    Source: Boissin et al., Turbo-Muon, 2025, https://arxiv.org/abs/2512.04632
    """
    return Schedule(
        "turbo",
        (
            (4.6051, -9.6552, 5.6769),
            (4.7505, -6.0861, 2.1790),
            (2.7763, -2.3190, 0.5523),
            (2.4231, -2.2861, 0.8193),
        ),
        "aol",
        "Boissin et al. 2025, https://arxiv.org/abs/2512.04632",
    )


def polar_express(
    steps: int = 5,
    lower_bound: float = 3e-3,
    prescale: str = "schatten8",
    safety: float = 1.02,
    degree: int | Sequence[int] = 5,
) -> Schedule:
    """The best composition of odd polynomials for singular values in [lower_bound, 1], generated for the arguments.

    Each step is the odd polynomial closest to 1 (in the largest error) on the interval that the steps before it left,
    ``[l, u] -> [p(l), 2 - p(l)]``. Its lower end is raised, for quintics to 0.0241 u, while the interval is wide, which
    keeps a step from blowing up what lies below it.

    With its default arguments, five quintics for [3e-3, 1] under the Schatten-8 norm, it needs the products of five
    Keller Jordan steps and ends closer to the polar factor.

    Args:
        steps: number of polynomials.
        lower_bound: the smallest singular value, as a share of the prescaling norm, that is to reach 1. Smaller values
            are enlarged as much as the steps can.
        prescale: the norm that X is divided by, see :class:`Schedule`.
        safety: every step but the last is stretched by this factor, so that singular values up to ``safety``, which
            rounding in half precision makes, are mapped as if they were at most 1. At 1, the plain optimum, bfloat16
            iterations blow up; 1.01 to 1.05 is usual.
        degree: 5, 9 or 17, of every step or one for each: products of fewer steps of a higher degree reach further, in
            full precision alone. ``polar_express(3, 3e-3, degree=(9, 17, 17))`` is closer than five quintics and needs
            three m x m products fewer in the Gram form. In float32 a first step of degree 17 costs digits that a third
            step multiplies in the Gram form: begin with 9 there.

    Raises:
        ValueError: an argument is out of range.

    Source: Amsel et al., The Polar Express, 2025, Algorithm 1 and Theorem 3.1, https://arxiv.org/abs/2505.16932; the
    paper's code has degree 5 alone.
    """
    _check_safety(safety)
    check_bound(lower_bound)
    degrees = tuple(degree) if isinstance(degree, (tuple, list)) else (degree,) * check_steps(steps)
    known = all(isinstance(one, int) and one in _CUSHION for one in degrees)
    if len(degrees) != check_steps(steps) or not known:
        raise ValueError(f"degree must be 5, 9 or 17, or {steps} of them, one a step; got {degree!r}")
    return _polar_express(degrees, lower_bound, prescale, safety)


@functools.cache
def _polar_express(degrees: tuple[int, ...], lower_bound: float, prescale: str, safety: float) -> Schedule:
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
    return Schedule(
        "polar_express", tuple(polynomials), prescale, "Amsel et al. 2025, https://arxiv.org/abs/2505.16932"
    )


@functools.cache
def cans(
    steps: int = 7, lower_bound: float = 3e-3, degree: int = 3, prescale: str = "schatten8", safety: float = 1.0
) -> Schedule:
    """Chebyshev-type optimal polynomials of degree 3 (or 5), generated for the arguments.

    Each step is the odd polynomial of the given degree closest to 1 on ``[l, u]``; the next interval is its image
    ``[1 - E, 1 + E]``. Degree 3 has the closed form

        ``p(s) = (2 (l^2 + l u + u^2) s - 2 s^3) / (2 e^3 + l^2 u + l u^2)``, ``e^2 = (l^2 + l u + u^2) / 3``

    and needs two products a step where degree 5 needs three.

    Args:
        steps: number of polynomials.
        lower_bound: the smallest singular value, as a share of the prescaling norm, that is to reach 1.
        degree: 3 or 5.
        prescale: the norm that X is divided by, see :class:`Schedule`.
        safety: as in :func:`polar_express`; the paper has none (1). Without it, a cubic step for a wide interval sends
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
    return Schedule("cans", tuple(polynomials), prescale, "Grishina et al. 2025, https://arxiv.org/abs/2506.10935")


@functools.cache
def for_tolerance(
    polar_error: float,
    lower_bound: float,
    *,
    prescale: str = "schatten8",
    m: int | None = None,
    n: int | None = None,
) -> Schedule:
    """The cheapest schedule of degree 3 or 5 that brings singular values in [lower_bound, 1] within polar_error of 1.

    ``for_tolerance(0.05, 1e-3)``: for a matrix with singular values, divided by its Schatten-8 norm, of at least 1e-3,
    the result O has ``|s - 1| <= 0.05`` for each of its singular values, hence ``|O - U V^T|_F <= 0.05 |U V^T|_F``, up
    to rounding. The candidates are :func:`polar_express` and :func:`cans` of degree 3 and 5 with 1 to 20 steps and a
    safety factor of 1.02, which run in every dtype (:func:`polar_express` of a higher degree may need fewer products
    in full precision); the cost is that of :func:`jaxopt_tour.linalg.flops.flops` in the cheaper of the two forms of
    the iteration.

    Args:
        polar_error: the largest accepted distance of a singular value from 1. Rounding adds to it: about 1e-5 in
            float32, 1e-2 in bfloat16 and float16; much more in float16's Gram form from six steps on.
        lower_bound: the smallest singular value, as a share of the prescaling norm. Where ``s_min >= l s_max`` is what
            is known of m x n matrices, Schatten-8 needs ``l / min(m, n)**(1/8)``, Frobenius ``l / min(m, n)**(1/2)``.
            What lies below the bound is enlarged as far as the steps can; zero stays zero.
        prescale: ``"frobenius"``, ``"schatten4"`` or ``"schatten8"``; AOL turns the singular vectors, so nothing can be
            promised about it.
        m: rows of the matrices. Only the aspect ratio matters.
        n: columns of the matrices. Without m and n the matrices are taken to be square.

    Raises:
        ValueError: an argument is out of range, or no candidate is as close to 1 as that.
    """
    from jaxopt_tour.linalg.flops import flops  # it needs Schedule from here

    check_choice("prescale", prescale, [name for name in PRESCALES if name != "aol"])
    if not 0 < polar_error < 1:
        raise ValueError(f"polar_error must be a number with 0 < polar_error < 1, got {polar_error!r}")
    check_bound(lower_bound)
    if (m is None) != (n is None):
        raise ValueError(f"m and n must be given together, got m={m!r}, n={n!r}")
    for name, size in (("m", m), ("n", n)):
        if size is not None and (isinstance(size, bool) or size < 1):
            raise ValueError(f"{name} must be an integer >= 1, got {size!r}")
    small, large = sorted((m or 1, n or 1))

    def cost(schedule: Schedule) -> int:
        return min(flops(schedule, small, large, method) for method in ("standard", "gram"))

    families: tuple[Callable[[int, float], Schedule], ...] = (
        lambda steps, low: polar_express(steps, low, prescale, _SAFETY),
        lambda steps, low: cans(steps, low, 5, prescale, _SAFETY),
        lambda steps, low: cans(steps, low, 3, prescale, _SAFETY),
    )
    reached = []
    for family in families:
        for steps in range(1, _MOST_STEPS + 1):
            # Every step but the last divides by the safety factor first, so a schedule made for a lower bound that much
            # smaller fits better; made for the bound itself, it is closer where few steps are on the way.
            fits = [
                schedule
                for bound in {lower_bound, lower_bound / _SAFETY, lower_bound / _SAFETY ** (steps - 1)}
                if (schedule := family(steps, bound)).worst_error(lower_bound) <= polar_error
            ]
            if fits:  # more steps of this family cost more
                reached.append(min(fits, key=lambda schedule: schedule.worst_error(lower_bound)))
                break
    if not reached:
        raise ValueError(
            f"polar_error {polar_error!r} with lower_bound {lower_bound!r} cannot be reached within {_MOST_STEPS} steps"
        )
    return min(reached, key=lambda schedule: (cost(schedule), schedule.worst_error(lower_bound)))


def check_steps(steps: int) -> int:
    """The number of steps, an integer."""
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 1:
        raise ValueError(f"steps must be an integer >= 1, got {steps!r}")
    return int(steps)


def _check_safety(safety: float) -> None:
    if not 1 <= safety < 2:
        raise ValueError(f"safety must be a number with 1 <= safety < 2, got {safety!r}")


def check_bound(lower_bound: float) -> float:
    """The lower bound, inside (0, 1)."""
    if not 0 < lower_bound < 1:
        raise ValueError(f"lower_bound must be a number with 0 < lower_bound < 1, got {lower_bound!r}")
    return float(lower_bound)
