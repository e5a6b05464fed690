"""A race runs what is asked, writes results of the promised layout, resumes, and judges its claim."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path

import pytest

from jaxopt_tour.tour import race as racing
from jaxopt_tour.tour.race import Settings, claims, find_run, race
from jaxopt_tour.tour.results import new_results
from jaxopt_tour.tour.train import Run

RUN_KEYS = {
    "optimizer", "seed", "learning_rate", "steps", "curve", "final", "milliseconds_per_step", "optimizer_share",
    "state_bytes_per_parameter", "seconds",
}  # fmt: skip


class Ear:
    """Remembers what it is told."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.notes: list[str] = []
        self.steps = 0
        self.stop_after = stop_after

    def note(self, text: str) -> None:
        self.notes.append(text)

    def skip(self, steps: int) -> None:
        pass

    @contextmanager
    def run(self, name: str, steps: int):
        yield self

    def update(self, step: int, loss: float) -> None:
        self.steps += 1
        if self.steps == self.stop_after:
            raise KeyboardInterrupt


def numbers(results: dict) -> dict:
    """What must not change from one race to the same race again: all but the clock's readings."""
    kept = {}
    for task, entry in results["tasks"].items():
        for run in entry["runs"]:
            curve = {name: values for name, values in run["curve"].items() if name != "seconds"}
            kept[task, run["optimizer"], run["seed"]] = (run["learning_rate"], run["steps"], curve, run["final"])
    return kept


def check_layout(results: dict) -> None:
    keys = {"format", "created", "machine", "versions", "revision", "settings", "tasks", "claims"}
    assert set(results) == keys
    for entry in results["tasks"].values():
        assert set(entry) == {"title", "metric", "parameters", "routing", "batch", "runs"}
        assert entry["parameters"] == 83 and "layers/0/kernel" in entry["routing"]
        for run in entry["runs"]:
            assert set(run) == RUN_KEYS
            curve = run["curve"]
            lengths = {len(values) for values in curve.values() if values is not None}
            assert lengths == {len(curve["step"])}
            assert (curve["validation_accuracy"] is None) == (entry["metric"] is None)
            assert run["final"]["validation_loss"] == curve["validation_loss"][-1]
            assert curve["step"][-1] == run["steps"]
            assert curve["seconds"][-1] == pytest.approx(run["seconds"])
            assert 0 < run["optimizer_share"] <= 1 and run["milliseconds_per_step"] > 0


def test_a_race_writes_results_of_the_promised_layout(tiny_race, tmp_path):
    results = race(Settings(seeds=2), tmp_path / "out", Ear(), rates_file=tiny_race)
    written = json.loads((tmp_path / "out" / "results.json").read_text(), parse_constant=pytest.fail)
    assert written == json.loads(json.dumps(results))
    check_layout(written)
    assert {(task, *key) for task, *key in numbers(written)} == {
        ("cnn", name, seed) for name in ("sgd", "adam") for seed in (0, 1)
    } | {("gpt", name, seed) for name in ("adamw", "muon-0.7") for seed in (0, 1)}
    assert {run["steps"] for run in written["tasks"]["gpt"]["runs"]} == {30, 21}
    (claim,) = written["claims"]
    assert claim["numbers"]["seeds"] == [0, 1] and claim["numbers"]["muon_steps"] == 21
    assert not list((tmp_path / "out").glob(".*"))  # nothing temporary is left


@pytest.mark.parametrize("stop_after", [5, 45])
def test_an_interrupted_race_goes_on_to_the_same_numbers(tiny_race, tmp_path, stop_after):
    settings = Settings(tasks=("cnn",), optimizers=("adam", "sgd"))
    whole = race(settings, tmp_path / "whole", Ear(), rates_file=tiny_race)
    with pytest.raises(KeyboardInterrupt):
        race(settings, tmp_path / "cut", Ear(stop_after), rates_file=tiny_race)
    ear = Ear()
    resumed = race(settings, tmp_path / "cut", ear, resume=True, rates_file=tiny_race)
    assert numbers(resumed) == numbers(whole)
    # Evaluations, and so checkpoints, come every ten steps: no more than nine steps are done twice.
    assert ear.steps == 60 - stop_after + stop_after % 10
    assert sum("already done" in note for note in ear.notes) == stop_after // 30


def test_resume_widens_a_finished_race_without_doing_it_again(tiny_race, tmp_path):
    race(Settings(tasks=("cnn",), optimizers=("adam",)), tmp_path, Ear(), rates_file=tiny_race)
    ear = Ear()
    settings = Settings(tasks=("cnn",), optimizers=("adam", "sgd"), seeds=2)
    results = race(settings, tmp_path, ear, resume=True, rates_file=tiny_race)
    assert ear.steps == 3 * 30 and len(results["tasks"]["cnn"]["runs"]) == 4


def test_resume_with_other_steps_starts_those_runs_over(tiny_race, tmp_path):
    settings = Settings(tasks=("cnn",), optimizers=("adam",))
    race(settings, tmp_path, Ear(), rates_file=tiny_race)
    ear = Ear()
    longer = Settings(tasks=("cnn",), optimizers=("adam",), steps=40)
    race(longer, tmp_path, ear, resume=True, rates_file=tiny_race)
    assert ear.steps == 40


def test_resume_on_another_version_starts_over(tiny_race, tmp_path, monkeypatch):
    settings = Settings(tasks=("cnn",), optimizers=("adam",))
    race(settings, tmp_path, Ear(), rates_file=tiny_race)

    def newer(settings):
        fresh = new_results(settings)
        return {**fresh, "versions": {**fresh["versions"], "jax": "99"}}

    monkeypatch.setattr(racing, "new_results", newer)
    ear = Ear()
    race(settings, tmp_path, ear, resume=True, rates_file=tiny_race)
    assert ear.steps == 30 and any("starting over" in note for note in ear.notes)


def test_without_resume_everything_runs_again(tiny_race, tmp_path):
    settings = Settings(tasks=("cnn",), optimizers=("adam",))
    for _ in range(2):
        ear = Ear()
        race(settings, tmp_path, ear, rates_file=tiny_race)
        assert ear.steps == 30


def test_a_run_that_diverges_is_null_and_does_not_stop_the_race(tiny_race, tmp_path):
    content = json.loads(tiny_race.read_text())
    content["rates"]["cnn"]["sgd"]["learning_rate"] = 1e30
    tiny_race.write_text(json.dumps(content))
    ear = Ear()
    race(Settings(tasks=("cnn",)), tmp_path, ear, rates_file=tiny_race)
    written = json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
    sgd, adam = written["tasks"]["cnn"]["runs"]
    assert sgd["final"] == {"validation_loss": None, "validation_accuracy": None}
    assert adam["final"]["validation_loss"] < 1
    assert any("sgd seed 0: diverged" in note for note in ear.notes)


def test_a_race_that_names_no_seeds_runs_three_on_the_cnn_and_one_where_quick(tiny_race):
    seeds = {
        quick: [
            len({run.seed for task, _, run in Settings(seeds=None, quick=quick).plan(tiny_race) if task.name == name})
            for name in ("cnn", "gpt")
        ]
        for quick in (False, True)
    }
    assert seeds == {False: [3, 1], True: [1, 1]}


def test_quick_is_short_and_steps_say_otherwise(tiny_race):
    quick = Settings(quick=True).plan(tiny_race)
    assert {run.steps for task, _, run in quick if task.name == "cnn"} == {racing.QUICK_STEPS["cnn"]}
    assert {run.steps for _, _, run in Settings(quick=True, steps=10).plan(tiny_race)} == {10, 7}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(seeds=0), "seeds must be at least 1, got 0"),
        (Settings(steps=-3), "steps must be at least 1, got -3"),
        (Settings(optimizers=("lion",)), "among sgd, adam, adamw, muon-0.7; got lion"),
        (Settings(tasks=("gpt",), optimizers=("sgd",)), "on gpt must be among adamw, muon-0.7; got sgd"),
        (Settings(tasks=("vit",)), "task must be one of cnn, gpt, got 'vit'"),
    ],
)
def test_settings_that_make_no_race_are_refused_before_it_starts(tiny_race, settings, message):
    with pytest.raises(ValueError, match=message):
        settings.plan(tiny_race)


def gpt_results(losses: dict[str, list[float | None]]) -> dict:
    steps = {"adamw": 300, "muon-0.7": 210}
    runs = [
        {"optimizer": name, "seed": seed, "steps": steps[name], "final": {"validation_loss": loss}}
        for name, each in losses.items()
        for seed, loss in enumerate(each)
    ]
    return {"tasks": {"gpt": {"runs": runs}}}


@pytest.mark.parametrize(
    ("muon", "holds", "count"),
    [
        ([1.9, 1.8], True, "2 of 2"),
        ([2.0, 2.0], True, "2 of 2"),
        ([1.9, 2.1], False, "1 of 2"),
        ([None, 1.9], False, "1 of 2"),
    ],
)
def test_the_claim_holds_when_every_seed_ends_at_or_under(muon, holds, count):
    (claim,) = claims(gpt_results({"adamw": [2.0, 2.0], "muon-0.7": muon}))
    assert claim["holds"] is holds
    assert f"{count} seeds" in claim["text"] and "210 steps, 0.7 of AdamW's 300" in claim["text"]
    assert ("does not always" in claim["text"]) is not holds
    assert claim["numbers"]["muon_validation_loss"] == muon


@pytest.mark.parametrize("losses", [{}, {"adamw": [2.0]}, {"muon-0.7": [2.0]}])
def test_no_claim_without_both_sides(losses):
    assert claims(gpt_results(losses)) == []


def test_only_a_run_with_the_same_settings_counts_as_done():
    entry = {"optimizer": "adam", "seed": 0, "steps": 30, "learning_rate": 0.1, "seconds": 1.0}
    results = {"tasks": {"cnn": {"runs": [entry]}}}
    run = Run("cnn", "adam", 0, 30, 0.1)
    assert find_run(results, run) == entry
    for other in (Run("gpt", "adam", 0, 30, 0.1), Run("cnn", "adam", 1, 30, 0.1), Run("cnn", "adam", 0, 30, 0.2)):
        assert find_run(results, other) is None
    assert find_run(None, run) is None


def test_checkpoints_lie_one_folder_a_run(tiny_race, tmp_path):
    race(Settings(tasks=("cnn",), optimizers=("adam",), seeds=2), tmp_path, Ear(), rates_file=tiny_race)
    folders = sorted(str(path.relative_to(tmp_path)) for path in Path(tmp_path).glob("checkpoints/*/*"))
    assert folders == ["checkpoints/cnn/adam-seed0", "checkpoints/cnn/adam-seed1"]
