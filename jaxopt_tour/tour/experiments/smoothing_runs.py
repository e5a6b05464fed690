"""What the experiment smoothing compares, and the cells of its runs."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import jax.numpy as jnp
import numpy as np

import jaxopt_tour as jt
from jaxopt_tour._types import Array
from jaxopt_tour.problems.workloads import Workload, fashion_mlp, small_gpt
from jaxopt_tour.tour.laboratory.cells import Cells
from jaxopt_tour.tour.laboratory.observe import Moment, observe
from jaxopt_tour.tour.laboratory.protocol import tune
from jaxopt_tour.tour.laboratory.rules import ADAM, QUINTICS, SGD_MOMENTUM, rate_alone
from jaxopt_tour.tour.laboratory.runs import Rule
from jaxopt_tour.tour.laboratory.statistics import Interval, mean
from jaxopt_tour.tour.laboratory.tiny import tiny_workload

if TYPE_CHECKING:
    pass

# --- angles -----------------------------------------------------------------------------------------------------------

#: The pairs whose angles are taken; a step's direction is that of `-update` for gradient and momentum.
PAIRS: Final = {
    "gradient, momentum": "g, m",
    "momentum, step": "m, step",
    "gradient, step": "g, step",
    "step, step before": "step, before",
    "gradient, step before": "g, before",
}

#: All parameters as one vector.
EVERYTHING: Final = "everything"


def angle(a: Array, b: Array) -> Array:
    """The angle between two arrays as vectors, in degrees; NaN where one of them is zero."""
    # Of largest entry 1, so that squares of tiny entries do not underflow.
    a, b = (x.ravel() / jnp.max(jnp.abs(x)) for x in (a, b))
    return jnp.degrees(jnp.arccos(jnp.clip(a @ b / jnp.sqrt((a @ a) * (b @ b)), -1, 1)))


def angles_of(moment: Moment) -> dict[str, dict[str, Array]]:
    """Every pair's angle, for every matrix and for all parameters as one vector."""

    def parts(tree: Mapping[str, Array], sign: int) -> dict[str, Array]:
        # In the order of the gradient: the momentum of an optimizer of several groups has that of the groups.
        leaves = {name: sign * tree[name] for name in moment.gradient}
        matrices = {name: leaf for name, leaf in leaves.items() if leaf.ndim > 1}
        return {EVERYTHING: jnp.concatenate([leaf.ravel() for leaf in leaves.values()])} | matrices

    g, m = parts(moment.gradient, 1), parts(moment.momentum, 1)
    step, before = parts(moment.update, -1), parts(moment.previous_update, -1)
    return {
        layer: {
            "gradient, momentum": angle(g[layer], m[layer]),
            "momentum, step": angle(m[layer], step[layer]),
            "gradient, step": angle(g[layer], step[layer]),
            "step, step before": angle(step[layer], before[layer]),
            "gradient, step before": angle(g[layer], before[layer]),
        }
        for layer in g
    }


def weights(t: int, beta: float, nesterov: bool = False) -> np.ndarray:
    """How much of the gradients of steps t, t - 1, ..., 1 is in `m_t`, or in `beta m_t + (1 - beta) g_t`."""
    found = (1 - beta) * beta ** np.arange(float(t))
    return beta * found + (1 - beta) * (np.arange(t) == 0) if nesterov else found


def expected(pair: str, t: int, beta: float, nesterov: bool = False) -> float:
    """The angle at step t if the gradients of different steps were orthogonal and of one size, in degrees.

    With the `weights` w of step t and v of step t - 1, the cosines are:

    ```text
    cos(g_t, m_t)       = w_0 / |w|
    cos(u_t, u_(t-1))   = sum_k w_(k+1) v_k / (|w| |v|)
    ```

    for a step that is a multiple of u: of m, or of the look-ahead. After many steps they are `sqrt(1 - beta^2)` and,
    without the look-ahead, `beta`.

    Args:
        pair: "gradient, momentum" or "step, step before".
        t: from 2 on.
        beta: decay rate.
        nesterov: whether the step is one of the look-ahead.
    """
    now, before = weights(t, beta, nesterov), weights(t - 1, beta, nesterov)
    if pair == "gradient, momentum":
        cosine = weights(t, beta)[0] / np.linalg.norm(weights(t, beta))
    else:
        cosine = now[1:] @ before / (np.linalg.norm(now) * np.linalg.norm(before))
    return float(np.degrees(np.arccos(min(1.0, cosine))))


# --- what is compared -------------------------------------------------------------------------------------------------

#: The AdamW of embeddings, head and vectors has Muon's decay rate; no weight decay, which would turn the step.
MUON: Final = Rule(
    "muon",
    lambda schedule, numbers, workload: jt.muon(
        schedule,
        weight_decay=0.0,
        beta=numbers["momentum"],
        orthogonalizer=QUINTICS,
        rest=jt.adamw(schedule, b1=numbers["momentum"], b2=0.95, weight_decay=0.0),
        routing=workload.routing,
    ),
    {"learning_rate": 1e-2, "momentum": 0.9},
)
RULES: Final = (SGD_MOMENTUM, ADAM, MUON)
BETAS: Final = (0.0, 0.9, 0.99)
TITLES: Final = {"sgd-momentum": "SGD", "adam": "Adam", "muon": "Muon"}


class Problem(NamedTuple):
    """A workload and how much is computed on it."""

    workload: Workload
    rules: tuple[Rule, ...]
    betas: tuple[float, ...]
    steps: int
    every: int
    trials: int
    tuning_seeds: int
    seeds: int


@functools.cache
def problems(quick: bool) -> tuple[Problem, ...]:
    """The MLP, and the GPT without the run that has no momentum; or a few steps of a small model."""
    if quick:
        return (Problem(tiny_workload(), (SGD_MOMENTUM, ADAM), (0.0, 0.9), 8, 2, 5, 1, 2),)
    return (
        Problem(fashion_mlp(), RULES, BETAS, 200, 5, 7, 4, 5),
        Problem(small_gpt(), RULES, (0.9, 0.99), 96, 6, 7, 1, 3),
    )


def with_beta(rule: Rule, beta: float) -> Rule:
    """The rule with that decay rate of its momentum."""
    return replace(rule, name=f"{rule.name} {beta:g}", defaults={**rule.defaults, "momentum": beta})


def tuned(cells: Cells, problem: Problem, rule: Rule, beta: float) -> dict[str, Any]:
    """The tuned rate, as a cell."""
    entrant = rate_alone(with_beta(rule, beta))
    return tune(cells, problem.workload, entrant, problem.steps, trials=problem.trials, seeds=problem.tuning_seeds)


def angles(cells: Cells, problem: Problem, rule: Rule, beta: float) -> dict[str, Any]:
    """What was seen of the runs, as a cell.

    Returns:
        `step`: of every observation; `over_time`: by layer and pair, the mean over the seeds at each of them, in
        degrees; `late`: by layer and pair, the mean over the second half of the run, one number a seed.
    """
    numbers = tuned(cells, problem, rule, beta)["numbers"]

    def compute() -> dict[str, Any]:
        seen = [
            observe(problem.workload, with_beta(rule, beta), numbers, seed, problem.steps, problem.every, angles_of)
            for seed in range(problem.seeds)
        ]
        late = seen[0].step > problem.steps // 2
        by_seed = {
            layer: {pair: np.stack([each.seen[layer][pair] for each in seen]) for pair in PAIRS}
            for layer in seen[0].seen
        }
        return {
            "step": seen[0].step.tolist(),
            "over_time": _each(by_seed, lambda values: values.mean(axis=0).round(2).tolist()),
            "late": _each(by_seed, lambda values: values[:, late].mean(axis=1).round(3).tolist()),
        }

    key = {
        "what": "angles", "workload": problem.workload.name, "rule": rule.name, "momentum": beta,
        "steps": problem.steps, "every": problem.every, "numbers": numbers, "seeds": problem.seeds,
    }  # fmt: skip
    return cells.get(key, compute)


def _each(by_layer: Mapping[str, Mapping[str, np.ndarray]], function: Any) -> dict[str, dict[str, Any]]:
    return {layer: {pair: function(values) for pair, values in by_pair.items()} for layer, by_pair in by_layer.items()}


def run(cells: Cells) -> None:
    """Fill the cells, all decay rates of a rule one after the other."""
    for problem in problems(cells.quick):
        for rule in problem.rules:
            for beta in problem.betas:
                angles(cells, problem, rule, beta)


def late(
    cells: Cells, problem: Problem, rule: Rule, beta: float, pair: str, layer: str = EVERYTHING
) -> Interval | None:
    """The angle in the second half of the run, mean over seeds; None where a run diverged."""
    values = angles(cells, problem, rule, beta)["late"][layer][pair]
    return None if None in values else mean(values)


def expected_late(problem: Problem, pair: str, beta: float, nesterov: bool = False) -> float:
    """The mean of `expected` over the observations of the second half."""
    steps = range(problem.every, problem.steps + 1, problem.every)
    return float(np.mean([expected(pair, t, beta, nesterov) for t in steps if t > problem.steps // 2]))
