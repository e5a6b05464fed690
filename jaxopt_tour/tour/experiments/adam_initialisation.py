r"""Bias correction and the initial moments of Adam: two switches, four combinations.

The corrections of both averages together multiply the update by `rho(t) = sqrt(1 - b2^t) / (1 - b1^t)` (up to eps), a
learning-rate schedule that no one asked for. Starting the averages at the first gradient instead of zero is another
switch, and an unsigned manuscript of a thesis found it the more expensive one on a language model: Thesis Notepad of
Ideas and Progress etc, 23 June 2025, Table 4.2.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from jaxopt_tour.tour.laboratory.cells import Cells
from jaxopt_tour.tour.laboratory.comparison import (
    by_direction,
    difference_in_words,
    direction,
    loss_in_words,
    mean_loss,
    trials_in_words,
    tuned_in_words,
)
from jaxopt_tour.tour.laboratory.experiment import Experiment, Table
from jaxopt_tour.tour.laboratory.statistics import signed
from jaxopt_tour.tour.palette import HUES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
from jaxopt_tour.tour.experiments.adam_initialisation_runs import (
    COMBINATIONS,
    STANDARD,
    Setting,
    Switches,
    correction_factor,
    cost,
    one,
    part,
    plan,
    run,
)

# --- what is told -----------------------------------------------------------------------------------------------------

#: Validation perplexities of the manuscript's Table 4.2, with the spread that it prints.
REPORTED: Final = (
    ("zeros, corrected", "21.87 ± 0.11"),
    ("zeros, uncorrected", "21.93 ± 0.04"),
    ("first gradient, corrected", "22.83 ± 0.15"),
    ("first gradient, uncorrected", "22.64 ± 0.13"),
)


def tables(cells: Cells) -> list[Table]:
    """The 16 combinations, every trial, and what was published."""
    now = plan(cells.quick)
    rows, trials = [], []
    for setting in now.settings:
        for switches in COMBINATIONS:
            found = one(cells, setting, switches)
            tuned = found.tuned
            rows.append([
                f"{setting.title}: {switches.title}",
                f"{switches.first_step(setting.b1, setting.b2):.2f}",
                tuned_in_words(tuned),
                loss_in_words(found.final),
                _perplexity(found.final),
                "0" if switches == STANDARD else difference_in_words(cost(cells, setting, switches)),
            ])  # fmt: skip
            trials.append([f"{setting.title}: {switches.title}", str(tuned["trials"]), trials_in_words(tuned["tried"])])
    return [
        Table(
            f"{now.workload.title}, {now.steps} steps, {now.seeds} seeds, {now.workload.measured}. First step: size of "
            "the first update in learning rates, before warm-up. Perplexity: exp(loss). Difference: to zeros, "
            "corrected, seed by seed. Brackets: 95 % over seeds, paired.",
            ["setting", "first step", "tuned rate", "loss", "perplexity", "difference"],
            rows,
        ),
        Table(
            f"All trials, as rate: loss, the mean over {now.tuning_seeds} tuning seeds.",
            ["setting", "trials", "tried"],
            trials,
        ),
        Table(
            "Reported, not reproduced here: validation perplexity, Table 4.2 of a thesis manuscript (Thesis Notepad of "
            "Ideas and Progress etc, 23 June 2025, unsigned). Rate 0.008, decay rates (0.95, 0.95), weight decay 0.1, "
            "4 seeds; the manuscript does not say what ± is, nor how large the model of this table is.",
            ["moments", "perplexity"],
            [list(row) for row in REPORTED],
        ),
    ]


def _perplexity(final: list[float | None]) -> str:
    loss = mean_loss(final)
    if loss is None:
        return "—"
    value, low, high = map(math.exp, loss)
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def grid_resolution(cells: Cells) -> float | None:
    """What the nearer neighbor on the grid of rates costs on the tuning seeds, median over all searches."""
    costs = []
    for setting in plan(cells.quick).settings:
        for switches in COMBINATIONS:
            tuned = one(cells, setting, switches).tuned
            best = tuned["numbers"]["learning_rate"]
            for numbers, loss in tuned["tried"]:
                ratio = math.log10(numbers["learning_rate"] / best)
                if loss is not None and 0.2 < abs(ratio) < 0.3:  # a quarter of a decade
                    costs.append(loss - tuned["loss"])
    return float(np.median(costs)) if costs else None


def answer(cells: Cells) -> str:
    """One sentence a setting, then the reported finding, then what is not shown."""
    now = plan(cells.quick)
    sentences = [_counted(cells), *(_in_setting(cells, setting) for setting in now.settings)]
    sentences += [_finding(cells, setting) for setting in now.settings if (setting.b1, setting.b2) == (0.95, 0.95)]
    resolution = grid_resolution(cells)
    if resolution is not None:
        sentences.append(
            f"For scale: a rate one place of the grid (a factor of 1.8) beside the tuned one costs {resolution:.3f} "
            "nats in the median. The intervals do not contain that error; smaller differences may be the tuning's."
        )
    comparisons = len(now.settings) * (len(COMBINATIONS) - 1)
    sentences.append(
        f"These are {comparisons} comparisons at 95 % each, on one small model, one text, {now.steps} steps and "
        f"{now.seeds} seeds, without weight decay or clipping; nothing is shown for other scales or longer runs, in "
        "which the first steps are a smaller part."
    )
    return " ".join(sentences)


def _counted(cells: Cells) -> str:
    """How often each switch is shown to cost loss, over all settings."""
    found = {
        switches: [cost(cells, setting, switches) for setting in plan(cells.quick).settings]
        for switches in COMBINATIONS[1:]
    }
    uncorrected, first, both = (
        f"in {sum(each is not None and direction(each) > 0 for each in costs)} of {len(costs)}"
        for costs in found.values()
    )
    return (
        "Against Adam as published (zeros, corrected), starting from the first gradient is shown to cost loss "
        f"{first} settings with the correction and {both} without it, leaving out the correction alone {uncorrected}."
    )


def _in_setting(cells: Cells, setting: Setting) -> str:
    costs = {switches.title: cost(cells, setting, switches) for switches in COMBINATIONS[1:]}
    return f"Decay rates {setting.title}: {by_direction(costs, 'the standard')}."


def _finding(cells: Cells, setting: Setting) -> str:
    """Does the first gradient as start cost more than leaving out the correction, alone?"""
    found = cost(cells, setting, Switches(True, "first_gradient"), Switches(False, "zeros"))
    where = f"with decay rates {setting.title}"
    if found is None:
        return f"Whether the first gradient as start costs more than leaving out the correction is open {where}."
    text = (
        f"Starting from the first gradient (corrected) against leaving out the correction (from zeros) is "
        f"{signed(found)} nats {where}: "
    )
    return (
        text
        + {
            1: "the first gradient as start costs more, the reported order.",
            -1: "leaving out the correction costs more, the opposite of the reported order.",
            0: "neither is shown to cost more.",
        }[direction(found)]
    )


# --- the picture ------------------------------------------------------------------------------------------------------


def figure(cells: Cells) -> Figure:
    """The factor, where it rises, what the switches cost, and the loss over the rate."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(10.5, 7.6), layout="constrained")
    axes = drawn.subplots(2, 2)
    _draw_factor(axes[0, 0])
    _draw_region(axes[0, 1])
    _draw_costs(axes[1, 0], cells)
    _draw_rates(axes[1, 1], cells)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
    return drawn


#: Color by the decay rates of the upper panels.
_PAIRS: Final = {(0.9, 0.999): "blue", (0.9, 0.95): "green", (0.95, 0.95): "vermillion"}


def _draw_factor(ax: Axes) -> None:
    t = np.geomspace(1, 3000, 400)
    ax.axhline(1, color="0.6", linewidth=0.8)
    for (b1, b2), hue in _PAIRS.items():
        ax.plot(t, correction_factor(t, b1, b2), color=HUES[hue][0], label=f"({b1:g}, {b2:g})")
    ax.set(xscale="log", yscale="log", xlabel="step t", ylabel="ρ(t), factor on the update")
    ax.set(title="What bias correction multiplies an update by", yticks=(0.25, 0.5, 1, 2, 4))
    ax.set_yticklabels(["0.25", "0.5", "1", "2", "4"])
    ax.minorticks_off()
    ax.legend(title="(b1, b2)", frameon=False)


def _draw_region(ax: Axes) -> None:
    ages = np.geomspace(5e-4, 30, 500)
    first, second = np.meshgrid(ages, ages)
    ax.contourf(first, second, part(second) - 2 * part(first), levels=[0, 10], colors=["#dbe7f3"])
    ax.contour(first, second, part(second) - 2 * part(first), levels=[0], colors=["0.5"], linewidths=1)
    t = np.geomspace(1, 3000, 200)
    for (b1, b2), hue in _PAIRS.items():
        x, y = -t * math.log(b1), -t * math.log(b2)
        seen = (x <= 30) & (y <= 30)
        ax.plot(x[seen], y[seen], color=HUES[hue][0])
        ax.plot(x[0], y[0], "o", color=HUES[hue][0], markersize=5)
    ax.text(8, 0.012, "ρ rises", ha="center", color="0.3")
    ax.text(0.03, 3, "ρ falls", ha="left", color="0.3")
    ax.set(xscale="log", yscale="log", xlim=(1e-2, 30), ylim=(5e-4, 30))
    ax.set(xlabel="t / memory of m,  −t log b1", ylabel="t / memory of v,  −t log b2")
    ax.set_title("Where it rises; paths start at t = 1")


def _style(switches: Switches) -> dict[str, Any]:
    hue = "blue" if switches.initial_moments == "zeros" else "ochre"
    return {"color": HUES[hue][0], "linestyle": "-" if switches.bias_correction else (0, (5, 2))}


def _draw_costs(ax: Axes, cells: Cells) -> None:
    settings = plan(cells.quick).settings
    ax.axvline(0, color="0.6", linewidth=0.8)
    for row, setting in enumerate(settings):
        for place, switches in enumerate(COMBINATIONS[1:]):
            found = cost(cells, setting, switches)
            if found is None:
                continue
            y, style = row + 0.22 * (place - 1), _style(switches)
            ax.plot([found.low, found.high], [y, y], color=style["color"], linewidth=2)
            face = style["color"] if switches.bias_correction else "white"
            ax.plot(found.value, y, "o", color=style["color"], markerfacecolor=face, markersize=6,
                    label=switches.title if row == 0 else None)  # fmt: skip
    names = [setting.title.replace("), ", "),\n") for setting in settings]
    ax.set_yticks(range(len(settings)), names)
    ax.set(ylim=(len(settings) - 0.5, -0.5), xlabel="loss minus that of zeros, corrected (nats, 95 %)")
    ax.set_title("What the switches cost")
    ax.legend(frameon=False, fontsize=8)


def _draw_rates(ax: Axes, cells: Cells) -> None:
    setting = Setting(0.95, 0.95, 0.0)
    for switches in COMBINATIONS:
        tried = sorted(
            (numbers["learning_rate"], loss) for numbers, loss in one(cells, setting, switches).tuned["tried"]
        )
        points = [(each, math.nan if loss is None else loss) for each, loss in tried]
        ax.plot(*zip(*points, strict=True), marker="o", markersize=4, label=switches.title, **_style(switches))
    ax.set(xscale="log", xlabel="learning rate", ylabel=plan(cells.quick).workload.measured)
    ax.set_title(f"The trials, {setting.title}")
    ax.legend(frameon=False, fontsize=8)


EXPERIMENT: Final = Experiment(
    name="adam-initialisation",
    title="Adam's bias correction and its initial moments",
    question=(
        "What does it cost to leave out Adam's bias correction, to start its averages at the first gradient instead of "
        "zero, or both?"
    ),
    protocol=(
        "Four combinations of the two switches, at decay rates (0.9, 0.999) and (0.95, 0.95), with linear decay of the "
        "rate to zero, with 5 % of warm-up and without, train a character GPT.",
        "The learning rate is tuned for each of the 16 by the same number of trials, on tuning seeds, and by more "
        "where the best lies at the edge of what was tried; the decay rates are what is asked about and stay.",
        "The tuned rate runs on other seeds, the same ones for all: same first parameters, same batches; differences "
        "are taken seed by seed.",
    ),
    run=run,
    figure=figure,
    tables=tables,
    answer=answer,
    change_our_mind=(
        "The order of the combinations turning round with more seeds, a finer grid of rates, weight decay, clipping, "
        "or on a model and a run that are a hundred times larger."
    ),
)
