"""Rules of elementwise operations and reductions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from jaxopt_tour.routing.by_use import lineage as ln
from jaxopt_tour.routing.by_use.interpreter import (
    Key,
    Operation,
    Use,
    Value,
    Walker,
    merge_tracks,
    merge_values,
    union,
    varying_dims,
)

_ADDITIVE = frozenset({"add", "add_any", "sub"})
_MULTIPLICATIVE = frozenset({"mul", "div"})


# y[i, j] = x[i, j]
def identity(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    """Return the operands."""
    return values


# y[i, j] = f(x[i, j])   a nonlinear function of a parameter is followed, and marked
def unary(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    """Mark parameters as passed through a nonlinearity."""
    value = values[0]
    origins = () if value.active else tuple(origin.replace(nonlinear=True) for origin in value.origins)
    return [Value(value.active, value.reach, origins, value.tracks)]


# y[b, i] = x[b, i] + w[i]   w: vector, a bias where i is a fan-out
# y[b, i] = x[b, i] * w[i]   w: vector, a scale
def binary(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    """Record parameters that meet an activation as added or scaling."""
    name, shape = eqn.primitive.name, eqn.outvars[0].aval.shape
    aligned = [value.map(lambda x: ln.align(x, shape)) for value in values]
    activations = [(var, value) for var, value in zip(eqn.invars, aligned, strict=True) if value.active]
    if not activations:
        return [merge_values(aligned, False)]
    is_sum = name in _ADDITIVE and len(activations) > 1  # in a residual sum, heads of attention end
    tracks = merge_tracks(
        track for _, value in activations for track in value.tracks if not (is_sum and track.head_dims)
    )
    for value in aligned:
        for origin in value.origins if value.is_weight else ():
            dims = [] if origin.opaque else list(varying_dims(origin))
            matched = any(all(track.atoms([dim]) for dim in dims) for track in tracks if not track.head_dims)
            # x[:, :, None] * W[None]: the activation is constant along one axis of W and varies along another.
            constant = [d for d in dims if all(_is_constant(var.aval.shape, d, len(shape)) for var, _ in activations)]
            outer = name in _MULTIPLICATIVE and 0 < len(constant) < len(dims)
            op: Operation = "not understood" if origin.opaque else "add" if name in _ADDITIVE else "scale"
            walker.use(key, Use(op, name, origin, outer=outer, matched=matched))
    # Looked-up parameters are still followed after an operation with a constant, such as the mask of jnp.take.
    with_constants = len(activations) == 1 and not any(value.is_weight for value in aligned)
    return [Value(True, union(values), activations[0][1].origins if with_constants else (), tracks)]


def _is_constant(shape: Sequence[int], dim: int, rank: int) -> bool:
    """Whether an operand of this shape is broadcast along a dimension of the result, which has this rank."""
    dim -= rank - len(shape)
    return dim < 0 or shape[dim] == 1


# y[b] = sum_i x[b, i]   i of a contraction's result: a stack, such as experts
def reduce(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    """Remove the summed dimensions, and record them as a stack in the result of a contraction."""
    axes = [int(axis) for axis in eqn.params["axes"]]
    for track in values[0].tracks:
        walker.stack(track, axes, summed=True)
    value = values[0].map(lambda x: ln.squeeze(x, axes, "sum"))
    # The sum of a parameter over an axis, or of looked-up experts, is no longer a matrix of the parameter.
    origins = tuple(origin.replace(nonlinear=True) for origin in value.origins) if not value.active else ()
    return [dataclasses.replace(value, origins=origins)]
