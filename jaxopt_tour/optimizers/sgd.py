"""Stochastic gradient descent."""

from __future__ import annotations

import optax

from jaxopt_tour._types import ScalarOrSchedule
from jaxopt_tour.optimizers._numerics import scale_by_learning_rate
from jaxopt_tour.optimizers._state_check import checked_chain
from jaxopt_tour.optimizers.weight_decay import Mask, add_l2


def sgd(
    learning_rate: ScalarOrSchedule, *, l2: ScalarOrSchedule = 0.0, mask: Mask | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""Optimize with stochastic gradient descent and optional coupled L2, added to the gradient.

    $$
    \begin{aligned}
    g_t &\leftarrow g_t + \lambda \theta_{t-1} \\
    \theta_t &= \theta_{t-1} - \eta g_t
    \end{aligned}
    $$

    The update has the units of the gradient: a loss that is ten times larger makes a step ten times longer.

    Args:
        learning_rate: Step size $\eta$, a number or a schedule of the step count.
        l2: Strength $\lambda$ of the coupled L2 term, a number or a schedule of the step count. Default 0. For SGD
            alone it equals decoupled weight decay.
        mask: Parameters that the L2 term applies to: `"matrices"`, a tree of booleans, a prefix of one, or a function
            from the parameters to such a tree. Default None: all parameters. Set it to exclude biases and norms.

    Returns:
        The optimizer as an Optax transformation.

    Raises:
        ValueError: An argument is out of range.

    Source:
        Robbins & Monro 1951, https://doi.org/10.1214/aoms/1177729586.
    """
    return checked_chain(add_l2(l2, mask), scale_by_learning_rate(learning_rate))
