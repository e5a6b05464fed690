"""Rules of operations that read an array at computed positions."""

from __future__ import annotations

import math
from typing import Any

from jaxopt_tour.routing.by_use import lineage as ln
from jaxopt_tour.routing.by_use.interpreter import Key, Use, Value, Walker, merge_values, union
from jaxopt_tour.routing.by_use.lineage import Lineage


def _looked_up(walker: Walker, key: Key, name: str, table: Value, followed: Value, index: Value) -> Value:
    """The value read at an index. Where the index depends on the inputs, a parameter that is read is a table."""
    if not index.active:
        return followed
    if table.is_weight:
        for origin in table.origins:
            walker.use(key, Use("not understood" if origin.opaque else "gather", name, origin))
    origins = tuple(origin for origin in followed.origins if not origin.opaque)
    return Value(True, union([table, index]), origins, followed.tracks if table.active else ())


# y[i] = w[n + i]   w: embedding if n depends on the inputs; else a layer or a position
def dynamic_slice(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    """Follow a slice at a computed position."""
    sizes = eqn.params["slice_sizes"]

    def follow(lineage: Lineage) -> Lineage:
        for dim, size in enumerate(sizes):
            lineage = ln.cut(lineage, dim, None, size)
        return lineage

    index = merge_values(values[1:], any(value.active for value in values[1:]))
    return [_looked_up(walker, key, "dynamic_slice", values[0], values[0].map(follow), index)]


# y[b, i] = w[n[b], i]   w: embedding if n depends on the inputs; else a layer or positions
def gather(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    """Follow rows at computed positions."""
    numbers, shape = eqn.params["dimension_numbers"], eqn.outvars[0].aval.shape
    sizes, offsets = eqn.params["slice_sizes"], tuple(numbers.offset_dims)
    collapsed, batching = tuple(numbers.collapsed_slice_dims), tuple(numbers.operand_batching_dims)
    table, index = values[0], values[1]
    window = [dim for dim in range(len(sizes)) if dim not in collapsed + batching]
    looked_up = [dim for dim in range(len(shape)) if dim not in offsets]

    def follow(lineage: Lineage) -> Lineage:
        groups = [ln.filler(size) for size in shape]
        for dim, place in zip(window, offsets, strict=True):
            groups[place] = ln.cut(lineage, dim, None, sizes[dim]).dims[dim]
        removed = lineage.atoms(collapsed + batching)
        if index.active or not looked_up or math.prod(shape[dim] for dim in looked_up) == 1:
            return ln.remove(lineage, removed, "gather" if index.active else "index").replace(dims=tuple(groups))
        # Rows at constant positions: the axis of rows becomes the first dimension of the positions.
        groups[looked_up[0]] = ln.sized(removed, shape[looked_up[0]])
        return lineage.replace(dims=tuple(groups))

    return [_looked_up(walker, key, "gather", table, table.map(follow), index)]
