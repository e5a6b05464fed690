"""Any optimizer goes through the race's protocol, and one that is broken, slow or wild ends with a sentence."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxopt_tour.tour.enter.card import text, verdicts, write_card
from jaxopt_tour.tour.enter.contest import choose_heats, contest, rival_readings
from jaxopt_tour.tour.enter.entry import find_entry
from jaxopt_tour.tour.laboratory.cells import Cells
from jaxopt_tour.tour.laboratory.tiny import tiny_workload

ROOT = Path(__file__).resolve().parents[3]
MINE = """
from typing import Annotated
import jax, jax.numpy as jnp, optax

def adam(learning_rate, b1: Annotated[float, (0.5, 0.99)] = 0.9, eps: float = 1e-8):
    return optax.adam(learning_rate, b1=b1, eps=eps)

def plain_numbers(learning_rate: float, b1: Annotated[float, (0.5, 0.99)] = 0.9):
    if not 0 < b1 < 1:
        raise ValueError("b1")
    return optax.chain(optax.scale_by_adam(b1=b1), optax.scale(-learning_rate))

def broken(learning_rate):
    raise RuntimeError("it has a bug")

def diverges(learning_rate):
    return optax.chain(optax.scale(-jnp.inf), optax.scale_by_learning_rate(learning_rate))

def nothing():
    return optax.identity()
"""


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return f"{path}:"


def run(entry, path, minutes=20.0, rivals=()):
    return contest(entry, choose_heats((), True), rivals, path, minutes=minutes, quick=True)


def test_an_entry_that_is_adam_gets_adams_numbers(mine, tmp_path):
    entry = find_entry(f"{mine}adam")
    (result,) = run(entry, tmp_path / "results.json", rivals=("adamw",))
    steps = [reading["steps"] for reading in result.readings]
    assert steps == [4, 6, 8][: len(steps)] and not result.ended
    assert all(np.isfinite(reading["final"]).all() for reading in result.readings)
    assert result.decades["decades"] > 0
    own, adamw = list(result.costs.values())
    assert own["state_bytes_per_parameter"] == pytest.approx(adamw["state_bytes_per_parameter"], abs=0.01)
    # The decay of the laboratory's AdamW does next to nothing in eight steps, so the two cannot be told apart.
    assert result.against("adamw").call == 0
    card = write_card(entry, [result], tmp_path, quick=True)
    assert "not shown: that adam and adamw differ" in card.read_text()
    assert (tmp_path / "card.png").stat().st_size > 10_000

    computed = json.loads((tmp_path / "results.json").read_text())["cells"]
    run(entry, tmp_path / "results.json", minutes=0.001, rivals=("adamw",))  # everything is there: no time is needed
    assert json.loads((tmp_path / "results.json").read_text())["cells"] == computed


def test_a_function_of_plain_numbers_is_called_with_plain_numbers(mine):
    entrant = find_entry(f"{mine}plain_numbers").entrant(tiny_workload())
    assert entrant.rule.static == ("b1",)
    assert find_entry(f"{mine}adam").entrant(tiny_workload()).rule.static == ()


def test_a_search_whose_time_is_over_says_what_is_known(mine, tmp_path):
    (result,) = run(find_entry(f"{mine}adam"), tmp_path / "results.json", minutes=0.0)
    assert result.ended == "its time was over" and not result.readings
    assert "nothing is known: its time was over." in text(find_entry(f"{mine}adam"), [result])


def test_a_broken_and_a_diverging_entry_end_with_a_sentence(mine, tmp_path):
    for name, reason in (("broken", "RuntimeError: it has a bug"), ("diverges", "it diverged at every setting")):
        (result,) = run(find_entry(mine + name), tmp_path / f"{name}.json")
        (sentence,) = verdicts(find_entry(mine + name), result)
        assert reason in sentence and "nothing is known" in sentence


@pytest.mark.parametrize(
    ("where", "tune", "message"),
    [
        ("nothing", (), "an entry is MODULE:FUNCTION"),
        ("not_a_module:make", (), "not_a_module cannot be imported: ModuleNotFoundError"),
        ("MINE:missing", (), "has no function 'missing'; it has .*adam"),
        ("MINE:nothing", (), "it takes no arguments"),
        ("MINE:adam", ("b9=0.5:0.9",), "no argument 'b9' to tune; there are b1, eps"),
        ("MINE:adam", ("eps=1e-3:1e-8",), "0 < low < high"),
        ("MINE:adam", ("eps:3",), "name=low:high"),
    ],
)
def test_what_cannot_be_entered_is_named(mine, where, tune, message):
    with pytest.raises(ValueError, match=message):
        find_entry(where.replace("MINE:", mine), tune)


def test_unknown_rivals_and_workloads_are_named(mine, tmp_path):
    with pytest.raises(ValueError, match=r"a rival is one of sgd-momentum, adam, adamw, muon; got 'x'"):
        contest(find_entry(f"{mine}adam"), choose_heats((), True), ("x",), tmp_path / "r.json", minutes=1, quick=True)
    with pytest.raises(ValueError, match=r"a workload is one of mlp, cnn, vit, gpt; got 'x'"):
        choose_heats(("x",), False)


def test_results_of_an_earlier_source_are_not_taken_over(mine):
    path = Path(mine.removesuffix(":"))
    before = find_entry(f"{mine}adam").digest
    path.write_text(MINE + "\n# another version\n")
    assert find_entry(f"{mine}adam").digest != before == before


def test_the_rivals_of_the_package_are_those_of_the_race():
    sys.path.insert(0, str(ROOT / "experiments"))
    try:
        from write_rivals import RIVALS, rivals
    finally:
        sys.path.pop(0)
    assert json.loads(RIVALS.read_text()) == rivals()
    for heat in choose_heats(("mlp", "cnn", "vit", "gpt"), False):
        readings = rival_readings(Cells(None, "enter"), heat, "muon")
        assert readings[-1]["steps"] >= heat.budgets.first and len(readings[0]["final"]) == heat.budgets.seeds


def rows_of(path):
    """The cells of a page's tables, without backticks."""
    lines = path.read_text().splitlines()
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]


def test_the_page_has_the_ratios_of_the_committed_cards():
    told = {(name, problem): ratios for name, problem, *ratios, _ in rows_of(ROOT / "docs" / "enter.md")[2:]}
    found = {}
    for card in (ROOT / "experiments" / "results" / "enter").glob("*/card.md"):
        for row in rows_of(card):
            if len(row) == 7 and row[0] in {problem for _, problem in told}:
                found[card.parent.name, row[0]] = row[-2:]
    assert told == found and len({name for name, _ in found}) == 3
