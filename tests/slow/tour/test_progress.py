"""Bars on a terminal, a plain line now and then elsewhere, and a table that fits."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from jaxopt_tour.tour import progress
from jaxopt_tour.tour.progress import Display
from jaxopt_tour.tour.summary import mean_and_spread, summary_table


def show(terminal: bool, interval: float, monkeypatch) -> str:
    monkeypatch.setattr(progress, "PLAIN_INTERVAL", interval)
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=100, color_system=None, legacy_windows=False)
    with Display(console, 20) as display:
        display.skip(10)
        with display.run("cnn adam seed 0", 10) as run:
            for step in range(1, 8):
                run.update(step, 1 / step)
        display.note("diverged at step 7 [kept as it is]")
    return file.getvalue()


def test_plain_lines_say_where_the_run_and_the_race_are(monkeypatch):
    shown = show(False, -1.0, monkeypatch)
    assert "cnn adam seed 0: step 5 of 10, train loss 0.200 (75 % of the race)\n" in shown
    assert "diverged at step 7 [kept as it is]\n" in shown
    assert "\x1b" not in shown and "\r" not in shown


def test_plain_lines_are_occasional(monkeypatch):
    assert show(False, 60.0, monkeypatch) == "diverged at step 7 [kept as it is]\n"


def test_a_terminal_gets_bars_for_the_run_and_for_the_race(monkeypatch):
    shown = show(True, -1.0, monkeypatch)
    assert "cnn adam seed 0" in shown and "all runs" in shown and "\x1b[" in shown


@pytest.mark.parametrize(
    ("values", "text"),
    [([1.0], "1.00"), ([1.0, 2.0], "1.50±0.50"), ([None], "diverged"), ([1.0, None], "1 of 2 diverged")],
)
def test_mean_and_spread(values, text):
    assert mean_and_spread(values, "{:.2f}".format) == text


def run(optimizer: str, seed: int, loss: float | None) -> dict:
    return {
        "optimizer": optimizer, "seed": seed, "learning_rate": 0.0032, "steps": 300,
        "final": {"validation_loss": loss, "validation_accuracy": None if loss is None else 0.8},
        "milliseconds_per_step": 123.4, "optimizer_share": 0.27, "state_bytes_per_parameter": 8.0,
    }  # fmt: skip


@pytest.mark.parametrize("metric", ["accuracy", None])
def test_the_table_has_every_column_in_80_characters_best_first(metric):
    losses = {"rmsprop-centered": 0.51234, "sgd": None, "adam": 0.41234}
    runs = [run(name, seed, loss) for name, loss in losses.items() for seed in range(3)]
    task = {"title": "Images", "metric": metric, "parameters": 105_866, "batch": "128 images", "runs": runs}
    file = io.StringIO()
    Console(file=file, width=80).print(summary_table(task))
    text = file.getvalue()
    rows = [line.split() for line in text.splitlines() if line.strip().startswith(tuple(losses))]
    accuracy = ["80.0±0.0"] if metric else []
    rest = ["123.4", "27", "8.0", "0.0032", "300"]
    assert rows[0] == ["adam", "0.4123±0.0000", *accuracy, *rest]
    assert rows[1] == ["rmsprop-centered", "0.5123±0.0000", *accuracy, *rest]
    assert rows[2][:2] == ["sgd", "diverged"]
    assert "…" not in text and "3 seeds" in text
