"""Stochastic gradient descent."""

from __future__ import annotations

import optax

from jaxopt_tour._types import ScalarOrSchedule
from jaxopt_tour.optimizers._numerics import scale_by_learning_rate
from jaxopt_tour.optimizers.weight_decay import Mask, add_decayed_weights


def sgd(
    learning_rate: ScalarOrSchedule, *, weight_decay: ScalarOrSchedule = 0.0, weight_decay_mask: Mask | None = None
) -> optax.GradientTransformationExtraArgs:
    """Gradient descent::

        g <- g + lambda theta
        theta <- theta - eta g

    The update is in the units of the gradient: a loss ten times larger makes a step ten times longer.

    Source: Robbins & Monro 1951, https://doi.org/10.1214/aoms/1177729586.

    Args:
        learning_rate: eta.
        weight_decay: lambda, coupled L2; for SGD alone the same as decoupled decay.
        weight_decay_mask: which parameters decay, as in `add_decayed_weights`.
    """
    return optax.chain(
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )
