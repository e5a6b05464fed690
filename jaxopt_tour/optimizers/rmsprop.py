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
from jaxopt_tour.optimizers.momentum import scale_by_momentum
from jaxopt_tour.optimizers.weight_decay import Mask, add_decayed_weights


class RMSPropState(NamedTuple):
    """State of `scale_by_rmsprop`."""

    count: Array  # type: ignore[assignment]  # t, int32
    mu: Tree  # m_t, EMA of g; None unless centered
    nu: Tree  # s_t, EMA of g^2


def scale_by_rmsprop(
    decay: Scalar = 0.9,
    eps: Scalar = 1e-8,
    *,
    centered: bool = False,
    eps_in_sqrt: bool = False,
    initial_scale: Scalar = 0.0,
    bias_correction: bool = False,
    accumulator_dtype: DTypeLike | None = None,
) -> optax.GradientTransformation:
    """RMSProp::

        s <- rho s + (1 - rho) g^2
        u = g / (sqrt(s) + eps)

    ``centered`` takes the variance, held at 0 or above, where rounding would put it below::

        m <- rho m + (1 - rho) g
        u = g / (sqrt(max(s - m^2, 0)) + eps)

    ``eps_in_sqrt`` divides by ``sqrt(. + eps)``; ``bias_correction`` divides s and m by ``1 - rho^t`` first. The first
    update has size ``1/sqrt(1 - rho)`` (with bias correction, 1), then about 1 for gradients of steady size. Centered
    and corrected together need ``initial_scale`` or a large ``eps``: one gradient alone has no variance, and the first
    update is ``g / eps``.

    As in torch.optim.RMSprop. ``optax.rmsprop`` has ``eps_in_sqrt=True`` by default.

    Sources: Hinton 2012, https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf, slide 29; Graves
    2013, https://arxiv.org/abs/1308.0850, equations 38 to 41 (centered).

    Args:
        decay: rho.
        eps: added to the root, or under it.
        centered: subtract the square of the mean.
        eps_in_sqrt: add eps under the root.
        initial_scale: s_0.
        bias_correction: divide the averages by the weights summed so far.
        accumulator_dtype: dtype of s and m; None: at least float32 for s, the parameters' for m.
    """
    check_decay_rate("decay", decay)
    check_nonnegative("eps", eps)
    check_flag("centered", centered)
    check_flag("eps_in_sqrt", eps_in_sqrt)
    check_nonnegative("initial_scale", initial_scale)
    check_flag("bias_correction", bias_correction)
    accumulator_dtype = check_float_dtype("accumulator_dtype", accumulator_dtype)
    rho, eps = hyperparameter(decay), hyperparameter(eps)

    def init(params: Tree) -> RMSPropState:
        m = first_moment(params, accumulator_dtype) if centered else None
        return RMSPropState(jnp.zeros([], jnp.int32), m, second_moment(params, accumulator_dtype, initial_scale))

    def update(updates: Tree, state: RMSPropState, params: Tree | None = None) -> tuple[Tree, RMSPropState]:
        t = optax.safe_increment(state.count)
        c = one_minus_power(rho, t) if bias_correction else 1.0

        def ratio(g: Array, variance: Array) -> Array:
            root = safe_sqrt(variance + eps) if eps_in_sqrt else safe_sqrt(variance) + eps
            return safe_divide(g, root)

        def rule(g: Array, s: Array) -> tuple[Array, Array]:
            g = limit(g)
            s = rho * s + (1 - rho) * abs_squared(g)
            return ratio(g, s / c), s

        def centered_rule(g: Array, m: Array, s: Array) -> tuple[Array, Array, Array]:
            g = limit(g)
            s = rho * s + (1 - rho) * abs_squared(g)
            m = rho * m + (1 - rho) * g
            return ratio(g, jnp.maximum(s / c - abs_squared(m / c), 0)), m, s

        if centered:
            u, m, s = map_rule(centered_rule, updates, params, state.mu, state.nu)
        else:
            (u, s), m = map_rule(rule, updates, params, state.nu), None
        return u, RMSPropState(t, m, s)

    return optax.GradientTransformation(init, update)


def rmsprop(
    learning_rate: ScalarOrSchedule,
    decay: Scalar = 0.9,
    eps: Scalar = 1e-8,
    *,
    centered: bool = False,
    eps_in_sqrt: bool = False,
    initial_scale: Scalar = 0.0,
    bias_correction: bool = False,
    momentum: Scalar | None = None,
    nesterov: bool = False,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask | None = None,
    accumulator_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """RMSProp, with momentum of its updates if asked for; the rule is in `scale_by_rmsprop`.

    The momentum sums updates before the learning rate (as PyTorch; Optax sums after it, which differs only while the
    rate changes).

    Args:
        learning_rate: eta.
        decay: rho.
        eps: added to the root, or under it.
        centered: subtract the square of the mean.
        eps_in_sqrt: add eps under the root.
        initial_scale: s_0.
        bias_correction: divide the averages by the weights summed so far.
        momentum: beta of a momentum in the sum form on the updates; None: none.
        nesterov: let that momentum look one step ahead.
        weight_decay: lambda, coupled L2.
        weight_decay_mask: which parameters decay, as in `add_decayed_weights`.
        accumulator_dtype: dtype of every accumulator; None: at least float32 for s, the parameters' for the others.

    Raises:
        ValueError: ``nesterov`` without ``momentum``.
    """
    check_flag("nesterov", nesterov)
    if momentum is not None:
        check_decay_rate("momentum", momentum)
    if nesterov and momentum is None:
        raise ValueError("nesterov=True needs momentum, a number with 0 <= momentum < 1")
    return optax.chain(
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_rmsprop(
            decay,
            eps,
            centered=centered,
            eps_in_sqrt=eps_in_sqrt,
            initial_scale=initial_scale,
            bias_correction=bias_correction,
            accumulator_dtype=accumulator_dtype,
        ),
        optax.identity()
        if momentum is None
        else scale_by_momentum(momentum, nesterov=nesterov, accumulator_dtype=accumulator_dtype),
        scale_by_learning_rate(learning_rate),
    )
