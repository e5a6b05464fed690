"""Who needs the fewest steps? Budget to target on five problems, with the batch size as an axis on two of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from matplotlib.figure import Figure

from jaxopt_tour.problems.workloads import (
    Workload,
    fashion_cnn,
    fashion_mlp,
    fashion_resnet,
    fashion_vit,
    parameters,
    small_gpt,
)
from jaxopt_tour.tour.laboratory.cells import Cells
from jaxopt_tour.tour.laboratory.experiment import Experiment, Table
from jaxopt_tour.tour.laboratory.protocol import Budgets, budget_to_target, costs, sensitivity
from jaxopt_tour.tour.laboratory.rules import ADAMW, MUON, RULES, entrant
from jaxopt_tour.tour.laboratory.runs import Rule
from jaxopt_tour.tour.laboratory.statistics import Interval, in_words, ratio
from jaxopt_tour.tour.laboratory.tiny import tiny_workload
from jaxopt_tour.tour.plots import line


@dataclass(frozen=True)
class Heat:
    """A workload with its grid of budgets."""

    workload: Workload
    budgets: Budgets

    @property
    def label(self) -> str:
        """The problem and its batch."""
        return f"{self.workload.title}, {self.workload.batch_text}"


def heats(quick: bool) -> list[Heat]:
    """What is raced on, the cheapest first."""
    if quick:
        return [Heat(tiny_workload(), Budgets(first=4, most=8, trials=5, later_trials=5, tuning_seeds=1, seeds=2))]
    one_seed = {"trials": 12, "later_trials": 6, "tuning_seeds": 1, "seeds": 5}
    return [
        Heat(fashion_mlp(16), Budgets(first=45, most=1100, seeds=12)),
        Heat(fashion_mlp(64), Budgets(first=32, most=520, seeds=12)),
        Heat(fashion_mlp(256), Budgets(first=23, most=520, seeds=12)),
        Heat(fashion_cnn(), Budgets(first=32, most=520, seeds=6)),
        Heat(fashion_vit(), Budgets(first=45, most=520, **one_seed)),
        Heat(small_gpt(8), Budgets(first=64, most=730, **one_seed)),
        Heat(small_gpt(2), Budgets(first=128, most=1500, **one_seed)),
        Heat(small_gpt(32), Budgets(first=45, most=260, **one_seed)),
        Heat(fashion_resnet(), Budgets(first=91, most=730, **one_seed)),
    ]


def rules(quick: bool) -> list[Rule]:
    """Who races."""
    return [ADAMW, MUON] if quick else list(RULES.values())


def run(cells: Cells) -> None:
    """Budgets of every rule on every heat, then the sensitivities, then the costs."""
    for heat in heats(cells.quick):
        for rule in rules(cells.quick):
            _budget(cells, heat, rule)
    for heat in heats(cells.quick):
        for rule in rules(cells.quick):
            _sensitivity(cells, heat, rule)
    for heat in heats(cells.quick):
        few = {"rounds": 2, "calls": 2} if cells.quick else {}
        costs(cells, heat.workload, rules(cells.quick), **few)


def _budget(cells: Cells, heat: Heat, rule: Rule) -> Any:
    key = {"what": "budget", "workload": heat.workload.name, "batch": heat.workload.batch_text, "rule": rule.name}
    target = {"target": heat.workload.target, "grid": heat.budgets.grid()}
    return cells.get(key | target, lambda: budget_to_target(cells, heat.workload, entrant(rule), heat.budgets))


def _sensitivity(cells: Cells, heat: Heat, rule: Rule) -> Any:
    """At the budget of AdamW's last reading, the same number of steps for all, around each one's own tuned numbers."""
    steps = _found(cells, heat, ADAMW.name)["readings"][-1]["steps"]
    readings = _found(cells, heat, rule.name)["readings"]
    numbers = min(readings, key=lambda reading: abs(math.log(reading["steps"] / steps)))["numbers"]
    return sensitivity(cells, heat.workload, entrant(rule), steps, numbers, seeds=heat.budgets.tuning_seeds)


# --- what the cells say -----------------------------------------------------------------------------------------------


def _found(cells: Cells, heat: Heat, rule: str) -> Any:
    return cells.value(what="budget", workload=heat.workload.name, batch=heat.workload.batch_text, rule=rule)


def _part(cells: Cells, heat: Heat, what: str, **more: Any) -> Any:
    return cells.value(what=what, workload=heat.workload.name, batch=heat.workload.batch_text, **more)


@dataclass(frozen=True)
class Comparison:
    """Steps of one rule over steps of another, and whether a budget beyond the grid makes it a bound."""

    interval: Interval
    bound: str  # "", "≥" (the first did not always arrive), "≤" (the second did not), "?" (neither)

    def __str__(self) -> str:
        """``1.41 [1.30, 1.52]``, with the sign of a bound."""
        return self.bound + in_words(self.interval)


def compare(cells: Cells, heat: Heat, first: str, second: str) -> Comparison:
    """Budget of the first over budget of the second; a budget beyond the grid counts as one place beyond it."""
    beyond = heat.budgets.grid()[-1] * heat.budgets.factor
    budgets = [_found(cells, heat, name)["steps"] for name in (first, second)]
    filled = [[beyond if steps is None else steps for steps in each] for each in budgets]
    bound = {(False, False): "", (True, False): "≥", (False, True): "≤", (True, True): "?"}[
        None in budgets[0], None in budgets[1]
    ]
    return Comparison(ratio(*filled), bound)


def _steps_text(cells: Cells, heat: Heat, rule: str) -> str:
    """Geometric mean over the seeds, or how many seeds did not arrive."""
    steps = _found(cells, heat, rule)["steps"]
    arrived = [each for each in steps if each is not None]
    if len(arrived) < len(steps):
        return f"> {heat.budgets.grid()[-1]} ({len(steps) - len(arrived)} of {len(steps)} seeds)"
    return f"{math.exp(sum(map(math.log, arrived)) / len(arrived)):.0f}"


def _tables(cells: Cells) -> list[Table]:
    names = [rule.name for rule in rules(cells.quick)]
    every = heats(cells.quick)
    return [
        Table(
            "Steps to the target: the geometric mean over the reading seeds. The grid's factor is √2, so that no "
            "single budget is known more closely than that.",
            ["problem", "target", "seeds", *names, "adamw / muon, 95 %"],
            [
                [
                    heat.label,
                    f"{heat.workload.target:g}",
                    str(heat.budgets.seeds),
                    *(_steps_text(cells, heat, name) for name in names),
                    str(compare(cells, heat, "adamw", "muon")),
                ]
                for heat in every
            ],
        ),
        Table(
            "Tuning: trials of each search (first number of steps, every later one), seeds of a trial, and in how many "
            "searches the best point was surrounded by worse ones.",
            ["problem", "trials", "tuning seeds", *names],
            [
                [
                    heat.label,
                    f"{heat.budgets.trials}, {heat.budgets.later_trials}",
                    str(heat.budgets.tuning_seeds),
                    *(
                        f"{sum(r['interior'] for r in readings)} of {len(readings)}"
                        for readings in (_found(cells, heat, name)["readings"] for name in names)
                    ),
                ]
                for heat in every
            ],
        ),
        Table(
            "Time: a training step in milliseconds, and the optimizer's share of it; then seconds to the target, "
            "AdamW's over Muon's.",
            ["problem", "parameters", *names, "adamw / muon, seconds"],
            [
                [
                    heat.label,
                    f"{parameters(heat.workload):,}",
                    *(f"{cost[name]['step']:.2g} ({100 * cost[name]['share']:.0f} %)" for name in names),
                    _seconds(compare(cells, heat, "adamw", "muon"), cost["adamw"]["step"] / cost["muon"]["step"]),
                ]
                for heat in every
                for cost in [_part(cells, heat, "costs")]
            ],
        ),
        Table(
            "Memory, in bytes of optimizer state per parameter, and how many decades of learning rates are within 5 % "
            "of the best loss (> where the range reaches the end of the sweep).",
            ["problem", *(f"{name}, bytes" for name in names), *(f"{name}, decades" for name in names)],
            [
                [
                    heat.label,
                    *(f"{cost[name]['state_bytes_per_parameter']:.1f}" for name in names),
                    *(
                        f"{'> ' if found['open'] else ''}{found['decades']:.2f}"
                        for found in (_part(cells, heat, "sensitivity", rule=name) for name in names)
                    ),
                ]
                for heat in every
                for cost in [_part(cells, heat, "costs")]
            ],
        ),
    ]


def _seconds(steps: Comparison, step_time: float) -> str:
    scaled = Interval(*(step_time * bound for bound in steps.interval))
    return steps.bound + in_words(scaled)


def _figure(cells: Cells) -> Figure:
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.15, 1, 1])
    every = heats(cells.quick)
    _forest(left, cells, every)
    shown = next((heat for heat in every if heat.workload.name == "gpt"), every[0])
    for name in (rule.name for rule in rules(cells.quick)):
        readings = _found(cells, shown, name)["readings"]
        points = [(r["steps"], _mean(r["final"])) for r in readings]
        middle.plot(*zip(*points, strict=True), marker="o", markersize=4, label=name, **line(name))
        sweep = _part(cells, shown, "sensitivity", rule=name)
        relative = [rate / sweep["rates"][len(sweep["rates"]) // 2] for rate in sweep["rates"]]
        losses = [math.nan if loss is None else loss for loss in sweep["losses"]]
        right.plot(relative, losses, marker="o", markersize=4, **line(name))
    middle.axhline(shown.workload.target, color="0.5", linewidth=1, linestyle="--")
    middle.text(0.98, shown.workload.target, "target", va="bottom", ha="right", color="0.35", fontsize=8,
                transform=middle.get_yaxis_transform())  # fmt: skip
    middle.set(xscale="log", xlabel="steps T (every T tuned)", ylabel=shown.workload.measured, title=shown.label)
    best = min(min(each for each in _losses(cells, shown, rule.name)) for rule in rules(cells.quick))
    right.set(
        xscale="log",
        xlabel="rate / tuned rate",
        ylabel=shown.workload.measured,
        title="… and how it depends on the rate",
    )
    right.set_ylim(best - 0.02, best + 0.6)
    middle.legend(frameon=False)
    for ax in (left, middle, right):
        ax.title.set_fontsize(10)
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def _losses(cells: Cells, heat: Heat, rule: str) -> Iterator[float]:
    return (loss for loss in _part(cells, heat, "sensitivity", rule=rule)["losses"] if loss is not None)


def _mean(values: Sequence[float | None]) -> float:
    finite = [value for value in values if value is not None]
    return sum(finite) / len(finite) if len(finite) == len(values) else math.nan


def _forest(ax: Any, cells: Cells, every: list[Heat]) -> None:
    """One line a problem: how many times Muon's steps the others need."""
    names = [rule.name for rule in rules(cells.quick) if rule.name != "muon"]
    for place, heat in enumerate(every):
        for index, name in enumerate(names):
            found = compare(cells, heat, name, "muon")
            y = -place + 0.22 * ((len(names) - 1) / 2 - index)
            value, low, high = found.interval
            ax.errorbar(
                value, y, xerr=[[value - low], [high - value]], fmt=">" if found.bound == "≥" else "o", markersize=4,
                color=line(name)["color"], capsize=2, label=name if place == 0 else None,
            )  # fmt: skip
    ax.axvline(1, color="0.5", linewidth=1)
    ax.set_yticks([-place for place in range(len(every))], [heat.label.replace("Fashion-MNIST, ", "").replace(
        "Shakespeare, character ", "").replace(" of 64 characters", "") for heat in every], fontsize=8)  # fmt: skip
    ax.set(xscale="log", xlabel="steps to target / Muon's (95 %)", title="How many times Muon's steps?")
    ticks = [0.5, 0.7, 1, 1.4, 2, 2.8, 4, 5.6, 8]
    low, high = ax.get_xlim()
    shown = [tick for tick in ticks if low <= tick <= high]
    ax.set_xticks(shown, [f"{tick:g}" for tick in shown])
    ax.set_xticks([], minor=True)
    ax.legend(frameon=False, fontsize=8)


def _answer(cells: Cells) -> str:
    every = heats(cells.quick)
    found = {heat.label: compare(cells, heat, "adamw", "muon") for heat in every}
    fewer = [label for label, each in found.items() if each.interval.low > 1 and each.bound in ("", "≥")]
    more = [label for label, each in found.items() if each.interval.high < 1 and each.bound in ("", "≤")]
    open_ = [label for label in found if label not in fewer + more]
    parts = []
    if fewer:
        parts.append(
            f"Muon needed fewer steps than AdamW on {len(fewer)} of {len(found)} problems: "
            + "; ".join(f"{label} (AdamW's over Muon's: {found[label]})" for label in fewer)
            + "."
        )
    if more:
        parts.append("It needed more on " + "; ".join(f"{label} ({found[label]})" for label in more) + ".")
    if open_:
        parts.append(
            "No difference in steps is shown on " + "; ".join(f"{label} ({found[label]})" for label in open_) + "."
        )
    seconds = {
        heat.label: found[heat.label].interval.low * cost["adamw"]["step"] / cost["muon"]["step"]
        for heat in every
        for cost in [_part(cells, heat, "costs")]
    }
    sooner = [label for label in fewer if seconds[label] > 1]
    if fewer:
        parts.append(
            f"In seconds on this machine the advantage holds on {len(sooner)} of those {len(fewer)}"
            + (f": {'; '.join(sooner)}." if sooner else ".")
        )
    parts.append(
        "These are small models, few seeds, one target each, one machine and budgets of a few hundred steps; an "
        "interval covers the draw of seeds alone, not that of problems, targets or grids."
    )
    return " ".join(parts)


EXPERIMENT: Final = Experiment(
    name="race",
    title="Steps, seconds and memory to a target",
    question="How many steps does each optimizer need to reach a given held-out loss, if every optimizer and every "
    "number of steps is tuned alike, and what do those steps cost?",
    protocol=(
        "For every optimizer and every number of steps T on a grid of factor √2, rate and momentum are tuned together "
        "by the same number of trials on seeds from 1000 on, with 5 % warm-up and a linear decay that ends at T.",
        "The budget of a reading seed (0, 1, ...) is the first T whose run ends at or under the target; ratios are of "
        "geometric means, with a 95 % bootstrap over paired seeds (one seed, the same start and batches).",
        "Weight decay is 0.1 for AdamW and Muon, b2 is 0.95, Muon has its default shape factor; step times are "
        "measured in turn, round after round.",
    ),
    run=run,
    figure=_figure,
    tables=_tables,
    answer=_answer,
    change_our_mind="A search with more trials or more tuned numbers (decay, warm-up, b2) that moves a ratio across 1; "
    "other targets on the same curves; larger models and longer runs, where published gains are 1.1 to 1.4 in steps "
    "(Wen et al. 2025, https://arxiv.org/abs/2509.02046).",
)
