"""Metrics are what NumPy computes, under every transformation, and cost nothing between measurements."""

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
from jaxopt_tour.state.measure import polar_error, stable_rank
from tests.contenders import make_gradients, make_params

UP, DOWN = "blocks/0/up/kernel", "blocks/0/down/kernel"
#: The tests look at what is measured, so that one step of the iteration is enough.
SHORT = ((3.4445, -4.7750, 2.0315),)
RATE, DECAY = 0.01, 0.1


def short_muon(**arguments: Any) -> optax.GradientTransformationExtraArgs:
    return jt.muon(RATE, weight_decay=DECAY, orthogonalizer=SHORT, **arguments)


def model(dtype: Any = jnp.float32) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    shapes = {
        "embed": {"embedding": (10, 4)},
        "blocks": {"0": {"up": {"kernel": (4, 6), "bias": (6,)}, "down": {"kernel": (6, 4)}}},
        "head": {"kernel": (4, 10)},
    }
    is_shape = lambda node: isinstance(node, tuple)  # noqa: E731
    return jax.tree.map(lambda shape: jnp.asarray(rng.standard_normal(shape), dtype), shapes, is_leaf=is_shape)


def updated(tx: Any, params: Any, steps: int = 1) -> Any:
    """The state after some steps, each compiled."""
    state = tx.init(params)
    step = jax.jit(tx.update)
    for seed in range(steps):
        updates, state = step(make_gradients(params, seed), state, params)
        params = optax.apply_updates(params, updates)
    return state


def flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])


def norm(x: Any) -> float:
    return float(np.linalg.norm(np.asarray(x, np.float64)))


# What is measured.


@pytest.fixture(scope="module")
def step() -> tuple[Any, Any, Any]:
    """Gradients, updates and the state of one step of Muon."""
    params, g = model(), make_gradients(model(), 3)
    tx = optax.apply_if_finite(jt.monitored(short_muon()), 3)
    return g, *jax.jit(lambda g, p: tx.update(g, tx.init(p), p))(g, params)


@pytest.fixture(scope="module")
def healthy(step: tuple[Any, Any, Any]) -> dict[str, float]:
    """Metrics about which there is nothing to say."""
    measured = jt.metrics(step[2]) | {"measured_at": 51.0}
    return {key: 0.02 if key.startswith("polar_error") else value for key, value in measured.items()}


def test_every_number_is_numpys(step: tuple[Any, Any, Any]):
    params, (g, u, after) = model(), step
    measured = jt.metrics(after)
    after = after.inner_state.inner_state
    up, w = np.asarray(u["blocks"]["0"]["up"]["kernel"], np.float64), np.asarray(params["blocks"]["0"]["up"]["kernel"])
    m = np.asarray(after.inner_states["matrix"][0][0].mu["blocks"]["0"]["up"]["kernel"], np.float64)
    decay = -RATE * DECAY * w
    orthogonal = np.linalg.svd(up - decay, compute_uv=False) ** 2
    expected = {
        f"update_rms/{UP}": np.sqrt(np.mean(up**2)),
        f"update_ratio/{UP}": norm(up) / norm(w),
        f"gradient_norm/{UP}": norm(g["blocks"]["0"]["up"]["kernel"]),
        f"momentum_norm/{UP}": norm(m),
        f"decay_share/{UP}": norm(decay) / (norm(decay) + norm(up - decay)),
        f"vanished/{UP}": 0.0,
        f"stable_rank/{UP}": norm(m) ** 2 / np.linalg.norm(m, 2) ** 2,
        f"polar_error/{UP}": np.std(orthogonal) / np.mean(orthogonal) / 2,
        "update_rms_by_role/all": np.sqrt(np.mean(flat(u) ** 2)),
        "update_ratio_by_role/all": np.linalg.norm(flat(u)) / np.linalg.norm(flat(params)),
        "gradient_norm_by_role/embedding": norm(g["embed"]["embedding"]),
        "gradient_norm_by_role/matrix": np.linalg.norm(flat([layer["kernel"] for layer in g["blocks"]["0"].values()])),
        "measured_at": 1.0,
    }
    assert {key: measured[key] for key in expected} == pytest.approx(expected, rel=1e-3, abs=1e-7)
    assert measured["stable_rank_by_role/matrix"] == pytest.approx(
        np.mean([measured[f"stable_rank/{name}"] for name in (UP, DOWN)])
    )
    assert measured["polar_error_by_role/matrix"] == max(measured[f"polar_error/{name}"] for name in (UP, DOWN))


def test_matrices_alone_have_ranks_and_orthogonalized_ones_polar_errors():
    def names(tx: Any, metric: str) -> set[str]:
        keys = jt.metrics(jt.monitored(tx).init(model()))
        return {key.removeprefix(metric + "/") for key in keys if key.startswith(metric + "/")}

    assert names(short_muon(), "polar_error") == names(short_muon(), "stable_rank") & {UP, DOWN} == {UP, DOWN}
    assert names(optax.contrib.muon(1e-3), "polar_error") >= {UP, DOWN}
    assert not names(jt.adamw(1e-3), "polar_error") and names(jt.adamw(1e-3), "stable_rank") == {UP, DOWN}
    assert not names(optax.sgd(1e-3), "momentum_norm") and names(optax.sgd(1e-3, momentum=0.9), "momentum_norm")


def test_roles_are_those_of_the_optimizers_routing():
    chosen = {"blocks/0/down": "embedding"}
    keys = jt.metrics(jt.monitored(short_muon(routing=chosen)).init(model()))
    assert f"polar_error/{UP}" in keys and f"polar_error/{DOWN}" not in keys
    keys = jt.metrics(jt.monitored(optax.sgd(0.1), routing={"head": "position"}).init(model()))
    assert "update_rms_by_role/position" in keys and "update_rms_by_role/head" not in keys


@pytest.mark.parametrize(
    ("tx", "share"),
    [
        (optax.adamw(RATE, weight_decay=DECAY), True),
        (jt.adamw(lambda count: RATE, weight_decay=lambda count: DECAY), True),
        (optax.sgd(RATE), 0.0),
        (jt.adamw(RATE, weight_decay=DECAY, cautious=True), None),
        (jt.adam(RATE, l2=DECAY), None),
        (optax.lamb(RATE), None),
    ],
    ids=["optax", "schedules", "without decay", "cautious", "coupled", "trust ratio"],
)
def test_decay_is_told_apart_where_it_is_a_number_times_the_weights(tx, share):
    params = make_params()
    measured = jt.metrics(updated(jt.monitored(tx), params))
    key = "decay_share/up/kernel"
    if share is None:
        assert key not in measured
    elif share:
        d = RATE * DECAY * norm(params["up"]["kernel"])
        u = measured["update_rms/up/kernel"] * np.sqrt(24)
        assert d / (2 * u) < measured[key] < 2 * d / u
    else:
        assert measured[key] == share


def test_vanished_counts_the_entries_that_do_not_move():
    params = {"scale": jnp.asarray([1.0, 1.0, 0.01, 0.0], jnp.bfloat16)}
    g = {"scale": jnp.asarray([1.0, 0.0, 1.0, 1.0], jnp.bfloat16)}
    tx = jt.monitored(optax.sgd(1e-3))
    measured = jt.metrics(jax.jit(tx.update)(g, tx.init(params), params)[1])
    assert measured["vanished/scale"] == pytest.approx(1 / 3)  # of three entries with an update the first stays at 1


def test_stable_rank_is_close_from_above_and_the_accuracy_is_the_documented_one():
    """Within 20 % for Gaussian matrices, whose largest singular values are near each other, 1 % for decaying ones."""
    rng = np.random.default_rng(0)
    gaussian = rng.standard_normal((8, 96, 192))
    decaying = np.linalg.qr(rng.standard_normal((96, 96)))[0] * (1 + np.arange(96)) ** -1.0
    decaying = np.concatenate([decaying, np.zeros((96, 96))], axis=1)[None]
    edge = np.asarray([0, 1e-30, 1e30])[:, None, None] * np.ones((3, 96, 192))
    ranks = np.asarray(jax.jit(stable_rank)(jnp.asarray(np.concatenate([gaussian, decaying, edge]), jnp.float32)))
    exact = np.linalg.norm(gaussian, axis=(1, 2)) ** 2 / np.linalg.norm(gaussian, 2, axis=(1, 2)) ** 2
    assert (ranks[:8] > exact * (1 - 1e-5)).all() and (ranks[:8] < 1.2 * exact).all()
    np.testing.assert_allclose(ranks[8], np.sum((1 + np.arange(96)) ** -2.0), rtol=0.01)
    np.testing.assert_allclose(ranks[9:], [0, 1, 1], rtol=1e-5)


def test_polar_error_is_the_spread_of_the_singular_values():
    rng = np.random.default_rng(0)
    u, v = (np.linalg.qr(rng.standard_normal((n, 32)))[0] for n in (32, 64))
    s = 1 + 0.05 * rng.standard_normal(32)
    x = jnp.asarray((u * s) @ v.T, jnp.float32)
    spread = np.sqrt(np.mean((s / s.mean() - 1) ** 2))
    equal, half = (jnp.asarray((u * kept) @ v.T, jnp.float32) for kept in (np.ones(32), np.arange(32) < 16))
    stack = jnp.stack([x, 1e-20 * x, 1e20 * x, equal, half, jnp.zeros_like(x)])
    for matrices in (stack, stack.mT):
        errors = jax.jit(polar_error)(matrices)
        np.testing.assert_allclose(errors[:3], spread, rtol=0.02)
        np.testing.assert_allclose(errors[3:], [0, 0.5, 0], atol=1e-5)


def test_a_stack_of_layers_has_the_worst_polar_error_and_the_mean_rank():
    rng = np.random.default_rng(0)
    stack = jnp.asarray(rng.standard_normal((3, 4, 6)), jnp.float32).at[1].set(np.ones((4, 6)))
    tx = jt.monitored(short_muon(routing={"layers/kernel": jt.MatrixAxes(1, 2)}))
    params = {"layers": {"kernel": stack}}
    measured = jt.metrics(jax.jit(tx.update)(params, tx.init(params), params)[1])
    exact = np.linalg.norm(stack, axis=(1, 2)) ** 2 / np.linalg.norm(stack, 2, axis=(1, 2)) ** 2
    assert measured["stable_rank/layers/kernel"] == pytest.approx(exact.mean(), rel=0.05)
    assert measured["polar_error/layers/kernel"] == pytest.approx(0.5 * np.sqrt(3), rel=1e-2)  # one of four is not zero


# When.


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


# Diagnosis.


def sentences(tx: Any, params: Any, gradients: Any, **arguments: Any) -> str:
    state = tx.init(params)
    _, state = jax.jit(tx.update)(gradients, state, params)
    return "\n".join(jt.diagnose(jt.metrics(state), **arguments))


def test_a_healthy_step_gets_no_sentence(healthy: dict[str, float]):
    assert jt.diagnose(healthy) == []
    assert jt.diagnose(jt.metrics(jt.monitored(jt.adamw(1e-3)).init(make_params()))) == []  # nothing is measured yet


def test_vanishing_updates_are_named_with_the_way_out_and_the_way_out_helps():
    params = {"norm": {"scale": jnp.ones(8, jnp.bfloat16)}}
    found = sentences(jt.monitored(jt.sgd(1e-3)), params, params)
    assert "'norm/scale' vanishes in rounding: 100%" in found and "with_master_weights" in found
    assert sentences(jt.with_master_weights(jt.monitored(jt.sgd(1e-3))), params, params) == ""
    assert sentences(jt.with_stochastic_rounding(jt.monitored(jt.sgd(1e-3)), 0), params, params) == ""


def test_a_dead_layer_is_named(healthy: dict[str, float]):
    params = make_params()
    g = make_gradients(params) | {"gain": jnp.zeros([])}
    assert "The gradient of 'gain' is zero." in sentences(jt.monitored(jt.sgd(1e-3)), params, g)
    none = {key: 0.0 if key.startswith("gradient_norm/") else value for key, value in healthy.items()}
    assert jt.diagnose(none) == ["All gradients are zero."]


def test_a_large_polar_error_is_named_and_the_bound_is_an_argument(healthy: dict[str, float]):
    flawed = healthy | {f"polar_error/{UP}": 0.6, f"polar_error/{DOWN}": 0.5}
    (sentence,) = jt.diagnose(flawed)
    assert f"'{UP}', '{DOWN}' has unequal singular values: polar error 0.60" in sentence
    assert jt.diagnose(flawed, polar_error=1.0) == []
    assert jt.diagnose(healthy, polar_error=0.0) != []


def test_a_part_that_moves_five_times_as_far_is_named_once_the_start_is_over(healthy: dict[str, float]):
    far = healthy | {"update_rms_by_role/embedding": 10 * healthy["update_rms_by_role/matrix"]}
    (sentence,) = jt.diagnose(far)
    assert "role 'embedding' move 10.0 times as far" in sentence
    assert jt.diagnose(far | {"measured_at": 1.0}) == []
    assert jt.diagnose({key: value for key, value in far.items() if "polar_error" not in key}) == []  # no Muon


def test_numbers_that_are_not_finite_are_named():
    params = make_params()
    g = make_gradients(params)
    g["gain"] = jnp.asarray(jnp.inf)
    found = sentences(jt.monitored(jt.sgd(0.1)), params, g)
    assert "not finite: 'update_rms/gain'" in found


def test_a_batch_of_metrics_is_refused():
    with pytest.raises(ValueError, match="a number for 'update_rms/w'"):
        jt.diagnose({"update_rms/w": np.ones(2)})
    with pytest.raises(ValueError, match="polar_error must be a number"):
        jt.diagnose({}, polar_error=-1)
