"""Angles against NumPy, what averaging alone does against averaged random vectors, and the quick setting."""

from __future__ import annotations

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_tour.tour.experiments.smoothing_runs import EVERYTHING, PAIRS, angle, angles_of, expected
from jaxopt_tour.tour.laboratory.experiment import find, perform
from jaxopt_tour.tour.laboratory.observe import Moment


def angle_by_hand(a: np.ndarray, b: np.ndarray) -> float:
    a, b = np.ravel(a).astype(np.float64), np.ravel(b).astype(np.float64)
    return float(np.degrees(np.arccos(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1, 1))))


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_angles_against_numpy_at_any_scale(scale):
    a, b = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
    # arccos of a cosine with float32's 1e-7 is good to about 1e-3 degrees away from 0 and 180.
    assert float(angle(jnp.asarray(a * np.float32(scale)), jnp.asarray(b))) == pytest.approx(
        angle_by_hand(a, b), abs=1e-3
    )
    assert float(angle(jnp.asarray(a), jnp.asarray(-a))) == pytest.approx(180, abs=0.05)
    assert np.isnan(angle(jnp.zeros(3), jnp.ones(3)))


def test_every_pair_is_measured_for_every_matrix_and_for_all_parameters():
    rng = np.random.default_rng(1)
    g, m, u, before = (
        {"a/kernel": rng.normal(size=(4, 3)).astype(np.float32), "a/bias": rng.normal(size=3).astype(np.float32)}
        for _ in range(4)
    )
    m = dict(reversed(m.items()))  # as where the groups of an optimizer come in another order
    moment = Moment(
        step=2, params={}, gradient=g, momentum=m, second={}, update=u, previous_update=before, batch=None, data=None,
        key=None, numbers={},
    )  # fmt: skip
    found = angles_of(moment)
    assert list(found) == [EVERYTHING, "a/kernel"]
    assert all(list(pairs) == list(PAIRS) for pairs in found.values())

    def flat(tree, layer):
        return tree[layer] if layer in tree else np.concatenate([tree["a/kernel"].ravel(), tree["a/bias"]])

    for layer, pairs in found.items():
        parts = {"gradient": flat(g, layer), "momentum": flat(m, layer), "step": -flat(u, layer)}
        parts["step before"] = -flat(before, layer)
        for pair, value in pairs.items():
            first, second = pair.split(", ")
            assert float(value) == pytest.approx(angle_by_hand(parts[first], parts[second]), abs=1e-3)


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.99])
def test_averages_of_random_gradients_have_the_expected_angles(beta):
    rng = np.random.default_rng(2)
    m = before = ahead = ahead_before = np.zeros(40_000)
    for t in range(1, 41):
        g = rng.normal(size=m.size)
        before, m = m, beta * m + (1 - beta) * g
        ahead_before, ahead = ahead, beta * m + (1 - beta) * g
        if t in (2, 5, 40):
            # Random vectors of n entries are orthogonal up to 1 / sqrt(n), 0.3 degrees.
            assert angle_by_hand(g, m) == pytest.approx(expected("gradient, momentum", t, beta), abs=1.2)
            assert angle_by_hand(m, before) == pytest.approx(expected("step, step before", t, beta), abs=1.2)
            found = angle_by_hand(ahead, ahead_before)
            assert found == pytest.approx(expected("step, step before", t, beta, nesterov=True), abs=1.2)


def test_after_many_steps_the_angles_depend_on_the_decay_rate_alone():
    np.testing.assert_allclose(expected("gradient, momentum", 2000, 0.9), np.degrees(np.arccos(np.sqrt(0.19))))
    np.testing.assert_allclose(expected("step, step before", 2000, 0.9), np.degrees(np.arccos(0.9)))
    # u ~ 1.9 g_t + 0.9^2 g_(t-1) + 0.9^3 g_(t-2) + ...
    cosine = (0.81 * 1.9 + 0.9**5 / 0.19) / (1.9**2 + 0.9**4 / 0.19)
    np.testing.assert_allclose(expected("step, step before", 2000, 0.9, nesterov=True), np.degrees(np.arccos(cosine)))


def test_the_quick_setting_writes_everything_and_a_second_call_computes_nothing(tmp_path: Path):
    told: list[str] = []
    summary = perform(find("smoothing"), tmp_path, quick=True, listener=told.append).read_text()
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    cells = json.loads((tmp_path / "results.json").read_text())["cells"]
    assert [cell["key"]["what"] for cell in cells] == ["tuned", "angles"] * 4
    for cell in cells[1::2]:
        assert cell["value"]["step"] == [2, 4, 6, 8]
        for part, length in (("over_time", 4), ("late", 2)):
            assert list(cell["value"][part]) == [EVERYTHING, "kernel"]
            assert all(len(values) == length for values in cell["value"][part][EVERYTHING].values())
        if cell["key"]["momentum"] == 0:  # the average is the gradient
            np.testing.assert_allclose(cell["value"]["late"][EVERYTHING]["gradient, momentum"], 0, atol=0.05)
    for row in ("SGD, 0 |", "SGD, 0.9 |", "Adam, 0.9 |", "orthogonal gradients, 0.9 |", "`kernel` |"):
        assert f"\n| {row}" in summary
    assert "With decay rate 0.9 a step turns" in summary
    assert len(told) == 8
    perform(find("smoothing"), tmp_path, quick=True, listener=told.append)
    assert len(told) == 8
