"""The table that ends a race on the terminal."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

LEGEND = "share: the optimizer's part of the step; state: its bytes a parameter"


def mean_and_spread(values: list[float | None], show: Callable[[float], str]) -> str:
    """The mean, with half the range where there are several; "diverged" where a run has no number."""
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        return "diverged" if not numbers else f"{len(values) - len(numbers)} of {len(values)} diverged"
    mean = show(statistics.fmean(numbers))
    return mean if len(numbers) == 1 else f"{mean}±{show((max(numbers) - min(numbers)) / 2)}"


def summary_table(task: dict[str, Any]) -> Group:
    """One task of a results file, an optimizer a row, best validation loss first, seeds averaged."""
    has_accuracy = task["metric"] == "accuracy"
    seeds = len({run["seed"] for run in task["runs"]})
    title = (
        f"{task['title']}: {task['parameters']:,} parameters, {task['batch']} a step, "
        f"{seeds} seed{'s' if seeds > 1 else ''}"
    )
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column("optimizer", no_wrap=True)
    for heading in ("validation\nloss", "accuracy\n%", "ms a\nstep", "share\n%", "state\nB/par.", "rate", "steps"):
        if has_accuracy or not heading.startswith("accuracy"):
            table.add_column(heading, justify="right", no_wrap=True)

    by_optimizer: dict[str, list[dict[str, Any]]] = {}
    for run in task["runs"]:
        by_optimizer.setdefault(run["optimizer"], []).append(run)

    def loss(item: tuple[str, list[dict[str, Any]]]) -> float:
        values = [run["final"]["validation_loss"] for run in item[1]]
        return float("inf") if None in values else statistics.fmean(values)

    for name, runs in sorted(by_optimizer.items(), key=loss):
        finals = [run["final"] for run in runs]
        cells = [mean_and_spread([final["validation_loss"] for final in finals], "{:.4f}".format)]
        if has_accuracy:
            accuracies = [final["validation_accuracy"] for final in finals]
            cells.append(mean_and_spread([a if a is None else 100 * a for a in accuracies], "{:.1f}".format))
        cells += [
            f"{statistics.fmean(run['milliseconds_per_step'] for run in runs):.1f}",
            f"{100 * statistics.fmean(run['optimizer_share'] for run in runs):.0f}",
            f"{runs[0]['state_bytes_per_parameter']:.1f}",
            f"{runs[0]['learning_rate']:g}",
            str(runs[0]["steps"]),
        ]
        table.add_row(name, *cells)
    return Group(Text(title, style="bold"), table, Text(LEGEND, style="dim"), Text(""))
