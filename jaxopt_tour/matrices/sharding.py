"""Matrices spread over a device mesh: sent to the devices that work on them, whole or in columns, and sent back.

An iteration over a matrix that lies in blocks on N devices communicates at every product. Here every device gets its
share of the matrices instead, whole, through one all-to-all; works on them with no collective, since the loop is code
for one device; and a second all-to-all brings every block back to where it came from. A device sends ``(N - 1) / N`` of
what it holds, which is ``1 / N`` of the matrices, twice: ``2 (N - 1) / N^2`` of their bytes, which is the floor.
Matrices too few to go round are split inside instead, where that is faster: every device works on some of their
columns.

Who gets what is planned in :mod:`jaxopt_tour.matrices.shares`, where parameters lie is read in
:mod:`jaxopt_tour.matrices.layouts`; the exchange itself is :mod:`jaxopt_tour.matrices.exchange`, and the way of what is
split inside is :mod:`jaxopt_tour.matrices.inside`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxopt_tour._types import Array
from jaxopt_tour.linalg.flops import flops
from jaxopt_tour.linalg.newton_schulz import Orthogonalization
from jaxopt_tour.linalg.schedules import Exact
from jaxopt_tour.matrices.axes import MatrixAxes
from jaxopt_tour.matrices.exchange import apply_to_whole, exchange, pack, unpack
from jaxopt_tour.matrices.inside import split_inside
from jaxopt_tour.matrices.layouts import (
    Layouts,
    axis_types,
    check_axes_exist,
    given_layouts,
    kind_of_axes,
    layout_of,
    mesh_of,
    names_of,
    spec_of,
    whole_shapes,
)
from jaxopt_tour.matrices.shares import Cost, Deal, Kind, Layout, Parts, Piece, deals
from jaxopt_tour.matrices.stacking import orthogonalize_leaves, over_slices


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
    mesh = mesh_of(leaves.values())
    if not leaves or (mesh is None and not traced):
        return orthogonalize_leaves(operation, leaves, views)
    # The partitioner knows the mesh where nothing else does.
    kind = AxisType.Auto if mesh is None else kind_of_axes(mesh, mesh_axes)
    on_device = _OnDevice(operation, tuple(leaves), views, tuple(mesh_axes), wire_dtype)
    if kind == AxisType.Manual:
        sizes = {name: mesh.shape[name] for name, kind in axis_types(mesh).items() if kind == AxisType.Manual}
        known = given_layouts(layouts, leaves, sizes)
        shapes = whole_shapes(leaves, layouts)
        return on_device.blocks(leaves, on_device.plan(shapes, leaves, known, sizes), operation)
    if kind == AxisType.Explicit or not traced:
        known = {name: layout_of(leaf) for name, leaf in leaves.items()}
        specs = [spec_of(known[name]) for name in leaves]
        spread = jax.shard_map(
            on_device.function(leaves, known, dict(mesh.shape)),
            mesh=mesh,
            in_specs=(*specs, PartitionSpec()),
            out_specs=specs,
            check_vma=False,  # a gathered result is the same on all devices, which its type cannot say
        )
        if not traced:  # One program, where shard_map by itself would compile every operation.
            spread = jax.jit(spread)
        return dict(zip(leaves, spread(*leaves.values(), jnp.asarray(operation.eps)), strict=True))
    return _ask_partitioner(on_device, leaves)


def _ask_partitioner(on_device: _OnDevice, leaves: Mapping[str, Array]) -> dict[str, Array]:
    """The same on a mesh of Auto axes, where layouts are known only once XLA has laid out the whole program.

    ``custom_partitioning`` knows neither derivatives nor ``vmap``: both are taken of the plain program, which then is
    left to the partitioner, with its communication.
    """
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
            name: names_of(argument.sharding.spec, leaf.ndim)
            for (name, leaf), argument in zip(leaves.items(), arguments[:-1], strict=True)
        }
        shardings = [NamedSharding(mesh, spec_of(known[name])) for name in leaves]
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

    @jax.custom_batching.custom_vmap
    def batched(*arguments: Array) -> list[Array]:
        return list(spread(*arguments))

    @batched.def_vmap
    def _(axis_size: int, is_batched: Sequence[bool], *arguments: Array) -> tuple[list[Array], list[bool]]:
        along = [0 if each else None for each in is_batched]
        return jax.vmap(whole, in_axes=along, axis_size=axis_size)(*arguments), [True] * len(leaves)

    @jax.custom_jvp
    def differentiable(*arguments: Array) -> list[Array]:
        return batched(*arguments)

    @differentiable.defjvp
    def _(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[list[Array], list[Array]]:
        return jax.jvp(whole, primals, tangents)

    return dict(zip(leaves, differentiable(*leaves.values(), jnp.asarray(on_device.operation.eps)), strict=True))


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
        cost, parts = costs(self.operation)
        return deals(shapes, dtypes, self.views, known, sizes, self.mesh_axes, cost, parts)

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


def costs(operation: Orthogonalization) -> tuple[Cost, Parts]:
    """Floating-point operations of one matrix (of an SVD, in proportion), and the same in two parts, for the plan."""

    def cost(m: int, n: int) -> float:
        if isinstance(operation.schedule, Exact):
            return float(m * m * n)
        schedule = operation.schedule_for(m, operation.work_dtype(jnp.float32))
        return float(flops(schedule, m, n, operation.form((m, n), jnp.float32)))

    def parts(m: int, n: int, dtype: str) -> tuple[float, float] | None:
        if isinstance(operation.schedule, Exact) or not operation.has_parts((m, n), jnp.dtype(dtype)):
            return None
        products = 4.0 * m**2 * n
        schedule = operation.schedule_for(m, operation.work_dtype(dtype))
        return flops(schedule, m, n, "gram") - products, products

    return cost, parts


# --- one device ------------------------------------------------------------------------------------------------------


def _map_blocks(
    operation: Orthogonalization,
    blocks: Mapping[str, Array],
    views: Mapping[str, MatrixAxes],
    dealt: Sequence[Deal],
    wire_dtype: np.dtype | None,
) -> dict[str, Array]:
    """What one device does: its blocks of all parameters in, the same blocks of the results out."""
    found: dict[str, dict[tuple[int, int], Array]] = {}
    views = dict(views)
    for deal in dealt:
        for piece in deal.pieces + deal.inside.pieces:
            views[piece.leaf] = _view(views[piece.leaf], piece.kind)
    batches = {name: views[name].to_matrices(block) for name, block in blocks.items() if block.size}
    for deal in dealt:
        for pieces, kinds, function in (
            (deal.pieces, deal.kinds, _dealt_out),
            (deal.inside.pieces, deal.inside.kinds, _split_inside),
        ):
            if not pieces:
                continue
            of_kind = [[piece for piece in pieces if piece.kind == kind] for kind in kinds]
            stored = [[_matrices(batches, piece) for piece in own] for own in of_kind]
            for own, done in zip(of_kind, function(operation, stored, deal, wire_dtype), strict=True):
                for piece, x in zip(own, done, strict=True):
                    key = piece.number, piece.first
                    found.setdefault(piece.leaf, {})[key] = x.mT if piece.turned else x
    results = dict(blocks)
    for name, by_key in found.items():
        numbers = range(len(batches[name]))
        parts = [_joined([by_key[key] for key in sorted(by_key) if key[0] == number]) for number in numbers]
        results[name] = views[name].from_matrices(parts, blocks[name].shape)
    return results


def _matrices(batches: Mapping[str, Sequence[Array]], piece: Piece) -> Array:
    """The blocks (count, m block, n block) of a piece, wide."""
    x = batches[piece.leaf][piece.number][piece.first : piece.first + piece.local]
    return x.mT if piece.turned else x


def _joined(stacks: Sequence[Array]) -> Array:
    return stacks[0] if len(stacks) == 1 else jnp.concatenate(stacks)


def _cut(stack: Array, pieces: Sequence[Array]) -> list[Array]:
    """The stack cut into as many matrices as every piece has."""
    ends = np.cumsum([piece.shape[0] for piece in pieces])[:-1]
    return [stack] if len(pieces) == 1 else jnp.split(stack, ends)


def _view(view: MatrixAxes, kind: Kind) -> MatrixAxes:
    return view if kind.split is None else MatrixAxes(view.fan_in, view.fan_out)


def _dealt_out(
    function: Callable[[Array], Array], pieces: Sequence[Sequence[Array]], deal: Deal, wire_dtype: np.dtype | None
) -> list[list[Array]]:
    """The blocks of every kind of a bundle in, those of the function's results out, each matrix on one device."""
    if deal.shares == 1 and not deal.bundle.gather:
        return [
            _cut(over_slices(functools.partial(apply_to_whole, function, kind=kind), _joined(own)), own)
            for own, kind in zip(pieces, deal.kinds, strict=True)
        ]
    dtype = jnp.dtype(deal.bundle.dtype)
    sent = pack(pieces, deal).astype(wire_dtype or dtype)  # (shares, length)
    received = exchange(function, sent, deal, dtype)
    counts = [[piece.shape[0] for piece in own] for own in pieces]
    return [[piece.astype(dtype) for piece in own] for own in unpack(received, deal, counts)]


def _split_inside(
    operation: Orthogonalization, pieces: Sequence[Sequence[Array]], deal: Deal, wire_dtype: np.dtype | None
) -> list[list[Array]]:
    """The same for the matrices of a bundle that are split inside."""
    done = split_inside(operation, [_joined(own) for own in pieces], deal, wire_dtype)
    return [_cut(stack, own) for stack, own in zip(done, pieces, strict=True)]
