"""Weight decay: one transformation, and its place in the chain says whether it is coupled or decoupled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_tour._checks import check_flag, check_rate
from jaxopt_tour._types import Array, ScalarOrSchedule, Tree
from jaxopt_tour.optimizers._numerics import cast_update, hyperparameter, widen

#: A tree of bools (or a prefix of one), or a function of the parameters that gives it; as in Optax.
Mask = Tree | Callable[[Tree], Tree]


class WeightDecayState(NamedTuple):
    """Kept only where the decay is a schedule; otherwise the state is empty."""

    count: Array  # type: ignore[assignment]  # int32, steps so far


def add_decayed_weights(
    weight_decay: ScalarOrSchedule = 0.0, mask: Mask | None = None, *, cautious: bool = False
) -> optax.GradientTransformation:
    """Weight decay::

        u <- u + lambda theta                      cautious=False
        u <- u + lambda theta [u theta > 0]        cautious=True

    Where it stands in the chain decides what it is. *Decoupled*, after the rule and before the learning rate: every
    weight shrinks by the factor ``1 - eta lambda`` a step, whatever its gradient. *Coupled* (L2, the gradient of
    ``lambda/2 |theta|^2``), before the rule: the decay goes through the moments with the gradient, and where the rule
    divides by the gradient's size it divides the decay too::

        optax.chain(jt.scale_by_adam(), jt.add_decayed_weights(0.1), optax.scale_by_learning_rate(1e-3))  # decoupled
        optax.chain(jt.add_decayed_weights(0.1), jt.scale_by_adam(), optax.scale_by_learning_rate(1e-3))  # coupled

    Cautious decay leaves a weight alone where the step moves it away from zero, so that decay never works against the
    gradient. A weight whose update is exactly zero is left alone as well.

    Sources: Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101 (decoupled); Chen et al. 2025,
    https://arxiv.org/abs/2510.12402 (cautious).

    Args:
        weight_decay: lambda, a number >= 0 or a schedule of the step.
        mask: which parameters decay: a tree of bools, or a prefix of one, or a function from the parameters to it.
        cautious: decay only where update and weight agree in sign.

    Raises:
        ValueError: from ``update`` where it is called without ``params`` (unless ``weight_decay`` is the constant 0).
    """
    check_rate("weight_decay", weight_decay)
    check_flag("cautious", cautious)
    if isinstance(mask, (bool, np.bool_, np.ndarray, jax.Array)):
        raise ValueError(
            f"mask (weight_decay_mask) must be a tree of bools or a function of the parameters, got {mask!r}. "
            "optax.inject_hyperparams takes such a function for a schedule: list 'weight_decay_mask' in static_args."
        )
    scheduled = callable(weight_decay)
    is_zero = isinstance(weight_decay, (int, float)) and weight_decay == 0

    def init(params: Tree) -> optax.OptState:
        return WeightDecayState(jnp.zeros([], jnp.int32)) if scheduled else optax.EmptyState()

    def update(updates: Tree, state: Any, params: Tree | None = None) -> tuple[Tree, Any]:
        if params is None:
            if is_zero:
                return updates, state
            raise ValueError("weight decay needs the parameters: call update(updates, state, params)")
        lam = hyperparameter(weight_decay(state.count) if scheduled else weight_decay)

        def decay(u: Array, theta: Array) -> Array:
            # Signs, because a product of two small numbers can be zero; the real part serves complex weights.
            agree = (jnp.sign(u) * jnp.sign(theta).conj()).real > 0 if cautious else True
            return u + jnp.where(agree, lam * theta, 0)

        def subtree(keep: Any, u: Tree, theta: Tree) -> Tree:
            if not isinstance(keep, (bool, np.bool_)):
                raise ValueError(f"a mask's leaves must be True or False, got {keep!r}")

            def one_leaf(u: Any, theta: Any) -> Any:
                if u is None:
                    return None
                return cast_update(decay(widen(u), widen(theta)) if keep and not is_zero else widen(u), theta)

            return jax.tree.map(one_leaf, u, theta, is_leaf=lambda leaf: leaf is None)

        # A tree that is callable itself (a module) is a tree; only a bare function is asked for the mask.
        is_function = callable(mask) and jax.tree_util.all_leaves([mask])
        kept = True if mask is None else mask(params) if is_function else mask
        decayed = jax.tree.map(subtree, kept, updates, params)
        return decayed, WeightDecayState(optax.safe_increment(state.count)) if scheduled else state

    return optax.GradientTransformation(init, update)
