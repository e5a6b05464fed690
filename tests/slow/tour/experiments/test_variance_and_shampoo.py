"""Shampoo against the polar factor in plain NumPy, and the experiment's quick setting from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_tour.tour.experiments.accumulation_runs import against_polar
from jaxopt_tour.tour.experiments.second_moment import QUICK
from jaxopt_tour.tour.laboratory.experiment import find, perform


def inverse_fourth_root(a: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(a)
    return vectors @ np.diag(values**-0.25) @ vectors.T


@pytest.mark.parametrize(("beta", "decay", "eps"), [(0.0, 0.9, 1e-3), (0.8, 0.5, 1e-6), (0.9, 0.0, 1e-6)])
def test_updates_are_compared_with_the_polar_factor_of_the_same_matrix(beta: float, decay: float, eps: float) -> None:
    gradients = np.random.default_rng(0).normal(size=(6, 4, 4)) + 2 * np.eye(4)
    found = against_polar(*(jnp.asarray(x, jnp.float32) for x in (gradients, beta, decay, eps)))
    m, left, right = np.zeros((4, 4)), np.zeros((4, 4)), np.zeros((4, 4))
    for t, g in enumerate(gradients, 1):
        m = beta * m + (1 - beta) * g
        x = beta * m + (1 - beta) * g
        left, right = decay * left + (1 - decay) * x @ x.T, decay * right + (1 - decay) * x.T @ x
        sides = [a / (1 - decay**t) for a in (left, right)]
        sides = [a + eps * np.trace(a) * np.eye(4) for a in sides]
        update = inverse_fourth_root(sides[0]) @ x @ inverse_fourth_root(sides[1])
        u, _, vt = np.linalg.svd(x)
        polar = u @ vt
        length = np.linalg.norm(update)
        expected = (np.linalg.norm(update - polar) / 2, np.sum(update * polar) / length / 2, length / 2)  # |O|_F = 2
        # float32 keeps some four digits of roots of matrices with condition up to 1e4.
        np.testing.assert_allclose([each[t - 1] for each in found], expected, rtol=2e-3, atol=2e-3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("variance-and-shampoo")
    perform(find("variance-and-shampoo"), path, quick=True)
    return path


def test_a_quick_run_is_written_up(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"results.json", "figure.png", "summary.md"}
    experiment, summary = find("variance-and-shampoo"), (folder / "summary.md").read_text()
    assert experiment.question in summary and "A quick run" in summary
    for row in (QUICK.settings[0].name, "0.9", "1e-06", "muon", "adamw", "shampoo 0", "shampoo 0.9"):
        assert f"\n| {row} |" in summary
    answer = summary.split("**Answer.**")[1]
    assert "Adam's v" in answer and "polar factor" in answer and "nan" not in answer


def test_a_second_run_computes_nothing(folder: Path) -> None:
    before, told = (folder / "results.json").read_text(), []
    perform(find("variance-and-shampoo"), folder, quick=True, listener=told.append)
    assert told == [] and (folder / "results.json").read_text() == before
    # Adam: a search and two runs; four rules: a search and a reading each; one recorded run
    assert len(json.loads(before)["cells"]) == 3 + 8 + 1
