"""Computes a share of the committed cells of every experiment again, and writes how far they are from the first run.

python experiments/reproduce.py [--share 0.05] [NAME ...]

Prints a line a cell and a table, and writes results/reproduction.json with machine and versions: docs/laboratory.md
shows it. Timings are not compared; cells that are put together from others are not counted.
"""

from __future__ import annotations

import argparse
import datetime
import math
from pathlib import Path
from typing import Any

from jaxopt_tour.tour.laboratory.experiment import MODULES, Table, find
from jaxopt_tour.tour.laboratory.reproduction import again
from jaxopt_tour.tour.results import FORMAT, machine, read_results, revision, versions, without_nonfinite, write_json

RESULTS = Path(__file__).resolve().parent / "results"
FILE = RESULTS / "reproduction.json"


def table(content: dict[str, Any]) -> str:
    """What the file says, in Markdown."""
    rows = []
    for name, found in content["experiments"].items():
        cells = [
            cell | {"difference": math.inf if cell["difference"] is None else cell["difference"]}
            for cell in found["cells"]
        ]
        worst = max(cells, key=lambda cell: cell["difference"], default={"difference": 0.0})
        parts = ("what", "workload", "rule", "steps") if worst["difference"] else ()
        place = [worst["key"][part] for part in parts if part in worst["key"]]
        equal = sum(cell["difference"] == 0 for cell in cells)
        rows.append([
            name, f"{found['share']:.0%}", str(len(cells)), str(sum(cell["numbers"] for cell in cells)), str(equal),
            f"{worst['difference']:.2g}", ", ".join(map(str, place)),
        ])  # fmt: skip
    caption = (
        "Cells computed again: a share of each experiment's, chosen by a hash of their keys, in another process on the "
        "same machine; equal: in every number, to its seven digits; difference: the largest of any number, relative "
        "to the larger of the two."
    )
    return Table(
        caption, ["experiment", "share", "cells", "numbers", "equal cells", "difference", "in"], rows
    ).markdown()


def main() -> None:
    """Compute, compare and write down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="*", metavar="NAME", default=list(MODULES), help="which experiments; default: all"
    )
    parser.add_argument("--share", type=float, default=0.05, help="of the cells (default: 0.05)")
    arguments = parser.parse_args()
    for name in arguments.names:
        experiment = find(name)
        print(experiment.title, flush=True)
        compared = again(
            experiment,
            RESULTS / name / "results.json",
            arguments.share,
            listener=lambda text: print(f"  {text[:110]}", flush=True),
        )
        content = read_results(FILE) or {"format": FORMAT, "experiments": {}}
        content["experiments"][name] = {
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "versions": versions(),
            "revision": revision(),
            "share": arguments.share,
            "cells": [{"key": each.key, "numbers": each.numbers, "difference": each.difference} for each in compared],
        }
        write_json(FILE, without_nonfinite(content))
    print(table(read_results(FILE)))


if __name__ == "__main__":
    main()
