"""AdaGrad: the learning rate of every weight falls with the sum of its squared gradients."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import optax

from jaxopt_tour._checks import check_float_dtype, check_nonnegative
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


class AdagradState(NamedTuple):
    """State of `scale_by_adagrad`."""

    count: Array  # type: ignore[assignment]  # t, int32
    sum_of_squares: Tree  # r_t, sum of g^2


def scale_by_adagrad(
    *, eps: Scalar = 1e-10, initial_accumulator: Scalar = 0.0, nu_dtype: DTypeLike | None = None
) -> optax.GradientTransformation:
    r"""Rescale updates by AdaGrad's rule.

    $$
    \begin{aligned}
    r_t &= r_{t-1} + g_t^2 \\
    u_t &= \frac{g_t}{\sqrt{r_t} + \epsilon}
    \end{aligned}
    $$

    The first update is the sign of the gradient; with gradients of constant size the $t$-th has size $1/\sqrt{t}$.
    Scaling the loss changes only the relative size of `eps`.

    `torch.optim.Adagrad` has the same rule. `optax.adagrad` starts $r$ at 0.1 and adds `eps` inside the square root.

    Args:
        eps: Constant added to the denominator outside the square root, to avoid dividing by zero. Default 1e-10.
        initial_accumulator: Initial value $r_0$ of the sum of squares. Default 0. A positive value shortens the first
            steps.
        nu_dtype: Dtype of the sum of squares $r$. Default None: that of the parameters, but at least float32. A
            narrower dtype saves memory and loses small squares.

    Returns:
        The Optax transformation; its state has one array of the parameter's shape for every parameter.

    Raises:
        ValueError: An argument is out of range.

    Source:
        Duchi et al. 2011, https://jmlr.org/papers/v12/duchi11a.html, diagonal case.
    """
    check_nonnegative("eps", eps)
    check_nonnegative("initial_accumulator", initial_accumulator)
    nu_dtype = check_float_dtype("nu_dtype", nu_dtype)
    eps = hyperparameter(eps)

    def init(params: Tree) -> AdagradState:
        return AdagradState(jnp.zeros([], jnp.int32), full_like_second_moment(params, nu_dtype, initial_accumulator))

    def update(updates: Tree, state: AdagradState, params: Tree | None = None) -> tuple[Tree, AdagradState]:
        def rule(g: Array, r: Array) -> tuple[Array, Array]:
            g = clip_to_square_range(g)
            r = r + abs_squared(g)
            u = safe_divide(g, safe_sqrt(r) + eps)
            return u, r

        u, r = map_rule(rule, updates, params, state.sum_of_squares)
        return u, AdagradState(optax.safe_increment(state.count), r)

    return with_state_check(optax.GradientTransformation(init, update))


def adagrad(
    learning_rate: ScalarOrSchedule,
    *,
    eps: Scalar = 1e-10,
    initial_accumulator: Scalar = 0.0,
    l2: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
    nu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Optimize with AdaGrad and optional coupled L2, added to the gradient.

    `scale_by_adagrad` has the rule.

    Args:
        learning_rate: Step size $\eta$, a number or a schedule of the step count.
        eps: Constant added to the denominator outside the square root, to avoid dividing by zero. Default 1e-10.
        initial_accumulator: Initial value of the sum of squares. Default 0. A positive value shortens the first steps.
        l2: Strength $\lambda$ of the coupled L2 term, a number or a schedule of the step count. Default 0.
        mask: Parameters that the L2 term applies to: `"matrices"`, a tree of booleans, a prefix of one, or a function
            from the parameters to such a tree. Default None: all parameters. Set it to exclude biases and norms.
        nu_dtype: Dtype of the sum of squares. Default None: that of the parameters, but at least float32. A narrower
            dtype saves memory and loses small squares.

    Returns:
        The optimizer as an Optax transformation.

    Raises:
        ValueError: An argument is out of range.
    """
    return checked_chain(
        add_l2(l2, mask),
        scale_by_adagrad(eps=eps, initial_accumulator=initial_accumulator, nu_dtype=nu_dtype),
        scale_by_learning_rate(learning_rate),
    )
