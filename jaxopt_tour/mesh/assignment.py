"""Which device works on which matrix: numbers alone, no array.

Terms:

* The *layout* of a parameter says which mesh axes shard each of its dimensions, as a `PartitionSpec` does.
* A *sharded group* holds the matrices that one loop processes: of one shape and one layout.
* An *assignment* distributes the matrices that travel in one exchange, one by one, the most expensive shape first, each
  to the device with the least work. Leftover matrices of one shape thus fill idle devices while another shape is
  processed.
"""

from __future__ import annotations

import functools
import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jaxopt_tour.orthogonalization.plan import Key
from jaxopt_tour.routing.axes import MatrixAxes

#: Names of mesh axes.
Names = tuple[str, ...]
#: For every dimension of an array, the mesh axes that shard it.
Layout = tuple[Names, ...]
#: Floating-point operations for one matrix of shape (m, n), m <= n.
Cost = Callable[[int, int], float]


class ShardedGroup(NamedTuple):
    """What the matrices of one loop have in common."""

    m: int  # of the whole matrix; m <= n, unless it is split on arrival
    n: int
    rows: Names  # mesh axes that shard m
    columns: Names  # mesh axes that shard n
    split: tuple[int, ...] | None  # sizes into which n, which is fan-out, is split on arrival; each part is a matrix
    blocks: tuple[tuple[int, int], ...] = ()  # of a split fan-out, by dimension: devices, and length on one device


class Member(NamedTuple):
    """The matrices of one piece of a parameter."""

    key: Key
    group: ShardedGroup
    local: int  # matrices of which this device holds a shard
    transposed: bool  # stored tall


class Axes(NamedTuple):
    """The mesh axes of one exchange."""

    exchange: Names  # shard the matrices and share the work: all-to-all
    replicas: Names  # the parameters are replicated along them, and they share the work: slice, then all-gather
    gather: Names  # shard the matrices and do not share the work: all-gather, then slice


@dataclass(frozen=True)
class Assignment:
    """The matrices of one exchange, distributed over devices.

    The matrices of a group are numbered 0, 1, ... in the order of its members. Device d works on `even[k]` of group k
    from `d even[k]` on, as every device does, and on `extra[d][k]` more. In the buffer that a device receives, the
    even parts of all groups come first, then its extra matrices.

    With 5 matrices of one group on 2 devices: device 0 has 0, 1 and 4, device 1 has 2 and 3.
    """

    sizes: tuple[tuple[str, int], ...]  # of the mesh axes
    dtype: str
    axes: Axes
    members: tuple[Member, ...]
    groups: tuple[ShardedGroup, ...]
    work: tuple[float, ...]  # operations of each device
    even: tuple[int, ...]  # by group
    extra: tuple[tuple[int, ...], ...]  # by device, then by group

    def positions(self, names: Names) -> int:
        """Devices along these axes."""
        sizes = dict(self.sizes)
        return math.prod(sizes[name] for name in names)

    @functools.cached_property
    def exchanged(self) -> int:
        """Devices along the exchange axes."""
        return self.positions(self.axes.exchange)

    @functools.cached_property
    def replicas(self) -> int:
        """Devices along the replica axes."""
        return self.positions(self.axes.replicas)

    @functools.cached_property
    def devices(self) -> int:
        """Devices that share the work, replica axes first."""
        return self.replicas * self.exchanged

    def block(self, group: ShardedGroup) -> tuple[int, int]:
        """The shape of the part of a matrix that one device stores."""
        return group.m // self.positions(group.rows), group.n // self.positions(group.columns)

    @functools.cached_property
    def block_sizes(self) -> tuple[int, ...]:
        """Elements of a block, by group."""
        return tuple(math.prod(self.block(group)) for group in self.groups)

    @functools.cached_property
    def length(self) -> int:
        """Elements of the buffer row for one device: its blocks and the padding."""
        counts = [[even + more for even, more in zip(self.even, extra, strict=True)] for extra in self.extra]
        return max(sum(n * size for n, size in zip(row, self.block_sizes, strict=True)) for row in counts)

    @functools.cached_property
    def runs(self) -> tuple[tuple[tuple[int, int, int], ...], ...]:
        """What every device's buffer row holds, in order: (group, first matrix, one past the last)."""
        next_extra = [self.devices * even for even in self.even]
        rows = []
        for d in range(self.devices):
            row = [(k, d * even, (d + 1) * even) for k, even in enumerate(self.even)]
            for k, more in enumerate(self.extra[d]):
                row.append((k, next_extra[k], next_extra[k] + more))
                next_extra[k] += more
            rows.append(tuple(run for run in row if run[2] > run[1]))
        return tuple(rows)

    @functools.cached_property
    def offsets(self) -> tuple[np.ndarray, ...]:
        """For every group (devices, most matrices of a device): where each matrix is in its device's buffer row.

        In elements; places that a device does not use repeat its first.
        """
        tables = []
        for k, size in enumerate(self.block_sizes):
            places: list[list[int]] = []
            for row in self.runs:
                at, own = 0, []
                for group, first, last in row:
                    if group == k:
                        own += [at + size * i for i in range(last - first)]
                    at += (last - first) * self.block_sizes[group]
                places.append(own)
            most = max(map(len, places))
            padded = [own + [own[0] if own else 0] * (most - len(own)) for own in places]
            tables.append(np.asarray(padded, np.int32).reshape(self.devices, most))
        return tuple(tables)

    @functools.cached_property
    def elements(self) -> int:
        """Entries of all matrices, whole."""
        counts = [self.devices * even + sum(extra[k] for extra in self.extra) for k, even in enumerate(self.even)]
        return sum(count * group.m * group.n for count, group in zip(counts, self.groups, strict=True))

    @property
    def balance(self) -> float:
        """Mean work of a device by the most of any: 1 where no device waits for another."""
        return sum(self.work) / len(self.work) / max(self.work) if max(self.work) else 1.0

    @property
    def padding(self) -> float:
        """Elements sent by elements that would be sent without padding."""
        blocks = self.exchanged * self.positions(self.axes.gather)
        return self.length * self.devices * blocks / self.elements if self.elements else 1.0

    @property
    def wire_elements(self) -> int:
        """Elements that one device sends to others in one update: there and back, gathers, copies."""
        x, gathered = self.exchanged, self.positions(self.axes.gather)
        return self.length * (2 * (x - 1) + x * (gathered - 1) + x * (self.replicas - 1))


def assign(
    shapes: Mapping[str, tuple[int, ...]],
    dtypes: Mapping[str, str],
    views: Mapping[str, MatrixAxes],
    layouts: Mapping[str, Layout],
    sizes: Mapping[str, int],
    mesh_axes: Sequence[str],
    cost: Cost,
) -> tuple[list[tuple[Key, int, int, int, str]], list[Assignment]]:
    """Distribute the matrices of some parameters over the devices of a mesh.

    Args:
        shapes: of the whole parameters, by path name.
        dtypes: of the parameters.
        views: how each is seen as matrices.
        layouts: how each is sharded.
        sizes: of the mesh axes.
        mesh_axes: the axes that share the work.
        cost: operations for one matrix.

    Returns:
        The pieces that every device has whole and works on where they are: (key, matrices on one device, rows, columns,
        dtype). And one assignment for all matrices that travel along the same axes.
    """
    local: list[tuple[Key, int, int, int, str]] = []
    travelling: dict[tuple[str, Axes], list[Member]] = {}
    for name, shape in shapes.items():
        if not math.prod(shape):
            continue
        layout = _layout_of_factors(name, views[name], shape, layouts[name], sizes)
        batch, fan_in, fan_out = (
            tuple(axis for dimension in group for axis in layout[dimension] if sizes[axis] > 1)
            for group in views[name].dimensions(shape)
        )
        on_batch = math.prod(sizes[axis] for axis in batch)
        over = fan_in + fan_out
        axes = Axes(
            exchange=tuple(axis for axis in sizes if axis in mesh_axes and axis in over),
            replicas=tuple(axis for axis in mesh_axes if axis not in over + batch and sizes[axis] > 1),
            gather=tuple(axis for axis in sizes if axis in over and axis not in mesh_axes),
        )
        # A split fan-out that is sharded is split once its matrix is in one place.
        late_split = views[name].split if fan_out else None
        view = whole_view(views[name]) if late_split else views[name]
        for number, (count, m, n) in enumerate(view.matrix_shapes(shape)):
            key, count = Key(name, number), count // on_batch
            if not any(axes):
                local.append((key, count, m, n, dtypes[name]))
                continue
            transposed = m > n and late_split is None
            rows, columns = (fan_out, fan_in) if transposed else (fan_in, fan_out)
            blocks = _blocks(views[name], shape, layouts[name], sizes) if late_split else ()
            group = (
                ShardedGroup(n, m, rows, columns, None)
                if transposed
                else ShardedGroup(m, n, rows, columns, late_split, blocks)
            )
            travelling.setdefault((dtypes[name], axes), []).append(Member(key, group, count, transposed))
    return local, [
        _assign(tuple(sizes.items()), dtype, axes, tuple(members), cost)
        for (dtype, axes), members in travelling.items()
    ]


def _layout_of_factors(
    name: str, view: MatrixAxes, shape: tuple[int, ...], layout: Layout, sizes: Mapping[str, int]
) -> Layout:
    """The layout of the array after `factors`: a sharded axis is sharded along its outermost factor."""
    if not view.factors:
        return layout
    factored, axes = view.factored(shape)
    for dimension, axis in enumerate(axes):
        devices = 1 if axis is None else math.prod(sizes[mesh_axis] for mesh_axis in layout[axis])
        if factored[dimension] % devices:
            raise ValueError(
                f"parameter {name!r} of shape {shape}: axis {axis} is sharded over {devices} devices, which cuts "
                f"through the {factored[dimension]} pieces of {view}. Shard it over fewer devices, or do not split it: "
                "routing.from_function(..., split=None)"
            )
    return tuple(() if axis is None else layout[axis] for axis in axes)


def whole_view(view: MatrixAxes) -> MatrixAxes:
    """The same axes, with fan-out whole."""
    return MatrixAxes(view.fan_in, view.fan_out)


def _blocks(
    view: MatrixAxes, shape: tuple[int, ...], layout: Layout, sizes: Mapping[str, int]
) -> tuple[tuple[int, int], ...]:
    """Of every dimension of fan-out: the devices that shard it, and its length on one device."""
    _, _, fan_out = view.dimensions(shape)
    devices = [math.prod(sizes[axis] for axis in layout[dimension]) for dimension in fan_out]
    return tuple((count, shape[dimension] // count) for count, dimension in zip(devices, fan_out, strict=True))


def _assign(
    sizes: tuple[tuple[str, int], ...], dtype: str, axes: Axes, members: tuple[Member, ...], cost: Cost
) -> Assignment:
    """Every matrix to the device with the least work."""
    totals: dict[ShardedGroup, int] = {}
    for member in members:
        totals[member.group] = totals.get(member.group, 0) + member.local
    costs = {group: _cost_of(group, cost) for group in totals}
    groups = tuple(sorted(totals, key=lambda group: (-costs[group], group[:4], group.split or (), group.blocks)))
    devices = math.prod(dict(sizes)[name] for name in axes.replicas + axes.exchange)
    counts = np.zeros((devices, len(groups)), int)
    loads = [(0.0, d) for d in range(devices)]
    for k, group in enumerate(groups):
        for _ in range(totals[group]):
            load, d = heapq.heappop(loads)
            counts[d, k] += 1
            heapq.heappush(loads, (load + costs[group], d))
    work = [load for load, _ in sorted(loads, key=lambda entry: entry[1])]
    even = counts.min(axis=0)
    extra = tuple(tuple(map(int, row)) for row in counts - even)
    return Assignment(sizes, dtype, axes, members, groups, tuple(work), tuple(map(int, even)), extra)


def _cost_of(group: ShardedGroup, cost: Cost) -> float:
    widths = (group.n,) if group.split is None else group.split
    return sum(cost(min(group.m, width), max(group.m, width)) for width in widths)
