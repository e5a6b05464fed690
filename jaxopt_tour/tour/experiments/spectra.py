"""How many directions do gradient, momentum, update and weights have? Their singular values through training."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_tour._trees import named_leaves
from jaxopt_tour._types import Array
from jaxopt_tour.linalg import decompositions
from jaxopt_tour.problems.workloads import Workload, fashion_mlp, small_gpt
from jaxopt_tour.routing.axes import MatrixAxes
from jaxopt_tour.routing.resolution import Routing, resolve
from jaxopt_tour.tour.laboratory.cells import Cells
from jaxopt_tour.tour.laboratory.comparison import direction, listed, loss_in_words, trials_in_words, tuned_in_words
from jaxopt_tour.tour.laboratory.experiment import Experiment, Table
from jaxopt_tour.tour.laboratory.observe import Moment, observe
from jaxopt_tour.tour.laboratory.protocol import tune
from jaxopt_tour.tour.laboratory.rules import ADAMW, MUON, SGD_MOMENTUM, rate_alone
from jaxopt_tour.tour.laboratory.runs import Rule, keys_of
from jaxopt_tour.tour.laboratory.singular import effective_rank, overlap, stable_rank, svd_entropy, top_share
from jaxopt_tour.tour.laboratory.statistics import Interval, in_words, mean, mean_difference, signed
from jaxopt_tour.tour.laboratory.tiny import tiny_workload

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Leading singular vectors whose subspace is followed from one observation to the next.
TOP: Final = 4
RULES: Final = (SGD_MOMENTUM, ADAMW, MUON)
TITLES: Final = {"sgd-momentum": "SGD-momentum", "adamw": "AdamW", "muon": "Muon"}
QUANTITIES: Final = ("gradient", "momentum", "update", "weights")


# --- the runs ---------------------------------------------------------------------------------------------------------


class Setting(NamedTuple):
    """A workload, how it is looked at, and how its matrices are grouped.

    Attributes:
        workload: () -> what is trained; made when the experiment runs.
        kinds: a part of the path name -> the kind of layer it stands for.
        steps: of a run.
        every: steps from one observation to the next.
        seeds: that are read.
        trials: of the search of every rule's rate.
    """

    workload: Callable[[], Workload]
    kinds: Mapping[str, str]
    steps: int
    every: int
    seeds: int
    trials: int


MLP_KINDS: Final = {"layers/0": "first layer", "layers/1": "hidden layer", "head": "head"}
GPT_KINDS: Final = {
    "query": "query, key, value", "key": "query, key, value", "value": "query, key, value", "out": "attention out",
    "gate": "feed-forward in", "up": "feed-forward in", "down": "feed-forward out", "head": "head",
}  # fmt: skip
FULL: Final = {
    "gpt": Setting(small_gpt, GPT_KINDS, 240, 24, 6, 7),
    "mlp": Setting(fashion_mlp, MLP_KINDS, 200, 20, 8, 7),
}
QUICK: Final = {"tiny": Setting(tiny_workload, {"kernel": "only layer"}, 8, 4, 2, 5)}
#: Matrices that AdamW moves in Muon's runs, too: told apart from the hidden layers.
HEAD: Final = "head"


def settings(cells: Cells) -> dict[str, Setting]:
    """The settings of these cells, by the workload's name."""
    return QUICK if cells.quick else FULL


class Singular(NamedTuple):
    """All singular values of a matrix, and the leading singular vectors of both sides."""

    values: Array | np.ndarray
    left: Array | np.ndarray
    right: Array | np.ndarray


def decompose(moment: Moment, routing: Routing) -> dict[str, dict[str, Singular]]:
    """The singular values of every quantity and matrix: hidden ones as the routing sees them, and heads."""
    weights = named_leaves(moment.params)
    views = matrix_views(moment.params, routing)
    trees = (moment.gradient, moment.momentum, moment.update, weights)
    by_shape: dict[tuple[int, ...], dict[tuple[str, str], Array]] = {}
    for quantity, tree in zip(QUANTITIES, trees, strict=True):
        for name, view in views.items():
            (piece,) = view.to_matrices(tree[name])
            by_shape.setdefault(piece.shape[1:], {})[quantity, name] = piece[0]
    found: dict[str, dict[str, Singular]] = {quantity: {} for quantity in QUANTITIES}
    for group in by_shape.values():
        svd = functools.partial(jnp.linalg.svd, full_matrices=False)
        u, s, vt = decompositions.decompose(svd, jnp.stack(list(group.values())))
        for i, (quantity, name) in enumerate(group):
            found[quantity][name] = Singular(s[i], u[i, :, :TOP], vt[i, :TOP].T)
    return found


@functools.cache
def decomposed_as_routed(workload: Workload) -> Callable[[Moment], dict[str, dict[str, Singular]]]:
    """`decompose` with the routing of a workload; cached, since another function would be compiled anew."""
    return functools.partial(decompose, routing=workload.routing)


def matrix_views(params: Any, routing: Routing) -> dict[str, MatrixAxes]:
    """The axes of hidden matrices and heads, by path name."""
    routes = resolve(routing, params)
    return {
        name: route.axes or MatrixAxes(0, 1)
        for name, route in routes.items()
        if route.role == "matrix" or route.role == "head"
    }


def kind_of(name: str, kinds: Mapping[str, str]) -> str:
    """The kind of layer of a path name."""
    return next(kind for part, kind in kinds.items() if f"/{part}/" in f"/{name}/")


def summarize(seen: Mapping[str, Mapping[str, Singular]], kinds: Mapping[str, str]) -> dict[str, Any]:
    """By quantity, measure and kind of layer: a number an observation, the mean over the layers of the kind.

    Ranks are shares of full rank. `overlap` is that of the leading subspaces with those of the observation before,
    the mean of both sides; the first is NaN.
    """
    found: dict[str, Any] = {}
    for quantity, matrices in seen.items():
        by_kind: dict[str, list[dict[str, list[float]]]] = {}
        for name, singular in matrices.items():
            by_kind.setdefault(kind_of(name, kinds), []).append(_of_matrix(Singular(*map(np.asarray, singular))))
        found[quantity] = {
            measure: {
                kind: [
                    _digits(statistics.fmean(values))
                    for values in zip(*(each[measure] for each in each_layer), strict=True)
                ]
                for kind, each_layer in by_kind.items()
            }
            for measure in ("effective_rank", "stable_rank", "top_share", "svd_entropy", "overlap")
        }
    return found


def condense(quantity: str, measures: Mapping[str, Any]) -> dict[str, Any]:
    """What a cell keeps of a quantity: the effective rank at every observation, and one number of every measure.

    That of the weights is their last, others are the mean over the observations (the first overlap left out).
    """

    def number(series: list[float]) -> float:
        known = [value for value in series if not math.isnan(value)]
        return _digits((known[-1] if quantity == "weights" else statistics.fmean(known)) if known else math.nan)

    return {
        "series": measures["effective_rank"],
        **{name: {kind: number(series) for kind, series in by_kind.items()} for name, by_kind in measures.items()},
    }


def _of_matrix(singular: Singular) -> dict[str, list[float]]:
    values, full = np.asarray(singular.values, np.float64), singular.values.shape[1]
    overlaps = [float("nan")] + [
        statistics.fmean(overlap(np.asarray(side[i - 1]), np.asarray(side[i])) for side in singular[1:])
        for i in range(1, len(values))
    ]
    return {
        "effective_rank": [effective_rank(s) / full for s in values],
        "stable_rank": [stable_rank(s) / full for s in values],
        "top_share": [top_share(s) for s in values],
        "svd_entropy": [svd_entropy(s) for s in values],
        "overlap": overlaps,
    }


def _digits(value: float) -> float:
    return float(f"{value:.4g}")


def run(cells: Cells) -> None:
    """Tune the rate of every rule, then look into the runs of the reading seeds."""
    for setting in settings(cells).values():
        workload = setting.workload()
        for rule in RULES:
            tuned = tuned_rate(cells, workload, rule, setting)
            for seed in range(setting.seeds):
                look_into(cells, workload, rule, tuned["numbers"], seed, setting)


def tuned_rate(cells: Cells, workload: Workload, rule: Rule, setting: Setting) -> dict[str, Any]:
    """The cell of a rule's tuned rate."""
    return tune(cells, workload, rate_alone(rule), setting.steps, trials=setting.trials, seeds=1 if cells.quick else 2)


def look_into(
    cells: Cells, workload: Workload, rule: Rule, numbers: Mapping[str, float], seed: int, setting: Setting
) -> dict[str, Any]:
    """The cell of a run that was looked into."""

    def compute() -> dict[str, Any]:
        seen = observe(workload, rule, numbers, seed, setting.steps, setting.every, decomposed_as_routed(workload))
        params = workload.init(keys_of(jnp.uint32(seed))[0])
        first = {
            name: [np.linalg.svd(np.asarray(view.to_matrices(named_leaves(params)[name])[0][0]), compute_uv=False)]
            for name, view in matrix_views(params, workload.routing).items()
        }
        start: dict[str, list[float]] = {}
        for name, (s,) in first.items():
            start.setdefault(kind_of(name, setting.kinds), []).append(effective_rank(s) / len(s))
        return {
            "step": [int(step) for step in seen.step],
            "final": float(seen.outcome.final),
            "start": {kind: _digits(statistics.fmean(values)) for kind, values in start.items()},
            "seen": {name: condense(name, found) for name, found in summarize(seen.seen, setting.kinds).items()},
        }

    key = {
        "what": "spectra", "workload": workload.name, "batch": workload.batch_text, "rule": rule.name,
        "steps": setting.steps, "every": setting.every, "numbers": dict(numbers), "seed": seed,
    }  # fmt: skip
    return cells.get(key, compute)


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
