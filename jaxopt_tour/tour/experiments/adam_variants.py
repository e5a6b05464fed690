"""Variants of Adam: LaProp, an eps that accumulates, any size of eps, scheduled eps and decay rates, handing
over to SGD and back, and the sign alone. Each is tuned as Adam is, and compared with it seed by seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from jaxopt_tour.tour.experiments.adam_rules import (
    handing_over,
    scheduled_adam,
)
from jaxopt_tour.tour.laboratory.cells import Cells
from jaxopt_tour.tour.laboratory.comparison import (
    by_direction,
    difference_in_words,
    listed,
    loss_in_words,
    mean_loss,
    trials_in_words,
)
from jaxopt_tour.tour.laboratory.experiment import Experiment, Table
from jaxopt_tour.tour.laboratory.statistics import Interval
from jaxopt_tour.tour.palette import HUES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
from jaxopt_tour.tour.experiments.adam_variants_runs import (
    ADAM,
    BY_TITLE,
    CONTROL,
    DEFAULTS,
    MOMENTUM,
    SGD,
    Problem,
    Variant,
    difference,
    one,
    problems,
    run,
)

# --- what is told -----------------------------------------------------------------------------------------------------


def tables(cells: Cells) -> list[Table]:
    """A table a problem, then every trial."""
    found = []
    for problem in problems(cells.quick):
        tuned_numbers = "rate and momentum are" if problem.tunes_momentum else "the rate is"
        found.append(Table(
            f"{problem.workload.title}: {problem.workload.measured} after {problem.steps} steps of "
            f"{problem.workload.batch_text}, {problem.seeds} seeds; {tuned_numbers} tuned by {problem.trials} trials "
            f"(more from an edge) on {problem.tuning_seeds} other seeds. Difference: to Adam, seed by seed. Brackets: "
            "95 % over seeds, paired. (edge): a neighbor of the tuned numbers was not tried.",
            ["variant", "tuned rate", "momentum", "loss", "difference"],
            [_row(cells, problem, variant) for variant in problem.variants],
        ))  # fmt: skip
    for problem in problems(cells.quick):
        found.append(Table(
            f"{problem.workload.title}: all trials, as {'rate, momentum' if problem.tunes_momentum else 'rate'}: loss "
            f"(mean over {problem.tuning_seeds} tuning seeds).",
            ["variant", "trials", "tried"],
            [_trials(variant, one(cells, problem, variant).tuned) for variant in problem.variants],
        ))  # fmt: skip
    return found


def _row(cells: Cells, problem: Problem, variant: Variant) -> list[str]:
    tuned, final = one(cells, problem, variant)
    numbers = tuned["numbers"]
    momentum_of_it = numbers.get("momentum", DEFAULTS[variant.build].get("momentum"))
    return [
        variant.title,
        f"{numbers['learning_rate']:.2g}{'' if tuned['interior'] else ' (edge)'}",
        f"{momentum_of_it:.3g}" if momentum_of_it is not None else "—",
        loss_in_words(final),
        "0" if variant is ADAM else difference_in_words(difference(cells, problem, variant)),
    ]


def _trials(variant: Variant, tuned: Mapping[str, Any]) -> list[str]:
    return [variant.title, str(tuned["trials"]), trials_in_words(tuned["tried"])]


def answer(cells: Cells) -> str:
    """Who differs from Adam on each problem, what eps does, then what is not shown."""
    sentences = []
    for problem in problems(cells.quick):
        others = [variant for variant in problem.variants if variant not in (ADAM, CONTROL)]
        differences = {_name(variant): difference(cells, problem, variant) for variant in others}
        sentences.append(f"{problem.workload.title}: {by_direction(differences, 'Adam')}.")
        sentences += _about_control(cells, problem, differences) + _about_hand_over(cells, problem)
        sentences += _about_eps(cells, problem)
    comparisons = sum(len(problem.variants) - 1 for problem in problems(cells.quick))
    sentences.append(
        f"With Adam alone these are {comparisons} comparisons at 95 % each, the controls among them: where there is no "
        "difference, one in twenty shows one all the same. They hold for these small models, these lengths of run and "
        "this tuning; nothing here was run at the scale of the papers."
    )
    return " ".join(sentences)


def _name(variant: Variant) -> str:
    """In italics, so that one with a comma stays one among others."""
    return f"*{variant.title}*"


def _about_control(cells: Cells, problem: Problem, differences: Mapping[str, Interval | None]) -> list[str]:
    """What another grid of rates alone does to Adam, and which differences are larger than that."""
    found = difference(cells, problem, CONTROL) if CONTROL in problem.variants else None
    if found is None:
        return []
    bound = max(abs(found.low), abs(found.high))
    beyond = [
        name for name, each in differences.items() if each is not None and (each.low > bound or each.high < -bound)
    ]
    return [
        "Adam itself, tuned on rates half a place of the grid beside, differs from Adam by "
        f"{difference_in_words(found)}; shown to be larger than the {bound:.3f} that such a change of the tuning may "
        f"do are the differences of {listed(beyond) if beyond else 'none'}."
    ]


def _about_hand_over(cells: Cells, problem: Problem) -> list[str]:
    handing = [variant for variant in problem.variants if variant.build is handing_over]
    if not handing:
        return []
    against_sgd = {_name(variant): difference(cells, problem, variant, SGD) for variant in handing}
    return [f"Handing over, against SGD with momentum alone: {by_direction(against_sgd, 'SGD')}."]


def _about_eps(cells: Cells, problem: Problem) -> list[str]:
    """How far apart the losses of the sizes of eps are, below and above Adam's usual range."""
    sizes = eps_sizes(problem)
    losses = {eps: mean_loss(one(cells, problem, variant).final) for eps, variant in sizes.items()}
    small = {eps: loss.value for eps, loss in losses.items() if loss is not None and eps <= 1e-6}
    if len(small) < 2:
        return []
    spread = max(small.values()) - min(small.values())
    return [f"With eps from {min(small):.0e} to {max(small):.0e} the mean losses lie within {spread:.3f} nats."]


def eps_sizes(problem: Problem) -> dict[float, Variant]:
    """The variants of constant eps, by its size, Adam among them."""
    constant = {
        dict(variant.numbers)["eps"]: variant
        for variant in problem.variants
        if variant.group == "eps" and dict(variant.numbers)["eps"] == dict(variant.numbers)["eps_end"]
    }
    return dict(sorted({**constant, DEFAULTS[scheduled_adam]["eps"]: ADAM}.items()))


# --- the picture ------------------------------------------------------------------------------------------------------

GROUP_HUES: Final = {
    "Adam": "sky", "eps": "blue", "decay rates": "ochre", "averages": "purple", "sign": "violet", "SGD": "green",
    "handing over": "gray",
}  # fmt: skip


def figure(cells: Cells) -> Figure:
    """All differences to Adam, the loss over eps, and over the rate for some of its sizes."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(11, 7.2), layout="constrained")
    grid = drawn.add_gridspec(2, 2, width_ratios=(1.35, 1))
    _draw_differences(drawn.add_subplot(grid[:, 0]), cells)
    problem = problems(cells.quick)[0]
    _draw_eps(drawn.add_subplot(grid[0, 1]), cells, problem)
    _draw_rates(drawn.add_subplot(grid[1, 1]), cells, problem)
    for ax in drawn.axes:
        ax.spines[["top", "right"]].set_visible(False)
    return drawn


def _draw_differences(ax: Axes, cells: Cells) -> None:
    first, *others = problems(cells.quick)
    rows = {variant.title: row for row, variant in enumerate(v for v in first.variants if v is not ADAM)}
    ax.axvline(0, color="0.6", linewidth=0.8)
    for place, problem in enumerate((first, *others)):
        for title, row in rows.items():
            variant = BY_TITLE[title]
            found = difference(cells, problem, variant) if variant in problem.variants else None
            if found is None:
                continue
            y, color = row + 0.28 * place, HUES[GROUP_HUES[variant.group]][0]
            ax.plot([found.low, found.high], [y, y], color=color, linewidth=1.8)
            ax.plot(found.value, y, "so"[place == 0], color=color, markersize=5,
                    markerfacecolor=color if place == 0 else "white")  # fmt: skip
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set(ylim=(len(rows) - 0.3, -0.7))
    ax.set(xlabel="loss minus Adam's (nats, 95 %)", title="Variants against Adam")
    for place, problem in enumerate((first, *others)):
        ax.plot([], [], "so"[place == 0], color="0.3", markerfacecolor="0.3" if place == 0 else "white",
                label=problem.workload.title)  # fmt: skip
    ax.legend(frameon=False, fontsize=8, loc="lower right")


def _draw_eps(ax: Axes, cells: Cells, problem: Problem) -> None:
    color = HUES["blue"][0]
    for eps, variant in eps_sizes(problem).items():
        found = Interval(0, 0, 0) if variant is ADAM else difference(cells, problem, variant)
        if found is not None:
            ax.plot([eps, eps], [found.low, found.high], color=color, linewidth=1.8)
            ax.plot(eps, found.value, "o", color=color, markersize=5)
    ax.axhline(0, color="0.6", linewidth=0.8)
    ax.set(xscale="log", xlabel="eps", ylabel="loss minus that of 1e-8 (nats, 95 %)")
    ax.set_title(f"Size of eps, {problem.workload.name.upper()}, tuned for each")


def _draw_rates(ax: Axes, cells: Cells, problem: Problem) -> None:
    """The trials at the momentum that the searches start with."""
    sizes = {eps: variant for eps, variant in eps_sizes(problem).items() if eps in (1e-8, 1e-4, 1e-3, 1e-2)}
    for (eps, variant), dash in zip(sizes.items(), ("-", (0, (6, 2)), (0, (2, 2)), (0, (6, 2, 1, 2))), strict=False):
        tried = one(cells, problem, variant).tuned["tried"]
        points = sorted(
            (numbers["learning_rate"], math.nan if loss is None else loss)
            for numbers, loss in tried
            if numbers.get("momentum", MOMENTUM) == MOMENTUM
        )
        ax.plot(*zip(*points, strict=True), color=HUES["blue"][0], linestyle=dash, marker="o", markersize=3,
                label=f"eps {eps:.0e}")  # fmt: skip
    ax.set(xscale="log", xlabel="learning rate", ylabel=problem.workload.measured)
    ax.set_title(f"The trials with momentum {MOMENTUM:g}, {problem.workload.name.upper()}")
    ax.legend(frameon=False, fontsize=8)


EXPERIMENT: Final = Experiment(
    name="adam-variants",
    title="Variants of Adam",
    question=(
        "Which change of Adam changes the loss: LaProp, an accumulating eps, its size, scheduled eps or decay "
        "rates, handing over to SGD, or the sign alone?"
    ),
    protocol=(
        "Every variant trains an MLP on Fashion-MNIST, and some train a character GPT; the rate falls linearly to zero "
        "after 5 % of warm-up.",
        "On the MLP rate and momentum (b1, or what its schedule falls from or rises to) are tuned for every variant, "
        "on the GPT the rate alone (b1 = 0.9), by the same number of trials for all, and by more where the best lies "
        "at an edge; SGD's rate and momentum in handing over are those tuned for SGD alone, its rate as a multiple of "
        "Adam's.",
        "The tuned numbers run on other seeds, the same ones for all; differences to Adam (b2 = 0.95, eps = 1e-8) are "
        "taken seed by seed.",
    ),
    run=run,
    figure=figure,
    tables=tables,
    answer=answer,
    change_our_mind=(
        "A variant whose interval leaves zero the other way with a finer tuning of all numbers, b2 and eps among them, "
        "or on problems where Adam's best eps or momentum is elsewhere: very large batches, long runs, other data."
    ),
)
