"""Look into a training run while it runs: the same run as `jaxopt_tour.tour.laboratory.runs.train` makes, with a
measurement of the user's own every so many steps, in one compiled program.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_tour._trees import named_leaves
from jaxopt_tour._types import Array, Tree
from jaxopt_tour.problems.workloads import Workload
from jaxopt_tour.tour.laboratory.runs import (
    CURVE_POINTS,
    Numbers,
    Outcome,
    Rule,
    device_data,
    keys_of,
    rate_at,
    training_step,
)
from jaxopt_tour.tour.rollout import STATE_FIELDS


class Moment(NamedTuple):
    """One step of a run, as `Measure` sees it.

    Attributes:
        step: t, int32, counted from 1: the number of steps done once this one is.
        params: theta_(t-1), as the workload has them: where the gradient was taken.
        gradient: by path name, as are the following.
        momentum: m_t, the optimizer's average or sum of gradients (`jaxopt_tour.tour.rollout.STATE_FIELDS`); empty
            where it has none. Of an optimizer of several groups, every parameter has that of its own.
        second: v_t, its average or sum of squared gradients, without bias correction; only of those that have one.
        update: what the step adds to the parameters.
        previous_update: what the step before added; zeros at t = 1.
        batch: what the gradient was taken on.
        data: the workload's.
        key: for a measurement that is random; another one every time.
        numbers: of the rule.
    """

    step: Array
    params: Tree
    gradient: dict[str, Array]
    momentum: dict[str, Array]
    second: dict[str, Array]
    update: dict[str, Array]
    previous_update: dict[str, Array]
    batch: Any
    data: Any
    key: Array
    numbers: dict[str, Array]


#: What is looked at: arrays, the same shapes every time.
Measure = Callable[[Moment], Any]


class Observed(NamedTuple):
    """What was seen of a run, as NumPy arrays.

    Attributes:
        step: (observations,), the t of each.
        seen: the measured tree, with the observations as leading axis.
        outcome: of the run, as `train` gives it.
        params: at the end.
    """

    step: np.ndarray
    seen: Any
    outcome: Outcome
    params: Tree


def observe(
    workload: Workload, rule: Rule, numbers: Numbers, seed: int, steps: int, every: int, measure: Measure
) -> Observed:
    """Train once, and measure at steps `every, 2 every, ..., steps`.

    A second call with other numbers or another seed compiles nothing, as long as `measure` is the same function.

    Args:
        workload: what is trained.
        rule: the optimizer.
        numbers: those that differ from the rule's defaults.
        seed: decides the first parameters and the batches, the same ones as in `train`.
        steps: of the run.
        every: steps from one measurement to the next.
        measure: moment -> arrays.

    Raises:
        ValueError: `every` does not divide `steps`, or a number that the rule does not have.
    """
    if every < 1 or steps < 1 or steps % every:
        raise ValueError(f"every must be at least 1 and divide steps = {steps}, got {every}")
    unknown = sorted(set(numbers) - set(rule.defaults))
    if unknown:
        raise ValueError(f"numbers of {rule.name} must be among {', '.join(rule.defaults)}; got {unknown}")
    all_numbers = {name: jnp.float32(value) for name, value in {**rule.defaults, **numbers}.items()}
    program = _program(workload, rule.build, steps, every, measure)
    return Observed(*jax.tree.map(np.asarray, program(all_numbers, jnp.uint32(seed), device_data(workload))))


def of_state(state: Any, symbol: str) -> dict[str, Array]:
    """What an optimizer's state holds by a symbol of `jaxopt_tour.tour.rollout.STATE_FIELDS`, by path name.

    Where several parts of the state have it, as in Muon with AdamW for the rest, each gives its own parameters.
    """
    found: dict[str, Array] = {}
    for field in STATE_FIELDS[symbol]:
        for _, tree in optax.tree.get_all_with_path(state, field):
            found = {**named_leaves(tree), **found}
    return found


@functools.lru_cache(maxsize=16)
def _program(
    workload: Workload, build: Callable[..., optax.GradientTransformation], steps: int, every: int, measure: Measure
) -> Callable[..., tuple[Array, Any, Outcome, Tree]]:
    def run(numbers: dict[str, Array], seed: Array, data: Any) -> tuple[Array, Any, Outcome, Tree]:
        first, batches = keys_of(seed)
        params = workload.init(first)
        tx = build(lambda count: rate_at(count, jnp.int32(steps), numbers), numbers, workload)

        step = training_step(workload, tx, data, batches, steps)

        def step_with_update(count: Array, carry: Any) -> Any:
            """The same, with the update carried on for the next step to see."""
            run, happened = step(count, carry[0])
            return run, happened.update

        def observation(carry: Any, number: Array) -> tuple[Any, tuple[Array, Any]]:
            last = (number + 1) * every - 1
            before, previous_update = jax.lax.fori_loop(number * every, last, step_with_update, carry)
            after, happened = step(last, before)
            moment = Moment(
                step=last + 1,
                params=before[0],
                gradient=named_leaves(happened.gradient),
                momentum=of_state(after[1], "m"),
                second=of_state(after[1], "v"),
                update=named_leaves(happened.update),
                previous_update=named_leaves(previous_update),
                batch=happened.batch,
                data=data,
                key=jax.random.fold_in(jax.random.fold_in(batches, steps), last),
                numbers=numbers,
            )
            return (after, happened.update), (moment.step, measure(moment))

        start = params, tx.init(params), jnp.zeros((CURVE_POINTS, 2), jnp.float32)
        zeros = jax.tree.map(jnp.zeros_like, params)
        ((params, _, total), _), (at, seen) = jax.lax.scan(observation, (start, zeros), jnp.arange(steps // every))
        return at, seen, Outcome(workload.measure(params, data), total[:, 0] / total[:, 1]), params

    return jax.jit(run)
