"""Momentum: heavy ball and Nesterov's look-ahead, as a sum of gradients or as their exponential average."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax.numpy as jnp
import optax

from jaxopt_tour._checks import check_choice, check_decay_rate, check_flag, check_float_dtype
from jaxopt_tour._types import Array, DTypeLike, ScalarOrSchedule, Tree
from jaxopt_tour.optimizers._numerics import (
    Scalar,
    first_moment,
    hyperparameter,
    map_rule,
    one_minus_power,
    scale_by_learning_rate,
)
from jaxopt_tour.optimizers.weight_decay import Mask, add_decayed_weights


class MomentumState(NamedTuple):
    """State of `scale_by_momentum`."""

    count: Array  # type: ignore[assignment]  # t, int32
    trace: Tree  # m_t, sum or exponential average of g


def scale_by_momentum(
    decay: Scalar = 0.9,
    *,
    form: Literal["sum", "ema"] = "sum",
    nesterov: bool = False,
    bias_correction: bool = False,
    accumulator_dtype: DTypeLike | None = None,
) -> optax.GradientTransformation:
    """Momentum, with ``w = 1`` in the sum form and ``w = 1 - beta`` in the EMA form::

        m <- beta m + w g
        u = m                   nesterov=False
        u = beta m + w g        nesterov=True, with m already updated

    With ``bias_correction`` (EMA form only)::

        u = m / (1 - beta^t)                                            nesterov=False
        u = beta m / (1 - beta^(t+1)) + (1 - beta) g / (1 - beta^t)     nesterov=True, as Optax's NAdam and Muon

    Under a constant gradient the sum form grows to ``g / (1 - beta)``; the EMA form stays in units of the gradient.

    Sources: Polyak 1964, https://doi.org/10.1016/0041-5553(64)90137-5; Sutskever et al. 2013,
    https://proceedings.mlr.press/v28/sutskever13.html (the look-ahead form, as torch.optim.SGD has it); Dozat 2016,
    https://openreview.net/pdf?id=OM0jvwB8jIp57ZJjtNEZ (the two corrections).

    Args:
        decay: beta.
        form: "sum" or "ema".
        nesterov: look one step ahead.
        bias_correction: divide by the weights summed so far; only for ``form="ema"``.
        accumulator_dtype: dtype of m; None: the parameters'.

    Raises:
        ValueError: ``bias_correction`` with ``form="sum"``, whose weights do not sum to one.
    """
    check_decay_rate("decay", decay)
    check_choice("form", form, ("sum", "ema"))
    check_flag("nesterov", nesterov)
    check_flag("bias_correction", bias_correction)
    if bias_correction and form == "sum":
        raise ValueError('bias_correction needs form="ema"; the sum form has no bias to correct')
    accumulator_dtype = check_float_dtype("accumulator_dtype", accumulator_dtype)
    beta = hyperparameter(decay)
    w = 1.0 if form == "sum" else 1 - beta

    def init(params: Tree) -> MomentumState:
        return MomentumState(jnp.zeros([], jnp.int32), first_moment(params, accumulator_dtype))

    def update(updates: Tree, state: MomentumState, params: Tree | None = None) -> tuple[Tree, MomentumState]:
        t = optax.safe_increment(state.count)
        now, ahead = (one_minus_power(beta, s) if bias_correction else 1.0 for s in (t, optax.safe_increment(t)))

        def rule(g: Array, m: Array) -> tuple[Array, Array]:
            m = beta * m + w * g
            u = beta * m / ahead + w * g / now if nesterov else m / now
            return u, m

        u, m = map_rule(rule, updates, params, state.trace)
        return u, MomentumState(t, m)

    return optax.GradientTransformation(init, update)


def momentum(
    learning_rate: ScalarOrSchedule,
    decay: Scalar = 0.9,
    *,
    form: Literal["sum", "ema"] = "sum",
    nesterov: bool = False,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask | None = None,
    accumulator_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Gradient descent with momentum; the rule is in `scale_by_momentum`.

    Args:
        learning_rate: eta.
        decay: beta.
        form: "sum" (torch.optim.SGD, ``optax.sgd``) or "ema".
        nesterov: look one step ahead.
        weight_decay: lambda, coupled L2.
        weight_decay_mask: which parameters decay, as in `add_decayed_weights`.
        accumulator_dtype: dtype of the momentum; None: the parameters'.
    """
    return optax.chain(
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_momentum(decay, form=form, nesterov=nesterov, accumulator_dtype=accumulator_dtype),
        scale_by_learning_rate(learning_rate),
    )


def nesterov(
    learning_rate: ScalarOrSchedule,
    decay: Scalar = 0.9,
    *,
    form: Literal["sum", "ema"] = "sum",
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask | None = None,
    accumulator_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Gradient descent with Nesterov momentum: `momentum` with ``nesterov=True`` and the same arguments."""
    return optax.chain(
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_momentum(decay, form=form, nesterov=True, accumulator_dtype=accumulator_dtype),
        scale_by_learning_rate(learning_rate),
    )
