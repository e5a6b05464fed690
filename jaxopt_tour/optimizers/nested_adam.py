"""Nested Adam: the exponential average taken outside the ratio, of normalized gradients."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import optax

from jaxopt_tour._checks import check_decay_rate, check_flag, check_float_dtype, check_nonnegative
from jaxopt_tour._types import Array, DTypeLike, ScalarOrSchedule, Tree
from jaxopt_tour.optimizers._numerics import (
    Scalar,
    abs_squared,
    first_moment,
    hyperparameter,
    limit,
    map_rule,
    one_minus_power,
    safe_divide,
    safe_sqrt,
    scale_by_learning_rate,
    second_moment,
)
from jaxopt_tour.optimizers.weight_decay import Mask, add_decayed_weights


class NestedAdamState(NamedTuple):
    """State of `scale_by_nested_adam`."""

    count: Array  # type: ignore[assignment]  # t, int32
    mu: Tree  # s_t, EMA of the ratio
    nu: Tree  # v_t, EMA of g^2


def scale_by_nested_adam(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    *,
    bias_correction: bool = False,
    mu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformation:
    """Adam with its two averages nested, one inside the other instead of side by side::

        v <- b2 v + (1 - b2) g^2
        s <- b1 s + (1 - b1) g / (sqrt(v) + eps)
        u = s

    With ``bias_correction``::

        s <- b1 s + (1 - b1) g / (sqrt(v / (1 - b2^t)) + eps)
        u = s / (1 - b1^t)

    Each gradient is divided by the root of its own time, so one huge gradient enters s with a bounded size and does
    not outweigh what was gathered before. The first update has size ``(1 - b1) / sqrt(1 - b2)``, corrected 1.

    Source: Ziyin et al. 2020, https://arxiv.org/abs/2002.04839 (LaProp, which has the bias correction).

    Args:
        b1: decay of s.
        b2: decay of v.
        eps: added to the root.
        bias_correction: divide the averages by ``1 - b^t``.
        mu_dtype: dtype of s; None: the parameters'. v is at least float32.
    """
    check_decay_rate("b1", b1)
    check_decay_rate("b2", b2)
    check_nonnegative("eps", eps)
    check_flag("bias_correction", bias_correction)
    mu_dtype = check_float_dtype("mu_dtype", mu_dtype)
    b1, b2, eps = map(hyperparameter, (b1, b2, eps))

    def init(params: Tree) -> NestedAdamState:
        return NestedAdamState(jnp.zeros([], jnp.int32), first_moment(params, mu_dtype), second_moment(params))

    def update(updates: Tree, state: NestedAdamState, params: Tree | None = None) -> tuple[Tree, NestedAdamState]:
        t = optax.safe_increment(state.count)
        c1, c2 = (one_minus_power(b, t) if bias_correction else 1.0 for b in (b1, b2))

        def rule(g: Array, s: Array, v: Array) -> tuple[Array, Array, Array]:
            g = limit(g)
            v = b2 * v + (1 - b2) * abs_squared(g)
            s = b1 * s + (1 - b1) * safe_divide(g, safe_sqrt(v / c2) + eps)
            u = s / c1
            return u, s, v

        u, s, v = map_rule(rule, updates, params, state.mu, state.nu)
        return u, NestedAdamState(t, s, v)

    return optax.GradientTransformation(init, update)


def nested_adam(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    *,
    bias_correction: bool = False,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask | None = None,
    cautious: bool = False,
    mu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Nested Adam; the rule is in `scale_by_nested_adam`.

    Args:
        learning_rate: eta.
        b1: decay of s.
        b2: decay of v.
        eps: added to the root.
        bias_correction: divide the averages by ``1 - b^t``.
        weight_decay: lambda, decoupled.
        weight_decay_mask: which parameters decay, as in `add_decayed_weights`.
        cautious: decay only where update and weight agree in sign.
        mu_dtype: dtype of s; None: the parameters'.
    """
    return optax.chain(
        scale_by_nested_adam(b1, b2, eps, bias_correction=bias_correction, mu_dtype=mu_dtype),
        add_decayed_weights(weight_decay, weight_decay_mask, cautious=cautious),
        scale_by_learning_rate(learning_rate),
    )
