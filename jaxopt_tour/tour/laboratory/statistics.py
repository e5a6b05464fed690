"""Intervals by the bootstrap over seeds, paired where two rules had the same seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np

#: Resamples of every bootstrap, and the seed that draws them: the same values give the same interval.
RESAMPLES: Final = 10_000
SEED: Final = 0


class Interval(NamedTuple):
    """An estimate and the bounds of its 95 % interval."""

    value: float
    low: float
    high: float


def bootstrap(statistic: Callable[..., np.ndarray], *samples: Sequence[float]) -> Interval:
    """The 95 % percentile interval of a statistic of paired samples.

    The seeds are drawn with replacement, the same ones for every sample. With n seeds the interval is too narrow by
    about ``sqrt((n - 1) / n)``; it says nothing about other data, other models or other grids of rates.

    Args:
        statistic: (resamples, n) arrays, one a sample -> (resamples,).
        samples: of one length, in the same order of seeds.

    Raises:
        ValueError: no values, or samples of different lengths.

    Source: Efron & Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3.
    """
    arrays = [np.asarray(sample, np.float64) for sample in samples]
    lengths = {len(array) for array in arrays}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"samples must have the same number of values, at least one; got {sorted(lengths)}")
    drawn = np.random.default_rng(SEED).integers(lengths.pop(), size=(RESAMPLES, len(arrays[0])))
    low, high = np.percentile(statistic(*(array[drawn] for array in arrays)), [2.5, 97.5])
    value = statistic(*(array[None] for array in arrays))
    return Interval(float(value[0]), float(low), float(high))


def mean(values: Sequence[float]) -> Interval:
    """The mean and its interval."""
    return bootstrap(lambda a: a.mean(axis=1), values)


def mean_difference(first: Sequence[float], second: Sequence[float]) -> Interval:
    """The mean of ``first - second``, seed by seed, and its interval."""
    return bootstrap(lambda a, b: (a - b).mean(axis=1), first, second)


def ratio(first: Sequence[float], second: Sequence[float]) -> Interval:
    """The ratio of geometric means ``first / second``, seed by seed, and its interval."""
    return bootstrap(lambda a, b: np.exp((np.log(a) - np.log(b)).mean(axis=1)), first, second)


def in_words(interval: Interval, digits: int = 2) -> str:
    """``1.84 [1.76, 1.92]``."""
    return f"{interval.value:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def signed(interval: Interval, digits: int = 3) -> str:
    """``+0.070 [+0.051, +0.093]``."""
    return f"{interval.value:+.{digits}f} [{interval.low:+.{digits}f}, {interval.high:+.{digits}f}]"
