"""signSGD and Signum: the sign of the gradient, and the sign of its momentum."""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp
import optax

from jaxopt_tour._types import DTypeLike, ScalarOrSchedule, Tree
from jaxopt_tour.optimizers._numerics import Scalar, map_rule, scale_by_learning_rate
from jaxopt_tour.optimizers.momentum import scale_by_momentum
from jaxopt_tour.optimizers.weight_decay import Mask, add_decayed_weights


def scale_by_sign() -> optax.GradientTransformation:
    """The sign of every entry::

        u = sign(g)

    Every entry of the update is 1, -1, or 0 where the gradient is exactly zero; scaling the loss changes nothing. A
    complex entry keeps its direction, ``g / |g|``.

    Source: Bernstein et al. 2018, https://arxiv.org/abs/1802.04434, algorithm 1.
    """

    def init(params: Tree) -> optax.EmptyState:
        return optax.EmptyState()

    def update(updates: Tree, state: optax.EmptyState, params: Tree | None = None) -> tuple[Tree, optax.EmptyState]:
        (u,) = map_rule(lambda g: (jnp.sign(g),), updates, params)
        return u, state

    return optax.GradientTransformation(init, update)


def signsgd(
    learning_rate: ScalarOrSchedule,
    *,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask | None = None,
    cautious: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """signSGD: every weight moves by the learning rate; the rule is in `scale_by_sign`.

    Args:
        learning_rate: eta, the length of every weight's step.
        weight_decay: lambda, decoupled.
        weight_decay_mask: which parameters decay, as in `add_decayed_weights`.
        cautious: decay only where update and weight agree in sign.
    """
    return optax.chain(
        scale_by_sign(),
        add_decayed_weights(weight_decay, weight_decay_mask, cautious=cautious),
        scale_by_learning_rate(learning_rate),
    )


def signum(
    learning_rate: ScalarOrSchedule,
    decay: Scalar = 0.9,
    *,
    form: Literal["sum", "ema"] = "ema",
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask | None = None,
    cautious: bool = False,
    accumulator_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Signum, ``u = sign(m)``: `scale_by_momentum`, then `scale_by_sign`.

    The two forms of momentum differ by the factor ``1 - beta`` and have the same sign, so ``form`` matters only for
    the numbers held in the state.

    Source: Bernstein et al. 2018, https://arxiv.org/abs/1802.04434, algorithm 2.

    Args:
        learning_rate: eta, the length of every weight's step.
        decay: beta.
        form: "ema" or "sum".
        weight_decay: lambda, decoupled.
        weight_decay_mask: which parameters decay, as in `add_decayed_weights`.
        cautious: decay only where update and weight agree in sign.
        accumulator_dtype: dtype of the momentum; None: the parameters'.
    """
    return optax.chain(
        scale_by_momentum(decay, form=form, accumulator_dtype=accumulator_dtype),
        scale_by_sign(),
        add_decayed_weights(weight_decay, weight_decay_mask, cautious=cautious),
        scale_by_learning_rate(learning_rate),
    )
