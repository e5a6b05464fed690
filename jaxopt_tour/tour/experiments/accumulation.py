"""Muon as Shampoo without accumulation: how near are updates and losses as Shampoo averages less and less?

Shampoo preconditions a matrix by averages of `G G^T` and `G^T G`; without averaging, `(G G^T)^(-1/4) G
(G^T G)^(-1/4)` is the polar factor of G, which is what Muon steps along (Bernstein & Newhouse 2024, Old Optimizer, New
Norm, https://arxiv.org/abs/2409.20325). The second half of the experiment "variance-and-shampoo".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxopt_tour.tour.laboratory.cells import Cells
from jaxopt_tour.tour.laboratory.comparison import (
    by_direction,
    difference_in_words,
    direction,
    listed,
    loss_in_words,
    mean_loss,
    paired,
    tuned_in_words,
)
from jaxopt_tour.tour.laboratory.experiment import Table
from jaxopt_tour.tour.laboratory.rules import ADAMW, MUON
from jaxopt_tour.tour.laboratory.runs import Rule
from jaxopt_tour.tour.laboratory.statistics import Interval, in_words, mean, mean_difference, signed
from jaxopt_tour.tour.palette import HUES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
from jaxopt_tour.tour.experiments.accumulation_runs import (
    Against,
    compared,
    losses,
    plan,
    shampoo_rule,
    trained_rules,
    tuned_for,
)

# --- what is read from the cells --------------------------------------------------------------------------------------


def against(cells: Cells, part: str, place: int, name: str) -> list[float]:
    """A number a recorded seed of `compared`."""
    return [compared(cells, seed)[part][place][name] for seed in range(plan(cells).recorded)]


def loss_gap(cells: Cells, first: Rule, second: Rule) -> Interval | None:
    """First rule's loss minus the second's, seed by seed; None where one of them diverged."""
    return paired(losses(cells, first), losses(cells, second))


def tables(cells: Cells) -> list[Table]:
    """Shampoo's updates against the polar factor, and losses."""
    return [_by_decay(cells), _by_ridge(cells), _losses(cells)]


def _by_decay(cells: Cells) -> Table:
    rows = [
        [
            f"{decay:g}",
            *(in_words(mean(against(cells, "by_decay", i, name)), 3) for name in Against._fields),
            *(in_words(mean(against(cells, "by_gradient", i, name)), 3) for name in ("distance", "cosine")),
        ]
        for i, decay in enumerate(plan(cells).decays)
    ]
    return Table(
        f"Shampoo's update S against the exact polar factor O of the same matrix, on gradients recorded while Muon "
        f"trained ({plan(cells).matrices().title}; {plan(cells).recorded} seeds, hidden layers, second half of the "
        "run, eps 1e-6): distance |S - O| / |O|, cosine, size |S| / |O|, all in the Frobenius norm; then the same on "
        "the gradients themselves, without momentum.",
        ["decay", "distance", "cosine", "size", "distance, no momentum", "cosine, no momentum"],
        rows,
    )


def _by_ridge(cells: Cells) -> Table:
    rows = [
        [f"{eps:g}", *(in_words(mean(against(cells, "by_ridge", i, name)), 3) for name in Against._fields)]
        for i, eps in enumerate(plan(cells).ridges)
    ]
    return Table(
        "The same at decay 0, on momentum, by the ridge eps (relative to the trace; float32).",
        ["eps", "distance", "cosine", "size"],
        rows,
    )


def _losses(cells: Cells) -> Table:
    rows = []
    for rule in trained_rules(cells):
        gaps = [None if rule.name == other.name else loss_gap(cells, rule, other) for other in (MUON, ADAMW)]
        rows.append([
            rule.name,
            tuned_in_words(tuned_for(cells, rule)),
            loss_in_words(losses(cells, rule), 4),
            *(difference_in_words(gap, 4) for gap in gaps),
        ])  # fmt: skip
    now = plan(cells)
    return Table(
        f"{now.matrices().title}, {now.steps} steps, {now.seeds} seeds: {now.matrices().measured} at the tuned rate "
        f"and momentum ({now.trials} trials each, more from an edge), and the difference to Muon's and AdamW's, seed "
        "by seed. (edge): a neighbor of the best point was not tried.",
        ["rule", "rate, momentum", "loss", "minus Muon", "minus AdamW"],
        rows,
    )


def answer(cells: Cells) -> list[str]:
    """What the intervals allow, in sentences."""
    return [_of_distance(cells), _of_losses(cells)]


def _of_distance(cells: Cells) -> str:
    now = plan(cells)
    last = len(now.decays) - 1
    near, far = (against(cells, "by_decay", i, "distance") for i in (0, last))
    gap = mean_difference(far, near)
    verdict = {1: "nearer without averaging", -1: "nearer with averaging", 0: "no difference is shown"}[direction(gap)]
    ridges = [against(cells, "by_ridge", i, "distance") for i in (0, len(now.ridges) - 1)]
    change = {1: "grows", -1: "falls", 0: "is not shown to change"}[direction(mean_difference(ridges[1], ridges[0]))]
    return (
        f"Shampoo on Muon's momentum is {in_words(mean(near), 3)} away from the polar factor at decay "
        f"{now.decays[0]:g} and {in_words(mean(far), 3)} at decay {now.decays[last]:g}, relative to its length: "
        f"{verdict} ({signed(gap)}); their cosines are "
        f"{in_words(mean(against(cells, 'by_decay', 0, 'cosine')), 3)} and "
        f"{in_words(mean(against(cells, 'by_decay', last, 'cosine')), 3)}. At decay {now.decays[0]:g} the distance "
        f"{change} from {in_words(mean(ridges[0]), 3)} to {in_words(mean(ridges[1]), 3)} as the ridge eps goes from "
        f"{now.ridges[0]:g} to {now.ridges[-1]:g}."
    )


def _of_losses(cells: Cells) -> str:
    rules = [shampoo_rule(decay) for decay in plan(cells).trained]
    parts = []
    for other, title in ((MUON, "Muon"), (ADAMW, "AdamW"), (rules[0], "Shampoo without accumulation")):
        gaps = {
            f"Shampoo at decay {rule.defaults['b2']:g}": loss_gap(cells, rule, other)
            for rule in rules
            if rule.name != other.name
        }
        parts.append(by_direction(gaps, title, 4))
    parts.append(by_direction({"Muon": loss_gap(cells, MUON, ADAMW)}, "AdamW", 4))
    edges = [rule.name for rule in trained_rules(cells) if not tuned_for(cells, rule)["interior"]]
    if edges:
        parts.append(f"the trials did not surround the best point of {listed(edges)}, which may do better")
    return f"On the small MLP, with rate and momentum tuned: {'. '.join(part[0].upper() + part[1:] for part in parts)}."


# --- the picture ------------------------------------------------------------------------------------------------------


def draw_distance(ax: Axes, cells: Cells) -> None:
    """Distance to the polar factor, and cosine, by decay."""
    decays = plan(cells).decays
    for part, label, dashes in (("by_decay", "of Nesterov's momentum", "-"), ("by_gradient", "of the gradient", "--")):
        found = [mean(against(cells, part, i, "distance")) for i in range(len(decays))]
        ax.plot(range(len(decays)), [each.value for each in found], dashes, color=HUES["vermillion"][0], marker="o",
                markersize=4, label=f"distance, {label}")  # fmt: skip
        cosines = [mean(against(cells, part, i, "cosine")).value for i in range(len(decays))]
        ax.plot(range(len(decays)), cosines, dashes, color=HUES["gray"][0], marker="s", markersize=3,
                label=f"cosine, {label}")  # fmt: skip
    ax.set_xticks(range(len(decays)), [f"{decay:g}" for decay in decays])
    ax.set(ylim=(0, 1.05), xlabel="decay of Shampoo's averages", ylabel="distance / |O|, and cosine")
    ax.set_title("Shampoo's update and the polar factor O")
    ax.legend(frameon=False, fontsize=8)


def draw_losses(ax: Axes, cells: Cells) -> None:
    """Loss by decay, beside AdamW and Muon."""
    from jaxopt_tour.tour import plots

    trained = plan(cells).trained
    for rule in (ADAMW, MUON):
        found, style = mean_loss(losses(cells, rule)), plots.line(rule.name)
        if found is not None:
            ax.axhline(found.value, label=rule.name, **style)
            ax.axhspan(found.low, found.high, color=style["color"], alpha=0.12, linewidth=0)
    color = HUES["vermillion"][0]
    for place, decay in enumerate(trained):
        found = mean_loss(losses(cells, shampoo_rule(decay)))
        if found is not None:
            ax.plot([place] * 2, [found.low, found.high], color=color, linewidth=2)
            ax.plot(place, found.value, "o", color=color, label="shampoo" if place == 0 else None)
    ax.set_xticks(range(len(trained)), [f"{decay:g}" for decay in trained])
    ax.set(xlim=(-0.5, len(trained) - 0.5), xlabel="decay of Shampoo's averages")
    ax.set(ylabel=plan(cells).matrices().measured)
    ax.set_title(f"Loss, tuned, {plan(cells).seeds} seeds (95 %)")
    ax.legend(frameon=False, fontsize=8)
