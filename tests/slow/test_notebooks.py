"""The notebooks: every pair agrees and has no outputs, every chapter runs, and its first cell leaves JAX alone."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys

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


def install_cell(script: pathlib.Path) -> str:
    return next(cell for cell in cells(script) if not cell.startswith(" [markdown]"))


def test_the_page_of_the_tour_lists_every_chapter():
    assert [path.name[:2] for path in SCRIPTS] == [f"{number:02}" for number in range(1, 10)]
    page = (ROOT / "docs" / "tour.md").read_text()
    for script in SCRIPTS:
        assert f"](../notebooks/{script.stem}.ipynb)" in page
    assert {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} == {path.stem for path in SCRIPTS}


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
            # Most of the time is compilation of small programs: less of it makes the nine take two thirds.
            "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
            + os.environ.get("XLA_FLAGS", ""),
            "MPLBACKEND": "agg",
            "MPLCONFIGDIR": str(tmp_path),
            "PYTHONPATH": str(ROOT),
        }
        done = subprocess.run(
            [sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr[-4000:]
        assert "Warning" not in done.stderr, done.stderr

    def test_open_with_a_badge_and_have_something_to_change(self, script):
        first, *others = cells(script)
        assert "https://colab.research.google.com/assets/colab-badge.svg" in first
        assert any("## Change one thing" in cell for cell in others)
        assert "assert" in script.read_text()

    def test_show_the_librarys_own_code(self, script):
        assert "inspect.getsource(" in script.read_text()


class TestInstallCell:
    def test_is_the_same_everywhere(self):
        assert len({install_cell(script) for script in SCRIPTS}) == 1

    @staticmethod
    def commands(monkeypatch, missing):
        """The commands that the cell runs where some modules are missing."""
        found, ran = importlib.util.find_spec, []
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing else found(name))
        monkeypatch.setattr(subprocess, "run", lambda command, check: ran.append(command[1:]))
        exec(compile(ast.parse(install_cell(SCRIPTS[0]).partition("\n")[2]), "first cell", "exec"), {})
        return ran

    def test_does_nothing_where_the_library_is(self, monkeypatch):
        assert self.commands(monkeypatch, ()) == []

    def test_installs_the_library_alone_where_the_rest_is(self, monkeypatch):
        expected = [["-m", "pip", "install", "--quiet", "--no-deps", "jaxopt-tour"]]
        assert self.commands(monkeypatch, ("jaxopt_tour",)) == expected

    def test_holds_jax_where_it_is(self, monkeypatch):
        first, _ = self.commands(monkeypatch, ("jaxopt_tour", "flax", "matplotlib"))
        kept = [f"{name}=={importlib.metadata.version(name)}" for name in ("jax", "jaxlib")]
        assert first == ["-m", "pip", "install", "--quiet", "flax", "matplotlib", *kept]

    def test_brings_jax_where_there_is_none(self, monkeypatch):
        first, _ = self.commands(monkeypatch, ("jaxopt_tour", "jax", "jaxlib"))
        assert first == ["-m", "pip", "install", "--quiet", "jax"]
