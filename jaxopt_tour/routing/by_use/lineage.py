"""Where the dimensions of a value come from: each is a product of pieces of the axes of a parameter.

A ``Lineage`` follows one parameter through transposes, reshapes, slices and broadcasts, so that at the place where the
parameter is used its dimensions still know which axes of the parameter they are.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

#: The axis of a piece that belongs to no axis of the parameter: a broadcast dimension.
FILLER = -1


class Atom(NamedTuple):
    """A piece of an axis: ``size`` steps of ``stride`` elements, from step ``start`` (None: not known)."""

    axis: int
    size: int
    stride: int = 1
    start: int | None = 0


Group = tuple[Atom, ...]  # the pieces of one dimension, outermost first; their sizes multiply to its size
Dims = tuple[Group, ...]
#: How an axis left the dimensions, and the piece of it that left.
Removed = tuple[str, Atom]
#: Elements lo to hi of an axis, all that remained of it after a slice.
Part = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Lineage:
    """A value made from one parameter.

    Args:
        param: the parameter's number.
        shape: the parameter's own shape.
        dims: what each dimension of the value is made of.
        removed: pieces that are no dimension any more: "scan" (a layer of a stack), "index", "gather" (looked up by a
            value that depends on the inputs), "sum" (reduced), "unit" (an axis of size one).
        hidden: pieces contracted with another parameter: (which contraction, which side of it, the pieces).
        parts: ranges of axes that slices left over.
        nonlinear: a nonlinear function was applied.
        opaque: the operation through which the dimensions could not be followed.
        node: for a value that is the result of a contraction with the parameter, the number of that contraction.
    """

    param: int
    shape: tuple[int, ...]
    dims: Dims
    removed: tuple[Removed, ...] = ()
    hidden: tuple[tuple[int, str, Group], ...] = ()
    parts: frozenset[Part] = frozenset()
    nonlinear: bool = False
    opaque: str | None = None
    node: int | None = None

    def replace(self, **changes: Any) -> Lineage:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def blurred(self, operation: str) -> Lineage:
        """The same parameter, with dimensions that ``operation`` made unrecognizable."""
        return self if self.opaque else self.replace(dims=(), opaque=operation)

    def atoms(self, dims: Iterable[int]) -> Group:
        """The pieces of the parameter in some of the dimensions, fillers left out."""
        return tuple(atom for dim in dims for atom in self.dims[dim] if atom.axis != FILLER)


def whole(param: int, shape: tuple[int, ...]) -> Lineage:
    """The lineage of the parameter itself."""
    return Lineage(param, shape, tuple((Atom(axis, size),) for axis, size in enumerate(shape)))


def filler(size: int) -> Group:
    """A dimension that no parameter has."""
    return () if size == 1 else (Atom(FILLER, size),)


def sized(group: Group, size: int) -> Group:
    """The same axes in a dimension of another size (padded, concatenated, mixed by a constant matrix)."""
    own = [atom for atom in group if atom.axis != FILLER]
    if not own or math.prod(atom.size for atom in group) == size:
        return group if own else filler(size)
    if all(atom.size == 1 for atom in own):
        return (*own, *filler(size))
    return (own[0]._replace(size=size), *(atom._replace(size=1) for atom in own[1:]))


def remove(lineage: Lineage, atoms: Iterable[Atom], how: str = "index") -> Lineage:
    """The lineage after ``atoms`` left its dimensions; an axis of size one is a "unit" however it left."""
    entries = tuple(("unit" if lineage.shape[atom.axis] == 1 else how, atom) for atom in atoms if atom.axis != FILLER)
    return lineage.replace(removed=lineage.removed + entries) if entries else lineage


def permute(lineage: Lineage, permutation: Sequence[int]) -> Lineage:
    """Transpose."""
    return lineage.replace(dims=tuple(lineage.dims[dim] for dim in permutation))


def squeeze(lineage: Lineage, dims: Iterable[int], how: str = "index") -> Lineage:
    """Drop dimensions; an axis of which a single element was left becomes an axis of the batch."""
    gone = set(dims)
    kept = tuple(group for dim, group in enumerate(lineage.dims) if dim not in gone)
    return remove(lineage, lineage.atoms(sorted(gone)), how).replace(dims=kept)


def broadcast(lineage: Lineage, shape: Sequence[int], dims: Sequence[int]) -> Lineage:
    """``broadcast_in_dim``: dimension i becomes dimension ``dims[i]`` of ``shape``."""
    groups = [filler(size) for size in shape]
    for group, dim in zip(lineage.dims, dims, strict=True):
        size = math.prod(atom.size for atom in group)
        groups[dim] = group if size == shape[dim] else group + filler(shape[dim])
    return lineage.replace(dims=tuple(groups))


def tile(lineage: Lineage, counts: Sequence[int]) -> Lineage:
    """Repeat every dimension ``counts`` times."""
    return lineage.replace(dims=tuple(filler(n) + group for n, group in zip(counts, lineage.dims, strict=True)))


def align(lineage: Lineage, shape: Sequence[int]) -> Lineage:
    """The lineage in an elementwise operation whose result has ``shape``; scalars and size one are stretched."""
    if lineage.opaque:
        return lineage
    offset = len(shape) - len(lineage.dims)
    return broadcast(lineage, shape, range(offset, len(shape)))


def cut(lineage: Lineage, dim: int, start: int | None, size: int) -> Lineage:
    """Keep ``size`` elements of a dimension from ``start`` on (None: not known, or not contiguous)."""
    group = lineage.dims[dim]
    if math.prod(atom.size for atom in group) == size:
        return lineage
    groups = list(lineage.dims)
    lead = next((i for i, atom in enumerate(group) if atom.size > 1), None)
    if lead is None or size == 0:
        groups[dim] = sized(group, size)  # nothing is left
        return lineage.replace(dims=tuple(groups))
    outer, inner = group[lead], math.prod(atom.size for atom in group[lead + 1 :])
    if size % inner or (start is not None and start % inner):
        groups[dim] = sized(group, size)  # the ends fall inside an inner axis
        return lineage.replace(dims=tuple(groups))
    begin = None if start is None or outer.start is None else outer.start + start // inner
    kept = outer._replace(size=size // inner, start=begin)
    groups[dim] = (*group[:lead], kept, *group[lead + 1 :])
    parts = lineage.parts
    if begin is not None and outer.axis != FILLER:
        parts |= {(outer.axis, begin * outer.stride, (begin + kept.size) * outer.stride)}
    return lineage.replace(dims=tuple(groups), parts=parts)


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
                # An axis of size one beside merged axes belongs to them: (3, 3, 1, c) -> (9, c).
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
    """Neighboring pieces of one axis made one again."""
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
) -> list[dict[str, Group]]:
    """Fan-in and fan-out of every parameter in a product of parameters that meets an activation.

    Dimensions contracted with the activation are fan-in, free ones fan-out. In ``x @ (B @ A)`` the axis that B and A
    share is hidden: data flows into B, so there it is B's fan-out, and through it into A, so there it is A's fan-in.

    Returns:
        For each origin the pieces by side, "in", "out" or "batch". A hidden piece with no side stands under "?".
    """
    sides: list[dict[str, list[Atom]]] = []
    for origin in origins:
        free = [dim for dim in range(len(origin.dims)) if dim not in contracting and dim not in batch]
        named = {"in": contracting, "out": free, "batch": batch}
        sides.append({side: list(origin.atoms(dims)) for side, dims in named.items()})
    opposite = {"in": "out", "out": "in"}
    open_groups = {(i, j) for i, origin in enumerate(origins) for j in range(len(origin.hidden))}
    link_side: dict[tuple[int, str], str] = {}  # (contraction, its side) -> side of the data flow

    progress = True
    while progress and open_groups:
        progress = False
        for i, j in sorted(open_groups):
            link, end, atoms = origins[i].hidden[j]
            other_end = "right" if end == "left" else "left"
            known = [side for side in ("in", "out") if any(atom.size > 1 for atom in sides[i][side])]
            still_open = sum(index == i for index, _ in open_groups)
            if (link, other_end) in link_side:
                side = opposite[link_side[link, other_end]]
            elif len(known) == 1 and still_open == 1:
                side = opposite[known[0]]
            else:
                continue
            sides[i][side].extend(atoms)
            link_side[link, end] = side
            open_groups.discard((i, j))
            progress = True
    resolved: list[dict[str, Group]] = [{side: tuple(atoms) for side, atoms in entry.items()} for entry in sides]
    for i, j in open_groups:
        resolved[i]["?"] = resolved[i].get("?", ()) + origins[i].hidden[j][2]
    return resolved
