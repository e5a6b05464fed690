"""Options of an optimizer on a mesh, as a value."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxopt_tour._checks import check_call, check_float_dtype
from jaxopt_tour._trees import named_leaves
from jaxopt_tour._types import DTypeLike, Tree

#: Layouts as a caller gives them: a tree of PartitionSpecs or shardings, a dict of them by path name, or a function of
#: path name and array.
Layouts = Tree | Callable[[str, Any], Any]


@dataclasses.dataclass(frozen=True)
class OnMesh:
    """Which devices of a mesh share the orthogonalization, and how matrices travel to them and back.

    Args:
        axes: the name of a mesh axis, or several: the axes whose devices share the work. Along other axes that shard a
            matrix it is gathered, and the work is repeated.
        layouts: how parameters are sharded, a tree of PartitionSpecs like the parameters, or a function of path name
            and shard that returns one. Needed inside `jax.shard_map` only, where nothing else knows it.
        wire_dtype: dtype of matrices while they travel, such as `"bfloat16"`, which halves the bytes. None: theirs.

    Raises:
        ValueError: an axis is not a name or is given twice, or an option is not one of those named above.
    """

    axes: tuple[str, ...]
    layouts: Layouts | None = None
    wire_dtype: DTypeLike | None = None

    def __init__(
        self, axes: str | Sequence[str], layouts: Layouts | None = None, wire_dtype: DTypeLike | None = None
    ) -> None:
        names = tuple(axes) if isinstance(axes, (list, tuple)) else (axes,)
        if not names or not all(isinstance(name, str) for name in names):
            raise ValueError(f"axes must be the name of a mesh axis, or several, got {axes!r}")
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"axes has {name!r} twice: {axes!r}")
        _check_layouts(layouts)
        object.__setattr__(self, "axes", names)
        object.__setattr__(self, "layouts", layouts)
        object.__setattr__(self, "wire_dtype", check_float_dtype("wire_dtype", wire_dtype))


def _check_layouts(layouts: Layouts | None) -> None:
    """Raise unless layouts are a tree of PartitionSpecs or a function of path name and shard."""
    allowed = "None, a tree of PartitionSpecs, or a function of path name and shard"
    if layouts is None:
        return
    if isinstance(layouts, (str, int, float)):
        raise ValueError(f"layouts must be {allowed}, got {layouts!r}")
    if callable(layouts):
        check_call("layouts", layouts, ("", None), allowed=allowed)
        return
    for name, spec in named_leaves(layouts).items():
        if not isinstance(spec, (jax.sharding.PartitionSpec, jax.sharding.NamedSharding)):
            raise ValueError(f"layouts must have a PartitionSpec for {name!r}, got {spec!r}")


#: What `mesh=` takes: a value, or the axis names alone.
MeshLike = OnMesh | str | Sequence[str]


def as_on_mesh(mesh: Any) -> OnMesh | None:
    """Convert axis names to the value; a value and None stay as they are.

    Raises:
        ValueError: it is none of these.
    """
    if mesh is None or isinstance(mesh, OnMesh):
        return mesh
    if not isinstance(mesh, (str, list, tuple)):
        raise ValueError(
            f"mesh must be None, the name of a mesh axis, several, or a jt.OnMesh, got {mesh!r}. The mesh itself is "
            "that of the arrays, or jax.set_mesh's"
        )
    return OnMesh(mesh)
