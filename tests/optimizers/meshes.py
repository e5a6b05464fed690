"""What the scripts that run on eight virtual devices share; they start in processes of their own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

Tree = Any


def report(case: str, **found: Any) -> None:
    """One line of JSON for the tests to read."""
    print(json.dumps({"case": case, **found}), flush=True)


def error(params: Tree, expected: Tree) -> float:
    """The largest difference of two entries."""
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(expected), strict=True)
    return max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs)


def digest(tree: Tree) -> str:
    """Equal where all bits are."""
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree))).hexdigest()


def placer(mesh: Any, spec: Callable[[str], P]) -> Callable[[Tree], Tree]:
    """A function that spreads a tree over the mesh, given a PartitionSpec for every path name."""

    def place(tree: Tree) -> Tree:
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: jax.device_put(leaf, NamedSharding(mesh, spec("/".join(key.key for key in path)))), tree
        )

    return place


def make_mesh(sizes: dict[str, int], kind: AxisType) -> Any:
    """A mesh of the first devices."""
    count = int(np.prod(list(sizes.values())))
    types = (kind,) * len(sizes)
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=types, devices=jax.devices()[:count])
