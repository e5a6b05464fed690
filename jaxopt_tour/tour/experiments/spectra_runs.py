"""What the experiment spectra compares, and the cells of its runs."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxopt_tour._trees import named_leaves
from jaxopt_tour._types import Array
from jaxopt_tour.linalg import decompositions
from jaxopt_tour.problems.workloads import Workload, fashion_mlp, small_gpt
from jaxopt_tour.routing.axes import MatrixAxes
from jaxopt_tour.routing.resolution import Routing, resolve
from jaxopt_tour.tour.laboratory.cells import Cells
from jaxopt_tour.tour.laboratory.observe import Moment, observe
from jaxopt_tour.tour.laboratory.protocol import tune
from jaxopt_tour.tour.laboratory.rules import ADAMW, MUON, SGD_MOMENTUM, rate_alone
from jaxopt_tour.tour.laboratory.runs import Rule, keys_of
from jaxopt_tour.tour.laboratory.singular import effective_rank, overlap, stable_rank, svd_entropy, top_share
from jaxopt_tour.tour.laboratory.tiny import tiny_workload

if TYPE_CHECKING:
    pass

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
