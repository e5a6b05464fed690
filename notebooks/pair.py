"""Write the .ipynb beside every percent script of this folder: the same cells, one that installs, no outputs.

    python notebooks/pair.py [NN_name.py ...]

The script is the source. Identifiers of cells are their numbers, so that the same script gives the same file. After a
change of the public address in pyproject.toml, run it again: the badge and the line that installs are made from it.
"""

from __future__ import annotations

import pathlib
import re
import sys
import tomllib

import jupytext
import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell

HERE = pathlib.Path(__file__).parent
COLAB = "https://colab.research.google.com"

#: Tags of cells in the scripts: what the site folds, and the words on the fold.
FOLDED = {
    "setup": ("hide-cell", "imports"),
    "picture": ("hide-input", "code of the picture"),
    "checks": ("hide-cell", "checks"),
    "solution": ("hide-cell", "solution"),
}


def chapters() -> list[pathlib.Path]:
    """The percent scripts, in order."""
    return sorted(HERE.glob("[0-9][0-9]_*.py"))


def address() -> str:
    """The public address of the repository, from the one place that holds it."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    return project["project"]["urls"]["Repository"]


def badge(repository: str, name: str) -> str:
    """The badge that opens a notebook in Colab; where the address is not GitHub's, with how to get it there."""
    found = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?", repository)
    target = f"{COLAB}/github/{found[1]}/blob/main/notebooks/{name}.ipynb" if found else f"{COLAB}/"
    by_hand = "" if found else "\nIn Colab: *File > Open notebook > Upload*, and choose this file."
    return f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({target}){by_hand}"


def install(repository: str) -> str:
    """The cell that installs the library where it is missing."""
    source = f"git+{repository}"
    return f"""\
# Installs the library where it is missing, as on Colab. In a checkout it does nothing.
import importlib.util

if importlib.util.find_spec("jaxopt_tour") is None:
    %pip install --quiet "jaxopt-tour[tour] @ {source}" "jaxopt-tour-data @ {source}#subdirectory=data\""""


def as_ipynb(script: pathlib.Path) -> str:
    """The text of the notebook that goes with a percent script."""
    notebook = jupytext.read(script, fmt="py:percent")
    notebook.metadata = {
        "jupytext": {"formats": "ipynb,py:percent"},
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        _fold(cell)
    # The site shows neither: its pages fetch nothing, and it has the library.
    removed = {"tags": ["remove-cell"]}
    notebook.cells[1:1] = [
        new_markdown_cell(badge(address(), script.stem), metadata=removed),
        new_code_cell(install(address()), metadata=removed),
    ]
    for number, cell in enumerate(notebook.cells, 1):
        cell["id"] = f"cell-{number}"
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    nbformat.validate(notebook)
    return nbformat.writes(notebook, version=4) + "\n"


def _fold(cell: nbformat.NotebookNode) -> None:
    """Fold a tagged cell: for the site, for Jupyter, and for Colab, which shows the title alone."""
    for tag in cell.metadata.get("tags", []):
        how, words = FOLDED[tag]
        cell.metadata = {
            "tags": [tag, how],
            "mystnb": {"code_prompt_show": f"Show the {words}", "code_prompt_hide": f"Hide the {words}"},
            "jupyter": {"source_hidden": True},
            "cellView": "form",
        }
        cell.source = f"# @title {words.capitalize()}\n{cell.source}"


def main() -> None:
    """Write those named, or all."""
    for script in [HERE / name for name in sys.argv[1:]] or chapters():
        target = script.with_suffix(".ipynb")
        new = target.with_suffix(".ipynb.new")
        new.write_text(as_ipynb(script))
        new.replace(target)


if __name__ == "__main__":
    main()
