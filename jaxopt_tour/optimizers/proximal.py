"""Proximal decay: the penalties |theta|_1 and |theta|^2 by their proximal operators, after the update."""

from __future__ import annotations

import jax.numpy as jnp
import optax

from jaxopt_tour._checks import check_rate
from jaxopt_tour._types import Array, ScalarOrSchedule, Tree
from jaxopt_tour.optimizers._numerics import hyperparameter
from jaxopt_tour.optimizers.weight_decay import Mask, WeightDecayState, as_mask, map_masked


def proximal_decay(
    learning_rate: ScalarOrSchedule,
    *,
    l1: ScalarOrSchedule = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
) -> optax.GradientTransformation:
    r"""Shrink the new weights by the proximal operator of $\lambda_1 |\theta|_1 + \frac{\lambda_2}{2} |\theta|^2$.

    $$
    \begin{aligned}
    \theta' &= \theta_{t-1} + u_t \\
    \theta_t &= \frac{\operatorname{sign}(\theta') \max(|\theta'| - \eta \lambda_1, 0)}{1 + \eta \lambda_2}
    \end{aligned}
    $$

    It ends a chain, after the learning rate, in place of `add_decayed_weights`:

    ```python
    tx = optax.chain(jt.adam(1e-3), jt.proximal_decay(1e-3, l1=0.01))
    ```

    With `l1`, weights whose update does not exceed the threshold $\eta \lambda_1$ become exactly zero (soft
    thresholding). The gradient of the penalty, a sign, would make them alternate around zero instead, and an optimizer
    that divides by the size of the gradient would divide it too.

    With `weight_decay` it is the exact form of what decoupled weight decay is to first order:
    $(1 + \eta \lambda)^{-1} = 1 - \eta \lambda + O(\eta^2 \lambda^2)$, and the new weights shrink, not the old ones. It
    is stable at every $\eta \lambda$.

    Args:
        learning_rate: Step size $\eta$ of the optimizer before it, a number or a schedule of the step count.
        l1: Strength $\lambda_1$ of the L1 penalty, a number or a schedule of the step count. Default 0.
        weight_decay: Strength $\lambda_2$ of the squared penalty, a number or a schedule of the step count. Default 0.
        mask: Parameters that decay, as in `add_decayed_weights`. Default None: all parameters.

    Returns:
        The Optax transformation; its state is a step count.

    Raises:
        ValueError: An argument is out of range, or `update` is called without `params`.

    Source:
        Parikh & Boyd 2014, Proximal Algorithms, sections 6.5.2 and 6.5.3,
        https://web.stanford.edu/~boyd/papers/prox_algs.html; for adaptive methods, Zhuang et al. 2022,
        https://arxiv.org/abs/2202.00089.
    """
    for name, value in {"learning_rate": learning_rate, "l1": l1, "weight_decay": weight_decay}.items():
        check_rate(name, value)
    mask_for = as_mask(mask)

    def init(params: Tree) -> WeightDecayState:
        del params
        return WeightDecayState(jnp.zeros([], jnp.int32))

    def update(updates: Tree, state: WeightDecayState, params: Tree | None = None) -> tuple[Tree, WeightDecayState]:
        if params is None:
            raise ValueError("proximal_decay needs the parameters: call update(updates, state, params)")
        eta, l1_now, l2_now = (
            hyperparameter(value(state.count) if callable(value) else value)
            for value in (learning_rate, l1, weight_decay)
        )

        def shrink(u: Array, theta: Array) -> Array:
            ahead = theta + u
            size = jnp.abs(ahead)
            # The change, not the difference of two weights: without a penalty the update is the one that came in.
            kept = jnp.where(size > eta * l1_now, 1 - eta * l1_now / jnp.where(size > 0, size, 1), 0)
            shrunk = kept / (1 + eta * l2_now)
            return jnp.where(shrunk == 1, u, ahead * shrunk - theta)

        shrunk = map_masked(shrink, mask_for(params), updates, params)
        return shrunk, WeightDecayState(optax.safe_increment(state.count))

    return optax.GradientTransformation(init, update)
