"""Rules of operations that rearrange, cut or join arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from jaxopt_tour.routing.by_use import lineage as ln
from jaxopt_tour.routing.by_use.interpreter import (
    Key,
    Use,
    Value,
    Walker,
    merge_tracks,
    merge_values,
    union,
    without_rule,
)
from jaxopt_tour.routing.by_use.lineage import Lineage


# y[j, i] = x[i, j]
def transpose(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    """Permute dimensions."""
    return [values[0].map(lambda x: ln.permute(x, eqn.params["permutation"]))]


# y[i * n + j] = x[i, j], and back
def reshape(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    """Merge and split dimensions; where that is not possible, stop following a parameter."""
    order, shape = eqn.params.get("dimensions"), eqn.outvars[0].aval.shape

    def follow(lineage: Lineage) -> Lineage | None:
        reshaped = ln.reshape(ln.permute(lineage, order) if order is not None else lineage, shape)
        return lineage.blurred("reshape") if reshaped is None and lineage.node is None else reshaped

    return [values[0].map(follow)]


# y[b, i] = x[i]
def broadcast(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    """Add dimensions."""
    shape, dims = eqn.outvars[0].aval.shape, [int(dim) for dim in eqn.params["broadcast_dimensions"]]
    return [values[0].map(lambda x: ln.broadcast(x, shape, dims))]


# y[k * n + i] = x[i]
def tile(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    """Repeat dimensions."""
    return [values[0].map(lambda x: ln.tile(x, [int(count) for count in eqn.params["reps"]]))]


# y[i] = x[0, i]
def squeeze(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    """Drop dimensions of size one."""
    rank = len(eqn.invars[0].aval.shape)
    return [values[0].map(lambda x: ln.squeeze(x, [dim % rank for dim in eqn.params["dimensions"]]))]


# y[i] = x[start + stride * i]
def slice_(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    """Follow a slice, and record which part of a fan-out it is."""
    starts, strides = eqn.params["start_indices"], eqn.params["strides"]
    sizes = eqn.outvars[0].aval.shape

    def follow(lineage: Lineage) -> Lineage:
        for dim, size in enumerate(sizes):
            stride, group = 1 if strides is None else int(strides[dim]), lineage.dims[dim]
            is_every = len(group) == 1 and group[0].axis != ln.FILLER and group[0].size == size * stride
            if stride > 1 and is_every and group[0].start == 0 and starts[dim] < stride:
                lineage = ln.strided(lineage, dim, int(starts[dim]), stride)
            else:
                lineage = ln.cut(lineage, dim, int(starts[dim]) if stride == 1 else None, size)
        return lineage

    return [walker.cut(values[0].map(follow))]


# y_0[i] = x[i], y_1[i] = x[n_0 + i], ...
def split(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    """Follow consecutive slices, and record which parts of a fan-out they are."""
    axis, sizes = eqn.params["axis"], [int(size) for size in eqn.params["sizes"]]

    def part(start: int, size: int) -> Value:
        return walker.cut(values[0].map(lambda x: ln.cut(x, axis, start, size)))

    return [part(sum(sizes[:i]), size) for i, size in enumerate(sizes)]


# y = [x_0, x_1, ...]   parameters joined to activations: learned inputs, such as class tokens
def concatenate(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    """Join arrays along a dimension; parameters joined to activations are learned inputs."""
    return _joined(walker, values, key, "concatenate", int(eqn.params["dimension"]), eqn.outvars[0].aval.shape)


# y[0] = x_0, y[1] = x_1, ...
def stack(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    """Join arrays along a new dimension."""
    axis, shape = int(eqn.params["axis"]), eqn.outvars[0].aval.shape
    single = [1 if dim == axis else size for dim, size in enumerate(shape)]
    dims = [dim for dim in range(len(shape)) if dim != axis]
    values = [value.map(lambda x: ln.broadcast(x, single, dims)) for value in values]
    return _joined(walker, values, key, "stack", axis, shape)


def _joined(
    walker: Walker, values: Sequence[Value], key: Key, name: str, axis: int, shape: Sequence[int]
) -> list[Value]:  # fmt: skip
    def follow(lineage: Lineage) -> Lineage:
        groups = list(lineage.dims)
        groups[axis] = ln.sized(groups[axis], shape[axis])
        return lineage.replace(dims=tuple(groups))

    if any(value.active for value in values):
        for value in values:
            for origin in value.origins if value.is_weight else ():
                walker.use(key, Use("not understood" if origin.opaque else "data", name, origin))
        return [Value(True, union(values), tracks=_rejoined(walker, values, axis, shape))]
    return [merge_values([value.map(follow) for value in values], False)]


# y = [-x[n / 2:], x[:n / 2]]   a rotation
def _rejoined(walker: Walker, values: Sequence[Value], axis: int, shape: Sequence[int]) -> tuple[Lineage, ...]:
    """Tracks of results of which several parts are joined again, as in rotary embeddings: these are no projections."""
    by_place: dict[tuple[int, int], list[Lineage]] = {}
    for value in values:
        for track in value.tracks:
            if track.node is not None and not track.head_dims:
                by_place.setdefault((track.node, track.param), []).append(track)
    joined = []
    for place, tracks in by_place.items():
        common = frozenset.intersection(*(track.parts for track in tracks))
        parts = frozenset().union(*(track.parts for track in tracks)) - common
        if parts:
            walker.record.rejoined[place] = walker.record.rejoined.get(place, frozenset()) | parts
            groups = list(tracks[0].dims)
            groups[axis] = ln.sized(groups[axis], shape[axis])
            joined.append(tracks[0].replace(dims=tuple(groups), parts=common))
    return merge_tracks(joined)


# y = [0, x, 0]
def pad(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    """Enlarge dimensions by constants."""
    shape = eqn.outvars[0].aval.shape
    if values[1].origins:
        return without_rule(walker, eqn, values, key)

    value = values[0].map(lambda x: x.replace(dims=tuple(map(ln.sized, x.dims, shape))))
    return [dataclasses.replace(value, tracks=())]
