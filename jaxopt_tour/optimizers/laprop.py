"""LaProp: the exponential average of gradients that are already divided by their root mean square."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import optax

from jaxopt_tour._checks import check_decay_rate, check_flag, check_float_dtype, check_nonnegative
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


class LaPropState(NamedTuple):
    """State of `scale_by_laprop`."""

    count: Array  # type: ignore[assignment]  # t, int32
    ratio: Tree  # s_t, EMA of g / sqrt(v)
    nu: Tree  # v_t, EMA of g^2


def scale_by_laprop(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    *,
    bias_correction: bool = False,
    mu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformation:
    r"""Rescale updates by LaProp's rule: normalize gradients first, then average them.

    $$
    \begin{aligned}
    v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
    s_t &= \beta_1 s_{t-1} + (1 - \beta_1) \frac{g_t}{\sqrt{v_t} + \epsilon} \\
    u_t &= s_t
    \end{aligned}
    $$

    With `bias_correction`:

    $$
    \begin{aligned}
    s_t &= \beta_1 s_{t-1} + (1 - \beta_1) \frac{g_t}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon} \\
    u_t &= \frac{s_t}{1 - \beta_1^t}
    \end{aligned}
    $$

    Adam divides the average of gradients by the present root; LaProp divides every gradient by the root at its own
    step. One huge gradient therefore enters $s$ with a bounded size and does not outweigh earlier gradients. The first
    update has size $(1 - \beta_1) / \sqrt{1 - \beta_2}$, with bias correction 1. Scaling the loss changes only the
    relative size of `eps`.

    Args:
        b1: Exponential decay rate of the average of normalized gradients, $0 \le \beta_1 < 1$. Default 0.9.
        b2: Exponential decay rate of the second moment of past gradients, $0 \le \beta_2 < 1$. Default 0.999. Lower
            it (0.95) for short runs and language models.
        eps: Constant added to the denominator outside the square root, to avoid dividing by zero. Default 1e-8. Raise
            it to shorten the steps of weights with small gradients.
        bias_correction: Whether to divide the averages by $1 - \beta^t$, as the paper does. Default False.
        mu_dtype: Dtype of $s$. Default None: the dtype of the parameters. Set `"float32"` for bfloat16 parameters and
            `b1` near 1. The second moment has at least float32.

    Returns:
        The Optax transformation; its state has two arrays of the parameter's shape for every parameter.

    Raises:
        ValueError: An argument is out of range.

    Source:
        Ziyin et al. 2020, https://arxiv.org/abs/2002.04839 (LaProp, with bias correction).
    """
    check_decay_rate("b1", b1)
    check_decay_rate("b2", b2)
    check_nonnegative("eps", eps)
    check_flag("bias_correction", bias_correction)
    mu_dtype = check_float_dtype("mu_dtype", mu_dtype)
    b1, b2, eps = map(hyperparameter, (b1, b2, eps))

    def init(params: Tree) -> LaPropState:
        s, v = zeros_like_first_moment(params, mu_dtype), full_like_second_moment(params)
        return LaPropState(jnp.zeros([], jnp.int32), s, v)

    def update(updates: Tree, state: LaPropState, params: Tree | None = None) -> tuple[Tree, LaPropState]:
        t = optax.safe_increment(state.count)
        c1, c2 = (one_minus_power(b, t) if bias_correction else 1.0 for b in (b1, b2))

        def rule(g: Array, s: Array, v: Array) -> tuple[Array, Array, Array]:
            g = clip_to_square_range(g)
            v = b2 * v + (1 - b2) * abs_squared(g)
            s = b1 * s + (1 - b1) * safe_divide(g, safe_sqrt(v / c2) + eps)
            u = s / c1
            return u, s, v

        u, s, v = map_rule(rule, updates, params, state.ratio, state.nu)
        return u, LaPropState(t, s, v)

    return with_state_check(optax.GradientTransformation(init, update))


def laprop(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    *,
    bias_correction: bool = False,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
    cautious: bool = False,
    mu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Optimize with LaProp and optional decoupled weight decay.

    `scale_by_laprop` has the rule.

    Args:
        learning_rate: Step size $\eta$, a number or a schedule of the step count.
        b1: Exponential decay rate of the average of normalized gradients, $0 \le \beta_1 < 1$. Default 0.9.
        b2: Exponential decay rate of the second moment of past gradients, $0 \le \beta_2 < 1$. Default 0.999. Lower
            it (0.95) for short runs and language models.
        eps: Constant added to the denominator outside the square root, to avoid dividing by zero. Default 1e-8. Raise
            it to shorten the steps of weights with small gradients.
        bias_correction: Whether to divide the averages by $1 - \beta^t$, as the paper does. Default False.
        weight_decay: Strength $\lambda$ of the decoupled weight decay, a number or a schedule of the step count. It is
            multiplied by the learning rate. Default 0.
        mask: Parameters that decay: `"matrices"`, a tree of booleans, a prefix of one, or a function from the
            parameters to such a tree. Default None: all parameters. Set it to exclude biases and norms.
        cautious: Whether to decay only where update and weight agree in sign. Default False.
        mu_dtype: Dtype of the average of normalized gradients. Default None: the dtype of the parameters. Set
            `"float32"` for bfloat16 parameters and `b1` near 1.

    Returns:
        The optimizer as an Optax transformation.

    Raises:
        ValueError: An argument is out of range.
    """
    return checked_chain(
        scale_by_laprop(b1, b2, eps, bias_correction=bias_correction, mu_dtype=mu_dtype),
        add_decayed_weights(weight_decay, mask, cautious=cautious),
        scale_by_learning_rate(learning_rate),
    )
