"""Write the .ipynb beside every percent script of this folder: same cells, no outputs.

    python notebooks/pair.py [NN_name.py ...]

The script is the source. Identifiers of cells are their numbers, so that the same script gives the same file.
"""

from __future__ import annotations

import pathlib
import sys

import jupytext
import nbformat

HERE = pathlib.Path(__file__).parent


def chapters() -> list[pathlib.Path]:
    """The percent scripts, in order."""
    return sorted(HERE.glob("[0-9][0-9]_*.py"))


def as_ipynb(script: pathlib.Path) -> str:
    """The text of the notebook that goes with a percent script."""
    notebook = jupytext.read(script, fmt="py:percent")
    notebook.metadata = {
        "jupytext": {"formats": "ipynb,py:percent"},
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(notebook.cells, 1):
        cell["id"] = f"cell-{number}"
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    nbformat.validate(notebook)
    return nbformat.writes(notebook, version=4) + "\n"


def main() -> None:
    """Write those named, or all."""
    for script in [HERE / name for name in sys.argv[1:]] or chapters():
        target = script.with_suffix(".ipynb")
        new = target.with_suffix(".ipynb.new")
        new.write_text(as_ipynb(script))
        new.replace(target)


if __name__ == "__main__":
    main()
