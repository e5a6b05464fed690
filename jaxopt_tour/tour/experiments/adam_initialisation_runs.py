"""What the experiment adam-initialisation compares, and the cells of its runs."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import optax

import jaxopt_tour as jt
from jaxopt_tour.optimizers.adam import InitialMoments
from jaxopt_tour.problems.workloads import Workload, small_gpt
from jaxopt_tour.tour.laboratory.cells import Cells
from jaxopt_tour.tour.laboratory.comparison import (
    paired,
)
from jaxopt_tour.tour.laboratory.protocol import read, tune
from jaxopt_tour.tour.laboratory.rules import rate_alone
from jaxopt_tour.tour.laboratory.runs import Build, Rule
from jaxopt_tour.tour.laboratory.statistics import Interval
from jaxopt_tour.tour.laboratory.tiny import tiny_workload

if TYPE_CHECKING:
    pass

# --- the factor -------------------------------------------------------------------------------------------------------


def correction_factor(t: Any, b1: float, b2: float) -> np.ndarray:
    """`rho(t; b1, b2) = sqrt(1 - b2^t) / (1 - b1^t)`: what bias correction multiplies an update by, up to eps."""
    t = np.asarray(t, np.float64)
    return np.sqrt(-np.expm1(t * math.log(b2))) / -np.expm1(t * math.log(b1))


def increases(t: Any, b1: float, b2: float) -> np.ndarray:
    """Where rho rises, its derivative in t being positive:

    ```text
    b2^t log b2 / (2 (1 - b2^t)) < b1^t log b1 / (1 - b1^t)
    ```

    With the memory `tau = -1 / log b` of each average this is `part(t / tau2) > 2 part(t / tau1)`: it depends on t
    only through the two ages, so one picture holds for all decay rates.
    """
    t = np.asarray(t, np.float64)
    return part(-t * math.log(b2)) > 2 * part(-t * math.log(b1))


def part(age: Any) -> np.ndarray:
    """`x / (e^x - 1)`, x times the logarithmic derivative of `1 - e^-x`: falls from 1 at 0 to 0."""
    return np.asarray(age) * np.exp(-age) / -np.expm1(-age)


# --- what is compared -------------------------------------------------------------------------------------------------


class Switches(NamedTuple):
    """One of the four combinations."""

    bias_correction: bool
    initial_moments: InitialMoments

    @property
    def title(self) -> str:
        """In words, for tables and pictures."""
        start = "zeros" if self.initial_moments == "zeros" else "first gradient"
        return f"{start}, {'corrected' if self.bias_correction else 'uncorrected'}"

    def first_step(self, b1: float, b2: float) -> float:
        """The size of every entry of the first update, in learning rates."""
        from_zero = (1 - b1) / math.sqrt(1 - b2)
        if self.initial_moments == "zeros":
            return 1.0 if self.bias_correction else from_zero
        return 1 / from_zero if self.bias_correction else 1.0


STANDARD: Final = Switches(True, "zeros")
COMBINATIONS: Final = (
    STANDARD, Switches(False, "zeros"), Switches(True, "first_gradient"), Switches(False, "first_gradient"),
)  # fmt: skip


@functools.cache
def _build(switches: Switches) -> Build:
    def build(schedule: optax.Schedule, numbers: Mapping[str, Any], workload: Workload) -> optax.GradientTransformation:
        return jt.adam(
            schedule,
            numbers["b1"],
            numbers["b2"],
            bias_correction=switches.bias_correction,
            initial_moments=switches.initial_moments,
        )

    return build


class Setting(NamedTuple):
    """Decay rates and warm-up, the same for all four combinations."""

    b1: float
    b2: float
    warmup: float

    @property
    def title(self) -> str:
        """In words."""
        return f"({self.b1:g}, {self.b2:g}), {f'warm-up {self.warmup:.0%}' if self.warmup else 'no warm-up'}"

    def rule(self, switches: Switches) -> Rule:
        """Adam with this setting and these switches."""
        defaults = {"learning_rate": 3e-3, "b1": self.b1, "b2": self.b2, "warmup": self.warmup}
        return Rule(f"adam {self.title}, {switches.title}", _build(switches), defaults)


@dataclass(frozen=True)
class Plan:
    """How much is computed."""

    workload: Workload
    settings: tuple[Setting, ...]
    steps: int
    trials: int
    tuning_seeds: int
    seeds: int


def plan(quick: bool) -> Plan:
    """The full setting, or a few steps of a smaller model."""
    if quick:
        return Plan(tiny_workload(), (Setting(0.95, 0.95, 0.0),), 8, 5, 1, 2)
    settings = [Setting(b1, b2, warmup) for b1, b2 in ((0.9, 0.999), (0.95, 0.95)) for warmup in (0.0, 0.05)]
    return Plan(small_gpt(), tuple(settings), 160, 7, 2, 8)


class Found(NamedTuple):
    """What one combination came to in one setting."""

    tuned: dict[str, Any]
    final: list[float | None]


def one(cells: Cells, setting: Setting, switches: Switches) -> Found:
    """Tuned and read, from the cells where they are there."""
    now, rule = plan(cells.quick), setting.rule(switches)
    tuned = tune(cells, now.workload, rate_alone(rule), now.steps, trials=now.trials, seeds=now.tuning_seeds)
    return Found(tuned, read(cells, now.workload, rule, now.steps, tuned["numbers"], now.seeds)["final"])


def run(cells: Cells) -> None:
    """Fill the cells, one combination's program after the other."""
    for switches in COMBINATIONS:
        for setting in plan(cells.quick).settings:
            one(cells, setting, switches)


def cost(cells: Cells, setting: Setting, switches: Switches, against: Switches = STANDARD) -> Interval | None:
    """How much more loss than another combination, seed by seed; None where a run diverged."""
    return paired(one(cells, setting, switches).final, one(cells, setting, against).final)
