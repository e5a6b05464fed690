"""The sections of docs/laboratory.md, from the committed results and nothing else.

python experiments/write_page.py

Draws every experiment's picture and writes its summary anew, too: what a page says is what this revision of the code
reads in the results. It computes no cell.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import reproduce

from jaxopt_tour.tour.laboratory.cells import Cells
from jaxopt_tour.tour.laboratory.experiment import MODULES, Experiment, find, section, write_up
from jaxopt_tour.tour.results import read_results

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "experiments" / "results"
PAGE = ROOT / "docs" / "laboratory.md"


def committed(name: str) -> tuple[Experiment, Cells]:
    """An experiment and its results."""
    return find(name), Cells(RESULTS / name / "results.json", name, read_only=True)


def origin(cells: Cells) -> str:
    """Where the numbers come from, in one line."""
    content = cells.content
    machine, versions = content["machine"], content["versions"]
    packages = ", ".join(f"{name} {versions[name]}" for name in ("jax", "optax", "flax") if name in versions)
    revisions = " to ".join(dict.fromkeys(content["revisions"][place][:10] for place in (0, -1)))
    return (
        f"<sub>{len(content['cells'])} cells begun {content['created'][:10]} on {machine['cores']} cores of "
        f"{machine['processor']}, {packages}, revisions {revisions}. Again: "
        f"`jaxopt-tour experiment {cells.content['experiment']}`.</sub>"
    )


def sections() -> str:
    """All experiments in the page's order."""
    parts = []
    for number, name in enumerate(MODULES, 1):
        experiment, cells = committed(name)
        figure = f"../experiments/results/{name}/figure.png"
        parts.append(f"## {number}. {experiment.title}\n\n{section(experiment, cells, figure)}\n\n{origin(cells)}")
    again = reproduce.table(read_results(reproduce.FILE))
    parts.append(f"## A second run\n\n{again}\n\n<sub>Written by `python experiments/reproduce.py`.</sub>")
    return "\n\n".join(parts)


def with_sections(page: str) -> str:
    """The page with the text between its two marks replaced."""
    begin, end = "<!-- sections: written by experiments/write_page.py -->", "<!-- end of sections -->"
    return re.sub(
        f"{re.escape(begin)}.*{re.escape(end)}", lambda _: f"{begin}\n\n{sections()}\n\n{end}", page, flags=re.S
    )


def main() -> None:
    """Write pictures, summaries and the page."""
    for name in MODULES:
        write_up(*committed(name), RESULTS / name)
    PAGE.write_text(with_sections(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
