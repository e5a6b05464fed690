"""From parameters to routes: the default by name, and what the user says instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

from jaxopt_tour._trees import named_leaves, path_name
from jaxopt_tour._types import Tree
from jaxopt_tour.routing.axes import MatrixAxes
from jaxopt_tour.routing.by_name.conventions import ByName, RoutingFunction, routes_by_name
from jaxopt_tour.routing.route import ROLES, Route, Routes

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
              (``{"encoder": "other"}``); what it does not mention goes by name.

            An entry is a label (``"matrix"``, ``"other"``, ``"frozen"``, another role, or one of your own), a
            :class:`MatrixAxes` (a matrix, seen that way), a :class:`Route`, or None (by name).
        params: arrays, or anything with their shapes and dtypes.

    Raises:
        ValueError: an entry is none of these, stands for no parameter, or names a route that the parameter cannot take
            (a vector labelled ``"matrix"``, axes that do not exist). The path is in the message.
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
        entry = Route("matrix", entry, "axes given")
    elif entry == "matrix":
        axes = default.axes or (MatrixAxes(0, 1) if len(shape) == 2 else None)
        if axes is None:
            raise ValueError(
                f"parameter {name!r} of shape {shape} is routed as 'matrix', and cannot be: {default.reason}. Give its "
                "MatrixAxes in place of the label, or another label."
            )
        entry = Route("matrix", axes, "label given")
    elif isinstance(entry, str):
        role = entry if entry in ROLES else default.role
        entry = Route(role, default.axes if role == "matrix" else None, "label given", label=entry)
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
