"""What an entry came to, as a card in Markdown and a picture: shown, or not shown."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from jaxopt_tour.tour.enter.contest import Result
from jaxopt_tour.tour.enter.entry import Entry
from jaxopt_tour.tour.laboratory.budgets import CALLED_FROM, steps_in_words
from jaxopt_tour.tour.laboratory.experiment import Table
from jaxopt_tour.tour.plots import line


def write_card(entry: Entry, results: Sequence[Result], folder: Path, *, quick: bool = False) -> Path:
    """Write `card.md` and `card.png` in a folder.

    Returns:
        The card's path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figure(entry, results).savefig(folder / "card.png", dpi=110, facecolor="white")
    card = folder / "card.md"
    card.write_text(text(entry, results, quick=quick), encoding="utf-8")
    return card


def text(entry: Entry, results: Sequence[Result], *, quick: bool = False) -> str:
    """The card."""
    parts = [
        f"# {entry.name}",
        *(["*A quick run: the numbers show that everything works and mean nothing else.*"] if quick else []),
        "\n".join(f"- {sentence}" for result in results for sentence in verdicts(entry, result)),
        "![Loss at every number of steps](card.png)",
        _steps(entry, results).markdown(),
        _costs(entry, results).markdown(),
        _protocol(entry, results),
    ]
    return "\n\n".join(parts) + "\n"


def verdicts(entry: Entry, result: Result) -> list[str]:
    """A sentence a rival: what is shown, and what is not."""
    where = result.heat.label
    if not result.readings:
        return [f"{where}: nothing is known: {result.ended.rstrip('.')}."]
    sentences = []
    for rival in result.rivals:
        found = result.against(rival)
        ratio = found.words()
        sentences.append(
            {
                1: f"{where}: shown: {rival} needs {ratio} times the steps.",
                -1: f"{where}: shown: {rival} needs fewer steps, {ratio} times those of {entry.name}.",
                0: f"{where}: not shown: that {entry.name} and {rival} differ in steps"
                + (f" (ratio {ratio})." if ratio else "."),
            }[found.call]
        )
    if result.ended:
        sentences.append(
            f"{where}: the search ended before every seed had reached the target: {result.ended.rstrip('.')}."
        )
    return sentences


def _steps(entry: Entry, results: Sequence[Result]) -> Table:
    rivals = list(results[0].rivals)
    return Table(
        "Steps to the target: the geometric mean over the seeds. Then each rival's steps over the entry's, with the "
        "95 % interval over paired seeds.",
        ["problem", "target", entry.name, *rivals, *(f"{rival} / {entry.name}" for rival in rivals)],
        [
            [
                result.heat.label,
                f"{result.heat.workload.target:g}",
                steps_in_words(result.steps(result.readings), result.grid()) if result.readings else "",
                *(_rival_steps(result, rival) for rival in rivals),
                *(result.against(rival).words() or "not known" for rival in rivals),
            ]
            for result in results
        ],
    )


def _rival_steps(result: Result, rival: str) -> str:
    readings = result.rivals[rival]
    return steps_in_words(result.steps(readings), [reading["steps"] for reading in readings])


def _costs(entry: Entry, results: Sequence[Result]) -> Table:
    rivals = list(results[0].rivals)
    return Table(
        "Cost and sensitivity: a training step's time over that with each rival (median of rounds, on this machine), "
        "bytes of state a parameter, decades of rates within 5 % of the best loss (> where the range reaches the end "
        "of the sweep), and the numbers of the last search.",
        ["problem", *(f"time / {rival}'s" for rival in rivals), "state bytes", "decades", "tuned"],
        [
            [
                result.heat.label,
                *(_time_ratio(result.costs, rival) for rival in rivals),
                f"{next(iter(result.costs.values()))['state_bytes_per_parameter']:.1f}" if result.costs else "",
                f"{'> ' if result.decades['open'] else ''}{result.decades['decades']:.2f}" if result.decades else "",
                _numbers(result.readings[-1]["numbers"]) if result.readings else "",
            ]
            for result in results
        ],
    )


def _time_ratio(costs: Mapping[str, Any] | None, rival: str) -> str:
    if costs is None:
        return ""
    own = next(iter(costs.values()))["rounds"]
    return f"{statistics.median(a / b for a, b in zip(own, costs[rival]['rounds'], strict=True)):.2f}"


def _numbers(numbers: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in numbers.items())


def _protocol(entry: Entry, results: Sequence[Result]) -> str:
    tuned = " and ".join(["the rate", *(f"{name} ({low:g} to {high:g})" for name, (low, high) in entry.ranges.items())])
    tuned += " are" if entry.ranges else " is"
    budgets = results[0].heat.budgets
    return (
        f"Protocol: at every number of steps T, {tuned} tuned on seeds from 1000 on, with 5 % warm-up and a linear "
        f"decay to zero at T. A search has {budgets.trials} trials at the first T, {budgets.later_trials} at every "
        "later one, and more while the best lies at an edge. Then it is read on seeds 0, 1, ...; T goes up until "
        "every seed reaches the target. The rivals' rate and momentum were tuned by the same search.\n\n"
        f"A difference is shown where the whole interval lies beyond a ratio of {CALLED_FROM:g}. These are small "
        "models with one target each: who is faster here may not be elsewhere."
    )


def figure(entry: Entry, results: Sequence[Result]) -> Figure:
    """A panel a workload: the mean final value at every number of steps, the entry's and the rivals'."""
    drawn = Figure(figsize=(max(4.6, 3.6 * len(results)), 3.6), layout="constrained")
    for ax, result in zip(drawn.subplots(1, len(results), squeeze=False)[0], results, strict=True):
        for name, readings in result.rivals.items():
            ax.plot(*_curve(readings), marker="o", markersize=3, label=name, **line(name))
        if result.readings:
            ax.plot(*_curve(result.readings), marker="s", markersize=4, color="black", linewidth=2, label=entry.name)
        target = result.heat.workload.target
        ax.axhline(target, color="0.5", linewidth=1, linestyle="--")
        ax.set_title(result.heat.label, fontsize=8, wrap=True)
        ax.set(xscale="log", xlabel="steps T (every T tuned)", ylabel=result.heat.workload.measured)
        grid = sorted({reading["steps"] for each in (*result.rivals.values(), result.readings) for reading in each})
        ax.set_xticks(grid, [str(steps) for steps in grid], fontsize=8)
        ax.minorticks_off()
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, fontsize=8)
    return drawn


def _curve(readings: Iterable[Mapping[str, Any]]) -> tuple[list[int], list[float]]:
    steps, means = [], []
    for reading in readings:
        final = reading["final"]
        steps.append(reading["steps"])
        means.append(math.nan if None in final else statistics.fmean(final))
    return steps, means
