"""Budgets as they are told: steps to a target between the grid's numbers of steps, and their ratios with bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from jaxopt_tour.tour.laboratory.statistics import Interval, in_words, ratio

#: Ratios nearer to 1 than this are not called: the coarseness of the tuning's grids is in no interval over seeds.
CALLED_FROM: Final = 1.1


def steps_to(readings: Sequence[Mapping[str, Any]], seed: int, target: float) -> float | None:
    """The steps at which the best final value of a seed falls to the target, between the grid's numbers of steps.

    From the last T that misses the target to the first that meets it, the logarithm of the final value is taken to be
    linear in the logarithm of T. None where no T meets it; the first T where that one does, see `compare_steps`.
    """
    before: tuple[int, float] | None = None
    for reading in readings:
        steps, value = reading["steps"], reading["final"][seed]
        if value is not None and value <= target:
            if before is None:
                return float(steps)
            missed, above = before
            # A gap of zero is met with; so is one just below, by rounding.
            part = math.log(above / target) / math.log(above / max(value, 1e-9))
            return missed * (steps / missed) ** part
        before = None if value is None else (steps, value)
    return None


@dataclass(frozen=True)
class Compared:
    """Two rules in one setting, in steps to a target.

    Attributes:
        interval: of the ratio; None where a rule did not reach the target on every seed, or did so at the first T.
        bound: then, what the ratio is at least (`above`) or at most; None where nothing is known.
        above: whether `bound` is a lower bound.
    """

    interval: Interval | None
    bound: float | None = None
    above: bool = True

    @property
    def call(self) -> int:
        """1 where the first rule needs more steps, -1 where fewer, 0 where that is not shown."""
        low, high = self._bounds()
        return int(low > CALLED_FROM) - int(high < 1 / CALLED_FROM)

    @property
    def small(self) -> bool:
        """Whether the interval, to two decimals, leaves out 1 and yet is not called."""
        low, high = self._bounds()
        return not self.call and not round(low, 2) <= 1 <= round(high, 2)

    def _bounds(self) -> tuple[float, float]:
        if self.interval:
            return self.interval.low, self.interval.high
        if self.bound is None:
            return 0.0, math.inf
        return (self.bound, math.inf) if self.above else (0.0, self.bound)

    def words(self) -> str:
        """For a table."""
        if self.interval:
            return in_words(self.interval)
        return "" if self.bound is None else f"{'>' if self.above else '<'} {self.bound:.2f}"


def mean_steps(values: Sequence[float | None]) -> float | None:
    """The geometric mean, where all seeds have a value."""
    reached = [value for value in values if value is not None]
    return math.exp(sum(map(math.log, reached)) / len(reached)) if len(reached) == len(values) else None


def compare_steps(one: Sequence[float | None], other: Sequence[float | None], grid: Sequence[int]) -> Compared:
    """The steps of one rule over those of another, on the same seeds.

    A rule that meets the target at the first T of the grid may need fewer steps than that, one that never does needs
    more than the last T: then the end of the interval is a bound.

    Args:
        one: steps by seed, as `steps_to` has them.
        other: the other rule's.
        grid: the numbers of steps that both were run for.
    """
    means = mean_steps(one), mean_steps(other)
    if means[0] is not None and means[1] is not None:
        found = ratio([x for x in one if x is not None], [x for x in other if x is not None])
        early = [grid[0] in steps for steps in (one, other)]
        if not any(early):
            return Compared(found)
        return (
            Compared(None) if all(early) else Compared(None, *((found.high, False) if early[0] else (found.low, True)))
        )
    last = [float(grid[-1])] * len(one)  # They need more than these.
    if means[1] is not None and not any(one):
        return Compared(None, ratio(last, [x for x in other if x is not None]).low)
    if means[0] is not None and not any(other):
        return Compared(None, ratio([x for x in one if x is not None], last).high, above=False)
    return Compared(None)


def steps_in_words(steps: Sequence[float | None], grid: Sequence[int]) -> str:
    """The geometric mean, a bound where a seed arrived at the first T, or on how many seeds none did."""
    mean = mean_steps(steps)
    if mean is None:
        return f"> {grid[-1]} on {sum(each is None for each in steps)} of {len(steps)}"
    return ("≤ " if grid[0] in steps else "") + (f"{mean:.1f}" if mean < 20 else f"{mean:.0f}")
