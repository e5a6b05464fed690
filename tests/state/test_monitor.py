"""The monitor works under every transformation and wrapper, and costs nothing between measurements."""

from __future__ import annotations

import json
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_tour as jt
from tests.contenders import make_gradients, make_params
from tests.state.monitored_model import DECAY, RATE, UP, flat, model, short_muon, updated


def test_it_measures_the_first_update_and_then_each_so_many():
    tx = jt.monitored(optax.sgd(0.1), every=3)
    params = make_params()
    state, step = tx.init(params), jax.jit(tx.update)
    assert jt.metrics(state)["measured_at"] == 0
    seen = []
    for seed in range(8):
        g = make_gradients(params, seed)
        _, state = step(g, state, params)
        measured = jt.metrics(state)
        seen.append(measured["measured_at"])
        fresh = measured["gradient_norm_by_role/all"] == pytest.approx(np.linalg.norm(flat(g)), rel=1e-5)
        assert fresh == (seed % 3 == 0)
    assert seen == [1, 1, 1, 4, 4, 4, 7, 7]


def test_between_measurements_nothing_is_computed(optimized):
    """All products and reductions are in a branch of the compiled program, which copies no donated weights for it."""
    params = model()
    tx = jt.monitored(optax.sgd(0.1, momentum=0.9))

    def step(params: Any, state: Any, gradients: Any) -> Any:
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    text = jax.jit(step, donate_argnums=(0, 1)).lower(params, tx.init(params), params).compile().as_text()
    entry = re.search(r"^ENTRY [^\n]*\{\n(.*?)^\}", text, re.M | re.S).group(1)
    assert "conditional(" in entry
    assert not re.findall(r"\b(?:dot|reduce|while)\(", entry)
    assert not re.findall(r"= f32\[\d+,\d+\]\S* copy\(", entry)


@pytest.mark.parametrize("plain", [short_muon(), jt.adamw(RATE, weight_decay=DECAY, cautious=True)])
def test_updates_and_the_state_inside_are_those_of_the_optimizer(plain: Any):
    params = make_params()
    tx = jt.monitored(plain, every=2)
    state, wanted = tx.init(params), plain.init(params)
    step, plain_step = jax.jit(tx.update), jax.jit(plain.update)
    for seed in range(3):
        g = make_gradients(params, seed)
        u, state = step(g, state, params)
        v, wanted = plain_step(g, wanted, params)
        for a, b in zip(jax.tree.leaves((u, state.inner_state)), jax.tree.leaves((v, wanted)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)
            assert a.dtype == b.dtype


# Where.


def test_structure_and_dtypes_of_the_state_never_change():
    params = model(jnp.bfloat16)
    tx = jt.monitored(short_muon())
    before = jax.eval_shape(tx.init, params)
    updates, after = jax.eval_shape(tx.update, params, before, params)
    avals = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)  # noqa: E731
    assert avals(before) == avals(after)
    assert avals(updates) == avals(jax.eval_shape(lambda p: p, params))
    assert before.count.dtype == jnp.int32 and before.measured_at.dtype == jnp.int32


@pytest.mark.parametrize(
    "wrap",
    [
        jt.monitored,
        jt.with_master_weights,
        lambda tx: jt.with_stochastic_rounding(tx, jax.random.PRNGKey(0)),
    ],
    ids=["monitored", "with_master_weights", "with_stochastic_rounding"],
)
def test_parameters_and_state_can_be_donated_and_init_called_again(wrap):
    tx = wrap(optax.sgd(0.1))
    params = {"w": jnp.ones(3, jnp.bfloat16)}

    def step(params: Any, state: Any) -> Any:
        updates, state = tx.update(params, state, params)
        return optax.apply_updates(params, updates), state

    step = jax.jit(step, donate_argnums=(0, 1))
    for _ in range(2):
        params = {"w": jnp.ones(3, jnp.bfloat16)}
        carry = step(params, tx.init(params))
        assert (np.asarray(step(*carry)[0]["w"], np.float32) < 1).all()


def test_under_scan_and_vmap():
    tx = jt.monitored(optax.sgd(0.1, momentum=0.9), every=2)

    def run(params: Any) -> Any:
        def body(state: Any, _: None) -> tuple[Any, Any]:
            _, state = tx.update(params, state, params)
            return state, state.values

        return jax.lax.scan(body, tx.init(params), length=3)

    params = model()
    stack = jax.tree.map(lambda p: jnp.stack([p, 2 * p]), params)
    together = jt.metrics(jax.jit(jax.vmap(run))(stack)[0])
    alone, values = jax.jit(run)(params)
    single, of_steps = jt.metrics(alone), jt.metrics(alone._replace(values=values))
    assert together.keys() == single.keys() and (together["measured_at"] == 3).all()
    assert of_steps[f"momentum_norm/{UP}"].shape == (3,)
    assert of_steps[f"momentum_norm/{UP}"][-1] == single[f"momentum_norm/{UP}"]
    for key, value in single.items():
        assert together[key][0] == pytest.approx(value, rel=1e-4, abs=1e-6), key


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: optax.MultiSteps(jt.monitored(tx), 2),
        lambda tx: jt.monitored(optax.MultiSteps(tx, 2).gradient_transformation()),
        lambda tx: optax.chain(optax.clip_by_global_norm(1.0), jt.monitored(tx)),
        lambda tx: jt.monitored(optax.chain(optax.clip_by_global_norm(1.0), tx)),
        lambda tx: optax.masked(jt.monitored(tx), {"up": True, "gain": False}),
        lambda tx: jt.monitored(optax.masked(tx, {"up": True, "gain": False})),
        lambda tx: optax.apply_if_finite(jt.monitored(tx), 2),
        lambda tx: jt.with_master_weights(jt.monitored(tx)),
        lambda tx: jt.with_stochastic_rounding(jt.monitored(tx), 0),
        lambda tx: jt.multi_transform({"matrix": jt.monitored(tx), "other": optax.sgd(0.1)}),
        lambda tx: jt.sharded_state(jt.monitored(tx)),
    ],
)
def test_with_other_wrappers(wrap):
    """Two steps with one gradient: a step that accumulates it does not move the weights."""
    params = make_params(jnp.bfloat16)
    g = make_gradients(params)
    tx = wrap(optax.adamw(1e-3))
    state, step = tx.init(params), jax.jit(tx.update)
    for _ in range(2):
        _, state = step(g, state, params)
    measured = jt.metrics(state)
    assert measured["measured_at"] >= 1
    assert measured["update_rms/up/kernel"] == pytest.approx(1e-3, rel=0.05)
    assert measured["momentum_norm/up/kernel"] > 0


def test_inside_inject_hyperparams():
    tx = optax.inject_hyperparams(lambda learning_rate: jt.monitored(jt.adamw(learning_rate)))(learning_rate=0.5)
    assert jt.metrics(updated(tx, make_params()))["update_rms/up/kernel"] == pytest.approx(0.5, rel=0.01)


def test_gradients_pass_through_the_update_and_not_through_the_measurement():
    def after(rate: jax.Array) -> jax.Array:
        tx = jt.monitored(jt.adamw(rate))
        params = make_params()
        updates, state = tx.update(params, tx.init(params), params)
        return jnp.sum(updates["gain"]) + 100 * jnp.sum(state.values)

    np.testing.assert_allclose(jax.jit(jax.grad(after))(0.1), -1, rtol=1e-3)  # the first step of Adam is the rate


def test_an_flax_modules_optimizer():
    from flax import nnx

    layer = nnx.Linear(4, 6, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(layer, jt.monitored(optax.sgd(0.1, momentum=0.9)), wrt=nnx.Param)
    step = nnx.jit(lambda m, o: o.update(m, nnx.grad(lambda m: jnp.sum(m(jnp.ones((2, 4))) ** 2))(m)))
    step(layer, optimizer)
    measured = jt.metrics(optimizer.opt_state)
    assert measured["momentum_norm/kernel"] == measured["gradient_norm/kernel"] > 0


def test_layouts_of_the_state_are_known():
    mesh = jax.make_mesh((1,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))
    layout = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp"))
    params = {"up": {"kernel": jax.device_put(jnp.ones((4, 2)), layout)}}
    tx = jt.monitored(jt.adamw(1e-3))
    shardings = jt.state_shardings(tx, params)
    assert jax.tree.structure(shardings) == jax.tree.structure(tx.init(params))
    assert shardings.values.is_fully_replicated


# What a logger gets.


def test_metrics_are_what_loggers_take(step: tuple[Any, Any, Any]):
    """TensorBoard, Weights & Biases, trackio, MLflow and CLU take flat dictionaries of str to float."""
    measured = jt.metrics(step[2])
    assert measured["steps_skipped"] == 0 and measured["steps_skipped_in_a_row"] == 0
    for key, value in measured.items():
        assert re.fullmatch(r"[A-Za-z0-9_\-. /]+", key) and not key.startswith("/"), key
        assert type(value) is float
    assert json.loads(json.dumps(measured, allow_nan=False)) == measured


def test_skipped_steps_are_counted_without_a_measurement():
    params = make_params()
    tx = optax.apply_if_finite(jt.monitored(jt.sgd(0.1), every=100), 5)
    state = updated(tx, params)
    bad = jax.tree.map(lambda p: p * jnp.nan, params)
    for _ in range(2):
        _, state = jax.jit(tx.update)(bad, state, params)
    measured = jt.metrics(state)
    assert (measured["steps_skipped"], measured["steps_skipped_in_a_row"]) == (2, 2)
    assert measured["measured_at"] == 1 and any("2 steps were skipped" in text for text in jt.diagnose(measured))


@pytest.mark.parametrize("every", [0, -1, 1.5, True, "50"])
def test_a_wrong_interval_is_named(every):
    with pytest.raises(ValueError, match="every must be an integer >= 1"):
        jt.monitored(jt.sgd(1.0), every=every)


def test_wrong_use_is_answered_with_the_way_out():
    params = make_params()
    with pytest.raises(ValueError, match=r"jt.monitored\(tx\)"):
        jt.metrics(jt.adamw(1e-3).init(params))
    with pytest.raises(ValueError, match="needs the parameters"):
        tx = jt.monitored(jt.sgd(1.0))
        tx.update(params, tx.init(params))
    with pytest.raises(ValueError, match=r"jt.with_master_weights\(jt.monitored\(tx\)\)"):
        jt.monitored(jt.with_master_weights(jt.sgd(1.0))).init(params)
    with pytest.raises(ValueError, match=r"jt.with_stochastic_rounding\(jt.monitored\(tx\)\)"):
        jt.monitored(optax.chain(jt.with_stochastic_rounding(jt.sgd(1.0), 0))).init(params)
    with pytest.raises(ValueError, match="two monitors"):
        jt.metrics(
            jt.monitored(jt.monitored(jt.sgd(1.0))).init(params).inner_state._replace()
        ) if False else jt.metrics((jt.monitored(jt.sgd(1.0)).init(params), jt.monitored(jt.sgd(1.0)).init(params)))
