"""Rules of kernels, whose body JAX does not see or sees in blocks: Pallas, grouped products, foreign calls.

A kernel is understood by its inner jaxpr where that works on whole operands, otherwise by the shapes of its operands
and results: activations (T, in) that become (T, out) meet E matrices in a parameter of shape (E, in, out).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxopt_tour.routing.by_use import contractions
from jaxopt_tour.routing.by_use import lineage as ln
from jaxopt_tour.routing.by_use.interpreter import (
    CONSTANT,
    Key,
    Ref,
    UnsupportedKernelError,
    Use,
    Value,
    Walker,
    union,
    varying_dims,
    without_rule,
)
from jaxopt_tour.routing.by_use.kernel_bodies import contracted_dims
from jaxopt_tour.routing.by_use.lineage import Lineage

Dims = tuple[int, ...]
#: How a kernel may read a parameter: its batch, fan-in and fan-out dimensions.
Reading = tuple[Dims, Dims, Dims]


# y[t, o] = sum_i x[t, i] w[g(t), i, o]   w: matrices, g batch (experts), i fan-in, o fan-out
def ragged_dot(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    """Record a stack of matrices, of which each row of the activation meets one."""
    numbers = eqn.params["ragged_dot_dimension_numbers"]
    over, batch = numbers.dot_dimension_numbers
    groups = tuple(numbers.rhs_group_dimensions)
    if not groups and values[0].active and not set(numbers.lhs_ragged_dimensions) & set(over[0]):
        return [
            contractions.product(walker, eqn, values[:2], key, over, batch)
        ]  # ragged along a batch: a batched product
    if not values[1].is_weight or not values[0].active or not groups:
        return by_shapes(walker, eqn, values, key)
    shape, batched = eqn.outvars[0].aval.shape, tuple(batch[1])
    free = [dim for dim in range(len(eqn.invars[1].aval.shape)) if dim not in (*over[1], *groups, *batched)]

    def place(lineage: Lineage) -> Lineage:
        dims = [ln.filler(size) for size in shape]
        for position, dim in enumerate(batched):
            dims[position] = lineage.dims[dim]
        dims[len(shape) - len(free) :] = [lineage.dims[dim] for dim in free]
        return lineage.replace(dims=tuple(dims))

    return [
        contractions.contract(walker, key, "ragged_dot", values[1], values[:1], tuple(over[1]), groups + batched, place)
    ]


# y = kernel(x, w, ...)
def pallas_call(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    """Interpret a kernel on whole operands; read any other kernel by its shapes."""
    before = walker.record
    if _is_whole(eqn):
        walker.record = before.copy()
        try:
            outputs = _run_on_references(walker, eqn, values, key)
        except UnsupportedKernelError:
            outputs = None
        unclear = any(
            place not in before.uses and use.op == "not understood" for place, use in walker.record.uses.items()
        )
        if outputs is not None and not unclear:
            return outputs
        walker.record = before
    return by_shapes(walker, eqn, values, key)


def _is_whole(eqn: Any) -> bool:
    """Whether every program of the grid sees whole operands and results."""
    blocks = getattr(eqn.params.get("grid_mapping"), "block_mappings", None)
    refs = getattr(eqn.params.get("jaxpr"), "invars", ())
    if blocks is None:
        return False
    arrays = [var.aval.shape for var in (*eqn.invars, *eqn.outvars)]
    return arrays == [getattr(ref.aval, "shape", None) for ref in refs[: len(arrays)]]


def _run_on_references(walker: Walker, eqn: Any, values: Sequence[Value], key: Key) -> list[Value]:
    jaxpr = eqn.params["jaxpr"]
    refs = [Ref(cell=[value]) for value in values]
    refs += [Ref() for _ in jaxpr.invars[len(refs) :]]
    for _ in range(2):  # what a loop or the next program reads may be written later in the text
        walker.run(jaxpr, refs, key)
    return [held(ref) for ref in refs[len(values) : len(values) + len(eqn.outvars)]]


def held(ref: Value) -> Value:
    """What a reference holds; a constant before anything is written."""
    if not isinstance(ref, Ref):
        raise UnsupportedKernelError("no reference")
    return ref.cell[0] if ref.cell else CONSTANT


def _index(eqn: Any, first: int) -> list[Any]:
    """The indices of every dimension of the reference: a slice or a scalar; empty if all of it is meant."""
    indexers = eqn.params["tree"].unflatten(eqn.invars[first:])
    if not indexers:
        return []
    indices = getattr(indexers[0], "indices", None)
    if len(indexers) > 1 or indices is None or getattr(indexers[0], "int_indexer_shape", None):
        raise UnsupportedKernelError("an index")
    return list(indices)


# y = ref[i, a:b]
def get(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    """Read a reference."""
    if not isinstance(values[0], Ref):
        return without_rule(walker, eqn, values, key)
    value, indices = held(values[0]), _index(eqn, 1)
    is_slice = [hasattr(index, "stride") for index in indices]
    if value.is_weight and any(other.active for other in values[1:]):
        raise UnsupportedKernelError("a lookup")

    def follow(lineage: Lineage) -> Lineage:
        for dim, index in enumerate(indices):
            is_static = is_slice[dim] and isinstance(index.start, int) and index.stride == 1
            size = index.size if is_slice[dim] else 1
            lineage = ln.cut(lineage, dim, index.start if is_static else None, size)
        return ln.squeeze(lineage, [dim for dim, keeps in enumerate(is_slice) if not keeps])

    return [walker.cut(value.map(follow))]


# ref[i, a:b] = x
def swap(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    """Write to a reference, which then holds what it held or what is written."""
    if not isinstance(values[0], Ref):
        return without_rule(walker, eqn, values, key)
    old, new, indices = held(values[0]), values[1], _index(eqn, 2)
    if indices and [getattr(index, "size", 1) for index in indices] != list(eqn.invars[0].aval.shape):
        new = Value(new.active, new.reach)  # a part is written: dimensions are no longer followed
        if values[1].is_weight:
            raise UnsupportedKernelError("a parameter is copied in parts")
    ref = values[0]
    ref.cell[:] = [walker.join(old, new, key) if ref.cell else new]
    return [old] if eqn.outvars else []


# ref[i, a:b] += x
def addupdate(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    """Add to a reference."""
    return swap(walker, eqn, values, key)


def by_shapes(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    """Read a kernel by the shapes of its operands and results; without a single reading, as one without a rule."""
    name = eqn.primitive.name
    weights = [i for i, value in enumerate(values) if value.is_weight]
    if not weights or not any(value.active for value in values):
        return without_rule(walker, eqn, values, key)
    shapes = [tuple(var.aval.shape) for var in eqn.invars]
    results = [tuple(var.aval.shape) for var in eqn.outvars]
    active = [i for i, value in enumerate(values) if value.active]
    is_float = [np.issubdtype(var.aval.dtype, np.inexact) or "float" in str(var.aval.dtype) for var in eqn.invars]
    floats = [i for i in active if is_float[i]]
    readings = {
        i: {reading for x in floats for y in results for reading in _readings(shapes[x], shapes[i], y)} for i in weights
    }
    deepest = max((len(shapes[i]) for i in weights if readings[i]), default=0)
    outputs = [Value(True, union(values)) for _ in results]
    for i in weights:
        value = values[i]
        opaque = any(origin.opaque for origin in value.origins)
        if not opaque and all(len(list(varying_dims(origin))) <= 1 for origin in value.origins):
            for origin in value.origins:
                walker.use(key, Use("scale", name, origin))
        elif not opaque and not floats and any(_is_lookup(shapes[x], shapes[i], y) for x in active for y in results):
            for origin in value.origins:
                walker.use(key, Use("gather", name, origin))
        elif not opaque and len(shapes[i]) == deepest and (reading := _choose(walker, eqn, values, i, readings[i])):
            batch, fan_in, fan_out = reading
            outputs = [
                _contracted(walker, key, eqn, values, i, (batch, fan_in, fan_out), place)
                if any((batch, fan_in, fan_out) in _readings(shapes[x], shapes[i], result) for x in floats)
                else outputs[place]
                for place, result in enumerate(results)
            ]
        else:
            note = "whose shapes allow more than one reading" if readings[i] else "whose shapes do not tell what it is"
            for origin in value.origins:
                walker.use(key, Use("not understood", origin.opaque or name, origin, note="" if opaque else note))
    return outputs


def _choose(
    walker: Walker, eqn: Any, values: Sequence[Value], i: int, readings: set[Reading | None]
) -> Reading | None:  # fmt: skip
    """The only reading, or the one that the kernel's body shows; None without either."""
    if len(readings) == 1:
        return next(iter(readings))
    sides = contracted_dims(walker, eqn, values, i) if eqn.primitive.name == "pallas_call" else None
    for reading in readings - {None}:
        _, fan_in, fan_out = reading  # type: ignore[misc]  # no None
        if sides in ((fan_in, fan_out), (fan_out, fan_in)):  # a square reading has its sides sorted
            return reading
    return None


def _contracted(
    walker: Walker, key: Key, eqn: Any, values: Sequence[Value], i: int, reading: Reading, number: int
) -> Value:  # fmt: skip
    batch, fan_in, fan_out = reading
    shape = eqn.outvars[number].aval.shape

    def place(lineage: Lineage) -> Lineage:
        dims = [ln.filler(size) for size in shape]
        dims[len(shape) - len(fan_out) :] = [lineage.dims[dim] for dim in fan_out]
        return lineage.replace(dims=tuple(dims))

    others = [value for value in values if value.active]
    return contractions.contract(walker, key, eqn.primitive.name, values[i], others, fan_in, batch, place)


def _is_lookup(index: Dims, table: Dims, result: Dims) -> bool:
    return len(table) == 2 and bool(index) and math.prod(index) > 1 and result == (*index, table[1])


def _readings(x: Dims, w: Dims, y: Dims) -> Iterator[Reading | None]:
    """How activations of shape x and a parameter of shape w could give a result of shape y.

    Features are the last dimensions of activations. A None stands for a reading in which they are not.
    """
    for inner in range(1, len(x) + 1):
        for outer in range(1, len(y) + 1):
            if x[: len(x) - inner] != y[: len(y) - outer] or math.prod(x[-inner:]) == 1 == math.prod(y[-outer:]):
                continue
            for fan_in in _places(w, x[-inner:]):
                for fan_out in _places(w, y[-outer:]):
                    if set(fan_in) & set(fan_out):
                        continue
                    batch = tuple(dim for dim in range(len(w)) if dim not in fan_in + fan_out)
                    if x[-inner:] == y[-outer:]:  # square: both directions have the same update
                        fan_in, fan_out = sorted((fan_in, fan_out))
                    yield batch, fan_in, fan_out
    for i in range(len(x) - 1):
        for o in range(len(y)):
            if x[:i] + x[i + 1 :] == y[:o] + y[o + 1 :] and x[i] in w and y[o] in w and min(x[i], y[o]) > 1:
                pair = sorted((x[i], y[o]))
                if pair[0] != pair[1] or w.count(x[i]) > 1:
                    yield None


def _places(w: Dims, sizes: Dims) -> list[Dims]:
    """Neighboring dimensions of a parameter with these sizes."""
    return [tuple(range(i, i + len(sizes))) for i in range(len(w) - len(sizes) + 1) if w[i : i + len(sizes)] == sizes]
