"""EAdam: Adam whose eps is added to the second moment at every step and accumulates there."""

from __future__ import annotations

import jax.numpy as jnp
import optax

from jaxopt_tour._checks import check_decay_rate, check_float_dtype, check_nonnegative
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
from jaxopt_tour.optimizers.adam import AdamState
from jaxopt_tour.optimizers.weight_decay import Mask, add_decayed_weights


def scale_by_eadam(
    b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-8, *, mu_dtype: DTypeLike | None = None
) -> optax.GradientTransformation:
    """EAdam::

        m <- b1 m + (1 - b1) g
        v <- b2 v + (1 - b2) g^2 + eps
        m^ = m / (1 - b1^t)
        v^ = v / (1 - b2^t)
        u = m^ / (sqrt(v^) + eps)

    The accumulated part of v^ is ``eps / (1 - b2)`` at every step, so with the defaults the root is never below
    ``sqrt(1e-5) = 0.003``: EAdam is Adam with ``eps_root = eps / (1 - b2)``. Updates have size up to about 1, and
    gradients below 0.003 move their weights less than that.

    Source: Yuan & Gao 2020, https://arxiv.org/abs/2011.02150. Some write it without the eps beside the root; with the
    defaults that eps is less than 4e-6 of the root.

    Args:
        b1: decay of m.
        b2: decay of v.
        eps: added to v at every step, and to the root.
        mu_dtype: dtype of m; None: the parameters'. v is at least float32.
    """
    check_decay_rate("b1", b1)
    check_decay_rate("b2", b2)
    check_nonnegative("eps", eps)
    mu_dtype = check_float_dtype("mu_dtype", mu_dtype)
    b1, b2, eps = map(hyperparameter, (b1, b2, eps))

    def init(params: Tree) -> AdamState:
        return AdamState(jnp.zeros([], jnp.int32), first_moment(params, mu_dtype), second_moment(params))

    def update(updates: Tree, state: AdamState, params: Tree | None = None) -> tuple[Tree, AdamState]:
        t = optax.safe_increment(state.count)
        c1, c2 = one_minus_power(b1, t), one_minus_power(b2, t)

        def rule(g: Array, m: Array, v: Array) -> tuple[Array, Array, Array]:
            g = limit(g)
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * abs_squared(g) + eps
            u = safe_divide(m / c1, safe_sqrt(v / c2) + eps)
            return u, m, v

        u, m, v = map_rule(rule, updates, params, state.mu, state.nu)
        return u, AdamState(t, m, v)

    return optax.GradientTransformation(init, update)


def eadam(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    *,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask | None = None,
    cautious: bool = False,
    mu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """EAdam; the rule is in `scale_by_eadam`.

    Args:
        learning_rate: eta.
        b1: decay of m.
        b2: decay of v.
        eps: added to v at every step, and to the root.
        weight_decay: lambda, decoupled.
        weight_decay_mask: which parameters decay, as in `add_decayed_weights`.
        cautious: decay only where update and weight agree in sign.
        mu_dtype: dtype of m; None: the parameters'.
    """
    return optax.chain(
        scale_by_eadam(b1, b2, eps, mu_dtype=mu_dtype),
        add_decayed_weights(weight_decay, weight_decay_mask, cautious=cautious),
        scale_by_learning_rate(learning_rate),
    )
