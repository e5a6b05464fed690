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
    tables = experiment.tables(cells)
    assert len(tables) == 5 and all(len(table.rows) == len(race.heats(True)) for table in tables)
    assert all(len(row) == len(table.head) for table in experiment.tables(cells) for row in table.rows)
    assert experiment.answer(cells) in summary and "quick run" in summary
    # Every search was allotted the same trials, and had more only where its best point was at an edge.
    searches = [(key, value) for key, value in cells.select(what="tuned") if "all tuned" not in key["rule"]]
    assert {key["trials"] for key, _ in searches} == {5} and all(value["trials"] >= 5 for _, value in searches)
    assert all(value["interior"] for _, value in searches)
    monkeypatch.setattr(module, "write_json", lambda *_: pytest.fail("a cell was computed again"))
    perform(experiment, tmp_path, quick=True)


def test_tuning_more_numbers_never_ends_above_tuning_two(tmp_path):
    (heat,), cells = race.heats(True), Cells(tmp_path / "results.json", "race", quick=True)
    race._budget(cells, heat, race.MUON)
    race._all_tuned(cells, heat, race.MUON)
    plain, more = ({key["steps"]: value for key, value in cells.select(what="tuned", rule=rule)}
                   for rule in ("muon", "muon, all tuned"))  # fmt: skip
    assert plain.keys() == more.keys()
    for steps, tuned in more.items():
        assert set(tuned["numbers"]) == {"learning_rate", "momentum", "weight_decay", "warmup"}
        assert tuned["tried"][0][1] == pytest.approx(plain[steps]["loss"], rel=1e-5)  # where it starts
        assert tuned["loss"] <= tuned["tried"][0][1]


def test_the_grids_are_the_same_for_all_and_names_tell_the_heats_apart():
    heats = race.heats(False)
    assert len({(heat.workload.name, heat.workload.batch_text) for heat in heats}) == len(heats)
    assert all(heat.budgets.seeds >= 5 for heat in heats)


def test_seconds_are_steps_times_the_time_of_a_step(tmp_path):
    (heat,) = race.heats(True)
    cells = Cells(tmp_path / "results.json", "race", quick=True)
    seeds = range(heat.budgets.seeds)
    for rule, final in (("adamw", {4: 3.0, 6: 2.0, 8: 0.5}), ("muon", {4: 2.0, 6: 0.5})):
        key = {"what": "budget", "workload": heat.workload.name, "batch": heat.workload.batch_text, "rule": rule}
        readings = [{"steps": steps, "final": [value for _ in seeds]} for steps, value in final.items()]
        cells.get(key, lambda readings=readings: {"steps": [], "readings": readings})
    key = {"what": "costs", "workload": heat.workload.name, "batch": heat.workload.batch_text}
    cells.get(key, lambda: {"adamw": {"step": 1.0}, "muon": {"step": 2.0}})
    steps, seconds = race.compare(cells, heat, "adamw", "muon"), race._seconds(cells, heat)
    # The target of 1 is half way, in the logarithms, from 2 to 0.5: sqrt(6 * 8) over sqrt(4 * 6).
    assert heat.workload.target == 1.0
    assert steps.interval.value == pytest.approx(2**0.5, rel=1e-6) and steps.call == 1
    assert seconds.interval.value == pytest.approx(2**-0.5, rel=1e-6) and seconds.call == -1
