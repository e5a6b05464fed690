"""What each operation of a jaxpr does to a followed parameter: one rule an operation.

Operations without a rule are not guessed at: a parameter that enters one is "unknown" from there on.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

from jaxopt_tour.routing.by_use import lineage as ln
from jaxopt_tour.routing.by_use.interpreter import Key, Use, Value, Walker, merge_tracks, own_dims, union
from jaxopt_tour.routing.by_use.lineage import Lineage


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Elementwise and linear, or no operation at all: output i is input i.
_SAME = _names(
    "neg convert_element_type copy copy_p stop_gradient reduce_precision real conj sharding_constraint mesh_cast "
    "reshard layout_constraint optimization_barrier device_put name pvary pcast pbroadcast psum psum2 psum_invariant "
    "pmax pmin all_gather all_gather_invariant all_gather_reduced rev reduce_and reduce_or"
)
_UNARY = _names(
    "abs acos acosh asin asinh atan atanh bessel_i0e bessel_i1e cbrt ceil clz cos cosh digamma erf erf_inv erfc exp "
    "exp2 expm1 floor imag integer_pow is_finite lgamma log log1p logistic not population_count round rsqrt sign sin "
    "sinh sqrt square tan tanh"
)
_BINARY = _names(
    "add add_any and atan2 clamp complex div eq ge gt le lt max min mul ne nextafter or pow rem select_n "
    "shift_left shift_right_arithmetic shift_right_logical sub xor"
)
_ADDITIVE = frozenset({"add", "add_any", "sub"})
_MULTIPLICATIVE = frozenset({"mul", "div"})
_REDUCTIONS = _names("reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or argmax argmin")
# A one-hot vector stays one through these; summed ones are a bag of lookups.
_KEEPS_ONEHOT = _names(
    "convert_element_type reshape broadcast_in_dim squeeze transpose stop_gradient reduce_sum reduce_max copy"
)


def apply(walker: Walker, eqn: Any, values: list[Value], key: Key) -> Sequence[Value]:
    """The values of an equation's outputs."""
    name = eqn.primitive.name
    if name == "scan":
        return walker.scan(eqn, values, key)
    if name == "while":
        return walker.loop(eqn, values, key)
    if name == "cond":
        return walker.branches(eqn, values, key)
    inner = _inner_jaxpr(eqn)
    if inner is not None:
        return walker.run(inner, values, key)
    followed = any(value.origins or value.tracks for value in values)
    if not followed or (rule := _RULES.get(name)) is None:
        return _default(walker, eqn, values, key)
    return [_with_flags(name, values, value) for value in rule(walker, eqn, values, key)]


def _inner_jaxpr(eqn: Any) -> Any:
    """The jaxpr that a call (jit, remat, custom derivatives, shard_map, ...) calls with the same arguments."""
    found = {
        name: value
        for name, value in eqn.params.items()
        if hasattr(getattr(value, "jaxpr", value), "eqns")
        and len(getattr(value, "jaxpr", value).invars) == len(eqn.invars)
        and len(getattr(value, "jaxpr", value).outvars) == len(eqn.outvars)
    }
    if len(found) > 1:
        found = {name: found[name] for name in ("call_jaxpr", "jaxpr", "fun_jaxpr", "callee") if name in found}
    return next(iter(found.values()), None)


def _with_flags(name: str, values: Sequence[Value], result: Value) -> Value:
    """The result with the marks "one-hot" and "counter" where the operation keeps or makes them."""
    if name == "iota":
        return dataclasses.replace(result, counter=True)
    if name == "eq" and any(value.counter for value in values) and any(value.active for value in values):
        return dataclasses.replace(result, onehot=True)
    if name in _KEEPS_ONEHOT and (values[0].onehot or values[0].counter):
        return dataclasses.replace(result, onehot=values[0].onehot, counter=values[0].counter)
    return result


def _default(walker: Walker, eqn: Any, values: Sequence[Value], key: Key) -> list[Value]:
    """Activations and constants, and every operation that has no rule."""
    name = eqn.primitive.name
    active = any(value.active for value in values)
    weights = [origin for value in values if value.is_weight for origin in value.origins]
    if active:
        for origin in weights:
            walker.use(key, Use("unknown", name, origin))
        result = Value(True, union(values))
    else:
        result = Value(reach=union(values), origins=tuple(dict.fromkeys(origin.blurred(name) for origin in weights)))
    return [_with_flags(name, values, result)] * len(eqn.outvars)


def _merged(values: Sequence[Value], active: bool) -> Value:
    """The result of an operation on aligned values; only lineages that the result still is."""
    origins = [origin for value in values if value.active == active for origin in value.origins]
    tracks = [track for value in values for track in value.tracks]
    return Value(active, union(values), tuple(dict.fromkeys(origins)), merge_tracks(tracks))


# Elementwise


def _same(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    return values


def _unary(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    value = values[0]
    origins = () if value.active else tuple(origin.replace(nonlinear=True) for origin in value.origins)
    return [Value(value.active, value.reach, origins, value.tracks)]


def _binary(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    name, shape = eqn.primitive.name, eqn.outvars[0].aval.shape
    aligned = [value.map(lambda x: ln.align(x, shape)) for value in values]
    acts = [(var, value) for var, value in zip(eqn.invars, aligned, strict=True) if value.active]
    if not acts:
        return [_merged(aligned, False)]
    tracks = merge_tracks(track for _, value in acts for track in value.tracks)
    for value in aligned:
        for origin in value.origins if value.is_weight else ():
            dims = [] if origin.opaque else list(own_dims(origin))
            matched = any(all(track.atoms([dim]) for dim in dims) for track in tracks)
            # x[:, :, None] * W[None]: the activation is constant along one axis of W and varies along another.
            constant = [dim for dim in dims if all(_is_constant(var.aval.shape, dim, len(shape)) for var, _ in acts)]
            outer = name in _MULTIPLICATIVE and 0 < len(constant) < len(dims)
            op = "unknown" if origin.opaque else "add" if name in _ADDITIVE else "scale"
            walker.use(key, Use(op, name, origin, outer=outer, matched=matched))
    # Parameters that the inputs looked up are still themselves beside constants, such as the mask of jnp.take.
    alone = len(acts) == 1 and not any(value.is_weight for value in aligned)
    return [Value(True, union(values), acts[0][1].origins if alone else (), tracks)]


def _is_constant(shape: Sequence[int], dim: int, rank: int) -> bool:
    """Whether an operand of this shape is stretched along a dimension of the result of this rank."""
    dim -= rank - len(shape)
    return dim < 0 or shape[dim] == 1


# Structure


def _transpose(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    return [values[0].map(lambda x: ln.permute(x, eqn.params["permutation"]))]


def _reshape(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    order, shape = eqn.params.get("dimensions"), eqn.outvars[0].aval.shape

    def follow(lineage: Lineage) -> Lineage | None:
        reshaped = ln.reshape(ln.permute(lineage, order) if order is not None else lineage, shape)
        return lineage.blurred("reshape") if reshaped is None and lineage.node is None else reshaped

    return [values[0].map(follow)]


def _broadcast(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    shape, dims = eqn.outvars[0].aval.shape, [int(dim) for dim in eqn.params["broadcast_dimensions"]]
    return [values[0].map(lambda x: ln.broadcast(x, shape, dims))]


def _tile(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    return [values[0].map(lambda x: ln.tile(x, [int(count) for count in eqn.params["reps"]]))]


def _squeeze(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    rank = len(eqn.invars[0].aval.shape)
    return [values[0].map(lambda x: ln.squeeze(x, [dim % rank for dim in eqn.params["dimensions"]]))]


def _slice(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    starts, strides = eqn.params["start_indices"], eqn.params["strides"]
    sizes = eqn.outvars[0].aval.shape

    def follow(lineage: Lineage) -> Lineage:
        for dim, size in enumerate(sizes):
            contiguous = strides is None or strides[dim] == 1
            lineage = ln.cut(lineage, dim, int(starts[dim]) if contiguous else None, size)
        return lineage

    return [walker.cut(values[0].map(follow))]


def _split(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    axis, sizes = eqn.params["axis"], [int(size) for size in eqn.params["sizes"]]

    def piece(start: int, size: int) -> Value:
        return walker.cut(values[0].map(lambda x: ln.cut(x, axis, start, size)))

    return [piece(sum(sizes[:i]), size) for i, size in enumerate(sizes)]


def _looked_up(walker: Walker, key: Key, name: str, table: Value, followed: Value, index: Value) -> Value:
    """A parameter read at an index: a table when the inputs say where, else a layer or a position."""
    if not index.active:
        return followed
    if table.is_weight:
        for origin in table.origins:
            walker.use(key, Use("unknown" if origin.opaque else "gather", name, origin))
    origins = tuple(origin for origin in followed.origins if not origin.opaque)
    return Value(True, union([table, index]), origins, followed.tracks if table.active else ())


def _dynamic_slice(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    sizes = eqn.params["slice_sizes"]

    def follow(lineage: Lineage) -> Lineage:
        for dim, size in enumerate(sizes):
            lineage = ln.cut(lineage, dim, None, size)
        return lineage

    index = _merged(values[1:], any(value.active for value in values[1:]))
    return [_looked_up(walker, key, "dynamic_slice", values[0], values[0].map(follow), index)]


def _gather(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
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
        gone = lineage.atoms(collapsed + batching)
        if index.active or not looked_up or math.prod(shape[dim] for dim in looked_up) == 1:
            return ln.remove(lineage, gone, "gather" if index.active else "index").replace(dims=tuple(groups))
        # Rows at constant positions: the rows' axis stands where the positions do.
        groups[looked_up[0]] = ln.sized(gone, shape[looked_up[0]])
        return lineage.replace(dims=tuple(groups))

    return [_looked_up(walker, key, "gather", table, table.map(follow), index)]


def _concatenate(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    axis, shape = eqn.params["dimension"], eqn.outvars[0].aval.shape

    def follow(lineage: Lineage) -> Lineage:
        groups = list(lineage.dims)
        groups[axis] = ln.sized(groups[axis], shape[axis])
        return lineage.replace(dims=tuple(groups))

    if any(value.active for value in values):
        for value in values:
            for origin in value.origins if value.is_weight else ():
                walker.use(key, Use("unknown" if origin.opaque else "data", "concatenate", origin))
        return [Value(True, union(values))]
    return [_merged([value.map(follow) for value in values], False)]


def _pad(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    shape = eqn.outvars[0].aval.shape
    if values[1].origins:
        return _default(walker, eqn, values, key)

    value = values[0].map(lambda x: x.replace(dims=tuple(map(ln.sized, x.dims, shape))))
    return [dataclasses.replace(value, tracks=())]


def _reduce(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    axes = [int(axis) for axis in eqn.params["axes"]]
    for track in values[0].tracks:
        _note_stack(walker, track, axes)
    value = values[0].map(lambda x: ln.squeeze(x, axes, "sum"))
    # A sum over experts or parameters: what is left is no longer the parameter's own matrix.
    origins = tuple(origin.replace(nonlinear=True) for origin in value.origins) if not value.active else ()
    return [dataclasses.replace(value, origins=origins)]


def _note_stack(walker: Walker, track: Lineage, dims: Sequence[int]) -> None:
    """Note axes of a contraction's result that are summed over on their own or kept apart by the next parameter."""
    axes = {atom.axis for atom in track.atoms(dims) if atom.size == track.shape[atom.axis]}
    if axes:
        walker.stack(track, axes)


# Products


def _contract(
    walker: Walker, key: Key, name: str, weight: Value, others: Sequence[Value], over: Sequence[int],
    batch: Sequence[int], place: Callable[[Lineage], Lineage], depthwise: bool = False, looked_up: bool = False,
) -> Value:  # fmt: skip
    """Record the contraction of parameters with an activation; ``place`` puts their dimensions into the result's."""
    if any(origin.opaque for origin in weight.origins):
        for origin in weight.origins:
            walker.use(key, Use("unknown", origin.opaque or name, origin))
    origins = [origin for origin in weight.origins if not origin.opaque]
    tracks = []
    node = walker.contraction(key, others)
    for origin, sides in zip(origins, ln.resolve_sides(origins, over, batch), strict=True):
        if looked_up and not (_varies(sides["in"]) and _varies(sides["out"])):
            continue  # an embedded token that meets another activation
        walker.use(key, Use("contract", name, origin, sides, node, depthwise=depthwise))
        tracks.append(place(origin).replace(node=node, parts=frozenset()))
    if looked_up and not tracks:
        return Value(True, union([weight, *others]))
    return Value(True, frozenset({node}), tracks=merge_tracks(tracks))


def _varies(group: ln.Group) -> bool:
    return any(atom.size > 1 for atom in group)


def _dot_general(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    over, batch = eqn.params["dimension_numbers"]
    return [_product(walker, eqn, values[:2], key, over, batch)]


def _ragged_dot(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    numbers = eqn.params["ragged_dot_dimension_numbers"]
    over, batch = numbers.dot_dimension_numbers
    groups = tuple(numbers.rhs_group_dimensions)
    if not values[1].is_weight or not values[0].active or not groups or batch[1]:
        return _default(walker, eqn, values, key)
    shape = eqn.outvars[0].aval.shape
    free = [dim for dim in range(len(eqn.invars[1].aval.shape)) if dim not in (*over[1], *groups)]

    def place(lineage: Lineage) -> Lineage:
        dims = [ln.filler(size) for size in shape[: len(shape) - len(free)]] + [lineage.dims[dim] for dim in free]
        return lineage.replace(dims=tuple(dims))

    return [_contract(walker, key, "ragged_dot", values[1], values[:1], tuple(over[1]), groups, place)]


def _product(
    walker: Walker, eqn: Any, values: Sequence[Value], key: Key,
    over: tuple[Sequence[int], Sequence[int]], batch: tuple[Sequence[int], Sequence[int]],
) -> Value:  # fmt: skip
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
        me, other = values[side], values[1 - side]
        for track in me.tracks:
            if other.is_weight:
                _note_stack(walker, track, batch[side])
            elif other.active:
                _note_stack(walker, track, over[side])
    for side in (0, 1):
        me, other = values[side], values[1 - side]
        if me.is_weight and other.active and not other.is_weight:
            if other.onehot and over[side]:
                for origin in me.origins:
                    walker.use(key, Use("unknown" if origin.opaque else "gather", "one-hot product", origin))
                put = place(side)
                followed = me.map(lambda x: ln.remove(put(x), x.atoms(over[side]), "gather"))  # noqa: B023
                return dataclasses.replace(followed, active=True, reach=other.reach)
            return _contract(walker, key, name, me, [other], over[side], batch[side], place(side))
    if values[0].active and values[1].active:
        for side in (0, 1):
            if values[side].origins:
                return _contract(
                    walker, key, name, values[side], values, over[side], batch[side], place(side), looked_up=True
                )
        return Value(True, union(values))
    if values[0].is_weight and values[1].is_weight:
        return _weights_product(walker, key, name, values, over, batch, place)
    if values[0].is_weight or values[1].is_weight:
        side = 0 if values[0].is_weight else 1
        room = len(batch[0]) + (0 if side else len(free[0]))
        return values[side].map(
            lambda x: _mixed(place(side)(x), x.atoms(over[side]), range(room, room + len(free[1 - side])), shape)
        )
    return Value(any(value.active for value in values), union(values))


def _mixed(lineage: Lineage, atoms: ln.Group, dims: range, shape: Sequence[int]) -> Lineage:
    """Axes contracted with a constant matrix stand, mixed, in the matrix's free dimension; with a vector, summed."""
    target = next((dim for dim in dims if shape[dim] > 1), None)
    if target is None or not atoms:
        return ln.remove(lineage, atoms, "sum")
    groups = list(lineage.dims)
    groups[target] = ln.sized(atoms, shape[target])
    return lineage.replace(dims=tuple(groups))


def _is_data(value: Value) -> bool:
    """Whether a value made of parameters stands for activations: broadcast over a batch, or past a nonlinearity."""
    if any(origin.opaque or origin.nonlinear for origin in value.origins):
        return True
    covered = {dim for origin in value.origins for dim in own_dims(origin)}
    sizes = [math.prod(atom.size for atom in group) for group in value.origins[0].dims]
    return any(size > 1 and dim not in covered for dim, size in enumerate(sizes))


def _weights_product(
    walker: Walker, key: Key, name: str, values: Sequence[Value], over: tuple[Sequence[int], Sequence[int]],
    batch: tuple[Sequence[int], Sequence[int]], place: Callable[[int], Callable[[Lineage], Lineage]],
) -> Value:  # fmt: skip
    """A product of parameters: a factored matrix, or a learned input that runs through the network."""
    is_data = [_is_data(value) for value in values]
    if is_data[0] != is_data[1]:
        data = 0 if is_data[0] else 1
        for origin in values[data].origins:
            walker.use(key, Use("unknown" if origin.opaque else "data", origin.opaque or name, origin))
        side = 1 - data
        return _contract(walker, key, name, values[side], [values[data]], over[side], batch[side], place(side))
    if any(origin.opaque for value in values for origin in value.origins):
        return Value(origins=tuple(origin.blurred(name) for value in values for origin in value.origins))
    link, origins = walker.number(key), []
    for side, end in ((0, "left"), (1, "right")):
        for origin in values[side].origins:
            hidden = (*origin.hidden, (link, end, origin.atoms(over[side])))
            origins.append(place(side)(origin).replace(hidden=hidden))
    return Value(origins=tuple(origins))


def _convolution(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    image, kernel = values
    if not kernel.is_weight or not image.active or eqn.params["batch_group_count"] != 1:
        return _default(walker, eqn, values, key)
    out_dim, in_dim, *window = eqn.params["dimension_numbers"].rhs_spec
    shape, channel = eqn.outvars[0].aval.shape, eqn.params["dimension_numbers"].out_spec[1]
    groups = eqn.params["feature_group_count"]

    def regroup(origin: Lineage) -> Lineage:
        """The group's part of the output channels as a dimension of its own, in front."""
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
    own_group = any(  # not the batch axis of a vmapped kernel
        atom.size < origin.shape[atom.axis] or groups == origin.shape[atom.axis] == channels
        for origin in grouped.origins
        if not origin.opaque
        for atom in origin.atoms([0])
    )
    depthwise = groups > 1 and own_group and eqn.invars[1].aval.shape[in_dim] == 1
    fan_in = range(2, 3 + len(window))
    return [_contract(walker, key, "conv_general_dilated", grouped, [image], fan_in, [0], place, depthwise)]


_RULES: dict[str, Callable[[Walker, Any, list[Value], Key], list[Value]]] = {
    **dict.fromkeys(_BINARY, _binary),
    **dict.fromkeys(_UNARY, _unary),
    **dict.fromkeys(_REDUCTIONS, _reduce),
    **dict.fromkeys(_SAME - _REDUCTIONS, _same),
    "transpose": _transpose,
    "reshape": _reshape,
    "broadcast_in_dim": _broadcast,
    "tile": _tile,
    "squeeze": _squeeze,
    "slice": _slice,
    "split": _split,
    "dynamic_slice": _dynamic_slice,
    "gather": _gather,
    "concatenate": _concatenate,
    "pad": _pad,
    "dot_general": _dot_general,
    "ragged_dot_general": _ragged_dot,
    "conv_general_dilated": _convolution,
}
