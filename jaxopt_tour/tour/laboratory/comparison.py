"""Two rules on the same seeds, compared in numbers and in words that claim no more than the interval does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from jaxopt_tour.tour.laboratory.statistics import Interval, mean, mean_difference, signed

Losses = Sequence[float | None]  # by seed; None: the run diverged

#: A sentence that lists more differences that show nothing than this leaves their intervals to the table.
MANY: Final = 4


def paired(first: Losses, second: Losses) -> Interval | None:
    """The mean of `first - second`, seed by seed; None where a run diverged."""
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    return mean_difference(*map(list, zip(*pairs, strict=True))) if len(pairs) == len(first) else None


def direction(interval: Interval) -> int:
    """1 where the whole interval is above 0, -1 where it is below, 0 where it contains 0 and nothing is shown."""
    return int(interval.low > 0) - int(interval.high < 0)


def mean_loss(losses: Losses) -> Interval | None:
    """The mean and its interval; None where a run diverged."""
    finite = [loss for loss in losses if loss is not None]
    return mean(finite) if len(finite) == len(losses) else None


def loss_in_words(losses: Losses, digits: int = 3) -> str:
    """`0.512 [0.507, 0.518]`, or on how many seeds it diverged."""
    found = mean_loss(losses)
    if found is None:
        return f"diverged on {sum(loss is None for loss in losses)} of {len(losses)}"
    return f"{found.value:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def difference_in_words(interval: Interval | None, digits: int = 3) -> str:
    """`+0.012 [+0.003, +0.020]`, or a dash where a run diverged."""
    return "—" if interval is None else signed(interval, digits)


def by_direction(differences: Mapping[str, Interval | None], standard: str, digits: int = 3) -> str:
    """Who is shown to lose more than the standard, who less, and of whom nothing is shown, as one sentence's middle.

    Args:
        differences: to the standard, by name.
        standard: what it is called.
        digits: of the numbers.
    """
    grouped: dict[int | None, list[str]] = {}
    for name, interval in differences.items():
        grouped.setdefault(None if interval is None else direction(interval), []).append(name)
    words = {
        1: f"more loss than {standard} is shown for",
        -1: f"less loss than {standard} is shown for",
        0: f"no difference to {standard} is shown for",
        None: "no comparison, because runs diverged, for",
    }

    def described(sign: int | None) -> str:
        names = grouped[sign]
        if sign is None:
            return listed(names)
        if sign == 0 and len(names) > MANY:
            return f"{listed(names)} (intervals in the table)"
        return listed(f"{name} ({difference_in_words(differences[name], digits)})" for name in names)

    return "; ".join(f"{words[sign]} {described(sign)}" for sign in words if sign in grouped)


def listed(items: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *others, last = items
    return f"{', '.join(others)} and {last}" if others else last


def tuned_in_words(tuned: Mapping[str, Any]) -> str:
    """The numbers that a search found, and whether it ended at an edge."""
    text = ", ".join(f"{value:.3g}" for value in tuned["numbers"].values())
    return text if tuned["interior"] else f"{text} (edge)"


def trials_in_words(tried: Iterable[tuple[Mapping[str, float], float | None]]) -> str:
    """Every trial of a search, as `rate: loss` or `rate, momentum: loss`, in the order of the numbers."""
    points = sorted((tuple(numbers.values()), loss) for numbers, loss in tried)
    return "; ".join(
        f"{', '.join(f'{value:.2g}' for value in point)}: {'diverged' if loss is None else f'{loss:.3f}'}"
        for point, loss in points
    )
