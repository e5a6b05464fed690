"""The quick run's structure, and the mathematics of reading steps and calling differences."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from jaxopt_tour.tour.experiments.matrix_problems import RULES, Compared, settings, steps_to
from jaxopt_tour.tour.laboratory.experiment import find, perform
from jaxopt_tour.tour.laboratory.statistics import Interval


def test_a_quick_run_writes_its_results_and_a_second_computes_nothing(tmp_path: Path) -> None:
    summary = perform(find("matrix-problems"), tmp_path, quick=True)
    text = summary.read_text(encoding="utf-8")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    for setting in settings(quick=True):
        rows = [row for row in text.splitlines() if row.startswith(f"| {setting.label} |")]
        assert len(rows) == 2 + len(setting.targets[1:])  # steps, tuned numbers, and each further target
    for rule in RULES:
        assert f" {rule.name} |" in text
    assert "AdamW needs" in text.split("**Answer.**")[1]
    before = (tmp_path / "results.json").read_bytes()
    heard: list[str] = []
    perform(find("matrix-problems"), tmp_path, quick=True, listener=heard.append)
    assert heard == []
    assert (tmp_path / "results.json").read_bytes() == before


def test_the_settings_are_those_that_are_asked_for() -> None:
    labels = [setting.label for setting in settings(quick=False)]
    assert len(set(labels)) == len(labels)
    for exponent in (0, 1, 2):
        for batch in ("batch 8", "batch 64", "full batch"):
            assert f"linear regression, exponent {exponent}, {batch}" in labels
    for setting in settings(quick=False):
        assert setting.workload.target <= min(setting.targets)


def test_steps_are_read_between_the_grid() -> None:
    def readings(*values: float | None) -> list[dict[str, object]]:
        return [{"steps": 10 * 2**place, "final": [value]} for place, value in enumerate(values)]

    # From 0.4 at 10 to 0.1 at 20: half way in the logarithms at 0.2.
    assert steps_to(readings(0.4, 0.1), 0, 0.2) == pytest.approx(10 * math.sqrt(2))
    assert steps_to(readings(0.4, 0.2), 0, 0.2) == pytest.approx(20)
    assert steps_to(readings(0.1), 0, 0.2) == 10
    assert steps_to(readings(0.4, None, 0.1), 0, 0.2) == 40  # nothing to read between, where a run diverged
    assert steps_to(readings(0.4, 0.3, 0.1, 0.5), 0, 0.2) == pytest.approx(20 * 2 ** (math.log(1.5) / math.log(3)))
    assert steps_to(readings(0.4, 0.3), 0, 0.2) is None
    assert steps_to(readings(0.4, -1e-8), 0, 0.2) is not None  # a gap of zero, but for rounding


@pytest.mark.parametrize(
    ("found", "call"),
    [
        (Compared(Interval(1.5, 1.3, 1.7)), 1),
        (Compared(Interval(1.2, 1.05, 1.3)), 0),
        (Compared(Interval(0.7, 0.6, 0.8)), -1),
        (Compared(Interval(0.9, 0.8, 0.95)), 0),
        (Compared(None), 0),
        (Compared(None, 3.0), 1),
        (Compared(None, 0.9), 0),
        (Compared(None, 0.5, above=False), -1),
        (Compared(None, 1.5, above=False), 0),
    ],
)
def test_a_difference_is_called_where_the_whole_interval_is_beyond(found: Compared, call: int) -> None:
    assert found.call == call


def test_a_difference_inside_the_margin_is_small_and_one_of_rounding_is_none() -> None:
    assert Compared(Interval(0.95, 0.93, 0.97)).small
    assert not Compared(Interval(0.7, 0.6, 0.8)).small  # called
    assert not Compared(Interval(0.98, 0.95, 1.01)).small
    assert not Compared(Interval(1.002, 1.001, 1.003)).small
