"""The options of an orthogonalization, checked once."""

from __future__ import annotations

import dataclasses
from typing import Final, Literal

import jax.numpy as jnp
import numpy as np

from jaxopt_tour._checks import check_choice, check_float_dtype, check_nonnegative
from jaxopt_tour._types import Array, DTypeLike
from jaxopt_tour.coefficients import (
    Coefficients,
    CoefficientsLike,
    Exact,
    PolynomialCoefficients,
    RationalCoefficients,
    as_coefficients,
)

Form = Literal["auto", "standard", "gram"]
Symmetric = Literal["auto", "plain", "blocks"]
Grouping = Literal["auto", "by_shape", "none"]

FORMS: Final = ("auto", "standard", "gram")
SYMMETRIC: Final = ("auto", "plain", "blocks")
GROUPINGS: Final = ("auto", "by_shape", "none")


@dataclasses.dataclass(frozen=True)
class Options:
    """What a plan is made from; documented where users see it, in `Orthogonalizer`."""

    coefficients: CoefficientsLike = "auto"
    _: dataclasses.KW_ONLY
    steps: int | None = dataclasses.field(default=None, compare=False)  # the coefficients hold it
    form: Form = "auto"
    dtype: DTypeLike | None = None
    eps: float | Array = 0.0
    symmetric: Symmetric = "auto"
    grouping: Grouping = "auto"

    def __post_init__(self) -> None:
        check_choice("form", self.form, FORMS)
        check_choice("symmetric", self.symmetric, SYMMETRIC)
        check_choice("grouping", self.grouping, GROUPINGS)
        check_nonnegative("eps", self.eps)
        value, dtype = as_coefficients(self.coefficients, self.steps), check_float_dtype("dtype", self.dtype)
        if dtype is not None and jnp.finfo(dtype).bits == 16 and needs_full_precision(value):
            kind = (
                f"of degree {value.degree} without in_half="
                if isinstance(value, PolynomialCoefficients)
                else "with inverses and no polynomials for half precision"
            )
            raise ValueError(f"dtype must be float32 or float64 for coefficients {kind}, got {dtype}")
        if isinstance(value, RationalCoefficients) and value.polynomial is None and self.form == "standard":
            raise ValueError(f"form must be 'auto' or 'gram' for coefficients with inverses, got {self.form!r}")
        object.__setattr__(self, "coefficients", value)
        object.__setattr__(self, "dtype", dtype)

    @property
    def value(self) -> Coefficients:
        """The coefficients as a value, whatever they were given as."""
        assert isinstance(self.coefficients, (PolynomialCoefficients, RationalCoefficients, Exact))
        return self.coefficients

    @property
    def fixed_eps(self) -> bool:
        """Whether eps is a number of the program, not an array that it is given."""
        return isinstance(self.eps, (int, float, np.number))


def needs_full_precision(coefficients: Coefficients) -> bool:
    """Whether rounding to half precision would destroy the result, with no polynomials to take instead."""
    if isinstance(coefficients, RationalCoefficients):
        return coefficients.polynomial is None or needs_full_precision(coefficients.polynomial)
    return isinstance(coefficients, PolynomialCoefficients) and coefficients.degree > 5 and coefficients.in_half is None
