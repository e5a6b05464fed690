"""From parameters to routes: the default by name, the user's overrides, and the table that shows the result."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

import jax

from jaxopt_tour._trees import named_leaves, path_name
from jaxopt_tour._types import Tree
from jaxopt_tour.linalg.shape_factors import shape_factor as factor_of
from jaxopt_tour.matrices.axes import MatrixAxes
from jaxopt_tour.matrices.names import ByName, RoutingFunction, routes_by_name
from jaxopt_tour.matrices.routes import Route, Routes
from jaxopt_tour.matrices.usage import from_function

__all__ = ["ByName", "Route", "Routes", "from_function", "resolve", "routes_by_name", "routing_table"]

#: What ``routing=`` takes: see :func:`resolve`.
Routing = ByName | Mapping[str, Any] | RoutingFunction | Tree | None


def resolve(routing: Routing, params: Tree) -> Routes:
    """The route of every parameter under a routing.

    Args:
        routing: one of

            * None: by name and shape, :func:`routes_by_name`; ``ByName(split_heads=True)`` is the same with options;
            * the :class:`Routes` that :func:`from_function` returned for this model: by use;
            * a function ``(path, leaf) -> entry``;
            * a tree or a mapping from path names to entries, in which an entry may stand for a whole subtree
              (``{"encoder": "adamw"}``); what it does not mention goes by name.

            An entry is a label (``"muon"``, ``"adamw"``, or one of your own), a :class:`MatrixAxes` (to Muon, seen
            that way), a :class:`Route`, or None (by name).
        params: arrays, or anything with their shapes and dtypes.

    Raises:
        ValueError: an entry is none of these, stands for no parameter, or names a route that the parameter cannot take
            (a vector or a matrix without known axes sent to Muon, axes that do not exist). The path is in the message.
    """
    leaves = named_leaves(params)
    if isinstance(routing, (jax.Array, int, float)):
        raise ValueError(
            f"routing must be None, Routes, a function of (path, leaf), or a tree of labels, got {routing!r}. "
            "optax.inject_hyperparams takes a function for a schedule: list 'routing' in static_args."
        )
    if isinstance(routing, ByName):
        return routing.routes(params)
    default = routes_by_name(params)
    if routing is None:
        return default
    if callable(routing):
        entries = {name: routing(name, leaf) for name, leaf in leaves.items()}
    else:
        entries = _entries_by_leaf(routing, leaves)
    return Routes(
        {name: _as_route(name, leaf.shape, entries.get(name), default[name]) for name, leaf in leaves.items()}
    )


def _entries_by_leaf(routing: Tree, leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Spread the entries of a tree or mapping over the parameters below their paths; the longest path wins."""
    routing = dict(routing) if isinstance(routing, Routes) else routing  # which JAX would take for a leaf
    pairs = jax.tree_util.tree_leaves_with_path(routing, is_leaf=lambda node: node is None)
    by_prefix = {path_name(path).removesuffix("/value"): entry for path, entry in pairs}
    entries: dict[str, Any] = {}
    for prefix in sorted(by_prefix, key=len):
        below = [name for name in leaves if not prefix or name == prefix or name.startswith(prefix + "/")]
        if not below and leaves and by_prefix[prefix] is not None:
            raise ValueError(f"routing names {prefix!r}, and no parameter is there; parameters: {_few(leaves)}")
        entries.update(dict.fromkeys(below, by_prefix[prefix]))
    return entries


def _as_route(name: str, shape: tuple[int, ...], entry: Any, default: Route) -> Route:
    if entry is None:
        return default
    if isinstance(entry, MatrixAxes):
        entry = Route("muon", entry, "chosen", "axes given")
    elif entry == "muon":
        axes = default.axes or (MatrixAxes(0, 1) if len(shape) == 2 else None)
        if axes is None:
            raise ValueError(
                f"parameter {name!r} of shape {shape} is routed to 'muon', and cannot be: {default.reason}. Give its "
                "MatrixAxes in place of the label, or another label."
            )
        entry = Route("muon", axes, "chosen", "label given")
    elif isinstance(entry, str):
        entry = Route(entry, None, "chosen", "label given")
    if not isinstance(entry, Route):
        raise ValueError(f"routing of {name!r} must be a label, MatrixAxes, a Route or None, got {entry!r}")
    if entry.axes is not None:
        try:
            entry.axes.matrix_shapes(shape)
        except ValueError as error:
            raise ValueError(f"parameter {name!r}: {error}") from None
    return entry


def _few(leaves: Mapping[str, Any]) -> str:
    names = list(leaves)
    return ", ".join(map(repr, names[:8])) + (f", and {len(names) - 8} more" if len(names) > 8 else "")


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a routing table."""

    path: str
    shape: tuple[int, ...]
    label: str
    matrices: tuple[tuple[int, int, int], ...]  # (batch, fan_in, fan_out) of each piece; empty outside Muon
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
    params = _params_of(params_or_model)
    routes = resolve(routing, params)
    rows = []
    for name, leaf in named_leaves(params).items():
        route = routes[name]
        pieces = route.axes.matrix_shapes(leaf.shape) if route.label == "muon" and route.axes is not None else ()
        factor = factor_of(shape_factor, *pieces[0][1:]) if pieces else None
        used = None if usage is None else usage.get(name)
        by_use = None
        if used is not None:
            same = used.label == route.label and (route.label != "muon" or used.axes == route.axes)
            by_use = f"{'same' if same else 'DIFFERS'}: {used.label}, {used.reason}"
        rows.append(Row(name, tuple(leaf.shape), route.label, pieces, factor, route.reason, by_use))
    return RoutingTable(tuple(rows))


def _params_of(params_or_model: Any) -> Tree:
    nnx = sys.modules.get("flax.nnx")
    if nnx is not None and isinstance(params_or_model, nnx.Module):
        return nnx.state(params_or_model, nnx.Param)
    if isinstance(params_or_model, Mapping) and set(params_or_model) > {"params"}:
        return params_or_model["params"]  # linen variables with other collections beside the parameters
    return params_or_model
