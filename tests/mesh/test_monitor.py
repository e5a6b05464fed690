"""Metrics of sharded parameters are those of one device, and half-precision weights keep their layouts."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxopt_tour as jt
from tests.mesh.meshes import AXES, PARAMS, PART, SHORT

#: Sums over shards are taken in another order: float32.
ROUNDING = 1e-4
BASE = {name: PARAMS[name] for name in PART}

kinds = pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=["Auto", "Explicit"])


def on_columns(tree: Any, kind: AxisType) -> tuple[Any, Any]:
    """The mesh, and the tree sharded over the last axis of every array."""
    mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(kind,))
    return mesh, jax.tree.map(lambda x: jax.device_put(x, NamedSharding(mesh, P(*[None] * (x.ndim - 1), "fsdp"))), tree)


def measured(params: Any, **arguments: Any) -> dict[str, float]:
    routing = {name: axes for name, axes in AXES.items() if name.partition("/")[0] in PART}
    tx = jt.sharded_state(
        jt.monitored(jt.muon(1e-2, weight_decay=0.1, orthogonalizer=SHORT, routing=routing, **arguments))
    )
    return jt.metrics(jax.jit(tx.update)(params, tx.init(params), params)[1])


@kinds
def test_metrics_are_those_of_one_device(kind: AxisType) -> None:
    mesh, params = on_columns(BASE, kind)
    with jax.set_mesh(mesh):
        sharded = measured(params, mesh="fsdp")
    alone = measured(jax.tree.map(jnp.asarray, BASE))
    assert sharded.keys() == alone.keys()
    for key, value in alone.items():
        np.testing.assert_allclose(sharded[key], value, rtol=ROUNDING, atol=1e-6, err_msg=key)


@kinds
def test_half_precision_weights_are_those_of_one_device(kind: AxisType) -> None:
    """The float32 copy is sharded like the parameters; random rounding draws the same numbers on any mesh."""
    half = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), BASE)
    mesh, params = on_columns(half, kind)
    for tx in (jt.with_master_weights(jt.sgd(1e-2)), jt.with_stochastic_rounding(jt.sgd(1e-2), 0)):
        tx = jt.sharded_state(tx)
        with jax.set_mesh(mesh):
            updates, state = jax.jit(tx.update)(params, tx.init(params), params)
            after = optax.apply_updates(params, updates)
        alone = optax.apply_updates(half, jax.jit(tx.update)(half, tx.init(half), half)[0])
        for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(alone), strict=True):
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
        if isinstance(state, type(jt.with_master_weights(jt.sgd(1.0)).init({}))):
            for copy, p in zip(jax.tree.leaves(state.master), jax.tree.leaves(params), strict=True):
                assert copy.sharding.spec == p.sharding.spec
