"""The correction's factor against its definition, and the experiment's quick setting from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_tour as jt
from jaxopt_tour.tour.experiments.adam_initialisation_runs import COMBINATIONS, correction_factor, increases
from jaxopt_tour.tour.laboratory.experiment import find, perform

PAIRS = [(0.9, 0.999), (0.9, 0.95), (0.95, 0.95), (0.99, 0.9), (0.5, 0.999), (0.98, 0.99)]


@pytest.mark.parametrize(("b1", "b2"), PAIRS)
def test_the_factor_is_what_bias_correction_multiplies_an_update_by(b1, b2):
    gradients = np.random.default_rng(0).normal(size=(6, 3)) + 1
    sizes = {}
    for corrected in (True, False):
        tx = jt.scale_by_adam(b1, b2, eps=0.0, bias_correction=corrected)
        state, sizes[corrected] = tx.init(jnp.zeros(3)), []
        for gradient in gradients:
            update, state = tx.update(jnp.asarray(gradient, jnp.float32), state)
            sizes[corrected].append(np.asarray(update))
    ratio = np.array(sizes[True]) / np.array(sizes[False])
    # float32 rounds 1 - b2 and the averages to about 1e-7 of 1; 1 - 0.999 makes that 1e-4.
    np.testing.assert_allclose(ratio, np.tile(correction_factor(np.arange(1, 7), b1, b2)[:, None], 3), rtol=3e-4)


@pytest.mark.parametrize(("b1", "b2"), PAIRS)
def test_the_factor_rises_where_the_condition_says_so(b1, b2):
    t, h = np.geomspace(0.1, 3000, 400), 1e-4
    slope = np.log(correction_factor(t * (1 + h), b1, b2)) - np.log(correction_factor(t * (1 - h), b1, b2))
    clear = np.abs(slope) > 1e-10  # at the turning point and where rho is 1 the difference is rounding
    np.testing.assert_array_equal(slope[clear] > 0, increases(t[clear], b1, b2))
    by_the_formula = b2**t * np.log(b2) / (2 * (1 - b2**t)) < b1**t * np.log(b1) / (1 - b1**t)
    away = np.abs(slope) > 1e-7
    np.testing.assert_array_equal(by_the_formula[away], increases(t[away], b1, b2))


def test_the_factor_never_rises_with_equal_decay_rates_and_mostly_rises_with_the_usual_ones():
    t = np.arange(1, 2001)
    assert not increases(t, 0.95, 0.95).any()
    assert not increases(1, 0.9, 0.999)
    assert increases(t[40:], 0.9, 0.999).all()


@pytest.mark.parametrize(("b1", "b2"), PAIRS)
@pytest.mark.parametrize("switches", COMBINATIONS, ids=lambda switches: switches.title)
def test_the_first_update_has_the_size_in_the_table(switches, b1, b2):
    tx = jt.scale_by_adam(b1, b2, eps=0.0, bias_correction=switches.bias_correction,
                          initial_moments=switches.initial_moments)  # fmt: skip
    update, _ = tx.update(jnp.asarray([3.0, -0.2]), tx.init(jnp.zeros(2)))
    size = switches.first_step(b1, b2)
    np.testing.assert_allclose(update, [size, -size], rtol=3e-4)  # as above


def test_the_quick_setting_writes_everything_and_a_second_call_computes_nothing(tmp_path: Path):
    told: list[str] = []
    summary = perform(find("adam-initialisation"), tmp_path, quick=True, listener=told.append).read_text()
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    cells = json.loads((tmp_path / "results.json").read_text())["cells"]
    assert [cell["key"]["what"] for cell in cells] == ["tuned", "read"] * 4
    assert all(len(cell["value"]["final"]) == 2 for cell in cells if cell["key"]["what"] == "read")
    assert all(
        cell["value"]["trials"] >= cell["key"]["trials"] == 5 for cell in cells if cell["key"]["what"] == "tuned"
    )
    for switches in COMBINATIONS:
        assert f"(0.95, 0.95), no warm-up: {switches.title} |" in summary
    assert "Reported, not reproduced" in summary
    assert "**Answer.** Against Adam as published" in summary
    assert "Decay rates (0.95, 0.95), no warm-up: " in summary
    assert len(told) == 8
    perform(find("adam-initialisation"), tmp_path, quick=True, listener=told.append)
    assert len(told) == 8
