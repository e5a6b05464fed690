"""signSGD and Signum: the sign of the gradient, and the sign of its momentum."""

from __future__ import annotations

import jax.numpy as jnp
import optax

from jaxopt_tour._types import DTypeLike, ScalarOrSchedule, Tree
from jaxopt_tour.optimizers._numerics import Scalar, map_rule, scale_by_learning_rate
from jaxopt_tour.optimizers._state_check import checked_chain
from jaxopt_tour.optimizers.momentum import MomentumForm, scale_by_momentum
from jaxopt_tour.optimizers.weight_decay import Mask, add_decayed_weights


def scale_by_sign() -> optax.GradientTransformation:
    r"""Replace every entry of the updates by its sign.

    $$
    u_t = \operatorname{sign}(g_t)
    $$

    Every entry of the update is 1, -1, or 0 where the gradient is exactly zero; scaling the loss changes nothing. A
    complex entry keeps its direction, $g / |g|$.

    Returns:
        The Optax transformation; it has no state.

    Source:
        Bernstein et al. 2018, https://arxiv.org/abs/1802.04434, algorithm 1.
    """

    def init(params: Tree) -> optax.EmptyState:
        return optax.EmptyState()

    def update(updates: Tree, state: optax.EmptyState, params: Tree | None = None) -> tuple[Tree, optax.EmptyState]:
        (u,) = map_rule(lambda g: (jnp.sign(g),), updates, params)
        return u, state

    return optax.GradientTransformation(init, update)


def signsgd(
    learning_rate: ScalarOrSchedule,
    *,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
    cautious: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Optimize with signSGD and optional decoupled weight decay: every weight moves by the learning rate.

    `scale_by_sign` has the rule.

    Args:
        learning_rate: Step size $\eta$ of every weight, a number or a schedule of the step count.
        weight_decay: Strength $\lambda$ of the decoupled weight decay, a number or a schedule of the step count. It is
            multiplied by the learning rate. Default 0.
        mask: Parameters that decay: `"matrices"`, a tree of booleans, a prefix of one, or a function from the
            parameters to such a tree. Default None: all parameters. Set it to exclude biases and norms.
        cautious: Whether to decay only where update and weight agree in sign. Default False.

    Returns:
        The optimizer as an Optax transformation.

    Raises:
        ValueError: An argument is out of range.
    """
    return checked_chain(
        scale_by_sign(),
        add_decayed_weights(weight_decay, mask, cautious=cautious),
        scale_by_learning_rate(learning_rate),
    )


def signum(
    learning_rate: ScalarOrSchedule,
    *,
    beta: Scalar = 0.9,
    form: MomentumForm = "ema",
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
    cautious: bool = False,
    mu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Optimize with Signum, the sign of the momentum, and optional decoupled weight decay.

    $$
    u_t = \operatorname{sign}(m_t)
    $$

    `scale_by_momentum` has the rule of $m_t$. Its two forms differ by the factor $1 - \beta$ and have the same sign, so
    `form` changes only the numbers in the state.

    Args:
        learning_rate: Step size $\eta$ of every weight, a number or a schedule of the step count.
        beta: Exponential decay rate of past gradients, $0 \le \beta < 1$. Default 0.9. Raise it for noisier gradients.
        form: `"ema"` (default), the exponential moving average, or `"sum"`.
        weight_decay: Strength $\lambda$ of the decoupled weight decay, a number or a schedule of the step count. It is
            multiplied by the learning rate. Default 0.
        mask: Parameters that decay: `"matrices"`, a tree of booleans, a prefix of one, or a function from the
            parameters to such a tree. Default None: all parameters. Set it to exclude biases and norms.
        cautious: Whether to decay only where update and weight agree in sign. Default False.
        mu_dtype: Dtype of the momentum. Default None: the dtype of the parameters. Set `"float32"` for bfloat16
            parameters and `beta` near 1.

    Returns:
        The optimizer as an Optax transformation.

    Raises:
        ValueError: An argument is out of range.

    Source:
        Bernstein et al. 2018, https://arxiv.org/abs/1802.04434, algorithm 2.
    """
    return checked_chain(
        scale_by_momentum(beta, form=form, mu_dtype=mu_dtype),
        scale_by_sign(),
        add_decayed_weights(weight_decay, mask, cautious=cautious),
        scale_by_learning_rate(learning_rate),
    )
