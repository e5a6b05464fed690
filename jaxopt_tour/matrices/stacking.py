"""Leaves of one matrix shape -> one stack -> leaves.

Every parameter is viewed as (batch, m, n) with its wide side last. Pieces of one shape and dtype, a tall one transposed
among the wide ones, are either concatenated into one stack, which one batched product works on, or kept apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import jax
import jax.numpy as jnp

from jaxopt_tour._types import Array
from jaxopt_tour.matrices.axes import MatrixAxes

STACKINGS: Final = ("auto", "by_shape", "apart")


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
        stacking: ``"by_shape"``: all matrices of one shape and dtype in one call. ``"apart"``: one call a parameter.
            ``"auto"``: apart on CPU, where a batched product is a loop over its matrices and a stack only costs the
            copy; by shape elsewhere.

    Returns:
        The parameters, by path name, with every matrix replaced.
    """
    if stacking == "auto":
        stacking = "apart" if jax.default_backend() == "cpu" else "by_shape"
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
    if len(keys) == 1:
        pieces[keys[0]] = function(pieces[keys[0]])
        return
    stack = function(jnp.concatenate([pieces[key] for key in keys]))
    start = 0
    for key in keys:
        stop = start + pieces[key].shape[0]
        pieces[key] = stack[start:stop]
        start = stop
