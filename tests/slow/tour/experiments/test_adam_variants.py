"""The schedules against their formulas, scheduled optimizers against NumPy, and the quick setting from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_tour as jt
from jaxopt_tour.tour.experiments.adam_rules import b1_at, b2_at, eps_at, handing_over, scheduled_adam, weight_at
from jaxopt_tour.tour.experiments.adam_variants_runs import DEFAULTS, VARIANTS
from jaxopt_tour.tour.laboratory.experiment import find, perform
from jaxopt_tour.tour.laboratory.tiny import tiny_workload

HORIZON = 10
NUMBERS = {**DEFAULTS[scheduled_adam], "eps_end": 1e-8, "horizon": float(HORIZON), "learning_rate": 0.1}


def gradients(steps: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(steps, 4)).astype(np.float32)


def updates(tx, grads: np.ndarray) -> jax.Array:
    def step(state, gradient):
        update, state = tx.update(gradient, state, jnp.zeros(4))
        return state, update

    return jax.lax.scan(step, tx.init(jnp.zeros(4)), jnp.asarray(grads))[1]


def test_b1_falls_to_zero_as_demon_or_rises_by_a_third_of_its_distance():
    for count in range(HORIZON + 1):
        p = count / HORIZON
        demon = 0.9 * (1 - p) / (0.1 + 0.9 * (1 - p))
        np.testing.assert_allclose(b1_at(count, {**NUMBERS, "b1_fall": 1.0}), demon, atol=1e-6)
        np.testing.assert_allclose(b1_at(count, NUMBERS), 0.9, rtol=1e-6)
        rising = 1 - 0.1 * 3 ** max(0, 1 - p / 0.3)
        np.testing.assert_allclose(b1_at(count, {**NUMBERS, "b1_rise": 3.0}), rising, rtol=1e-6)
    assert b1_at(0, {**NUMBERS, "momentum": 0.5, "b1_rise": 3.0}) == 0  # three times the distance would be beyond 0


def test_eps_goes_along_a_geometric_path():
    found = [float(eps_at(count, {**NUMBERS, "eps": 1e-3})) for count in (0, 5, 10)]
    np.testing.assert_allclose(found, [1e-3, 1e-3 * 10**-2.5, 1e-8], rtol=1e-4)  # float32 powers


def test_b2_on_its_schedule_needs_no_correction_and_the_one_it_gets_is_small():
    t = np.arange(1, 301)
    b2 = np.asarray(b2_at(t - 1, {**NUMBERS, "b2_power": 0.8}))
    np.testing.assert_allclose(b2, 1 - t**-0.8, atol=1e-6)
    assert b2[0] == 0  # so the first average is the first square, and every later one a mean of squares
    divisor = 1 - b2.astype(np.float64) ** t
    assert 0.79 < divisor.min() and divisor.max() <= 1
    assert (1 / np.sqrt(divisor)).max() < 1.125


def test_the_weight_hands_over_and_back():
    at = {"horizon": 10.0, "gradual": 0.0, "hand_over": 0.25, "hand_back": 0.75}
    assert [float(weight_at(count, at)) for count in (0, 2, 3, 7, 8, 9)] == [0, 0, 1, 1, 0, 0]
    assert float(weight_at(5, {**at, "gradual": 1.0})) == 0.5


def test_constant_schedules_are_adam():
    grads = gradients(8)
    scheduled = updates(scheduled_adam(lambda count: 0.1, NUMBERS, tiny_workload()), grads)
    np.testing.assert_allclose(scheduled, updates(jt.adam(0.1, 0.9, 0.95), grads), rtol=2e-5)  # b1 through float32


@pytest.mark.parametrize("changed", [{"b1_fall": 1.0}, {"b2_power": 0.8}, {"eps": 1e-1}], ids=str)
def test_scheduled_adam_against_numpy_traced_and_vmapped(changed):
    grads, numbers = gradients(8), {**NUMBERS, **changed}
    m = v = np.zeros(4)
    expected = []
    for count, g in enumerate(grads.astype(np.float64)):
        t = count + 1
        b1, b2, eps = (float(at(count, numbers)) for at in (b1_at, b2_at, eps_at))
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        expected.append(-0.1 * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps))

    def run(numbers):
        return updates(scheduled_adam(lambda count: numbers["learning_rate"], numbers, tiny_workload()), grads)

    stacked = {name: jnp.stack([jnp.float32(value)] * 2) for name, value in numbers.items()}
    found = jax.jit(jax.vmap(run))(stacked)
    np.testing.assert_allclose(found, [expected] * 2, rtol=3e-4, atol=1e-6)  # 1 - b in float32


def test_handing_over_is_adam_then_sgd_with_a_rate_of_its_own():
    grads = gradients(10)
    numbers = {
        **DEFAULTS[handing_over], "horizon": 10.0, "hand_over": 0.5, "hand_back": 2.0, "sgd_ratio": 7.0,
        "sgd_momentum": 0.5, "learning_rate": 0.1,
    }  # fmt: skip
    found = updates(handing_over(lambda count: 0.1, numbers, tiny_workload()), grads)
    np.testing.assert_allclose(found[:5], updates(jt.adam(0.1, 0.9, 0.95), grads)[:5], rtol=1e-6)
    sgd = updates(jt.momentum(0.7, beta=0.5, form="ema"), grads)
    np.testing.assert_allclose(found[5:], sgd[5:], rtol=1e-5)


def test_every_variant_has_its_own_name():
    assert len({variant.title for variant in VARIANTS}) == len(VARIANTS)


def test_the_quick_setting_writes_everything_and_a_second_call_computes_nothing(tmp_path: Path):
    told: list[str] = []
    summary = perform(find("adam-variants"), tmp_path, quick=True, listener=told.append).read_text()
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    cells = json.loads((tmp_path / "results.json").read_text())["cells"]
    assert [cell["key"]["what"] for cell in cells] == ["tuned", "read"] * 5
    assert all(
        cell["value"]["trials"] >= cell["key"]["trials"] == 6 for cell in cells if cell["key"]["what"] == "tuned"
    )
    for title in ("Adam", "eps 1e-04", "EAdam", "SGD with momentum", "Adam, SGD, Adam"):
        assert summary.count(f"\n| {title} |") == 2  # its numbers and its trials
    assert "Handing over, against SGD with momentum alone" in summary
    assert len(told) == 10
    perform(find("adam-variants"), tmp_path, quick=True, listener=told.append)
    assert len(told) == 10
