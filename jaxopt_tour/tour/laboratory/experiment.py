"""What an experiment is, and how one is run, drawn and told from its results alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jaxopt_tour.tour.laboratory.cells import Cells

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = list[str]

_BETWEEN_SENTENCES: Final = re.compile(r"(?<=[\w)\]°`])\. (?=[A-Z])")
#: A longer sentence that says several things, "in 10 of 19 settings: one; another; ...", has a list of them.
_LONGEST: Final = 400


@dataclass(frozen=True)
class Table:
    """A table of a page: what it shows, its head and its rows."""

    caption: str
    head: Row
    rows: list[Row]

    def markdown(self) -> str:
        """The table in Markdown, its first column left and the others right."""
        cells = [self.head, *self.rows]
        lines = ["| " + " | ".join(row) + " |" for row in cells]
        lines.insert(1, "|" + "|".join(["---"] + ["---:"] * (len(self.head) - 1)) + "|")
        return f"{self.caption}\n\n" + "\n".join(lines)


@dataclass(frozen=True)
class Experiment:
    """A question, how it is asked, and how its answer is read from the cells.

    Attributes:
        name: what the command calls it.
        title: what the page calls it.
        question: one sentence.
        protocol: how it is asked, in three lines.
        run: fills the cells; few and small ones where `cells.quick`.
        figure: cells -> the picture.
        tables: cells -> the numbers; the first table is what the answer is read from.
        answer: cells -> a paragraph, of which every number comes from the cells and no sentence says more than its
            interval allows.
        change_our_mind: what observation would overturn the answer.
    """

    name: str
    title: str
    question: str
    protocol: tuple[str, str, str]
    run: Callable[[Cells], None]
    figure: Callable[[Cells], Figure]
    tables: Callable[[Cells], list[Table]]
    answer: Callable[[Cells], str]
    change_our_mind: str


#: The module of `experiments` by the experiment's name, in the order of the page.
MODULES: Final = {
    name: name.replace("-", "_")
    for name in (
        "adam-initialisation",
        "adam-variants",
        "smoothing",
        "matrix-problems",
        "newton-schulz",
        "spectra",
        "race",
        "variance-and-shampoo",
        "after-muon",
    )
}


def find(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        ValueError: there is none; the message lists those there are.
    """
    import importlib

    if name not in MODULES:
        raise ValueError(f"experiment must be one of {', '.join(MODULES)}, got {name!r}")
    return importlib.import_module(f"jaxopt_tour.tour.experiments.{MODULES[name]}").EXPERIMENT


def perform(
    experiment: Experiment, folder: Path, *, quick: bool = False, listener: Callable[[str], None] = lambda text: None
) -> Path:
    """Run what is missing, then write `results.json`, `figure.png` and `summary.md` in a folder.

    Args:
        experiment: which.
        folder: an earlier call's results in it are taken over.
        quick: under a minute, to see everything work: its numbers mean nothing.
        listener: is told of every cell that is done.

    Returns:
        The summary's path.
    """
    cells = Cells(folder / "results.json", experiment.name, quick=quick, listener=listener)
    experiment.run(cells)
    return write_up(experiment, cells, folder)


def write_up(experiment: Experiment, cells: Cells, folder: Path) -> Path:
    """The picture and the summary of results that are there."""
    experiment.figure(cells).savefig(folder / "figure.png", dpi=120, facecolor="white")
    summary = folder / "summary.md"
    summary.write_text(f"# {experiment.title}\n\n{section(experiment, cells, 'figure.png')}\n", encoding="utf-8")
    return summary


def as_list(answer: str) -> str:
    """An answer as a list in Markdown, an item a sentence; those of a later paragraph are below its first."""
    items = []
    for paragraph in answer.split("\n\n"):
        first, *others = _BETWEEN_SENTENCES.split(paragraph.strip().removeprefix("* "))
        below = others if "\n\n" in answer else []
        items += [(0, first), *((1 if below else 0, other) for other in others)]
    return "\n\n".join(_item(depth, text if text.endswith((".", ":")) else f"{text}.") for depth, text in items)


def _item(depth: int, sentence: str) -> str:
    indent = "  " * depth
    what, _, parts = sentence.partition(": ")
    if len(sentence) <= _LONGEST or "; " not in parts:
        return f"{indent}* {sentence}"
    inner = [f"{indent}  * {part}" for part in parts.removesuffix(".").split("; ")]
    return "\n".join([f"{indent}* {what}:", "", *inner])


def section(experiment: Experiment, cells: Cells, figure: str) -> str:
    """Question, protocol, picture, first table, answer, what would change it, and the other tables, in Markdown."""
    first, *others = experiment.tables(cells)
    answer, _, more = as_list(experiment.answer(cells)).removeprefix("* ").partition("\n\n")
    parts = [
        f"**Question.** {experiment.question}",
        "**Protocol.**\n" + "\n".join(f"{number}. {line}" for number, line in enumerate(experiment.protocol, 1)),
        f"![{experiment.title}]({figure})",
        first.markdown(),
        f"**Answer.** {answer}",
        *([more] if more else []),
        f"**What would change our mind.** {experiment.change_our_mind}",
    ]
    if others:
        tables = "\n\n".join(table.markdown() for table in others)
        parts.append(f"<details><summary>All other numbers</summary>\n\n{tables}\n\n</details>")
    if cells.quick:
        parts.insert(0, "*A quick run: the numbers show that everything works and mean nothing else.*")
    return "\n\n".join(parts)
