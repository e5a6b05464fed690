"""The peers that a benchmark runs against: as released, and with the one change that their next version brings."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import optax

import jaxopt_tour as jt

Tree = Any


@contextlib.contextmanager
def loops_not_unrolled() -> Iterator[None]:
    """While this is open, `fori_loop(..., unroll=True)` is traced as a loop.

    Optax's Muon unrolls its iteration in the released 0.2.8 and no longer does so in its development head; this is the
    same code with that one argument changed.
    """
    original = jax.lax.fori_loop

    def rolled(lower: int, upper: int, body: Any, init: Any, *, unroll: Any = None) -> Any:
        return original(lower, upper, body, init)

    jax.lax.fori_loop = rolled
    try:
        yield
    finally:
        jax.lax.fori_loop = original


def optax_muon(params: Tree, **arguments: Any) -> optax.GradientTransformation:
    """`optax.contrib.muon` at its defaults, for the matrices of our routing.

    By default it takes every 2-D leaf and nothing else: it would orthogonalize the embeddings and leave scanned kernels
    to Adam, and the two would not do the same work.
    """
    routes = jt.routing.routes_by_name(params)

    def numbers(tree: Tree) -> Tree:
        def one_leaf(path: Any, leaf: Any) -> Any:
            route = routes["/".join(str(key.key) for key in path)]
            if route.label != "matrix":
                return None
            return optax.contrib.MuonDimensionNumbers(route.axes.fan_in, route.axes.fan_out)

        return jax.tree_util.tree_map_with_path(one_leaf, tree)

    return optax.contrib.muon(1e-3, weight_decay=0.1, muon_weight_dimension_numbers=numbers, **arguments)
