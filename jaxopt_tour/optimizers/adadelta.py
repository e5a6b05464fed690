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
    clip_to_square_range,
    full_like_second_moment,
    hyperparameter,
    map_rule,
    safe_divide,
    safe_sqrt,
    scale_by_learning_rate,
)
from jaxopt_tour.optimizers._state_check import checked_chain, with_state_check
from jaxopt_tour.optimizers.weight_decay import Mask, add_l2


class AdadeltaState(NamedTuple):
    """State of `scale_by_adadelta`."""

    count: Array  # type: ignore[assignment]  # t, int32
    nu: Tree  # s_t, EMA of g^2
    delta: Tree  # d_t, EMA of u^2


def scale_by_adadelta(
    beta: Scalar = 0.9, *, eps: Scalar = 1e-6, nu_dtype: DTypeLike | None = None
) -> optax.GradientTransformation:
    r"""Rescale updates by AdaDelta's rule.

    $$
    \begin{aligned}
    s_t &= \beta s_{t-1} + (1 - \beta) g_t^2 \\
    u_t &= \frac{\sqrt{d_{t-1} + \epsilon}}{\sqrt{s_t + \epsilon}} g_t \\
    d_t &= \beta d_{t-1} + (1 - \beta) u_t^2
    \end{aligned}
    $$

    An update has the units of a weight, whatever the units of the loss. The first has size
    $\sqrt{\epsilon / (1 - \beta)}$, so `eps` sets how fast the steps grow.

    Args:
        beta: Exponential decay rate of the averages of squared gradients and squared updates ($\rho$ in the paper),
            $0 \le \beta < 1$. Default 0.9.
        eps: Constant added inside both square roots. Default 1e-6. Raise it where the first steps are too short.
        nu_dtype: Dtype of both averages. Default None: that of the parameters, but at least float32. A narrower dtype
            saves memory and loses small squares.

    Returns:
        The Optax transformation; its state has two arrays of the parameter's shape for every parameter.

    Raises:
        ValueError: An argument is out of range.

    Source:
        Zeiler 2012, https://arxiv.org/abs/1212.5701, algorithm 1.
    """
    check_decay_rate("beta", beta)
    check_nonnegative("eps", eps)
    nu_dtype = check_float_dtype("nu_dtype", nu_dtype)
    beta, eps = hyperparameter(beta), hyperparameter(eps)

    def init(params: Tree) -> AdadeltaState:
        s, d = full_like_second_moment(params, nu_dtype), full_like_second_moment(params, nu_dtype)
        return AdadeltaState(jnp.zeros([], jnp.int32), s, d)

    def update(updates: Tree, state: AdadeltaState, params: Tree | None = None) -> tuple[Tree, AdadeltaState]:
        def rule(g: Array, s: Array, d: Array) -> tuple[Array, Array, Array]:
            g = clip_to_square_range(g)
            s = beta * s + (1 - beta) * abs_squared(g)
            u = g * safe_divide(safe_sqrt(d + eps), safe_sqrt(s + eps))
            d = beta * d + (1 - beta) * abs_squared(u)
            return u, s, d

        u, s, d = map_rule(rule, updates, params, state.nu, state.delta)
        return u, AdadeltaState(optax.safe_increment(state.count), s, d)

    return with_state_check(optax.GradientTransformation(init, update))


def adadelta(
    learning_rate: ScalarOrSchedule = 1.0,
    *,
    beta: Scalar = 0.9,
    eps: Scalar = 1e-6,
    l2: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
    nu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Optimize with AdaDelta and optional coupled L2, added to the gradient.

    `scale_by_adadelta` has the rule.

    Args:
        learning_rate: Factor $\eta$ of the updates, a number or a schedule of the step count. Default 1, the method of
            the paper.
        beta: Exponential decay rate of the averages of squared gradients and squared updates ($\rho$ in the paper),
            $0 \le \beta < 1$. Default 0.9.
        eps: Constant added inside both square roots. Default 1e-6. Raise it where the first steps are too short.
        l2: Strength $\lambda$ of the coupled L2 term, a number or a schedule of the step count. Default 0.
        mask: Parameters that the L2 term applies to: `"matrices"`, a tree of booleans, a prefix of one, or a function
            from the parameters to such a tree. Default None: all parameters. Set it to exclude biases and norms.
        nu_dtype: Dtype of both averages. Default None: that of the parameters, but at least float32. A narrower dtype
            saves memory and loses small squares.

    Returns:
        The optimizer as an Optax transformation.

    Raises:
        ValueError: An argument is out of range.
    """
    return checked_chain(
        add_l2(l2, mask),
        scale_by_adadelta(beta, eps=eps, nu_dtype=nu_dtype),
        scale_by_learning_rate(learning_rate),
    )
