"""EAdam: Adam whose eps is added to the second moment at every step and accumulates there."""

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
    one_minus_power,
    safe_divide,
    safe_sqrt,
    scale_by_learning_rate,
    zeros_like_first_moment,
)
from jaxopt_tour.optimizers._state_check import checked_chain, with_state_check
from jaxopt_tour.optimizers.weight_decay import Mask, add_decayed_weights


class EAdamState(NamedTuple):
    """State of `scale_by_eadam`: a saved second moment of Adam, which has no eps in it, must not be taken for it."""

    count: Array  # type: ignore[assignment]  # t, int32
    mu: Tree  # m_t, EMA of g
    nu_with_eps: Tree  # v_t, EMA of g^2 with the eps of every step


def scale_by_eadam(
    b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-8, *, mu_dtype: DTypeLike | None = None
) -> optax.GradientTransformation:
    r"""Rescale updates by EAdam's rule.

    $$
    \begin{aligned}
    m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
    v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 + \epsilon \\
    u_t &= \frac{m_t / (1 - \beta_1^t)}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon}
    \end{aligned}
    $$

    The accumulated part of the corrected $v$ is $\epsilon / (1 - \beta_2)$ at every step, so with the defaults the root
    is at least $\sqrt{10^{-5}} = 0.003$: EAdam is Adam with `eps_root = eps / (1 - b2)`. Updates have size up to about
    1; weights whose gradients are below 0.003 take shorter steps.

    Args:
        b1: Exponential decay rate of the first moment of past gradients, $0 \le \beta_1 < 1$. Default 0.9.
        b2: Exponential decay rate of the second moment of past gradients, $0 \le \beta_2 < 1$. Default 0.999. Lower
            it (0.95) for short runs and language models.
        eps: Constant added to the second moment at every step and to the denominator. Default 1e-8. Gradients smaller
            than $\sqrt{\epsilon / (1 - \beta_2)}$ take shorter steps.
        mu_dtype: Dtype of the first moment. Default None: the dtype of the parameters. Set `"float32"` for bfloat16
            parameters and `b1` near 1. The second moment has at least float32.

    Returns:
        The Optax transformation; its state has two arrays of the parameter's shape for every parameter.

    Raises:
        ValueError: An argument is out of range.

    Source:
        Yuan & Gao 2020, https://arxiv.org/abs/2011.02150. Some texts omit the eps added to the root; with the defaults
        it is less than 4e-6 of the root.
    """
    check_decay_rate("b1", b1)
    check_decay_rate("b2", b2)
    check_nonnegative("eps", eps)
    mu_dtype = check_float_dtype("mu_dtype", mu_dtype)
    b1, b2, eps = map(hyperparameter, (b1, b2, eps))

    def init(params: Tree) -> EAdamState:
        return EAdamState(
            jnp.zeros([], jnp.int32), zeros_like_first_moment(params, mu_dtype), full_like_second_moment(params)
        )

    def update(updates: Tree, state: EAdamState, params: Tree | None = None) -> tuple[Tree, EAdamState]:
        t = optax.safe_increment(state.count)
        c1, c2 = one_minus_power(b1, t), one_minus_power(b2, t)

        def rule(g: Array, m: Array, v: Array) -> tuple[Array, Array, Array]:
            g = clip_to_square_range(g)
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * abs_squared(g) + eps
            u = safe_divide(m / c1, safe_sqrt(v / c2) + eps)
            return u, m, v

        u, m, v = map_rule(rule, updates, params, state.mu, state.nu_with_eps)
        return u, EAdamState(t, m, v)

    return with_state_check(optax.GradientTransformation(init, update))


def eadam(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    *,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
    cautious: bool = False,
    mu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Optimize with EAdam and optional decoupled weight decay.

    `scale_by_eadam` has the rule.

    Args:
        learning_rate: Step size $\eta$, a number or a schedule of the step count.
        b1: Exponential decay rate of the first moment of past gradients, $0 \le \beta_1 < 1$. Default 0.9.
        b2: Exponential decay rate of the second moment of past gradients, $0 \le \beta_2 < 1$. Default 0.999. Lower
            it (0.95) for short runs and language models.
        eps: Constant added to the second moment at every step and to the denominator. Default 1e-8. Gradients smaller
            than $\sqrt{\epsilon / (1 - \beta_2)}$ take shorter steps.
        weight_decay: Strength $\lambda$ of the decoupled weight decay, a number or a schedule of the step count. It is
            multiplied by the learning rate. Default 0.
        mask: Parameters that decay: `"matrices"`, a tree of booleans, a prefix of one, or a function from the
            parameters to such a tree. Default None: all parameters. Set it to exclude biases and norms.
        cautious: Whether to decay only where update and weight agree in sign. Default False.
        mu_dtype: Dtype of the first moment. Default None: the dtype of the parameters. Set `"float32"` for bfloat16
            parameters and `b1` near 1.

    Returns:
        The optimizer as an Optax transformation.

    Raises:
        ValueError: An argument is out of range.
    """
    return checked_chain(
        scale_by_eadam(b1, b2, eps, mu_dtype=mu_dtype),
        add_decayed_weights(weight_decay, mask, cautious=cautious),
        scale_by_learning_rate(learning_rate),
    )
