"""What the experiment matrix-problems compares, and the cells of its runs."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, Final

import jaxopt_tour as jt
from jaxopt_tour.problems.regression import linear_regression, matrix_quadratic, softmax_regression
from jaxopt_tour.problems.workloads import Workload, fashion_mlp
from jaxopt_tour.tour.laboratory.cells import Cells
from jaxopt_tour.tour.laboratory.protocol import Budgets, Entrant, budget_to_target
from jaxopt_tour.tour.laboratory.rules import ADAMW, MUON, SGD_MOMENTUM
from jaxopt_tour.tour.laboratory.runs import Rule
from jaxopt_tour.tour.laboratory.tuning import momentum, rate

NAME: Final = "matrix-problems"


def _undecayed(rule: Rule) -> Rule:
    return dataclasses.replace(rule, defaults={**rule.defaults, "weight_decay": 0.0})


SGD: Final = SGD_MOMENTUM
ADAMW_UNDECAYED: Final = _undecayed(ADAMW)
MUON_UNDECAYED: Final = _undecayed(MUON)
EXACT: Final = Rule(
    "muon-exact",
    lambda schedule, numbers, workload: jt.muon(
        schedule,
        beta=numbers["momentum"],
        weight_decay=numbers["weight_decay"],
        orthogonalizer="exact",
        routing=workload.routing,
    ),
    MUON_UNDECAYED.defaults,
)
RULES: Final = (SGD, ADAMW_UNDECAYED, MUON_UNDECAYED, EXACT)

#: Muon with its usual momentum, of which the rate alone is tuned: where gradients are exact.
FIXED: Final = Rule("muon-0.95", MUON_UNDECAYED.build, {**MUON_UNDECAYED.defaults, "momentum": 0.95})

#: Where the searches for the rate begin, by rule: on one matrix with entries near 1/8, and on the MLP.
FIRST_RATES: Final = {
    "matrix": {"sgd-momentum": 10.0, "adamw": 3e-2, "muon": 0.2, "muon-exact": 0.2, "muon-0.95": 0.2},
    "mlp": {"sgd-momentum": 1.0, "adamw": 3e-3, "muon": 1e-2},
}

#: What is divided by what.
RATIOS: Final = (
    ("sgd-momentum", "muon", "SGD momentum / Muon"),
    ("adamw", "muon", "AdamW / Muon"),
    ("muon-exact", "muon", "exact / Newton-Schulz"),
)


@dataclass(frozen=True)
class Setting:
    """A problem with a batch, the grid of its budgets, who takes part, and the targets they are read at.

    Attributes:
        group: the family it stands in, of `FIRST_RATES`.
        label: what rows call it.
        workload: its target is the hardest one.
        budgets: the grid.
        rules: who takes part.
        targets: the first is the one that is compared; none harder than the workload's.
    """

    group: str
    label: str
    workload: Workload
    budgets: Budgets
    targets: tuple[float, ...]
    rules: tuple[Rule, ...] = RULES


def settings(quick: bool) -> list[Setting]:
    """All of them, in the order of the tables."""
    if quick:
        few = Budgets(first=6, factor=2.0, most=12, trials=5, later_trials=5, tuning_seeds=1, seeds=2)
        small = linear_regression(1.0, 8, fan_in=12, fan_out=8, examples=64, target=0.2)
        return [Setting("matrix", "linear regression, exponent 1, batch 8", small, few, (0.4, 0.2), RULES[1:])]
    found = []
    for exponent in (0.0, 1.0, 2.0):
        for batch in (8, 64, None):
            workload = linear_regression(exponent, batch, target=1e-2 if batch else 1e-3)
            label = f"linear regression, exponent {exponent:g}, {_batch(batch)}"
            if batch:
                found.append(Setting("matrix", label, workload, _grid(), (1e-2, 1e-1)))
            else:
                found.append(Setting("matrix", label, workload, _grid(), (1e-3, 1e-2), (*RULES, FIXED)))
    for exponent in (0.0, 1.0, 2.0):
        label, workload = f"quadratic, exponent {exponent:g}", matrix_quadratic(exponent)
        found.append(Setting("matrix", label, workload, _grid(), (1e-3, 1e-2), (*RULES, FIXED)))
    for exponent in (1.0, 2.0):
        label, workload = f"quadratic, exponent {exponent:g}, uneven start", matrix_quadratic(exponent, uneven=True)
        found.append(Setting("matrix", label, workload, _grid(), (1e-3, 1e-2), (*RULES, FIXED)))
    for exponent in (1.0, 2.0):
        # A turn of the coordinates is nothing to the other rules: what they need here, they need there.
        label = f"quadratic, exponent {exponent:g}, along the coordinates"
        workload = matrix_quadratic(exponent, aligned=True)
        found.append(Setting("matrix", label, workload, _grid(), (1e-3, 1e-2), (ADAMW_UNDECAYED,)))
    for kind in ("balanced", "zipf"):
        for batch in (8, None):
            name = "Zipf" if kind == "zipf" else kind
            label = f"softmax regression, {name}, {_batch(batch)}"
            # At 8 examples a step noise keeps every rule from 1e-2 within the grid, and the SVD a step takes long.
            rules, targets = (RULES[:3], (1e-1,)) if batch else (RULES, (1e-2,))
            found.append(Setting("matrix", label, softmax_regression(kind, batch), _grid(), targets, rules))
    grid = dataclasses.replace(_grid(), first=45, most=512)
    found.append(Setting("mlp", "MLP on Fashion-MNIST, batch 64", fashion_mlp(64), grid, (0.60,), RULES[:3]))
    return found


def _grid() -> Budgets:
    return Budgets(first=4, most=1024, trials=14, later_trials=8, tuning_seeds=2, seeds=10)


def _batch(batch: int | None) -> str:
    return "full batch" if batch is None else f"batch {batch}"


def run(cells: Cells) -> None:
    """The budgets of every rule in every setting."""
    for setting in settings(cells.quick):
        for rule in setting.rules:
            cells.get(key_of(setting, rule), functools.partial(_budget, setting, rule))


def key_of(setting: Setting, rule: Rule) -> dict[str, Any]:
    """What decides the value of a budget's cell."""
    budgets = setting.budgets
    return {
        "what": "budget", "workload": setting.workload.name, "batch": setting.workload.batch_text, "rule": rule.name,
        "target": setting.workload.target, "grid": setting.budgets.grid(), "seeds": setting.budgets.seeds,
        "search": [budgets.trials, budgets.later_trials, budgets.tuning_seeds, FIRST_RATES[setting.group][rule.name]],
    }  # fmt: skip


def _budget(setting: Setting, rule: Rule) -> Any:
    """The readings at every number of steps; a search takes seconds, so its single trials are not kept."""
    rates = rate(FIRST_RATES[setting.group][rule.name])
    entrant = Entrant(rule, (rates,) if rule is FIXED else (rates, momentum()))
    readings = budget_to_target(Cells(None, NAME), setting.workload, entrant, setting.budgets)
    for reading in readings:
        del reading["point"]  # the numbers say it
        reading["final"] = [None if value is None else float(f"{value:.4g}") for value in reading["final"]]
        reading["numbers"] = {name: float(f"{value:.4g}") for name, value in reading["numbers"].items()}
    return readings
