"""The notebooks: every pair agrees and has no outputs, every chapter runs, and its exercises are checked."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tomllib
import types

import packaging.requirements
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.py"))
every_chapter = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)


def pair_module():
    pytest.importorskip("jupytext", reason="in requirements/dev.txt")
    spec = importlib.util.spec_from_file_location("pair", ROOT / "notebooks/pair.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cells(script: pathlib.Path) -> list[str]:
    return re.split(r"^# %%", script.read_text(), flags=re.M)[1:]


def test_the_page_of_the_tour_lists_every_chapter():
    assert [path.name[:2] for path in SCRIPTS] == [f"{number:02}" for number in range(1, 12)]
    page = (ROOT / "docs" / "tour.md").read_text()
    for script in SCRIPTS:
        assert f"](../notebooks/{script.stem}.ipynb)" in page
    assert {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} == {path.stem for path in SCRIPTS}


def test_the_tuned_numbers_of_the_chapter_on_muon_are_those_of_the_laboratory():
    from jaxopt_tour.tour.laboratory.cells import Cells

    cells = Cells(ROOT / "experiments/results/matrix-problems/results.json", "matrix-problems", read_only=True)
    text = (ROOT / "notebooks/07_muon.py").read_text()
    tuned = ast.literal_eval(re.search(r"^tuned = (\{.*?^\})", text, re.M | re.S)[1])
    names = {"momentum": "sgd-momentum", "adamw": "adamw", "muon": "muon"}
    for title, rules in tuned.items():
        for rule, numbers in rules.items():
            name = names[rule.partition(",")[0]]
            # SGD and Muon do not notice a rotation: they were tuned in rotated axes alone.
            workload = "quadratic-2-aligned" if name == "adamw" and title == "Q diagonal" else "quadratic-2"
            readings = cells.value(what="budget", workload=workload, rule=name)
            first = next(each for each in readings if max(each["final"]) <= 1e-3)
            assert numbers == (first["numbers"]["learning_rate"], first["steps"]), (title, rule)


@every_chapter
class TestPairs:
    def test_agree(self, script):
        notebook = script.with_suffix(".ipynb").read_text()
        assert notebook == pair_module().as_ipynb(script), "run: python notebooks/pair.py"

    def test_have_no_outputs(self, script):
        for cell in json.loads(script.with_suffix(".ipynb").read_text())["cells"]:
            assert cell["cell_type"] in ("code", "markdown")
            if cell["cell_type"] == "code":
                assert cell["outputs"] == [] and cell["execution_count"] is None


@every_chapter
class TestChapters:
    def test_run_in_a_fresh_process_without_a_warning(self, script, tmp_path):
        environment = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
        environment |= {
            "JAX_PLATFORMS": "cpu",
            # Most of the time is compilation of small programs: less of it makes them take two thirds.
            "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
            + os.environ.get("XLA_FLAGS", ""),
            "MPLBACKEND": "agg",
            "MPLCONFIGDIR": str(tmp_path),
            "PYTHONPATH": str(ROOT),
            # Chapter 10 trains for minutes: here a smaller model, for a few steps.
            "JAXOPT_TOUR_QUICK": "1",
        }
        done = subprocess.run(
            [sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr[-4000:]
        assert "Warning" not in done.stderr, done.stderr
        # The checks refuse what the reader finds in the cell, and accept the solution.
        verdicts = re.findall(r"^Exercise (\d): (right|not yet)\.", done.stdout, re.M)
        assert verdicts == [(number, verdict) for number in "12" for verdict in ("not yet", "right")]

    def test_open_with_a_question_and_a_picture_and_end_with_papers(self, script):
        first, setup, picture, *others = cells(script)
        question, time = (part for part in first.split("\n#\n")[1:3])
        assert "?" in question.partition("**")[2].partition("**")[0]
        assert re.search(r"\*\d+ minutes to read.*Before it:", time.replace("\n# ", " "))
        assert setup.startswith(' tags=["setup"]') and picture.startswith(' tags=["picture"]')
        assert "plt.show()" in picture
        assert "## Papers" in others[-1] and "](https://" in others[-1]

    def test_have_something_to_change_and_two_exercises_with_folded_solutions(self, script):
        others = cells(script)
        assert any("## Change one thing" in cell for cell in others)
        checks = re.findall(r"^def (check_\w+)\(.*\n    \"\"\"Exercise (\d)\"\"\"", script.read_text(), re.M)
        solutions = [cell for cell in others if cell.startswith(' tags=["solution"]')]
        assert [number for _, number in checks] == ["1", "2"] and len(solutions) == 2
        for (check, _), solution in zip(checks, solutions, strict=True):
            assert re.search(rf"^assert grade\({check}, \w+\)", solution, re.M)

    def test_show_the_librarys_own_code(self, script):
        assert "inspect.getsource(" in script.read_text()


class TestInstallCell:
    """The cell that `pair.py` puts into every notebook."""

    ADDRESS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]

    @staticmethod
    def commands(monkeypatch, source, missing):
        """The magics that the cell runs where some modules are missing."""
        inputs = pytest.importorskip("IPython.core.inputtransformer2", reason="comes with ipykernel")
        found, ran = importlib.util.find_spec, []
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing else found(name))
        shell = types.SimpleNamespace(run_line_magic=lambda name, line: ran.append((name, *shlex.split(line))))
        exec(inputs.TransformerManager().transform_cell(source), {"get_ipython": lambda: shell})
        return ran

    @every_chapter
    def test_is_the_same_everywhere_and_hidden_on_the_site(self, script):
        _, badge, install, *_ = json.loads(script.with_suffix(".ipynb").read_text())["cells"]
        assert "".join(install["source"]) == pair_module().install(self.ADDRESS)
        assert "colab-badge.svg" in "".join(badge["source"])
        assert badge["metadata"]["tags"] == install["metadata"]["tags"] == ["remove-cell"]

    def test_does_nothing_in_a_checkout(self, monkeypatch):
        assert self.commands(monkeypatch, pair_module().install(self.ADDRESS), ()) == []

    def test_installs_the_library_and_its_data_from_the_address(self, monkeypatch):
        ran = self.commands(monkeypatch, pair_module().install("https://github.com/a/b"), ("jaxopt_tour",))
        source = "git+https://github.com/a/b"
        wanted = f"jaxopt-tour[tour] @ {source}", f"jaxopt-tour-data @ {source}#subdirectory=data"
        assert ran == [("pip", "install", "--quiet", *wanted)]
        for requirement in map(packaging.requirements.Requirement, wanted):
            assert requirement.url.startswith(source)

    def test_the_badge_opens_a_public_notebook_and_says_how_where_there_is_none(self):
        badge = pair_module().badge
        target = "(https://colab.research.google.com/github/a/b/blob/main/notebooks/01_sgd.ipynb)"
        assert badge("https://github.com/a/b", "01_sgd").endswith(target)
        assert badge("https://github.com/a/b.git", "01_sgd").endswith(target)
        assert "Upload" in badge("https://git.example.net/b", "01_sgd")
