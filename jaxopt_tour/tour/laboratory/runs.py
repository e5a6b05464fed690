"""A training run as one compiled program of its numbers: rate, momentum, seed and length are arguments, not constants.

A `Rule` is an optimizer up to those numbers. `train` runs a rule on a workload for many settings and
seeds; whatever their number and the length of the runs, one program is compiled for a rule and a workload.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_tour._types import Array, Tree
from jaxopt_tour.problems.workloads import Workload

#: Points of a curve: the training loss, averaged over that many equal parts of a run.
CURVE_POINTS = 32

Numbers = Mapping[str, float]  # the numbers of a rule by name; "learning_rate" is always among them
Build = Callable[[optax.Schedule, Mapping[str, Any], Workload], optax.GradientTransformation]


@dataclass(frozen=True, eq=False)
class Rule:
    """An optimizer up to its numbers.

    Attributes:
        name: what tables and pictures call it.
        build: (schedule of the rate, numbers, workload) -> optimizer. The numbers are traced arrays.
        defaults: the numbers and the values they have where nothing else is asked for; `learning_rate` is the peak
            rate. Two names have a meaning to every rule: `warmup` is the part of a run in which the rate rises (0.05
            where it is missing), `floor` the part of the peak that the rate ends at (0).
        static: the numbers that `build` takes as plain ones; every value of theirs is a program of its own.
    """

    name: str
    build: Build
    defaults: Numbers = field(default_factory=dict)
    static: tuple[str, ...] = ()


class Outcome(NamedTuple):
    """What runs came to; the leading axis is that of the runs.

    Attributes:
        final: what the workload measures at the end; NaN or infinite where a run diverged.
        curve: (runs, CURVE_POINTS) training loss, averaged over equal parts of the run.
    """

    final: np.ndarray | Array
    curve: np.ndarray | Array


def rate_at(count: Array, steps: Array, numbers: Mapping[str, Array]) -> Array:
    """The learning rate: up linearly over the first part of the steps, then down linearly to its floor.

    `peak min((count + 1) / warmup, floor + (1 - floor) (steps - count) / (steps - warmup))`
    """
    peak, floor = numbers["learning_rate"], numbers.get("floor", 0.0)
    warmup = jnp.maximum(1, jnp.round(numbers.get("warmup", 0.05) * steps))
    left = jnp.clip((steps - count) / jnp.maximum(1, steps - warmup), 0, 1)
    return peak * jnp.minimum((count + 1) / warmup, floor + (1 - floor) * left)


def keys_of(seed: Array) -> tuple[Array, Array]:
    """The key of a seed's first parameters, and that of its batches: rules with one seed share both."""
    first, batches = jax.random.split(jax.random.key(seed))
    return first, batches


class Happened(NamedTuple):
    """What a training step made on its way."""

    batch: Any
    gradient: Tree
    update: Tree


def training_step(
    workload: Workload, tx: optax.GradientTransformation, data: Any, batches: Array, steps: Array | int
) -> Callable[[Array, Any], tuple[Any, Happened]]:
    """`(count, (params, state, total)) -> the same after the step, what happened`.

    `total` is (CURVE_POINTS, 2): of every part of the run the sum of training losses, and how many.
    """

    def step(count: Array, carry: Any) -> tuple[Any, Happened]:
        params, state, total = carry
        batch = workload.draw(data, jax.random.fold_in(batches, count))
        loss, gradient = jax.value_and_grad(workload.loss)(params, batch)
        update, state = tx.update(gradient, state, params)
        total = total.at[count * CURVE_POINTS // steps].add(jnp.stack([loss, jnp.ones_like(loss)]))
        return (optax.apply_updates(params, update), state, total), Happened(batch, gradient, update)

    return step


def train(
    workload: Workload, rule: Rule, settings: Sequence[Numbers], seeds: Sequence[int], steps: int
) -> list[list[Outcome]]:
    """Train with every setting on every seed.

    Args:
        workload: what is trained.
        rule: the optimizer.
        settings: the numbers that differ from the rule's defaults.
        seeds: each decides a run's first parameters and all its batches.
        steps: of every run; its schedule ends there.

    Returns:
        `outcome[setting][seed]`, an `Outcome` without leading axis.

    Raises:
        ValueError: a number that the rule does not have.
    """
    for each in settings:
        unknown = sorted(set(each) - set(rule.defaults))
        if unknown:
            raise ValueError(f"settings of {rule.name} must be among {', '.join(rule.defaults)}; got {unknown}")
    if rule.static:
        return [train(workload, without_static(rule, each), [{}], seeds, steps)[0] for each in settings]
    rows = [({**rule.defaults, **each}, seed) for each in settings for seed in seeds]
    width = workload.side_by_side
    padded = rows + [rows[-1]] * (-len(rows) % width)
    program, data = _program(workload, rule.build), device_data(workload)
    outcomes: list[Outcome] = []
    for start in range(0, len(padded), width):
        chunk = padded[start : start + width]
        numbers = {name: jnp.asarray([row[name] for row, _ in chunk], jnp.float32) for name in rule.defaults}
        found = program(numbers, jnp.asarray([seed for _, seed in chunk], jnp.uint32), jnp.int32(steps), data)
        final, curve = np.asarray(found.final, np.float64), np.asarray(found.curve, np.float64)
        outcomes += [Outcome(final[i], curve[i]) for i in range(width)]
    return [outcomes[i * len(seeds) : (i + 1) * len(seeds)] for i in range(len(settings))]


def without_static(rule: Rule, setting: Numbers | None = None) -> Rule:
    """The rule with a setting as its defaults, in which the static numbers are fixed."""
    if not rule.static:
        return rule
    numbers = {**rule.defaults, **(setting or {})}
    fixed = tuple((name, float(numbers.pop(name))) for name in rule.static)
    return Rule(rule.name, _with_fixed(rule.build, fixed), numbers)


@functools.lru_cache(maxsize=64)
def _with_fixed(build: Build, fixed: tuple[tuple[str, float], ...]) -> Build:
    """Cached, because programs are cached by their `build`."""
    return lambda schedule, numbers, workload: build(schedule, {**numbers, **dict(fixed)}, workload)


@functools.lru_cache(maxsize=2)
def device_data(workload: Workload) -> Any:
    """The workload's data as arrays on the device; kept for the last two workloads."""
    return jax.tree.map(jnp.asarray, workload.data())


@functools.lru_cache(maxsize=32)
def _program(workload: Workload, build: Build) -> Callable[..., Outcome]:
    """Rules that share their `build` and differ in their defaults share the program."""

    def run(numbers: Mapping[str, Array], seed: Array, steps: Array, data: Any) -> Outcome:
        first, batches = keys_of(seed)
        params = workload.init(first)
        tx = build(lambda count: rate_at(count, steps, numbers), numbers, workload)
        step = training_step(workload, tx, data, batches, steps)
        start = params, tx.init(params), jnp.zeros((CURVE_POINTS, 2), jnp.float32)
        params, _, total = jax.lax.fori_loop(0, steps, lambda count, carry: step(count, carry)[0], start)
        return Outcome(workload.measure(params, data), total[:, 0] / total[:, 1])

    if workload.side_by_side > 1:
        return jax.jit(jax.vmap(run, in_axes=(0, 0, None, None)))
    # One run at a time: a batch axis of one would only turn its products into batched ones.
    return jax.jit(
        lambda numbers, seeds, steps, data: jax.tree.map(
            lambda x: x[None], run(jax.tree.map(lambda x: x[0], numbers), seeds[0], steps, data)
        )
    )
