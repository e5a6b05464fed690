"""The table of a model's routes."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

from jaxopt_tour._trees import named_leaves
from jaxopt_tour._types import Tree
from jaxopt_tour.routing.resolve import Routing, resolve
from jaxopt_tour.routing.route import Routes
from jaxopt_tour.routing.shape_factors import shape_factor as factor_of


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a routing table."""

    path: str
    shape: tuple[int, ...]
    label: str
    matrices: tuple[tuple[int, int, int], ...]  # (batch, fan_in, fan_out) of each piece; empty for all but matrices
    factor: float | None
    reason: str
    by_use: str | None  # label and reason by use, where that was given


@dataclasses.dataclass(frozen=True)
class RoutingTable:
    """What goes where, seen as which matrix, and why. ``print`` it; ``rows`` holds the same as data."""

    rows: tuple[Row, ...]

    def __str__(self) -> str:
        titles = ["parameter", "shape", "to", "batch x (in, out)", "factor", "why"]
        with_use = any(row.by_use is not None for row in self.rows)
        lines = [titles + (["by use"] if with_use else [])]
        for row in self.rows:
            view = " + ".join(f"{batch} x ({fan_in}, {fan_out})" for batch, fan_in, fan_out in row.matrices)
            factor = "" if row.factor is None else f"{row.factor:.3g}"
            line = [row.path, str(row.shape), row.label, view, factor, row.reason]
            lines.append(line + ([row.by_use or ""] if with_use else []))
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
        text.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join(line.rstrip() for line in text)


def routing_table(
    params_or_model: Any,
    *,
    routing: Routing = None,
    usage: Routes | None = None,
    shape_factor: str | None = "match_rms_adamw",
) -> RoutingTable:
    """The table of routes of a model, to look at before a long run.

    Args:
        params_or_model: a parameter tree, a Flax ``nnx.Module``, or a linen variables dictionary.
        routing: as in :func:`resolve`.
        usage: the :class:`Routes` from :func:`from_function`, to see both ways side by side; a row where they differ
            says so.
        shape_factor: the factor shown, as in ``muon``.
    """
    params = params_of(params_or_model)
    routes = resolve(routing, params)
    rows = []
    for name, leaf in named_leaves(params).items():
        route = routes[name]
        pieces = route.axes.matrix_shapes(leaf.shape) if route.label == "matrix" and route.axes is not None else ()
        factor = factor_of(shape_factor, *pieces[0][1:]) if pieces else None
        used = None if usage is None else usage.get(name)
        by_use = None
        if used is not None:
            same = used.label == route.label and (route.label != "matrix" or used.axes == route.axes)
            by_use = f"{'same' if same else 'DIFFERS'}: {used.label}, {used.reason}"
        rows.append(Row(name, tuple(leaf.shape), route.label, pieces, factor, route.reason, by_use))
    return RoutingTable(tuple(rows))


def params_of(params_or_model: Any) -> Tree:
    nnx = sys.modules.get("flax.nnx")
    if nnx is not None and isinstance(params_or_model, nnx.Module):
        return nnx.state(params_or_model, nnx.Param)
    if isinstance(params_or_model, Mapping) and set(params_or_model) > {"params"}:
        return params_or_model["params"]  # linen variables with other collections beside the parameters
    return params_or_model
