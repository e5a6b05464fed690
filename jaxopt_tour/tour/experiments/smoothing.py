"""How averaging gradients turns the step: angles between gradient, momentum, step and the step before, layer by layer.

What the averaging alone does is known. Were the gradients of different steps orthogonal and of one size, their average
`m = sum_k (1 - beta) beta^k g_(t-k)` would have, after many steps, the cosine `sqrt(1 - beta^2)` with the newest of
them and `beta` with itself one step before. Nesterov's look-ahead, which Muon has, weighs the newest gradient more
and turns further. Where a measured angle is smaller, gradients agree from step to step; where it is larger, they oppose
each other, or the rule turns the average itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from jaxopt_tour.tour import plots
from jaxopt_tour.tour.laboratory.cells import Cells
from jaxopt_tour.tour.laboratory.comparison import direction, listed, tuned_in_words
from jaxopt_tour.tour.laboratory.experiment import Experiment, Table
from jaxopt_tour.tour.laboratory.rules import SGD_MOMENTUM
from jaxopt_tour.tour.laboratory.runs import Rule
from jaxopt_tour.tour.laboratory.statistics import Interval, in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
from jaxopt_tour.tour.experiments.smoothing_runs import (
    EVERYTHING,
    MUON,
    PAIRS,
    TITLES,
    Problem,
    angles,
    expected,
    expected_late,
    late,
    problems,
    run,
    tuned,
)

# --- what is told -----------------------------------------------------------------------------------------------------


def tables(cells: Cells) -> list[Table]:
    """A table a problem over all parameters, then one by layer."""
    found = []
    for problem in problems(cells.quick):
        rows = [_row(cells, problem, rule, beta) for rule in problem.rules for beta in problem.betas]
        looks_ahead = [False, True] if MUON in problem.rules else [False]
        rows += [_expected_row(problem, beta, nesterov) for nesterov in looks_ahead for beta in problem.betas]
        found.append(Table(
            f"{problem.workload.title}, all parameters as one vector: angles in degrees, mean over the second half of "
            f"{problem.steps} steps and {problem.seeds} seeds, with 95 % over seeds. Before: the step "
            "before. Rates tuned for each row.",
            ["rule, decay rate", "tuned rate", *PAIRS.values()],
            rows,
        ))  # fmt: skip
    for problem in problems(cells.quick):
        layers = [layer for layer in _layers(cells, problem) if layer != EVERYTHING]
        head = [f"{TITLES[rule.name]}: {PAIRS[pair]}" for rule in problem.rules for pair in BY_LAYER]
        found.append(Table(
            f"{problem.workload.title}, matrix by matrix, decay rate 0.9: the same means.",
            ["matrix", *head],
            [[f"`{layer}`", *_layer_row(cells, problem, layer)] for layer in layers],
        ))  # fmt: skip
    return found


#: The pairs that the table by layer has.
BY_LAYER: Final = ("gradient, step", "step, step before")


def _row(cells: Cells, problem: Problem, rule: Rule, beta: float) -> list[str]:
    found = tuned(cells, problem, rule, beta)
    number = tuned_in_words(found)
    values = [late(cells, problem, rule, beta, pair) for pair in PAIRS]
    return [f"{TITLES[rule.name]}, {beta:g}", number, *("diverged" if v is None else in_words(v, 1) for v in values)]


def _expected_row(problem: Problem, beta: float, nesterov: bool) -> list[str]:
    pairs = ("step, step before",) if nesterov else ("gradient, momentum", "step, step before")
    known = {pair: f"{expected_late(problem, pair, beta, nesterov):.1f}" for pair in pairs}
    title = f"orthogonal gradients{' with look-ahead' if nesterov else ''}, {beta:g}"
    return [title, "", *(known.get(pair, "") for pair in PAIRS)]


def _layers(cells: Cells, problem: Problem) -> list[str]:
    return list(angles(cells, problem, problem.rules[0], problem.betas[0])["late"])


def _layer_row(cells: Cells, problem: Problem, layer: str) -> list[str]:
    values = [late(cells, problem, rule, 0.9, pair, layer) for rule in problem.rules for pair in BY_LAYER]
    return ["diverged" if value is None else f"{value.value:.0f}" for value in values]


def answer(cells: Cells) -> str:
    """What averaging does to the step on each problem, against what orthogonal gradients would give."""
    sentences = []
    for problem in problems(cells.quick):
        sentences.append(f"{problem.workload.title}.")
        sentences += [_about_averaging(cells, problem, beta) for beta in problem.betas if beta > 0]
        sentences += [_about_turning(cells, problem, beta) for beta in problem.betas if beta > 0]
        sentences += _about_without(cells, problem) + _about_division(cells, problem) + _about_layers(cells, problem)
    sentences.append(
        "These are angles along tuned runs of two small models, in thousands of dimensions, where noise decides most "
        "of an angle, and intervals are those of three to five seeds; they do not say which angle is better."
        if not cells.quick
        else "A few steps of one small model."
    )
    return " ".join(sentences)


def _about_turning(cells: Cells, problem: Problem, beta: float) -> str:
    """How far a step turns from the one before, against orthogonal gradients."""
    found = []
    for rule in problem.rules:
        apart = expected_late(problem, "step, step before", beta, rule is MUON)
        turned = late(cells, problem, rule, beta, "step, step before")
        found.append(f"{TITLES[rule.name]} {_against(turned, apart)}")
    text = f"With decay rate {beta:g} a step turns from the one before by: {listed(found)}"
    return (
        f"{text}, the last looking ahead but for the parameters of its Adam." if MUON in problem.rules else f"{text}."
    )


def _about_averaging(cells: Cells, problem: Problem, beta: float) -> str:
    """How far the momentum is from the newest gradient, against orthogonal gradients."""
    apart = expected_late(problem, "gradient, momentum", beta)
    found = [
        f"{TITLES[rule.name]} {_against(late(cells, problem, rule, beta, 'gradient, momentum'), apart)}"
        for rule in problem.rules
    ]
    return f"With decay rate {beta:g} gradient and momentum are apart by: {listed(found)}."


def _against(found: Interval | None, apart: float) -> str:
    if found is None:
        return "(its runs diverged)"
    words = {-1: "less than the", 0: "not shown to differ from the", 1: "more than the"}
    # To the digit that is printed: what the text says can be checked in the text.
    sign = direction(Interval(*(round(x, 1) - round(apart, 1) for x in found)))
    return f"{in_words(found, 1)}° ({words[sign]} {apart:.1f}° of orthogonal gradients)"


def _about_without(cells: Cells, problem: Problem) -> list[str]:
    """Whether gradients agree from step to step: the steps of SGD without momentum are the gradients."""
    if 0.0 not in problem.betas or SGD_MOMENTUM not in problem.rules:
        return []
    turned = late(cells, problem, SGD_MOMENTUM, 0.0, "step, step before")
    if turned is None:
        return []
    sign = direction(Interval(turned.value - 90, turned.low - 90, turned.high - 90))
    words = {-1: "gradients of neighboring steps agree", 1: "gradients of neighboring steps oppose each other"}
    return [
        f"Without momentum SGD's steps are {in_words(turned, 1)}° apart: "
        f"{words.get(sign, 'neither agreement nor opposition of neighboring gradients is shown')}."
    ]


def _about_division(cells: Cells, problem: Problem) -> list[str]:
    """How far Adam's division and Muon's orthogonalization turn the momentum."""
    found = []
    for rule in problem.rules:
        turned = late(cells, problem, rule, 0.9, "momentum, step") if 0.9 in problem.betas else None
        if rule.name != "sgd-momentum" and turned is not None:
            ahead = ", look-ahead included" if rule is MUON else ""
            found.append(f"{TITLES[rule.name]}'s by {in_words(turned, 1)}°{ahead}")
    return [f"The step leaves the momentum's direction (decay rate 0.9): {listed(found)}."] if found else []


def _about_layers(cells: Cells, problem: Problem) -> list[str]:
    """The matrices that turn least and most."""
    found = []
    for rule in problem.rules:
        turned = {
            layer: late(cells, problem, rule, 0.9, "step, step before", layer) for layer in _layers(cells, problem)
        }
        known = sorted((value.value, layer) for layer, value in turned.items() if value and layer != EVERYTHING)
        if len(known) > 1:
            (low, least), (high, most) = known[0], known[-1]
            found.append(f"{TITLES[rule.name]} {low:.0f}° (`{least}`) to {high:.0f}° (`{most}`)")
    return [f"Matrix by matrix a step turns by, from the least to the most: {listed(found)}."] if found else []


# --- the picture ------------------------------------------------------------------------------------------------------


def figure(cells: Cells) -> Figure:
    """Over the run: gradient to momentum, step to step before, momentum to step; and step to step before by matrix."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(11, 8.2), layout="constrained")
    axes = drawn.subplots(2, 2)
    problem, other = problems(cells.quick)[0], problems(cells.quick)[-1]
    _draw_over_time(axes[0, 0], cells, problem, "gradient, momentum", "Gradient to momentum")
    _draw_over_time(axes[0, 1], cells, problem, "step, step before", "Step to the step before")
    _draw_over_time(axes[1, 0], cells, problem, "momentum, step", "Momentum to step")
    _draw_layers(axes[1, 1], cells, other)
    handles = axes[0, 1].get_legend_handles_labels()
    drawn.legend(*handles, loc="outside upper center", ncols=len(problem.betas), frameon=False, fontsize=9)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
    return drawn


def _draw_over_time(ax: Axes, cells: Cells, problem: Problem, pair: str, title: str) -> None:
    """A line a rule and decay rate: the thicker, the longer its memory; gray what orthogonal gradients would give."""
    widths = dict(zip(problem.betas, (0.9, 1.7, 2.8), strict=False))
    for beta in problem.betas:
        if pair != "momentum, step":
            t = range(2, problem.steps + 1)
            ax.plot(t, [expected(pair, each, beta) for each in t], color="0.75", linewidth=widths[beta] + 2.5,
                    zorder=1, label=f"orthogonal gradients, {beta:g}")  # fmt: skip
        if pair == "step, step before" and MUON in problem.rules:
            ax.plot(t, [expected(pair, each, beta, True) for each in t], color="0.6", linewidth=widths[beta],
                    linestyle=(0, (1, 1.5)), zorder=1, label=f"the same with look-ahead, {beta:g}")  # fmt: skip
        for rule in problem.rules:
            found = angles(cells, problem, rule, beta)
            values = [np.nan if x is None else x for x in found["over_time"][EVERYTHING][pair]]
            ax.plot(found["step"], values, label=f"{TITLES[rule.name]}, {beta:g}",
                    **{**plots.line(rule.name), "linewidth": widths[beta]})  # fmt: skip
    ax.axhline(90, color="0.5", linewidth=0.6)
    ax.set(xlabel="step", ylabel="degrees", title=f"{title}: {problem.workload.name.upper()}, all parameters")


def _draw_layers(ax: Axes, cells: Cells, problem: Problem) -> None:
    layers = [layer for layer in _layers(cells, problem) if layer != EVERYTHING]
    for place, rule in enumerate(problem.rules):
        for row, layer in enumerate(layers):
            found = late(cells, problem, rule, 0.9, "step, step before", layer)
            if found is not None:
                y, color = row + 0.22 * (place - 1), plots.line(rule.name)["color"]
                ax.plot([found.low, found.high], [y, y], color=color, linewidth=1.6)
                ax.plot(found.value, y, "o^s"[place], color=color, markersize=4)
    ax.axvline(expected_late(problem, "step, step before", 0.9), color="0.75", linewidth=4.2, zorder=0)
    if MUON in problem.rules:
        ahead = expected_late(problem, "step, step before", 0.9, True)
        ax.axvline(ahead, color="0.6", linewidth=1.7, linestyle=(0, (1, 1.5)), zorder=0)
    ax.set_yticks(range(len(layers)), [layer.replace("/kernel", "").replace("blocks/", "") for layer in layers])
    ax.tick_params(axis="y", labelsize=8)
    ax.set(ylim=(len(layers) - 0.4, -0.6), xlabel="degrees, second half of the run, 95 %")
    ax.set_title(f"Step to the step before: {problem.workload.name.upper()}, matrices, decay rate 0.9")


EXPERIMENT: Final = Experiment(
    name="smoothing",
    title="How averaging turns the step",
    question=(
        "How far are gradient, momentum, step and the step before from each other during training, layer by layer, and "
        "how much of that does averaging alone explain?"
    ),
    protocol=(
        "SGD with momentum (as an average), Adam (b2 = 0.95) and Muon (with Nesterov's look-ahead; embeddings, head "
        "and vectors by Adam, without), with decay rates 0, 0.9 and 0.99 of the momentum, train an MLP on "
        "Fashion-MNIST, and with 0.9 and 0.99 a character GPT; no weight decay.",
        "The rate is tuned for each rule, decay rate and model by the same number of trials on tuning seeds, and by "
        "more where the best lies at an edge.",
        "On other seeds, inside the compiled run, angles are taken every few steps, for every matrix and for all "
        "parameters as one vector, and compared with what the average of orthogonal gradients of one size would give.",
    ),
    run=run,
    figure=figure,
    tables=tables,
    answer=answer,
    change_our_mind=(
        "Angles that move toward or past those of orthogonal gradients at other batch sizes: a large batch, whose "
        "gradients have less noise, should bring them together, and a rate at the edge of stability should part them."
    ),
)
