"""Tuning by a search with one procedure for all: a fixed number of trials, then more while the best lies at an edge.

Every number lives on a geometric grid, without ends where none are given. The search starts with the rate alone, on
coarse steps, then tries the neighbors of the best point until the trials are used up: first along every number, then
along the rate and each other number at once, because a rate and a momentum that move together can stay good where
either alone gets worse. A best point all of whose neighbors were tried is interior. Where it is not, the search goes on
around it until it is, or until `WIDEST` more trials are spent; a search that ends at an edge even so says that.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
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
        interior: whether all neighbors that the best point has on the grids were tried, and none was better.
        tried: every point with its loss (None: it diverged), in the order of the search.
    """

    numbers: dict[str, float]
    point: Point
    loss: float
    trials: int
    interior: bool
    tried: list[tuple[dict[str, float], float | None]]


#: Places of the rate that a search begins with: two decades, in coarse steps of half a decade.
COARSE: Final = (-4, -2, 0, 2, 4)

#: Trials beyond the allotted ones, at most, that a search spends on surrounding its best point.
WIDEST: Final = 40


def search(
    evaluate: Callable[[Sequence[Mapping[str, float]]], Sequence[float]],
    axes: Sequence[Axis],
    trials: int,
    *,
    start: Point | None = None,
    widest: int = WIDEST,
) -> Tuned:
    """The best numbers that so many trials find, and as many more as surround them.

    Args:
        evaluate: settings -> their losses, several at once; not finite where a run diverged.
        axes: the numbers that are tuned; the first is the learning rate.
        trials: how many settings are tried in any case.
        start: where a neighboring search ended; None: the grids' places 0, and the coarse rates around them.
        widest: trials beyond `trials` at most; 0: every search has exactly `trials`.

    Raises:
        ValueError: too few trials to begin with.
    """
    least = 1 if start is not None else len(COARSE)
    if trials < least:
        raise ValueError(f"trials must be at least {least}, got {trials}")
    losses: dict[Point, float] = {}
    limit = trials
    one_step = [step for step in itertools.product((-1, 0, 1), repeat=len(axes)) if any(step)]
    straight = [step for step in one_step if sum(map(abs, step)) == 1]
    diagonal = [step for step in one_step if step[0] and sum(map(abs, step)) == 2]

    def numbers(point: Point) -> dict[str, float]:
        return {axis.name: axis.value(place) for axis, place in zip(axes, point, strict=True)}

    def attempt(points: Sequence[Point]) -> None:
        points = points[: limit - len(losses)]
        if points:
            found = evaluate([numbers(point) for point in points])
            losses.update({p: float(x) if math.isfinite(x) else math.inf for p, x in zip(points, found, strict=True)})

    def untried(center: Point, steps: Iterable[Point]) -> list[Point]:
        points = [tuple(a + b for a, b in zip(center, step, strict=True)) for step in steps]
        exist = [p for p in points if all(axis.exists(place) for axis, place in zip(axes, p, strict=True))]
        return [p for p in exist if p not in losses]

    def around(center: Point) -> list[Point]:
        """The neighbors to try next; none where all were tried."""
        return untried(center, straight) or untried(center, diagonal)

    def best() -> Point:
        return min(losses, key=lambda point: losses[point])

    if start is None:
        attempt([(place, *(0,) * (len(axes) - 1)) for place in COARSE])
    else:
        attempt([start])
    distance = 1
    while len(losses) < trials:
        neighbors = around(best())
        if not neighbors:  # What is left goes to the boxes around it.
            distance += 1
            box = itertools.product(range(-distance, distance + 1), repeat=len(axes))
            neighbors = untried(best(), sorted(box, key=lambda step: sum(map(abs, step))))
        attempt(neighbors)
    limit = trials + widest
    while len(losses) < limit and (neighbors := around(best())):
        attempt(neighbors)
    found = best()
    return Tuned(
        numbers=numbers(found),
        point=found,
        loss=losses[found],
        trials=len(losses),
        interior=math.isfinite(losses[found]) and not around(found),
        tried=[(numbers(point), loss if math.isfinite(loss) else None) for point, loss in losses.items()],
    )
