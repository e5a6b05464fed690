"""A run of an optimizer as one compiled loop that keeps everything: parameters, gradients, updates, state.

`rollout(tx, problem, steps, key) -> Trajectory`; `sweep` runs it over learning rates, starts and seeds at once. A
trajectory is plain arrays with the step as leading axis: it can be saved, averaged and drawn without an optimizer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from jaxopt_tour._checks import check_choice
from jaxopt_tour._types import Array, ScalarOrSchedule, Tree

#: What of an optimizer's state is kept, by symbol: the fields of the library's states (and Optax's) that hold it.
STATE_FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "m": ("trace", "mu", "ratio", "mean"),  # momentum: a sum or an average of gradients, or of LaProp's ratio
    "v": ("nu", "sum_of_squares"),  # an average or a sum of squared gradients
    "d": ("delta",),  # AdaDelta's average of squared updates
}


class Problem(Protocol):
    """What a rollout needs of a problem; a `jaxopt_tour.problems.landscape.Landscape` is one."""

    def __hash__(self) -> int:
        """Problems are keys of the cache of compiled programs."""

    def init(self, start: Any = None) -> Tree:
        """The parameters at a start; at the problem's own for None."""

    def loss(self, params: Tree, key: Array) -> Array:
        """The loss at a step; `key` decides what is random about it."""


class Trajectory(NamedTuple):
    """A run of T steps. From several runs at once, their axes come first.

    Attributes:
        params: (T + 1, ...), theta_0 to theta_T.
        loss: (T + 1,), the loss at each of them.
        gradient: (T + 1, ...), the gradient at each of them: that at t makes step t + 1.
        update: (T, ...), what each step added: `params[t + 1] = params[t] + update[t]`.
        state: by symbol, (T, ...): m (momentum), v (second moment) and d (AdaDelta's), those that the optimizer has,
            after each step.
    """

    params: Tree
    loss: Array
    gradient: Tree
    update: Tree
    state: dict[str, Tree]


def rollout(
    tx: optax.GradientTransformation,
    problem: Problem,
    steps: int,
    key: Array | None = None,
    *,
    start: Any = None,
    record: Sequence[str] | None = None,
) -> Trajectory:
    """Run an optimizer on a problem and keep every step.

    One `lax.scan` in one compiled program; a second call with the same optimizer, problem and number of steps
    compiles nothing, whatever the start and the key.

    Args:
        tx: the optimizer.
        problem: what is minimized.
        steps: number of steps, T.
        key: decides the problem's noise; None: key 0.
        start: where to begin, as the problem's `init` takes it; None: the problem's own.
        record: symbols of the state to keep, among m, v and d; None: all that the optimizer has.

    Returns:
        The trajectory.

    Raises:
        ValueError: a symbol is unknown, or the optimizer's state has nothing by it.
    """
    steps = _check_steps(steps)
    key = jax.random.key(0) if key is None else key
    return _compiled(tx, problem, steps, _check_record(record))(problem.init(start), key)


def sweep(
    optimizer: Callable[[ScalarOrSchedule], optax.GradientTransformation],
    problem: Problem,
    steps: int,
    *,
    learning_rates: Any,
    starts: Any = None,
    seeds: Any = None,
    record: Sequence[str] | None = None,
) -> Trajectory:
    """Run every combination of learning rate, start and seed side by side, in one compiled program.

    Args:
        optimizer: learning rate -> optimizer.
        problem: what is minimized.
        steps: number of steps.
        learning_rates: a number, or R of them.
        starts: one start as `problem.init` takes it, or S of them stacked; None: the problem's own.
        seeds: an integer, or K of them; None: seed 0.
        record: as in `rollout`.

    Returns:
        A trajectory whose arrays have the axes R, S, K in front, each only where several were given.
    """
    steps = _check_steps(steps)
    params = problem.init(starts)
    rates = jnp.asarray(learning_rates, jnp.result_type(float))
    several_starts = jnp.ndim(jax.tree.leaves(params)[0]) > jnp.ndim(jax.tree.leaves(problem.init())[0])
    seeds = jnp.asarray(0 if seeds is None else seeds)
    keys = jax.vmap(jax.random.key)(seeds) if seeds.ndim else jax.random.key(seeds)
    batched = (rates.ndim > 0, several_starts, seeds.ndim > 0)
    return _compiled_sweep(optimizer, problem, steps, _check_record(record), batched)(rates, params, keys)


def record_state(state: Any, symbols: Sequence[str] | None = None) -> dict[str, Tree]:
    """What an optimizer's state holds by symbol, see `STATE_FIELDS`.

    Args:
        state: the state of any chain.
        symbols: those wanted; None: all there are.

    Raises:
        ValueError: a wanted symbol is not in the state.
    """
    found = {}
    for symbol in STATE_FIELDS if symbols is None else symbols:
        for field in STATE_FIELDS[symbol]:
            values = [value for _, value in optax.tree.get_all_with_path(state, field) if value is not None]
            if values:
                found[symbol] = values[0]
                break
        else:
            if symbols is not None:
                raise ValueError(f"record={tuple(symbols)!r}: this optimizer's state has no {symbol!r}")
    return found


def _run(
    tx: optax.GradientTransformation,
    problem: Problem,
    steps: int,
    record: tuple[str, ...] | None,
    params: Tree,
    key: Array,
) -> Trajectory:
    value_and_grad = jax.value_and_grad(problem.loss)

    def step(carry: tuple[Tree, Any], step_key: Array) -> tuple[tuple[Tree, Any], Any]:
        params, state = carry
        loss, gradient = value_and_grad(params, step_key)
        update, state = tx.update(gradient, state, params)
        new = optax.apply_updates(params, update)
        return (new, state), (params, loss, gradient, update, record_state(state, record))

    keys = jax.random.split(key, steps + 1)
    (last, _), (path, losses, gradients, updates, states) = jax.lax.scan(step, (params, tx.init(params)), keys[:-1])
    last_loss, last_gradient = value_and_grad(last, keys[-1])

    def with_last(many: Array, one: Array) -> Array:
        return jnp.concatenate([many, one[None]])

    return Trajectory(
        params=jax.tree.map(with_last, path, last),
        loss=with_last(losses, last_loss),
        gradient=jax.tree.map(with_last, gradients, last_gradient),
        update=updates,
        state=states,
    )


@functools.lru_cache(maxsize=128)
def _compiled(
    tx: optax.GradientTransformation, problem: Problem, steps: int, record: tuple[str, ...] | None
) -> Callable[[Tree, Array], Trajectory]:
    return jax.jit(functools.partial(_run, tx, problem, steps, record))


@functools.lru_cache(maxsize=128)
def _compiled_sweep(
    optimizer: Callable[[ScalarOrSchedule], optax.GradientTransformation],
    problem: Problem,
    steps: int,
    record: tuple[str, ...] | None,
    batched: tuple[bool, bool, bool],
) -> Callable[[Array, Tree, Array], Trajectory]:
    def run(rate: Array, params: Tree, key: Array) -> Trajectory:
        return _run(optimizer(rate), problem, steps, record, params, key)

    function: Callable[..., Trajectory] = run
    for position in reversed(range(3)):  # the last argument's axis is the innermost
        if batched[position]:
            function = jax.vmap(function, in_axes=[0 if position == each else None for each in range(3)])
    return jax.jit(function)


def _check_steps(steps: int) -> int:
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps must be an integer >= 1, got {steps!r}")
    return steps


def _check_record(record: Sequence[str] | None) -> tuple[str, ...] | None:
    if record is None:
        return None
    for symbol in record:
        check_choice("record", symbol, STATE_FIELDS)
    return tuple(record)
