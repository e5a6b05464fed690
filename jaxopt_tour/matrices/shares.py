"""Who works on which matrix: the plan by which matrices spread over a mesh are shared out, one whole matrix a device.

Shapes and names alone; nothing here touches an array. Terms:

* The *layout* of a parameter says which mesh axes split each of its dimensions, as a ``PartitionSpec`` does.
* A *kind* is what matrices need to have in common to go through one loop: shape, dtype, layout.
* A *bundle* holds the kinds that travel together, in one exchange there and one back. Its *shares* are the devices
  among which its matrices are dealt out: all positions along the exchange axes and the replica axes.

Matrices are dealt out one by one, the most expensive kind first, each to the share with the least work. Kinds are thus
packed together: what is left over of one kind evens out what is left over of another.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jaxopt_tour.matrices.axes import MatrixAxes

#: Names of mesh axes.
Names = tuple[str, ...]
#: For every dimension of an array, the mesh axes that split it.
Layout = tuple[Names, ...]
#: Work of one matrix of shape (m, n), m <= n, in any unit.
Cost = Callable[[int, int], float]


class Kind(NamedTuple):
    """What the matrices of one loop have in common."""

    m: int  # of the whole matrix; wide, m <= n, unless it is split on arrival
    n: int
    rows: Names  # mesh axes that split m
    columns: Names  # mesh axes that split n
    split: tuple[int, ...] | None  # sizes into which n is cut after arrival, each a matrix; its axis is fan-out


class Piece(NamedTuple):
    """Matrices of one parameter: a local batch of one kind."""

    leaf: str
    number: int  # among the parameter's pieces
    kind: Kind
    local: int  # matrices that this device holds a block of
    turned: bool  # stored tall; transposed to be wide


class Bundle(NamedTuple):
    """What travels together."""

    dtype: str
    exchange: Names  # axes that split the matrices and share the work: all-to-all
    replicas: Names  # axes along which the parameters are copies, and that share the work: slice, then all-gather
    gather: Names  # axes that split the matrices and do not share the work: all-gather, then slice


@dataclass(frozen=True)
class Deal:
    """How the matrices of one bundle are dealt out.

    The matrices of a kind are numbered 0, 1, ... in the order of its pieces. Share d gets ``even[k]`` of them from
    ``d even[k]`` on, as every share does, and ``extra[d, k]`` more from ``extra_start[d, k]`` on. In the buffer that
    a share receives, the even parts of all kinds come first, then its extras.
    """

    sizes: dict[str, int]  # of the mesh axes
    bundle: Bundle
    pieces: tuple[Piece, ...]
    kinds: tuple[Kind, ...]
    work: np.ndarray  # (shares,) cost of what each share has to do
    even: np.ndarray  # (kinds,)
    extra: np.ndarray  # (shares, kinds)
    length: int  # of the buffer for one share, in elements of one block: its matrices and the padding

    @property
    def exchanged(self) -> int:
        """Positions along the exchange axes."""
        return self._positions(self.bundle.exchange)

    @property
    def replicas(self) -> int:
        """Positions along the replica axes."""
        return self._positions(self.bundle.replicas)

    @property
    def shares(self) -> int:
        """Positions along both, replica axes first."""
        return self.replicas * self.exchanged

    def _positions(self, names: Names) -> int:
        return math.prod(self.sizes[name] for name in names)

    def block(self, kind: Kind) -> tuple[int, int]:
        """The part of a matrix of this kind that one device stores."""
        return kind.m // self._positions(kind.rows), kind.n // self._positions(kind.columns)

    def block_size(self, k: int) -> int:
        """Elements of a block of kind k."""
        return math.prod(self.block(self.kinds[k]))

    @property
    def extra_start(self) -> np.ndarray:
        """(shares, kinds): the number of the first matrix among each share's extras."""
        before = np.cumsum(self.extra, axis=0) - self.extra
        return before + self.shares * self.even

    @property
    def offsets(self) -> list[np.ndarray]:
        """For every kind (shares, most matrices of a share): where each lies in the buffer; unused ones at the first.

        In elements of one block's row of the buffer.
        """
        sizes = np.array([self.block_size(k) for k in range(len(self.kinds))])
        even_start = np.concatenate([[0], np.cumsum(self.even * sizes)])
        extra_sizes = self.extra * sizes
        extra_start = even_start[-1] + np.cumsum(extra_sizes, axis=1) - extra_sizes
        tables = []
        for k, size in enumerate(sizes):
            most = int(self.even[k] + self.extra[:, k].max())
            table = np.zeros((self.shares, most), np.int32)
            for d in range(self.shares):
                places = [even_start[k] + size * i for i in range(self.even[k])]
                places += [extra_start[d, k] + size * i for i in range(self.extra[d, k])]
                table[d, : len(places)] = places
                table[d, len(places) :] = places[0] if places else 0
            tables.append(table)
        return tables

    @property
    def elements(self) -> int:
        """Entries of all matrices dealt out, whole."""
        counts = self.shares * self.even + self.extra.sum(axis=0)
        return sum(int(count) * kind.m * kind.n for count, kind in zip(counts, self.kinds, strict=True))

    @property
    def balance(self) -> float:
        """Mean work of a share by the most of any: 1 where no device waits for another."""
        return float(self.work.mean() / self.work.max()) if self.work.max() else 1.0

    @property
    def padding(self) -> float:
        """What is sent by what would be sent without padding."""
        blocks = self._positions(self.bundle.exchange) * self._positions(self.bundle.gather)
        return self.length * self.shares * blocks / self.elements if self.elements else 1.0

    def wire_elements(self) -> float:
        """Elements that one device sends to others in one update: both exchanges, gathers along other axes."""
        x, r, g = self.exchanged, self.replicas, self._positions(self.bundle.gather)
        there_and_back = 2 * self.length * (x - 1)
        gathered = self.length * x * (g - 1)
        copies = self.length * x * (r - 1)
        return float(there_and_back + gathered + copies)


def deals(
    shapes: Mapping[str, tuple[int, ...]],
    dtypes: Mapping[str, str],
    views: Mapping[str, MatrixAxes],
    layouts: Mapping[str, Layout],
    sizes: Mapping[str, int],
    mesh_axes: Sequence[str],
    cost: Cost,
) -> list[Deal]:
    """The plan for some parameters: one deal a bundle.

    Args:
        shapes: of the whole parameters, by path name.
        dtypes: of the parameters.
        views: how each is seen as matrices.
        layouts: how each is spread over the mesh.
        sizes: of the mesh axes.
        mesh_axes: the axes that share the work.
        cost: work of one matrix.
    """
    bundles: dict[Bundle, list[Piece]] = {}
    for name, shape in shapes.items():
        layout = layouts[name]
        if not math.prod(shape):
            continue
        batch, fan_in, fan_out = (
            tuple(axis for dimension in group for axis in layout[dimension] if sizes[axis] > 1)
            for group in views[name].dimensions(shape)
        )
        on_batch = math.prod(sizes[axis] for axis in batch)
        over = fan_in + fan_out
        bundle = Bundle(
            dtypes[name],
            exchange=tuple(axis for axis in sizes if axis in mesh_axes and axis in over),
            replicas=tuple(axis for axis in mesh_axes if axis not in over + batch and sizes[axis] > 1),
            gather=tuple(axis for axis in sizes if axis in over and axis not in mesh_axes),
        )
        whole = MatrixAxes(views[name].fan_in, views[name].fan_out)
        # A split fan-out that is spread over devices is cut once its matrix is in one place.
        late_split = views[name].split if fan_out else None
        view = whole if late_split else views[name]
        for number, (count, m, n) in enumerate(view.matrix_shapes(shape)):
            turned = m > n and late_split is None
            kind = Kind(n, m, fan_out, fan_in, None) if turned else Kind(m, n, fan_in, fan_out, late_split)
            bundles.setdefault(bundle, []).append(Piece(name, number, kind, count // on_batch, turned))
    return [_deal(dict(sizes), bundle, tuple(pieces), cost) for bundle, pieces in bundles.items()]


def _deal(sizes: dict[str, int], bundle: Bundle, pieces: tuple[Piece, ...], cost: Cost) -> Deal:
    totals: dict[Kind, int] = {}
    for piece in pieces:
        totals[piece.kind] = totals.get(piece.kind, 0) + piece.local
    costs = {kind: _cost_of(kind, cost) for kind in totals}
    kinds = tuple(sorted(totals, key=lambda kind: (-costs[kind], kind)))
    shares = math.prod(sizes[name] for name in bundle.replicas + bundle.exchange)
    counts = np.zeros((shares, len(kinds)), int)
    loads = [(0.0, d) for d in range(shares)]
    for k, kind in enumerate(kinds):
        for _ in range(totals[kind]):
            load, d = heapq.heappop(loads)
            counts[d, k] += 1
            heapq.heappush(loads, (load + costs[kind], d))
    work = np.zeros(shares)
    for load, d in loads:
        work[d] = load
    even = counts.min(axis=0)
    deal = Deal(sizes, bundle, pieces, kinds, work, even, counts - even, 0)
    lengths = counts @ np.array([deal.block_size(k) for k in range(len(kinds))])
    return Deal(sizes, bundle, pieces, kinds, work, even, counts - even, int(lengths.max()))


def _cost_of(kind: Kind, cost: Cost) -> float:
    widths = (kind.n,) if kind.split is None else kind.split
    return sum(cost(min(kind.m, width), max(kind.m, width)) for width in widths)
