"""What does not fit is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import jaxopt_tour as jt
from tests.mesh.meshes import KERNELS, PARAMS, mesh_of, on_rows, orthogonalize, placer

VIEW = jt.MatrixAxes(0, 1)
TREE = {"a": PARAMS["a"], "b": PARAMS["b"]}


def sharded(kind: AxisType = AxisType.Auto) -> Any:
    return placer(mesh_of(kind), on_rows)(KERNELS)


def on_two_meshes(kind: AxisType, axes: Any) -> Any:
    here, there = placer(mesh_of(kind), on_rows)(TREE), placer(mesh_of(kind, tp=8), lambda name: P("tp"))(TREE)
    return orthogonalize({"a": here["a"], "b": there["b"]}, axes, axes=VIEW)


def on_mixed_axes() -> Any:
    kinds = (AxisType.Explicit, AxisType.Auto)
    mesh = jax.make_mesh((4, 2), ("fsdp", "tp"), axis_types=kinds)
    return orthogonalize(placer(mesh, lambda name: P("fsdp"))(TREE), axes=VIEW)


def in_shard_map(layouts: Any) -> Any:
    specs = jax.tree.map(lambda _: P("fsdp"), TREE)
    inside = lambda grads: orthogonalize(grads, jt.OnMesh("fsdp", layouts), axes=VIEW)  # noqa: E731
    return jax.shard_map(inside, mesh=mesh_of(), in_specs=(specs,), out_specs=specs)(TREE)


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "no axis": (lambda: jt.muon(0.02, mesh=()), "axes must be the name of a mesh axis"),
    "axis of a wrong type": (lambda: jt.muon(0.02, mesh=("fsdp", 1)), "axes must be the name of a mesh axis.*1"),
    "a mesh in place of axes": (lambda: jt.muon(0.02, mesh=mesh_of()), "mesh must be None, the name of a mesh axis"),
    "axis twice": (lambda: jt.muon(0.02, mesh=("fsdp", "fsdp")), "'fsdp' twice"),
    "wire dtype": (lambda: jt.OnMesh("fsdp", wire_dtype="int8"), "wire_dtype.*int8"),
    "layouts": (lambda: jt.OnMesh("fsdp", layouts="rows"), "layouts must be None.*'rows'"),
    "unknown axis, eager": (lambda: orthogonalize(sharded(), "model"), "'model'.*fsdp"),
    "unknown axis, jit": (lambda: jax.jit(lambda grads: orthogonalize(grads, "model"))(sharded()), "'model'.*fsdp"),
    "unknown axis, Explicit": (lambda: orthogonalize(sharded(AxisType.Explicit), "model"), "'model'.*fsdp"),
    "two meshes": (lambda: on_two_meshes(AxisType.Auto, "fsdp"), "'b/kernel'.*'tp'.*'fsdp'"),
    "two meshes, no axes named": (lambda: on_two_meshes(AxisType.Explicit, None), "'b/kernel'.*'tp'.*'fsdp'"),
    "Auto and Explicit axes": (on_mixed_axes, "all Auto or all Explicit.*fsdp: Explicit, tp: Auto"),
    "shard_map without layouts": (lambda: in_shard_map(None), "layouts="),
    "layout twice": (
        lambda: in_shard_map({"a": {"kernel": P("fsdp", "fsdp")}, "b": {"kernel": P("fsdp")}}),
        "'a/kernel'.*'fsdp' twice",
    ),
    "layout with an unknown axis": (lambda: in_shard_map(lambda name, leaf: P("model")), "'model'"),
    "layout missing": (lambda: in_shard_map({"a/kernel": P("fsdp")}), "'b/kernel'"),
    "layout too long": (lambda: in_shard_map(lambda name, leaf: P("fsdp", None, None)), "'a/kernel'.*2 dimensions"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments_are_named(case: str) -> None:
    call, message = WRONG[case]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        call()
