"""Lion: the sign of an interpolation between momentum and gradient."""

from __future__ import annotations

import jax.numpy as jnp
import optax

from jaxopt_tour._checks import check_decay_rate, check_float_dtype
from jaxopt_tour._types import Array, DTypeLike, ScalarOrSchedule, Tree
from jaxopt_tour.optimizers._numerics import (
    Scalar,
    hyperparameter,
    map_rule,
    scale_by_learning_rate,
    zeros_like_first_moment,
)
from jaxopt_tour.optimizers._state_check import checked_chain, with_state_check
from jaxopt_tour.optimizers.momentum import EmaMomentumState
from jaxopt_tour.optimizers.weight_decay import Mask, add_decayed_weights


def scale_by_lion(
    b1: Scalar = 0.9, b2: Scalar = 0.99, *, mu_dtype: DTypeLike | None = None
) -> optax.GradientTransformation:
    r"""Replace gradients by the sign of an average in which the newest counts more than in the momentum that is kept.

    $$
    \begin{aligned}
    u_t &= \operatorname{sign}(\beta_1 m_{t-1} + (1 - \beta_1) g_t) \\
    m_t &= \beta_2 m_{t-1} + (1 - \beta_2) g_t
    \end{aligned}
    $$

    At $\beta_1 = \beta_2$ it is Signum. Every entry of the update is 1, -1, or 0 where the average is exactly zero;
    scaling the loss changes nothing.

    Args:
        b1: Weight of the momentum in the update, $0 \le \beta_1 < 1$. Default 0.9.
        b2: Exponential decay rate of past gradients, $0 \le \beta_2 < 1$. Default 0.99.
        mu_dtype: Dtype of the momentum. Default None: the dtype of the parameters. Set `"float32"` for bfloat16
            parameters and `b2` near 1.

    Returns:
        The Optax transformation; its state has one array of the parameter's shape for every parameter.

    Raises:
        ValueError: An argument is out of range.

    Source:
        Chen et al. 2023, https://arxiv.org/abs/2302.06675, algorithm 2.
    """
    check_decay_rate("b1", b1)
    check_decay_rate("b2", b2)
    mu_dtype = check_float_dtype("mu_dtype", mu_dtype)
    b1, b2 = hyperparameter(b1), hyperparameter(b2)

    def init(params: Tree) -> EmaMomentumState:
        return EmaMomentumState(jnp.zeros([], jnp.int32), zeros_like_first_moment(params, mu_dtype))

    def update(updates: Tree, state: EmaMomentumState, params: Tree | None = None) -> tuple[Tree, EmaMomentumState]:
        def rule(g: Array, m: Array) -> tuple[Array, Array]:
            u = jnp.sign(b1 * m + (1 - b1) * g)
            m = b2 * m + (1 - b2) * g
            return u, m

        u, m = map_rule(rule, updates, params, state.mu)
        return u, EmaMomentumState(optax.safe_increment(state.count), m)

    return with_state_check(optax.GradientTransformation(init, update))


def lion(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.99,
    *,
    weight_decay: ScalarOrSchedule = 1e-3,
    mask: Mask | None = None,
    cautious: bool = False,
    mu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Optimize with Lion and decoupled weight decay: every weight moves by the learning rate.

    `scale_by_lion` has the rule. The paper's learning rates are a third to a tenth of AdamW's, with three to ten times
    its weight decay, because every entry of an update has size 1.

    Args:
        learning_rate: Step size $\eta$ of every weight, a number or a schedule of the step count.
        b1: Weight of the momentum in the update, $0 \le \beta_1 < 1$. Default 0.9.
        b2: Exponential decay rate of past gradients, $0 \le \beta_2 < 1$. Default 0.99. The paper takes 0.95 and 0.98
            for `b1` and `b2` where training is unstable.
        weight_decay: Strength $\lambda$ of the decoupled weight decay, a number or a schedule of the step count. It is
            multiplied by the learning rate. Default 1e-3, as in Optax.
        mask: Parameters that decay: a tree of booleans, a prefix of one, or a function from the parameters to such a
            tree. Default None: all parameters. Set it to exclude biases and norms.
        cautious: Whether to decay only where update and weight agree in sign. Default False.
        mu_dtype: Dtype of the momentum. Default None: the dtype of the parameters. Set `"float32"` for bfloat16
            parameters and `b2` near 1.

    Returns:
        The optimizer as an Optax transformation.

    Raises:
        ValueError: An argument is out of range.

    Source:
        Chen et al. 2023, https://arxiv.org/abs/2302.06675, algorithm 2 and section 5.
    """
    return checked_chain(
        scale_by_lion(b1, b2, mu_dtype=mu_dtype),
        add_decayed_weights(weight_decay, mask, cautious=cautious),
        scale_by_learning_rate(learning_rate),
    )
