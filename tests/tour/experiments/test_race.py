"""The race of the laboratory at a few steps: all its parts are there, and a budget beyond the grid is a bound."""

from __future__ import annotations

import pytest

from jaxopt_tour.tour.experiments import race
from jaxopt_tour.tour.laboratory import cells as module
from jaxopt_tour.tour.laboratory.cells import Cells
from jaxopt_tour.tour.laboratory.experiment import find, perform


def test_quick(tmp_path, monkeypatch):
    experiment = find("race")
    summary = perform(experiment, tmp_path, quick=True).read_text()
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    cells = Cells(tmp_path / "results.json", "race", quick=True)
    steps, tuning, time, memory = experiment.tables(cells)
    assert len(steps.rows) == len(tuning.rows) == len(time.rows) == len(memory.rows) == len(race.heats(True))
    assert all(len(row) == len(table.head) for table in experiment.tables(cells) for row in table.rows)
    assert experiment.answer(cells) in summary and "quick run" in summary
    # Both rules had the same trials, at every number of steps that both were run for.
    trials = {}
    for key, value in cells.select(what="tuned"):
        trials.setdefault((key["workload"], key["batch"], key["steps"]), set()).add(value["trials"])
    assert all(len(each) == 1 for each in trials.values())
    monkeypatch.setattr(module, "write_json", lambda *_: pytest.fail("a cell was computed again"))
    perform(experiment, tmp_path, quick=True)


def test_the_grids_are_the_same_for_all_and_names_tell_the_heats_apart():
    heats = race.heats(False)
    assert len({(heat.workload.name, heat.workload.batch_text) for heat in heats}) == len(heats)
    assert all(heat.budgets.seeds >= 5 for heat in heats)


@pytest.mark.parametrize(
    ("first", "second", "bound"),
    [([4, 4], [4, 8], ""), ([None, 4], [4, 4], "≥"), ([4, 4], [8, None], "≤"), ([None], [None], "?")],
)
def test_who_did_not_arrive_makes_a_bound(tmp_path, first, second, bound):
    (heat,) = race.heats(True)
    cells = Cells(tmp_path / "results.json", "race", quick=True)
    for rule, steps in (("adamw", first), ("muon", second)):
        key = {"what": "budget", "workload": heat.workload.name, "batch": heat.workload.batch_text, "rule": rule}
        cells.get(key, lambda steps=steps: {"steps": steps, "readings": []})
    found = race.compare(cells, heat, "adamw", "muon")
    assert found.bound == bound and str(found).startswith(bound)
    beyond = heat.budgets.grid()[-1] * heat.budgets.factor
    a, b = ([beyond if each is None else each for each in steps] for steps in (first, second))
    assert found.interval == race.ratio(a, b)
