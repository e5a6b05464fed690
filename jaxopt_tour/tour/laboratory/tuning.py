"""Tuning by a search with one procedure for all: a fixed number of trials, then more while the best lies at an edge.

Every number lives on a geometric grid, without ends where none are given. The search starts with the rate alone, on
coarse steps, then tries the neighbors of the best point in every direction until the trials are used up. A best point
all of whose neighbors were tried is interior. Where it is not, the search goes on around it until it is, or until
:data:`WIDEST` more trials are spent; a search that ends at an edge even so says that.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

Point = tuple[int, ...]  # places on the grids, in the order of the axes


@dataclass(frozen=True)
class Axis:
    """A number on a geometric grid.

    Attributes:
        name: of the number.
        start: its value at place 0.
        factor: between neighbors.
        of_one_minus: the grid is that of one minus the number, as suits a decay rate: 0.9, 0.95, 0.975, ... At 1 and
            above it ends, since a decay below zero has no meaning.
        ends: the grid has no values beyond these.
    """

    name: str
    start: float
    factor: float
    of_one_minus: bool = False
    ends: tuple[float, float] = (0.0, math.inf)

    def value(self, place: int) -> float:
        """The number at a place."""
        if self.of_one_minus:
            return max(0.0, 1 - (1 - self.start) * self.factor ** (-place))
        return self.start * self.factor**place

    def exists(self, place: int) -> bool:
        """Whether the grid has that place."""
        low, high = self.ends
        inside = low * (1 - 1e-9) <= self.value(place) <= high * (1 + 1e-9)
        return inside and (not self.of_one_minus or place >= 0 or self.value(place + 1) > 0)


def rate(start: float) -> Axis:
    """The grid of a learning rate: a quarter of a decade between neighbors."""
    return Axis("learning_rate", start, 10**0.25)


def momentum(start: float = 0.9, name: str = "momentum") -> Axis:
    """The grid of a decay rate: half or twice the distance to 1, which is half or twice the memory."""
    return Axis(name, start, 2.0, of_one_minus=True)


@dataclass(frozen=True)
class Tuned:
    """The end of a search.

    Attributes:
        numbers: the best ones found.
        point: their places on the grids.
        loss: what they came to.
        trials: how many points were tried, those beyond the allotted number included.
        interior: whether all neighbors of the best point were tried, and none was better.
        tried: every point with its loss (None: it diverged), in the order of the search.
    """

    numbers: dict[str, float]
    point: Point
    loss: float
    trials: int
    interior: bool
    tried: list[tuple[dict[str, float], float | None]]


#: Places of the rate that a search begins with: two decades and a half, in coarse steps of half a decade.
COARSE: Final = (-4, -2, 0, 2, 4)

#: Trials beyond the allotted ones, at most, that a search spends on surrounding its best point.
WIDEST: Final = 40


def search(
    evaluate: Callable[[Sequence[Mapping[str, float]]], Sequence[float]],
    axes: Sequence[Axis],
    trials: int,
    *,
    start: Point | None = None,
) -> Tuned:
    """The best numbers that so many trials find, and as many more as surround them.

    Args:
        evaluate: settings -> their losses, several at once; not finite where a run diverged.
        axes: the numbers that are tuned; the first is the learning rate.
        trials: how many settings are tried in any case.
        start: where a neighboring search ended; None: the grids' places 0, and the coarse rates around them.

    Raises:
        ValueError: too few trials to surround one point.
    """
    least = 1 + 2 * len(axes) if start is not None else len(COARSE)
    if trials < least:
        raise ValueError(f"trials must be at least {least} for {len(axes)} numbers, got {trials}")
    losses: dict[Point, float] = {}
    limit = trials

    def numbers(point: Point) -> dict[str, float]:
        return {axis.name: axis.value(place) for axis, place in zip(axes, point, strict=True)}

    def attempt(points: Sequence[Point]) -> None:
        new = list(dict.fromkeys(point for point in points if point not in losses))[: limit - len(losses)]
        if new:
            found = evaluate([numbers(point) for point in new])
            losses.update({p: float(x) if math.isfinite(x) else math.inf for p, x in zip(new, found, strict=True)})

    def around(point: Point) -> list[Point]:
        """The neighbors along the axes, the rate's first."""
        moved = [(*point[:i], point[i] + step, *point[i + 1 :]) for i in range(len(axes)) for step in (-1, 1)]
        return [p for p in moved if all(axis.exists(place) for axis, place in zip(axes, p, strict=True))]

    def surrounded(point: Point) -> bool:
        return all(neighbor in losses for neighbor in around(point))

    def best() -> Point:
        return min(losses, key=lambda point: losses[point])

    if start is None:
        attempt([(place, *(0,) * (len(axes) - 1)) for place in COARSE])
    else:
        attempt([start])
    distance = 1
    while len(losses) < trials:
        center = best()
        if not surrounded(center):
            attempt(around(center))
        else:  # What is left goes to the boxes around it.
            distance += 1
            box = itertools.product(range(-distance, distance + 1), repeat=len(axes))
            near = sorted(box, key=lambda step: sum(map(abs, step)))
            points = [tuple(a + b for a, b in zip(center, step, strict=True)) for step in near]
            attempt([p for p in points if all(axis.exists(place) for axis, place in zip(axes, p, strict=True))])
    limit = trials + WIDEST
    while len(losses) < limit and not surrounded(best()):
        attempt(around(best()))
    found = best()
    return Tuned(
        numbers=numbers(found),
        point=found,
        loss=losses[found],
        trials=len(losses),
        interior=math.isfinite(losses[found]) and surrounded(found),
        tried=[(numbers(point), loss if math.isfinite(loss) else None) for point, loss in losses.items()],
    )
