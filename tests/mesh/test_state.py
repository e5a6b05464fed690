"""Optimizer state is created sharded, in plain JAX and under both of Flax's APIs."""

from __future__ import annotations

from typing import Any

import flax.linen
import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from flax.training.train_state import TrainState
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import jaxopt_tour as jt
from tests import documents
from tests.mesh.meshes import SHORT, Tree, mesh_of, step_of

TX = jt.sharded_state(jt.muon(0.02, orthogonalizer=SHORT, mesh="fsdp"))
X = jnp.ones((4, 16))


def on_columns(tree: Tree) -> Tree:
    """Matrices sharded over their columns, the rest on every device."""
    return jax.tree.map(
        lambda leaf: jax.device_put(leaf, NamedSharding(mesh_of(), P(None, "fsdp") if leaf.ndim > 1 else P())), tree
    )


def is_sharded(state: Tree) -> bool:
    """Whether every matrix is."""
    matrices = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim > 1]
    return bool(matrices) and all(not leaf.sharding.is_fully_replicated for leaf in matrices)


def test_plain() -> None:
    params = on_columns({"up": jnp.ones((16, 32)), "down": jnp.ones((32, 16)), "bias": jnp.ones(16)})
    state = TX.init(params)
    assert is_sharded(state)
    assert is_sharded(jax.jit(step_of(TX))(params, state, params)[1])


def test_nnx() -> None:
    model = nnx.Sequential(nnx.Linear(16, 32, rngs=nnx.Rngs(0)), nnx.Linear(32, 16, rngs=nnx.Rngs(1)))
    nnx.update(model, on_columns(nnx.state(model)))
    optimizer = nnx.Optimizer(model, TX, wrt=nnx.Param)
    assert is_sharded(nnx.state(optimizer))
    with jax.set_mesh(mesh_of()):
        step: Any = nnx.jit(lambda m, o: o.update(m, nnx.grad(lambda m: jnp.sum(m(X) ** 2))(m)))
        step(model, optimizer)
    assert is_sharded(nnx.state(optimizer))


def test_linen() -> None:
    dense = flax.linen.Sequential([flax.linen.Dense(32), flax.linen.Dense(16)])
    params = on_columns(dense.init(jax.random.key(0), X)["params"])
    state = TrainState.create(apply_fn=dense.apply, params=params, tx=TX)
    assert is_sharded(state.opt_state)
    grads = jax.grad(lambda params: jnp.sum(dense.apply({"params": params}, X) ** 2))(state.params)
    state = jax.jit(lambda state, grads: state.apply_gradients(grads=grads))(state, grads)
    assert is_sharded(state.opt_state)


def test_without_a_mesh_it_is_what_init_gives() -> None:
    params = {"up": jnp.ones((16, 32)), "bias": jnp.ones(16)}
    plain = jt.muon(0.02).init(params)
    assert jax.tree.map(jnp.shape, TX.init(params)) == jax.tree.map(jnp.shape, plain)
    assert jax.tree.leaves(TX.init({})) == jax.tree.leaves(jt.muon(0.02).init({}))


def test_the_shardings_have_the_structure_of_the_state() -> None:
    params = on_columns({"up": jnp.ones((16, 32)), "bias": jnp.ones(16)})
    shardings = jt.state_shardings(TX, params)
    assert jax.tree.structure(shardings) == jax.tree.structure(TX.init(params))


def test_parameters_must_be_on_one_mesh() -> None:
    params = on_columns({"a": jnp.ones((16, 32))})
    with pytest.raises(ValueError, match=r"'b'.*NamedSharding"):
        jt.state_shardings(TX, params | {"b": jnp.ones((2, 2))})
    elsewhere = jax.device_put(jnp.ones((16, 8)), NamedSharding(mesh_of(tp=8), P(None, "tp")))
    with pytest.raises(ValueError, match=r"'b'.*another mesh"):
        jt.state_shardings(TX, params | {"b": elsewhere})
    with pytest.raises(ValueError, match="no arrays"):
        jt.state_shardings(TX, {})


def test_a_checkpoint_of_one_device_goes_on_sharded_over_eight() -> None:
    documents.run_section("docs/recipes.md", "A checkpoint on another mesh")
