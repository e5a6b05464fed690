"""The table of a model's routes."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

from jaxopt_tour._trees import named_leaves
from jaxopt_tour._types import Tree
from jaxopt_tour.routing.resolution import Routing, resolve
from jaxopt_tour.routing.route import Role, Route, Routes
from jaxopt_tour.routing.shape_factors import ShapeFactor
from jaxopt_tour.routing.shape_factors import shape_factor as factor_of


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a routing table.

    Args:
        path: path name of the parameter.
        shape: its shape.
        role: what it is.
        label: name of the transformation that updates it; the role unless the routing gives another.
        matrices: (batch, fan_in, fan_out) of every part of a matrix; empty for all other roles.
        factor: shape factor, for parameters labelled ``"matrix"``.
        reason: the evidence for the role.
        by_use: role and reason by use, if ``usage=`` is given.
    """

    path: str
    shape: tuple[int, ...]
    role: Role
    label: str
    matrices: tuple[tuple[int, int, int], ...]
    factor: float | None
    reason: str
    by_use: str | None


@dataclasses.dataclass(frozen=True)
class RoutingTable:
    """The routes of a model: ``print`` shows a table, ``rows`` holds the same as data."""

    rows: tuple[Row, ...]

    def __str__(self) -> str:
        titles = ["parameter", "shape", "to", "batch x (in, out)", "factor", "why"]
        with_use = any(row.by_use is not None for row in self.rows)
        lines = [titles + (["by use"] if with_use else [])]
        for row in self.rows:
            view = " + ".join(f"{batch} x ({fan_in}, {fan_out})" for batch, fan_in, fan_out in row.matrices)
            factor = "" if row.factor is None else f"{row.factor:.3g}"
            to = row.role if row.label == row.role else f"{row.label} ({row.role})"
            line = [row.path, str(row.shape), to, view, factor, row.reason]
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
    shape_factor: ShapeFactor | None = "match_rms_adamw",
) -> RoutingTable:
    """Return the table of the routes of a model, to print before a long run.

    The column ``to`` shows the role of every parameter. Where the routing gives a label that is not the role, the
    column shows the label, with the role in parentheses.

    Args:
        params_or_model: a parameter tree, a Flax ``nnx.Module``, or a linen variables dictionary.
        routing: as in :func:`resolve`.
        usage: the :class:`Routes` from :func:`from_function`, shown for comparison in a further column, in which
            ``DIFFERS`` marks other roles or axes.
        shape_factor: which shape factor to show, as in :func:`jaxopt_tour.muon`.

    Raises:
        ValueError: as in :func:`resolve`, or ``shape_factor`` is not one of those of ``muon``.
    """
    params = params_of(params_or_model)
    routes = resolve(routing, params)
    rows = []
    for name, leaf in named_leaves(params).items():
        route = routes[name]
        matrices = route.axes.matrix_shapes(leaf.shape) if route.role == "matrix" and route.axes is not None else ()
        factor = factor_of(shape_factor, *matrices[0][1:]) if matrices and route.label == "matrix" else None
        used = None if usage is None else usage.get(name)
        by_use = None if used is None else _compared(route, used)
        rows.append(Row(name, tuple(leaf.shape), route.role, route.label, matrices, factor, route.reason, by_use))
    return RoutingTable(tuple(rows))


def _compared(route: Route, used: Route) -> str:
    is_same = used.role == route.role and (route.role != "matrix" or used.axes == route.axes)
    return f"{'same' if is_same else 'DIFFERS'}: {used.role}, {used.reason}"


def params_of(params_or_model: Any) -> Tree:
    """Return the parameters of a Flax module, linen variables or a parameter tree."""
    nnx = sys.modules.get("flax.nnx")
    if nnx is not None and isinstance(params_or_model, nnx.Module):
        return nnx.state(params_or_model, nnx.Param)
    if isinstance(params_or_model, Mapping) and set(params_or_model) > {"params"}:
        return params_or_model["params"]  # linen variables with further collections
    return params_or_model
