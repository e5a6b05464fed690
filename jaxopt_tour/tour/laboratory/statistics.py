"""95 % intervals over seeds, paired where two rules had the same seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from scipy.special import ndtr, stdtrit

Values = Sequence[float] | np.ndarray

#: Resamples of every bootstrap, and the seed that draws them: the same values give the same interval.
RESAMPLES: Final = 10_000
SEED: Final = 0

#: Fewer values than these are too few to be resampled: four of one sign would always leave out 0.
ENOUGH: Final = 10


class Interval(NamedTuple):
    """An estimate and the bounds of its 95 % interval."""

    value: float
    low: float
    high: float


def mean(values: Values) -> Interval:
    """The mean and its interval.

    From `ENOUGH` values on that is the bootstrap's percentile interval, expanded for its number: the level is
    `Phi(-t sqrt(n / (n - 1)))` with Student's t of n - 1 degrees of freedom in place of 2.5 %, at which the interval
    would be too narrow. Of fewer values it is Student's, `t s / sqrt(n)` to either side, and of a single one it has
    no ends. It says nothing about other data, other models or other grids of rates.

    Raises:
        ValueError: no values.

    Source: Efron & Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3; Hesterberg 2015, What Teachers
    Should Know about the Bootstrap, https://arxiv.org/abs/1411.5279.
    """
    array = np.asarray(values, np.float64)
    n = len(array)
    if n == 0:
        raise ValueError("an interval needs at least one value")
    value = float(array.mean())
    if n == 1:
        return Interval(value, -math.inf, math.inf)
    t = float(stdtrit(n - 1, 0.975))
    if n < ENOUGH:
        reach = t * float(array.std(ddof=1)) / math.sqrt(n)
        return Interval(value, value - reach, value + reach)
    drawn = np.random.default_rng(SEED).integers(n, size=(RESAMPLES, n))
    level = 100 * float(ndtr(-t * math.sqrt(n / (n - 1))))
    low, high = np.percentile(array[drawn].mean(axis=1), [level, 100 - level])
    return Interval(value, float(low), float(high))


def mean_difference(first: Values, second: Values) -> Interval:
    """The mean of `first - second`, seed by seed, and its interval.

    Raises:
        ValueError: samples of different lengths, or without a value.
    """
    if len(first) != len(second):
        raise ValueError(f"paired samples must have the same number of values, got {len(first)} and {len(second)}")
    return mean(np.subtract(first, second, dtype=np.float64))


def ratio(first: Values, second: Values) -> Interval:
    """The ratio of geometric means `first / second`, seed by seed, and its interval."""
    found = mean_difference(np.log(np.asarray(first, np.float64)), np.log(np.asarray(second, np.float64)))
    return Interval(*map(_exp, found))


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf


def in_words(interval: Interval, digits: int = 2) -> str:
    """`1.84 [1.76, 1.92]`."""
    return f"{interval.value:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def signed(interval: Interval, digits: int = 3) -> str:
    """`+0.070 [+0.051, +0.093]`."""
    return f"{interval.value:+.{digits}f} [{interval.low:+.{digits}f}, {interval.high:+.{digits}f}]"
