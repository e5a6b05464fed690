"""Matrices that are split by factors of an axis have the same updates on a mesh, or are refused by name."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxopt_tour as jt
from tests.mesh.meshes import ROUNDING, SHORT

SHAPES = {"q": (32, 64), "out": (64, 32), "qkv": (32, 96)}
AXES = {
    "q": jt.MatrixAxes(0, 2, factors={1: (8,)}),
    "out": jt.MatrixAxes(1, 2, factors={0: (8,)}),
    "qkv": jt.MatrixAxes(0, (1, 3), factors={1: (3, 8)}),
}
LAYOUTS = {
    "columns": {"q": P(None, "d"), "out": P(None, "d"), "qkv": P(None, "d")},
    "rows": {"q": P("d"), "out": P("d"), "qkv": P("d")},
    "replicas": {"q": P(), "out": P(), "qkv": P()},
}


def arrays(seed: int) -> dict[str, Any]:
    keys = jax.random.split(jax.random.key(seed), len(SHAPES))
    return {name: jax.random.normal(key, shape) for key, (name, shape) in zip(keys, SHAPES.items(), strict=True)}


def update(mesh: str | None, grads: Any, params: Any, axes: Any = AXES) -> Any:
    tx = jt.muon(0.1, routing=axes, orthogonalizer=SHORT, mesh=mesh)
    return jax.jit(tx.update)(grads, tx.init(params), params)[0]


def placed(tree: Any, mesh: Any, specs: Any) -> Any:
    return {name: jax.device_put(leaf, NamedSharding(mesh, specs[name])) for name, leaf in tree.items()}


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_heads_and_interleaved_parts_on_a_mesh(layout: str, kind: AxisType) -> None:
    mesh = jax.make_mesh((4,), ("d",), axis_types=(kind,), devices=jax.devices()[:4])
    expected = update(None, arrays(0), arrays(1))
    with jax.set_mesh(mesh):
        updates = update("d", *(placed(arrays(seed), mesh, LAYOUTS[layout]) for seed in (0, 1)))
    for name in SHAPES:
        np.testing.assert_allclose(updates[name], expected[name], atol=ROUNDING)


def test_a_mesh_that_cuts_through_heads_is_refused_by_name() -> None:
    mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
    axes = {**AXES, "q": jt.MatrixAxes(0, 2, factors={1: (32,)})}
    grads, params = (placed(arrays(seed), mesh, LAYOUTS["columns"]) for seed in (0, 1))
    tx = jt.muon(0.1, routing=axes, orthogonalizer=SHORT, mesh="d")
    with jax.set_mesh(mesh), pytest.raises(ValueError, match=r"'q'.*4 devices.*cuts through the 2 pieces.*split=None"):
        tx.update(grads, tx.init(params), params)
