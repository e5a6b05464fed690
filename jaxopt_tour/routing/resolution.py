"""Resolve what a user passes as `routing=` to the route of every parameter."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxopt_tour._checks import check_call, did_you_mean
from jaxopt_tour._trees import by_unique_name, is_array, named_leaves, not_an_array, path_name
from jaxopt_tour._types import Tree
from jaxopt_tour.routing.axes import MatrixAxes
from jaxopt_tour.routing.by_name.routes import ByName, routes_by_name
from jaxopt_tour.routing.by_use.models import is_model
from jaxopt_tour.routing.route import ROLES, Route, Routes

#: A user's routing function: path name and leaf -> label, axes, route, or None for the default.
RoutingFunction = Callable[..., "str | MatrixAxes | Route | None"]

#: What `routing=` takes: see `resolve`.
Routing = ByName | Mapping[str, Any] | RoutingFunction | Tree | None


def resolve(routing: Routing, params: Tree) -> Routes:
    """Return the route of every parameter.

    Args:
        routing: one of

            * None: by name and shape, `routes_by_name`; with options, `ByName(split_heads=True)`;
            * the `Routes` that `from_function` returns for this model: by use;
            * a function `(path, leaf) -> entry`;
            * a tree of entries, or a mapping from path names to entries. An entry for a module, such as
              `{"encoder": "other"}`, applies to all parameters in it. Patterns match names of modules, `*` one and
              `**` one or several: `{"blocks/*/attn/q/kernel": "frozen"}`. The longest path has precedence, and
              paths have precedence over patterns. Parameters without an entry are routed by name;
            * a tree of `optax.contrib.MuonDimensionNumbers`, with None for what is no matrix.

            An entry is one of

            * a role such as `"matrix"` or `"head"`, which becomes the parameter's role and label;
            * another label: `"other"`, `"frozen"`, or the name of a transformation of yours. The role is then the
              one by name;
            * `MatrixAxes`: a matrix with these axes;
            * a `Route`;
            * None: by name.
        params: a tree of arrays, or of anything with their shapes and dtypes.

    Returns:
        `Routes` by path name, in the order of the tree.

    Raises:
        ValueError: an entry is none of these, matches no parameter, or is impossible for the parameter (a vector
            labelled `"matrix"`, axes that do not exist); or two parameters have one path name. The message names the
            path.
    """
    leaves = named_leaves(params)
    for name, leaf in leaves.items():
        if not is_array(leaf):
            raise not_an_array(name, leaf)
    if isinstance(routing, (jax.Array, np.ndarray, np.generic, int, float, complex, bytes)):
        raise ValueError(
            f"routing must be None, Routes, a function of (path, leaf), or a tree of labels, got {routing!r}. "
            "optax.inject_hyperparams takes a function for a schedule: list 'routing' in static_args."
        )
    if isinstance(routing, ByName):
        return routing.routes(params)
    if is_model(routing):
        raise ValueError(
            f"routing is a model ({type(routing).__name__}): give what from_function finds in it, "
            "routing=jt.routing.from_function(model, example_input)"
        )
    default = routes_by_name(params)
    if routing is None:
        return default
    if callable(routing):
        check_routing(routing)
        entries = {name: routing(name, leaf) for name, leaf in leaves.items()}
    else:
        entries = _entries_by_leaf(routing, leaves)
    return Routes(
        {name: _as_route(name, leaf.shape, entries.get(name), default[name]) for name, leaf in leaves.items()}
    )


def override(routes: Routes, entries: Any) -> Routes:
    """Return routes with some parameters routed by hand.

    Args:
        routes: what `from_function` or `resolve` returned.
        entries: labels, `MatrixAxes` or `Route` by path, module or pattern, as in `resolve`.

    Returns:
        New `Routes`; parameters without an entry keep theirs.

    Raises:
        ValueError: an entry is none of these, or matches no parameter; or a parameter that has no axes is to be a
            `"matrix"`. The message names the path.

    Example:
        >>> import jax.numpy as jnp, jaxopt_tour as jt
        >>> params = {"encoder": {"up": {"kernel": jnp.ones((4, 8))}}, "head": {"kernel": jnp.ones((8, 2))}}
        >>> routes = jt.routing.override(jt.routing.resolve(None, params), {"encoder": "frozen"})
        >>> routes["encoder/up/kernel"].label
        'frozen'
    """
    if not isinstance(routes, Routes):
        raise ValueError(f"routes must be Routes, such as from_function returns, got {routes!r}")
    if not isinstance(entries, Mapping):
        raise ValueError(f"entries must map paths, modules or patterns to labels or MatrixAxes, got {entries!r}")
    by_leaf = _entries_by_leaf(dict(entries), routes)
    return Routes({name: _as_route(name, None, by_leaf.get(name), route) for name, route in routes.items()})


def check_routing(routing: Any) -> None:
    """Raise if `routing` is a function of other arguments than path and leaf."""
    if callable(routing) and not is_model(routing):
        check_call("routing", routing, ("", None), allowed="None, Routes, a tree of labels, or a function (path, leaf)")


def _entries_by_leaf(routing: Tree, leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of every parameter, from entries for parameters or modules; the longest path has precedence."""
    routing = dict(routing) if isinstance(routing, Routes) else routing  # JAX regards a subclass of dict as a leaf
    pairs = jax.tree_util.tree_leaves_with_path(routing, is_leaf=lambda node: node is None or _is_dimensions(node))
    by_prefix = by_unique_name((path_name(path).removesuffix("/value"), entry) for path, entry in pairs)
    if any(map(_is_dimensions, by_prefix.values())):
        by_prefix = {name: _NO_MATRIX if entry is None else entry for name, entry in by_prefix.items()}
    paths = _paths(leaves)
    is_pattern = {prefix: prefix not in paths and bool(set(prefix) & set("*?[")) for prefix in by_prefix}
    entries: dict[str, Any] = {}
    for prefix in sorted(by_prefix, key=lambda prefix: (not is_pattern[prefix], len(prefix))):
        if is_pattern[prefix]:
            below = [name for name in leaves if _matches(prefix.split("/"), name.split("/"))]
        else:
            below = [name for name in leaves if not prefix or name == prefix or name.startswith(prefix + "/")]
        if not below and leaves and by_prefix[prefix] is not None and by_prefix[prefix] is not _NO_MATRIX:
            where = "that matches it" if is_pattern[prefix] else "there"
            raise ValueError(
                f"routing has an entry for {prefix!r}, but no parameter {where}"
                f"{did_you_mean(prefix, paths) or '.'} Parameters: {_first_names(leaves)}"
            )
        entries.update(dict.fromkeys(below, by_prefix[prefix]))
    return entries


def _matches(patterns: Sequence[str], names: Sequence[str]) -> bool:
    """Whether patterns match the names of a path or of a module around it; `**` matches one name or several.

    `["blocks", "*", "attn"]` matches `["blocks", "0", "attn", "q", "kernel"]`.
    """
    if not patterns:
        return True
    first, *rest = patterns
    if first == "**":
        return any(_matches(rest, names[i:]) for i in range(1, len(names) + 1))
    return bool(names) and fnmatch.fnmatchcase(names[0], first) and _matches(rest, names[1:])


def _is_dimensions(node: Any) -> bool:
    """Whether this is an `optax.contrib.MuonDimensionNumbers`; Optax is not imported."""
    return type(node).__name__ == "MuonDimensionNumbers"


#: The entry of a parameter that Optax's dimension numbers leave out.
_NO_MATRIX = object()


def _as_route(name: str, shape: tuple[int, ...] | None, entry: Any, default: Route) -> Route:
    """The route of an entry. Without a shape, whether axes fit is left to `resolve`."""
    if entry is None or (entry is _NO_MATRIX and default.label != "matrix"):
        return default
    if entry is _NO_MATRIX:
        return dataclasses.replace(default, label="other", reason="no matrix in the dimension numbers")
    if _is_dimensions(entry):
        entry = MatrixAxes(entry.reduction_axis, entry.output_axis)
    if isinstance(entry, MatrixAxes):
        entry = Route("matrix", entry, "the axes are given")
    elif entry == "matrix":
        axes = default.axes or (MatrixAxes(0, 1) if shape is not None and len(shape) == 2 else None)
        if axes is None:
            of_shape = "" if shape is None else f" of shape {shape}"
            raise ValueError(
                f"parameter {name!r}{of_shape} is routed as 'matrix' and cannot be one: {default.reason}. Give "
                "MatrixAxes or another label in place of 'matrix'."
            )
        entry = Route("matrix", axes, "the label is given")
    elif isinstance(entry, str) and entry:
        role = entry if entry in ROLES else default.role
        entry = Route(role, default.axes if role == "matrix" else None, "the label is given", label=entry)
    if not isinstance(entry, Route):
        raise ValueError(f"routing of {name!r} must be a label, MatrixAxes, a Route or None, got {entry!r}")
    if entry.axes is not None and shape is not None:
        try:
            entry.axes.matrix_shapes(shape)
        except ValueError as error:
            raise ValueError(f"parameter {name!r}: {error}") from None
    return entry


def _paths(names: Iterable[str]) -> dict[str, None]:
    """Path names of parameters and of the modules that hold them."""
    parts = [name.split("/") for name in names]
    return dict.fromkeys("/".join(part[:depth]) for part in parts for depth in range(1, len(part) + 1))


def _first_names(leaves: Mapping[str, Any]) -> str:
    names = list(leaves)
    return ", ".join(map(repr, names[:8])) + (f", and {len(names) - 8} more" if len(names) > 8 else "")
