"""Adam and AdamW, with bias correction and initial moments as two separate switches."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax.numpy as jnp
import optax

from jaxopt_tour._checks import check_choice, check_decay_rate, check_flag, check_float_dtype, check_nonnegative
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
    """Adam::

        m <- b1 m + (1 - b1) g
        v <- b2 v + (1 - b2) g^2
        m^ = m / (1 - b1^t)
        v^ = v / (1 - b2^t)
        u = m^ / (sqrt(v^ + eps_root) + eps)

    ``nesterov`` (NAdam) looks one step ahead: ``m^ = b1 m / (1 - b1^(t+1)) + (1 - b1) g / (1 - b1^t)``.

    Without ``bias_correction`` the four divisors ``1 - b^t`` are 1. With ``initial_moments="first_gradient"`` the
    averages start at ``m_0 = g_1, v_0 = g_1^2`` instead of 0. The switches are independent, and the first update is
    sign(g) times

    | | zeros | first_gradient |
    |---|---|---|
    | bias_correction=True | 1 | sqrt(1 - b2) / (1 - b1) |
    | bias_correction=False | (1 - b1) / sqrt(1 - b2) | 1 |

    Later updates have size up to about 1, smaller where the gradient's sign changes. Scaling the loss changes nothing
    but the weight of ``eps``.

    Sources: Kingma & Ba 2015, https://arxiv.org/abs/1412.6980, algorithm 1; Dozat 2016,
    https://openreview.net/pdf?id=OM0jvwB8jIp57ZJjtNEZ (nesterov; as Optax's, without the paper's extra b2 in v^ and
    its schedule of b1, so it differs from torch.optim.NAdam).

    Args:
        b1: decay of m.
        b2: decay of v.
        eps: added to the root.
        eps_root: added under the root.
        bias_correction: divide the averages by ``1 - b^t``.
        initial_moments: "zeros" or "first_gradient".
        nesterov: look one step ahead.
        mu_dtype: dtype of m; None: the parameters'. v is at least float32.
    """
    check_decay_rate("b1", b1)
    check_decay_rate("b2", b2)
    check_nonnegative("eps", eps)
    check_nonnegative("eps_root", eps_root)
    check_flag("bias_correction", bias_correction)
    check_choice("initial_moments", initial_moments, ("zeros", "first_gradient"))
    check_flag("nesterov", nesterov)
    mu_dtype = check_float_dtype("mu_dtype", mu_dtype)
    b1, b2, eps, eps_root = map(hyperparameter, (b1, b2, eps, eps_root))

    def init(params: Tree) -> AdamState:
        return AdamState(jnp.zeros([], jnp.int32), first_moment(params, mu_dtype), second_moment(params))

    def update(updates: Tree, state: AdamState, params: Tree | None = None) -> tuple[Tree, AdamState]:
        t = optax.safe_increment(state.count)
        times = ((b1, t), (b1, optax.safe_increment(t)), (b2, t))
        c1, c1_ahead, c2 = (one_minus_power(b, s) if bias_correction else 1.0 for b, s in times)

        def rule(g: Array, m: Array, v: Array) -> tuple[Array, Array, Array]:
            g = limit(g)
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

    return optax.GradientTransformation(init, update)


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
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask | None = None,
    mu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Adam; the rule is in `scale_by_adam`. Its decay is coupled L2, as in the paper; `adamw` has the decoupled one.

    Args:
        learning_rate: eta.
        b1: decay of m.
        b2: decay of v.
        eps: added to the root.
        eps_root: added under the root.
        bias_correction: divide the averages by ``1 - b^t``.
        initial_moments: "zeros" or "first_gradient".
        nesterov: look one step ahead (NAdam).
        weight_decay: lambda, coupled L2.
        weight_decay_mask: which parameters decay, as in `add_decayed_weights`.
        mu_dtype: dtype of m; None: the parameters'.
    """
    return optax.chain(
        add_decayed_weights(weight_decay, weight_decay_mask),
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
    weight_decay_mask: Mask | None = None,
    cautious: bool = False,
    bias_correction: bool = True,
    initial_moments: InitialMoments = "zeros",
    nesterov: bool = False,
    mu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """AdamW, ``theta <- (1 - eta lambda) theta - eta u``: `scale_by_adam`, then `add_decayed_weights`.

    Source: Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101, algorithm 2 (as in PyTorch and Optax, the decay
    is multiplied by the learning rate).

    Args:
        learning_rate: eta.
        b1: decay of m.
        b2: decay of v.
        eps: added to the root.
        eps_root: added under the root.
        weight_decay: lambda, decoupled.
        weight_decay_mask: which parameters decay, as in `add_decayed_weights`.
        cautious: decay only where update and weight agree in sign.
        bias_correction: divide the averages by ``1 - b^t``.
        initial_moments: "zeros" or "first_gradient".
        nesterov: look one step ahead (NAdamW).
        mu_dtype: dtype of m; None: the parameters'.
    """
    return optax.chain(
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
        add_decayed_weights(weight_decay, weight_decay_mask, cautious=cautious),
        scale_by_learning_rate(learning_rate),
    )
