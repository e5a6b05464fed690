"""AdaDelta: steps in the units of the weights, from the sizes of past steps and past gradients."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import optax

from jaxopt_tour._checks import check_decay_rate, check_float_dtype, check_nonnegative
from jaxopt_tour._types import Array, DTypeLike, ScalarOrSchedule, Tree
from jaxopt_tour.optimizers._numerics import (
    Scalar,
    abs_squared,
    hyperparameter,
    limit,
    map_rule,
    safe_divide,
    safe_sqrt,
    scale_by_learning_rate,
    second_moment,
)
from jaxopt_tour.optimizers.weight_decay import Mask, add_decayed_weights


class AdadeltaState(NamedTuple):
    """State of `scale_by_adadelta`."""

    count: Array  # type: ignore[assignment]  # t, int32
    nu: Tree  # s_t, EMA of g^2
    delta: Tree  # d_t, EMA of u^2


def scale_by_adadelta(
    rho: Scalar = 0.9, eps: Scalar = 1e-6, *, accumulator_dtype: DTypeLike | None = None
) -> optax.GradientTransformation:
    """AdaDelta::

        s <- rho s + (1 - rho) g^2
        u = g sqrt(d + eps) / sqrt(s + eps)
        d <- rho d + (1 - rho) u^2

    An update has the units of a weight, whatever the units of the loss. The first has size
    ``sqrt(eps / (1 - rho))``, so ``eps`` sets how fast the steps grow from nothing.

    Source: Zeiler 2012, https://arxiv.org/abs/1212.5701, algorithm 1.

    Args:
        rho: decay of both averages.
        eps: added under both roots.
        accumulator_dtype: dtype of s and d; None: at least float32.
    """
    check_decay_rate("rho", rho)
    check_nonnegative("eps", eps)
    accumulator_dtype = check_float_dtype("accumulator_dtype", accumulator_dtype)
    rho, eps = hyperparameter(rho), hyperparameter(eps)

    def init(params: Tree) -> AdadeltaState:
        s, d = second_moment(params, accumulator_dtype), second_moment(params, accumulator_dtype)
        return AdadeltaState(jnp.zeros([], jnp.int32), s, d)

    def update(updates: Tree, state: AdadeltaState, params: Tree | None = None) -> tuple[Tree, AdadeltaState]:
        def rule(g: Array, s: Array, d: Array) -> tuple[Array, Array, Array]:
            g = limit(g)
            s = rho * s + (1 - rho) * abs_squared(g)
            u = g * safe_divide(safe_sqrt(d + eps), safe_sqrt(s + eps))
            d = rho * d + (1 - rho) * abs_squared(u)
            return u, s, d

        u, s, d = map_rule(rule, updates, params, state.nu, state.delta)
        return u, AdadeltaState(optax.safe_increment(state.count), s, d)

    return optax.GradientTransformation(init, update)


def adadelta(
    learning_rate: ScalarOrSchedule = 1.0,
    rho: Scalar = 0.9,
    eps: Scalar = 1e-6,
    *,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask | None = None,
    accumulator_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """AdaDelta; the rule is in `scale_by_adadelta`.

    Args:
        learning_rate: eta; 1 is the paper's method.
        rho: decay of both averages.
        eps: added under both roots.
        weight_decay: lambda, coupled L2.
        weight_decay_mask: which parameters decay, as in `add_decayed_weights`.
        accumulator_dtype: dtype of both averages; None: at least float32.
    """
    return optax.chain(
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_adadelta(rho, eps, accumulator_dtype=accumulator_dtype),
        scale_by_learning_rate(learning_rate),
    )
