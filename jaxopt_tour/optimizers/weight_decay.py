"""Weight decay and L2: one transformation, decoupled after an optimizer's rule and coupled before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_tour._checks import check_call, check_choice, check_flag, check_rate
from jaxopt_tour._trees import is_array, map_with_names, unbox
from jaxopt_tour._types import Array, ScalarOrSchedule, Tree
from jaxopt_tour.optimizers._numerics import cast_update, check_arrays, hyperparameter, widen
from jaxopt_tour.routing import routes_by_name

#: A tree of booleans, a prefix of one, or a function from the parameters to such a tree, as in Optax; or "matrices".
Mask = Tree | Callable[[Tree], Tree] | Literal["matrices"]


class WeightDecayState(NamedTuple):
    """State of `add_decayed_weights`."""

    count: Array  # type: ignore[assignment]  # int32, steps so far


def add_decayed_weights(
    weight_decay: ScalarOrSchedule = 0.0, mask: Mask | None = None, *, cautious: bool = False
) -> optax.GradientTransformation:
    r"""Add the weights, times a strength, to the updates.

    $$
    \begin{aligned}
    u_t &\leftarrow u_t + \lambda \theta_{t-1} && \text{by default} \\
    u_t &\leftarrow u_t + \lambda \theta_{t-1} [u_t \theta_{t-1} > 0] && \text{cautious}
    \end{aligned}
    $$

    The position in the chain decides the kind. *Decoupled* weight decay comes after the rule and before the learning
    rate: every weight shrinks by the factor $1 - \eta \lambda$ per step, whatever its gradient. *Coupled L2*, the
    gradient of $\frac{\lambda}{2} |\theta|^2$, comes before the rule: it enters the moments with the gradient, and a
    rule that divides by the size of the gradient divides it too.

    ```python
    optax.chain(jt.scale_by_adam(), jt.add_decayed_weights(0.1), optax.scale_by_learning_rate(1e-3))  # decoupled
    optax.chain(jt.add_decayed_weights(0.1), jt.scale_by_adam(), optax.scale_by_learning_rate(1e-3))  # coupled
    ```

    The mask `"matrices"` decays what routing by name calls a matrix, and everything of at least two axes that it does
    not understand. Embeddings, the head, biases and norms do not decay, nor do biases of stacked layers, which have two
    axes. In `muon` and `shampoo` the same mask decays what is routed as a matrix.

    Cautious decay skips a weight that the step moves away from zero, so decay never works against the gradient. It also
    skips a weight whose update is exactly zero.

    Args:
        weight_decay: Strength $\lambda$, a number of at least 0 or a schedule of the step count. Default 0.
        mask: Parameters that decay: `"matrices"`, a tree of booleans, a prefix of one, or a function from the
            parameters to such a tree. Default None: all parameters. Set it to exclude biases and norms.
        cautious: Whether to decay only where update and weight agree in sign. Default False.

    Returns:
        The Optax transformation; its state is a step count, so that a constant can become a schedule in a saved run.

    Raises:
        ValueError: An argument is out of range, or `update` is called without `params` (allowed if `weight_decay` is
            the constant 0).

    Source:
        Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101 (decoupled); Chen et al. 2025,
        https://arxiv.org/abs/2510.12402 (cautious).
    """
    check_rate("weight_decay", weight_decay)
    check_flag("cautious", cautious)
    mask_for = as_mask(mask)
    scheduled = callable(weight_decay)
    is_zero = isinstance(weight_decay, (int, float)) and weight_decay == 0

    def init(params: Tree) -> WeightDecayState:
        return WeightDecayState(jnp.zeros([], jnp.int32))

    def update(updates: Tree, state: WeightDecayState, params: Tree | None = None) -> tuple[Tree, WeightDecayState]:
        next_state = WeightDecayState(optax.safe_increment(state.count))
        if params is None:
            if is_zero:
                return updates, next_state
            raise ValueError("weight decay needs the parameters: call update(updates, state, params)")
        lam = hyperparameter(weight_decay(state.count) if scheduled else weight_decay)

        def decay(u: Array, theta: Array) -> Array:
            if is_zero:
                return u
            if not cautious:
                return u + lam * theta
            # Signs, because a product of two small numbers can be zero; the real part serves complex weights.
            agree = (jnp.sign(u) * jnp.sign(theta).conj()).real > 0
            return u + jnp.where(agree, lam * theta, 0)

        return map_masked(decay, mask_for(params), updates, params), next_state

    return optax.GradientTransformation(init, update)


def as_mask(mask: Mask | None) -> Callable[[Tree], Tree]:
    """Return the function from parameters to a tree of booleans, or a prefix of one, that a mask stands for.

    Raises:
        ValueError: It is no mask.
    """
    if isinstance(mask, (bool, np.bool_, np.ndarray, jax.Array)):
        raise ValueError(
            f"mask must be a tree of booleans or a function of the parameters, got {mask!r}. "
            "optax.inject_hyperparams takes such a function for a schedule: list 'mask' in static_args."
        )
    if mask is None:
        return lambda params: True
    if isinstance(mask, str):
        check_choice("mask", mask, ("matrices",))
        return _is_matrix
    # A tree that is callable itself (a module) is a tree; only a bare function is asked for the mask.
    if callable(mask) and jax.tree_util.all_leaves([mask]):
        check_call("mask", mask, (None,), allowed="a tree of booleans or a function of the parameters")
        return mask
    return lambda params: mask


def map_masked(rule: Callable[[Array, Array], Array], mask: Tree, updates: Tree, params: Tree) -> Tree:
    """Apply `rule(u, theta)` to the updates of parameters whose mask is True, in at least float32.

    Raises:
        ValueError: A leaf of the mask is no boolean, or it is no tree like the parameters.
    """
    for is_chosen in jax.tree.leaves(mask):
        if not isinstance(is_chosen, (bool, np.bool_)):
            raise ValueError(f"mask must have True or False for every parameter, got {is_chosen!r}")
    try:
        jax.tree.map(lambda *_: None, mask, updates)
    except ValueError as error:
        raise ValueError(f"mask must be a tree of booleans like the parameters, or a prefix: {error}") from error

    def map_subtree(is_chosen: bool, u: Tree, theta: Tree) -> Tree:
        def map_leaf(u: Any, theta: Any) -> Any:
            if u is None:
                return None
            return cast_update(rule(widen(u), widen(theta)) if is_chosen else widen(u), theta)

        return jax.tree.map(map_leaf, u, theta, is_leaf=lambda leaf: leaf is None)

    return jax.tree.map(map_subtree, mask, updates, params)


def _is_matrix(params: Tree) -> Tree:
    """The mask `"matrices"`: True for every matrix by name, and for what names leave open if it has two axes."""
    check_arrays(params)
    routes = routes_by_name(jax.tree.map(lambda p: p if is_array(p) else jnp.asarray(p), params))

    def is_matrix(name: str, leaf: Any) -> bool:
        role = routes[name].role if name in routes else ""
        return role == "matrix" or (role == "not understood" and jnp.ndim(unbox(leaf)) >= 2)

    return map_with_names(is_matrix, params)


def masks_by_label(mask: Mask | None) -> tuple[Mask | None, Mask | None]:
    """The masks of what is routed as a matrix and of everything else, for an optimizer that routes."""
    if not isinstance(mask, str):
        return mask, mask
    check_choice("mask", mask, ("matrices",))
    return None, lambda params: False


def add_l2(l2: ScalarOrSchedule, mask: Mask | None) -> optax.GradientTransformation:
    """Add coupled L2 to the gradient: `add_decayed_weights` at the head of a chain, with errors that name `l2`."""
    check_rate("l2", l2)
    return add_decayed_weights(l2, mask)
