"""Coefficients by name, and the two defaults that depend on the platform."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Final

from jaxopt_tour._checks import check_integer
from jaxopt_tour.coefficients.generated import cans, polar_express
from jaxopt_tour.coefficients.polynomial import PolynomialCoefficients
from jaxopt_tour.coefficients.published import cubic, keller_jordan, modula, turbo, you
from jaxopt_tour.coefficients.rational import RationalCoefficients, zolotarev


@dataclasses.dataclass(frozen=True)
class Exact:
    """The exact polar factor by singular value decomposition, in place of an iteration."""

    name: str = "exact"


#: Coefficients as a value.
Coefficients = PolynomialCoefficients | RationalCoefficients | Exact

#: Coefficients as users write them: a value, a name from `BY_NAME`, or one polynomial per step.
CoefficientsLike = str | Coefficients | Sequence[Sequence[float]]


@functools.cache
def auto() -> RationalCoefficients:
    """The default: two Zolotarev functions for [1e-3, 1] where inverses pay, else five Polar Express quintics.

    Inverses pay on CPU in full precision from 128 rows on. There the two functions take two inverses and two products
    where the quintics take seventeen products, and reach further down the spectrum (`docs/accuracy.md`). The
    quintics, `polar_express`, run on GPUs and TPUs, in half precision, in the standard form and for smaller
    matrices.
    """
    return dataclasses.replace(zolotarev(), name="auto", polynomial=polar_express())


@functools.cache
def fast() -> RationalCoefficients:
    """The fewest operations: one Zolotarev function of degree 5 where inverses pay, else the shortest polynomials.

    Two inverses, and no products besides `X X^T` and `Q X`; every singular value above 2e-3 of the Schatten-4 norm
    ends within .16 of 1. Where inverses do not pay (`auto`), two Polar Express steps of degree 17 for [1e-2, 1]
    under the Schatten-8 norm, and in half precision four quintics for the same interval.
    """
    polynomial = dataclasses.replace(
        polar_express(2, 1e-2, degree=17), name="degree 17 x 2", in_half=polar_express(4, 1e-2)
    )
    return dataclasses.replace(zolotarev(1, 2e-3, inverses=2), name="fast", polynomial=polynomial)


#: The coefficients by name, each with its default arguments.
BY_NAME: Final[dict[str, Callable[[], Coefficients]]] = {
    "auto": auto,
    "fast": fast,
    "zolotarev": zolotarev,
    "polar_express": polar_express,
    "cans": cans,
    "keller_jordan": keller_jordan,
    "you": you,
    "modula": modula,
    "turbo": turbo,
    "cubic": cubic,
    "exact": Exact,
}

#: Those that take a number of steps; the others are published or chosen with theirs.
_WITH_STEPS: Final[dict[str, Callable[[int], Coefficients]]] = {
    "zolotarev": zolotarev,
    "polar_express": polar_express,
    "cans": cans,
    "keller_jordan": keller_jordan,
    "cubic": cubic,
}


def as_coefficients(coefficients: CoefficientsLike, steps: int | None = None) -> Coefficients:
    """Coefficients from a name, from one polynomial per step (Frobenius prescale), or as they are.

    Args:
        coefficients: a value, a name or a sequence of polynomials.
        steps: number of steps, for coefficients given by a name that has a generator; for all others, only the number
            that they have is accepted. None: the default number, or the one that they have.

    Raises:
        ValueError: the name is unknown (the known ones are listed), the value is none of the above, or its number of
            steps is not `steps`.
    """
    if steps is not None:
        check_integer("steps", steps, 1)
    if isinstance(coefficients, (PolynomialCoefficients, RationalCoefficients, Exact)):
        value: Coefficients = coefficients
    elif isinstance(coefficients, str):
        if coefficients not in BY_NAME:
            raise ValueError(f"coefficients must be one of {', '.join(map(repr, BY_NAME))}; got {coefficients!r}")
        if steps is not None and coefficients in _WITH_STEPS:
            return _WITH_STEPS[coefficients](steps)
        value = BY_NAME[coefficients]()
    elif isinstance(coefficients, (tuple, list)):
        if not all(isinstance(row, (tuple, list)) for row in coefficients):
            raise ValueError(f"coefficients must be one polynomial (a, b, c) per step, got {coefficients!r}")
        value = PolynomialCoefficients("custom", tuple(tuple(row) for row in coefficients))  # type: ignore[misc]
    else:
        raise ValueError(
            f"coefficients must be a name ({', '.join(map(repr, BY_NAME))}), a value such as "
            f"jt.coefficients.polar_express(5), or one polynomial (a, b, c) per step; got {coefficients!r}"
        )
    its_steps = getattr(value, "steps", None) if value.name not in ("auto", "fast", "exact") else None
    if steps is not None and (isinstance(steps, bool) or steps != its_steps):
        has = "no number of steps" if its_steps is None else f"{its_steps} steps"
        raise ValueError(
            f"steps must be None for coefficients {value.name!r}, which have {has}; got {steps!r}. A number of steps "
            f"can be chosen for {', '.join(map(repr, _WITH_STEPS))}"
        )
    return value
