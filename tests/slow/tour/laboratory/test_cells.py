"""Cells are computed once, written at once, and never taken for those of another experiment or machine."""

from __future__ import annotations

import json
import math

import pytest

from jaxopt_tour.tour.laboratory import cells as module
from jaxopt_tour.tour.laboratory.cells import Cells


def test_a_cell_is_computed_once_and_is_in_the_file_at_once(tmp_path):
    path, calls = tmp_path / "results.json", []

    def compute():
        calls.append(1)
        return {"loss": [1 / 3, math.inf, 2], "steps": 7}

    cells = Cells(path, "x")
    key = {"what": "loss", "rate": 0.1}
    value = cells.get(key, compute)
    assert value == {"loss": [0.3333333, None, 2], "steps": 7}
    written = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert written["cells"] == [{"key": key, "value": value}]
    assert written["machine"] and written["versions"]["jax"]
    # As a killed and restarted process would find it.
    again = Cells(path, "x")
    assert again.get(key, compute) == value and len(calls) == 1
    assert again.value(what="loss") == value
    assert list(again.select(rate=0.2)) == []


def test_another_key_is_another_cell(tmp_path):
    cells = Cells(tmp_path / "results.json", "x")
    assert cells.get({"a": 1}, lambda: "one") == "one"
    assert cells.get({"a": 2}, lambda: "two") == "two"
    assert cells.get({"a": 1, "b": None}, lambda: "three") == "three"
    with pytest.raises(ValueError, match="2 cells with a 1"):
        cells.value(a=1)


@pytest.mark.parametrize(("name", "quick"), [("y", False), ("x", True)])
def test_the_file_of_something_else_is_left_alone(tmp_path, name, quick):
    path = tmp_path / "results.json"
    Cells(path, "x").get({"a": 1}, lambda: 1)
    before = path.read_text()
    with pytest.raises(ValueError, match="choose another folder"):
        Cells(path, name, quick=quick)
    assert path.read_text() == before


def test_results_of_another_machine_are_kept_beside_the_new_ones(tmp_path, monkeypatch):
    path, heard = tmp_path / "results.json", []
    Cells(path, "x").get({"a": 1}, lambda: "theirs")
    monkeypatch.setattr(module, "machine", lambda: {"processor": "another"})
    read = Cells(path, "x", read_only=True)
    assert read.value(a=1) == "theirs"
    with pytest.raises(ValueError, match="has no cell a 2: run the experiment to its end first"):
        read.get({"a": 2}, lambda: pytest.fail("computed"))
    cells = Cells(path, "x", listener=heard.append)
    assert cells.get({"a": 1}, lambda: "ours") == "ours"
    (kept,) = tmp_path.glob("results-*.json")
    assert json.loads(kept.read_text())["cells"][0]["value"] == "theirs"
    assert kept.name in heard[0]


def test_an_error_leaves_what_was_there(tmp_path):
    cells = Cells(tmp_path / "results.json", "x")
    cells.get({"a": 1}, lambda: 1)
    with pytest.raises(ZeroDivisionError):
        cells.get({"a": 2}, lambda: 1 / 0)
    assert Cells(tmp_path / "results.json", "x").value(a=1) == 1
