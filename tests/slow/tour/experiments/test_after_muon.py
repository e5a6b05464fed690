"""The rules of the experiment against what their names say, the reading of steps, and the quick setting."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_tour as jt
from jaxopt_tour.problems.workloads import small_gpt
from jaxopt_tour.tour.experiments import after_muon
from jaxopt_tour.tour.experiments.after_muon import ADAMW, ADAMW_BY_ROLE, MUON, MUON_BY_ROLE, compare_with
from jaxopt_tour.tour.experiments.after_muon_rules import ENTRANTS, routes_by_head
from jaxopt_tour.tour.laboratory import cells as module
from jaxopt_tour.tour.laboratory.cells import Cells
from jaxopt_tour.tour.laboratory.experiment import find, perform
from jaxopt_tour.tour.laboratory.tiny import tiny_workload

RATE = 0.01
#: By name and without a model: what the rules ask of a workload is its routing.
BY_NAME = dataclasses.replace(tiny_workload(), routing=None)


def toy_params() -> dict:
    draw = np.random.default_rng(0).normal
    return {
        "embed": {"embedding": jnp.float32(draw(size=(12, 8)))},
        "blocks": {"0": {"up": {"kernel": jnp.float32(draw(size=(8, 16)))}}},
        "head": {"kernel": jnp.float32(draw(size=(8, 12)))},
    }


def build(name: str, **numbers: float) -> optax.GradientTransformation:
    rule = ENTRANTS[name].rule
    return rule.build(lambda count: RATE, {**rule.defaults, "learning_rate": RATE, **numbers}, BY_NAME)


def first_update(name: str, **numbers: float) -> dict:
    tx, params = build(name, **numbers), toy_params()
    gradient = jax.tree.map(jnp.cos, params)
    return tx.update(gradient, tx.init(params), params)[0]


@pytest.mark.parametrize("name", [ADAMW, MUON, "MuonEq and Muon+"])
def test_multiples_of_the_rate_move_the_embedding_and_the_head_alone(name):
    plain, by_role = first_update(name), first_update(name, embedding=3.0, head=0.5)
    np.testing.assert_allclose(by_role["embed"]["embedding"], 3 * plain["embed"]["embedding"], rtol=1e-5)
    np.testing.assert_allclose(by_role["head"]["kernel"], plain["head"]["kernel"] / 2, rtol=1e-5)
    np.testing.assert_array_equal(by_role["blocks"]["0"]["up"]["kernel"], plain["blocks"]["0"]["up"]["kernel"])


@pytest.mark.parametrize("name", [ADAMW, MUON])
def test_rules_with_rates_by_role_differ_from_the_plain_ones_in_what_is_tuned(name):
    plain, by_role = ENTRANTS[name], ENTRANTS[{ADAMW: ADAMW_BY_ROLE, MUON: MUON_BY_ROLE}[name]]
    assert by_role.rule.build is plain.rule.build and by_role.rule.defaults == plain.rule.defaults
    assert [axis.name for axis in by_role.axes] == [*(axis.name for axis in plain.axes), "embedding", "head"]


def test_adamw_is_adamw():
    params = toy_params()
    gradient = jax.tree.map(jnp.cos, params)
    tx = jt.adamw(RATE, b1=0.6, b2=0.95, weight_decay=0.1)
    expected = tx.update(gradient, tx.init(params), params)[0]
    jax.tree.map(np.testing.assert_array_equal, first_update(ADAMW), expected)


def test_equalized_updates_have_the_norm_that_the_shape_factor_promises():
    matrix = first_update("MuonEq and Muon+", weight_decay=0.0)["blocks"]["0"]["up"]["kernel"]
    assert float(jnp.sqrt(jnp.mean(matrix**2))) == pytest.approx(0.2 * RATE, rel=1e-5)


def test_muonh_keeps_the_norm_of_matrices_and_turns_them_by_a_multiple_of_the_rate():
    w = toy_params()["blocks"]["0"]["up"]["kernel"]
    moved = w + first_update("MuonH", turn=2.0)["blocks"]["0"]["up"]["kernel"]
    assert float(jnp.linalg.norm(moved)) == pytest.approx(float(jnp.linalg.norm(w)), rel=1e-6)
    cosine = float(jnp.sum(w * moved) / jnp.linalg.norm(w) ** 2)
    assert 0 < math.acos(cosine) < 1.1 * 2 * RATE


def test_a_run_with_ema_nesterov_ends_where_it_is_evaluated():
    rule = ENTRANTS["Muon, EMA-Nesterov"].rule
    steps, params = 4, toy_params()

    def schedule(count):
        return RATE * (steps - count) / steps

    tx = rule.build(schedule, {**rule.defaults, "learning_rate": RATE}, BY_NAME)
    state, ahead = tx.init(params), []
    for _ in range(steps):
        update, state = tx.update(jax.tree.map(jnp.cos, params), state, params)
        params = optax.apply_updates(params, update)
        there = jt.ema_nesterov_params(state, params)
        ahead.append(max(jax.tree.leaves(jax.tree.map(lambda x, y: float(jnp.abs(x - y).max()), params, there))))
    assert min(ahead[:-1]) > 0 and ahead[-1] == 0


def test_heads_are_matrices_of_their_own():
    routes = routes_by_head(small_gpt(2))
    attention = {name: route for name, route in routes.items() if "query" in name or "attention/out" in name}
    assert len(attention) == 4
    for name, route in attention.items():
        heads = 1 if "query" in name else 0  # (64, heads, 16) and (heads, 16, 64)
        assert route.role == "matrix" and heads not in (*route.axes.fan_in, *route.axes.fan_out)
    assert routes["head/kernel"].role == "head" and routes["embed/embedding"].role == "embedding"


def test_steps_are_read_where_the_rule_has_the_loss_that_the_other_ends_with():
    # The loss is 60 / steps: 0.75 is reached after 80 steps, 0.6 after 100.
    readings = [{"steps": steps, "final": [60 / steps] * 2} for steps in (60, 85, 120)]
    assert compare_with(readings, [0.75, 0.75], 120).interval == pytest.approx((1.5,) * 3)
    assert compare_with(readings, [0.75, 0.6], 120).interval.value == pytest.approx(math.sqrt(1.5 * 1.2))
    early, never = compare_with(readings, [1.5, 1.5], 120), compare_with(readings, [0.4, 0.4], 120)
    assert early.interval is None and early.above and early.bound == pytest.approx(2.0)
    assert never.interval is None and not never.above and never.bound == pytest.approx(1.0)
    assert compare_with(readings, [0.75, 0.4], 120).words() == ""  # there on one seed alone
    assert compare_with(readings, [0.75, None], 120).words() == ""  # the other diverged


def test_the_quick_setting_tunes_all_with_the_same_trials_and_computes_nothing_twice(tmp_path, monkeypatch):
    experiment = find("after-muon")
    summary = perform(experiment, tmp_path, quick=True).read_text()
    (setting,) = after_muon.settings(True)
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    cells = Cells(tmp_path / "results.json", "after-muon", quick=True)
    searches = [value for _, value in cells.select(what="tuned")]
    assert [value["trials"] for value in searches] == [setting.trials] * len(setting.rules)
    assert all("embedding" not in value["numbers"] for value in searches)  # there is none in that model
    main, trials = experiment.tables(cells)
    assert len(main.rows) == len(trials.rows) == len(setting.rules)
    assert all(len(row) == len(main.head) for row in main.rows)
    assert "AdamW ends" in summary and "quick run" in summary
    monkeypatch.setattr(module, "write_json", lambda *_: pytest.fail("a cell was computed again"))
    perform(experiment, tmp_path, quick=True)


def test_all_settings_compare_the_baselines_and_are_told_apart():
    settings = after_muon.settings(False)
    assert len({setting.label for setting in settings}) == len(settings)
    for setting in settings:
        assert {MUON, *after_muon.BASELINES} <= set(setting.rules) <= set(ENTRANTS)
        assert list(setting.shorter) == sorted(setting.shorter) and setting.shorter[-1] < setting.steps
