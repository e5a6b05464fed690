"""Kinds of layers and averages over them against plain NumPy, and the experiment's quick setting from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_tour.problems.workloads import small_gpt
from jaxopt_tour.tour.experiments.spectra_runs import GPT_KINDS, Singular, condense, kind_of, matrix_views, summarize
from jaxopt_tour.tour.laboratory.experiment import find, perform
from jaxopt_tour.tour.laboratory.singular import effective_rank


def test_every_matrix_of_the_gpt_has_a_kind():
    workload = small_gpt()
    names = matrix_views(jax.eval_shape(workload.init, jax.random.key(0)), workload.routing)
    assert len(names) == 2 * 7 + 1
    kinds = [kind_of(name, GPT_KINDS) for name in names]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "query, key, value": 6, "attention out": 2, "feed-forward in": 4, "feed-forward out": 2, "head": 1,
    }  # fmt: skip


def test_layers_of_a_kind_are_averaged_and_overlaps_follow_the_observations():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((2, 3, 6, 5))  # two layers, three observations
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    layers = {
        f"layers/{i}/kernel": Singular(*map(jnp.asarray, (s[i], u[i][..., :2], np.swapaxes(vt[i][:, :2], 1, 2))))
        for i in (0, 1)
    }
    found = summarize({"gradient": layers}, {"layers": "all"})["gradient"]
    expected = [np.mean([effective_rank(s[i, t]) / 5 for i in (0, 1)]) for t in range(3)]
    np.testing.assert_allclose(found["effective_rank"]["all"], expected, rtol=1e-3)  # four digits are kept
    cosines = [
        np.linalg.svd(a[t - 1].T @ a[t], compute_uv=False) ** 2
        for t in (1, 2) for i in (0, 1) for a in (u[i][..., :2], np.swapaxes(vt[i][:, :2], 1, 2))
    ]  # fmt: skip
    np.testing.assert_allclose(np.mean(found["overlap"]["all"][1:]), np.mean(cosines), rtol=1e-3)
    assert np.isnan(found["overlap"]["all"][0])


def test_a_cell_keeps_the_last_of_weights_and_the_mean_of_the_rest():
    measures = {"effective_rank": {"all": [0.2, 0.4, 0.9]}, "overlap": {"all": [float("nan"), 0.5, 0.7]}}
    kept = condense("gradient", measures)
    assert kept == {"series": {"all": [0.2, 0.4, 0.9]}, "effective_rank": {"all": 0.5}, "overlap": {"all": 0.6}}
    kept = condense("weights", measures)
    assert kept["effective_rank"] == {"all": 0.9} and kept["overlap"] == {"all": 0.7}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spectra")
    perform(find("spectra"), path, quick=True)
    return path


def test_a_quick_run_is_written_up(folder: Path):
    assert {path.name for path in folder.iterdir()} == {"results.json", "figure.png", "summary.md"}
    experiment, summary = find("spectra"), (folder / "summary.md").read_text()
    assert experiment.question in summary and "A quick run" in summary
    for quantity in ("gradient", "momentum", "update", "weights"):
        for optimizer in ("SGD-momentum", "AdamW", "Muon"):
            assert f"| {quantity}, {optimizer} |" in summary
    answer = summary.split("**Answer.**")[1]
    assert "with Muon" in answer and "AdamW's" in answer and "nan" not in answer


def test_a_second_run_computes_nothing(folder: Path):
    before, told = (folder / "results.json").read_text(), []
    perform(find("spectra"), folder, quick=True, listener=told.append)
    assert told == [] and (folder / "results.json").read_text() == before
    assert len(json.loads(before)["cells"]) == 3 * (1 + 2)  # a search and two seeds a rule
