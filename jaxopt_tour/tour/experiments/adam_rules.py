"""The optimizers of the experiment adam-variants, as builds of the laboratory's rules.

Their schedules of eps, b1 and b2, and the weight that hands over from Adam to SGD and back, are functions of a run's
numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import optax

import jaxopt_tour as jt
from jaxopt_tour._types import Array
from jaxopt_tour.problems.workloads import Workload
from jaxopt_tour.tour.laboratory.runs import Build


def eps_at(count: Array, numbers: Mapping[str, Any]) -> Array:
    """eps, from its first value to its last along a geometric path over the run."""
    progress = count / numbers["horizon"]
    return numbers["eps"] * (numbers["eps_end"] / numbers["eps"]) ** progress


def b1_at(count: Array, numbers: Mapping[str, Any]) -> Array:
    """b1: constant, or falling to 0, or rising.

    With `b1_fall = 1`, `b1 (1 - p) / ((1 - b1) + b1 (1 - p))` at the part p of the run: Chen et al. 2019, Demon,
    https://arxiv.org/abs/1910.04952, equation 5. With `b1_rise = 3`, the distance to 1 begins three times as large
    and shrinks to its own over the first 30 % of the run, as where 0.85 rises to 0.95.
    """
    p, b1 = numbers["b1_fall"] * count / numbers["horizon"], numbers["momentum"]
    falling = b1 * (1 - p) / ((1 - b1) + b1 * (1 - p))
    still_to_rise = jnp.maximum(0, 1 - count / (0.3 * numbers["horizon"]))
    return jnp.maximum(0, 1 - (1 - falling) * numbers["b1_rise"] ** still_to_rise)


def b2_at(count: Array, numbers: Mapping[str, Any]) -> Array:
    """b2: constant, or `1 - t^-power` where `b2_power` is above 0.

    Source: Shazeer & Stern 2018, Adafactor, https://arxiv.org/abs/1804.04235, section 7.2, with power 0.8.
    """
    t = count + 1.0
    return jnp.where(numbers["b2_power"] > 0, 1 - t ** -numbers["b2_power"], numbers["b2"])


def scheduled_adam(
    schedule: optax.Schedule, numbers: Mapping[str, Any], workload: Workload
) -> optax.GradientTransformation:
    """Adam with eps, b1 and b2 on schedules of the count of updates; constant ones are Adam itself.

    The bias corrections are `1 - b^t` with the present b, which is exact for constant rates alone. The average of
    squares with b2 on its schedule, whose first value is 0, has no bias; dividing it by a number between 0.79 and 1
    makes updates up to an eighth larger than without.
    """
    scheduled = optax.inject_hyperparams(jt.scale_by_adam)(
        b1=lambda count: b1_at(count, numbers),
        b2=lambda count: b2_at(count, numbers),
        eps=lambda count: eps_at(count, numbers),
    )
    return optax.chain(scheduled, optax.scale_by_learning_rate(schedule))


def laprop(bias_correction: bool) -> Build:
    """LaProp, without and with bias correction."""
    return lambda schedule, numbers, workload: jt.laprop(
        schedule, numbers["momentum"], numbers["b2"], bias_correction=bias_correction
    )


def eadam(schedule: optax.Schedule, numbers: Mapping[str, Any], workload: Workload) -> optax.GradientTransformation:
    """Adam whose eps accumulates in v."""
    return jt.eadam(schedule, numbers["momentum"], numbers["b2"], numbers["eps"])


def weight_at(count: Array, numbers: Mapping[str, Any]) -> Array:
    """How much of the update is SGD's: 1 between two parts of the run and 0 elsewhere, or rising with the run."""
    progress = count / numbers["horizon"]
    at_once = (progress >= numbers["hand_over"]) & (progress < numbers["hand_back"])
    return jnp.where(numbers["gradual"] > 0, jnp.minimum(progress, 1), jnp.where(at_once, 1.0, 0.0))


def handing_over(
    schedule: optax.Schedule, numbers: Mapping[str, Any], workload: Workload
) -> optax.GradientTransformation:
    """Adam, then SGD with momentum, and back; both see every gradient, and SGD's rate is a fixed multiple of Adam's."""
    return jt.interpolate(
        jt.adam(schedule, numbers["momentum"], numbers["b2"]),
        jt.momentum(lambda count: numbers["sgd_ratio"] * schedule(count), beta=numbers["sgd_momentum"], form="ema"),
        lambda count: weight_at(count, numbers),
    )


def sgd(schedule: optax.Schedule, numbers: Mapping[str, Any], workload: Workload) -> optax.GradientTransformation:
    """SGD with momentum."""
    return jt.momentum(schedule, beta=numbers["momentum"], form="ema")


def signsgd(schedule: optax.Schedule, numbers: Mapping[str, Any], workload: Workload) -> optax.GradientTransformation:
    """The sign of the gradient."""
    return jt.signsgd(schedule)


def signum(nesterov: bool) -> Build:
    """The sign of the momentum; with the look-ahead it is Lion's rule with equal decay rates.

    Source of that rule: Chen et al. 2023, https://arxiv.org/abs/2302.06675, algorithm 2.
    """
    return lambda schedule, numbers, workload: optax.chain(
        jt.scale_by_momentum(numbers["momentum"], form="ema", nesterov=nesterov),
        jt.scale_by_sign(),
        optax.scale_by_learning_rate(schedule),
    )


LAPROP, LAPROP_CORRECTED = laprop(False), laprop(True)
SIGNUM, SIGNUM_AHEAD = signum(False), signum(True)
