"""Decompositions of many matrices, one after the other where all at once can lock up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from jaxopt_tour._types import Array, Float


def decompose(function: Callable[[Array], Any], x: Float[Array, "*batch m n"]) -> Any:
    """`function(x)` for a decomposition of batches of matrices; on a CPU one matrix after the other.

    XLA's CPU client hands the matrices of one batch to its thread pool. Where that has few threads and two batches
    meet, as those of two shapes in one program, all threads may wait for each other for ever (seen with jaxlib 0.10.2
    on two cores, with `eigh` and with `svd`). One matrix at a time needs no thread of the pool. `vmap` makes a
    batch, too: it runs one after the other as well.

    Args:
        function: such as `jnp.linalg.eigh`, from (..., m, n) to a tree of arrays with the same batch axes.
        x: matrices.
    """
    batch = x.shape[:-2]
    if x.size == 0:
        return function(x)

    def one_by_one(x: Array) -> Any:
        single = jax.custom_batching.sequential_vmap(function)
        if not batch:
            return single(x)
        found = jax.lax.map(single, x.reshape(-1, *x.shape[-2:]))
        return jax.tree.map(lambda each: each.reshape(*batch, *each.shape[1:]), found)

    return jax.lax.platform_dependent(x, cpu=one_by_one, default=function)
