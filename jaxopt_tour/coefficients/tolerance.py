"""The cheapest coefficients that reach a given polar error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from jaxopt_tour._checks import check_choice, check_integer, check_number
from jaxopt_tour.coefficients.cached import cached
from jaxopt_tour.coefficients.generated import cans, polar_express
from jaxopt_tour.coefficients.operations import operations
from jaxopt_tour.coefficients.polynomial import PRESCALES, PolynomialCoefficients, check_bound

#: Safety factor of the candidates.
_SAFETY: Final = 1.02
_MOST_STEPS: Final = 20


@cached
def for_tolerance(
    polar_error: float,
    lower_bound: float,
    *,
    prescale: str = "schatten8",
    m: int | None = None,
    n: int | None = None,
) -> PolynomialCoefficients:
    """Return the cheapest coefficients of degree 3 or 5 for which singular values in [lower_bound, 1] end near 1.

    `for_tolerance(0.05, 1e-3)`: for a matrix with singular values, divided by its Schatten-8 norm, of at least 1e-3,
    the result O has `|s - 1| <= 0.05` for each of its singular values, hence `|O - U V^T|_F <= 0.05 |U V^T|_F`, up
    to rounding. The candidates are `polar_express` and `cans` of degree 3 and 5 with 1 to 20 steps and a
    safety factor of 1.02, which run in every dtype (`polar_express` of a higher degree may need fewer products
    in full precision); the cost is that of `operations` in the cheaper of the
    two forms of the iteration.

    Args:
        polar_error: the largest accepted distance of a singular value from 1. Rounding adds to it: about 1e-5 in
            float32, 1e-2 in bfloat16 and float16; much more in float16's Gram form from six steps on.
        lower_bound: the smallest singular value, as a share of the prescaling norm. Where `s_min >= l s_max` is what
            is known of m x n matrices, Schatten-8 needs `l / min(m, n)**(1/8)`, Frobenius `l / min(m, n)**(1/2)`.
            Smaller values are enlarged as far as the steps can; zero stays zero.
        prescale: `"frobenius"`, `"schatten4"` or `"schatten8"`; AOL changes singular vectors, so nothing can be
            promised about it.
        m: rows of the matrices. Only the aspect ratio matters.
        n: columns of the matrices. Without m and n the matrices are taken to be square.

    Raises:
        ValueError: an argument is out of range, or no candidate is as close to 1 as that.
    """
    check_choice("prescale", prescale, [name for name in PRESCALES if name != "aol"])
    check_number("polar_error", polar_error, "a number with 0 < polar_error < 1", lambda number: 0 < number < 1)
    check_bound(lower_bound)
    if (m is None) != (n is None):
        raise ValueError(f"m and n must be given together, got m={m!r}, n={n!r}")
    for name, size in (("m", m), ("n", n)):
        if size is not None:
            check_integer(name, size, 1)
    small, large = sorted((m or 1, n or 1))

    def cost(coefficients: PolynomialCoefficients) -> int:
        return min(operations(coefficients, small, large, form) for form in ("standard", "gram"))

    families: tuple[Callable[[int, float], PolynomialCoefficients], ...] = (
        lambda steps, low: polar_express(steps, low, prescale, _SAFETY),
        lambda steps, low: cans(steps, low, 5, prescale, _SAFETY),
        lambda steps, low: cans(steps, low, 3, prescale, _SAFETY),
    )
    reached = []
    for family in families:
        for steps in range(1, _MOST_STEPS + 1):
            # Every step but the last divides by the safety factor first, so coefficients made for a lower bound that
            # much smaller fit better; made for the bound itself, they are closer where the steps are few.
            fits = [
                coefficients
                for bound in {lower_bound, lower_bound / _SAFETY, lower_bound / _SAFETY ** (steps - 1)}
                if (coefficients := family(steps, bound)).worst_error(lower_bound) <= polar_error
            ]
            if fits:  # more steps of this family cost more
                reached.append(min(fits, key=lambda coefficients: coefficients.worst_error(lower_bound)))
                break
    if not reached:
        raise ValueError(
            f"polar_error {polar_error!r} with lower_bound {lower_bound!r} cannot be reached within {_MOST_STEPS} steps"
        )
    return min(reached, key=lambda coefficients: (cost(coefficients), coefficients.worst_error(lower_bound)))
