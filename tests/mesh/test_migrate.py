"""Migrated state is sharded like the parameters, or like the old state where these are on no mesh."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import jaxopt_tour as jt
from tests.mesh.meshes import SHORT, Tree, mesh_of

TX = jt.muon(0.02, orthogonalizer=SHORT, mesh="fsdp")
REROUTED = jt.muon(0.02, orthogonalizer=SHORT, mesh="fsdp", routing={"up": "other"})
PARAMS = {"up": jnp.ones((16, 32)), "down": jnp.ones((32, 16)), "bias": jnp.ones(16)}


def placed(tree: Tree) -> Tree:
    mesh = mesh_of()
    return jax.tree.map(
        lambda leaf: jax.device_put(leaf, NamedSharding(mesh, P(None, "fsdp") if leaf.ndim > 1 else P())), tree
    )


def test_moved_momenta_and_estimates_are_sharded_like_their_parameters() -> None:
    params = placed(PARAMS)
    old = jax.tree.map(lambda leaf: leaf + 1, jt.sharded_state(TX).init(params))
    migrated = jt.migrate_state(old, REROUTED, params).state
    shardings = jt.state_shardings(REROUTED, params)
    for leaf, sharding in zip(jax.tree.leaves(migrated), jax.tree.leaves(shardings), strict=True):
        assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim)
    assert not migrated.inner_states["other"][0].nu["up"].sharding.is_fully_replicated
    np.testing.assert_array_equal(migrated.inner_states["other"][0].mu["up"], np.ones((16, 32)))


def test_arrays_of_the_host_are_placed_on_the_mesh_of_the_parameters() -> None:
    params = placed(PARAMS)
    arrays = {
        name: {"exp_avg": np.ones(leaf.shape), "exp_avg_sq": np.ones(leaf.shape)} for name, leaf in PARAMS.items()
    }
    state = jt.migrate_state(jt.moments_from_torch(arrays), jt.adamw(0.1), params, count=3).state
    assert state[0].nu["up"].sharding.is_equivalent_to(params["up"].sharding, 2)


def test_the_old_sharding_stays_where_parameters_are_on_no_mesh() -> None:
    old = jt.sharded_state(TX).init(placed(PARAMS))
    migrated = jt.migrate_state(old, REROUTED, PARAMS).state
    assert not migrated.inner_states["other"][0].mu["up"].sharding.is_fully_replicated
