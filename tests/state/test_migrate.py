"""A migrated state keeps every moment whose meaning is the same, and the report says what became of the rest."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import jaxopt_tour as jt
from tests.contenders import Contender, every_kind_of_state, every_optimizer
from tests.contenders import make_params as three_params
from tests.state.problem import DOWN, UP, Tree, make_params, state_after

PARAMS = make_params()
REROUTED = {UP: "other"}


def outcomes(migration: jt.Migration) -> dict[tuple[str, str], str]:
    return {(line.parameter, line.moment): line.outcome for line in migration.report.lines}


def leaf_of(tree: Tree, name: str) -> Any:
    for key in name.split("/"):
        tree = tree[key]
    return tree


@every_optimizer
def test_the_state_of_the_same_optimizer_comes_back_unchanged(contender: Contender):
    params = three_params()
    state = state_after(contender(), params, 2)
    migration = jt.migrate_state(state, contender(), params)
    chex.assert_trees_all_equal(migration.state, state)
    assert {line.outcome for line in migration.report.lines} <= {"kept"}
    assert migration.report.is_complete


@functools.cache
def old_states() -> list[Any]:
    return [state_after(tx, three_params()) for tx in (jt.adamw(0.1), jt.momentum(0.1), jt.muon(0.1), jt.sgd(0.1))]


@every_kind_of_state
def test_a_migrated_state_passes_the_check_and_has_the_avals_of_init(contender: Contender):
    params = three_params()
    tx = contender()
    expected = tx.init(params)
    for old in old_states():
        state = jt.migrate_state(old, tx, params, beta=0.9).state
        assert jax.tree.structure(state) == jax.tree.structure(expected)
        chex.assert_trees_all_equal_shapes_and_dtypes(state, expected)
        jax.eval_shape(tx.update, params, state, params)


# Another routing.


def test_another_routing_keeps_every_momentum_and_estimates_the_second_moment_that_muon_lacks():
    state = state_after(jt.muon(0.1), PARAMS, 3)
    migration = jt.migrate_state(state, jt.muon(0.1, routing=REROUTED), PARAMS)
    momentum = leaf_of(state.inner_states["matrix"][0][0].mu, UP)
    adam = migration.state.inner_states["other"][0]
    np.testing.assert_array_equal(leaf_of(adam.mu, UP), momentum)
    np.testing.assert_allclose(leaf_of(adam.nu, UP), np.mean(np.square(momentum)) / 0.04, rtol=1e-6)
    assert adam.count == 3
    kept = migration.state.inner_states["matrix"][0][0].mu
    np.testing.assert_array_equal(leaf_of(kept, DOWN), leaf_of(state.inner_states["matrix"][0][0].mu, DOWN))
    assert outcomes(migration)[UP, "nu"] == "estimated"
    assert outcomes(migration)[UP, "mu"] == outcomes(migration)[DOWN, "mu"] == "kept"


def test_and_back_again_drops_the_second_moment_by_path():
    routed = jt.muon(0.1, routing=REROUTED)
    state = state_after(routed, PARAMS)
    migration = jt.migrate_state(state, jt.muon(0.1), PARAMS)
    assert outcomes(migration)[UP, "nu"] == "dropped"
    np.testing.assert_array_equal(
        leaf_of(migration.state.inner_states["matrix"][0][0].mu, UP), leaf_of(state.inner_states["other"][0].mu, UP)
    )


def test_the_estimate_makes_the_first_update_as_large_as_one_of_adamw():
    state = state_after(jt.muon(0.1), PARAMS, 300)  # bias corrections have ended
    tx = jt.muon(1.0, weight_decay=0.0, routing=REROUTED)
    momentum = leaf_of(state.inner_states["matrix"][0][0].mu, UP)
    gradients = jax.tree.map(jnp.zeros_like, PARAMS)
    gradients["blocks"]["0"]["up"]["kernel"] = momentum  # along the momentum
    updates, _ = jax.jit(tx.update)(gradients, jt.migrate_state(state, tx, PARAMS).state, PARAMS)
    size = float(jnp.sqrt(jnp.mean(jnp.square(leaf_of(updates, UP)))))
    assert 0.18 < size < 0.22  # a twentieth of v is new


# Another optimizer.


def test_a_sum_becomes_an_average_and_back_by_one_minus_beta():
    state = state_after(jt.momentum(0.1, beta=0.8), PARAMS, 2)
    average = jt.momentum(0.1, beta=0.8, form="ema")
    there = jt.migrate_state(state, average, PARAMS, beta=0.8)
    chex.assert_trees_all_close(there.state, state_after(average, PARAMS, 2), rtol=1e-5)
    assert {line.outcome for line in there.report.lines} == {"converted"}
    back = jt.migrate_state(there.state, jt.momentum(0.1, beta=0.8), PARAMS, beta=0.8)
    chex.assert_trees_all_close(back.state, state, rtol=1e-5)


def test_without_beta_a_sum_is_not_taken_for_an_average():
    state = state_after(jt.momentum(0.1), PARAMS)
    with pytest.raises(ValueError, match=r"beta must be the decay rate.*'blocks/0/"):
        jt.migrate_state(state, jt.momentum(0.1, form="ema"), PARAMS)
    jt.migrate_state(state, jt.nesterov(0.1), PARAMS)  # both are sums


def test_squares_are_summed_and_averaged_by_the_count():
    state = state_after(jt.rmsprop(0.1), PARAMS, 4)
    adagrad = jt.migrate_state(state, jt.adagrad(0.1), PARAMS).state
    chex.assert_trees_all_close(adagrad[1].sum_of_squares, jax.tree.map(lambda v: 4 * v, state[1].nu))
    rmsprop = jt.migrate_state(adagrad, jt.rmsprop(0.1), PARAMS).state
    chex.assert_trees_all_close(rmsprop[1].nu, state[1].nu)


def test_averages_of_other_things_are_not_taken_for_those_of_the_gradient():
    laprop = jt.migrate_state(state_after(jt.laprop(0.1), PARAMS), jt.adamw(0.1), PARAMS)
    assert outcomes(laprop)[UP, "mu"] == "new" and outcomes(laprop)[UP, "ratio"] == "dropped"
    centered = jt.migrate_state(state_after(jt.adamw(0.1), PARAMS), jt.rmsprop(0.1, centered=True), PARAMS)
    assert outcomes(centered)[UP, "mean"] == "new" and outcomes(centered)[UP, "nu"] == "kept"
    scaled = jt.migrate_state(state_after(jt.rmsprop(0.1, momentum=0.9), PARAMS), jt.momentum(0.1), PARAMS)
    assert outcomes(scaled)[UP, "trace"] in ("new", "dropped")
    assert not np.any(leaf_of(scaled.state[1].trace, UP))


def test_of_two_momenta_each_goes_to_its_own_place():
    def mixed(rate: float) -> Any:
        calm = jt.scale_by_momentum(form="ema")
        return optax.chain(jt.interpolate(jt.scale_by_adam(0.5), calm, 0.5), optax.scale(-rate))

    state = state_after(mixed(0.1), PARAMS, 2)
    wrapped = optax.chain(optax.clip_by_global_norm(1e9), mixed(0.1))
    migrated = jt.migrate_state(state, wrapped, PARAMS).state[1]
    chex.assert_trees_all_equal(migrated, state)


def test_no_two_arrays_of_a_migrated_state_share_a_buffer():
    def twice(rate: float) -> Any:
        return optax.chain(jt.interpolate(jt.scale_by_adam(), jt.scale_by_adam(), 0.5), optax.scale(-rate))

    state = jt.migrate_state(state_after(jt.adamw(0.1), PARAMS), twice(0.1), PARAMS).state
    pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state)]
    assert len(set(pointers)) == len(pointers)  # or donation fails


def test_moments_of_no_optimizer_start_at_count_zero_and_schedules_go_on():
    state = state_after(jt.sgd(optax.constant_schedule(0.1)), PARAMS, 5)
    adam = jt.migrate_state(state, jt.adamw(optax.constant_schedule(0.1)), PARAMS).state
    assert (adam[0].count, adam[2].count) == (0, 5)


@pytest.mark.slow
def test_shampoo_takes_new_roots_at_once_where_a_matrix_is_new():
    state = state_after(jt.shampoo(0.1, update_every=4, routing=REROUTED), PARAMS, 3)
    tx = jt.shampoo(0.1, update_every=4)
    migrated = jt.migrate_state(state, tx, PARAMS).state
    assert migrated.inner_states["matrix"][1].count == 0
    updates, _ = jax.jit(tx.update)(PARAMS, migrated, PARAMS)
    assert np.any(leaf_of(updates, UP))


@pytest.mark.slow
def test_squares_in_bases_of_soap_go_to_soap_alone_and_are_estimated_where_bases_are_new():
    def of_squares(migration: Any) -> set[str]:
        lines = migration.report.lines
        return {line.outcome for line in lines if (line.parameter, line.moment) == (UP, "nu")}

    tx, replaced = jt.soap(0.1), {"estimated", "dropped"}
    migration = jt.migrate_state(state_after(jt.adamw(0.1), PARAMS, 3), tx, PARAMS)
    assert outcomes(migration)[UP, "mu"] == "kept" and of_squares(migration) == replaced
    updates, state = jax.jit(tx.update)(PARAMS, migration.state, PARAMS)
    # Along m alone the root mean square would be 0.2 of the rate.
    assert 0.01 < np.sqrt(np.mean(np.square(leaf_of(updates, UP)))) / 0.1 < 2
    chex.assert_trees_all_equal(jt.migrate_state(state, tx, PARAMS).state, state)
    one_sided = jt.migrate_state(state, jt.soap(0.1, max_size=6), PARAMS)
    assert outcomes(one_sided)[UP, "left_basis"] == "kept" and of_squares(one_sided) == replaced
    assert of_squares(jt.migrate_state(state, jt.adamw(0.1), PARAMS)) == replaced


def test_a_dtype_is_cast_and_named():
    state = state_after(jt.adamw(0.1), PARAMS)
    migration = jt.migrate_state(state, jt.adamw(0.1, mu_dtype="bfloat16"), PARAMS)
    assert leaf_of(migration.state[0].mu, UP).dtype == jnp.bfloat16
    (line,) = [line for line in migration.report.lines if (line.parameter, line.moment) == (UP, "mu")]
    assert (line.outcome, "float32 to bfloat16" in line.why) == ("kept", True)


# Optax.


def test_optax_adamw_goes_on_as_before():
    theirs, ours = optax.adamw(0.1), jt.adamw(0.1)
    state = state_after(theirs, PARAMS, 3)
    migration = jt.migrate_state(state, ours, PARAMS)
    expected, _ = jax.jit(theirs.update)(PARAMS, state, PARAMS)
    updates, _ = jax.jit(ours.update)(PARAMS, migration.state, PARAMS)
    chex.assert_trees_all_close(updates, expected, rtol=1e-4, atol=1e-6)
    assert migration.report.is_complete


def test_optax_muon_goes_on_as_before():
    theirs = optax.contrib.muon(0.1)
    ours = jt.muon(
        0.1,
        weight_decay=0.0,
        shape_factor="original",
        bias_correction=True,
        orthogonalizer=jt.Orthogonalizer("keller_jordan", eps=1e-8, form="standard"),
        rest=jt.adamw(0.1, weight_decay=0.0, nesterov=True),
        routing=lambda path, leaf: "matrix" if leaf.ndim == 2 else "other",
    )
    state = state_after(theirs, PARAMS, 3)
    migration = jt.migrate_state(state, ours, PARAMS)
    expected, _ = jax.jit(theirs.update)(PARAMS, state, PARAMS)
    updates, _ = jax.jit(ours.update)(PARAMS, migration.state, PARAMS)
    chex.assert_trees_all_close(updates, expected, rtol=1e-3, atol=1e-4)  # five steps of the iteration in float32
    assert migration.report.is_complete
    assert not [line for line in migration.report.lines if line.outcome == "dropped"]


def test_optax_sgd_does_not_count_its_steps():
    state = state_after(optax.sgd(0.1, momentum=0.9), PARAMS)
    with pytest.raises(ValueError, match="count must be the steps so far"):
        jt.migrate_state(state, jt.momentum(0.1), PARAMS)
    assert jt.migrate_state(state, jt.momentum(0.1), PARAMS, count=70).state[1].count == 70


# Wrappers.


@functools.cache
def muon_state() -> Any:
    return state_after(jt.muon(0.1), PARAMS, 2)


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "chain": lambda tx: optax.chain(optax.clip_by_global_norm(1.0), tx),
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 1).gradient_transformation(),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
    "masked": lambda tx: optax.masked(tx, jax.tree.map(lambda _: True, PARAMS)),
    "partition": lambda tx: optax.partition({"a": tx}, jax.tree.map(lambda _: "a", PARAMS)),
    "sharded_state": jt.sharded_state,
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_moments_are_found_in_and_put_into_a_wrapper(name: str):
    plain = muon_state()
    wrapped = WRAPPERS[name](jt.muon(0.1))
    there = jt.migrate_state(plain, wrapped, PARAMS)
    assert there.report.is_complete
    chex.assert_trees_all_equal(jt.migrate_state(there.state, jt.muon(0.1), PARAMS).state, plain)
    jax.eval_shape(wrapped.update, PARAMS, there.state, PARAMS)


def test_injected_hyperparameters_are_the_new_ones_and_moments_are_kept():
    state = state_after(optax.inject_hyperparams(jt.adamw)(learning_rate=0.1), PARAMS, 2)
    migrated = jt.migrate_state(state, optax.inject_hyperparams(jt.adamw)(learning_rate=0.2), PARAMS).state
    assert migrated.hyperparams["learning_rate"] == np.float32(0.2)
    chex.assert_trees_all_equal(migrated.inner_state, state.inner_state)
    assert migrated.count == 2


def test_a_half_filled_batch_is_kept():
    tx = optax.MultiSteps(jt.adamw(0.1), 3).gradient_transformation()
    state = state_after(tx, PARAMS, 4)
    migrated = jt.migrate_state(state, optax.MultiSteps(jt.muon(0.1), 3).gradient_transformation(), PARAMS).state
    assert (migrated.mini_step, migrated.gradient_step) == (1, 1)
    chex.assert_trees_all_equal(migrated.acc_grads, state.acc_grads)


# Another tree.


def test_what_has_no_parameter_any_more_and_what_is_new_is_said_by_path():
    old = {"blocks": {"0": PARAMS["blocks"]["0"], "1": PARAMS["blocks"]["0"]}}
    grown = {"blocks": {"0": {**PARAMS["blocks"]["0"], "gate": {"kernel": jnp.ones((6, 8))}}}}
    grown["blocks"]["0"]["down"] = {"kernel": jnp.ones((9, 6)), "bias": jnp.ones(6)}
    migration = jt.migrate_state(state_after(jt.adamw(0.1), old), jt.adamw(0.1), grown)
    said = outcomes(migration)
    assert said["blocks/1/up/kernel", "mu"] == "dropped"
    assert said["blocks/0/gate/kernel", "mu"] == "new"
    assert said["blocks/0/gate/kernel", "nu"] == "estimated"
    assert said[UP, "mu"] == "kept"
    new = [line for line in migration.report.lines if (line.parameter, line.outcome) == (DOWN, "new")]
    assert [line.moment for line in new] == ["mu"] and "shape (8, 6), expected (9, 6)" in new[0].why
    assert not migration.report.is_complete


def test_the_report_folds_layers_and_ends_with_the_totals():
    tree = {"blocks": {str(i): PARAMS["blocks"]["0"] for i in range(3)}}
    report = jt.migrate_state(state_after(jt.muon(0.1), tree), jt.adamw(0.1), tree).report
    text = str(report)
    assert "blocks/0-2/up/kernel" in text and text.splitlines()[-1] == report.totals
    assert report.totals == "kept 18, estimated 6"


def test_a_line_in_the_log_says_whether_something_is_new(caplog: pytest.LogCaptureFixture):
    with caplog.at_level("INFO", "jaxopt_tour"):
        state = state_after(jt.adamw(0.1), PARAMS)
        jt.migrate_state(state, jt.adamw(0.1), PARAMS)
        jt.migrate_state(state_after(jt.sgd(0.1), PARAMS), jt.adamw(0.1), PARAMS)
    assert [record.levelname for record in caplog.records if "migrated" in record.message] == ["INFO", "WARNING"]


# An older version.


class MomentumState(NamedTuple):
    """Before 0.1 the momentum of Muon, an average, was named like a sum."""

    count: Any
    trace: Any


class LaPropState(NamedTuple):
    count: Any
    mu: Any
    nu: Any


class RMSPropState(NamedTuple):
    count: Any
    mu: Any
    nu: Any


def test_muon_before_0_1():
    new = state_after(jt.muon(0.1), PARAMS, 2)
    (momentum, *rest), *more = new.inner_states["matrix"]
    without_counts = [optax.EmptyState() for _ in more]
    old_matrix = ((MomentumState(momentum.count, momentum.mu), *rest), *without_counts)
    old = type(new)({**new.inner_states, "matrix": old_matrix})
    with pytest.raises(ValueError, match=r"MomentumState\(count, trace\), expected EmaMomentumState.*migrate_state"):
        jt.muon(0.1).update(PARAMS, old, PARAMS)
    migration = jt.migrate_state(old, jt.muon(0.1), PARAMS, trace="average")
    chex.assert_trees_all_equal(migration.state, new)
    assert migration.report.is_complete


@pytest.mark.parametrize(
    ("tx", "old_class"), [(jt.laprop(0.1), LaPropState), (jt.rmsprop(0.1, centered=True), RMSPropState)]
)
def test_laprop_and_centered_rmsprop_before_0_1(tx: Any, old_class: Any):
    new = state_after(tx, PARAMS, 2)
    old = tuple(old_class(*part) if len(part) == 3 else optax.EmptyState() for part in new)
    chex.assert_trees_all_equal(jt.migrate_state(old, tx, PARAMS).state, new)


# Wrong arguments.


@pytest.mark.parametrize(
    "arguments", [{"beta": 1.0}, {"beta": "0.9"}, {"trace": "ema"}, {"count": -1}, {"count": 1.5}, {"count": True}]
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any]):
    (name,) = arguments
    with pytest.raises(ValueError, match=name):
        jt.migrate_state(jt.adamw(0.1).init(PARAMS), jt.adamw(0.1), PARAMS, **arguments)


def test_a_migration_is_data():
    migration = jt.migrate_state(jt.adamw(0.1).init(PARAMS), jt.adamw(0.1), PARAMS)
    assert dataclasses.is_dataclass(migration) and "<table>" in migration.report._repr_html_()
