"""Which axes of a parameter the dimensions of a value are, after transposes, reshapes, slices and broadcasts.

A dimension is a product of atoms, and an atom is a factor of an axis. A kernel of shape (768, 2304), reshaped to
(768, 3, 12, 64), has the dimensions `Atom(0, 768)`, `Atom(1, 3, stride=768)`, `Atom(1, 12, stride=64)` and
`Atom(1, 64)`.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

#: The axis of an atom that belongs to no axis of the parameter: a broadcast dimension.
FILLER = -1


class Atom(NamedTuple):
    """A factor of an axis: `size` steps of `stride` elements, from step `start` (None: undetermined)."""

    axis: int
    size: int
    stride: int = 1
    start: int | None = 0


Group = tuple[Atom, ...]  # the atoms of one dimension, outermost first; their sizes multiply to its size
Dims = tuple[Group, ...]
#: How an atom was removed from the dimensions: "scan" (a layer of a stack), "index", "gather" (looked up at a position
#: that depends on the inputs), "sum" (reduced) or "unit" (an axis of size one).
How = Literal["scan", "index", "gather", "sum", "unit"]
#: Elements low to high of every period of an axis, which a slice kept: (axis, low, high, period).
Part = tuple[int, int, int, int]
#: The side of a matrix on which an atom is in a contraction; "?": undecided.
Side = Literal["in", "out", "batch", "?"]
#: The operand of a product of parameters.
End = Literal["left", "right"]


@dataclasses.dataclass(frozen=True)
class Lineage:
    """The dimensions of a value that is computed from one parameter.

    Args:
        param: number of the parameter.
        shape: shape of the parameter.
        dims: the atoms of each dimension of the value.
        removed: atoms that are in no dimension any more, and how they were removed.
        hidden: atoms contracted with another parameter: (number of the contraction, operand, atoms).
        parts: ranges of axes that slices kept.
        nonlinear: whether a nonlinear function was applied.
        opaque: name of the operation after which the dimensions cannot be followed.
        node: number of the contraction with the parameter whose result the value is, if it is one.
        sharded: axes of which the value holds one shard, inside `shard_map`.
        head_dims: for the result of attention: the atoms of one head, which are its innermost ones.
    """

    param: int
    shape: tuple[int, ...]
    dims: Dims
    removed: tuple[tuple[How, Atom], ...] = ()
    hidden: tuple[tuple[int, End, Group], ...] = ()
    parts: frozenset[Part] = frozenset()
    nonlinear: bool = False
    opaque: str | None = None
    node: int | None = None
    sharded: frozenset[int] = frozenset()
    head_dims: Group = ()

    def replace(self, **changes: Any) -> Lineage:
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def blurred(self, operation: str) -> Lineage:
        """The same parameter after an operation through which its dimensions cannot be followed."""
        return self if self.opaque else self.replace(dims=(), opaque=operation)

    def atoms(self, dims: Iterable[int]) -> Group:
        """The atoms of the parameter in some of the dimensions, without fillers."""
        return tuple(atom for dim in dims for atom in self.dims[dim] if atom.axis != FILLER)


def whole(param: int, shape: tuple[int, ...]) -> Lineage:
    """The lineage of an unchanged parameter."""
    return Lineage(param, shape, tuple((Atom(axis, size),) for axis, size in enumerate(shape)))


def filler(size: int) -> Group:
    """A broadcast dimension."""
    return () if size == 1 else (Atom(FILLER, size),)


def sized(group: Group, size: int) -> Group:
    """The same axes in a dimension of another size (padded, concatenated, mixed by a constant matrix)."""
    atoms = [atom for atom in group if atom.axis != FILLER]
    if not atoms or math.prod(atom.size for atom in group) == size:
        return group if atoms else filler(size)
    if all(atom.size == 1 for atom in atoms):
        return (*atoms, *filler(size))
    return (atoms[0]._replace(size=size), *(atom._replace(size=1) for atom in atoms[1:]))


def remove(lineage: Lineage, atoms: Iterable[Atom], how: How = "index") -> Lineage:
    """Remove atoms from the dimensions; an axis of size one is recorded as "unit" in every case."""
    removed: list[tuple[How, Atom]] = [
        ("unit" if lineage.shape[atom.axis] == 1 else how, atom) for atom in atoms if atom.axis != FILLER
    ]
    return lineage.replace(removed=(*lineage.removed, *removed)) if removed else lineage


def permute(lineage: Lineage, permutation: Sequence[int]) -> Lineage:
    """Transpose the dimensions."""
    return lineage.replace(dims=tuple(lineage.dims[dim] for dim in permutation))


def squeeze(lineage: Lineage, dims: Iterable[int], how: How = "index") -> Lineage:
    """Drop dimensions; an axis of which one element remains becomes a batch axis."""
    dropped = set(dims)
    remaining = tuple(group for dim, group in enumerate(lineage.dims) if dim not in dropped)
    return remove(lineage, lineage.atoms(sorted(dropped)), how).replace(dims=remaining)


def broadcast(lineage: Lineage, shape: Sequence[int], dims: Sequence[int]) -> Lineage:
    """Broadcast to `shape`, where dimension i becomes dimension `dims[i]`."""
    groups = [filler(size) for size in shape]
    for group, dim in zip(lineage.dims, dims, strict=True):
        size = math.prod(atom.size for atom in group)
        groups[dim] = group if size == shape[dim] else group + filler(shape[dim])
    return lineage.replace(dims=tuple(groups))


def tile(lineage: Lineage, counts: Sequence[int]) -> Lineage:
    """Repeat every dimension `counts` times."""
    return lineage.replace(dims=tuple(filler(n) + group for n, group in zip(counts, lineage.dims, strict=True)))


def align(lineage: Lineage, shape: Sequence[int]) -> Lineage:
    """Broadcast to the `shape` of the result of an elementwise operation, as NumPy does."""
    if lineage.opaque:
        return lineage
    offset = len(shape) - len(lineage.dims)
    return broadcast(lineage, shape, range(offset, len(shape)))


def cut(lineage: Lineage, dim: int, start: int | None, size: int) -> Lineage:
    """Keep `size` elements of a dimension from `start` on (None: undetermined, or not contiguous)."""
    group = lineage.dims[dim]
    if math.prod(atom.size for atom in group) == size:
        return lineage
    groups = list(lineage.dims)
    lead = next((i for i, atom in enumerate(group) if atom.size > 1), None)
    if lead is None or size == 0:
        groups[dim] = sized(group, size)  # the slice is empty, or the dimension has no atom to cut
        return lineage.replace(dims=tuple(groups))
    outer, inner = group[lead], math.prod(atom.size for atom in group[lead + 1 :])
    if size % inner or (start is not None and start % inner):
        groups[dim] = sized(group, size)  # the ends fall inside an inner axis
        return lineage.replace(dims=tuple(groups))
    begin = None if start is None or outer.start is None else outer.start + start // inner
    shortened = outer._replace(size=size // inner, start=begin)
    groups[dim] = (*group[:lead], shortened, *group[lead + 1 :])
    parts = lineage.parts
    if begin is not None and outer.axis != FILLER:
        parts |= {(outer.axis, begin * outer.stride, (begin + shortened.size) * outer.stride, _period(lineage, outer))}
    return lineage.replace(dims=tuple(groups), parts=parts)


def resized(lineage: Lineage, shape: Sequence[int]) -> Lineage:
    """The lineage of one shard of a value, or of the value that shards are gathered to, from the shape of either."""
    groups, sharded = [], set(lineage.sharded)
    for group, size in zip(lineage.dims, shape, strict=True):
        before = math.prod(atom.size for atom in group)
        if size == before:
            groups.append(group)
            continue
        lead = next((i for i, atom in enumerate(group) if atom.size > 1 or size > before), None)
        # (8 * 64) of an axis of 512, over four devices: (2 * 64)
        new = None if lead is None or group[lead].size * size % before else group[lead].size * size // before
        if lead is None or not new:
            groups.append(sized(group, size))
        else:
            groups.append((*group[:lead], group[lead]._replace(size=new, start=None), *group[lead + 1 :]))
        sharded.update(atom.axis for atom in group if atom.axis != FILLER)
    return lineage.replace(dims=tuple(groups), sharded=frozenset(sharded))


def _period(lineage: Lineage, atom: Atom) -> int:
    """After how many elements of its axis an atom repeats: the stride of the atom outside of it, or the axis."""
    outside = [
        other.stride
        for other in lineage.atoms(range(len(lineage.dims)))
        if other.axis == atom.axis and other.size > 1 and other.stride > atom.stride
    ]
    return min(outside, default=lineage.shape[atom.axis])


def strided(lineage: Lineage, dim: int, start: int, stride: int) -> Lineage:
    """Keep every element at `start` modulo `stride`; the dimension is one atom, and `stride` divides its size."""
    (atom,) = lineage.dims[dim]
    part = (atom.axis, start * atom.stride, (start + 1) * atom.stride, stride * atom.stride)
    kept = Atom(atom.axis, atom.size // stride, atom.stride * stride, None)
    dims = (*lineage.dims[:dim], (kept,), *lineage.dims[dim + 1 :])
    return lineage.replace(dims=dims, parts=lineage.parts | {part})


def reshape(lineage: Lineage, shape: Sequence[int]) -> Lineage | None:
    """Merge and split dimensions in row-major order; None where new dimensions straddle the old ones."""
    if 0 in shape:
        return None
    queue = deque(atom for group in lineage.dims for atom in group)
    groups: list[list[Atom]] = []
    loose: list[Atom] = []
    for size in shape:
        group: list[Atom] = []
        if size == 1:
            if queue and queue[0].size == 1:
                group.append(queue.popleft())
            groups.append(group)
            continue
        while size > 1:
            if not queue:
                return None
            atom = queue.popleft()
            if atom.size == 1:
                # An axis of size one next to merged axes is merged with them: (3, 3, 1, c) -> (9, c).
                merged = group or (groups[-1] if groups and len(groups[-1]) > 1 else loose)
                merged.append(atom)
            elif size % atom.size == 0:
                group.append(atom)
                size //= atom.size
            elif atom.size % size == 0:
                rest = atom.size // size
                start = None if atom.start is None or atom.start % rest else atom.start // rest
                group.append(Atom(atom.axis, size, atom.stride * rest, start))
                queue.appendleft(atom._replace(size=rest, start=0))
                size = 1
            else:
                return None
        groups.append(group)
    if any(atom.size > 1 for atom in queue):
        return None
    loose.extend(queue)
    return remove(lineage, loose).replace(dims=tuple(_joined(group) for group in groups))


def _joined(group: Iterable[Atom]) -> Group:
    """Join neighboring atoms of one axis: (3, 4) of an axis of 12 becomes 12."""
    joined: list[Atom] = []
    for atom in group:
        last = joined[-1] if joined else None
        if last is not None and last.axis == atom.axis == FILLER:
            joined[-1] = last._replace(size=last.size * atom.size)
        elif last is not None and last.axis == atom.axis and last.stride == atom.stride * atom.size:
            start = None if last.start is None else last.start * atom.size
            joined[-1] = Atom(atom.axis, last.size * atom.size, atom.stride, start)
        else:
            joined.append(atom)
    return tuple(joined)


def resolve_sides(
    origins: Sequence[Lineage], contracting: Sequence[int], batch: Sequence[int]
) -> list[dict[Side, Group]]:
    """Fan-in and fan-out of every parameter in a product of parameters that is contracted with an activation.

    Dimensions contracted with the activation are fan-in, free ones are fan-out. In `x @ (B @ A)` the axis that B and
    A share is hidden. The activation meets B first, so the axis is B's fan-out and A's fan-in.

    Returns:
        The atoms of each origin by side. Hidden atoms whose side is undecided are under "?".
    """
    sides: list[dict[Side, list[Atom]]] = []
    for origin in origins:
        free = [dim for dim in range(len(origin.dims)) if dim not in contracting and dim not in batch]
        dims_by_side: dict[Side, Sequence[int]] = {"in": contracting, "out": free, "batch": batch}
        sides.append({side: list(origin.atoms(dims)) for side, dims in dims_by_side.items()})
    opposite: dict[Side, Side] = {"in": "out", "out": "in"}
    open_groups = {(i, j) for i, origin in enumerate(origins) for j in range(len(origin.hidden))}
    link_side: dict[tuple[int, End], Side] = {}  # (contraction, operand) -> side of the hidden atoms

    progress = True
    while progress and open_groups:
        progress = False
        for i, j in sorted(open_groups):
            link, end, atoms = origins[i].hidden[j]
            other_end: End = "right" if end == "left" else "left"
            decided = [side for side in opposite if any(atom.size > 1 for atom in sides[i][side])]
            still_open = sum(index == i for index, _ in open_groups)
            if (link, other_end) in link_side:
                side = opposite[link_side[link, other_end]]
            elif len(decided) == 1 and still_open == 1:
                side = opposite[decided[0]]
            else:
                continue
            sides[i][side].extend(atoms)
            link_side[link, end] = side
            open_groups.discard((i, j))
            progress = True
    resolved: list[dict[Side, Group]] = [{side: tuple(atoms) for side, atoms in entry.items()} for entry in sides]
    for i, j in open_groups:
        resolved[i]["?"] = resolved[i].get("?", ()) + origins[i].hidden[j][2]
    return resolved
