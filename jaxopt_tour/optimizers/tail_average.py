"""Tail average: an average of the parameters over the end of a run, to be blended into them for evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_tour._checks import check_choice, check_float_dtype, check_integer, check_number, check_tree_like
from jaxopt_tour._trees import HOLE, is_box, is_hole, map_with_names, only_state, rebox, unbox
from jaxopt_tour._types import Array, DTypeLike, Tree
from jaxopt_tour.optimizers._numerics import Scalar, cast_update, hyperparameter, widen
from jaxopt_tour.routing import ROLES, Routing, resolve
from jaxopt_tour.routing.route import Role


class TailAverageState(NamedTuple):
    """State of `tail_average`."""

    count: Array  # type: ignore[assignment]  # t, int32
    average: Tree  # the parameters until `start`, then their average; optax.MaskedNode for those left out


def tail_average(
    start: int,
    horizon: Scalar = 150.0,
    *,
    leave_out: Sequence[Role] = ("embedding",),
    routing: Routing = None,
    dtype: DTypeLike | None = None,
) -> optax.GradientTransformation:
    r"""Average the parameters from a step near the end of a run on, and leave the updates as they are.

    $$
    \begin{aligned}
    a_t &= \theta_t && t \le \text{start} \\
    a_t &= a_{t-1} + (\theta_t - a_{t-1}) / \tau && t > \text{start}
    \end{aligned}
    $$

    `tail_average_params` blends the average into the parameters, $(1 - \lambda) \theta_t + \lambda a_t$. An average
    alone lags behind parameters that still move; in part it removes noise for less lag. Training does not change.

    It comes last in a chain, after the learning rate:

    ```python
    tx = optax.chain(jt.muon(schedule), jt.tail_average(start=2000, horizon=150))
    ...
    evaluate(jt.tail_average_params(opt_state, params, 0.6))
    ```

    Args:
        start: Step, counted from 1, whose parameters the average starts from. About five horizons before the end.
        horizon: Number $\tau \ge 1$ of steps that are averaged over. Default 150, of a run of 2,720 steps whose rate
            falls to zero.
        leave_out: Roles that are not averaged, see `jt.Route`. Default `("embedding",)`: a row of an embedding moves
            only when its token occurs.
        routing: What each parameter is, see `jt.routing.resolve`. Default None: by name and shape.
        dtype: Dtype of the average. Default None: the dtype of the parameters, but at least float32.

    Returns:
        The Optax transformation; its state has one array of the parameter's shape for every parameter that is averaged.

    Raises:
        ValueError: An argument is not one of those allowed, or `update` is called without `params`.

    Source:
        modded-nanogpt, track 3, record 45 (https://github.com/KellerJordan/modded-nanogpt/pull/325): $\tau = 150$,
        $\lambda = 0.6$, everything but the token embedding.
    """
    check_integer("start", start, 0, or_array=True)
    check_number("horizon", horizon, "a number >= 1", lambda number: 1 <= number < np.inf)
    if isinstance(leave_out, str) or not isinstance(leave_out, Sequence | frozenset | set):
        raise ValueError(f"leave_out must be a sequence of roles, got {leave_out!r}")
    for role in leave_out:
        check_choice("leave_out", role, ROLES)
    dtype = check_float_dtype("dtype", dtype)
    tau = hyperparameter(horizon)

    def init(params: Tree) -> TailAverageState:
        if not jax.tree.leaves(params):  # also the node with which optax.tree.map_params asks for the structure
            return TailAverageState(jnp.zeros([], jnp.int32), params)
        routes = resolve(routing, params)

        def copy(name: str, leaf: Any) -> Any:
            if routes[name].role in leave_out:
                return HOLE
            array = unbox(leaf)
            wide = jnp.promote_types(array.dtype, jnp.float32) if dtype is None else dtype
            return rebox(leaf, jnp.array(array, wide))  # a buffer of its own, so that both can be donated

        return TailAverageState(jnp.zeros([], jnp.int32), map_with_names(copy, params))

    def update(updates: Tree, state: TailAverageState, params: Tree | None = None) -> tuple[Tree, TailAverageState]:
        if params is None:
            raise ValueError("tail_average needs the parameters: call update(updates, state, params)")
        count = optax.safe_increment(state.count)
        after = optax.apply_updates(params, updates)

        def follow(a: Any, theta: Any) -> Any:
            if is_hole(a) or theta is None:
                return a
            old, new = unbox(a), unbox(theta).astype(unbox(a).dtype)
            averaged = (widen(old) + (widen(new) - widen(old)) / tau).astype(old.dtype)
            return rebox(a, jnp.where(count <= start, new, averaged))

        average = jax.tree.map(follow, state.average, after, is_leaf=_is_leaf)
        return updates, TailAverageState(count, average)

    return optax.GradientTransformation(init, update)


def tail_average_params(state: Any, params: Tree, weight: Scalar = 0.6) -> Tree:
    r"""Return the parameters to evaluate, $(1 - \lambda) \theta_t + \lambda a_t$, of a run with `tail_average`.

    Args:
        state: State of the optimizer, in which `tail_average` occurs once, at any depth.
        params: Parameters $\theta_t$ of the training loop; after `ema_nesterov`, what `ema_nesterov_params` gives.
        weight: Weight $\lambda$ of the average. Default 0.6. At 1 it is the average alone, which lags.

    Returns:
        A tree like the parameters; those left out are unchanged.

    Raises:
        ValueError: The state has no `TailAverageState`, or several.
    """
    found = only_state(TailAverageState, state)
    check_number("weight", weight, "a finite number", lambda number: bool(np.isfinite(number)))
    check_tree_like("params", params, found.average, _is_leaf)
    lam = hyperparameter(weight)

    def blend(a: Any, theta: Any) -> Any:
        if is_hole(a) or theta is None:
            return theta
        array = unbox(theta)
        return rebox(theta, cast_update((1 - lam) * widen(array) + lam * widen(unbox(a)), array))

    return jax.tree.map(blend, found.average, params, is_leaf=_is_leaf)


def _is_leaf(node: Any) -> bool:
    return node is None or is_box(node) or is_hole(node)
