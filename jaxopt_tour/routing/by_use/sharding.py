"""Rules of `shard_map` and of the collectives inside it: values are shards of what they are outside."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from jaxopt_tour.routing.by_use import lineage as ln
from jaxopt_tour.routing.by_use.interpreter import Key, Value, Walker
from jaxopt_tour.routing.by_use.lineage import Lineage


def _to_shape(shape: Sequence[int]) -> Callable[[Lineage], Lineage | None]:
    def follow(lineage: Lineage) -> Lineage | None:
        return ln.resized(lineage, shape) if len(lineage.dims) == len(shape) else None

    return follow


# y = f(shard of x)
def shard_map(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    """Interpret the function of one shard."""
    jaxpr = eqn.params["jaxpr"]
    inner = getattr(jaxpr, "jaxpr", jaxpr)
    shards = [value.map(_to_shape(var.aval.shape)) for value, var in zip(values, inner.invars, strict=True)]
    outputs = walker.run(jaxpr, shards, key)
    return [value.map(_to_shape(var.aval.shape)) for value, var in zip(outputs, eqn.outvars, strict=True)]


# y[n * k + i] = x_n[i]
def all_gather(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    """Enlarge a dimension, or add one, by the shards of all devices."""
    dim = eqn.params.get("all_gather_dimension", 0)
    results = []
    for value, var in zip(values, eqn.outvars, strict=True):
        shape = var.aval.shape
        if not eqn.params.get("tiled", True):
            value = value.map(lambda x: ln.broadcast(x, shape, [d for d in range(len(shape)) if d != dim]))  # noqa: B023
        results.append(value.map(_to_shape(shape)))
    return results


# y[i] = sum_n x_n[i] of one part of i
def reduce_scatter(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    """Keep this device's part of a sum."""
    dim, tiled = eqn.params["scatter_dimension"], eqn.params.get("tiled", True)
    results = []
    for value, var in zip(values, eqn.outvars, strict=True):
        value = value if tiled else value.map(lambda x: ln.squeeze(x, [dim]))
        results.append(value.map(_to_shape(var.aval.shape)))
    return results


# y[j] = x_j[i], of all devices
def all_to_all(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    """Exchange a sharded dimension for another."""
    split, concat, tiled = (eqn.params[name] for name in ("split_axis", "concat_axis", "tiled"))

    def moved(lineage: Lineage) -> Lineage:
        order = [dim for dim in range(len(lineage.dims)) if dim != split]
        order.insert(concat, split)
        return ln.permute(lineage, order)

    return [
        (value if tiled else value.map(moved)).map(_to_shape(var.aval.shape))
        for value, var in zip(values, eqn.outvars, strict=True)
    ]


# rows of x are sent to where they belong, and fill rows of y
def ragged_all_to_all(walker: Walker, eqn: Any, values: list[Value], key: Key) -> list[Value]:
    """Send rows to other devices: the result has the features of what is sent."""
    value = values[0].map(_to_shape(eqn.outvars[0].aval.shape))
    active = any(value.active for value in values)
    return [dataclasses.replace(value, active=active, origins=value.origins if active == value.active else ())]
