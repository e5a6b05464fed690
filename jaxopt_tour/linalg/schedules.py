"""The schedules by name, and everything that makes one.

A schedule says what an orthogonalization makes of singular values. It is one of three kinds of value: polynomials
(:mod:`jaxopt_tour.linalg.coefficients`), rational functions (:mod:`jaxopt_tour.linalg.rationals`), or :class:`Exact`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Final

from jaxopt_tour.linalg.coefficients import (
    PRESCALES,
    Schedule,
    cans,
    cubic,
    for_tolerance,
    keller_jordan,
    modula,
    polar_express,
    turbo,
    you,
)
from jaxopt_tour.linalg.rationals import RationalSchedule, zolotarev

__all__ = [
    "PRESCALES",
    "SCHEDULES",
    "AnySchedule",
    "Exact",
    "RationalSchedule",
    "Schedule",
    "ScheduleLike",
    "as_schedule",
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


@dataclasses.dataclass(frozen=True)
class Exact:
    """The exact polar factor by singular value decomposition, in place of a schedule."""

    name: str = "exact"


#: A schedule as a value.
AnySchedule = Schedule | RationalSchedule | Exact

#: A schedule as users write it: a value, its name, or polynomials one a row.
ScheduleLike = str | AnySchedule | Sequence[Sequence[float]]


@functools.cache
def auto() -> RationalSchedule:
    """The default: two Zolotarev functions for [1e-3, 1] where inverses pay, else five Polar Express quintics.

    Inverses pay on CPU in full precision from 128 rows on. There the two functions take two inverses and two products
    where the quintics take seventeen products, and reach further down the spectrum (``docs/accuracy.md``). The
    quintics, :func:`polar_express`, run on GPUs and TPUs, in half precision, in the standard form and for smaller
    matrices.
    """
    return dataclasses.replace(zolotarev(), name="auto", polynomial=polar_express())


@functools.cache
def fast() -> RationalSchedule:
    """The fewest operations: one Zolotarev function of degree 5 where inverses pay, else the shortest polynomials.

    Two inverses and no product beside ``X X^T`` and ``Q X``; every singular value above 2e-3 of the Schatten-4 norm
    ends within .16 of 1. Where inverses do not pay (:func:`auto`), two Polar Express steps of degree 17 for [1e-2, 1]
    under the Schatten-8 norm, and in half precision four quintics for the same interval.
    """
    polynomial = dataclasses.replace(
        polar_express(2, 1e-2, degree=17), name="degree 17 x 2", in_half=polar_express(4, 1e-2)
    )
    return dataclasses.replace(zolotarev(1, 2e-3, inverses=2), name="fast", polynomial=polynomial)


#: The schedules by name, each with its default arguments.
SCHEDULES: Final[dict[str, Callable[[], AnySchedule]]] = {
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


def as_schedule(schedule: ScheduleLike) -> AnySchedule:
    """A schedule from its name, from a sequence of polynomials (Frobenius prescale) or as it is.

    Raises:
        ValueError: the name is unknown (the known ones are listed) or the value is no schedule.
    """
    if isinstance(schedule, (Schedule, RationalSchedule, Exact)):
        return schedule
    if isinstance(schedule, str):
        if schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {', '.join(map(repr, SCHEDULES))}; got {schedule!r}")
        return SCHEDULES[schedule]()
    if isinstance(schedule, (tuple, list)):
        return Schedule("custom", tuple(tuple(row) for row in schedule))  # type: ignore[misc]
    raise ValueError(
        f"schedule must be a name ({', '.join(map(repr, SCHEDULES))}), a schedule such as polar_express(steps=5), or a "
        f"sequence of (a, b, c), of five or of nine coefficients; got {schedule!r}"
    )
