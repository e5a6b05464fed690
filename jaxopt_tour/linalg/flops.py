"""What an orthogonalization costs: the floating-point operations of its matrix products."""

from __future__ import annotations

from jaxopt_tour.linalg import rational_steps
from jaxopt_tour.linalg.coefficients import Schedule
from jaxopt_tour.linalg.polynomials import is_cubic, products
from jaxopt_tour.linalg.rationals import RationalSchedule


def flops(schedule: Schedule | RationalSchedule, m: int, n: int, method: str, restarts: int = 0) -> int:
    """Floating-point operations of the matrix products for one m x n matrix, m <= n.

    A product of (m, k) and (k, n) counts 2 m k n. Standard form, per quintic step: X X^T, A A and B X, that is
    ``4 m^2 n + 2 m^3``; a cubic step (c = 0) skips A A, one of degree 9 has one m^3-product more, of 17 two. Gram form:
    ``4 m^2 n`` once per restart plus one, and four m^3-products a quintic step except that the first needs no Q Z and
    the last none for R. Rational functions, in the Gram form alone: two m^3-products a step but the first, and what
    the inverses take (:func:`jaxopt_tour.linalg.positive_inverse.flops`).
    """
    small, large = 2 * m**3, 2 * m**2 * n
    if isinstance(schedule, RationalSchedule):
        own = rational_steps.flops(schedule.functions, m) + (small if takes_square(schedule) else 0)
        return 2 * large + own
    own = sum(products(polynomial) for polynomial in schedule.polynomials)
    if takes_square(schedule) and is_cubic(schedule.polynomials[0]):
        own += 1
    if method == "standard":
        return schedule.steps * 2 * large + own * small
    segments = restarts + 1
    q_products = schedule.steps - segments  # the first step of a segment has Q = Z + a I
    r_products = 2 * (schedule.steps - segments)  # the last step of a segment leaves R alone
    return segments * 2 * large + (own + q_products + r_products) * small


def takes_square(schedule: Schedule | RationalSchedule) -> bool:
    """Whether the prescale or the first step takes the square of the Gram matrix."""
    if schedule.prescale == "schatten8":
        return True
    return isinstance(schedule, Schedule) and not is_cubic(schedule.polynomials[0])
