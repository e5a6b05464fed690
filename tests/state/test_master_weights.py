"""Half-precision parameters are the rounded float32 copy, after every update, bit for bit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxopt_tour as jt
from jaxopt_tour.state.rounding import round_to_nearest
from tests.contenders import make_gradients, make_params

half_precision = pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])


def bits(tree: object) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def take_update_as_is() -> optax.GradientTransformation:
    """The update is the gradient: a test chooses it."""
    return optax.stateless(lambda updates, _: updates)


def random_floats(rng: np.random.Generator, size: int, dtype: jnp.dtype) -> np.ndarray:
    """Numbers of all magnitudes that the dtype holds without subnormal numbers of float32, and zeros."""
    low, high = (-14, 15) if dtype == jnp.float16 else (-60, 60)
    values = rng.standard_normal(size) * 2.0 ** rng.uniform(low - 10, high - 3, size)
    return np.where(rng.random(size) < 0.02, 0.0, values).astype(np.float32)


@half_precision
def test_rounding_is_numpys(dtype: jnp.dtype) -> None:
    x = random_floats(np.random.default_rng(0), 200_000, dtype)
    ties = np.asarray(x[:1000].astype(dtype), np.float32)
    x = np.concatenate([x, (ties + np.nextafter(ties.astype(dtype), dtype(np.inf)).astype(np.float32)) / 2])
    np.testing.assert_array_equal(
        np.asarray(jax.jit(round_to_nearest, static_argnums=1)(x, dtype)), x.astype(dtype).astype(np.float32)
    )


@half_precision
@pytest.mark.parametrize("compiled", [False, True])
def test_the_applied_update_is_the_rounded_copy_over_random_values(dtype: jnp.dtype, compiled: bool) -> None:
    """Also where weight and target differ by forty binary orders of magnitude, which no float32 difference spans."""
    rng = np.random.default_rng(1)
    tx = jt.with_master_weights(take_update_as_is())
    params = {"w": jnp.asarray(random_floats(rng, 100_000, dtype)).astype(dtype)}
    state = tx.init(params)

    def step(params, state, u):
        updates, state = tx.update(u, state, params)
        return optax.apply_updates(params, updates), state

    step = jax.jit(step) if compiled else step
    for scale in (1.0, 1e-3, "cancel"):
        w = np.asarray(state.master["w"])
        u = (
            -w * (1 + 2.0 ** rng.uniform(-30, 0, w.shape))
            if scale == "cancel"
            else scale * random_floats(rng, w.size, dtype)
        )
        before = state.master["w"]
        params, state = step(params, state, {"w": jnp.asarray(u, jnp.float32)})
        # Equal as numbers: of a copy of -1e-9 the rounded value is -0, and a sum that cancels is +0.
        np.testing.assert_array_equal(params["w"], state.master["w"].astype(dtype))
        exact = np.asarray(before) + np.asarray(u, np.float32)
        # Where a sum cancels, the copy is moved to what the parameter can reach: by a rounding error of the addends.
        finite = np.isfinite(exact)
        error = np.abs(np.asarray(state.master["w"]) - exact)[finite]
        assert (error <= 2.0**-23 * np.abs(np.asarray(before))[finite]).all()


@half_precision
@given(start=st.floats(0.01, 100), steps=st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=20))
def test_the_copy_is_what_float32_training_gives(dtype: jnp.dtype, start: float, steps: list[float]) -> None:
    tx = jt.with_master_weights(jt.sgd(0.01))
    params = jnp.full((1,), start, dtype)
    state, wide = tx.init(params), params.astype(jnp.float32)
    for g in steps:
        updates, state = tx.update(jnp.full((1,), g, jnp.float32), state, params)
        params = optax.apply_updates(params, updates)
        wide = wide + jnp.float32(-0.01) * jnp.float32(g)
    # A weight that a step takes through zero may be put where its parameter can go, a rounding error away.
    np.testing.assert_allclose(np.asarray(state.master), np.asarray(wide), rtol=1e-6, atol=2.0**-23 * start)
    assert bits(params) == bits(state.master.astype(dtype))


@pytest.mark.parametrize("optimizer", [jt.adamw, jt.muon])
def test_updates_are_those_of_float32_weights(optimizer) -> None:
    """The optimizer inside never sees half precision: its state and the copy are those of float32 training."""
    tx, wide_tx = jt.with_master_weights(optimizer(1e-2)), optimizer(1e-2)
    step, wide_step = jax.jit(tx.update), jax.jit(wide_tx.update)
    params = make_params(jnp.bfloat16)
    wide = jax.tree.map(lambda p: p.astype(jnp.float32), params)
    state, wide_state = tx.init(params), wide_tx.init(wide)
    for seed in range(3):
        g = make_gradients(params, seed)
        updates, state = step(g, state, params)
        params = optax.apply_updates(params, updates)
        u, wide_state = wide_step(jax.tree.map(lambda x: x.astype(jnp.float32), g), wide_state, wide)
        wide = optax.apply_updates(wide, u)
    for copy, weight in zip(jax.tree.leaves(state.master), jax.tree.leaves(wide), strict=True):
        np.testing.assert_allclose(copy, weight, rtol=1e-5, atol=1e-6)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(params))


def test_float32_parameters_have_no_copy_and_the_updates_of_the_optimizer_alone() -> None:
    params = make_params()
    tx, plain = jt.with_master_weights(jt.sgd(1e-2)), jt.sgd(1e-2)
    g = make_gradients(params)
    assert not jax.tree.leaves(tx.init(params).master)
    assert bits(tx.update(g, tx.init(params), params)[0]) == bits(plain.update(g, plain.init(params), params)[0])


def test_bfloat16_and_float32_parameters_in_one_tree_keep_their_dtypes() -> None:
    params = make_params(jnp.bfloat16) | {"norm": {"scale": jnp.ones(4)}}
    tx = jt.with_master_weights(jt.muon(1e-2))
    state = tx.init(params)
    updates, after = jax.jit(tx.update)(make_gradients(params), state, params)
    moved = optax.apply_updates(params, updates)
    assert jax.tree.map(lambda x: x.dtype, moved) == jax.tree.map(lambda x: x.dtype, params)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)


def test_small_updates_add_up() -> None:
    def train(tx):
        params = jnp.ones(1, jnp.bfloat16)
        state = tx.init(params)
        for _ in range(100):
            updates, state = tx.update(jnp.ones(1, jnp.bfloat16), state, params)
            params = optax.apply_updates(params, updates)
        return float(params[0])

    assert train(jt.sgd(1e-3)) == 1.0
    assert train(jt.with_master_weights(jt.sgd(1e-3))) == float(jnp.bfloat16(0.9))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: optax.MultiSteps(jt.with_master_weights(tx), 2),
        lambda tx: jt.with_master_weights(optax.apply_if_finite(tx, 3)),
        lambda tx: optax.masked(jt.with_master_weights(tx), {"up": True, "gain": False}),
        lambda tx: jt.with_master_weights(optax.chain(optax.clip_by_global_norm(1.0), tx)),
    ],
    ids=["MultiSteps", "apply_if_finite", "masked", "chain"],
)
def test_with_optaxs_wrappers_parameters_stay_the_rounded_copy(wrap) -> None:
    tx = wrap(jt.sgd(1e-2))
    params = make_params(jnp.bfloat16)
    state = tx.init(params)
    for seed in range(4):
        updates, state = jax.jit(tx.update)(make_gradients(params, seed), state, params)
        params = optax.apply_updates(params, updates)
    (master,) = (value for _, value in optax.tree.get_all_with_path(state, "master"))
    assert bits(params["up"]) == bits(jax.tree.map(lambda w: w.astype(jnp.bfloat16), master["up"]))


def test_under_scan_and_vmap() -> None:
    tx = jt.with_master_weights(jt.momentum(1e-2))
    stack = jax.tree.map(lambda p: jnp.stack([p, 2 * p]), make_params(jnp.bfloat16))

    def run(params):
        def body(carry, _):
            params, state = carry
            updates, state = tx.update(params, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(body, (params, tx.init(params)), length=3)[0]

    together = jax.jit(jax.vmap(run))(stack)
    for i in range(2):
        alone = jax.jit(run)(jax.tree.map(lambda p, i=i: p[i], stack))
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(np.asarray(a[i], np.float64), np.asarray(b, np.float64), rtol=1e-6)


def test_a_flax_module_in_bfloat16_trains() -> None:
    from flax import nnx

    model = nnx.Linear(4, 3, rngs=nnx.Rngs(0), param_dtype=jnp.bfloat16, dtype=jnp.bfloat16)
    optimizer = nnx.Optimizer(model, jt.with_master_weights(jt.sgd(1e-3)), wrt=nnx.Param)
    x = jnp.ones((2, 4), jnp.bfloat16)
    step = nnx.jit(lambda m, o: o.update(m, nnx.grad(lambda m: jnp.sum(m(x) ** 2))(m)))
    for _ in range(2):
        step(model, optimizer)
    (copy,) = (
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(nnx.as_pure(optimizer.opt_state).master)
        if "kernel" in jax.tree_util.keystr(path)
    )
    assert model.kernel[...].dtype == jnp.bfloat16
    assert bits(model.kernel[...]) == bits(copy.astype(jnp.bfloat16))


def test_the_state_has_layouts() -> None:
    mesh = jax.make_mesh((1,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))
    layout = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp"))
    params = {
        "up": {
            "kernel": jax.device_put(jnp.ones((4, 2), jnp.bfloat16), layout),
            "bias": jax.device_put(jnp.ones(2), layout),
        }
    }
    tx = jt.with_master_weights(jt.adamw(1e-3))
    shardings = jt.state_shardings(tx, params)
    assert shardings.master["up"]["kernel"].spec == layout.spec
    assert jt.sharded_state(tx).init(params).master["up"]["kernel"].sharding.spec == layout.spec


def test_parameters_are_needed() -> None:
    tx = jt.with_master_weights(jt.sgd(1.0))
    with pytest.raises(ValueError, match="needs the parameters"):
        tx.update({"w": jnp.ones(1)}, tx.init({"w": jnp.ones(1)}))
