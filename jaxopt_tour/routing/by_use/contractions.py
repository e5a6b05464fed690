"""Rules of contractions: dot products and convolutions.

In the patterns x is an activation and w, v are parameters; b is a batch of activations, g a batch of matrices.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

from jaxopt_tour.routing.by_use import lineage as ln
from jaxopt_tour.routing.by_use.attention import attention, into_heads
from jaxopt_tour.routing.by_use.interpreter import (
    Key,
    Use,
    Value,
    Walker,
    merge_tracks,
    union,
    varying_dims,
    without_rule,
)
from jaxopt_tour.routing.by_use.lineage import Lineage


def contract(
    walker: Walker, key: Key, name: str, weight: Value, others: Sequence[Value], over: Sequence[int],
    batch: Sequence[int], place: Callable[[Lineage], Lineage], depthwise: bool = False, looked_up: bool = False,
) -> Value:  # fmt: skip
    """Record the contraction of parameters with an activation; `place` gives their lineage in the result."""
    if any(origin.opaque for origin in weight.origins):
        for origin in weight.origins:
            walker.use(key, Use("not understood", origin.opaque or name, origin))
    origins = [origin for origin in weight.origins if not origin.opaque]
    tracks = []
    node = walker.contraction(key, others)
    for origin, sides in zip(origins, ln.resolve_sides(origins, over, batch), strict=True):
        if looked_up and not (_varies(sides["in"]) and _varies(sides["out"])):
            continue  # an embedded token in a product with another activation
        walker.use(key, Use("contract", name, origin, sides, node, depthwise=depthwise))
        tracks.append(place(origin).replace(node=node, parts=frozenset()))
    if looked_up and not tracks:
        return Value(True, union([weight, *others]))
    return Value(True, frozenset({node}), tracks=merge_tracks(tracks))


# y[b, i] = x[b, i] w[i]   w: vector, a scale that is written as a batched product
def _scaled(
    walker: Walker, key: Key, name: str, values: Sequence[Value], side: int, place: Callable[[Lineage], Lineage]
) -> Value:  # fmt: skip
    """Record an elementwise product; the activation is followed through it."""
    for origin in values[side].origins:
        walker.use(key, Use("not understood" if origin.opaque else "scale", origin.opaque or name, origin))
    return Value(True, union(values), tracks=merge_tracks(map(place, values[1 - side].tracks)))


def _varies(group: ln.Group) -> bool:
    return any(atom.size > 1 for atom in group)


# y[b, o] = sum_i x[b, i] w[i, o]               w: matrix, i fan-in, o fan-out
# y[g, b, o] = sum_i x[g, b, i] w[g, i, o]      w: matrices, g batch
# y[b, g, o] = sum_i x[b, i] w[g, i, o]         w: matrix with fan-out (g, o), unless g is a batch of what follows
# y[b, i] = sum_n (x[b] == n) w[n, i]           w: embedding
# y[i, o] = sum_k w[i, k] v[k, o]               w, v: factors of a matrix
def dot_general(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    """Classify the operands, and record a parameter that meets an activation as contracted or looked up."""
    over, batch = eqn.params["dimension_numbers"]
    return [product(walker, eqn, values[:2], key, over, batch)]


def product(
    walker: Walker, eqn: Any, values: Sequence[Value], key: Key,
    over: tuple[Sequence[int], Sequence[int]], batch: tuple[Sequence[int], Sequence[int]],
) -> Value:  # fmt: skip
    """The value of a product of two operands, whose uses are recorded."""
    name, shape = eqn.primitive.name, eqn.outvars[0].aval.shape
    ranks = [len(var.aval.shape) for var in eqn.invars[:2]]
    free = [[dim for dim in range(ranks[i]) if dim not in (*over[i], *batch[i])] for i in (0, 1)]

    def place(side: int) -> Callable[[Lineage], Lineage]:
        start = len(batch[0]) + (len(free[0]) if side else 0)

        def put(lineage: Lineage) -> Lineage:
            groups = [ln.filler(size) for size in shape]
            for i, dim in enumerate(batch[side]):
                groups[i] = lineage.dims[dim]
            for i, dim in enumerate(free[side]):
                groups[start + i] = lineage.dims[dim]
            return lineage.replace(dims=tuple(groups))

        return put

    for side in (0, 1):
        if values[side].is_weight and values[1 - side].active and not over[side] and not free[side]:
            return _scaled(walker, key, name, values, side, place(1 - side))
    for side in (0, 1):
        operand, other = values[side], values[1 - side]
        for track in operand.tracks:
            if other.is_weight:
                walker.stack(track, batch[side])
            elif other.active:
                walker.stack(track, over[side], summed=True)
    for side in (0, 1):
        operand, other = values[side], values[1 - side]
        if operand.is_weight and other.active and not other.is_weight:
            if other.onehot and over[side]:
                for origin in operand.origins:
                    walker.use(key, Use("not understood" if origin.opaque else "gather", "one-hot product", origin))
                put = place(side)
                followed = operand.map(lambda x: ln.remove(put(x), x.atoms(over[side]), "gather"))  # noqa: B023
                return dataclasses.replace(followed, active=True, reach=other.reach)
            into_heads(walker, walker.number(key), operand, other, over[side], over[1 - side])
            return contract(walker, key, name, operand, [other], over[side], batch[side], place(side))
    if values[0].active and values[1].active:
        for side in (0, 1):
            if values[side].origins:
                return contract(
                    walker, key, name, values[side], values, over[side], batch[side], place(side), looked_up=True
                )
        tracks = [
            track for side in (0, 1) for track in attention(walker, values[side], over[side], batch[side], place(side))
        ]
        return Value(True, union(values), tracks=merge_tracks(tracks))
    if values[0].is_weight and values[1].is_weight:
        return _parameters_product(walker, key, name, values, over, batch, place)
    if values[0].is_weight or values[1].is_weight:
        side = 0 if values[0].is_weight else 1
        start = len(batch[0]) + (0 if side else len(free[0]))
        free_of_constant = range(start, start + len(free[1 - side]))
        return values[side].map(lambda x: _mixed(place(side)(x), x.atoms(over[side]), free_of_constant, shape))
    return Value(any(value.active for value in values), union(values))


# y[o, k] = sum_i w[i, k] c[i, o]   c constant: axis o of y is a mixture of axis i of w
def _mixed(lineage: Lineage, atoms: ln.Group, dims: range, shape: Sequence[int]) -> Lineage:
    """Axes contracted with a constant matrix become its free dimension; contracted with a vector, they are summed."""
    target = next((dim for dim in dims if shape[dim] > 1), None)
    if target is None or not atoms:
        return ln.remove(lineage, atoms, "sum")
    groups = list(lineage.dims)
    groups[target] = ln.sized(atoms, shape[target])
    return lineage.replace(dims=tuple(groups))


def _is_data(value: Value) -> bool:
    """Whether parameters act as activations: they are broadcast over a batch, or passed through a nonlinearity."""
    if any(origin.opaque or origin.nonlinear for origin in value.origins):
        return True
    covered = {dim for origin in value.origins for dim in varying_dims(origin)}
    sizes = [math.prod(atom.size for atom in group) for group in value.origins[0].dims]
    return any(size > 1 and dim not in covered for dim, size in enumerate(sizes))


# y[i, o] = sum_k w[i, k] v[k, o]   w, v: factors of a matrix, or w a learned input and v a matrix
def _parameters_product(
    walker: Walker, key: Key, name: str, values: Sequence[Value], over: tuple[Sequence[int], Sequence[int]],
    batch: tuple[Sequence[int], Sequence[int]], place: Callable[[int], Callable[[Lineage], Lineage]],
) -> Value:  # fmt: skip
    """A product of parameters: a factored matrix, or a learned input contracted with a matrix."""
    is_data = [_is_data(value) for value in values]
    if is_data[0] != is_data[1]:
        data = 0 if is_data[0] else 1
        for origin in values[data].origins:
            walker.use(key, Use("not understood" if origin.opaque else "data", origin.opaque or name, origin))
        side = 1 - data
        return contract(walker, key, name, values[side], [values[data]], over[side], batch[side], place(side))
    if any(origin.opaque for value in values for origin in value.origins):
        return Value(origins=tuple(origin.blurred(name) for value in values for origin in value.origins))
    link, origins = walker.number(key), []
    ends: tuple[ln.End, ln.End] = ("left", "right")
    for side, end in enumerate(ends):
        for origin in values[side].origins:
            hidden = (*origin.hidden, (link, end, origin.atoms(over[side])))
            origins.append(place(side)(origin).replace(hidden=hidden))
    return Value(origins=tuple(origins))


# y[b, t, o] = sum_(k, i) x[b, t + k, i] w[k, i, o]   w: matrix, (k, i) fan-in, o fan-out
# y[b, t, i] = sum_k x[b, t + k, i] w[k, 0, i]        w: depthwise
def convolution(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    """Record a kernel: window and input channels are fan-in, output channels fan-out, groups the batch."""
    image, kernel = values
    if not kernel.is_weight or not image.active or eqn.params["batch_group_count"] != 1:
        return without_rule(walker, eqn, values, key)
    out_dim, in_dim, *window = eqn.params["dimension_numbers"].rhs_spec
    shape, channel = eqn.outvars[0].aval.shape, eqn.params["dimension_numbers"].out_spec[1]
    groups = eqn.params["feature_group_count"]

    def regroup(origin: Lineage) -> Lineage:
        """(kh, kw, in, groups * out) -> (groups, out, in, kh, kw)."""
        sizes = [math.prod(atom.size for atom in group) for group in origin.dims]
        order = [out_dim, in_dim, *window]
        split = [groups, sizes[out_dim] // groups, *(sizes[dim] for dim in order[1:])]
        return ln.reshape(ln.permute(origin, order), split) or origin.blurred("convolution")

    def place(origin: Lineage) -> Lineage:
        dims = [ln.filler(size) for size in shape]
        dims[channel] = origin.dims[0] + origin.dims[1]
        return origin.replace(dims=tuple(dims))

    grouped = kernel.map(regroup)
    channels = eqn.invars[1].aval.shape[out_dim]
    has_groups = any(  # a vmapped kernel has a batch axis in place of groups
        atom.size < origin.shape[atom.axis] or groups == origin.shape[atom.axis] == channels
        for origin in grouped.origins
        if not origin.opaque
        for atom in origin.atoms([0])
    )
    depthwise = groups > 1 and has_groups and eqn.invars[1].aval.shape[in_dim] == 1
    fan_in = range(2, 3 + len(window))
    return [contract(walker, key, "conv_general_dilated", grouped, [image], fan_in, [0], place, depthwise)]
