"""Matrices spread over a device mesh: sent whole to one device each, worked on there, and sent back.

An iteration over a matrix that lies in blocks on N devices communicates at every product. Here every device gets its
share of the matrices instead, whole, through one all-to-all; works on them with no collective, since the loop is code
for one device; and a second all-to-all brings every block back to where it came from. A device sends ``(N - 1) / N`` of
what it holds, which is ``1 / N`` of the matrices, twice: ``2 (N - 1) / N^2`` of their bytes, which is the floor. Who
gets what is planned in :mod:`jaxopt_tour.matrices.shares`.

Where the layout of the parameters comes from:

* Explicit mesh axes: from their types.
* Auto mesh axes: from XLA's partitioner, which decides it after tracing and asks back through
  ``jax.experimental.custom_partitioning``. Outside ``jit``, from the arrays.
* inside ``jax.shard_map``: from the caller, as nothing else knows which axis of an array its shards are cut along.

The order in which rows and columns of a matrix are put together is that of the devices, not always that of the
parameter (a layout may split the minor one of two flattened axes). ``P orthogonalize(X) Q = orthogonalize(P X Q)`` for
permutations P and Q, so nothing depends on it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxopt_tour._trees import named_leaves
from jaxopt_tour._types import Array, Tree
from jaxopt_tour.linalg.coefficients import Exact
from jaxopt_tour.linalg.flops import flops
from jaxopt_tour.linalg.newton_schulz import Orthogonalization
from jaxopt_tour.matrices.axes import MatrixAxes
from jaxopt_tour.matrices.shares import Deal, Kind, Layout, Names, deals
from jaxopt_tour.matrices.stacking import matrices_at_once, orthogonalize_leaves, over_slices

#: How a caller says where parameters lie: a tree of PartitionSpecs or shardings (or a dict of them by path name), or a
#: function of path name and array.
Layouts = Tree | Callable[[str, Any], Any]


def check_mesh_axes(mesh_axes: Any) -> tuple[str, ...] | None:
    """The names as a tuple; None stays None.

    Raises:
        ValueError: something that is no name, or a name given twice.
    """
    if mesh_axes is None:
        return None
    names = tuple(mesh_axes) if isinstance(mesh_axes, (list, tuple)) else (mesh_axes,)
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"mesh_axes must be None, a mesh axis's name or several, got {mesh_axes!r}")
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"mesh_axes names {name!r} twice: {mesh_axes!r}")
    return names


def orthogonalize_on_mesh(
    operation: Orthogonalization,
    leaves: Mapping[str, Array],
    views: Mapping[str, MatrixAxes],
    mesh_axes: Sequence[str],
    *,
    layouts: Layouts | None = None,
    wire_dtype: np.dtype | None = None,
) -> dict[str, Array]:
    """:func:`jaxopt_tour.matrices.stacking.orthogonalize_leaves` for parameters that are spread over a mesh.

    Args:
        operation: what is done to each matrix.
        leaves: parameters by path name.
        views: how each is seen as matrices.
        mesh_axes: the axes whose devices share the work. Along an axis that splits the matrices and is not among them
            they are gathered, and the work is repeated.
        layouts: where the parameters lie; only needed inside ``jax.shard_map``, where leaves are shards.
        wire_dtype: of the blocks while they travel; None: their own.

    Raises:
        ValueError: the mesh has no such axis, or a layout does not fit its parameter or the mesh.
    """
    leaves = dict(leaves)
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in leaves.values())
    mesh = _mesh_of(leaves.values())
    if not leaves or (mesh is None and not traced):
        return orthogonalize_leaves(operation, leaves, views)
    # The partitioner knows the mesh where nothing else does.
    kind = AxisType.Auto if mesh is None else _kind_of_axes(mesh, mesh_axes)
    on_device = _OnDevice(operation, tuple(leaves), views, tuple(mesh_axes), wire_dtype)
    if kind == AxisType.Manual:
        sizes = {name: mesh.shape[name] for name, kind in _axis_types(mesh).items() if kind == AxisType.Manual}
        known = _given_layouts(layouts, leaves, sizes)
        shapes = whole_shapes(leaves, layouts)
        return on_device.blocks(leaves, on_device.plan(shapes, leaves, known, sizes), operation)
    if kind == AxisType.Explicit or not traced:
        known = {name: _layout_of(leaf) for name, leaf in leaves.items()}
        specs = [_spec(known[name]) for name in leaves]
        spread = jax.shard_map(
            on_device.function(leaves, known, dict(mesh.shape)),
            mesh=mesh,
            in_specs=(*specs, PartitionSpec()),
            out_specs=specs,
            check_vma=False,  # a gathered result is the same on all devices, which its type cannot say
        )
        return dict(zip(leaves, spread(*leaves.values(), jnp.asarray(operation.eps)), strict=True))
    return _ask_partitioner(on_device, leaves)


def _ask_partitioner(on_device: _OnDevice, leaves: Mapping[str, Array]) -> dict[str, Array]:
    """The same on a mesh of Auto axes, where layouts are known only once XLA has laid out the whole program."""
    from jax.experimental.custom_partitioning import SdyShardingRule, custom_partitioning

    @jax.jit  # keeps constants to itself, which custom_partitioning refuses
    def whole(*arguments: Array) -> list[Array]:
        *matrices, eps = arguments
        operation = on_device.with_eps(eps)
        return list(orthogonalize_leaves(operation, dict(zip(leaves, matrices, strict=True)), on_device.views).values())

    def partition(mesh: Any, arguments: Any, results: Any) -> tuple[Any, Any, Any, Any]:
        del results
        check_axes_exist(on_device.mesh_axes, mesh)
        known = {
            name: _names_of(argument.sharding.spec, leaf.ndim)
            for (name, leaf), argument in zip(leaves.items(), arguments[:-1], strict=True)
        }
        shardings = [NamedSharding(mesh, _spec(known[name])) for name in leaves]
        function = on_device.function(leaves, known, dict(mesh.shape))
        return mesh, function, shardings, (*shardings, NamedSharding(mesh, PartitionSpec()))

    # Every result lies as its argument does, whichever way that is.
    mappings: Any = tuple(
        tuple(f"p{number}d{dimension}" for dimension in range(leaf.ndim)) for number, leaf in enumerate(leaves.values())
    )
    spread = custom_partitioning(lambda *arguments: whole(*arguments))
    spread.def_partition(
        partition,
        infer_sharding_from_operands=lambda mesh, arguments, results: [each.sharding for each in arguments[:-1]],
        sharding_rule=SdyShardingRule(mappings + ((),), mappings),
    )
    return dict(zip(leaves, spread(*leaves.values(), jnp.asarray(on_device.operation.eps)), strict=True))


class _OnDevice(NamedTuple):
    """The work of one device, once layouts are known."""

    operation: Orthogonalization
    names: tuple[str, ...]
    views: Mapping[str, MatrixAxes]
    mesh_axes: tuple[str, ...]
    wire_dtype: np.dtype | None

    def with_eps(self, eps: Array) -> Orthogonalization:
        """The operation with eps as an argument of the program: under ``optax.inject_hyperparams`` it is traced."""
        fixed = isinstance(self.operation.eps, (int, float))
        return self.operation if fixed else dataclasses.replace(self.operation, eps=eps)

    def plan(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        leaves: Mapping[str, Array],
        known: Mapping[str, Layout],
        sizes: Mapping[str, int],
    ) -> list[Deal]:
        """Who works on what."""
        dtypes = {name: str(leaf.dtype) for name, leaf in leaves.items()}
        return deals(shapes, dtypes, self.views, known, sizes, self.mesh_axes, _cost(self.operation))

    def function(
        self, leaves: Mapping[str, Array], known: Mapping[str, Layout], sizes: Mapping[str, int]
    ) -> Callable[..., list[Array]]:
        """Blocks and eps in, blocks out."""
        dealt = self.plan({name: tuple(leaf.shape) for name, leaf in leaves.items()}, leaves, known, sizes)

        def work(*arguments: Array) -> list[Array]:
            *blocks, eps = arguments
            named = dict(zip(self.names, blocks, strict=True))
            return list(self.blocks(named, dealt, self.with_eps(eps)).values())

        return work

    def blocks(
        self, blocks: Mapping[str, Array], dealt: Sequence[Deal], operation: Orthogonalization
    ) -> dict[str, Array]:
        """Blocks of all parameters in, the same blocks of the results out."""
        return _map_blocks(operation, blocks, self.views, dealt, self.wire_dtype)


def _cost(operation: Orthogonalization) -> Callable[[int, int], float]:
    """Floating-point operations of one matrix; of an SVD, in proportion."""

    def cost(m: int, n: int) -> float:
        if isinstance(operation.schedule, Exact):
            return float(m * m * n)
        return float(flops(operation.schedule, m, n, operation.form((m, n), jnp.float32)))

    return cost


# --- one device ------------------------------------------------------------------------------------------------------


def _map_blocks(
    function: Callable[[Array], Array],
    blocks: Mapping[str, Array],
    views: Mapping[str, MatrixAxes],
    dealt: Sequence[Deal],
    wire_dtype: np.dtype | None,
) -> dict[str, Array]:
    """What one device does: its blocks of all parameters in, the same blocks of the results out."""
    pieces: dict[tuple[str, int], Array] = {}
    found: dict[str, list[Any]] = {}
    for deal in dealt:
        for piece in deal.pieces:
            x = _view(views[piece.leaf], piece.kind).to_matrices(blocks[piece.leaf])[piece.number]
            pieces[piece.leaf, piece.number] = x.mT if piece.turned else x  # (count, m block, n block)
            found.setdefault(piece.leaf, []).append(piece)
    for deal in dealt:
        _map_bundle(function, pieces, deal, wire_dtype)
    results = dict(blocks)
    for name, own in found.items():
        parts = [pieces[name, piece.number].mT if piece.turned else pieces[name, piece.number] for piece in own]
        results[name] = _view(views[name], own[0].kind).from_matrices(parts, blocks[name].shape)
    return results


def _view(view: MatrixAxes, kind: Kind) -> MatrixAxes:
    return view if kind.split is None else MatrixAxes(view.fan_in, view.fan_out)


def _map_bundle(
    function: Callable[[Array], Array], pieces: dict[tuple[str, int], Array], deal: Deal, wire_dtype: np.dtype | None
) -> None:
    """Replace the pieces of one bundle by the function's results."""
    stacks = []
    for kind in deal.kinds:
        own = [pieces[piece.leaf, piece.number] for piece in deal.pieces if piece.kind == kind]
        stacks.append(own[0] if len(own) == 1 else jnp.concatenate(own))
    if deal.shares == 1 and not deal.bundle.gather:
        stacks = [
            over_slices(functools.partial(_apply, function, kind=kind), stack)
            for stack, kind in zip(stacks, deal.kinds, strict=True)
        ]
    else:
        dtype = jnp.dtype(deal.bundle.dtype)
        sent = _pack(stacks, deal).astype(wire_dtype or dtype)  # (shares, length)
        stacks = [stack.astype(dtype) for stack in _unpack(_exchange(function, sent, deal, dtype), deal)]
    for kind, stack in zip(deal.kinds, stacks, strict=True):
        start = 0
        for piece in deal.pieces:
            if piece.kind == kind:
                pieces[piece.leaf, piece.number] = stack[start : start + piece.local]
                start += piece.local


def _exchange(function: Callable[[Array], Array], sent: Array, deal: Deal, dtype: np.dtype) -> Array:
    """The blocks for every share (shares, length) in, the blocks of the results out, in the same places."""
    bundle, length = deal.bundle, deal.length
    mine = sent.reshape(deal.replicas, deal.exchanged, length)
    share = jnp.int32(0)
    if bundle.replicas:
        replica = jax.lax.axis_index(bundle.replicas)
        mine = jax.lax.dynamic_index_in_dim(mine, replica, keepdims=False)
        share = replica * deal.exchanged
    buffer = mine.reshape(deal.exchanged, length)
    if bundle.exchange:
        share += jax.lax.axis_index(bundle.exchange)
        buffer = _all_to_all(buffer, bundle.exchange)  # a row for every block of a matrix
    if bundle.gather:
        buffer = jax.lax.all_gather(buffer, bundle.gather).reshape(-1, length)
    for k, kind in enumerate(deal.kinds):
        buffer = _work(functools.partial(_apply, function, kind=kind), buffer, deal, k, share, dtype)
    if bundle.gather:
        buffer = buffer.reshape(-1, deal.exchanged, length)
        buffer = jax.lax.dynamic_index_in_dim(buffer, jax.lax.axis_index(bundle.gather), keepdims=False)
    if bundle.exchange:
        buffer = _all_to_all(buffer, bundle.exchange)
    if bundle.replicas:
        buffer = jax.lax.all_gather(buffer, bundle.replicas)
    return buffer.reshape(deal.shares, length)


def _all_to_all(buffer: Array, axes: Names) -> Array:
    """Row i goes to device i. Half precision travels as integers: XLA:CPU would widen it on the way."""
    if buffer.dtype.itemsize != 2:
        return jax.lax.all_to_all(buffer, axes, 0, 0, tiled=True)
    bits = jax.lax.bitcast_convert_type(buffer, jnp.uint16)
    return jax.lax.bitcast_convert_type(jax.lax.all_to_all(bits, axes, 0, 0, tiled=True), buffer.dtype)


def _work(
    function: Callable[[Array], Array], buffer: Array, deal: Deal, k: int, share: Array, dtype: np.dtype
) -> Array:
    """One share's matrices of kind k, each read from the buffer and written back to where it was.

    No device does more than its share: the number of rounds is its own.
    """
    kind, size = deal.kinds[k], deal.block_size(k)
    together, apart = _whole_and_blocks(kind, deal)
    table, extra = deal.offsets[k], deal.extra[:, k]
    most = table.shape[1]
    if not most:
        return buffer
    count: Array | int = int(deal.even[k])
    if extra.any():
        count = count + jnp.asarray(extra, jnp.int32)[share]
    places = jnp.asarray(table[0]) if (table == table[0]).all() else jnp.asarray(table)[share]
    at_once = min(matrices_at_once(kind.m, kind.n, dtype.itemsize, jax.default_backend()), most)

    def block(buffer: Array, place: Array) -> Array:
        return jax.lax.dynamic_slice(buffer, (jnp.int32(0), place), (buffer.shape[0], size))

    def one_round(number: Array | int, buffer: Array) -> Array:
        slots = number * at_once + jnp.arange(at_once)
        at = places[jnp.minimum(slots, most - 1)]
        x = jax.vmap(lambda place: together(block(buffer, place)))(at).astype(dtype)  # (at_once, m, n)
        y = jax.vmap(apart)(function(x).astype(buffer.dtype))

        def put(i: Array | int, buffer: Array) -> Array:
            # A slot beyond the count points at a matrix that is another slot's.
            new = jnp.where(slots[i] < count, y[i], block(buffer, at[i])) if most % at_once or extra.any() else y[i]
            return jax.lax.dynamic_update_slice(buffer, new, (jnp.int32(0), at[i]))

        return put(0, buffer) if at_once == 1 else jax.lax.fori_loop(0, at_once, put, buffer)

    if most == at_once:
        return one_round(0, buffer)
    return jax.lax.fori_loop(0, (count + at_once - 1) // at_once, one_round, buffer)


def _whole_and_blocks(kind: Kind, deal: Deal) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    """Two functions: blocks (parts, size of a block) -> the matrix (m, n), and back."""
    m, n = deal.block(kind)
    axes = deal.bundle.gather + deal.bundle.exchange  # in the order in which the parts arrive
    order = [axes.index(name) for name in kind.rows] + [len(axes)]
    order += [axes.index(name) for name in kind.columns] + [len(axes) + 1]
    lengths = [deal.sizes[name] for name in axes] + [m, n]
    back = sorted(range(len(order)), key=order.__getitem__)

    def together(blocks: Array) -> Array:
        return blocks.reshape(lengths).transpose(order).reshape(kind.m, kind.n)

    def apart(matrix: Array) -> Array:
        return matrix.reshape([lengths[i] for i in order]).transpose(back).reshape(-1, m * n)

    return together, apart


def _apply(function: Callable[[Array], Array], x: Array, kind: Kind) -> Array:
    """The function on whole matrices (count, m, n), cut first where the kind says so."""
    if kind.split is None:
        return function(x)
    ends = np.cumsum(kind.split)
    parts = [x[..., end - width : end] for end, width in zip(ends, kind.split, strict=True)]
    return jnp.concatenate(
        [function(part.mT).mT if part.shape[-2] > part.shape[-1] else function(part) for part in parts], axis=-1
    )


def _pack(stacks: Sequence[Array], deal: Deal) -> Array:
    """(count, m block, n block) of every kind -> (shares, length): what goes to each share, in a row."""
    columns, flat = [], []
    for k, stack in enumerate(stacks):
        rows = stack.reshape(stack.shape[0], -1)
        flat.append(rows)
        if deal.even[k]:
            columns.append(rows[: deal.shares * deal.even[k]].reshape(deal.shares, -1))
    rest = deal.length - sum(column.shape[1] for column in columns)
    if rest:
        start, parts = deal.extra_start, []
        for d in range(deal.shares):
            left = rest
            for k, rows in enumerate(flat):
                if deal.extra[d, k]:
                    parts.append(rows[start[d, k] : start[d, k] + deal.extra[d, k]].reshape(-1))
                    left -= parts[-1].size
            if left:
                parts.append(jnp.zeros(left, stacks[0].dtype))
        columns.append(jnp.concatenate(parts).reshape(deal.shares, rest))
    return columns[0] if len(columns) == 1 else jnp.concatenate(columns, axis=1)


def _unpack(rows: Array, deal: Deal) -> list[Array]:
    """The inverse of :func:`_pack`."""
    parts: list[list[Array]] = [[] for _ in deal.kinds]
    start = 0
    for k in range(len(deal.kinds)):
        width = int(deal.even[k]) * deal.block_size(k)
        if width:
            parts[k].append(rows[:, start : start + width].reshape(-1))
            start += width
    for d in range(deal.shares):
        at = start
        for k in range(len(deal.kinds)):
            width = int(deal.extra[d, k]) * deal.block_size(k)
            if width:
                parts[k].append(rows[d, at : at + width])
                at += width
    stacks = []
    for own, kind in zip(parts, deal.kinds, strict=True):
        flat = own[0] if len(own) == 1 else jnp.concatenate(own)
        stacks.append(flat.reshape(-1, *deal.block(kind)))
    return stacks


# --- layouts ---------------------------------------------------------------------------------------------------------


def whole_shapes(leaves: Mapping[str, Array], layouts: Layouts | None) -> dict[str, tuple[int, ...]]:
    """The shapes of the whole parameters: those of the leaves, but inside ``jax.shard_map``, where leaves are shards.

    Without ``layouts`` leaves count as whole.
    """
    mesh = jax.sharding.get_abstract_mesh()
    sizes = {name: mesh.shape[name] for name, kind in _axis_types(mesh).items() if kind == AxisType.Manual}
    if not sizes or layouts is None:
        return {name: tuple(leaf.shape) for name, leaf in leaves.items()}
    known = _given_layouts(layouts, leaves, sizes)
    return {name: _whole_shape(leaf.shape, known[name], sizes) for name, leaf in leaves.items()}


def _mesh_of(leaves: Any) -> Any:
    """The mesh that the leaves lie on, or that is in context; None where there is no telling."""
    context = jax.sharding.get_abstract_mesh()
    if any(kind == AxisType.Manual for kind in context.axis_types):
        return context
    for leaf in leaves:
        sharding = (
            getattr(leaf, "sharding", None) if not isinstance(leaf, jax.core.Tracer) else jax.typeof(leaf).sharding
        )
        if isinstance(sharding, NamedSharding) and not sharding.mesh.empty:
            return sharding.mesh
    return None if context.empty else context


def _axis_types(mesh: Any) -> dict[str, AxisType]:
    return dict(zip(mesh.axis_names, mesh.axis_types, strict=True))


def check_axes_exist(mesh_axes: Sequence[str], mesh: Any) -> None:
    """Raise a ValueError where the mesh has no axis of such a name."""
    for name in mesh_axes:
        if name not in mesh.axis_names:
            raise ValueError(f"mesh_axes names {name!r}; the mesh has the axes {tuple(mesh.axis_names)}")


def _kind_of_axes(mesh: Any, mesh_axes: Sequence[str]) -> AxisType:
    """Whether these axes are Auto, Explicit or Manual.

    Raises:
        ValueError: an axis that the mesh does not have, or axes of different kinds.
    """
    check_axes_exist(mesh_axes, mesh)
    types = _axis_types(mesh)
    manual = any(kind == AxisType.Manual for kind in types.values())
    # Inside shard_map only its own axes matter; outside, all of them do.
    kinds = {types[name] for name in (mesh_axes if manual else types)}
    if len(kinds) > 1 or (manual and AxisType.Manual not in kinds):
        listed = ", ".join(f"{name}: {kind.name}" for name, kind in types.items())
        raise ValueError(f"the axes of a mesh must be all Auto or all Explicit, or those in mesh_axes Manual: {listed}")
    return kinds.pop()


def _names_of(spec: Any, ndim: int) -> Layout:
    """The axes of a PartitionSpec, one tuple a dimension."""
    names = [() if entry is None else (entry,) if isinstance(entry, str) else tuple(entry) for entry in tuple(spec)]
    return tuple(names) + ((),) * (ndim - len(names))


def _spec(layout: Layout) -> PartitionSpec:
    return PartitionSpec(*(names or None for names in layout))


def _layout_of(leaf: Array) -> Layout:
    """From the type of a traced array, or from a concrete one."""
    sharding = jax.typeof(leaf).sharding if isinstance(leaf, jax.core.Tracer) else leaf.sharding
    if not isinstance(sharding, NamedSharding):
        return ((),) * leaf.ndim
    return _names_of(sharding.spec, leaf.ndim)


def _given_layouts(layouts: Layouts | None, leaves: Mapping[str, Array], sizes: Mapping[str, int]) -> dict[str, Layout]:
    """What the caller says about every parameter.

    Raises:
        ValueError: nothing is said about a parameter, or what is said does not fit it or the mesh.
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
        known[name] = _names_of(spec, leaf.ndim)
        flat = [axis for names in known[name] for axis in names]
        for axis in flat:
            if axis not in sizes:
                raise ValueError(f"layout {spec} of {name!r} names {axis!r}; the mesh has the axes {tuple(sizes)}")
            if flat.count(axis) > 1:
                raise ValueError(f"layout {spec} of {name!r} uses mesh axis {axis!r} twice")
    return known


def _whole_shape(shape: Sequence[int], layout: Layout, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(length * math.prod(sizes[axis] for axis in names) for length, names in zip(shape, layout, strict=True))
