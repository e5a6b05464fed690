"""Problems in one matrix whose optimum is known: where does Muon win, where not, and does the exact polar factor help?

Condition number, batch and class balance are axes here, so that the answer can depend on them. The exact factor is an
SVD a step; on few cores it is faster by far under `OPENBLAS_NUM_THREADS=1`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxopt_tour.tour.experiments.matrix_problems_runs import (
    FIXED,
    NAME,
    RATIOS,
    RULES,
    Setting,
    key_of,
    run,
    settings,
)
from jaxopt_tour.tour.laboratory.budgets import (
    CALLED_FROM,
    Compared,
    compare_steps,
    mean_steps,
    steps_in_words,
    steps_to,
)
from jaxopt_tour.tour.laboratory.cells import Cells
from jaxopt_tour.tour.laboratory.comparison import listed
from jaxopt_tour.tour.laboratory.experiment import Experiment, Table
from jaxopt_tour.tour.plots import line

# --- what the cells say -----------------------------------------------------------------------------------------------


def _steps(cells: Cells, setting: Setting, rule: str, target: float) -> list[float | None]:
    (readings,) = (cells.value(**key_of(setting, each)) for each in setting.rules if each.name == rule)
    return [steps_to(readings, seed, target) for seed in range(setting.budgets.seeds)]


def compare(cells: Cells, setting: Setting, first: str, second: str, target: float) -> Compared:
    """The steps of one rule over those of another, on the same seeds."""
    one, other = (_steps(cells, setting, rule, target) for rule in (first, second))
    return compare_steps(one, other, setting.budgets.grid())


def _has(setting: Setting, *rules: str) -> bool:
    return set(rules) <= {rule.name for rule in setting.rules}


def _compared(cells: Cells, first: str, second: str) -> list[tuple[Setting, Compared]]:
    """The settings that both rules take part in, at the target that is compared."""
    return [
        (setting, compare(cells, setting, first, second, setting.targets[0]))
        for setting in settings(cells.quick)
        if _has(setting, first, second)
    ]


def _target(setting: Setting, target: float) -> str:
    return f"{target:g}" if setting.group == "matrix" else f"{target:g} nats"


def tables(cells: Cells) -> list[Table]:
    """Steps and ratios, the other targets, and the tuned numbers."""
    present = settings(cells.quick)
    budgets = present[0].budgets
    names = [rule.name for rule in RULES]

    def steps(setting: Setting, rule: str) -> str:
        if not _has(setting, rule):
            return ""
        return steps_in_words(_steps(cells, setting, rule, setting.targets[0]), setting.budgets.grid())

    rows = [
        [setting.label, _target(setting, setting.targets[0]), *(steps(setting, rule) for rule in names)]
        + [
            compare(cells, setting, a, b, setting.targets[0]).words() if _has(setting, a, b) else ""
            for a, b, _ in RATIOS
        ]
        for setting in present
    ]
    others = [
        [setting.label, _target(setting, target)]
        + [compare(cells, setting, a, b, target).words() if _has(setting, a, b) else "" for a, b, _ in RATIOS]
        for setting in present
        for target in setting.targets[1:]
        if len(setting.rules) > 1
    ]

    def tuned(setting: Setting, rule: str) -> str:
        found = [each for each in setting.rules if each.name == rule]
        if not found:
            return ""
        readings = cells.value(**key_of(setting, found[0]))
        last = readings[-1]
        text = f"{last['numbers']['learning_rate']:.2g}, {last['numbers']['momentum']:.4g} at {last['steps']}"
        return text if last["interior"] else text + " (edge)"

    ratios = [title for *_, title in RATIOS]
    return [
        Table(
            f"Steps to the target: geometric means over {budgets.seeds} seeds; ratios with 95 % intervals, "
            "paired. Above 1, Muon (Newton-Schulz) needs fewer steps.",
            ["problem", "target", *names, *ratios],
            rows,
        ),
        Table("The same ratios at other targets.", ["problem", "target", *ratios], others),
        Table(
            "Tuned rate and momentum at the last number of steps that was tried. Every search has "
            f"{budgets.trials} trials at the first number of steps and {budgets.later_trials} at each later one, for "
            "every rule, and more while its best point is at an edge; (edge): it ended there.",
            ["problem", *names],
            [[setting.label, *(tuned(setting, rule) for rule in names)] for setting in present],
        ),
        *_fixed_momentum(cells),
    ]


def _fixed_momentum(cells: Cells) -> list[Table]:
    """What tuning momentum is worth to Muon; none where it was not tried."""
    rows = []
    for setting in settings(cells.quick):
        if _has(setting, FIXED.name):
            target = setting.targets[0]
            pairs = ((FIXED.name, "muon"), ("adamw", FIXED.name), ("adamw", "muon"))
            ratios = (compare(cells, setting, first, second, target).words() for first, second in pairs)
            rows.append([setting.label, _target(setting, target), *ratios])
    head = ["problem", "target", "fixed / tuned", "AdamW / fixed", "AdamW / tuned"]
    caption = (
        "Ratios of steps with Muon's momentum fixed at 0.95, its rate tuned by the same search, and with both tuned."
    )
    return [Table(caption, head, rows)] if rows else []


def figure(cells: Cells) -> Figure:
    """The three ratios of every setting, with their intervals."""
    present = [setting for setting in settings(cells.quick) if len(setting.rules) > 1]
    picture = Figure(figsize=(11, 1.6 + 0.28 * len(present)), layout="constrained")
    panels: Sequence[Axes] = picture.subplots(1, len(RATIOS), sharey=True)
    for ax, (first, second, title) in zip(panels, RATIOS, strict=True):
        color = line(first)["color"]
        for place, setting in enumerate(present):
            if not _has(setting, first, second):
                continue
            found = compare(cells, setting, first, second, setting.targets[0])
            if found.interval:
                low, high = found.interval.low, found.interval.high
                ax.plot([low, high], [place, place], color=color, linewidth=2)
                ax.plot(found.interval.value, place, "o", color=color, markersize=5)
            elif found.bound is not None:
                ax.plot(found.bound, place, ">" if found.above else "<", color=color, markersize=7, fillstyle="none")
            else:
                ax.text(0.5, place, "unknown", transform=ax.get_yaxis_transform(), ha="center", va="center", size=7)
        ax.axvspan(1 / CALLED_FROM, CALLED_FROM, color="0.9", zorder=0)
        ax.axvline(1, color="0.4", linewidth=0.8)
        ax.set_xscale("log")
        low, high = ax.get_xlim()
        ax.set_xlim(min(low, 0.62), max(high, 1.6))
        ticks = [
            x for x in (0.125, 0.25, 0.5, 0.7, 1, 1.4, 2, 4, 8, 16, 32) if ax.get_xlim()[0] <= x <= ax.get_xlim()[1]
        ]
        ax.set_xticks(ticks, [f"{x:g}" for x in ticks])
        ax.minorticks_off()
        ax.set(title=title, xlabel="ratio of steps to the target")
        ax.grid(axis="y", color="0.93")
        ax.set_axisbelow(True)
    panels[0].set_yticks(range(len(present)), [setting.label for setting in present], size=8)
    panels[0].set_ylim(len(present) - 0.4, -0.6)
    return picture


def _called(compared: Sequence[tuple[Setting, Compared]], call: int) -> str:
    return "; ".join(f"{setting.label} ({found.words()})" for setting, found in compared if found.call == call)


def _verdicts(compared: Sequence[tuple[Setting, Compared]], more: str, fewer: str, unit: str) -> list[str]:
    """Sentences: where the first rule needs more steps, where fewer, and in how many settings neither is shown."""
    total = len(compared)
    sentences = []
    for call, text in ((1, more), (-1, fewer)):
        number = sum(found.call == call for _, found in compared)
        if number:
            sentences.append(f"{text} in {number} of {total} {unit}: {_called(compared, call)}.")
        else:
            sentences.append(f"{text} in none of {total} {unit}.")
    small = "; ".join(f"{setting.label} ({found.words()})" for setting, found in compared if found.small)
    if small:
        sentences.append(f"Intervals that leave out 1 without lying beyond that margin: {small}.")
    rest = [setting.label for setting, found in compared if not found.call and not found.small]
    if rest:
        sentences.append(
            f"No difference is shown in {f'any of the {total}' if len(rest) == total else '; '.join(rest)}."
        )
    return sentences


def _fewest(cells: Cells) -> str:
    """Where SGD with momentum needs the fewest steps of SGD, AdamW and Muon."""
    found = []
    for setting in settings(cells.quick):
        if _has(setting, "sgd-momentum", "adamw", "muon"):
            against = [
                compare(cells, setting, "sgd-momentum", other, setting.targets[0]) for other in ("adamw", "muon")
            ]
            if all(each.call < 0 for each in against):
                found.append(setting.label)
    if not found:
        return "Nowhere is SGD with momentum shown to need the fewest steps of the three."
    return f"SGD with momentum needs the fewest steps of the three in {'; '.join(found)}."


def _by_exponent(cells: Cells) -> str:
    """The ratio of AdamW to Muon on linear regression, over the spectrum's exponent, by batch."""
    found: dict[str, list[str]] = {}
    for setting, compared in _compared(cells, "adamw", "muon"):
        family, *parts = setting.label.split(", ")
        if family == "linear regression":
            found.setdefault(parts[-1], []).append(compared.words() or "unknown")
    ratios = "; ".join(f"{', '.join(values)} at {batch}" for batch, values in found.items() if len(values) > 1)
    return f"AdamW's steps over Muon's on linear regression at exponents 0, 1 and 2: {ratios}." if ratios else ""


def _turned(cells: Cells) -> str:
    """What a turn of the coordinates does to AdamW."""
    present = {setting.workload.name: setting for setting in settings(cells.quick)}
    parts = []
    for name, setting in present.items():
        aligned = present.get(f"{name}-aligned")
        if aligned is None:
            continue
        turned, along = (_steps(cells, each, "adamw", setting.targets[0]) for each in (setting, aligned))
        found = compare_steps(turned, along, setting.budgets.grid())
        if found.call <= 0 or mean_steps(along) is None:
            continue
        against = mean_steps(_steps(cells, setting, "muon", setting.targets[0]))
        parts.append(
            f"{found.words()} times as many steps on the {setting.label}, as along the coordinates, where its "
            f"{steps_in_words(along, setting.budgets.grid())} steps stand against Muon's "
            + ("unknown" if against is None else f"{against:.1f}")
        )
    if not parts:
        return ""
    return (
        " SGD and Muon turn with the coordinates, AdamW does not: with turned axes it needs "
        f"{listed(parts)}. All the other regressions and quadratics here have turned axes."
    )


def _of_near_twins(against_exact: Sequence[tuple[Setting, Compared]]) -> str:
    """What to make of a difference between two rules whose updates hardly differ."""
    if not any(found.call for _, found in against_exact):
        return ""
    return (
        " Their updates hardly differ, so what is called here is more likely left open by a tuning on two seeds than "
        "a property of the factor; a ratio of that size between other rules may be as well."
    )


def _tuning_momentum(cells: Cells) -> str:
    """What the comparison would have said with Muon's momentum fixed."""
    worth = _compared(cells, FIXED.name, "muon")
    if not worth:
        return ""
    against = _compared(cells, "adamw", FIXED.name)
    tuned = [(setting, compare(cells, setting, "adamw", "muon", setting.targets[0])) for setting, _ in against]
    overturned = [setting.label for (setting, a), (_, b) in zip(against, tuned, strict=True) if a.call < 0 < b.call]
    more = _called(worth, 1)
    text = (
        f"Muon with momentum 0.95 and the rate alone tuned needs more steps than with both tuned in: {more}."
        if more
        else "Nowhere is Muon with momentum 0.95 shown to need more steps than with a tuned one."
    )
    if overturned:
        text += f" With that momentum AdamW would need fewer steps, not more, in {'; '.join(overturned)}."
    return text


def _edges(cells: Cells) -> str:
    """How many of all searches ended with their best point surrounded, and after how many trials."""
    interior, trials = [], []
    for setting in settings(cells.quick):
        for rule in setting.rules:
            readings = cells.value(**key_of(setting, rule))
            interior += [reading["interior"] for reading in readings]
            trials.append((rule.name, readings[-1]["trials"], len(readings)))
    means = []
    for name in dict.fromkeys(name for name, *_ in trials):
        found = [(spent, searches) for each, spent, searches in trials if each == name]
        means.append(f"{sum(a for a, _ in found) / sum(b for _, b in found):.1f} for {name}")
    return (
        f"Of the {len(interior)} searches, {sum(interior)} ended with their best point surrounded by worse ones, after "
        f"{listed(means)} trials on average."
    )


def answer(cells: Cells) -> str:
    """Where Muon wins, where not, and what the exact factor changes."""
    against_adamw = _compared(cells, "adamw", "muon")
    against_exact = _compared(cells, "muon-exact", "muon")
    parts = [
        "Steps to the target, rate and momentum tuned alike for all. Intervals are over seeds, with the tuned numbers "
        "as they are; since those come from coarse grids, a difference is called only where the whole interval lies "
        f"beyond a ratio of {CALLED_FROM:g}.",
        _by_exponent(cells),
        " ".join(_verdicts(against_adamw, "AdamW needs more steps than Muon", "AdamW needs fewer", "settings")),
        _fewest(cells) + _turned(cells),
        _tuning_momentum(cells),
        " ".join(_verdicts(against_exact, "The exact polar factor needs more steps than Newton-Schulz",
                           "It needs fewer", "settings")) + _of_near_twins(against_exact),
        _edges(cells),
        "Not shown: anything about time or larger models, data drawn with another seed, warm-ups and second-moment "
        "decays, which were not tuned, or numbers between those of the tuning's grids.",
    ]  # fmt: skip
    return "\n\n".join([" ".join(parts[:1]), *(f"* {part}" for part in parts[1:-1] if part), parts[-1]])


EXPERIMENT: Final = Experiment(
    name=NAME,
    title="One matrix: where Muon wins and where not",
    question="On problems in one matrix, how do condition number, batch and class balance decide between SGD with "
    "momentum, AdamW and Muon, and does Muon gain from the exact polar factor?",
    protocol=(
        "Linear regression (64 features with spectrum i^-a in turned axes, 32 outputs with noise of their own), the "
        "quadratic 1/2 tr(W'QW) of a 64 x 64 matrix, softmax regression of 32 classes, and a small MLP; no weight "
        "decay, shape factor `match_rms_adamw`, five Polar Express steps or the SVD.",
        "Budget to target: for every number of steps T on a grid of factor 1.41, rate (quarter decades) and momentum "
        "(halved distances to 1) are tuned on two seeds by the same number of trials for everyone, and by more while "
        "the best point is at an edge, with 5 % warm-up and a linear decay that ends at T.",
        "Read on ten other seeds (first weights and batches) as the exact gap to the optimum, a share of the starting "
        "gap; the steps of a seed are interpolated between the two T around the target.",
    ),
    run=run,
    figure=figure,
    tables=tables,
    answer=answer,
    change_our_mind="A finer grid or a search over warm-up, second-moment decay or Nesterov's look-ahead that moves a "
    "ratio across 1; the same table with optima that are further away along steep directions than along flat ones, or "
    "of low rank; the exact factor winning at sizes where momentum has many more small singular values.",
)
