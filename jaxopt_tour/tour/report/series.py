"""Runs of a race as what the page draws: one series an optimizer, its seeds as a mean and a band."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxopt_tour.tour.palette import DASHED, DOTTED, MIXED, SOLID, lines_of

MEASURES = ("validation_loss", "train_loss", "validation_accuracy")


def finite(value: Any) -> float | None:
    """The number, or None where there is none: null, NaN, infinite."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


@dataclasses.dataclass(frozen=True)
class Spread:
    """Mean and range over seeds; None where a seed diverged."""

    mean: float | None
    low: float | None
    high: float | None
    count: int

    @classmethod
    def of(cls, values: Iterable[Any]) -> Spread:
        """The spread of some numbers; one that is missing leaves no mean."""
        numbers = [finite(value) for value in values]
        known = [number for number in numbers if number is not None]
        if not known or len(known) < len(numbers):
            return cls(None, None, None, len(numbers))
        return cls(sum(known) / len(known), min(known), max(known), len(known))


@dataclasses.dataclass(frozen=True)
class Series:
    """All seeds of one optimizer at one number of steps."""

    label: str
    hue: str
    dash: str
    runs: Sequence[Mapping[str, Any]]

    @property
    def diverged(self) -> int:
        """How many seeds ended without a finite loss."""
        return sum(finite(run["final"]["validation_loss"]) is None for run in self.runs)

    def final(self, name: str) -> Spread:
        """The last measurement over seeds: `validation_loss` or `validation_accuracy`."""
        return Spread.of(run["final"].get(name) for run in self.runs)

    def cost(self, name: str) -> Spread:
        """A number that every run carries, over seeds: `milliseconds_per_step`, `seconds` and the like."""
        return Spread.of(run.get(name) for run in self.runs)

    def curves(self) -> dict[str, Any]:
        """What the page draws: steps, mean seconds, and mean, low and high of every measure at these steps."""
        curves = [run["curve"] for run in self.runs]
        common = set.intersection(*(set(curve["step"]) for curve in curves))
        steps = sorted(common)
        rows = [{step: index for index, step in enumerate(curve["step"])} for curve in curves]

        def spreads(name: str) -> list[Spread]:
            return [
                Spread.of(curve[name][row[step]] for curve, row in zip(curves, rows, strict=True)) for step in steps
            ]

        drawn: dict[str, Any] = {"step": steps, "seconds": [_short(spread.mean) for spread in spreads("seconds")]}
        for name in MEASURES:
            if all(curve.get(name) for curve in curves):
                measured = spreads(name)
                drawn[name] = [_short(spread.mean) for spread in measured]
                if len(curves) > 1:
                    drawn[name + "_low"] = [_short(spread.low) for spread in measured]
                    drawn[name + "_high"] = [_short(spread.high) for spread in measured]
        return drawn


def _short(value: float | None) -> float | None:
    """Five digits: more than a screen can show."""
    return None if value is None else float(f"{value:.5g}")


def series_of(runs: Sequence[Mapping[str, Any]]) -> list[Series]:
    """The runs of a task grouped by optimizer and number of steps, best final validation loss first, diverged last."""
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["optimizer"], run["steps"]), []).append(run)
    lengths: dict[str, list[int]] = {}
    for optimizer, steps in groups:
        lengths.setdefault(optimizer, []).append(steps)
    lines = lines_of(optimizer for optimizer, _ in groups)
    dashes = (SOLID, DASHED, DOTTED, MIXED)
    found = []
    for (optimizer, steps), members in groups.items():
        hue, dash = lines[optimizer]
        # The longest run keeps the optimizer's name and line; a shorter one says its length.
        rank = sorted(lengths[optimizer], reverse=True).index(steps)
        if rank:
            dash = dashes[(dashes.index(dash) + rank) % len(dashes)]
        label = optimizer if rank == 0 else f"{optimizer} ({steps:,} steps)"
        found.append(Series(label, hue, dash, members))

    def last(one: Series) -> float:
        mean = one.final("validation_loss").mean
        return math.inf if mean is None else mean

    return sorted(found, key=last)
