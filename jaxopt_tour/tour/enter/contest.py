"""An entry goes through the race's protocol: budget to target, on workloads that others have been through.

The others' readings come with the package: `rivals.json`, which `experiments/write_rivals.py` writes from the committed
results of the race. The entry's own are cells of a file, so that the same command goes on where it was stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Final

from jaxopt_tour.tour.enter.entry import Entry
from jaxopt_tour.tour.experiments.race import Heat, heats
from jaxopt_tour.tour.laboratory.budgets import Compared, compare_steps, steps_to
from jaxopt_tour.tour.laboratory.cells import Cells
from jaxopt_tour.tour.laboratory.protocol import budget_to_target, costs, sensitivity
from jaxopt_tour.tour.laboratory.rules import RULES, entrant

Readings = Sequence[Mapping[str, Any]]

#: The batch of each workload that an entry meets; the race has more of some.
BATCHES: Final = {"mlp": "64 images", "cnn": "64 images", "vit": "64 images", "gpt": "8 windows of 64 characters"}


@dataclass(frozen=True)
class Result:
    """What an entry came to on one workload.

    Attributes:
        heat: the workload with its budgets.
        readings: the entry's, as far as it got.
        rivals: the others' readings by name.
        ended: why there are no more readings; "" where all seeds arrived or the grid ended.
        costs: milliseconds of a step and bytes of state by name, or None.
        decades: how many decades of rates are within 5 % of the best loss, or None.
    """

    heat: Heat
    readings: Readings
    rivals: Mapping[str, Readings]
    ended: str = ""
    costs: Mapping[str, Any] | None = None
    decades: Mapping[str, Any] | None = None

    def grid(self) -> list[int]:
        """The numbers of steps that the entry was run for."""
        return [reading["steps"] for reading in self.readings]

    def steps(self, readings: Readings) -> list[float | None]:
        """Steps to the target, seed by seed."""
        return [steps_to(readings, seed, self.heat.workload.target) for seed in range(self.heat.budgets.seeds)]

    def against(self, rival: str) -> Compared:
        """The rival's steps over the entry's, on the same seeds."""
        if not self.readings:
            return Compared(None)
        return compare_steps(self.steps(self.rivals[rival]), self.steps(self.readings), self.grid())


class _Ended(Exception):
    """The search stops here, for a reason that the card tells."""


def choose_heats(names: Sequence[str], quick: bool) -> list[Heat]:
    """The workloads of these names.

    Raises:
        ValueError: there is none of a name.
    """
    if quick:
        return heats(True)
    known = {
        heat.workload.name: heat for heat in heats(False) if BATCHES.get(heat.workload.name) == heat.workload.batch_text
    }
    for name in names:
        if name not in known:
            raise ValueError(f"a workload is one of {', '.join(known)}; got {name!r}")
    return [known[name] for name in names]


def rival_readings(cells: Cells, heat: Heat, name: str) -> Readings:
    """Those that come with the package; at a quick run they are made."""
    if cells.quick:
        return budget_to_target(cells, heat.workload, entrant(RULES[name]), heat.budgets)
    content = json.loads(resources.files("jaxopt_tour.tour.enter").joinpath("rivals.json").read_text())
    return content[f"{heat.workload.name}, {heat.workload.batch_text}"][name]


def contest(
    entry: Entry,
    chosen: Sequence[Heat],
    rivals: Sequence[str],
    path: Path,
    *,
    minutes: float,
    quick: bool = False,
    listener: Callable[[str], None] = lambda text: None,
) -> list[Result]:
    """Run what is missing, workload after workload; each gets an equal part of the time that is left.

    Args:
        entry: the optimizer.
        chosen: the workloads.
        rivals: names of `RULES`.
        path: the file of cells.
        minutes: after which the search stops. A setting that is being tried is finished first.
        quick: a few steps on a tiny problem.
        listener: is told of every search and reading.

    Raises:
        ValueError: an unknown rival; the file is another entry's.
    """
    for name in rivals:
        if name not in RULES:
            raise ValueError(f"a rival is one of {', '.join(RULES)}; got {name!r}")
    last = time.monotonic() + 60 * minutes
    results = []
    for place, heat in enumerate(chosen):
        deadline = time.monotonic() + max(0.0, last - time.monotonic()) / (len(chosen) - place)
        results.append(_on_workload(entry, heat, rivals, path, deadline, quick, listener))
    return results


def _on_workload(
    entry: Entry,
    heat: Heat,
    rivals: Sequence[str],
    path: Path,
    deadline: float,
    quick: bool,
    listener: Callable[[str], None],
) -> Result:
    def after_cell(text: str) -> None:
        cell = cells.content["cells"][-1]
        key, value = cell["key"], cell["value"]
        if "@" not in key.get("rule", ""):
            return  # a rival's, or the costs
        left = max(0.0, deadline - time.monotonic()) / 60
        what = {"tuned": "tuned", "read": "read on its seeds", "sensitivity": "at other rates"}[key["what"]]
        listener(f"{heat.label}: {key['steps']} steps {what}; at most {left:.1f} minutes left")
        if key["what"] == "tuned" and value["loss"] is None:
            raise _Ended(f"it diverged at every setting that was tried ({value['trials']})")
        if time.monotonic() > deadline:
            raise _Ended("its time was over")

    cells = Cells(path, f"enter {entry.name}", quick=quick, listener=after_cell)
    others = {name: rival_readings(cells, heat, name) for name in rivals}
    result = Result(heat, [], others)
    try:
        entered = entry.entrant(heat.workload)
        rules = [entered.rule, *(RULES[name] for name in rivals)]
        few = {"rounds": 2, "calls": 2} if quick else {"rounds": 5, "calls": 5}
        result = replace(result, costs=costs(cells, heat.workload, rules, **few))
        readings = budget_to_target(cells, heat.workload, entered, heat.budgets)
        middle = readings[-1]
        found = sensitivity(
            cells, heat.workload, entered, middle["steps"], middle["numbers"], seeds=heat.budgets.tuning_seeds
        )
        return replace(result, readings=readings, decades=found)
    except (_Ended, ValueError) as end:
        return replace(result, readings=_so_far(cells, heat, entry), ended=str(end))
    except Exception as error:  # whatever a stranger's optimizer does when it runs
        reason = (str(error).strip().splitlines() or [""])[0]
        return replace(result, readings=_so_far(cells, heat, entry), ended=f"{type(error).__name__}: {reason}")


def _so_far(cells: Cells, heat: Heat, entry: Entry) -> Readings:
    """The readings that were finished."""
    wanted = {"what": "read", "workload": heat.workload.name, "batch": heat.workload.batch_text}
    found = [(key, value) for key, value in cells.select(**wanted) if key["rule"] == f"{entry.name}@{entry.digest}"]
    return [{"steps": key["steps"], "numbers": key["numbers"], "final": value["final"]} for key, value in found]
