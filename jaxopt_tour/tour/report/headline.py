"""One sentence a task: which optimizer ends lowest, and which of the others are not told apart from it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from jaxopt_tour.tour.laboratory.statistics import Interval, mean
from jaxopt_tour.tour.report.series import Series, finite


def difference(one: Series, other: Series) -> Interval | None:
    """How much higher `other` ends than `one`, over the seeds of both, with its 95 % interval; None without any."""
    losses = [{run["seed"]: finite(run["final"]["validation_loss"]) for run in each.runs} for each in (one, other)]
    seeds = [seed for seed in losses[0] if losses[0][seed] is not None and losses[1].get(seed) is not None]
    return mean([losses[1][seed] - losses[0][seed] for seed in seeds]) if seeds else None  # type: ignore[operator]


def standing(series: Sequence[Series]) -> tuple[Series, str] | None:
    """The optimizer with the lowest mean final loss, and what the seeds say about it; None where all diverged.

    Others for which the interval of the paired difference reaches zero are tied with it. One seed has no interval, and
    another length of the same optimizer, such as `muon-0.7`, is no rival.
    """
    ranked = [one for one in series if one.final("validation_loss").mean is not None]
    if not ranked:
        return None
    first, low = ranked[0], ranked[0].final("validation_loss")
    rivals = [one for one in ranked[1:] if _name(one) != _name(first)]
    text = f"ends lowest, at {low.mean:.4f} nats"
    if low.count < 2:
        text += f"; then {rivals[0].label} at {rivals[0].final('validation_loss').mean:.4f}" if rivals else ""
        return first, f"{text}. One seed: its noise is not known, so small differences say nothing."
    text += f" ({low.low:.4f} to {low.high:.4f} over {low.count} seeds)"
    found = [(one, interval) for one in rivals if (interval := difference(first, one)) is not None]
    tied = [one.label for one, interval in found if interval.low <= 0]
    apart = [(one, interval) for one, interval in found if interval.low > 0]
    if tied:
        text += f"; tied with {_listed(tied)}"
    if apart:
        one, interval = apart[0]
        ends = f" [{interval.low:.4f}, {interval.high:.4f}]" if math.isfinite(interval.high) else ""
        text += f"; {one.label} ends {interval.value:.4f}{ends} higher"
    return first, f"{text}."


def _name(one: Series) -> str:
    """The optimizer without its share of steps."""
    return re.sub(r"-0\.\d+$", "", one.runs[0]["optimizer"])


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def shown_at_first(series: Sequence[Series], most: int = 5) -> list[bool]:
    """Which lines a chart opens with: the lowest three, AdamW and SGD, or all where there are no more than `most`."""
    if len(series) <= most:
        return [True] * len(series)
    familiar = ("adamw", "sgd", "sgd-momentum")
    chosen = set(range(most - 2))
    for place, one in enumerate(series):
        if one.label in familiar and len(chosen) < most:
            chosen.add(place)
    return [place in chosen for place in range(len(series))]
