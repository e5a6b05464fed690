"""The coefficients of an orthogonalization: what each of its steps does to singular values.

Values of three kinds: polynomials, rational functions, and the exact polar factor. `jt.Orthogonalizer` and everything
that takes `orthogonalizer=` accept a value, such as `jt.coefficients.polar_express(8)`, or a name from `BY_NAME`.
"""

from jaxopt_tour.coefficients.by_name import (
    BY_NAME,
    Coefficients,
    CoefficientsLike,
    Exact,
    as_coefficients,
    auto,
    fast,
)
from jaxopt_tour.coefficients.generated import cans, polar_express
from jaxopt_tour.coefficients.polynomial import PRESCALES, PolynomialCoefficients
from jaxopt_tour.coefficients.published import cubic, keller_jordan, modula, turbo, you
from jaxopt_tour.coefficients.rational import RationalCoefficients, zolotarev
from jaxopt_tour.coefficients.tolerance import for_tolerance

__all__ = [
    "BY_NAME",
    "PRESCALES",
    "Coefficients",
    "CoefficientsLike",
    "Exact",
    "PolynomialCoefficients",
    "RationalCoefficients",
    "as_coefficients",
    "auto",
    "cans",
    "cubic",
    "fast",
    "for_tolerance",
    "keller_jordan",
    "modula",
    "polar_express",
    "turbo",
    "you",
    "zolotarev",
]
