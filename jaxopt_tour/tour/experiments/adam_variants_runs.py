"""What the experiment adam-variants compares, and the cells of its runs."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jaxopt_tour.problems.workloads import Workload, fashion_mlp, small_gpt
from jaxopt_tour.tour.experiments.adam_rules import (
    LAPROP,
    LAPROP_CORRECTED,
    SIGNUM,
    SIGNUM_AHEAD,
    eadam,
    handing_over,
    scheduled_adam,
    sgd,
    signsgd,
)
from jaxopt_tour.tour.laboratory.cells import Cells
from jaxopt_tour.tour.laboratory.comparison import (
    paired,
)
from jaxopt_tour.tour.laboratory.protocol import Entrant, read, tune
from jaxopt_tour.tour.laboratory.runs import Build, Rule
from jaxopt_tour.tour.laboratory.statistics import Interval
from jaxopt_tour.tour.laboratory.tiny import tiny_workload
from jaxopt_tour.tour.laboratory.tuning import Axis, momentum, rate

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Variant:
    """An optimizer that is compared.

    Attributes:
        title: what tables and pictures call it.
        group: what it is a variant of.
        build: the optimizer; those that share it share its program.
        start: the rate that the search starts around.
        numbers: that differ from the ones every variant of its build has.
    """

    title: str
    group: str
    build: Build
    start: float = 5e-3
    numbers: tuple[tuple[str, float], ...] = ()


#: The other numbers of every build, where a variant does not say otherwise.
DEFAULTS: Final[dict[Build, dict[str, float]]] = {
    scheduled_adam: {"momentum": 0.9, "b2": 0.95, "b2_power": 0.0, "b1_fall": 0.0, "b1_rise": 1.0, "eps": 1e-8},
    LAPROP: {"momentum": 0.9, "b2": 0.95},
    LAPROP_CORRECTED: {"momentum": 0.9, "b2": 0.95},
    eadam: {"momentum": 0.9, "b2": 0.95, "eps": 1e-8},
    handing_over: {"momentum": 0.9, "b2": 0.95, "gradual": 0.0, "hand_over": 1.0, "hand_back": 1.0},
    sgd: {"momentum": 0.9},
    signsgd: {},
    SIGNUM: {"momentum": 0.9},
    SIGNUM_AHEAD: {"momentum": 0.9},
}

ADAM: Final = Variant("Adam", "Adam", scheduled_adam)
#: Adam again, its rates half a place of the grid beside the others': what the tuning alone does to a difference.
CONTROL: Final = Variant("Adam, other rates", "Adam", scheduled_adam, 5e-3 * 10**0.125)
SGD: Final = Variant("SGD with momentum", "SGD", sgd, 0.3)

#: Sizes of eps, and how many places of its grid the rate's search starts higher: where eps is above the root, the rate
#: grows with it.
EPS: Final = {1e-12: 0, 1e-10: 0, 1e-6: 0, 1e-4: 0, 1e-3: 1, 1e-2: 1}

#: Where the search of the momentum starts.
MOMENTUM: Final = 0.8


def _eps(eps: float, end: float | None = None) -> Variant:
    title = f"eps {eps:.0e}" if end is None else f"eps {eps:.0e} to {end:.0e}"
    numbers = (("eps", eps), ("eps_end", eps if end is None else end))
    return Variant(title, "eps", scheduled_adam, 5e-3 * 10 ** (EPS.get(eps, 0) / 4 if end is None else 0), numbers)


def _handing(title: str, **numbers: float) -> Variant:
    return Variant(title, "handing over", handing_over, numbers=tuple(numbers.items()))


VARIANTS: Final = (
    ADAM,
    CONTROL,
    *(_eps(eps) for eps in EPS),
    _eps(1e-3, 1e-8),
    _eps(1e-8, 1e-3),
    Variant("b2 0.999", "decay rates", scheduled_adam, numbers=(("b2", 0.999),)),
    Variant("b2 1 − t^−0.8", "decay rates", scheduled_adam, numbers=(("b2_power", 0.8),)),
    Variant("b1 falling to 0", "decay rates", scheduled_adam, numbers=(("b1_fall", 1.0),)),
    Variant("b1 rising", "decay rates", scheduled_adam, numbers=(("b1_rise", 3.0),)),
    Variant("LaProp", "averages", LAPROP),
    Variant("LaProp, corrected", "averages", LAPROP_CORRECTED),
    Variant("EAdam", "averages", eadam),
    Variant("EAdam, eps 1e-06", "averages", eadam, numbers=(("eps", 1e-6),)),
    Variant("signSGD", "sign", signsgd, 1e-3),
    Variant("Signum", "sign", SIGNUM, 1e-3),
    Variant("Signum, look-ahead", "sign", SIGNUM_AHEAD, 1e-3),
    SGD,
    _handing("Adam to SGD at 1/2", hand_over=0.5, hand_back=2.0),
    _handing("Adam to SGD, gradually", gradual=1.0),
    _handing("SGD to Adam at 1/2", hand_over=0.0, hand_back=0.5),
    _handing("Adam, SGD, Adam", hand_over=1 / 3, hand_back=2 / 3),
)
BY_TITLE: Final = {variant.title: variant for variant in VARIANTS}

#: Those that the GPT is trained with, too.
ON_GPT: Final = (
    "Adam",
    "Adam, other rates",
    "eps 1e-12",
    "eps 1e-04",
    "eps 1e-02",
    "b2 0.999",
    "LaProp, corrected",
    "EAdam",
    "signSGD",
    "Signum",
)


class Problem(NamedTuple):
    """A workload and how much is computed on it."""

    workload: Workload
    variants: tuple[Variant, ...]
    steps: int
    trials: int
    tuning_seeds: int
    seeds: int
    tunes_momentum: bool


@functools.cache
def problems(quick: bool) -> tuple[Problem, ...]:
    """The MLP with all variants and the GPT with some; or a few steps of a small model with three."""
    if quick:
        few = tuple(BY_TITLE[title] for title in ("Adam", "eps 1e-04", "EAdam", "SGD with momentum", "Adam, SGD, Adam"))
        return (Problem(tiny_workload(), few, 6, 6, 1, 2, True),)
    return (
        Problem(fashion_mlp(), VARIANTS, 200, 12, 4, 16, True),
        Problem(small_gpt(), tuple(BY_TITLE[title] for title in ON_GPT), 120, 7, 2, 5, False),
    )


class Found(NamedTuple):
    """What one variant came to on one problem."""

    tuned: dict[str, Any]
    final: list[float | None]


def one(cells: Cells, problem: Problem, variant: Variant) -> Found:
    """Tuned and read, from the cells where they are there."""
    numbers = {"learning_rate": variant.start, "horizon": float(problem.steps), **DEFAULTS[variant.build]}
    numbers |= dict(variant.numbers)
    if variant.build is scheduled_adam:
        numbers.setdefault("eps_end", numbers["eps"])
    if variant.build is handing_over:
        adam, other = (one(cells, problem, each).tuned["numbers"] for each in (ADAM, SGD))
        numbers["sgd_ratio"] = other["learning_rate"] / adam["learning_rate"]
        numbers["sgd_momentum"] = other["momentum"]
    axes: list[Axis] = [rate(variant.start)]
    if problem.tunes_momentum and "momentum" in numbers:
        axes.append(momentum(MOMENTUM))
    entrant = Entrant(Rule(variant.title, variant.build, numbers), tuple(axes))
    tuned = tune(cells, problem.workload, entrant, problem.steps, trials=problem.trials, seeds=problem.tuning_seeds)
    reading = read(cells, problem.workload, entrant.rule, problem.steps, tuned["numbers"], problem.seeds)
    return Found(tuned, reading["final"])


def run(cells: Cells) -> None:
    """Fill the cells."""
    for problem in problems(cells.quick):
        for variant in problem.variants:
            one(cells, problem, variant)


def difference(cells: Cells, problem: Problem, variant: Variant, standard: Variant = ADAM) -> Interval | None:
    """How much more loss than another variant, seed by seed; None where a run diverged."""
    return paired(one(cells, problem, variant).final, one(cells, problem, standard).final)
