"""Leaves of parameter trees by path name, the same for dicts, dataclasses, Flax nnx and Flax linen."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
import optax

from jaxopt_tour._types import Tree

#: Marks a parameter that another transformation updates. It is Optax's marker, which Optax's tools recognize.
HOLE = optax.MaskedNode()

_FLAX_BOXES = frozenset({"Variable", "VariableState", "AxisMetadata"})


def is_box(node: Any) -> bool:
    """Whether `node` is a Flax wrapper around one array (`nnx.Variable`, `linen.Partitioned`).

    Class names are compared, so that Flax need not be imported.
    """
    return any(base.__name__ in _FLAX_BOXES and base.__module__.startswith("flax.") for base in type(node).__mro__)


def is_hole(node: Any) -> bool:
    """Whether `node` marks a parameter that another transformation updates."""
    return isinstance(node, optax.MaskedNode)


def is_placeholder(params: Any) -> bool:
    """Whether this is the node that `optax.tree.map_params` passes to `init` to learn where parameter trees are."""
    return type(params).__name__ == "_ParamsPlaceholder"


def unbox(leaf: Any) -> Any:
    """The array in a Flax box; anything else unchanged."""
    if not is_box(leaf):
        return leaf
    children = jax.tree.leaves(leaf)
    return children[0] if children else HOLE


def rebox(leaf: Any, array: Any) -> Any:
    """`array` in a Flax box like `leaf`; unchanged if `leaf` is no box."""
    return jax.tree.map(lambda _: array, leaf) if is_box(leaf) else array


def is_array(leaf: Any) -> bool:
    """Whether a leaf is an array, or a shape in place of one."""
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype")


def not_an_array(name: str, leaf: Any) -> ValueError:
    """The error for a parameter that is no array, such as a function in a module that was not filtered."""
    return ValueError(
        f"parameter {name!r} is no array, but {leaf!r}: pass a tree of arrays alone, such as "
        "eqx.filter(model, eqx.is_inexact_array) of an Equinox module, nnx.state(model, nnx.Param) of nnx"
    )


def path_name(path: tuple[Any, ...]) -> str:
    """A key path as `"blocks/0/attention/kernel"`."""
    return "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)


def by_unique_name(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A dictionary of pairs of path name and value; two values with one name raise ValueError."""
    by_name: dict[str, Any] = {}
    for name, value in pairs:
        if name in by_name:
            raise _shared_name(name)
        by_name[name] = value
    return by_name


def _shared_name(name: str) -> ValueError:
    return ValueError(
        f"two leaves of the tree have the path name {name!r}; rename a key, such as one that contains '/' or a number "
        "that is also a string"
    )


def map_with_names(function: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """`jax.tree.map` with the leaf's path name as first argument; a Flax box is one leaf, a hole stays a hole.

    Raises:
        ValueError: two leaves have the same path name.
    """
    names: set[str] = set()

    def apply(path: tuple[Any, ...], leaf: Any, *others: Any) -> Any:
        if is_hole(leaf):
            return leaf
        name = path_name(path)
        if name in names:
            raise _shared_name(name)
        names.add(name)
        return function(name, leaf, *others)

    return jax.tree_util.tree_map_with_path(apply, tree, *rest, is_leaf=lambda node: is_box(node) or is_hole(node))


def named_leaves(tree: Tree) -> dict[str, Any]:
    """The arrays of a tree by path name, in the tree's order; boxes are opened, holes and None left out.

    Raises:
        ValueError: two leaves have the same path name.
    """
    pairs = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_box)
    leaves = by_unique_name((path_name(path), unbox(leaf)) for path, leaf in pairs)
    return {name: leaf for name, leaf in leaves.items() if not is_hole(leaf)}


def only_state(kind: type, state: Any) -> Any:
    """Return the one state of this kind within a state.

    Raises:
        ValueError: There is none, or there are several.
    """
    leaves = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, kind))
    found = [leaf for leaf in leaves if isinstance(leaf, kind)]
    if len(found) != 1:
        raise ValueError(f"state must have one {kind.__name__}, got {len(found)} in a {type(state).__name__}")
    return found[0]
