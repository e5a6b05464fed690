"""Momentum: heavy ball and Nesterov's look-ahead, as a sum of gradients or as their exponential average."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import jax.numpy as jnp
import optax

from jaxopt_tour._checks import check_choice, check_decay_rate, check_flag, check_float_dtype
from jaxopt_tour._types import Array, DTypeLike, ScalarOrSchedule, Tree
from jaxopt_tour.optimizers._numerics import (
    Scalar,
    hyperparameter,
    map_rule,
    one_minus_power,
    scale_by_learning_rate,
    zeros_like_first_moment,
)
from jaxopt_tour.optimizers._state_check import checked_chain, with_state_check
from jaxopt_tour.optimizers.weight_decay import Mask, add_l2

MomentumForm = Literal["sum", "ema"]


class MomentumState(NamedTuple):
    """State of `scale_by_momentum` in the sum form."""

    count: Array  # type: ignore[assignment]  # t, int32
    trace: Tree  # m_t, sum of g


class EmaMomentumState(NamedTuple):
    """State of `scale_by_momentum` in the EMA form: a saved sum must not be taken for an average."""

    count: Array  # type: ignore[assignment]  # t, int32
    mu: Tree  # m_t, EMA of g


def scale_by_momentum(
    beta: Scalar = 0.9,
    *,
    form: MomentumForm = "sum",
    nesterov: bool = False,
    bias_correction: bool = False,
    mu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformation:
    r"""Replace gradients by their momentum, with $w = 1$ in the sum form and $w = 1 - \beta$ in the EMA form.

    $$
    \begin{aligned}
    m_t &= \beta m_{t-1} + w g_t \\
    u_t &= m_t && \text{without Nesterov} \\
    u_t &= \beta m_t + w g_t && \text{with Nesterov}
    \end{aligned}
    $$

    With `bias_correction` (EMA form only):

    $$
    \begin{aligned}
    u_t &= \frac{m_t}{1 - \beta^t} && \text{without Nesterov} \\
    u_t &= \frac{\beta m_t}{1 - \beta^{t+1}} + \frac{(1 - \beta) g_t}{1 - \beta^t}
        && \text{with Nesterov, as in Optax's NAdam and Muon}
    \end{aligned}
    $$

    Under a constant gradient the sum form grows to $g / (1 - \beta)$; the EMA form keeps the units of the gradient.

    Args:
        beta: Exponential decay rate of past gradients, $0 \le \beta < 1$. Default 0.9. Raise it for noisier gradients.
        form: `"sum"` (default, as in `torch.optim.SGD` and `optax.sgd`) or `"ema"`, the exponential moving average.
            With `"ema"` a change of `beta` does not change the size of the updates.
        nesterov: Whether to use Nesterov momentum, which counts the newest gradient once more. Default False.
        bias_correction: Whether to divide by the sum of the weights so far; only for `form="ema"`. Default False.
        mu_dtype: Dtype of the momentum $m$. Default None: the dtype of the parameters. Set `"float32"` for bfloat16
            parameters and `beta` near 1.

    Returns:
        The Optax transformation; its state has one array of the parameter's shape for every parameter.

    Raises:
        ValueError: An argument is out of range, or `bias_correction` is set with `form="sum"`, whose weights do not
            sum to one.

    Source:
        Polyak 1964, https://doi.org/10.1016/0041-5553(64)90137-5; Sutskever et al. 2013,
        https://proceedings.mlr.press/v28/sutskever13.html (the look-ahead in the form of `torch.optim.SGD`); Dozat
        2016, https://openreview.net/pdf?id=OM0jvwB8jIp57ZJjtNEZ (the two corrections).
    """
    check_decay_rate("beta", beta)
    check_choice("form", form, get_args(MomentumForm))
    check_flag("nesterov", nesterov)
    check_flag("bias_correction", bias_correction)
    if bias_correction and form == "sum":
        raise ValueError('bias_correction needs form="ema"; the sum form has no bias to correct')
    mu_dtype = check_float_dtype("mu_dtype", mu_dtype)
    beta = hyperparameter(beta)
    w = 1.0 if form == "sum" else 1 - beta
    make_state: Any = MomentumState if form == "sum" else EmaMomentumState

    def init(params: Tree) -> MomentumState | EmaMomentumState:
        return make_state(jnp.zeros([], jnp.int32), zeros_like_first_moment(params, mu_dtype))

    def update(
        updates: Tree, state: MomentumState | EmaMomentumState, params: Tree | None = None
    ) -> tuple[Tree, MomentumState | EmaMomentumState]:
        t = optax.safe_increment(state.count)
        c, c_ahead = (one_minus_power(beta, s) if bias_correction else 1.0 for s in (t, optax.safe_increment(t)))

        def rule(g: Array, m: Array) -> tuple[Array, Array]:
            m = beta * m + w * g
            u = beta * m / c_ahead + w * g / c if nesterov else m / c
            return u, m

        u, m = map_rule(rule, updates, params, state.trace if isinstance(state, MomentumState) else state.mu)
        return u, make_state(t, m)

    return with_state_check(optax.GradientTransformation(init, update))


def momentum(
    learning_rate: ScalarOrSchedule,
    *,
    beta: Scalar = 0.9,
    form: MomentumForm = "sum",
    nesterov: bool = False,
    l2: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
    mu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Optimize with gradient descent with momentum and optional coupled L2, added to the gradient.

    `scale_by_momentum` has the rule.

    Args:
        learning_rate: Step size $\eta$, a number or a schedule of the step count.
        beta: Exponential decay rate of past gradients, $0 \le \beta < 1$. Default 0.9. Raise it for noisier gradients;
            in the sum form, lower the learning rate in proportion to $1 - \beta$.
        form: `"sum"` (default, as in `torch.optim.SGD` and `optax.sgd`) or `"ema"`, the exponential moving average.
        nesterov: Whether to use Nesterov momentum. Default False.
        l2: Strength $\lambda$ of the coupled L2 term, a number or a schedule of the step count. Default 0.
        mask: Parameters that the L2 term applies to: `"matrices"`, a tree of booleans, a prefix of one, or a function
            from the parameters to such a tree. Default None: all parameters. Set it to exclude biases and norms.
        mu_dtype: Dtype of the momentum. Default None: the dtype of the parameters. Set `"float32"` for bfloat16
            parameters and `beta` near 1.

    Returns:
        The optimizer as an Optax transformation.

    Raises:
        ValueError: An argument is out of range.
    """
    return checked_chain(
        add_l2(l2, mask),
        scale_by_momentum(beta, form=form, nesterov=nesterov, mu_dtype=mu_dtype),
        scale_by_learning_rate(learning_rate),
    )


def nesterov(
    learning_rate: ScalarOrSchedule,
    *,
    beta: Scalar = 0.9,
    form: MomentumForm = "sum",
    l2: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
    mu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Optimize with Nesterov momentum and optional coupled L2: `momentum` with `nesterov=True`.

    The L2 term is added to the gradient.

    Args:
        learning_rate: Step size $\eta$, a number or a schedule of the step count.
        beta: Exponential decay rate of past gradients, $0 \le \beta < 1$. Default 0.9. Raise it for noisier gradients;
            in the sum form, lower the learning rate in proportion to $1 - \beta$.
        form: `"sum"` (default, as in `torch.optim.SGD` and `optax.sgd`) or `"ema"`, the exponential moving average.
        l2: Strength $\lambda$ of the coupled L2 term, a number or a schedule of the step count. Default 0.
        mask: Parameters that the L2 term applies to: `"matrices"`, a tree of booleans, a prefix of one, or a function
            from the parameters to such a tree. Default None: all parameters. Set it to exclude biases and norms.
        mu_dtype: Dtype of the momentum. Default None: the dtype of the parameters. Set `"float32"` for bfloat16
            parameters and `beta` near 1.

    Returns:
        The optimizer as an Optax transformation.

    Raises:
        ValueError: An argument is out of range.
    """
    return momentum(learning_rate, beta=beta, form=form, nesterov=True, l2=l2, mask=mask, mu_dtype=mu_dtype)
