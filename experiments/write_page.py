"""The pages of docs/laboratory/ and their index, from the committed results and the answers in answers.toml.

python experiments/write_page.py

Draws every experiment's picture and writes its summary anew, too: what a page says is what this revision of the code
reads in the results. It computes no cell.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import reproduce

from jaxopt_tour.tour.laboratory.cells import Cells
from jaxopt_tour.tour.laboratory.experiment import MODULES, Experiment, as_list, find, write_up
from jaxopt_tour.tour.results import read_results

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "experiments" / "results"
INDEX = ROOT / "docs" / "laboratory.md"
PAGES = ROOT / "docs" / "laboratory"
#: By experiment, in the order of the index: question, verdict and answer, written by hand.
ANSWERS = tomllib.loads((ROOT / "experiments" / "answers.toml").read_text(encoding="utf-8"))


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


def page(name: str) -> str:
    """An experiment's page: answer, picture, first table, protocol, what would overturn it; then the rest, folded."""
    experiment, cells = committed(name)
    first, *others = experiment.tables(cells)
    answer = ANSWERS[name]
    parts = [
        f"# {answer['question']}",
        answer["answer"].strip(),
        f"![{experiment.title}](../../experiments/results/{name}/figure.png)",
        first.markdown(),
        "## Protocol",
        experiment.question,
        "\n".join(f"{number}. {line}" for number, line in enumerate(experiment.protocol, 1)),
        "What all experiments share is on [the index](../laboratory.md).",
        "## What would change our mind",
        experiment.change_our_mind,
        "## Details",
        f"<details><summary>Every comparison in words</summary>\n\n{as_list(experiment.answer(cells))}\n\n</details>",
        *(
            f"<details><summary>{_short(table.caption)}</summary>\n\n{table.markdown()}\n\n</details>"
            for table in others
        ),
        origin(cells),
    ]
    return "\n\n".join(parts) + "\n"


def _short(caption: str) -> str:
    """The beginning of a caption, to its first stop."""
    return re.split(r"[.:;,(]", caption)[0]


def index() -> str:
    """One line an experiment, and the second run."""
    lines = [
        f"| [{answer['question']}](laboratory/{name}.md) | {answer['verdict']} |" for name, answer in ANSWERS.items()
    ]
    again = reproduce.table(read_results(reproduce.FILE))
    return "\n".join(
        ["| question | verdict |", "|---|---|", *lines, "", "## A second run", "", again, "",
         "<sub>Written by `python experiments/reproduce.py`.</sub>"]
    )  # fmt: skip


def with_index(text: str) -> str:
    """The index with the text between its two marks replaced."""
    begin, end = "<!-- index: written by experiments/write_page.py -->", "<!-- end of index -->"
    return re.sub(f"{re.escape(begin)}.*{re.escape(end)}", lambda _: f"{begin}\n\n{index()}\n\n{end}", text, flags=re.S)


def main() -> None:
    """Write pictures, summaries, pages and the index."""
    PAGES.mkdir(exist_ok=True)
    for name in MODULES:
        write_up(*committed(name), RESULTS / name)
        (PAGES / f"{name}.md").write_text(page(name), encoding="utf-8")
    INDEX.write_text(with_index(INDEX.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
