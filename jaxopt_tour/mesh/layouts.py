"""How parameters are sharded over a mesh: from their types, the partitioner, or the caller.

* Explicit mesh axes: from the arrays' types.
* Auto mesh axes: from XLA's partitioner, which chooses layouts after tracing. Outside `jit`, from the arrays.
* Inside `jax.shard_map`: from the caller. The type of a shard does not say which axis of the array is sharded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxopt_tour._trees import named_leaves
from jaxopt_tour._types import Array
from jaxopt_tour.mesh.assignment import Layout
from jaxopt_tour.mesh.on_mesh import Layouts


def whole_shapes(leaves: Mapping[str, Array], layouts: Layouts | None) -> dict[str, tuple[int, ...]]:
    """The shapes of the whole parameters. Inside `jax.shard_map` leaves are shards, of parameters with these layouts.

    Without `layouts` leaves are taken to be whole.
    """
    mesh = jax.sharding.get_abstract_mesh()
    sizes = {name: mesh.shape[name] for name, kind in axis_types(mesh).items() if kind == AxisType.Manual}
    if not sizes or layouts is None:
        return {name: tuple(leaf.shape) for name, leaf in leaves.items()}
    known = given_layouts(layouts, leaves, sizes)
    return {name: _whole_shape(leaf.shape, known[name], sizes) for name, leaf in leaves.items()}


def _sharding_of(leaf: Any) -> Any:
    """The sharding of an array, or of the type of a traced one. None for NumPy arrays."""
    return jax.typeof(leaf).sharding if isinstance(leaf, jax.core.Tracer) else getattr(leaf, "sharding", None)


def mesh_of(leaves: Any) -> Any:
    """The mesh of the leaves, else the one in context; None where both are unknown."""
    context = jax.sharding.get_abstract_mesh()
    if any(kind == AxisType.Manual for kind in context.axis_types):
        return context
    for leaf in leaves:
        sharding = _sharding_of(leaf)
        if isinstance(sharding, NamedSharding) and not sharding.mesh.empty:
            return sharding.mesh
    return None if context.empty else context


def axis_types(mesh: Any) -> dict[str, AxisType]:
    """Whether each axis is Auto, Explicit or Manual."""
    return dict(zip(mesh.axis_names, mesh.axis_types, strict=True))


def check_axes_exist(mesh_axes: Sequence[str], mesh: Any) -> None:
    """Raise a ValueError where the mesh has no axis of such a name."""
    for name in mesh_axes:
        if name not in mesh.axis_names:
            raise ValueError(f"mesh= names the axis {name!r}; the mesh has the axes {tuple(mesh.axis_names)}")


def check_one_mesh(leaves: Mapping[str, Array], mesh: Any) -> None:
    """Raise a ValueError where a parameter is on a mesh with other axes than this one."""
    for name, leaf in leaves.items():
        sharding = _sharding_of(leaf)
        other = sharding.mesh if isinstance(sharding, NamedSharding) else mesh
        if not other.empty and dict(other.shape) != dict(mesh.shape):
            raise ValueError(
                f"parameter {name!r} is on a mesh with the axes {dict(other.shape)}, and another on one with "
                f"{dict(mesh.shape)}; all must be on one mesh"
            )


def kind_of_axes(mesh: Any, mesh_axes: Sequence[str]) -> AxisType:
    """Whether these axes are Auto, Explicit or Manual.

    Raises:
        ValueError: an axis that the mesh does not have, or axes of different kinds.
    """
    check_axes_exist(mesh_axes, mesh)
    types = axis_types(mesh)
    manual = any(kind == AxisType.Manual for kind in types.values())
    # Inside shard_map only its own axes matter; outside, all of them do.
    kinds = {types[name] for name in (mesh_axes if manual else types)}
    if len(kinds) > 1 or (manual and AxisType.Manual not in kinds):
        listed = ", ".join(f"{name}: {kind.name}" for name, kind in types.items())
        raise ValueError(
            f"the axes of a mesh must be all Auto or all Explicit, or those that mesh= names Manual: {listed}"
        )
    return kinds.pop()


def names_of(spec: Any, ndim: int) -> Layout:
    """The axes of a PartitionSpec, one tuple a dimension."""
    names = [() if entry is None else (entry,) if isinstance(entry, str) else tuple(entry) for entry in tuple(spec)]
    return tuple(names) + ((),) * (ndim - len(names))


def dividing(layout: Layout, shape: Sequence[int], sizes: Mapping[str, int]) -> Layout:
    """The layout without the axes of dimensions that they do not divide: the partitioner's padding holds anything."""
    return tuple(
        names if length % math.prod(sizes[name] for name in names) == 0 else ()
        for names, length in zip(layout, shape, strict=True)
    )


def spec_of(layout: Layout) -> PartitionSpec:
    """The PartitionSpec of a layout."""
    return PartitionSpec(*(names or None for names in layout))


def layout_of(leaf: Any) -> Layout:
    """The layout of an array, or of the type of a traced one; nothing is sharded where it has no NamedSharding."""
    sharding = _sharding_of(leaf)
    if not isinstance(sharding, NamedSharding):
        return ((),) * leaf.ndim
    return names_of(sharding.spec, leaf.ndim)


def explicit_axes(leaves: Iterable[Array]) -> tuple[str, ...]:
    """The Explicit mesh axes that shard the leaves, in the order of the mesh.

    Along these JAX refuses products that would need communication, which a partitioner would add.
    """
    leaves = list(leaves)
    mesh = mesh_of(leaves)
    if mesh is None:
        return ()
    sharding = {name for leaf in leaves for names in layout_of(leaf) for name in names}
    return tuple(name for name, kind in axis_types(mesh).items() if name in sharding and kind == AxisType.Explicit)


def gathered(leaf: Array) -> Array:
    """The leaf, replicated where Explicit axes shard it."""
    return _moved(leaf, leaf, PartitionSpec())


def replicator(leaf: Array) -> Callable[[Array], Array]:
    """A function that replicates arrays over the Auto mesh of the leaf; where there is none it returns its argument.

    Around a decomposition: a partitioner that shards its operand would communicate inside.
    """
    sharding = _sharding_of(leaf)
    mesh = sharding.mesh if isinstance(sharding, NamedSharding) else None
    if mesh is None or mesh.empty or set(mesh.axis_types) != {AxisType.Auto}:
        return lambda x: x
    return lambda x: jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec()))


def laid_like(x: Array, leaf: Array) -> Array:
    """`x`, sharded like `leaf` of the same shape where Explicit axes shard one of them."""
    return _moved(x, leaf, spec_of(layout_of(leaf)))


def _moved(x: Array, leaf: Array, spec: PartitionSpec) -> Array:
    for array in (leaf, x):
        if explicit_axes([array]):
            return jax.sharding.reshard(x, NamedSharding(mesh_of([array]), spec))
    return x


def given_layouts(layouts: Layouts | None, leaves: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, Layout]:
    """The layouts that the caller gives.

    Raises:
        ValueError: a parameter has no layout, or one that does not fit it or the mesh.
    """
    if layouts is None:
        raise ValueError(
            "inside jax.shard_map the layout of the parameters must be given: layouts=, a tree of PartitionSpecs"
        )
    given = {} if callable(layouts) else named_leaves(layouts)
    known = {}
    for name, leaf in leaves.items():
        spec = layouts(name, leaf) if callable(layouts) else given.get(name)
        if isinstance(spec, NamedSharding):
            spec = spec.spec
        if not isinstance(spec, PartitionSpec):
            raise ValueError(f"layouts must have a PartitionSpec for {name!r}, got {spec!r}; it has {sorted(given)}")
        if len(tuple(spec)) > leaf.ndim:
            raise ValueError(f"layout {spec} of {name!r} has more entries than its {leaf.ndim} dimensions")
        known[name] = names_of(spec, leaf.ndim)
        flat = [axis for names in known[name] for axis in names]
        for axis in flat:
            if axis not in sizes:
                raise ValueError(f"layout {spec} of {name!r} names {axis!r}; the mesh has the axes {tuple(sizes)}")
            if flat.count(axis) > 1:
                raise ValueError(f"layout {spec} of {name!r} uses mesh axis {axis!r} twice")
    return known


def _whole_shape(shape: Sequence[int], layout: Layout, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(length * math.prod(sizes[axis] for axis in names) for length, names in zip(shape, layout, strict=True))
