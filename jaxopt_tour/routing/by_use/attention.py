"""Heads of attention, seen in the products of two activations."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from jaxopt_tour.routing.by_use import lineage as ln
from jaxopt_tour.routing.by_use.interpreter import Heads, Value, Walker
from jaxopt_tour.routing.by_use.lineage import Group, Lineage


# s[b, h, t, u] = sum_i q[b, t, h, i] k[b, u, h, i]   q, k: h numbers heads of i elements
# y[b, h, t, i] = sum_u p[b, h, t, u] v[b, u, h, i]   v: the same, and y has its heads
def attention(
    walker: Walker, operand: Value, over: Sequence[int], batch: Sequence[int], place: Callable[[Lineage], Lineage]
) -> Iterator[Lineage]:
    """Record the heads in an operand of a product of activations, and give the tracks of values in the result."""
    for track in operand.tracks:
        if track.node is None or track.head_dims or track.sharded:
            continue
        free = [dim for dim in range(len(track.dims)) if dim not in over and dim not in batch]
        contracted, across, along = (_varying(track.atoms(dims)) for dims in (over, batch, free))
        removed = tuple(atom for how, atom in track.removed if how == "index")
        where = (track.node, track.param)
        if contracted and (across or along):
            walker.heads(where, Heads(across + along, contracted, removed))
        elif not contracted and along:
            if across:
                walker.heads(where, Heads(across, along, removed))
            yield place(track).replace(head_dims=along, parts=frozenset())


def _varying(atoms: Group) -> Group:
    return tuple(atom for atom in atoms if atom.size > 1)


# z[b, t, o] = sum_(h, i) y[b, t, h, i] w[h, i, o]   w: h numbers heads of i elements of fan-in
def into_heads(
    walker: Walker, node: int, weight: Value, other: Value, over: Sequence[int], over_other: Sequence[int]
) -> None:
    """Record the heads in the fan-in of parameters that meet the result of attention."""
    for origin in weight.origins:
        if origin.opaque or origin.sharded:
            continue
        order = sorted(range(len(over)), key=lambda i: min((a.axis for a in origin.dims[over[i]]), default=0))
        atoms = [atom for i in order for atom in origin.dims[over[i]] if atom.size > 1]
        is_whole = [atom.axis for atom in atoms] == sorted({atom.axis for atom in atoms})
        if not is_whole or any(atom.size != origin.shape[atom.axis] for atom in atoms):
            continue
        for track in other.tracks:
            groups = [atom for i in order for atom in track.dims[over_other[i]] if atom.size > 1]
            size = math.prod(atom.size for atom in track.head_dims)
            inner = groups[-1] if groups else None
            if not track.head_dims or inner is None or inner.axis != track.head_dims[-1].axis:
                continue
            # (4 heads * 64) may be one atom after the reshape, or end in the atom of 64.
            if inner.stride == track.head_dims[-1].stride and inner.size % size == 0:
                walker.heads((node, origin.param), Heads((), (ln.Atom(ln.FILLER, size),), fan_in=True))
