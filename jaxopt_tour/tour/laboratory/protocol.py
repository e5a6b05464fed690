"""Budget to target: how many steps does an optimizer need, when every number of steps gets its own tuning?

For every rule and every number of steps T on a geometric grid, rate and momentum are tuned by the same search on tuning
seeds, with a schedule that ends at T. The tuned rule then runs on other seeds, and T goes up until all of them end at
or under the target. Where between two T a seed arrives, `steps_to` reads.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jax
import jax.numpy as jnp
import optax

from jaxopt_tour.problems.workloads import Workload, parameters
from jaxopt_tour.tour.laboratory.cells import Cells
from jaxopt_tour.tour.laboratory.runs import Rule, keys_of, rate_at, train, without_static
from jaxopt_tour.tour.laboratory.tuning import WIDEST, Axis, Point, search

#: Seeds that rates are tuned on count from here, so that no reading seed (0, 1, ...) is among them.
FIRST_TUNING_SEED: Final = 1000


@dataclass(frozen=True)
class Entrant:
    """A rule with the numbers that are tuned and their grids."""

    rule: Rule
    axes: tuple[Axis, ...]


@dataclass(frozen=True)
class Budgets:
    """How a budget is looked for.

    Attributes:
        first: the smallest number of steps.
        factor: between neighbors of the grid.
        most: the grid ends at or before this.
        trials: of every search, the same for all rules; where the best is at an edge, the search goes on.
        later_trials: of a search that starts where the one at the T before ended.
        tuning_seeds: how many.
        seeds: how many a budget is read on.
    """

    first: int
    factor: float = 2**0.5
    most: int = 4096
    trials: int = 14
    later_trials: int = 8
    tuning_seeds: int = 2
    seeds: int = 5

    def grid(self) -> list[int]:
        """The numbers of steps, ascending."""
        places = int(math.log(self.most / self.first) / math.log(self.factor) + 1e-9)
        return [round(self.first * self.factor**place) for place in range(places + 1)]


def tune(
    cells: Cells,
    workload: Workload,
    entrant: Entrant,
    steps: int,
    *,
    trials: int,
    seeds: int = 2,
    start: Point | None = None,
    widest: int = WIDEST,
) -> dict[str, Any]:
    """The best numbers of a rule at a number of steps, as a cell: the mean over the tuning seeds decides.

    `trials`, `start` and `widest` are those of `search`.

    Returns:
        The fields of `Tuned`, as JSON.
    """
    tuning_seeds = [FIRST_TUNING_SEED + i for i in range(seeds)]

    def losses(settings: Sequence[Mapping[str, float]]) -> list[float]:
        found = train(workload, entrant.rule, settings, tuning_seeds, steps)
        return [statistics.fmean(float(outcome.final) for outcome in outcomes) for outcomes in found]

    def compute() -> dict[str, Any]:
        return vars(search(losses, entrant.axes, trials, start=start, widest=widest))

    key = {
        "what": "tuned", "workload": workload.name, "batch": workload.batch_text, "rule": entrant.rule.name,
        "steps": steps, "axes": [[axis.name, axis.start, axis.factor] for axis in entrant.axes],
        "fixed": _others(entrant.rule, [axis.name for axis in entrant.axes]),
        "trials": trials, "seeds": tuning_seeds, "start": None if start is None else list(start),
        **({} if widest == WIDEST else {"widest": widest}),
    }  # fmt: skip
    return cells.get(key, compute)


def read(
    cells: Cells, workload: Workload, rule: Rule, steps: int, numbers: Mapping[str, float], seeds: int
) -> dict[str, Any]:
    """What a rule comes to with these numbers on the reading seeds 0, 1, ..., as a cell.

    Returns:
        `final`, one number a seed (None: diverged).
    """

    def compute() -> dict[str, Any]:
        (outcomes,) = train(workload, rule, [numbers], range(seeds), steps)
        return {"final": [float(outcome.final) for outcome in outcomes]}

    key = {
        "what": "read", "workload": workload.name, "batch": workload.batch_text, "rule": rule.name, "steps": steps,
        "numbers": dict(numbers), "fixed": _others(rule, numbers), "seeds": seeds,
    }  # fmt: skip
    return cells.get(key, compute)


def _others(rule: Rule, numbers: Iterable[str]) -> dict[str, float]:
    """The numbers of a rule that are as they always are."""
    return {name: value for name, value in rule.defaults.items() if name not in numbers}


def budget_to_target(
    cells: Cells, workload: Workload, entrant: Entrant, budgets: Budgets, starts: Mapping[int, Point] | None = None
) -> list[dict[str, Any]]:
    """Readings at ascending numbers of steps, until every seed has reached the target, or the grid ends.

    Args:
        cells: of the searches and readings.
        workload: with its target.
        entrant: the rule.
        budgets: the grid, the trials and the seeds.
        starts: where searches begin, by number of steps; those without begin where the one before ended.

    Returns:
        By number of steps: `steps`, the tuned `numbers`, their `point` on the grids, whether they are
        `interior`, the `trials` so far, and `final`, the value of every seed (None: diverged).
    """
    reached: set[int] = set()
    readings: list[dict[str, Any]] = []
    start, spent = None, 0
    for steps in budgets.grid():
        start = (starts or {}).get(steps, start)
        trials = budgets.trials if start is None else budgets.later_trials
        tuned = tune(cells, workload, entrant, steps, trials=trials, seeds=budgets.tuning_seeds, start=start)
        start, spent = tuple(tuned["point"]), spent + tuned["trials"]
        final = read(cells, workload, entrant.rule, steps, tuned["numbers"], budgets.seeds)["final"]
        reached |= {seed for seed, value in enumerate(final) if value is not None and value <= workload.target}
        found = {name: tuned[name] for name in ("numbers", "point", "interior")}
        readings.append({"steps": steps, **found, "trials": spent, "final": final})
        if len(reached) == budgets.seeds:
            break
    return readings


def sensitivity(
    cells: Cells, workload: Workload, entrant: Entrant, steps: int, numbers: Mapping[str, float], *, seeds: int = 2
) -> dict[str, Any]:
    """The loss over the learning rate, a quarter of a decade apart and a decade to either side of the tuned one.

    Returns:
        `rates`, `losses` (mean over the tuning seeds; None: diverged) and `decades`, how wide the range of rates
        around the best is whose loss is within 5 % of the best; `open` says whether it reaches the end of the sweep.
    """
    rates = [numbers["learning_rate"] * 10 ** (place / 4) for place in range(-4, 5)]

    def compute() -> dict[str, Any]:
        settings = [{**numbers, "learning_rate": each} for each in rates]
        tuning_seeds = [FIRST_TUNING_SEED + i for i in range(seeds)]
        found = train(workload, entrant.rule, settings, tuning_seeds, steps)
        losses = [statistics.fmean(float(outcome.final) for outcome in outcomes) for outcomes in found]
        return {"rates": rates, "losses": losses} | width_within(rates, losses)

    key = {
        "what": "sensitivity", "workload": workload.name, "batch": workload.batch_text, "rule": entrant.rule.name,
        "steps": steps, "numbers": dict(numbers), "fixed": _others(entrant.rule, numbers), "seeds": seeds,
    }  # fmt: skip
    return cells.get(key, compute)


def width_within(rates: Sequence[float], losses: Sequence[float], share: float = 0.05) -> dict[str, Any]:
    """How many decades of rates around the best one have a loss within a share of the best.

    Between two rates of the sweep the loss is taken to be linear in the logarithm of the rate.
    """
    values = [loss if math.isfinite(loss) else math.inf for loss in losses]
    best = min(range(len(values)), key=values.__getitem__)
    limit = values[best] + share * abs(values[best])

    def edge(direction: int) -> tuple[float, bool]:
        place = best
        while 0 <= place + direction < len(values) and values[place + direction] <= limit:
            place += direction
        beyond = place + direction
        if not 0 <= beyond < len(values):
            return math.log10(rates[place]), True
        rise = values[beyond] - values[place]
        part = (limit - values[place]) / rise if math.isfinite(rise) else 0.0
        return math.log10(rates[place]) + part * (math.log10(rates[beyond]) - math.log10(rates[place])), False

    (low, low_open), (high, high_open) = edge(-1), edge(1)
    return {"decades": high - low, "open": low_open or high_open}


def costs(cells: Cells, workload: Workload, rules: Sequence[Rule], *, rounds: int = 7, calls: int = 10) -> Any:
    """Seconds and memory of every rule on a workload, timed in turn, round after round, as a cell.

    Returns:
        By rule: `step` and `update` (median milliseconds of a training step, and of the optimizer's part alone),
        `rounds` (the step's, round by round), `share` (median ratio of the two) and
        `state_bytes_per_parameter`. A machine that does other work at the same time makes all of them slower; the
        ratios stay.
    """

    def compute() -> dict[str, Any]:
        data = jax.tree.map(jnp.asarray, workload.data())
        numbers = parameters(workload)
        timed: dict[tuple[str, str], Callable[[], Any]] = {}
        found: dict[str, Any] = {}
        for rule in rules:
            step, update, state_bytes = _one_step(workload, rule, data)
            timed[rule.name, "step"], timed[rule.name, "update"] = step, update
            found[rule.name] = {"state_bytes_per_parameter": state_bytes / numbers}
        milliseconds: dict[tuple[str, str], list[float]] = {name: [] for name in timed}
        for turn in range(-1, rounds):
            for name in timed if turn % 2 else reversed(timed):
                started = time.perf_counter()
                for _ in range(calls):
                    jax.block_until_ready(timed[name]())
                if turn >= 0:
                    milliseconds[name].append(1e3 * (time.perf_counter() - started) / calls)
        for rule in rules:
            step_ms, update_ms = milliseconds[rule.name, "step"], milliseconds[rule.name, "update"]
            found[rule.name] |= {
                "step": statistics.median(step_ms),
                "update": statistics.median(update_ms),
                "rounds": step_ms,
                "share": statistics.median(u / s for u, s in zip(update_ms, step_ms, strict=True)),
            }
        return found

    key = {
        "what": "costs", "workload": workload.name, "batch": workload.batch_text,
        "rules": [rule.name for rule in rules], "rounds": rounds, "calls": calls,
    }  # fmt: skip
    return cells.get(key, compute)


def _one_step(workload: Workload, rule: Rule, data: Any) -> tuple[Callable[[], Any], Callable[[], Any], int]:
    rule = without_static(rule)
    first, batches = keys_of(jnp.uint32(0))
    params = jax.jit(workload.init)(first)

    def optimizer(numbers: Mapping[str, Any]) -> optax.GradientTransformation:
        return rule.build(lambda count: rate_at(count, jnp.int32(100), numbers), numbers, workload)

    numbers = {name: jnp.float32(value) for name, value in rule.defaults.items()}
    state = jax.jit(lambda numbers, params: optimizer(numbers).init(params))(numbers, params)

    def update(numbers: Any, gradient: Any, state: Any, params: Any) -> Any:
        updates, state = optimizer(numbers).update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    def step(numbers: Any, state: Any, params: Any, data: Any) -> Any:
        gradient = jax.grad(workload.loss)(params, workload.draw(data, batches))
        return update(numbers, gradient, state, params)

    gradient = jax.jit(lambda params, data: jax.grad(workload.loss)(params, workload.draw(data, batches)))(params, data)
    compiled_step, compiled_update = jax.jit(step), jax.jit(update)
    return (
        lambda: compiled_step(numbers, state, params, data),
        lambda: compiled_update(numbers, gradient, state, params),
        sum(leaf.nbytes for leaf in jax.tree.leaves(state)),
    )
