"""Interpolation between two transformations by a schedule."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxopt_tour._checks import check_call, check_number, check_transformation
from jaxopt_tour._types import Array, ScalarOrSchedule, Tree
from jaxopt_tour.optimizers._numerics import cast_update, widen
from jaxopt_tour.optimizers._state_check import with_state_check


class InterpolateState(NamedTuple):
    """State of `interpolate`.

    The count is one level down because `optax.tree.set(state, count=...)` stops at the first count of a node.
    """

    schedule: optax.ScaleByScheduleState  # its count of updates, int32
    first: Any
    second: Any


def interpolate(
    first: optax.GradientTransformation, second: optax.GradientTransformation, weight: ScalarOrSchedule
) -> optax.GradientTransformationExtraArgs:
    r"""Interpolate between the updates of two transformations, with a weight that may follow a schedule.

    $$
    u = (1 - w) u_\text{first} + w u_\text{second}
    $$

    It switches from one optimizer to another and back, at once or gradually:

    ```python
    def weight(count):  # Adam for 1,000 steps, SGD until step 3,000, Adam again
        return jnp.where((count >= 1000) & (count < 3000), 1.0, 0.0)

    tx = jt.interpolate(jt.adam(1e-3), jt.momentum(0.1), weight)
    ```

    Both transformations process every gradient and advance at every step, whatever the weight. When the weight
    switches, the averages and schedules of the second are therefore up to date. The cost in time and state is the sum
    of both.

    Where $w = 0$ the update is exactly the first's, even if the second's is infinite or NaN; where $w = 1$ it is
    exactly the second's. (The derivative with respect to $w$ is then that of the finite entries.)

    The update has the units of the two, which need not agree; each transformation brings its own learning rate.

    Args:
        first: Transformation whose updates have the weight $1 - w$.
        second: Transformation whose updates have the weight $w$, for the same parameters.
        weight: Weight $w$, a number in [0, 1] or a schedule of the count of updates, which starts at 0. The values of
            a schedule are not checked.

    Returns:
        The Optax transformation; its state has the states of both.

    Raises:
        ValueError: `first` or `second` is no transformation, or `weight` is neither a schedule nor a number in [0, 1].
    """
    for name, tx in {"first": first, "second": second}.items():
        check_transformation(name, tx)
    _check_weight(weight)
    first_tx, second_tx = optax.with_extra_args_support(first), optax.with_extra_args_support(second)

    def init(params: Tree) -> InterpolateState:
        count = optax.ScaleByScheduleState(jnp.zeros([], jnp.int32))
        return InterpolateState(count, first_tx.init(params), second_tx.init(params))

    def update(
        updates: Tree, state: InterpolateState, params: Tree | None = None, **extra_args: Any
    ) -> tuple[Tree, InterpolateState]:
        u_first, first_state = first_tx.update(updates, state.first, params, **extra_args)
        u_second, second_state = second_tx.update(updates, state.second, params, **extra_args)
        count = state.schedule.count
        w = widen(weight(count) if callable(weight) else weight)

        def mix(a: Array, b: Array) -> Array:
            like, a, b = a, widen(a), widen(b)
            # 0 times infinity is NaN; a finite entry needs no care and keeps its derivative.
            a = jnp.where((w == 1) & ~jnp.isfinite(a), 0, a)
            b = jnp.where((w == 0) & ~jnp.isfinite(b), 0, b)
            return cast_update((1 - w) * a + w * b, like)

        u = jax.tree.map(mix, u_first, u_second)
        next_count = optax.ScaleByScheduleState(optax.safe_increment(count))
        return u, InterpolateState(next_count, first_state, second_state)

    return with_state_check(optax.GradientTransformationExtraArgs(init, update))


def _check_weight(weight: Any) -> None:
    allowed = "a number with 0 <= weight <= 1 or a schedule (a function of the step)"
    if callable(weight):
        check_call("weight", weight, (0,), allowed=allowed)
    else:
        check_number("weight", weight, allowed, lambda number: 0 <= number <= 1)
