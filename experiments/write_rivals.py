"""Write the readings that entries are compared with, from the committed results of the race.

python experiments/write_rivals.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxopt_tour.tour.enter.contest import BATCHES
from jaxopt_tour.tour.experiments.race import heats
from jaxopt_tour.tour.laboratory.cells import Cells
from jaxopt_tour.tour.laboratory.protocol import budget_to_target
from jaxopt_tour.tour.laboratory.rules import RULES, entrant
from jaxopt_tour.tour.results import write_json

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "experiments" / "results" / "race" / "results.json"
RIVALS = ROOT / "jaxopt_tour" / "tour" / "enter" / "rivals.json"


def rivals() -> dict[str, Any]:
    """By workload and batch, by rule: steps, tuned numbers and final values."""
    cells = Cells(RESULTS, "race", read_only=True)
    return {
        f"{heat.workload.name}, {heat.workload.batch_text}": {
            name: [
                {"steps": reading["steps"], "numbers": reading["numbers"], "final": reading["final"]}
                for reading in budget_to_target(cells, heat.workload, entrant(rule), heat.budgets)
            ]
            for name, rule in RULES.items()
        }
        for heat in heats(False)
        if BATCHES.get(heat.workload.name) == heat.workload.batch_text
    }


if __name__ == "__main__":
    write_json(RIVALS, rivals())
    print(RIVALS)
