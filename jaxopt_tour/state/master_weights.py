"""A float32 copy of half-precision weights in the optimizer's state."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from jaxopt_tour._checks import check_transformation
from jaxopt_tour._trees import HOLE, is_hole, is_placeholder, map_with_names, named_leaves, rebox, unbox
from jaxopt_tour._types import Array, Tree
from jaxopt_tour.state.rounding import applied, is_half_precision, round_to_nearest, update_to, widen_half_precision


class MasterWeightsState(NamedTuple):
    """State of `with_master_weights`."""

    master: Tree  # float32 copies of half-precision parameters; optax.MaskedNode for every other parameter
    inner_state: Any  # of the wrapped transformation, which sees the float32 weights


def with_master_weights(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    r"""Optimize a float32 copy of half-precision parameters; the parameters are that copy, rounded.

    $$
    \begin{aligned}
    w_t &= w_{t-1} + u_t && \text{float32, } u_t \text{ computed from } w_{t-1} \\
    \theta_t &= \operatorname{round}(w_t) && \text{bfloat16 or float16, to nearest, ties to even}
    \end{aligned}
    $$

    A weight of 1 in bfloat16 has neighbors at a distance of 0.004 and 0.008, so an update of 0.001 leaves it where it
    is. The copy adds up such updates until they reach the next bfloat16 number. The model still computes with the
    half-precision parameters.

    `tx` sees the float32 weights and float32 gradients of these parameters; its moments are float32 too unless its own
    arguments say otherwise. Parameters of other dtypes have no copy.

    **Updates are float32** for half-precision parameters, not in the parameters' dtype: `optax.apply_updates` adds in
    float32 and rounds once, which gives exactly the rounded copy. A bfloat16 update could not. Apply them with
    `optax.apply_updates`; `params + updates` would leave float32 parameters.

    Make it the outermost transformation: clipping or scaling its updates would separate parameters from their copy.
    `optax.MultiSteps` may be around it, `optax.apply_if_finite` belongs inside. The copy is what counts: a
    parameter that is changed otherwise than by the update returns to it. Under `jt.sharded_state` it is sharded like
    the parameters.

    Example:
        >>> import jax.numpy as jnp, jaxopt_tour as jt, optax
        >>> params = {"scale": jnp.ones(1, jnp.bfloat16)}
        >>> tx = jt.with_master_weights(jt.sgd(1e-3))
        >>> state = tx.init(params)
        >>> for _ in range(8):
        ...     updates, state = tx.update({"scale": jnp.ones(1, jnp.bfloat16)}, state, params)
        ...     params = optax.apply_updates(params, updates)
        >>> float(params["scale"][0])  # 1 - 8 * 0.001, rounded; it would still be 1 without the copy
        0.9921875

    Args:
        tx: Any Optax transformation.

    Returns:
        The Optax transformation. Its state has one float32 array for every half-precision parameter, beside the state
        of `tx`.

    Raises:
        ValueError: `update` is called without `params`.

    Source:
        Micikevicius et al. 2018, Mixed Precision Training, section 3.1, https://arxiv.org/abs/1710.03740.
    """
    check_transformation("tx", tx)
    inner = optax.with_extra_args_support(tx)

    def copy(name: str, leaf: Any) -> Any:
        array = unbox(leaf)
        return rebox(leaf, array.astype(jnp.float32)) if is_half_precision(array) else HOLE

    def init(params: Tree) -> MasterWeightsState:
        if is_placeholder(params):
            return MasterWeightsState(params, inner.init(params))
        return MasterWeightsState(map_with_names(copy, params), inner.init(widen_half_precision(params)))

    def update(
        updates: Tree, state: MasterWeightsState, params: Tree | None = None, **extra_args: Any
    ) -> tuple[Tree, MasterWeightsState]:
        if params is None:
            raise ValueError("with_master_weights needs the parameters: call update(updates, state, params)")
        weights = map_with_names(lambda name, p, w: p if is_hole(w) else w, params, state.master)
        steps, inner_state = inner.update(widen_half_precision(updates), state.inner_state, weights, **extra_args)
        by_name = named_leaves(steps)
        copies = named_leaves(state.master)
        moved, masters = {}, {}
        for name, p in named_leaves(params).items():
            if name in copies and name in by_name:
                moved[name], masters[name] = _step(p, copies[name], by_name[name])
        new_updates = map_with_names(lambda name, u: rebox(u, moved[name]) if name in moved else u, steps)
        master = map_with_names(lambda name, w: rebox(w, masters[name]) if name in masters else w, state.master)
        return new_updates, MasterWeightsState(master, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


def _step(parameter: Array, copy: Array, u: Array) -> tuple[Array, Array]:
    """The update of a parameter, and its new copy."""
    copy = copy + u.astype(jnp.float32)
    target = round_to_nearest(copy, parameter.dtype)
    update = update_to(target, parameter)
    reached = applied(parameter, update)
    # A target below 2^-16 of the parameter may be missed by 2^-24 of it, a rounding error of the weight that
    # the step took through zero. The copy takes the value that the parameter gets, so that the two never differ.
    return update, jnp.where((reached == target) | ~jnp.isfinite(copy), copy, reached)
