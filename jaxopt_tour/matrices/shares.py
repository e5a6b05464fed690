"""Who works on which matrix: the plan by which matrices spread over a mesh are shared out, whole or split inside.

Shapes and names alone; nothing here touches an array. Terms:

* The *layout* of a parameter says which mesh axes split each of its dimensions, as a ``PartitionSpec`` does.
* A *kind* is what matrices need to have in common to go through one loop: shape, dtype, layout.
* A *bundle* holds the kinds that travel together, in one exchange there and one back. Its *shares* are the devices
  among which its matrices are dealt out: all positions along the exchange axes and the replica axes.

Matrices are dealt out one by one, the most expensive kind first, each to the share with the least work. Kinds are thus
packed together: what is left over of one kind evens out what is left over of another.

What is still left over, too few matrices for the shares, can be *split inside* (:mod:`jaxopt_tour.matrices.inside`):
every share gets some columns of each, and only the factor is not the work of all. Whether that pays is decided by
:func:`deals` from an estimate of the time: operations of the busiest share, bytes, collectives.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np

from jaxopt_tour.matrices.axes import MatrixAxes

#: Names of mesh axes.
Names = tuple[str, ...]
#: For every dimension of an array, the mesh axes that split it.
Layout = tuple[Names, ...]
#: Floating-point operations of one matrix of shape (m, n), m <= n.
Cost = Callable[[int, int], float]
#: The same in two parts, for matrices (m, n) of a dtype: those of the factor, and those of the products with X, which
#: can be shared. None where the iteration has no such parts.
Parts = Callable[[int, int, str], tuple[float, float] | None]

#: What the plan counts a byte on the wire as, in operations: 60 TFLOP/s in float32 beside 50 GB/s.
BYTE: Final = 1_200
#: The same for the start of a collective: 10 microseconds.
COLLECTIVE: Final = 600_000_000
#: Kinds of which every share has so many matrices stay whole: the rest of the division counts for little.
MANY: Final = 8


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
    first: int  # of its matrices, among those of this number
    local: int  # matrices that this device holds a block of
    turned: bool  # stored tall; transposed to be wide


class Bundle(NamedTuple):
    """What travels together."""

    dtype: str
    exchange: Names  # axes that split the matrices and share the work: all-to-all
    replicas: Names  # axes along which the parameters are copies, and that share the work: slice, then all-gather
    gather: Names  # axes that split the matrices and do not share the work: all-gather, then slice


class Inside(NamedTuple):
    """The matrices of a bundle that are split inside."""

    pieces: tuple[Piece, ...] = ()
    factors: Deal | None = None  # who computes which factor; None: every share all of them

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Each once, in the order of their pieces."""
        return tuple(dict.fromkeys(piece.kind for piece in self.pieces))


NOTHING: Final = Inside()


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
    inside: Inside = NOTHING  # what is not dealt out

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

    def part(self, kind: Kind) -> tuple[int, int]:
        """How many shares have the same block of a matrix split inside, and the columns of each, padding and all."""
        sharing = self.replicas * self._positions(kind.rows)
        return sharing, -(-self.block(kind)[1] // sharing)

    def block_size(self, k: int) -> int:
        """Elements of a block of kind k."""
        return math.prod(self.block(self.kinds[k]))

    @property
    def extra_start(self) -> np.ndarray:
        """(shares, kinds): the number of the first matrix among each share's extras."""
        before = np.cumsum(self.extra, axis=0) - self.extra
        return before + self.shares * self.even

    @property
    def rows(self) -> list[list[tuple[int, int, int]]]:
        """What the buffer of every share has, in order: so many of a kind, from one number to before another."""
        start, shares = self.extra_start, []
        for d in range(self.shares):
            even = [(k, d * count, (d + 1) * count) for k, count in enumerate(map(int, self.even))]
            extra = [(k, int(start[d, k]), int(start[d, k] + self.extra[d, k])) for k in range(len(self.kinds))]
            shares.append([run for run in even + extra if run[2] > run[1]])
        return shares

    @property
    def numbers(self) -> list[np.ndarray]:
        """For every kind (shares, most matrices of a share): the numbers of a share's matrices; unused ones 0."""
        tables = []
        for k in range(len(self.kinds)):
            table = np.zeros((self.shares, int(self.even[k] + self.extra[:, k].max())), np.int32)
            for d in range(self.shares):
                table[d, : self.even[k]] = d * self.even[k] + np.arange(self.even[k])
                extra = np.arange(self.extra[d, k])
                table[d, self.even[k] : self.even[k] + len(extra)] = self.extra_start[d, k] + extra
            tables.append(table)
        return tables

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
        """Elements of matrices that one device sends to others in one update: both exchanges, gathers along other axes.

        They travel in the wire's dtype.
        """
        x, r, g = self.exchanged, self.replicas, self._positions(self.bundle.gather)
        there_and_back = 2 * self.length * (x - 1)
        gathered = self.length * x * (g - 1)
        copies = self.length * x * (r - 1)
        split = 0.0
        for piece in self.inside.pieces:
            held = piece.local * piece.kind.m * self.part(piece.kind)[1]
            rows = self._positions(piece.kind.rows)
            split += 2 * held * (rows - 1) / rows + held * (r - 1)
        return float(there_and_back + gathered + copies) + split

    def sum_elements(self) -> float:
        """Elements of Gram matrices, factors and largest entries that one device sends, in the iteration's dtype."""
        if not self.inside.pieces:
            return 0.0
        x, shares = self.exchanged, self.shares
        largest = 2 * sum(piece.local for piece in self.inside.pieces) * (x - 1) / x
        if self.inside.factors is not None:
            return largest + 2 * self.inside.factors.length * (shares - 1)
        return largest + 2 * sum(piece.local * piece.kind.m**2 for piece in self.inside.pieces) * (shares - 1) / shares

    def collectives(self) -> int:
        """How many there are in one update."""
        one_way = (self.exchanged > 1) + (self.replicas > 1)
        whole = bool(self.pieces) * (2 * one_way - (self.replicas > 1) + bool(self.bundle.gather))
        if not self.inside.pieces:
            return whole
        turns = len({kind.rows for kind in self.inside.kinds if kind.rows})
        sums = 1 if self.inside.factors is None else 2
        return whole + 2 * turns + (self.replicas > 1) + (self.exchanged > 1) + sums

    def time(self) -> float:
        """An estimate, in operations: those of the busiest share, and what the wire counts as."""
        itemsize = np.dtype(self.bundle.dtype).itemsize  # JAX has made its dtypes known to NumPy
        sent = itemsize * self.wire_elements() + max(itemsize, 4) * self.sum_elements()
        return float(self.work.max()) + BYTE * sent + COLLECTIVE * self.collectives()


def deals(
    shapes: Mapping[str, tuple[int, ...]],
    dtypes: Mapping[str, str],
    views: Mapping[str, MatrixAxes],
    layouts: Mapping[str, Layout],
    sizes: Mapping[str, int],
    mesh_axes: Sequence[str],
    cost: Cost,
    parts: Parts | None = None,
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
        parts: its two parts; None: no matrix is split inside. Nor is one where an axis that is not among
            ``mesh_axes`` splits it, or whose split fan-out is spread over devices.
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
            bundles.setdefault(bundle, []).append(Piece(name, number, kind, 0, count // on_batch, turned))
    return [_best_deal(dict(sizes), bundle, tuple(pieces), cost, parts) for bundle, pieces in bundles.items()]


def _best_deal(
    sizes: dict[str, int], bundle: Bundle, pieces: tuple[Piece, ...], cost: Cost, parts: Parts | None
) -> Deal:
    """The fastest of some: for every kind none, the rest of the division by the shares, or all split inside.

    One pass over the kinds, from all whole and from all rests split.
    """
    totals: dict[Kind, int] = {}
    for piece in pieces:
        totals[piece.kind] = totals.get(piece.kind, 0) + piece.local
    costs = {kind: _cost_of(kind, cost) for kind in totals}
    best = _deal(sizes, bundle, pieces, costs)
    in_parts: dict[Kind, tuple[float, float]] = {}
    for kind in sorted(totals, key=lambda kind: (-costs[kind], kind)):
        if best.shares > 1 and not bundle.gather and kind.split is None and totals[kind] < MANY * best.shares:
            found = parts(kind.m, kind.n, bundle.dtype) if parts is not None else None
            if found is not None:
                in_parts[kind] = found
    least = best.time()
    for start in ({}, {kind: totals[kind] % best.shares for kind in in_parts}) if in_parts else ():
        chosen: dict[Kind, int] = dict(start)
        for kind in in_parts:
            tried = {}
            for count in {0, totals[kind] % best.shares, totals[kind]}:
                for shared in (False, True):
                    deal = _split_deal(sizes, bundle, pieces, costs, in_parts, chosen | {kind: count}, shared)
                    tried[deal.time(), count, shared] = deal
            first = min(tried)
            chosen[kind] = first[1]
            if first[0] < least:
                least, best = first[0], tried[first]
    return best


def _split_deal(
    sizes: dict[str, int],
    bundle: Bundle,
    pieces: tuple[Piece, ...],
    costs: Mapping[Kind, float],
    in_parts: Mapping[Kind, tuple[float, float]],
    counts: Mapping[Kind, int],
    shared: bool,
) -> Deal:
    """The last so many matrices of a kind split inside, the others dealt out to the shares with the least work.

    ``shared``: factors are dealt out as well; else every share computes all of them.
    """
    left = dict.fromkeys(counts, 0)
    for piece in pieces:
        if piece.kind in left:
            left[piece.kind] += piece.local
    left = {kind: total - counts[kind] for kind, total in left.items()}
    whole, split = [], []
    for piece in pieces:
        here = min(piece.local, left.get(piece.kind, piece.local))
        if piece.kind in left:
            left[piece.kind] -= here
        if here:
            whole.append(piece._replace(local=here))
        if here < piece.local:
            split.append(piece._replace(first=here, local=piece.local - here))
    names = tuple(name for name in sizes if name in bundle.replicas + bundle.exchange)
    shares = math.prod(sizes[name] for name in names)
    before = np.zeros(shares)
    plain = Deal(sizes, bundle, (), (), before, np.zeros(0, int), np.zeros((shares, 0), int), 0)
    for piece in split:
        factor, products = in_parts[piece.kind]
        before += piece.local * products * plain.part(piece.kind)[1] / piece.kind.n
        if not shared:
            before += piece.local * factor
    factors = None
    if shared and split:
        grams = [piece._replace(kind=Kind(piece.kind.m, piece.kind.m, (), (), None)) for piece in split]
        of_factor = {gram.kind: in_parts[piece.kind][0] for gram, piece in zip(grams, split, strict=True)}
        factors = _deal(sizes, Bundle(bundle.dtype, (), names, ()), tuple(grams), of_factor, before)
        before = factors.work
    return _deal(sizes, bundle, tuple(whole), costs, before, Inside(tuple(split), factors))


def _deal(
    sizes: dict[str, int],
    bundle: Bundle,
    pieces: tuple[Piece, ...],
    costs: Mapping[Kind, float],
    before: np.ndarray | None = None,
    inside: Inside = NOTHING,
) -> Deal:
    """Every matrix to the share with the least work, beside the work that shares have before."""
    totals: dict[Kind, int] = {}
    for piece in pieces:
        totals[piece.kind] = totals.get(piece.kind, 0) + piece.local
    kinds = tuple(sorted(totals, key=lambda kind: (-costs[kind], kind)))
    shares = math.prod(sizes[name] for name in bundle.replicas + bundle.exchange)
    counts = np.zeros((shares, len(kinds)), int)
    loads = [(0.0 if before is None else float(before[d]), d) for d in range(shares)]
    heapq.heapify(loads)
    for k, kind in enumerate(kinds):
        for _ in range(totals[kind]):
            load, d = heapq.heappop(loads)
            counts[d, k] += 1
            heapq.heappush(loads, (load + costs[kind], d))
    work = np.zeros(shares)
    for load, d in loads:
        work[d] = load
    even = counts.min(axis=0)
    deal = Deal(sizes, bundle, pieces, kinds, work, even, counts - even, 0, inside)
    lengths = counts @ np.array([deal.block_size(k) for k in range(len(kinds))], int)
    return replace(deal, length=int(lengths.max()))


def _cost_of(kind: Kind, cost: Cost) -> float:
    widths = (kind.n,) if kind.split is None else kind.split
    return sum(cost(min(kind.m, width), max(kind.m, width)) for width in widths)
