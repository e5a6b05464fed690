"""What the scripts that run on eight virtual devices share, and how a test runs one in a process of its own."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import subprocess
import sys
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


def cases_of(script: str, *arguments: str) -> dict[str, dict[str, Any]]:
    """What a script of this folder reports, by case. JAX fixes the number of devices when it starts."""
    folder = pathlib.Path(__file__).resolve().parent
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "PYTHONPATH": str(folder.parents[1]),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # most of the time is the compiler's
    }
    command = [sys.executable, str(folder / script), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return {line["case"]: line for line in map(json.loads, done.stdout.splitlines())}


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
