"""The laboratory's page is what the committed results say, and the command answers."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import re

import pytest

pytest.importorskip("typer")

from typer.testing import CliRunner

from jaxopt_tour import cli
from jaxopt_tour.tour.laboratory import experiment as module
from jaxopt_tour.tour.laboratory.experiment import MODULES, Experiment, Table, find

ROOT = pathlib.Path(__file__).resolve().parents[2]
RESULTS = ROOT / "experiments" / "results"


def load_page_writer():
    spec = importlib.util.spec_from_file_location("write_page", ROOT / "experiments" / "write_page.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_there_are_nine_and_each_is_found_by_its_name():
    assert len(MODULES) == 9
    for name in MODULES:
        experiment = find(name)
        assert experiment.name == name and len(experiment.protocol) == 3
    with pytest.raises(ValueError, match=r"experiment must be one of adam-initialisation, .*, got 'lion'"):
        find("lion")


@pytest.mark.parametrize("name", MODULES)
def test_results_are_committed_with_all_that_says_where_they_come_from(name):
    content = json.loads((RESULTS / name / "results.json").read_text(), parse_constant=pytest.fail)
    assert content["experiment"] == name and content["quick"] is False and content["cells"]
    assert content["revisions"] and content["machine"]["processor"] and content["versions"]["jax"]
    assert (RESULTS / name / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_the_index_says_what_the_results_say():
    index = (ROOT / "docs" / "laboratory.md").read_text()
    assert load_page_writer().with_index(index) == index  # else: python experiments/write_page.py


@pytest.mark.parametrize("name", MODULES)
def test_a_page_says_what_the_results_say(name):
    page = (ROOT / "docs" / "laboratory" / f"{name}.md").read_text()
    assert load_page_writer().page(name) == page  # else: python experiments/write_page.py


@pytest.mark.parametrize("name", MODULES)
def test_every_number_of_an_answer_is_one_of_the_results(name):
    answer = load_page_writer().ANSWERS[name]
    summary = (RESULTS / name / "summary.md").read_text()
    said = re.findall(r"[+-]?\d+\.\d+(?: \[[^]]+\])?|\d+ (?:of|in) \d+", f"{answer['verdict']} {answer['answer']}")
    assert said
    for number in said:
        assert number in summary, number
    assert len(re.findall(r"[.:;](?:\s|$)", answer["answer"])) <= 6 and len(answer["answer"]) <= 600


@pytest.mark.parametrize("name", MODULES)
def test_summaries_are_those_of_the_results(name):
    experiment, cells = load_page_writer().committed(name)
    text = (RESULTS / name / "summary.md").read_text()
    assert text == f"# {experiment.title}\n\n{module.section(experiment, cells, 'figure.png')}\n"


def test_a_table_in_markdown():
    table = Table("What.", ["name", "loss"], [["a", "1.0"], ["b", "2.0"]])
    assert table.markdown() == "What.\n\n| name | loss |\n|---|---:|\n| a | 1.0 |\n| b | 2.0 |"


class TestCommand:
    @pytest.fixture
    def tiny(self, monkeypatch):
        """An experiment of two cells, of which the second can be made to break off."""
        from matplotlib.figure import Figure

        broken = []

        def run(cells):
            cells.get({"cell": 1}, lambda: 1)
            if broken:
                raise KeyboardInterrupt
            cells.get({"cell": 2}, lambda: 2)

        tables = [Table("All.", ["a"], [["1"]]), Table("More.", ["b"], [["2"]])]
        experiment = Experiment(
            "tiny", "A tiny experiment", "Is it?", ("a", "b", "c"), run, lambda cells: Figure(), lambda cells: tables,
            lambda cells: f"It is {cells.value(cell=2)}.", "Nothing.",
        )  # fmt: skip
        monkeypatch.setattr(module, "find", lambda name: {"tiny": experiment}.get(name) or find(name))
        return broken

    def call(self, *arguments, code=0):
        result = CliRunner().invoke(cli.app, ["experiment", *map(str, arguments)], env={"COLUMNS": "120"})
        assert result.exit_code == code, result.output
        return result.output

    def test_writes_results_picture_and_summary(self, tiny, tmp_path):
        text = self.call("tiny", "--out", tmp_path)
        assert str(tmp_path / "tiny" / "summary.md") in text
        summary = (tmp_path / "tiny" / "summary.md").read_text()
        assert "**Answer.** It is 2." in summary
        assert (
            summary.index("All.") < summary.index("**Answer.**") < summary.index("<details>") < summary.index("More.")
        )
        assert {path.name for path in (tmp_path / "tiny").iterdir()} == {"results.json", "figure.png", "summary.md"}

    def test_goes_on_after_an_interruption(self, tiny, tmp_path):
        tiny.append(True)
        assert "the same command goes on" in self.call("tiny", "--out", tmp_path, code=130)
        tiny.clear()
        text = self.call("tiny", "--out", tmp_path)
        assert "cell 2" in text and "cell 1" not in text

    def test_quick_results_do_not_mix_with_full_ones(self, tiny, tmp_path):
        self.call("tiny", "--out", tmp_path, "--quick")
        assert "a quick run" in (tmp_path / "tiny" / "summary.md").read_text().lower()
        assert "choose another folder" in self.call("tiny", "--out", tmp_path, code=2)

    def test_an_unknown_name_is_answered_with_the_known_ones(self):
        assert "smoothing" in self.call("lion", code=2)
