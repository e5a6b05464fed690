"""Parameter trees seen as leaves with path names, the same for dicts, dataclasses, Flax nnx and Flax linen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax

from jaxopt_tour._types import Tree

#: Stands where another transformation owns the parameter. Optax's own, so that its tools know it.
HOLE = optax.MaskedNode()

_FLAX_BOXES = frozenset({"Variable", "VariableState", "AxisMetadata"})


def is_box(node: Any) -> bool:
    """Whether ``node`` is a Flax wrapper around one array (``nnx.Variable``, ``linen.Partitioned``).

    Recognised by its class names, so that Flax need not be imported.
    """
    return any(base.__name__ in _FLAX_BOXES and base.__module__.startswith("flax.") for base in type(node).__mro__)


def is_hole(node: Any) -> bool:
    """Whether ``node`` is the mark that a masked tree carries in place of a parameter."""
    return isinstance(node, optax.MaskedNode)


def unbox(leaf: Any) -> Any:
    """The array inside a Flax box; anything else as it is."""
    if not is_box(leaf):
        return leaf
    children = jax.tree.leaves(leaf)
    return children[0] if children else HOLE


def rebox(leaf: Any, array: Any) -> Any:
    """``array`` in a Flax box like ``leaf``; as it is where ``leaf`` is no box."""
    return jax.tree.map(lambda _: array, leaf) if is_box(leaf) else array


def path_name(path: tuple[Any, ...]) -> str:
    """A key path as ``"blocks/0/attention/kernel"``."""
    return "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)


def map_with_names(function: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """``jax.tree.map`` with the leaf's path name first; a Flax box is one leaf, a hole stays a hole."""

    def apply(path: tuple[Any, ...], leaf: Any, *others: Any) -> Any:
        return leaf if is_hole(leaf) else function(path_name(path), leaf, *others)

    return jax.tree_util.tree_map_with_path(apply, tree, *rest, is_leaf=lambda node: is_box(node) or is_hole(node))


def named_leaves(tree: Tree) -> dict[str, Any]:
    """The arrays of a tree by path name, in the tree's order; boxes are opened, holes and None left out."""
    pairs = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_box)
    leaves = {path_name(path): unbox(leaf) for path, leaf in pairs}
    return {name: leaf for name, leaf in leaves.items() if not is_hole(leaf)}
