"""What an orthogonalization costs: the floating-point operations of its matrix products."""

from __future__ import annotations

from jaxopt_tour.coefficients.odd_polynomials import is_cubic, products
from jaxopt_tour.coefficients.polynomial import PolynomialCoefficients
from jaxopt_tour.coefficients.rational import RationalCoefficients
from jaxopt_tour.linalg.positive_inverse import operations as inverse_operations


def operations(
    coefficients: PolynomialCoefficients | RationalCoefficients, m: int, n: int, form: str, restarts: int = 0
) -> int:
    """Floating-point operations of the matrix products for one m x n matrix, m <= n.

    A product of (m, k) and (k, n) counts 2 m k n. Standard form, per quintic step: X X^T, A A and B X, that is
    `4 m^2 n + 2 m^3`; a cubic step (c = 0) skips A A, one of degree 9 has one m^3-product more, of 17 two. Gram form:
    `4 m^2 n` once per restart plus one, and four m^3-products a quintic step except that the first needs no Q Z and
    the last none for R. Rational functions, in the Gram form alone: two m^3-products a step but the first, and what
    the inverses take (`operations`).
    """
    small, large = 2 * m**3, 2 * m**2 * n
    if isinstance(coefficients, RationalCoefficients):
        of_gram = _of_rational_steps(coefficients, m) + (small if takes_square(coefficients) else 0)
        return 2 * large + of_gram
    of_gram = sum(products(polynomial) for polynomial in coefficients.polynomials)
    if takes_square(coefficients) and is_cubic(coefficients.polynomials[0]):
        of_gram += 1
    if form == "standard":
        return coefficients.steps * 2 * large + of_gram * small
    segments = restarts + 1
    q_products = coefficients.steps - segments  # the first step of a segment has Q = Z + a I
    r_products = 2 * (coefficients.steps - segments)  # the last step of a segment leaves R alone
    return segments * 2 * large + (of_gram + q_products + r_products) * small


def takes_square(coefficients: PolynomialCoefficients | RationalCoefficients) -> bool:
    """Whether the prescale or the first step takes the square of the Gram matrix."""
    if coefficients.prescale == "schatten8":
        return True
    return isinstance(coefficients, PolynomialCoefficients) and not is_cubic(coefficients.polynomials[0])


def _of_rational_steps(coefficients: RationalCoefficients, m: int) -> int:
    """Those of all steps for one m x m Gram matrix: the inverses, and two products for every step but the first."""
    inverses = sum(len(function.shifts) for function in coefficients.functions)
    return inverses * inverse_operations(m) + 2 * (coefficients.steps - 1) * 2 * m**3


def product_counts(
    coefficients: PolynomialCoefficients | RationalCoefficients, form: str, restarts: int = 0
) -> tuple[int, int, int]:
    """Products with X, products of m x m matrices, and inverses, for one matrix; `operations` weights them."""
    if isinstance(coefficients, RationalCoefficients):
        inverses = sum(len(function.shifts) for function in coefficients.functions)
        return 2, 2 * (coefficients.steps - 1) + takes_square(coefficients), inverses
    large = 2 * (coefficients.steps if form == "standard" else restarts + 1)
    return large, operations(coefficients, 1, 0, form, restarts) // 2, 0
