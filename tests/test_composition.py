"""Every public optimizer x what wraps or holds it: promises 3, composition, and 4, containers, of the contract."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.contenders import Contender, every_factory, every_kind_of_state, every_optimizer, make_gradients, make_params
from tests.steps import assert_close, assert_finite, one_update

# 3. Composition.


@every_kind_of_state
def test_it_chains_with_clipping(contender: Contender):
    params = make_params()
    gradients = make_gradients(params)
    norm = optax.tree.norm(gradients)
    chained = optax.chain(optax.clip_by_global_norm(0.5), contender())
    by_hand = jax.tree.map(lambda g: g * (0.5 / norm), gradients)
    assert_close(one_update(chained, gradients, params), one_update(contender(), by_hand, params), rtol=1e-4)


@pytest.mark.versions
@every_kind_of_state
@pytest.mark.parametrize("wrapper", ["partition", "masked"])
def test_it_works_on_a_part_of_the_tree(contender: Contender, wrapper: str):
    params = make_params()
    gradients = make_gradients(params)
    labels = {"up": {"kernel": "ours", "bias": "theirs"}, "gain": "theirs"}
    if wrapper == "partition":
        tx = optax.partition({"ours": contender(), "theirs": optax.set_to_zero()}, labels)
        rest = jax.tree.map(jnp.zeros_like, gradients)
    else:
        tx = optax.masked(contender(), jax.tree.map(lambda label: label == "ours", labels))
        rest = gradients
    alone = {"up": {"kernel": params["up"]["kernel"]}}
    expected = one_update(contender(), {"up": {"kernel": gradients["up"]["kernel"]}}, alone)
    expected["up"]["bias"], expected["gain"] = rest["up"]["bias"], rest["gain"]
    assert_close(one_update(tx, gradients, params), expected)
    # Tools that walk a state must get through the holes as well.
    state = tx.init(params)
    chex.assert_trees_all_equal(optax.tree.map_params(tx, lambda leaf: leaf, state), state)


@pytest.mark.versions
@every_optimizer
def test_its_arguments_can_be_injected_without_naming_static_ones(contender: Contender):
    params = make_params()
    gradients = make_gradients(params)
    tx = optax.inject_hyperparams(contender.factory)(learning_rate=contender.learning_rate, **contender.arguments)
    state = tx.init(params)
    updates, state = jax.jit(tx.update)(gradients, state, params)
    # Injected numbers are float32 arrays: 1 - 0.999 is then off by 1e-5 of itself.
    assert_close(updates, one_update(contender(), gradients, params), rtol=1e-4)
    state.hyperparams["learning_rate"] = jnp.asarray(0.0)
    updates, _ = jax.jit(tx.update)(gradients, state, params)
    assert not np.any(updates["up"]["kernel"]), "it moves at a rate of zero"


@every_factory
def test_a_schedule_is_a_rate_for_every_step(contender: Contender):
    params = make_params()
    rates = jnp.array([1.0, 0.0, 0.5]) * contender.learning_rate
    tx = contender(lambda count: rates[count])
    scheduled = tx.init(params)
    constant = contender()
    state = constant.init(params)
    for factor in (1.0, 0.0, 0.5):
        gradients = make_gradients(params)
        updates, scheduled = jax.jit(tx.update)(gradients, scheduled, params)
        if not contender.proportional_to_rate:
            constant, factor = contender(factor * contender.learning_rate), 1.0
        expected, state = jax.jit(constant.update)(gradients, state, params)
        assert_close(updates["up"], jax.tree.map(lambda u, factor=factor: factor * u, expected["up"]))


@pytest.mark.versions
@every_kind_of_state
def test_small_batches_accumulate_into_one(contender: Contender):
    params = make_params()
    halves = [make_gradients(params, seed) for seed in (1, 2)]
    tx = optax.MultiSteps(contender(), every_k_schedule=2)
    state = tx.init(params)
    first, state = jax.jit(tx.update)(halves[0], state, params)
    second, state = jax.jit(tx.update)(halves[1], state, params)
    chex.assert_trees_all_equal(first, jax.tree.map(jnp.zeros_like, params))
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *halves)
    assert_close(second, one_update(contender(), mean, params), rtol=1e-4)


@every_factory
def test_a_step_with_nan_can_be_left_out(contender: Contender):
    params = make_params()
    tx = optax.apply_if_finite(contender(), max_consecutive_errors=5)
    state = tx.init(params)
    bad = make_gradients(params)
    bad["up"]["kernel"] = bad["up"]["kernel"].at[0, 0].set(jnp.nan)
    updates, after = jax.jit(tx.update)(bad, state, params)
    chex.assert_trees_all_equal(updates, jax.tree.map(jnp.zeros_like, params))
    chex.assert_trees_all_equal(after.inner_state, state.inner_state)
    assert after.total_notfinite == 1


@pytest.mark.versions
@every_factory
def test_map_params_finds_what_is_shaped_like_the_parameters(contender: Contender):
    params = make_params()
    tx = contender()
    state = tx.init(params)
    marked = optax.tree.map_params(tx, lambda leaf: "params", state, transform_non_params=lambda leaf: "other")
    for path, mark in jax.tree_util.tree_leaves_with_path(marked):
        assert mark == ("other" if path[-1] == jax.tree_util.GetAttrKey("count") else "params"), path


@every_factory
def test_tree_get_and_set_reach_into_the_state(contender: Contender):
    params = make_params()
    tx = optax.inject_hyperparams(contender.factory)(learning_rate=0.1, **contender.arguments)
    state = tx.init(params)
    assert optax.tree.get(state, "learning_rate") == np.float32(0.1)
    state = optax.tree.set(state, learning_rate=0.2)
    assert optax.tree.get(state, "learning_rate") == np.float32(0.2)


# 4. Containers.


class Pair(NamedTuple):
    up: Any
    bias: Any


@functools.partial(jax.tree_util.register_dataclass, data_fields=["up", "bias"], meta_fields=["name"])
@dataclasses.dataclass
class Dense:
    up: Any
    bias: Any
    name: str = "up"


KERNEL, BIAS = make_params()["up"].values()
CONTAINERS = {
    "dict": {"up": KERNEL, "bias": BIAS},
    "tuple": (KERNEL, BIAS),
    "list": [KERNEL, {"bias": BIAS}],
    "named tuple": Pair(KERNEL, BIAS),
    "dataclass": Dense(KERNEL, BIAS),
    "one array": KERNEL,
    "nothing": {},
    "None leaves": {"up": KERNEL, "bias": None, "more": (None, BIAS)},
    "scalars": {"a": jnp.asarray(1.0), "b": jnp.asarray(-2.0)},
    "zero-size arrays": {"kernel": jnp.zeros((0, 4)), "other": {"kernel": jnp.zeros((4, 0))}, "bias": jnp.zeros(0)},
}


if importlib.util.find_spec("flax"):
    from flax.core import FrozenDict

    CONTAINERS["FrozenDict"] = FrozenDict({"up": {"kernel": KERNEL, "bias": BIAS}})


@pytest.mark.not_understood  # by name, nothing is known of a leaf of a tuple
@pytest.mark.versions
@every_kind_of_state
def test_containers(contender: Contender):
    tx = contender()

    @jax.jit  # one program for all, because compiling is what takes the time
    def update_each() -> dict[str, Any]:
        return {name: tx.update(make_gradients(p), tx.init(p), p)[0] for name, p in CONTAINERS.items()}

    for name, updates in update_each().items():
        assert jax.tree.structure(updates) == jax.tree.structure(CONTAINERS[name]), name
        chex.assert_trees_all_equal_shapes_and_dtypes(updates, CONTAINERS[name])
        assert_finite(updates)


@pytest.fixture(scope="module")
def flax() -> Any:
    return pytest.importorskip("flax", reason="Flax is an optional dependency")


@pytest.mark.versions
@every_kind_of_state
def test_nnx_state_and_nnx_optimizer(contender: Contender, flax: Any):
    from flax import nnx

    class MLP(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.embedding = nnx.Embed(5, 4, rngs=rngs)
            self.hidden = nnx.Linear(4, 6, rngs=rngs)
            self.norm = nnx.LayerNorm(6, rngs=rngs)
            self.head = nnx.Linear(6, 3, rngs=rngs)

        def __call__(self, tokens: jax.Array) -> jax.Array:
            return self.head(self.norm(nnx.relu(self.hidden(self.embedding(tokens)))))

    model = MLP(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, contender(), wrt=nnx.Param)

    def objective(model: MLP) -> jax.Array:
        logits = model(jnp.arange(5))
        return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.arange(5) % 3).mean()

    @nnx.jit
    def step(model: MLP, optimizer: nnx.Optimizer) -> jax.Array:
        value, gradients = nnx.value_and_grad(objective)(model)
        optimizer.update(model, gradients)
        return value

    before = jax.tree.map(jnp.copy, nnx.state(model, nnx.Param))
    losses = [step(model, optimizer) for _ in range(2)]
    after = nnx.state(model, nnx.Param)
    assert_finite(losses)
    assert_finite(after)
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), before, after)
    assert all(jax.tree.leaves(moved)), moved

    # The same without nnx.Optimizer: the state of the module is the tree of parameters.
    updates = one_update(contender(), before, before)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, before)


@pytest.mark.versions
@every_kind_of_state
def test_linen_parameters_and_train_state(contender: Contender, flax: Any):
    from flax import linen
    from flax.training.train_state import TrainState

    class MLP(linen.Module):
        @linen.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            return linen.Dense(2)(linen.relu(linen.Dense(3)(x)))

    model = MLP()
    x = jnp.asarray(np.random.default_rng(0).standard_normal((5, 4)), jnp.float32)
    params = model.init(jax.random.key(0), x)["params"]
    state = TrainState.create(apply_fn=model.apply, params=params, tx=contender())

    @jax.jit
    def step(state: TrainState) -> TrainState:
        objective = lambda params: jnp.mean(jnp.square(state.apply_fn({"params": params}, x) - 1))  # noqa: E731
        return state.apply_gradients(grads=jax.grad(objective)(state.params))

    after = step(step(state))
    assert after.step == 2
    chex.assert_trees_all_equal_shapes_and_dtypes(after.params, params)
    assert_finite(after.params)
    assert np.any(after.params["Dense_0"]["kernel"] != params["Dense_0"]["kernel"])
