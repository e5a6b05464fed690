"""Who needs the fewest steps? Budget to target on five problems, with the batch size as an axis on two of them."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from jaxopt_tour.tour.laboratory.budgets import CALLED_FROM, Compared, compare_steps, steps_in_words, steps_to
from jaxopt_tour.tour.laboratory.cells import Cells
from jaxopt_tour.tour.laboratory.experiment import Experiment, Table
from jaxopt_tour.tour.laboratory.protocol import Budgets, Entrant, budget_to_target, costs, sensitivity
from jaxopt_tour.tour.laboratory.rules import ADAMW, MUON, RULES, entrant
from jaxopt_tour.tour.laboratory.runs import Rule
from jaxopt_tour.tour.laboratory.statistics import Interval
from jaxopt_tour.tour.laboratory.tiny import tiny_workload
from jaxopt_tour.tour.laboratory.tuning import Axis
from jaxopt_tour.tour.plots import line


@dataclass(frozen=True)
class Heat:
    """A workload with its grid of budgets, and whether decay and warm-up are tuned on it, too."""

    workload: Workload
    budgets: Budgets
    all_tuned: bool = False

    @property
    def label(self) -> str:
        """The problem and its batch."""
        return f"{self.workload.title}, {self.workload.batch_text}"


def heats(quick: bool) -> list[Heat]:
    """What is raced on, the cheapest first."""
    if quick:
        few = Budgets(first=4, most=8, trials=5, later_trials=5, tuning_seeds=1, seeds=2)
        return [Heat(tiny_workload(), few, all_tuned=True)]
    return [
        Heat(fashion_mlp(16), Budgets(first=45, most=1100, seeds=12)),
        Heat(fashion_mlp(64), Budgets(first=32, most=520, seeds=12), all_tuned=True),
        Heat(fashion_mlp(256), Budgets(first=23, most=520, seeds=12)),
        Heat(fashion_cnn(), Budgets(first=32, most=520, seeds=6)),
        Heat(fashion_vit(), Budgets(first=45, most=520, tuning_seeds=1)),
        Heat(small_gpt(8), Budgets(first=64, most=730), all_tuned=True),
        Heat(small_gpt(2), Budgets(first=128, most=1500, tuning_seeds=1)),
        Heat(small_gpt(32), Budgets(first=45, most=260, tuning_seeds=1)),
        Heat(fashion_resnet(), Budgets(first=91, most=730), all_tuned=True),
    ]


#: What is tuned beside rate and momentum where everything is: decay by halves of a decade, from one that does next to
#: nothing in so few steps, and warm-up by factors of two, up to four fifths of a run.
MORE_AXES: Final = (
    Axis("weight_decay", 0.1, 10**0.5, ends=(0.01, math.inf)),
    Axis("warmup", 0.05, 2.0, ends=(0.0125, 0.8)),
)


Readings = Callable[[Cells, Heat, str], list[dict[str, Any]]]

#: Who is compared most closely.
PAIR: Final = ("adamw", "muon")


def rules(quick: bool) -> list[Rule]:
    """Who races."""
    return [ADAMW, MUON] if quick else list(RULES.values())


def run(cells: Cells) -> None:
    """Readings of every rule on every heat, the sensitivities, what tuning the rest is worth, and the costs."""
    for heat in heats(cells.quick):
        for rule in rules(cells.quick):
            _readings(cells, heat, rule.name)
    for heat in heats(cells.quick):
        for rule in rules(cells.quick):
            _sensitivity(cells, heat, rule.name)
    for heat in heats(cells.quick):
        for name in PAIR if heat.all_tuned else ():
            _readings_all_tuned(cells, heat, name)
    for heat in heats(cells.quick):
        _costs(cells, heat)


def _readings(cells: Cells, heat: Heat, name: str) -> list[dict[str, Any]]:
    """A rule's readings by number of steps."""
    return budget_to_target(cells, heat.workload, entrant(RULES[name]), heat.budgets)


def _readings_all_tuned(cells: Cells, heat: Heat, name: str) -> list[dict[str, Any]]:
    """The same with decay and warm-up tuned beside rate and momentum.

    A search starts from what was found for two numbers; on the tuning seeds it can only go down from there.
    """
    rule = RULES[name]
    four = Entrant(
        dataclasses.replace(rule, name=f"{name}, all tuned", defaults={**rule.defaults, "warmup": 0.05}),
        (*entrant(rule).axes, *MORE_AXES),
    )
    starts = {each["steps"]: (*each["point"], *(0 for _ in MORE_AXES)) for each in _readings(cells, heat, name)}
    budgets = dataclasses.replace(heat.budgets, later_trials=1 + 2 * len(four.axes))
    return budget_to_target(cells, heat.workload, four, budgets, starts)


def _sensitivity(cells: Cells, heat: Heat, name: str) -> Any:
    """At AdamW's last number of steps, the same for all, around each rule's own tuned numbers."""
    steps = _readings(cells, heat, ADAMW.name)[-1]["steps"]
    nearest = min(_readings(cells, heat, name), key=lambda reading: abs(math.log(reading["steps"] / steps)))
    seeds = heat.budgets.tuning_seeds
    return sensitivity(cells, heat.workload, entrant(RULES[name]), steps, nearest["numbers"], seeds=seeds)


def _costs(cells: Cells, heat: Heat) -> Any:
    few = {"rounds": 2, "calls": 2} if cells.quick else {}
    return costs(cells, heat.workload, rules(cells.quick), **few)


# --- what the cells say -----------------------------------------------------------------------------------------------


def _steps(heat: Heat, readings: Sequence[Mapping[str, Any]]) -> list[float | None]:
    return [steps_to(readings, seed, heat.workload.target) for seed in range(heat.budgets.seeds)]


def _steps_in_words(heat: Heat, readings: Sequence[Mapping[str, Any]]) -> str:
    return steps_in_words(_steps(heat, readings), heat.budgets.grid())


def compare(cells: Cells, heat: Heat, first: str, second: str, readings: Readings = _readings) -> Compared:
    """Steps of one rule over those of another, on the same seeds."""
    one, other = (_steps(heat, readings(cells, heat, name)) for name in (first, second))
    return compare_steps(one, other, heat.budgets.grid())


def _tables(cells: Cells) -> list[Table]:
    names = [rule.name for rule in rules(cells.quick)]
    every = heats(cells.quick)
    return [
        Table(
            "Steps to the target: the geometric mean over the reading seeds, each read between the two T of the grid "
            "around the target. ≤: a seed arrived at the first T.",
            ["problem", "target", "seeds", *names, "adamw / muon, 95 %"],
            [
                [
                    heat.label,
                    f"{heat.workload.target:g}",
                    str(heat.budgets.seeds),
                    *(_steps_in_words(heat, _readings(cells, heat, name)) for name in names),
                    compare(cells, heat, *PAIR).words(),
                ]
                for heat in every
            ],
        ),
        Table(
            "Tuning: the least trials of a search (first number of steps, every later one), seeds of a trial; then by "
            "rule the searches whose best point was in the end surrounded by worse ones, and the trials that a search "
            "took on average.",
            ["problem", "least", "tuning seeds", *names],
            [
                [
                    heat.label,
                    f"{heat.budgets.trials}, {heat.budgets.later_trials}",
                    str(heat.budgets.tuning_seeds),
                    *(
                        f"{sum(r['interior'] for r in readings)} of {len(readings)}, "
                        f"{readings[-1]['trials'] / len(readings):.1f}"
                        for readings in (_readings(cells, heat, name) for name in names)
                    ),
                ]
                for heat in every
            ],
        ),
        Table(
            "Steps to the target where weight decay and warm-up are tuned as well, each search starting from what was "
            "found for rate and momentum; the ratio as above, and with all four tuned.",
            ["problem", "adamw", "muon", "adamw / muon, two tuned", "all four tuned"],
            [
                [
                    heat.label,
                    *(_steps_in_words(heat, _readings_all_tuned(cells, heat, name)) for name in PAIR),
                    compare(cells, heat, *PAIR).words(),
                    compare(cells, heat, *PAIR, _readings_all_tuned).words(),
                ]
                for heat in every
                if heat.all_tuned
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
                    _seconds(cells, heat).words(),
                ]
                for heat in every
                for cost in [_costs(cells, heat)]
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
                        for found in (_sensitivity(cells, heat, name) for name in names)
                    ),
                ]
                for heat in every
                for cost in [_costs(cells, heat)]
            ],
        ),
    ]


def _seconds(cells: Cells, heat: Heat) -> Compared:
    """AdamW's seconds to the target over Muon's: the ratio of steps times that of a step's time.

    The interval is that of the steps, wider by the smallest and the largest ratio of times in any round.
    """
    cost, steps = _costs(cells, heat), compare(cells, heat, *PAIR)
    times = sorted(a / b for a, b in zip(*(cost[name]["rounds"] for name in PAIR), strict=True))
    low, middle, high = times[0], statistics.median(times), times[-1]
    if steps.interval:
        value, least, most = steps.interval
        return Compared(Interval(middle * value, low * least, high * most))
    bound = None if steps.bound is None else (low if steps.above else high) * steps.bound
    return Compared(None, bound, steps.above)


def _figure(cells: Cells) -> Figure:
    figure = Figure(figsize=(12, 4.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.3, 1, 1])
    every = heats(cells.quick)
    _forest(left, cells, every)
    shown = next((heat for heat in every if heat.workload.name == "gpt"), every[0])
    for name in (rule.name for rule in rules(cells.quick)):
        readings = _readings(cells, shown, name)
        points = [(r["steps"], _mean(r["final"])) for r in readings]
        middle.plot(*zip(*points, strict=True), marker="o", markersize=4, label=name, **line(name))
        sweep = _sensitivity(cells, shown, name)
        relative = [rate / sweep["rates"][len(sweep["rates"]) // 2] for rate in sweep["rates"]]
        losses = [math.nan if loss is None else loss for loss in sweep["losses"]]
        right.plot(relative, losses, marker="o", markersize=4, **line(name))
    middle.axhline(shown.workload.target, color="0.5", linewidth=1, linestyle="--")
    middle.text(0.98, shown.workload.target, "target", va="bottom", ha="right", color="0.35", fontsize=8,
                transform=middle.get_yaxis_transform())  # fmt: skip
    middle.set(xscale="log", xlabel="steps T (every T tuned)", ylabel=shown.workload.measured)
    middle.set_title(f"{shown.workload.title}: loss at each T")
    grid = [steps for steps in shown.budgets.grid() if steps <= middle.get_xlim()[1]]
    middle.set_xticks(grid, [str(steps) for steps in grid])
    middle.minorticks_off()
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
    return (loss for loss in _sensitivity(cells, heat, rule)["losses"] if loss is not None)


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
            color, label = line(name)["color"], name if place == 0 else None
            if found.interval is not None:
                value, low, high = found.interval
                ax.plot([low, high], [y, y], color=color, linewidth=2)
                ax.plot(value, y, "o", color=color, markersize=4, label=label)
            elif found.bound is not None:
                ax.plot(found.bound, y, ">" if found.above else "<", color=color, markersize=6, label=label)
    ax.axvline(1, color="0.5", linewidth=1)
    ax.set_yticks([-place for place in range(len(every))], [heat.label.replace("Fashion-MNIST, ", "").replace(
        "Shakespeare, character ", "").replace(" of 64 characters", "") for heat in every], fontsize=8)  # fmt: skip
    ax.set(xscale="log", xlabel="steps to target / Muon's (95 %)", title="How many times Muon's steps?")
    ticks = [0.5, 0.7, 1, 1.4, 2, 2.8, 4, 5.6, 8]
    low, high = ax.get_xlim()
    shown = [tick for tick in ticks if low <= tick <= high]
    ax.set_xticks(shown, [f"{tick:g}" for tick in shown])
    ax.set_xticks([], minor=True)
    ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.12), ncols=len(names))


def _answer(cells: Cells) -> str:
    every = heats(cells.quick)
    steps = {heat.label: compare(cells, heat, *PAIR) for heat in every}
    seconds = {heat.label: _seconds(cells, heat) for heat in every}
    parts = [
        f"A difference is called where the whole interval, or the bound, lies beyond a ratio of {CALLED_FROM:g}: the "
        "coarseness of the tuning's grids is in no interval.",
        _verdict(steps, "steps"),
        _verdict(seconds, "seconds on this machine"),
    ]
    tuned = [
        (heat, compare(cells, heat, *PAIR), compare(cells, heat, *PAIR, _readings_all_tuned))
        for heat in every
        if heat.all_tuned
    ]
    parts.append(
        "Tuning weight decay and warm-up as well gives these ratios of steps, after those with the two fixed: "
        + "; ".join(f"{heat.label} {four.words() or 'not known'}, after {two.words()}" for heat, two, four in tuned)
        + "."
    )
    readings = [each for heat in every for rule in rules(cells.quick) for each in _readings(cells, heat, rule.name)]
    readings += [each for heat, *_ in tuned for name in PAIR for each in _readings_all_tuned(cells, heat, name)]
    edges = sum(not reading["interior"] for reading in readings)
    parts.append(
        f"In {len(readings) - edges} of {len(readings)} searches the best point is surrounded by worse ones"
        + (f"; in the other {edges} a longer search may lower the budgets." if edges else ".")
    )
    parts.append(
        "These are small models, few seeds, one target each, one machine and budgets of a few hundred steps; an "
        "interval covers the draw of seeds alone, not that of problems, targets or grids."
    )
    return " ".join(parts)


def _verdict(found: Mapping[str, Compared], unit: str) -> str:
    """Where Muon is shown to need fewer, where more, and where neither."""
    groups: dict[int, list[str]] = {}
    for label, each in found.items():
        groups.setdefault(each.call, []).append(f"{label} ({each.words() or 'not known'})")
    words = {
        1: f"AdamW needs more {unit} than Muon in",
        -1: f"AdamW needs fewer {unit} than Muon in",
        0: f"No difference in {unit} is called in",
    }
    return " ".join(
        f"{words[call]} {len(groups[call])} of {len(found)} settings: {'; '.join(groups[call])}."
        for call in words
        if call in groups
    )


EXPERIMENT: Final = Experiment(
    name="race",
    title="Steps, seconds and memory to a target",
    question="How many steps does each optimizer need to reach a given held-out loss, if every optimizer and every "
    "number of steps is tuned alike, and what do those steps cost?",
    protocol=(
        "For every optimizer and every number of steps T on a grid of factor √2, rate and momentum are tuned together "
        "on seeds from 1000 on, with 5 % warm-up and a linear decay that ends at T: the same number of trials for all, "
        "and more while the best point lies at the edge of what was tried.",
        "T goes up until all reading seeds (0, 1, ...) end at or under the target; a seed's steps are read between the "
        "last T that misses it and the first that meets it, linearly in the logarithms; ratios are of geometric means, "
        "with 95 % intervals over paired seeds (one seed, the same start and batches).",
        "Weight decay is 0.1 for AdamW and Muon (on three problems decay and warm-up are then tuned, too), b2 is 0.95, "
        "Muon has its default shape factor; step times are measured in turn, round after round, and the interval of "
        "seconds takes the smallest and the largest ratio of them.",
    ),
    run=run,
    figure=_figure,
    tables=_tables,
    answer=_answer,
    change_our_mind="A search with more trials or more tuned numbers (decay, warm-up, b2) that moves a ratio across 1; "
    "other targets on the same curves; larger models and longer runs, where published gains are 1.1 to 1.4 in steps "
    "(Wen et al. 2025, https://arxiv.org/abs/2509.02046).",
)
