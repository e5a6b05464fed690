"""How many directions do gradient, momentum, update and weights have? Their singular values through training."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import jax
import numpy as np

from jaxopt_tour._trees import named_leaves
from jaxopt_tour.tour.laboratory.cells import Cells
from jaxopt_tour.tour.laboratory.comparison import direction, listed, loss_in_words, trials_in_words, tuned_in_words
from jaxopt_tour.tour.laboratory.experiment import Experiment, Table
from jaxopt_tour.tour.laboratory.statistics import Interval, in_words, mean, mean_difference, signed

if TYPE_CHECKING:
    from matplotlib.figure import Figure
from jaxopt_tour.tour.experiments.spectra_runs import (
    HEAD,
    QUANTITIES,
    RULES,
    TITLES,
    TOP,
    Setting,
    kind_of,
    look_into,
    matrix_views,
    run,
    settings,
    tuned_rate,
)

# --- what is read from the cells --------------------------------------------------------------------------------------


class View:
    """What one workload's cells say, by rule, quantity, measure and kind of layer.

    Attributes:
        setting: of the workload.
        workload: the workload.
        tuned: the cell of every rule's search.
        final: the loss of every rule by seed; None: it diverged.
        runs: the cells of the runs, by rule; rules that diverged on a seed are left out.
        diverged: their names.
    """

    def __init__(self, cells: Cells, setting: Setting) -> None:
        self.setting, self.workload = setting, setting.workload()
        self.tuned = {rule.name: tuned_rate(cells, self.workload, rule, setting) for rule in RULES}
        found = {
            rule.name: [
                look_into(cells, self.workload, rule, self.tuned[rule.name]["numbers"], seed, setting)
                for seed in range(setting.seeds)
            ]
            for rule in RULES
        }
        self.final = {rule: [run["final"] for run in runs] for rule, runs in found.items()}
        self.runs = {rule: runs for rule, runs in found.items() if all(run["final"] is not None for run in runs)}
        self.diverged = [rule for rule in found if rule not in self.runs]
        self.steps: list[int] = next(iter(found.values()))[0]["step"]
        self.kinds = list(dict.fromkeys(setting.kinds.values()))
        self.hidden = [kind for kind in self.kinds if kind != HEAD]

    def series(self, rule: str, quantity: str) -> np.ndarray:
        """The effective rank, (seeds, observations), the mean over the kinds of hidden layers."""
        runs = [[run["seen"][quantity]["series"][kind] for kind in self.hidden] for run in self.runs[rule]]
        return np.mean(np.array(runs, np.float64), axis=1)

    def by_seed(self, rule: str, quantity: str, measure: str, kinds: list[str] | None = None) -> list[float]:
        """A number a seed, the mean over the kinds of hidden layers unless others are asked for."""
        found = [run["seen"][quantity][measure] for run in self.runs[rule]]
        return [statistics.fmean(each[kind] for kind in (self.hidden if kinds is None else kinds)) for each in found]

    def at_start(self, rule: str) -> list[float]:
        """The effective rank of the first weights, by seed; none where a layer begins with zeros."""
        found = [[run["start"][kind] for kind in self.hidden] for run in self.runs[rule]]
        return [] if any(None in each for each in found) else [statistics.fmean(each) for each in found]

    def interval(self, rule: str, quantity: str, measure: str, kinds: list[str] | None = None) -> Interval:
        """The mean over the seeds."""
        return mean(self.by_seed(rule, quantity, measure, kinds))

    def difference(self, first: str, second: str, quantity: str, measure: str) -> Interval:
        """First rule minus second, seed by seed."""
        return mean_difference(self.by_seed(first, quantity, measure), self.by_seed(second, quantity, measure))

    def chance(self) -> float:
        """The overlap of subspaces drawn at random, the mean over hidden layers and both sides."""
        shapes = jax.eval_shape(self.workload.init, jax.random.key(0))
        found: dict[str, list[float]] = {}
        for name, view in matrix_views(shapes, self.workload.routing).items():
            ((_, m, n),) = view.matrix_shapes(named_leaves(shapes)[name].shape)
            top = min(TOP, m, n)
            found.setdefault(kind_of(name, self.setting.kinds), []).append((top / m + top / n) / 2)
        return statistics.fmean(statistics.fmean(found[kind]) for kind in self.hidden)


def views(cells: Cells) -> list[View]:
    """One view a workload."""
    return [View(cells, setting) for setting in settings(cells).values()]


def tables(cells: Cells) -> list[Table]:
    """The measures, the effective rank by kind of layer, and the trials."""
    found: list[Table] = []
    for view in views(cells):
        found += [_measures(view), _by_kind(view)]
    return [*found, _trials(views(cells))]


def _measures(view: View) -> Table:
    rows = [
        [
            f"{quantity}, {TITLES[rule]}",
            in_words(view.interval(rule, quantity, "effective_rank")),
            *(
                f"{view.interval(rule, quantity, measure).value:.3f}"
                for measure in ("stable_rank", "top_share", "svd_entropy")
            ),
            in_words(view.interval(rule, quantity, "overlap")),
        ]
        for quantity in QUANTITIES
        for rule in view.runs
    ]
    return Table(
        f"{view.workload.title}: hidden layers, the mean over kinds of layers, {view.setting.seeds} seeds and the run "
        f"(weights: at its end). Ranks are shares of full rank. Overlap: of the leading {TOP} singular vectors' "
        f"subspaces with those {view.setting.every} steps before, mean squared cosine of both sides; drawn at random, "
        f"{view.chance():.2f}. Where all singular values are nearly equal, as in Muon's updates, the leading ones are "
        "not distinguished, and overlap says little. Brackets: 95 % over seeds.",
        ["quantity, optimizer", "effective rank", "stable rank", "top share", "SVD entropy", "overlap"],
        rows,
    )


def _by_kind(view: View) -> Table:
    rows = [
        [
            f"{quantity}, {TITLES[rule]}",
            *(in_words(view.interval(rule, quantity, "effective_rank", [kind])) for kind in view.kinds),
        ]
        for quantity in QUANTITIES
        for rule in view.runs
    ]
    return Table(
        f"{view.workload.title}: effective rank as a share of full rank, by kind of layer. "
        "Heads are AdamW's in Muon's runs, too.",
        ["quantity, optimizer", *view.kinds],
        rows,
    )


def _trials(all_views: list[View]) -> Table:
    rows = []
    for view in all_views:
        for rule, tuned in view.tuned.items():
            best = tuned_in_words(tuned)
            rows.append([
                f"{view.workload.name}, {TITLES[rule]}",
                best,
                loss_in_words(view.final[rule]),
                str(tuned["trials"]),
                trials_in_words(tuned["tried"]),
            ])  # fmt: skip
    return Table(
        "The runs that were looked into, and all trials of their rates (rate: held-out cross-entropy on tuning seeds).",
        ["workload, optimizer", "tuned rate", "final loss on reading seeds", "trials", "tried"],
        rows,
    )


def answer(cells: Cells) -> str:
    """What the intervals allow, a paragraph a workload."""
    found = [" ".join(_in_workload(view)) for view in views(cells)]
    found.append(
        "Each interval is 95 % on its own, from few seeds of small models in short runs on one machine; every "
        "optimizer is looked at where its tuned rate took it, with momentum and decay at their defaults. Which of "
        "these spectra is better for training is not shown."
    )
    return "\n\n".join(found)


def _in_workload(view: View) -> list[str]:
    rules = list(view.runs)
    if not rules:
        return [f"{view.workload.title}: every optimizer diverged on some seed, and nothing is shown."]
    found = [f"{view.workload.title}, hidden layers, ranks as shares of full rank and averaged over the run:"]
    if view.diverged:
        found.append(f"Left out, because they diverged on some seed: {listed(TITLES[rule] for rule in view.diverged)}.")
    for quantity in ("gradient", "update"):
        ranks = listed(f"{TITLES[rule]} {in_words(view.interval(rule, quantity, 'effective_rank'))}" for rule in rules)
        found.append(f"The effective rank of the {quantity} is {ranks}.")
    others = [other for other in ("adamw", "sgd-momentum") if "muon" in rules and other in rules]
    if others:
        for quantity, measure, words in (
            (
                "update",
                "effective_rank",
                "the update (orthogonalized: near 1 by construction) has an effective rank",
            ),
            ("gradient", "effective_rank", "the gradient has an effective rank"),
            ("momentum", "overlap", "the momentum's leading directions overlap with those before by an amount"),
        ):
            found.append(f"In Muon's runs {words} that is {_against(view, others, quantity, measure)}.")
    if "adamw" in others:
        found.append(_published(view))
    changes = [_since_start(view, rule) for rule in rules if view.at_start(rule)]
    if changes:
        found.append(f"From start to end the weights' effective rank {listed(changes)}.")
    found.append(_persistence(view))
    return found


def _against(view: View, others: Sequence[str], quantity: str, measure: str) -> str:
    def one(other: str) -> str:
        gap = view.difference("muon", other, quantity, measure)
        verdict = {1: "higher than", -1: "lower than", 0: "not shown to differ from"}[direction(gap)]
        return f"{verdict} {TITLES[other]}'s ({signed(gap)})"

    return listed(map(one, others))


def _published(view: View) -> str:
    gap = view.difference("muon", "adamw", "weights", "svd_entropy")
    verdict = {
        1: "is higher with Muon than with AdamW, the order published for a large language model",
        -1: "is lower with Muon than with AdamW, the opposite of the order published for a large language model",
        0: "is not shown to differ between Muon and AdamW; higher with Muon was published for a large language model",
    }[direction(gap)]
    return f"The SVD entropy of the weights at the end {verdict} ({signed(gap)})."


def _since_start(view: View, rule: str) -> str:
    change = mean_difference(view.by_seed(rule, "weights", "effective_rank"), view.at_start(rule))
    verdict = {1: "rises", -1: "falls", 0: "is not shown to change"}[direction(change)]
    return f"{verdict} with {TITLES[rule]} ({signed(change)})"


def _persistence(view: View) -> str:
    chance = view.chance()
    above: list[str] = []
    below: list[str] = []
    open_: list[str] = []
    for rule in view.runs:
        found = view.interval(rule, "gradient", "overlap")
        group = above if found.low > chance else below if found.high < chance else open_
        group.append(f"{TITLES[rule]} {in_words(found)}")
    parts = [
        f"{words} {listed(group)}"
        for words, group in (("more than chance for", above), ("less for", below), ("not shown to differ for", open_))
        if group
    ]
    return (
        f"The gradient's leading {TOP} directions overlap with those {view.setting.every} steps before, on another "
        f"batch ({chance:.2f} by chance): {'; '.join(parts)}."
    )


# --- the picture ------------------------------------------------------------------------------------------------------


def figure(cells: Cells) -> Figure:
    """The effective rank of the four quantities through training, on the first workload."""
    from matplotlib.figure import Figure

    from jaxopt_tour.tour import plots

    view = views(cells)[0]
    drawn = Figure(figsize=(10.5, 7.2), layout="constrained")
    axes = drawn.subplots(2, 2, sharex=True, sharey=True)
    for ax, quantity in zip(axes.flat, QUANTITIES, strict=True):
        for rule in view.runs:
            series, style = view.series(rule, quantity), plots.line(rule)
            ax.plot(view.steps, series.mean(axis=0), label=TITLES[rule], linewidth=1.8, **style)
            ax.fill_between(view.steps, series.min(axis=0), series.max(axis=0), color=style["color"], alpha=0.15, lw=0)
        ax.set_title(quantity if quantity != "update" else "update, decay of weights included")
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
        ax.set(ylim=(0, 1.03))
    for ax in axes[1]:
        ax.set_xlabel("training step")
    for ax in axes[:, 0]:
        ax.set_ylabel("effective rank / full rank")
    drawn.axes[0].legend(frameon=False)
    drawn.suptitle(
        f"{view.workload.title}: hidden layers, mean and range of {view.setting.seeds} seeds", fontsize="medium"
    )
    return drawn


EXPERIMENT: Final = Experiment(
    name="spectra",
    title="Spectra of gradients, momenta, updates and weights",
    question=(
        "How many directions do gradients, momenta, updates and weights have through training, how steady are the "
        "leading ones, and does the optimizer make a difference?"
    ),
    protocol=(
        "SGD with momentum, AdamW and Muon train the character GPT and the MLP with linear decay of the rate; the rate "
        "is tuned for each by the same number of trials on tuning seeds, and by more where the best lies at an edge; "
        "momentum (0.9) and weight decay are not tuned.",
        "On reading seeds, ten times a run, gradient, momentum, update and weights of every hidden matrix and head are "
        "decomposed. Effective rank: exp of the entropy of s_i / sum s (Roy & Vetterli 2007). Stable rank: "
        "sum s^2 / s_1^2. Top share: s_1 / sum s. SVD entropy: entropy of s_i^2 / sum s^2, over log n (Liu et al. "
        "2025).",
        "Rules share first parameters and batches seed by seed; differences are paired, with 95 % intervals.",
    ),
    run=run,
    figure=figure,
    tables=tables,
    answer=answer,
    change_our_mind=(
        "Other orders of the optimizers with tuned momentum and decay, in longer runs, at larger width, or with larger "
        "batches, whose gradients have less noise of full rank in them."
    ),
)
