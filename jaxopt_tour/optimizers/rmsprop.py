"""RMSProp: the gradient divided by the root of its recent mean square, or of its recent variance (centered)."""

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
from jaxopt_tour.optimizers.momentum import scale_by_momentum
from jaxopt_tour.optimizers.weight_decay import Mask, add_l2


class RMSPropState(NamedTuple):
    """State of `scale_by_rmsprop`."""

    count: Array  # type: ignore[assignment]  # t, int32
    mean: Tree  # m_t, EMA of g at the decay rate of s_t; None unless centered
    nu: Tree  # s_t, EMA of g^2


def scale_by_rmsprop(
    beta: Scalar = 0.9,
    *,
    eps: Scalar = 1e-8,
    centered: bool = False,
    eps_in_sqrt: bool = False,
    initial_scale: Scalar = 0.0,
    bias_correction: bool = False,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformation:
    r"""Rescale updates by RMSProp's rule.

    $$
    \begin{aligned}
    s_t &= \beta s_{t-1} + (1 - \beta) g_t^2 \\
    u_t &= \frac{g_t}{\sqrt{s_t} + \epsilon}
    \end{aligned}
    $$

    `centered` divides by the root of the variance, which is clipped at 0 against rounding:

    $$
    \begin{aligned}
    m_t &= \beta m_{t-1} + (1 - \beta) g_t \\
    u_t &= \frac{g_t}{\sqrt{\max(s_t - m_t^2, 0)} + \epsilon}
    \end{aligned}
    $$

    `eps_in_sqrt` moves $\epsilon$ inside the square root; `bias_correction` first divides $s$ and $m$ by
    $1 - \beta^t$. The first update has size $1/\sqrt{1 - \beta}$ (with bias correction, 1), later ones about 1 for
    gradients of constant size. `centered` together with `bias_correction` needs `initial_scale` or a large `eps`: a
    single gradient has no variance, so the first update is $g / \epsilon$.

    `torch.optim.RMSprop` has the same rule. `optax.rmsprop` has `eps_in_sqrt=True` by default.

    Args:
        beta: Exponential decay rate of the average of squared gradients (`decay` in Optax), $0 \le \beta < 1$. Default
            0.9. PyTorch's default is 0.99.
        eps: Constant added to the denominator, to avoid dividing by zero. Default 1e-8. Raise it to shorten the steps
            of weights with small gradients.
        centered: Whether to divide by the standard deviation of the gradient in place of its root mean square. Default
            False.
        eps_in_sqrt: Whether to add `eps` inside the square root, as Optax does. Default False.
        initial_scale: Initial value $s_0$ of the average of squares. Default 0. A positive value shortens the first
            steps.
        bias_correction: Whether to divide the averages by the sum of their weights so far, as Adam does. Default False.
        mu_dtype: Dtype of the mean $m$ that `centered` keeps. Default None: the dtype of the parameters. Set
            `"float32"` for bfloat16 parameters and `beta` near 1.
        nu_dtype: Dtype of the average of squares $s$. Default None: that of the parameters, but at least float32. A
            narrower dtype saves memory and loses small squares.

    Returns:
        The Optax transformation; its state has one array of the parameter's shape for every parameter, two if
        `centered`.

    Raises:
        ValueError: An argument is out of range.

    Source:
        Hinton 2012, https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf, slide 29; Graves 2013,
        https://arxiv.org/abs/1308.0850, equations 38 to 41 (centered).
    """
    check_decay_rate("beta", beta)
    check_nonnegative("eps", eps)
    check_flag("centered", centered)
    check_flag("eps_in_sqrt", eps_in_sqrt)
    check_nonnegative("initial_scale", initial_scale)
    check_flag("bias_correction", bias_correction)
    mu_dtype = check_float_dtype("mu_dtype", mu_dtype)
    nu_dtype = check_float_dtype("nu_dtype", nu_dtype)
    beta, eps = hyperparameter(beta), hyperparameter(eps)

    def init(params: Tree) -> RMSPropState:
        m = zeros_like_first_moment(params, mu_dtype) if centered else None
        return RMSPropState(jnp.zeros([], jnp.int32), m, full_like_second_moment(params, nu_dtype, initial_scale))

    def update(updates: Tree, state: RMSPropState, params: Tree | None = None) -> tuple[Tree, RMSPropState]:
        t = optax.safe_increment(state.count)
        c = one_minus_power(beta, t) if bias_correction else 1.0

        def ratio(g: Array, variance: Array) -> Array:
            root = safe_sqrt(variance + eps) if eps_in_sqrt else safe_sqrt(variance) + eps
            return safe_divide(g, root)

        def rule(g: Array, s: Array) -> tuple[Array, Array]:
            g = clip_to_square_range(g)
            s = beta * s + (1 - beta) * abs_squared(g)
            return ratio(g, s / c), s

        def centered_rule(g: Array, m: Array, s: Array) -> tuple[Array, Array, Array]:
            g = clip_to_square_range(g)
            s = beta * s + (1 - beta) * abs_squared(g)
            m = beta * m + (1 - beta) * g
            return ratio(g, jnp.maximum(s / c - abs_squared(m / c), 0)), m, s

        if centered:
            u, m, s = map_rule(centered_rule, updates, params, state.mean, state.nu)
        else:
            (u, s), m = map_rule(rule, updates, params, state.nu), None
        return u, RMSPropState(t, m, s)

    return with_state_check(optax.GradientTransformation(init, update))


def rmsprop(
    learning_rate: ScalarOrSchedule,
    *,
    beta: Scalar = 0.9,
    eps: Scalar = 1e-8,
    centered: bool = False,
    eps_in_sqrt: bool = False,
    initial_scale: Scalar = 0.0,
    bias_correction: bool = False,
    momentum: Scalar | None = None,
    nesterov: bool = False,
    l2: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Optimize with RMSProp, optional momentum, and optional coupled L2, added to the gradient.

    `scale_by_rmsprop` has the rule. The momentum sums updates before the learning rate multiplies them, as in PyTorch.
    Optax sums them after; the two differ only while the learning rate changes.

    Args:
        learning_rate: Step size $\eta$, a number or a schedule of the step count.
        beta: Exponential decay rate of the average of squared gradients (`decay` in Optax), $0 \le \beta < 1$. Default
            0.9. PyTorch's default is 0.99.
        eps: Constant added to the denominator, to avoid dividing by zero. Default 1e-8. Raise it to shorten the steps
            of weights with small gradients.
        centered: Whether to divide by the standard deviation of the gradient in place of its root mean square. Default
            False.
        eps_in_sqrt: Whether to add `eps` inside the square root, as Optax does. Default False.
        initial_scale: Initial value of the average of squares. Default 0. A positive value shortens the first steps.
        bias_correction: Whether to divide the averages by the sum of their weights so far, as Adam does. Default False.
        momentum: Exponential decay rate of a momentum (sum form) of the updates. Default None: no momentum.
        nesterov: Whether that momentum is Nesterov's; needs `momentum`. Default False.
        l2: Strength $\lambda$ of the coupled L2 term, a number or a schedule of the step count. Default 0.
        mask: Parameters that the L2 term applies to: `"matrices"`, a tree of booleans, a prefix of one, or a function
            from the parameters to such a tree. Default None: all parameters. Set it to exclude biases and norms.
        mu_dtype: Dtype of the momentum and of the mean that `centered` keeps. Default None: the dtype of the
            parameters. Set `"float32"` for bfloat16 parameters and decay rates near 1.
        nu_dtype: Dtype of the average of squares. Default None: that of the parameters, but at least float32. A
            narrower dtype saves memory and loses small squares.

    Returns:
        The optimizer as an Optax transformation.

    Raises:
        ValueError: An argument is out of range, or `nesterov` is set without `momentum`.
    """
    check_flag("nesterov", nesterov)
    if momentum is not None:
        check_decay_rate("momentum", momentum)
    if nesterov and momentum is None:
        raise ValueError("nesterov=True needs momentum, a number with 0 <= momentum < 1")
    return checked_chain(
        add_l2(l2, mask),
        scale_by_rmsprop(
            beta,
            eps=eps,
            centered=centered,
            eps_in_sqrt=eps_in_sqrt,
            initial_scale=initial_scale,
            bias_correction=bias_correction,
            mu_dtype=mu_dtype,
            nu_dtype=nu_dtype,
        ),
        optax.identity() if momentum is None else scale_by_momentum(momentum, nesterov=nesterov, mu_dtype=mu_dtype),
        scale_by_learning_rate(learning_rate),
    )
