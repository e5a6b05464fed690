"""Runs against a plain Python loop, the compiled program's reuse, and the protocol on a problem with known answers."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_tour as jt
from jaxopt_tour.problems.workloads import Workload
from jaxopt_tour.tour.laboratory import protocol, runs
from jaxopt_tour.tour.laboratory.cells import Cells
from jaxopt_tour.tour.laboratory.protocol import Budgets, Entrant, budget_to_target, costs, sensitivity, width_within
from jaxopt_tour.tour.laboratory.runs import CURVE_POINTS, Rule, keys_of, rate_at, train
from jaxopt_tour.tour.laboratory.tuning import momentum, rate


def make_workload(side_by_side: int = 4) -> Workload:
    """A quadratic around a noisy center; what is measured is the distance to the true one."""
    return Workload(
        name=f"bowl-{side_by_side}",
        title="a bowl",
        data=lambda: {"center": np.array([1.0, -2.0, 0.5], np.float32)},
        init=lambda key: {"w": jax.random.normal(key, (3,))},
        draw=lambda data, key: data["center"] + 0.01 * jax.random.normal(key, (3,)),
        loss=lambda params, batch: 0.5 * jnp.sum((params["w"] - batch) ** 2),
        measure=lambda params, data: jnp.sum((params["w"] - data["center"]) ** 2),
        measured="squared distance",
        target=1e-2,
        steps=20,
        batch_text="one draw",
        side_by_side=side_by_side,
    )


MOMENTUM = Rule(
    "momentum",
    lambda schedule, numbers, workload: jt.momentum(schedule, beta=numbers["momentum"], form="ema"),
    {"learning_rate": 0.3, "momentum": 0.5},
)


@pytest.fixture(scope="module")
def workload() -> Workload:
    return make_workload()


def by_hand(workload: Workload, numbers: dict[str, float], seed: int, steps: int) -> tuple[float, list[float]]:
    """The same run, one step after the other."""
    first, batches = keys_of(jnp.uint32(seed))
    params, data = workload.init(first), jax.tree.map(jnp.asarray, workload.data())
    tx = optax.chain(optax.ema(numbers["momentum"], debias=False), optax.scale(-1.0))
    state, losses = tx.init(params), []
    for count in range(steps):
        batch = workload.draw(data, jax.random.fold_in(batches, count))
        loss, gradient = jax.value_and_grad(workload.loss)(params, batch)
        update, state = tx.update(gradient, state)
        eta = rate_at(jnp.int32(count), jnp.int32(steps), numbers)
        params = jax.tree.map(lambda p, u, eta=eta: p + eta * u, params, update)
        losses.append(float(loss))
    return float(workload.measure(params, data)), losses


@pytest.mark.parametrize("side_by_side", [1, 4])
def test_agree_with_a_plain_loop_and_compile_once(side_by_side):
    workload = make_workload(side_by_side)
    settings = [{"learning_rate": 0.2}, {"learning_rate": 0.4, "momentum": 0.8}]
    found = train(workload, MOMENTUM, settings, [3, 5, 8], 2 * CURVE_POINTS)
    again = train(workload, MOMENTUM, settings[:1], [3], 7)
    assert runs._program(workload, MOMENTUM.build)._cache_size() == 1
    for setting, outcomes in zip(settings, found, strict=True):
        for seed, outcome in zip([3, 5, 8], outcomes, strict=True):
            final, losses = by_hand(workload, {**MOMENTUM.defaults, **setting}, seed, 2 * CURVE_POINTS)
            assert outcome.final == pytest.approx(final, rel=1e-3)  # float32, a sum of squares near its minimum
            np.testing.assert_allclose(outcome.curve, np.reshape(losses, (CURVE_POINTS, 2)).mean(1), rtol=1e-3)
    assert again[0][0].final == pytest.approx(
        by_hand(workload, {**MOMENTUM.defaults, **settings[0]}, 3, 7)[0], rel=1e-4
    )


def test_runs_of_one_seed_share_start_and_batches(workload):
    still = [{"learning_rate": 0.0}, {"learning_rate": 0.0, "momentum": 0.9}]
    (first, other), (second, _) = train(workload, MOMENTUM, still, [0, 1], 8)
    np.testing.assert_array_equal(first.curve, second.curve)
    assert first.final == second.final != other.final


def test_a_number_that_the_rule_does_not_have_is_named(workload):
    with pytest.raises(ValueError, match=r"settings of momentum must be among learning_rate, momentum; got \['beta'\]"):
        train(workload, MOMENTUM, [{"beta": 0.9}], [0], 4)


def test_the_rate_rises_and_falls():
    numbers = {"learning_rate": 2.0, "warmup": 0.2}
    rates = [float(rate_at(jnp.int32(t), jnp.int32(10), numbers)) for t in range(10)]
    assert rates == pytest.approx([1.0, 2.0, *(2 * (10 - t) / 8 for t in range(2, 10))])
    floored = [float(rate_at(jnp.int32(t), jnp.int32(10), numbers | {"floor": 0.5})) for t in (2, 6, 9)]
    assert floored == pytest.approx([2.0, 2 * (0.5 + 0.5 * 4 / 8), 2 * (0.5 + 0.5 / 8)])
    # Without a warm-up the first step has the full rate.
    assert float(rate_at(jnp.int32(0), jnp.int32(10), {"learning_rate": 2.0, "warmup": 0.0})) == 2.0


class TestProtocol:
    entrant = Entrant(MOMENTUM, (rate(0.3), momentum(0.5)))
    budgets = Budgets(first=2, factor=2, most=32, trials=9, later_trials=5, tuning_seeds=2, seeds=3)

    def test_readings_go_up_until_every_seed_has_arrived(self, workload, tmp_path):
        cells = Cells(tmp_path / "results.json", "x")
        found = budget_to_target(cells, workload, self.entrant, self.budgets)
        assert self.budgets.grid() == [2, 4, 8, 16, 32]
        assert [reading["steps"] for reading in found] == self.budgets.grid()[: len(found)]

        def arrived(readings):
            return {seed for each in readings for seed, final in enumerate(each["final"]) if final <= workload.target}

        assert arrived(found) == set(range(self.budgets.seeds)) != arrived(found[:-1])  # it stops where all have
        # Every search has its trials, and more where its best point was at an edge.
        trials = np.diff([0, *(reading["trials"] for reading in found)])
        assert trials[0] >= 9 and all(trials[1:] >= 5)
        assert all(reading["interior"] for reading in found)
        # Read on seeds that were not tuned on.
        assert all(min(key["seeds"]) >= protocol.FIRST_TUNING_SEED for key, _ in cells.select(what="tuned"))

    def test_nothing_is_computed_twice(self, workload, tmp_path, monkeypatch):
        before = budget_to_target(Cells(tmp_path / "r.json", "x"), workload, self.entrant, self.budgets)
        monkeypatch.setattr(protocol, "train", lambda *_: pytest.fail("a cell was computed again"))
        assert budget_to_target(Cells(tmp_path / "r.json", "x"), workload, self.entrant, self.budgets) == before

    def test_a_target_out_of_reach_is_none(self, workload, tmp_path):
        short = Budgets(first=1, factor=2, most=2, trials=5, later_trials=5, tuning_seeds=1, seeds=2)
        cells = Cells(tmp_path / "results.json", "x")
        far = dataclasses.replace(workload, target=-1.0)
        readings = budget_to_target(cells, far, self.entrant, short)
        assert [reading["steps"] for reading in readings] == short.grid()  # to the end of the grid

    def test_sensitivity_and_costs(self, workload, tmp_path):
        cells = Cells(tmp_path / "results.json", "x")
        found = sensitivity(cells, workload, self.entrant, 16, {"learning_rate": 0.3, "momentum": 0.5})
        assert found["rates"][4] == pytest.approx(0.3) and len(found["losses"]) == 9
        measured = costs(cells, workload, [MOMENTUM], rounds=2, calls=2)["momentum"]
        assert measured["state_bytes_per_parameter"] == pytest.approx(4, abs=4)  # the momentum and a count or two
        assert 0 < measured["update"] and 0 < measured["step"] and 0 < measured["share"]


def test_the_width_of_a_parabola():
    rates = [10 ** (place / 4) for place in range(-4, 5)]
    losses = [1 + 0.8 * math.log10(each) ** 2 for each in rates]
    # 1.05 at |x| = 0.25, which is the neighbor exactly.
    assert width_within(rates, losses) == {"decades": pytest.approx(0.5), "open": False}
    assert width_within(rates, [1.0] * 9) == {"decades": pytest.approx(2), "open": True}
    # What diverges ends the range where the last good rate is.
    assert width_within(rates, [2, 2, 2, 2, 1, math.nan, 2, 2, 2])["decades"] == pytest.approx(0.25 * 0.05)
