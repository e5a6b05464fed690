"""Sentences about intervals that claim no more than the interval does."""

from __future__ import annotations

from collections.abc import Iterable

from jaxopt_tour.tour.laboratory.statistics import Interval


def direction(interval: Interval) -> int:
    """1 where the whole interval is above 0, -1 where it is below, 0 where it contains 0 and nothing is shown."""
    return int(interval.low > 0) - int(interval.high < 0)


def listed(items: Iterable[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    *others, last = items
    return f"{', '.join(others)} and {last}" if others else last
