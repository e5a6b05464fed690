"""AdaGrad: every weight's rate falls with the squares of its gradients so far."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import optax

from jaxopt_tour._checks import check_float_dtype, check_nonnegative
from jaxopt_tour._types import Array, DTypeLike, ScalarOrSchedule, Tree
from jaxopt_tour.optimizers._numerics import (
    Scalar,
    abs_squared,
    hyperparameter,
    limit,
    map_rule,
    safe_divide,
    safe_sqrt,
    scale_by_learning_rate,
    second_moment,
)
from jaxopt_tour.optimizers.weight_decay import Mask, add_decayed_weights


class AdagradState(NamedTuple):
    """State of `scale_by_adagrad`."""

    count: Array  # type: ignore[assignment]  # t, int32
    sum_of_squares: Tree  # r_t, sum of g^2


def scale_by_adagrad(
    eps: Scalar = 1e-10, *, initial_accumulator: Scalar = 0.0, accumulator_dtype: DTypeLike | None = None
) -> optax.GradientTransformation:
    """AdaGrad::

        r <- r + g^2
        u = g / (sqrt(r) + eps)

    The first update is the sign of the gradient; with gradients of steady size the t-th has size ``1/sqrt(t)``.

    As in torch.optim.Adagrad. ``optax.adagrad`` starts r at 0.1 and has eps inside the root.

    Source: Duchi et al. 2011, https://jmlr.org/papers/v12/duchi11a.html, diagonal case.

    Args:
        eps: added to the root.
        initial_accumulator: r_0.
        accumulator_dtype: dtype of r; None: at least float32.
    """
    check_nonnegative("eps", eps)
    check_nonnegative("initial_accumulator", initial_accumulator)
    accumulator_dtype = check_float_dtype("accumulator_dtype", accumulator_dtype)
    eps = hyperparameter(eps)

    def init(params: Tree) -> AdagradState:
        return AdagradState(jnp.zeros([], jnp.int32), second_moment(params, accumulator_dtype, initial_accumulator))

    def update(updates: Tree, state: AdagradState, params: Tree | None = None) -> tuple[Tree, AdagradState]:
        def rule(g: Array, r: Array) -> tuple[Array, Array]:
            g = limit(g)
            r = r + abs_squared(g)
            u = safe_divide(g, safe_sqrt(r) + eps)
            return u, r

        u, r = map_rule(rule, updates, params, state.sum_of_squares)
        return u, AdagradState(optax.safe_increment(state.count), r)

    return optax.GradientTransformation(init, update)


def adagrad(
    learning_rate: ScalarOrSchedule,
    eps: Scalar = 1e-10,
    *,
    initial_accumulator: Scalar = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask | None = None,
    accumulator_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """AdaGrad; the rule is in `scale_by_adagrad`.

    Args:
        learning_rate: eta.
        eps: added to the root.
        initial_accumulator: r_0.
        weight_decay: lambda, coupled L2.
        weight_decay_mask: which parameters decay, as in `add_decayed_weights`.
        accumulator_dtype: dtype of r; None: at least float32.
    """
    return optax.chain(
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_adagrad(eps, initial_accumulator=initial_accumulator, accumulator_dtype=accumulator_dtype),
        scale_by_learning_rate(learning_rate),
    )
