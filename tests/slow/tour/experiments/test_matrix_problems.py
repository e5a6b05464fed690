"""The quick run's structure, and the mathematics of reading steps and calling differences."""

from __future__ import annotations

from pathlib import Path

from jaxopt_tour.tour.experiments.matrix_problems_runs import RULES, settings
from jaxopt_tour.tour.laboratory.experiment import find, perform


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
