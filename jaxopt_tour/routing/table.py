"""The table of a model's routes."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from jaxopt_tour._trees import named_leaves
from jaxopt_tour._types import Tree
from jaxopt_tour.routing.resolution import Routing, resolve
from jaxopt_tour.routing.route import Role, Route, Routes
from jaxopt_tour.routing.shape_factors import ShapeFactor
from jaxopt_tour.routing.shape_factors import shape_factor as factor_of
from jaxopt_tour.routing.text import as_html, columns, folded
from jaxopt_tour.routing.totals import totals


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a routing table.

    Args:
        path: path name of the parameter.
        shape: its shape.
        role: what it is.
        label: name of the transformation that updates it; the role unless the routing gives another.
        matrices: (batch, fan_in, fan_out) of every part of a matrix; empty for all other roles.
        factor: shape factor, for parameters labelled `"matrix"`.
        reason: the evidence for the role.
        by_use: role and reason by use, if `usage=` is given.
        pieces: into what the matrix could be split, whether it is or not.
        uses: the operations that the parameter meets, where routing is by use.
    """

    path: str
    shape: tuple[int, ...]
    role: Role
    label: str
    matrices: tuple[tuple[int, int, int], ...]
    factor: float | None
    reason: str
    by_use: str | None
    pieces: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class RoutingTable:
    """The routes of a model: `print` shows a table, `rows` holds the same as data.

    Layers that are alike share a line, `blocks/0-11/attn/kernel`; the last line has the totals. Notebooks show the
    table as HTML.
    """

    rows: tuple[Row, ...]
    totals: str = ""

    def __str__(self) -> str:
        return columns(self._lines()) + (f"\n{self.totals}" if self.totals else "")

    def _repr_html_(self) -> str:
        return as_html(self._lines(), self.totals)

    def _lines(self) -> list[list[str]]:
        """The titles and the folded rows."""
        optional = {
            "pieces": ["; ".join(row.pieces) for row in self.rows],
            "meets": [", ".join(row.uses) for row in self.rows],
            "by use": [row.by_use or "" for row in self.rows],
        }
        shown = {title: cells for title, cells in optional.items() if any(cells)}
        lines = []
        for place, row in enumerate(self.rows):
            view = " + ".join(f"{count} x ({fan_in}, {fan_out})" for count, fan_in, fan_out in _counted(row.matrices))
            factor = "" if row.factor is None else f"{row.factor:.3g}"
            to = row.role if row.label == row.role else f"{row.label} ({row.role})"
            line = [row.path, str(row.shape), to, view, factor, row.reason]
            lines.append(line + [cells[place] for cells in shown.values()])
        kept = folded((line[0], tuple(line[1:])) for line in lines)
        titles = ["parameter", "shape", "to", "batch x (in, out)", "factor", "why", *shown]
        return [titles, *([path, *lines[first][1:]] for path, first in kept)]


def _counted(matrices: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Parts of one shape as a batch: many heads in one line."""
    if len(matrices) <= 4:
        return list(matrices)
    counts: dict[tuple[int, int], int] = {}
    for batch, fan_in, fan_out in matrices:
        counts[fan_in, fan_out] = counts.get((fan_in, fan_out), 0) + batch
    return [(batch, *sides) for sides, batch in counts.items()]


def routing_table(
    params_or_model: Any,
    *,
    routing: Routing = None,
    usage: Routes | None = None,
    shape_factor: ShapeFactor | None = "match_rms_adamw",
) -> RoutingTable:
    """Return the table of the routes of a model, to print before a long run.

    The column `to` shows the role of every parameter. Where the routing gives a label that is not the role, the
    column shows the label, with the role in parentheses. Routed by use, rows are in the order of the function, and
    further columns show into what a matrix could be split, and which operations the parameter meets.

    Args:
        params_or_model: a parameter tree, a Flax `nnx.Module`, or a linen variables dictionary.
        routing: as in `resolve`.
        usage: the `Routes` from `from_function`, shown for comparison in a further column, in which
            `DIFFERS` marks other roles or axes.
        shape_factor: which shape factor to show, as in `muon`.

    Raises:
        ValueError: as in `resolve`, or `shape_factor` is not one of those of `muon`.
    """
    if usage is not None and not isinstance(usage, Routes):
        raise ValueError(f"usage must be Routes, such as from_function returns, got {usage!r}")
    params = params_of(params_or_model)
    routes = resolve(routing, params)
    rows, shapes = [], {}
    for name, leaf in named_leaves(params).items():
        route = routes[name]
        matrices = route.axes.matrix_shapes(leaf.shape) if route.role == "matrix" and route.axes is not None else ()
        factor = factor_of(shape_factor, *matrices[0][1:]) if matrices and route.label == "matrix" else None
        used = None if usage is None else usage.get(name)
        by_use = None if used is None else _compared(route, used)
        known = route if used is None else used
        shapes[name] = shape = tuple(leaf.shape)
        what = tuple(entry.what for entry in known.pieces)
        rows.append(Row(name, shape, route.role, route.label, matrices, factor, route.reason, by_use, what, known.uses))
    order = {name: place for place, name in enumerate((usage or routes).in_order())}
    rows.sort(key=lambda row: order.get(row.path, len(order)))
    return RoutingTable(tuple(rows), totals(routes, shapes))


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
