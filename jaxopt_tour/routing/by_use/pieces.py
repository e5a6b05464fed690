"""The pieces of a matrix: heads of attention and parts of a fused projection, from slices and products of its results.

Positions are those in the flattened fan-out (or fan-in). Of a kernel (768, 12 * 3 * 64), whose results are cut into
(12, 3, 64), head h of part p is at (3 h + p) 64.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from jaxopt_tour.routing.axes import MatrixAxes
from jaxopt_tour.routing.by_use.interpreter import Heads, Record, Use
from jaxopt_tour.routing.route import Pieces

#: More pieces than this are no heads.
_MOST = 4096


class Range(NamedTuple):
    """Positions low to high of every period."""

    low: int
    high: int
    period: int


def find(uses: Sequence[Use], axes: MatrixAxes, shape: tuple[int, ...], record: Record) -> tuple[Pieces, ...]:
    """The pieces of a matrix; empty if it is no fused projection and meets no attention."""
    if axes.split is not None or any(use.lineage.sharded for use in uses):
        return ()
    side = _Side(axes, shape, axes.fan_out)
    ranges = side.ranges(uses, record)
    entries = [entry for use in uses for entry in sorted(record.heads.get(use.place, frozenset()))]
    pieces: list[Pieces] = []
    heads = side.heads(entries)
    if heads:
        pieces.append(_heads(side, heads, ranges))
    else:
        pieces.extend(_heads_of_fan_in(_Side(axes, shape, axes.fan_in), entries))
    if ranges:
        pieces.append(_fused(side, ranges))
    return tuple(pieces)


class _Side:
    """The axes of fan-out or of fan-in, flattened."""

    def __init__(self, axes: MatrixAxes, shape: tuple[int, ...], along: tuple[int, ...]) -> None:
        self.axes, self.shape, self.along = axes, shape, along
        self.is_fan_in = along == axes.fan_in
        self.size = math.prod(shape[axis] for axis in along)
        self.step = {axis: math.prod(shape[a] for a in along[i + 1 :]) for i, axis in enumerate(along)}

    def ranges(self, uses: Sequence[Use], record: Record) -> list[Range]:
        """Ranges of the parts into which slices cut the results, if these cover everything: once, or every period."""
        ranges = set()
        for use in uses:
            cuts = use.lineage.parts | record.cuts.get(use.place, frozenset())
            for axis, low, high, period in cuts - record.rejoined.get(use.place, frozenset()):
                if axis in self.step:
                    step = self.step[axis]
                    ranges.add(Range(low * step, high * step, period * step))
        for period in sorted({entry.period for entry in ranges}, reverse=True):
            of_period = [entry for entry in ranges if entry.period == period]
            outer = sorted(
                r for r in of_period if not any(o != r and o.low <= r.low and r.high <= o.high for o in of_period)
            )
            ends = [0, *(entry.high for entry in outer)]
            if len(outer) > 1 and [entry.low for entry in outer] == ends[:-1] and ends[-1] == period:
                return outer
        return []

    def heads(self, entries: Iterable[Heads]) -> set[tuple[int, int]]:
        """Where heads start, and where the next could."""
        heads: set[tuple[int, int]] = set()
        for entry in entries:
            outer = [atom for atom in entry.outer if atom.axis in self.step]
            inner = [atom for atom in entry.inner if atom.axis in self.step]
            removed = [atom for atom in entry.removed if atom.axis in self.step]
            steps = [atom.stride * self.step[atom.axis] for atom in outer]
            if entry.fan_in or not outer or not inner or any(a.start is None for a in (*outer, *removed)):
                continue
            if max(atom.stride * self.step[atom.axis] for atom in inner) >= min(steps):
                continue  # heads vary faster than the elements of a head
            if math.prod(atom.size for atom in outer) > _MOST:
                continue
            base = sum((atom.start or 0) * atom.stride * self.step[atom.axis] for atom in removed)
            places = [
                [((atom.start or 0) + i) * step for i in range(atom.size)]
                for atom, step in zip(outer, steps, strict=True)
            ]
            heads |= {
                (start, start + min(steps)) for start in (base + sum(place) for place in itertools.product(*places))
            }
        return heads

    def equal(self, size: int) -> MatrixAxes | None:
        """Consecutive pieces of one size, as a batch; None if no axis holds them."""
        inner, along = self.size, self.along
        while along and inner > size:
            inner //= self.shape[along[0]]
            along = along[1:]
        if inner == size and along:
            return self._with(along)
        last = self.along[-1]
        if self.shape[last] % size:
            return None
        return self._factored(last, (size,), (1,))

    def interleaved(self, count: int, size: int) -> MatrixAxes | None:
        """`count` parts of one size in turn, as a batch: (12, 3, 64), of which 3 is the batch."""
        for index, axis in enumerate(self.along):
            if self.shape[axis] == count and self.step[axis] == size:
                return self._with(self.along[:index] + self.along[index + 1 :]) if len(self.along) > 1 else None
        for axis in self.along:
            step = self.step[axis]
            if size % step == 0 and self.shape[axis] % (count * size // step) == 0:
                inner = size // step
                sizes, kept = ((count, inner), (0, 2)) if inner > 1 else ((count,), (0,))
                return self._factored(axis, sizes, kept)
        return None

    def consecutive(self, sizes: Sequence[int]) -> MatrixAxes | None:
        """Consecutive parts of any sizes."""
        return None if self.is_fan_in else MatrixAxes(self.axes.fan_in, self.axes.fan_out, sizes)

    def _with(self, along: tuple[int, ...]) -> MatrixAxes:
        return MatrixAxes(along, self.axes.fan_out) if self.is_fan_in else MatrixAxes(self.axes.fan_in, along)

    def _factored(self, axis: int, sizes: tuple[int, ...], kept: tuple[int, ...]) -> MatrixAxes:
        """An axis as (-1, *sizes), of which the dimensions `kept` stay on this side, and the others are the batch."""

        def moved(axes: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(a + len(sizes) * (a > axis) for a in axes)

        is_only = len(kept) == 1 and kept[0] > 0  # heads: the axes before this one number heads too
        before, after = (tuple(a for a in self.along if a < axis), tuple(a for a in self.along if a > axis))
        along = (*(() if is_only else moved(before)), *(axis + dim for dim in kept), *moved(after))
        other = moved(self.axes.fan_out if self.is_fan_in else self.axes.fan_in)
        fan_in, fan_out = (along, other) if self.is_fan_in else (other, along)
        return MatrixAxes(fan_in, fan_out, factors={axis: sizes})


def _heads(side: _Side, heads: set[tuple[int, int]], ranges: Sequence[Range]) -> Pieces:
    """Cut where heads and parts start, if heads or parts cover everything."""
    covered = 0
    for start, end in sorted(heads):
        covered = max(covered, end) if start <= covered else covered
    if covered < side.size and not ranges:
        return Pieces("heads", None, f"heads in a part of the {side.size}, not split: the rest is not understood")
    cuts = {0, side.size} | {place for head in heads for place in head if place < side.size}
    for low, high, period in ranges:
        cuts |= {place for start in range(0, side.size, period) for place in (start + low, start + high)}
    ends = sorted(cuts)
    sizes = tuple(high - low for low, high in itertools.pairwise(ends))
    counts = {size: sizes.count(size) for size in dict.fromkeys(sizes)}
    what = " and ".join(
        f"{count} heads of {size}" if count > 1 else f"1 part of {size}" for size, count in counts.items()
    )
    if len(sizes) == 1:
        return Pieces("heads", None, f"1 head of {side.size}")
    axes = side.equal(sizes[0]) if len(counts) == 1 else None
    return Pieces("heads", axes or side.consecutive(sizes), what)


def _heads_of_fan_in(side: _Side, entries: Iterable[Heads]) -> Iterator[Pieces]:
    sizes = {math.prod(atom.size for atom in entry.inner) for entry in entries if entry.fan_in}
    if len(sizes) == 1:
        (size,) = sizes
        if side.size % size == 0 and side.size > size:
            axes = side.equal(size)
            what = f"{side.size // size} heads of {size} in fan-in"
            yield Pieces("heads", axes, what if axes else f"{what}, not split: they are no factor of an axis")


def _fused(side: _Side, ranges: Sequence[Range]) -> Pieces:
    sizes = tuple(entry.high - entry.low for entry in ranges)
    words = " + ".join(map(str, sizes))
    period = ranges[0].period
    if period == side.size:
        return Pieces("fused", side.consecutive(sizes), f"{len(sizes)} parts, {words}")
    what = f"{len(sizes)} interleaved parts, {words} of every {period}"
    if len(set(sizes)) > 1:
        return Pieces("fused", None, f"{what}, not split: their sizes are unequal")
    axes = side.interleaved(len(sizes), sizes[0])
    return Pieces("fused", axes, what if axes else f"{what}, not split: they are no factor of an axis")


def choose(pieces: Sequence[Pieces], split: str | None) -> Pieces | None:
    """The pieces into which a matrix is split; None: it stays whole."""
    by_kind = {entry.kind: entry for entry in pieces if entry.axes is not None}
    if split == "all":
        return by_kind.get("heads") or by_kind.get("fused")
    return by_kind.get(split)  # type: ignore[call-overload, no-any-return]
