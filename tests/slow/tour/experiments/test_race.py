"""The race of the laboratory at a few steps: all its parts are there, and a budget beyond the grid is a bound."""

from __future__ import annotations

import pytest

from jaxopt_tour.tour.experiments import race
from jaxopt_tour.tour.laboratory import cells as module
from jaxopt_tour.tour.laboratory.cells import Cells
from jaxopt_tour.tour.laboratory.experiment import as_list, find, perform


def test_quick(tmp_path, monkeypatch):
    experiment = find("race")
    summary = perform(experiment, tmp_path, quick=True).read_text()
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    cells = Cells(tmp_path / "results.json", "race", quick=True)
    tables = experiment.tables(cells)
    assert len(tables) == 5 and all(len(table.rows) == len(race.heats(True)) for table in tables)
    assert all(len(row) == len(table.head) for table in experiment.tables(cells) for row in table.rows)
    for paragraph in as_list(experiment.answer(cells)).split("\n\n"):
        assert paragraph.removeprefix("* ") in summary
    assert "quick run" in summary
    # Every search was allotted the same trials, and had more only where its best point was at an edge.
    searches = [(key, value) for key, value in cells.select(what="tuned") if "all tuned" not in key["rule"]]
    assert {key["trials"] for key, _ in searches} == {5} and all(value["trials"] >= 5 for _, value in searches)
    assert all(value["interior"] for _, value in searches)
    monkeypatch.setattr(module, "write_json", lambda *_: pytest.fail("a cell was computed again"))
    perform(experiment, tmp_path, quick=True)


def test_tuning_more_numbers_never_ends_above_tuning_two(tmp_path):
    (heat,), cells = race.heats(True), Cells(tmp_path / "results.json", "race", quick=True)
    race._readings_all_tuned(cells, heat, "muon")
    plain, more = ({key["steps"]: value for key, value in cells.select(what="tuned", rule=rule)}
                   for rule in ("muon", "muon, all tuned"))  # fmt: skip
    assert plain and more
    for steps in plain.keys() & more.keys():
        tuned = more[steps]
        assert set(tuned["numbers"]) == {"learning_rate", "momentum", "weight_decay", "warmup"}
        assert tuned["tried"][0][1] == pytest.approx(plain[steps]["loss"], rel=1e-5)  # where it starts
        assert tuned["loss"] <= tuned["tried"][0][1]


def test_the_grids_are_the_same_for_all_and_names_tell_the_heats_apart():
    heats = race.heats(False)
    assert len({(heat.workload.name, heat.workload.batch_text) for heat in heats}) == len(heats)
    assert all(heat.budgets.seeds >= 5 for heat in heats)


def test_seconds_are_steps_times_the_time_of_a_step(tmp_path, monkeypatch):
    (heat,) = race.heats(True)
    finals = {"adamw": {4: 3.0, 6: 2.0, 8: 0.5}, "muon": {4: 2.0, 6: 0.5}}

    def readings(cells, heat, name):
        return [{"steps": steps, "final": [value] * heat.budgets.seeds} for steps, value in finals[name].items()]

    monkeypatch.setattr(race, "_costs", lambda *_: {"adamw": {"rounds": [1.0, 1.1]}, "muon": {"rounds": [2.0, 2.0]}})
    cells = Cells(None, "race", quick=True)
    steps = race.compare(cells, heat, "adamw", "muon", readings)
    monkeypatch.setattr(race, "compare", lambda *_: steps)
    seconds = race._seconds(cells, heat).interval
    # The target of 1 is half way, in the logarithms, from 2 to 0.5: sqrt(6 * 8) over sqrt(4 * 6).
    assert heat.workload.target == 1.0
    assert steps.interval == pytest.approx((2**0.5,) * 3, rel=1e-6) and steps.call == 1
    assert seconds == pytest.approx((0.525 * 2**0.5, 0.5 * 2**0.5, 0.55 * 2**0.5), rel=1e-6)
