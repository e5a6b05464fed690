"""Leaves of one matrix shape -> one stack -> leaves.

Every parameter is viewed as (batch, m, n) with its wide side last. Pieces of one shape and dtype, a tall one transposed
among the wide ones, are either concatenated into one stack, worked on a slice at a time, or kept apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import jax
import jax.numpy as jnp

from jaxopt_tour._types import Array
from jaxopt_tour.matrices.axes import MatrixAxes

STACKINGS: Final = ("auto", "by_shape", "apart")

#: Bound on what the iteration holds at once beside the stack itself, on an accelerator: 1 GiB.
SLICE_BYTES: Final = 2**30


def map_matrices(
    function: Callable[[Array], Array],
    leaves: Mapping[str, Array],
    axes: Mapping[str, MatrixAxes],
    stacking: str = "auto",
) -> dict[str, Array]:
    """Apply ``function`` to all matrices of some parameters.

    Args:
        function: takes and returns (batch, m, n) with m <= n; treats the matrices of a batch one by one.
        leaves: parameters by path name.
        axes: how each is seen as matrices.
        stacking: ``"by_shape"``, which is also ``"auto"``: all matrices of one shape and dtype in one stack, worked on
            in slices (:func:`matrices_at_once`); the program holds one iteration a shape, however many layers there
            are. ``"apart"``: one call a parameter, without the copy into a stack and back.

    Returns:
        The parameters, by path name, with every matrix replaced.
    """
    pieces: dict[tuple[str, int], Array] = {}
    turned: set[tuple[str, int]] = set()
    for name, leaf in leaves.items():
        for number, piece in enumerate(axes[name].to_matrices(leaf)):
            if piece.shape[-2] > piece.shape[-1]:
                piece = piece.mT
                turned.add((name, number))
            pieces[name, number] = piece

    groups: dict[tuple[object, ...], list[tuple[str, int]]] = {}
    for key, piece in pieces.items():
        kind = key if stacking == "apart" else (piece.shape[-2:], piece.dtype)
        groups.setdefault(kind, []).append(key)
    for keys in groups.values():
        _replace(function, pieces, keys)

    results = {}
    for name, leaf in leaves.items():
        count = len(axes[name].split or (None,))
        own = [pieces[name, number] for number in range(count)]
        own = [piece.mT if (name, number) in turned else piece for number, piece in enumerate(own)]
        results[name] = axes[name].from_matrices(own, leaf.shape)
    return results


def _replace(
    function: Callable[[Array], Array], pieces: dict[tuple[str, int], Array], keys: list[tuple[str, int]]
) -> None:
    """Replace the pieces of one group by the function's results, through one call."""
    stack = pieces[keys[0]] if len(keys) == 1 else jnp.concatenate([pieces[key] for key in keys])
    stack = _in_slices(function, stack)
    start = 0
    for key in keys:
        stop = start + pieces[key].shape[0]
        pieces[key] = stack[start:stop]
        start = stop


def _in_slices(function: Callable[[Array], Array], stack: Array) -> Array:
    """``function(stack)``, so many matrices at a time that what it holds beside the stack stays bounded."""
    count, m, n = stack.shape
    at_once = matrices_at_once(m, n, stack.dtype.itemsize, jax.default_backend())
    if count <= at_once or stack.size == 0:
        return function(stack)
    if at_once == 1:
        return jax.lax.map(lambda matrix: function(matrix[None])[0], stack)
    return jax.lax.map(lambda matrix: function(matrix[None])[0], stack, batch_size=at_once)


def matrices_at_once(m: int, n: int, itemsize: int, backend: str) -> int:
    """How many matrices of a stack are worked on together.

    On CPU one: a product there uses all cores by itself, and XLA's batched product is slower than a loop over single
    ones. Elsewhere as many as fit into ``SLICE_BYTES`` with what an iteration holds of each: its input, its
    output and five m x m matrices.
    """
    if backend == "cpu":
        return 1
    return max(1, SLICE_BYTES // (itemsize * (2 * m * n + 5 * m * m)))
