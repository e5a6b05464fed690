"""Adam and AdamW, with bias correction and initial moments as two independent options."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import jax.numpy as jnp
import optax

from jaxopt_tour._checks import check_choice, check_decay_rate, check_flag, check_float_dtype, check_nonnegative
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
from jaxopt_tour.optimizers.weight_decay import Mask, add_decayed_weights, add_l2

InitialMoments = Literal["zeros", "first_gradient"]


class AdamState(NamedTuple):
    """State of `scale_by_adam`."""

    count: Array  # type: ignore[assignment]  # t, int32
    mu: Tree  # m_t, EMA of g
    nu: Tree  # v_t, EMA of g^2


def scale_by_adam(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    *,
    bias_correction: bool = True,
    initial_moments: InitialMoments = "zeros",
    nesterov: bool = False,
    mu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformation:
    r"""Rescale updates by Adam's rule.

    $$
    \begin{aligned}
    m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
    v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
    \hat m_t &= m_t / (1 - \beta_1^t) \\
    \hat v_t &= v_t / (1 - \beta_2^t) \\
    u_t &= \frac{\hat m_t}{\sqrt{\hat v_t + \epsilon_\text{root}} + \epsilon}
    \end{aligned}
    $$

    `nesterov` (NAdam) replaces $\hat m_t$ by

    $$
    \frac{\beta_1 m_t}{1 - \beta_1^{t+1}} + \frac{(1 - \beta_1) g_t}{1 - \beta_1^t} .
    $$

    Without `bias_correction` all divisors $1 - \beta^t$ are 1. With `initial_moments="first_gradient"` the averages
    start at $m_0 = g_1$ and $v_0 = g_1^2$ in place of 0. The two options are independent, and the first update is the
    sign of the gradient times

    | | zeros | first_gradient |
    |---|---|---|
    | bias_correction=True | 1 | sqrt(1 - b2) / (1 - b1) |
    | bias_correction=False | (1 - b1) / sqrt(1 - b2) | 1 |

    Later updates have size up to about 1, smaller where the sign of the gradient changes. Scaling the loss changes only
    the relative size of `eps` and `eps_root`.

    Args:
        b1: Exponential decay rate of the first moment $m$ of past gradients, $0 \le \beta_1 < 1$. Default 0.9.
        b2: Exponential decay rate of the second moment $v$ of past gradients, $0 \le \beta_2 < 1$. Default 0.999.
            Lower it (0.95) for short runs and language models.
        eps: Constant added to the denominator outside the square root, to avoid dividing by zero. Default 1e-8. Raise
            it to shorten the steps of weights with small gradients.
        eps_root: Constant added to the denominator inside the square root. Default 0. Derivatives through the optimizer
            are finite at 0 too, unlike in Optax.
        bias_correction: Whether to divide the averages by $1 - \beta^t$. Default True, as published.
        initial_moments: `"zeros"` (default, as published) or `"first_gradient"`, the first gradient and its square.
        nesterov: Whether to use Nesterov momentum (NAdam). Default False.
        mu_dtype: Dtype of the first moment. Default None: the dtype of the parameters. Set `"float32"` for bfloat16
            parameters and `b1` near 1. The second moment has at least float32.

    Returns:
        The Optax transformation; its state has two arrays of the parameter's shape for every parameter.

    Raises:
        ValueError: An argument is out of range.

    Source:
        Kingma & Ba 2015, https://arxiv.org/abs/1412.6980, algorithm 1; Dozat 2016,
        https://openreview.net/pdf?id=OM0jvwB8jIp57ZJjtNEZ (Nesterov as in Optax, without the paper's extra b2 in the
        second moment and its schedule of b1, so it differs from `torch.optim.NAdam`).
    """
    check_decay_rate("b1", b1)
    check_decay_rate("b2", b2)
    check_nonnegative("eps", eps)
    check_nonnegative("eps_root", eps_root)
    check_flag("bias_correction", bias_correction)
    check_choice("initial_moments", initial_moments, get_args(InitialMoments))
    check_flag("nesterov", nesterov)
    mu_dtype = check_float_dtype("mu_dtype", mu_dtype)
    b1, b2, eps, eps_root = map(hyperparameter, (b1, b2, eps, eps_root))

    def init(params: Tree) -> AdamState:
        m, v = zeros_like_first_moment(params, mu_dtype), full_like_second_moment(params)
        return AdamState(jnp.zeros([], jnp.int32), m, v)

    def update(updates: Tree, state: AdamState, params: Tree | None = None) -> tuple[Tree, AdamState]:
        t = optax.safe_increment(state.count)
        times = ((b1, t), (b1, optax.safe_increment(t)), (b2, t))
        c1, c1_ahead, c2 = (one_minus_power(b, s) if bias_correction else 1.0 for b, s in times)

        def rule(g: Array, m: Array, v: Array) -> tuple[Array, Array, Array]:
            g = clip_to_square_range(g)
            if initial_moments == "first_gradient":
                m, v = jnp.where(t == 1, g, m), jnp.where(t == 1, abs_squared(g), v)
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * abs_squared(g)
            m_hat = b1 * m / c1_ahead + (1 - b1) * g / c1 if nesterov else m / c1
            v_hat = v / c2
            u = safe_divide(m_hat, safe_sqrt(v_hat + eps_root) + eps)
            return u, m, v

        u, m, v = map_rule(rule, updates, params, state.mu, state.nu)
        return u, AdamState(t, m, v)

    return with_state_check(optax.GradientTransformation(init, update))


def adam(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    *,
    bias_correction: bool = True,
    initial_moments: InitialMoments = "zeros",
    nesterov: bool = False,
    l2: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
    mu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Optimize with Adam and optional coupled L2, added to the gradient.

    `scale_by_adam` has the rule. `adamw` has decoupled weight decay in place of the L2 term.

    Args:
        learning_rate: Step size $\eta$, a number or a schedule of the step count.
        b1: Exponential decay rate of the first moment of past gradients, $0 \le \beta_1 < 1$. Default 0.9.
        b2: Exponential decay rate of the second moment of past gradients, $0 \le \beta_2 < 1$. Default 0.999. Lower
            it (0.95) for short runs and language models.
        eps: Constant added to the denominator outside the square root, to avoid dividing by zero. Default 1e-8. Raise
            it to shorten the steps of weights with small gradients.
        eps_root: Constant added to the denominator inside the square root. Default 0. Derivatives through the optimizer
            are finite at 0 too, unlike in Optax.
        bias_correction: Whether to divide the averages by $1 - \beta^t$. Default True, as published.
        initial_moments: `"zeros"` (default, as published) or `"first_gradient"`, the first gradient and its square.
        nesterov: Whether to use Nesterov momentum (NAdam). Default False.
        l2: Strength $\lambda$ of the coupled L2 term, a number or a schedule of the step count. Default 0.
        mask: Parameters that the L2 term applies to: `"matrices"`, a tree of booleans, a prefix of one, or a function
            from the parameters to such a tree. Default None: all parameters. Set it to exclude biases and norms.
        mu_dtype: Dtype of the first moment. Default None: the dtype of the parameters. Set `"float32"` for bfloat16
            parameters and `b1` near 1.

    Returns:
        The optimizer as an Optax transformation.

    Raises:
        ValueError: An argument is out of range.
    """
    return checked_chain(
        add_l2(l2, mask),
        scale_by_adam(
            b1,
            b2,
            eps,
            eps_root,
            bias_correction=bias_correction,
            initial_moments=initial_moments,
            nesterov=nesterov,
            mu_dtype=mu_dtype,
        ),
        scale_by_learning_rate(learning_rate),
    )


def adamw(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    *,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask | None = None,
    cautious: bool = False,
    bias_correction: bool = True,
    initial_moments: InitialMoments = "zeros",
    nesterov: bool = False,
    mu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Optimize with AdamW: Adam with decoupled weight decay.

    $$
    \theta_t = (1 - \eta \lambda) \theta_{t-1} - \eta u_t
    $$

    `scale_by_adam` has the rule of $u_t$; `add_decayed_weights` follows it.

    Args:
        learning_rate: Step size $\eta$, a number or a schedule of the step count.
        b1: Exponential decay rate of the first moment of past gradients, $0 \le \beta_1 < 1$. Default 0.9.
        b2: Exponential decay rate of the second moment of past gradients, $0 \le \beta_2 < 1$. Default 0.999. Lower
            it (0.95) for short runs and language models.
        eps: Constant added to the denominator outside the square root, to avoid dividing by zero. Default 1e-8. Raise
            it to shorten the steps of weights with small gradients.
        eps_root: Constant added to the denominator inside the square root. Default 0. Derivatives through the optimizer
            are finite at 0 too, unlike in Optax.
        weight_decay: Strength $\lambda$ of the decoupled weight decay, a number or a schedule of the step count. It is
            multiplied by the learning rate. Default 1e-4.
        mask: Parameters that decay: `"matrices"`, a tree of booleans, a prefix of one, or a function from the
            parameters to such a tree. Default None: all parameters. Set it to exclude biases and norms.
        cautious: Whether to decay only where update and weight agree in sign. Default False.
        bias_correction: Whether to divide the averages by $1 - \beta^t$. Default True, as published.
        initial_moments: `"zeros"` (default, as published) or `"first_gradient"`, the first gradient and its square.
        nesterov: Whether to use Nesterov momentum (NAdamW). Default False.
        mu_dtype: Dtype of the first moment. Default None: the dtype of the parameters. Set `"float32"` for bfloat16
            parameters and `b1` near 1.

    Returns:
        The optimizer as an Optax transformation.

    Raises:
        ValueError: An argument is out of range.

    Source:
        Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101, algorithm 2. The decay is multiplied by the learning
        rate, as in PyTorch and Optax.
    """
    return checked_chain(
        scale_by_adam(
            b1,
            b2,
            eps,
            eps_root,
            bias_correction=bias_correction,
            initial_moments=initial_moments,
            nesterov=nesterov,
            mu_dtype=mu_dtype,
        ),
        add_decayed_weights(weight_decay, mask, cautious=cautious),
        scale_by_learning_rate(learning_rate),
    )
