"""States of one layout and another meaning are told apart, and migration carries over what the meaning allows."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_tour as jt
from jaxopt_tour._trees import named_leaves
from jaxopt_tour.state.read_state import read_state
from tests.contenders import CONTENDERS, Contender
from tests.state.problem import Tree, state_after

#: Layers that differ: a state of one must not go to the other. The square matrix hides a change of its axes.
PARAMS = {
    "blocks": {
        "0": {"up": {"kernel": jnp.ones((4, 6)), "bias": jnp.ones(6)}},
        "1": {"up": {"kernel": jnp.full((4, 6), 2.0), "bias": jnp.ones(6)}},
    }
}
HALF = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), PARAMS)
CLIPPED = optax.clip_by_global_norm(1e9)
WRAPPED: dict[str, Any] = {
    "master weights": lambda tx: jt.with_master_weights(tx),
    "stochastic rounding": lambda tx: jt.with_stochastic_rounding(tx, 0),
    "skipped spikes": lambda tx: jt.skip_spikes(tx, window=4),
    "tail average": lambda tx: optax.chain(tx, jt.tail_average(1)),
    "look-ahead": lambda tx: jt.ema_nesterov(tx),
    "monitor": lambda tx: jt.monitored(tx),
}


def outcomes(migration: jt.Migration) -> dict[tuple[str, str], str]:
    return {(line.parameter, line.moment): line.outcome for line in migration.report.lines}


def filled(tx: optax.GradientTransformation, params: Tree) -> Any:
    """A state with another number in every entry, and counts of 3: what migration keeps needs no training."""
    leaves, structure = jax.tree.flatten(tx.init(params))
    numbers = [
        jnp.full(leaf.shape, 3, leaf.dtype)
        if jnp.issubdtype(leaf.dtype, jnp.integer)
        else (100 * i + jnp.arange(leaf.size, dtype=leaf.dtype).reshape(leaf.shape) + 1)
        for i, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, numbers)


# Every array has a meaning.


@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda row: row.name)
def test_every_array_of_every_optimizer_is_known_by_its_class(contender: Contender):
    known = read_state(jax.eval_shape(contender().init, PARAMS), named_leaves(PARAMS))
    assert [value.path for value in known.values if np.ndim(value.value)] == []


@pytest.mark.parametrize("name", WRAPPED)
def test_every_array_of_a_wrapper_is_kept_whatever_is_around_it(name: str):
    tx = WRAPPED[name](jt.adamw(0.1))
    state = filled(tx, HALF)
    if name == "monitor":
        state = state._replace(keys=tx.init(HALF).keys)
    around = optax.chain(CLIPPED, WRAPPED[name](jt.adamw(0.1)))
    migration = jt.migrate_state(state, around, HALF)
    assert migration.report.is_complete
    chex.assert_trees_all_equal(migration.state[1], state)


@pytest.mark.parametrize("factory", [jt.normuon, jt.muonh, jt.adamh])
def test_every_layer_keeps_its_own_numbers(factory: Any):
    state = filled(factory(0.1), PARAMS)
    migration = jt.migrate_state(state, optax.chain(CLIPPED, factory(0.1)), PARAMS)
    assert migration.report.is_complete
    chex.assert_trees_all_equal(migration.state[1], state)


def test_a_norm_and_a_copy_that_the_old_state_lacks_are_those_of_the_parameters_and_schedules_go_on():
    old = filled(jt.muon(0.1), PARAMS)
    migration = jt.migrate_state(old, jt.muonh(0.1), PARAMS)
    sphere = migration.state.inner_states["matrix"][1]
    np.testing.assert_allclose(sphere.radius["blocks"]["1"]["up"]["kernel"], 2 * np.sqrt(24), rtol=1e-6)
    assert sphere.count == 3
    (why,) = {line.why for line in migration.report.lines if line.moment == "radius"}
    assert "made from the parameters" in why
    copied = jt.migrate_state(old, jt.with_master_weights(jt.muon(0.1)), HALF).state
    chex.assert_trees_all_equal(copied.master, PARAMS)


def test_norms_of_another_window_are_forgotten_with_their_count():
    state = filled(jt.skip_spikes(jt.sgd(0.1), window=4), PARAMS)
    assert state.norm_count == 3
    migrated = jt.migrate_state(state, jt.skip_spikes(jt.sgd(0.1), window=6), PARAMS).state
    assert migrated.norm_count == 0 and not np.any(migrated.norms)  # zeros that count would make every norm a spike


def test_a_monitor_of_other_numbers_measures_anew():
    tx = jt.monitored(jt.adamw(0.1))
    state = filled(tx, PARAMS)._replace(keys=tx.init(PARAMS).keys)
    renamed = {"sheets": PARAMS["blocks"]}  # names of the same length: the text fits
    migrated = jt.migrate_state(state, tx, renamed).state
    assert "update_rms/sheets/0/up/bias" in jt.metrics(migrated)
    assert migrated.measured_at == 0 and not np.any(migrated.values)


# Adam's second moment, and EAdam's.


def test_adam_and_eadam_say_what_becomes_of_eps():
    adam = filled(jt.adamw(0.1), PARAMS)
    there = jt.migrate_state(adam, jt.eadam(0.1), PARAMS)
    chex.assert_trees_all_equal(there.state[0].nu_with_eps, adam[0].nu)
    assert there.state[0].count == 3
    (why,) = {line.why for line in there.report.lines if line.moment == "nu_with_eps"}
    assert "eps enters it with the next steps" in why
    back = jt.migrate_state(there.state, jt.adamw(0.1), PARAMS)
    chex.assert_trees_all_equal(back.state, adam)
    (why,) = {line.why for line in back.report.lines if line.moment == "nu"}
    assert "until the average forgets it" in why
    assert {outcome for (_, moment), outcome in outcomes(back).items() if moment == "nu"} == {"converted"}


def test_eadam_is_estimated_summed_and_averaged_as_adam_is():
    momentum = filled(jt.muon(0.1), PARAMS)
    kernel = ("blocks/0/up/kernel", "nu_with_eps")
    assert outcomes(jt.migrate_state(momentum, jt.eadam(0.1), PARAMS))[kernel] == "estimated"
    sums = jt.migrate_state(filled(jt.eadam(0.1), PARAMS), jt.adagrad(0.1), PARAMS)
    assert set(outcomes(sums).values()) <= {"converted", "dropped"}


# Shampoo's averages and sums, and its two sides.

WIDE, SQUARE = {"w": jnp.ones((3, 5))}, {"w": jnp.ones((4, 4))}
AS_STORED, SWAPPED = jt.MatrixAxes(0, 1), jt.MatrixAxes(1, 0)


def shampoo(axes: jt.MatrixAxes = AS_STORED, **options: Any) -> Any:
    return jt.shampoo(0.1, routing={"w": axes}, shape_factor=None, **options)


def of_matrices(state: Any) -> Any:
    return state.inner_states["matrix"][1]


def test_shampoos_averages_and_sums_differ_by_the_steps():
    average = filled(shampoo(), WIDE)
    there = jt.migrate_state(average, shampoo(b2=None), WIDE)
    sums = of_matrices(there.state)
    np.testing.assert_allclose(sums.left_sum["w"], 3 * of_matrices(average).left["w"], rtol=1e-6)
    assert outcomes(there)["w", "left_sum"] == outcomes(there)["w", "right_sum"] == "converted"
    back = of_matrices(jt.migrate_state(there.state, shampoo(), WIDE).state)
    chex.assert_trees_all_close(back, of_matrices(average), rtol=1e-6)


def test_roots_of_averages_are_not_those_of_sums_and_new_ones_are_taken_at_once():
    stale = filled(shampoo(update_every=4), WIDE)
    migration = jt.migrate_state(stale, shampoo(b2=None, update_every=4), WIDE)
    assert outcomes(migration)["w", "left_sum_root"] == "new"
    assert of_matrices(migration.state).count == 0


def told(axes: jt.MatrixAxes, params: Tree) -> jt.Routes:
    return jt.routing.resolve({"w": axes}, params)


@pytest.mark.slow
@pytest.mark.parametrize(("params", "is_told", "options"), [(WIDE, False, {}), (SQUARE, True, {"update_every": 2})])
def test_a_run_with_swapped_axes_goes_on_as_if_they_had_been_so(params: Tree, is_told: bool, options: dict[str, Any]):
    one, other = shampoo(**options), shampoo(SWAPPED, **options)
    routes = told(AS_STORED, params) if is_told else None
    migration = jt.migrate_state(state_after(one, params, 3), other, params, old_routes=routes)
    expected = state_after(other, params, 3).inner_states["matrix"]
    chex.assert_trees_all_close(migration.state.inner_states["matrix"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", ["averages", "sums", "both"])
@pytest.mark.parametrize(("params", "is_told"), [(WIDE, False), (WIDE, True), (SQUARE, True)])
def test_swapped_axes_swap_the_preconditioners(params: Tree, is_told: bool, form: str):
    before, after = {"averages": ({}, {}), "sums": ({"b2": None},) * 2, "both": ({}, {"b2": None})}[form]
    old = filled(shampoo(**before), params)
    routes = told(AS_STORED, params) if is_told else None
    migration = jt.migrate_state(old, shampoo(SWAPPED, **after), params, old_routes=routes)
    steps = 3 if form == "both" else 1
    _, _, left, right, *_ = of_matrices(old)
    _, _, new_left, new_right, *_ = of_matrices(migration.state)
    chex.assert_trees_all_close((new_left["w"], new_right["w"]), (steps * right["w"], steps * left["w"]))
    assert migration.report.is_complete
    assert "fan-in and fan-out have changed places" in str(migration.report)


def test_square_matrices_keep_their_sides_where_nothing_tells_of_a_change():
    old = filled(shampoo(), SQUARE)
    for axes, routes in ((AS_STORED, told(AS_STORED, SQUARE)), (AS_STORED, None), (SWAPPED, None)):
        migrated = jt.migrate_state(old, shampoo(axes), SQUARE, old_routes=routes).state
        chex.assert_trees_all_equal(of_matrices(migrated), of_matrices(old))


def test_with_other_axes_than_in_the_old_routes_preconditioners_start_anew():
    params = {"w": jnp.ones((4, 4, 4))}
    by_head, by_row = jt.MatrixAxes(0, 2), jt.MatrixAxes(1, 2)  # four matrices of 4 x 4 in both
    old = filled(shampoo(by_head), params)
    migration = jt.migrate_state(old, shampoo(by_row), params, old_routes=told(by_head, params))
    whys = {line.moment: line.why for line in migration.report.lines if line.outcome == "new"}
    assert whys == dict.fromkeys(("left", "right"), "the old routes have other matrix axes for it")


def test_old_routes_that_are_none_raise():
    state = jt.muon(0.1).init(PARAMS)
    for wrong in ("routes.json", {"w": AS_STORED}):
        with pytest.raises(ValueError, match=r"old_routes must be .*jt\.Routes\.from_json"):
            jt.migrate_state(state, jt.muon(0.1), PARAMS, old_routes=wrong)
