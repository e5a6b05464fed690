"""Many matrices of a tree, worked on together.

Every parameter is viewed as pieces of shape (batch, rows, columns). What is stacked depends on the form of the
iteration. In the Gram form it is the m x m Gram matrices, of all pieces whose short side is m, whichever side that is
and however long the other; the pieces themselves are multiplied in place. In the standard form it is the pieces of one
shape and dtype, a tall one transposed among the wide ones. A stack is worked on a slice at a time; on CPU a long one is
cut into equal ones first (:data:`STACK_COUNT`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import jax
import jax.numpy as jnp

from jaxopt_tour._types import Array
from jaxopt_tour.linalg.newton_schulz import Orthogonalization
from jaxopt_tour.matrices.axes import MatrixAxes

STACKINGS: Final = ("auto", "by_shape", "apart")

#: Bound on what the iteration holds at once beside the stack itself, on an accelerator: 1 GiB.
SLICE_BYTES: Final = 2**30

#: Where ``"auto"`` keeps pieces in the standard form apart: on CPU those of so many rows, up to so many of one shape. A
#: loop over small matrices costs more there than it saves; more of them would cost more in compile time.
APART_ROWS: Final = range(128, 513)
APART_COUNT: Final = 16

#: On CPU ``"auto"`` cuts a group into stacks of equal length, at most so many pieces and at least half as many; where
#: no such length divides their number, the group stays one stack. Every piece is cut out of its stack again by a kernel
#: with its offset built in; stacks of one length share these kernels, and XLA compiles each once.
STACK_COUNT: Final = 16

#: A piece of a parameter: its path name, and which one of a split fan-out.
Key = tuple[str, int]


def orthogonalize_leaves(
    operation: Orthogonalization,
    leaves: Mapping[str, Array],
    axes: Mapping[str, MatrixAxes],
    stacking: str = "auto",
) -> dict[str, Array]:
    """Orthogonalize all matrices of some parameters.

    Args:
        operation: what is done to each matrix.
        leaves: parameters by path name.
        axes: how each is seen as matrices.
        stacking: ``"by_shape"``: one stack a shape (in the Gram form, of Gram matrices), worked on in slices
            (:func:`matrices_at_once`); the program holds one iteration a shape, however many layers there are.
            ``"apart"``: one iteration a piece. ``"auto"``: by shape, but on CPU in equal stacks, which share compiled
            kernels (:data:`STACK_COUNT`), and apart where matrices are few and small (:data:`APART_ROWS`).

    Returns:
        The parameters, by path name, with every matrix replaced.
    """
    pieces = {
        (name, number): piece
        for name, leaf in leaves.items()
        for number, piece in enumerate(axes[name].to_matrices(leaf))
    }
    in_parts = {key for key, piece in pieces.items() if operation.has_parts(piece.shape, piece.dtype)}
    results = _by_gram_matrices(operation, {key: pieces[key] for key in pieces if key in in_parts}, stacking)
    results |= _by_shape(operation, {key: pieces[key] for key in pieces if key not in in_parts}, stacking)
    return {
        name: axes[name].from_matrices([results[name, number] for number in range(_count(axes[name]))], leaf.shape)
        for name, leaf in leaves.items()
    }


def _by_gram_matrices(operation: Orthogonalization, pieces: Mapping[Key, Array], stacking: str) -> dict[Key, Array]:
    """Gram matrices of one size in a stack, their factors, and every piece times its own."""
    results: dict[Key, Array] = {}
    for keys in _groups(pieces, stacking, lambda piece: (min(piece.shape[-2:]), piece.dtype)):
        batches = [pieces[key] for key in keys]
        scales = [operation.unit_scale(batch) for batch in batches]
        units = [operation.near_unit(*both) for both in zip(batches, scales, strict=True)]
        grams = _stacked([over_slices(operation.gram, unit) for unit in units])
        factors = _unstacked(over_slices(operation.factor, grams, _stacked(scales)), batches)
        for key, batch, unit, factor in zip(keys, batches, units, factors, strict=True):
            results[key] = over_slices(operation.apply, factor, unit).astype(batch.dtype)
    return results


def _by_shape(operation: Orthogonalization, pieces: Mapping[Key, Array], stacking: str) -> dict[Key, Array]:
    """Pieces of one shape in a stack, all wide."""
    wide = {key: piece.mT if _is_tall(piece) else piece for key, piece in pieces.items()}
    results: dict[Key, Array] = {}
    if stacking == "auto" and jax.default_backend() == "cpu":
        few = [keys for keys in _groups(wide, "by_shape", _shape_and_dtype) if len(keys) <= APART_COUNT]
        small = {key: wide[key] for keys in few for key in keys if wide[key].shape[-2] in APART_ROWS}
        results |= _by_shape(operation, {key: pieces[key] for key in small}, "apart")
        wide = {key: piece for key, piece in wide.items() if key not in small}
    for keys in _groups(wide, stacking, _shape_and_dtype):
        batches = [wide[key] for key in keys]
        for key, result in zip(keys, _unstacked(over_slices(operation, _stacked(batches)), batches), strict=True):
            results[key] = result.mT if _is_tall(pieces[key]) else result
    return results


def _groups(pieces: Mapping[Key, Array], stacking: str, kind: Callable[[Array], object]) -> Iterable[list[Key]]:
    """Keys of pieces of one kind, which share a stack."""
    groups: dict[object, list[Key]] = {}
    for key, piece in pieces.items():
        groups.setdefault(key if stacking == "apart" else kind(piece), []).append(key)
    if stacking != "auto" or jax.default_backend() != "cpu":
        return groups.values()
    return [part for keys in groups.values() for part in _equal_parts(keys)]


def _equal_parts(keys: list[Key]) -> Iterable[list[Key]]:
    """Parts of one length, as long as :data:`STACK_COUNT` allows; all keys where no length divides them."""
    lengths = [n for n in range(STACK_COUNT // 2, STACK_COUNT + 1) if len(keys) % n == 0]
    length = max(lengths, default=len(keys))
    return [keys[start : start + length] for start in range(0, len(keys), length)]


def _shape_and_dtype(piece: Array) -> object:
    return piece.shape[-2:], piece.dtype


def _stacked(batches: list[Array]) -> Array:
    return batches[0] if len(batches) == 1 else jnp.concatenate(batches)


def _unstacked(stack: Array, pieces: list[Array]) -> Iterable[Array]:
    """The stack cut into batches as long as those of the pieces."""
    start = 0
    for piece in pieces:
        yield stack[start : start + piece.shape[0]]
        start += piece.shape[0]


def over_slices(function: Callable[..., Array], *stacks: Array) -> Array:
    """``function(*stacks)``, so many matrices at a time that what it holds beside the stacks stays bounded."""
    count, m, n = max((stack.shape for stack in stacks), key=lambda shape: shape[-1] * shape[-2])
    at_once = matrices_at_once(m, n, stacks[0].dtype.itemsize, jax.default_backend())
    if any(stack.size == 0 for stack in stacks):
        return function(*stacks)
    if count == 1:
        # Without a batch axis XLA:CPU reads a factor that is to be transposed where it lies.
        return function(*(stack[0] for stack in stacks))[None]
    if count <= at_once:
        return function(*stacks)
    return jax.lax.map(lambda matrices: function(*matrices), stacks, batch_size=None if at_once == 1 else at_once)


def _is_tall(piece: Array) -> bool:
    return piece.shape[-2] > piece.shape[-1]


def _count(axes: MatrixAxes) -> int:
    return 1 if axes.split is None else len(axes.split)


def matrices_at_once(m: int, n: int, itemsize: int, backend: str) -> int:
    """How many matrices of a stack are worked on together.

    On CPU one: a product there uses all cores by itself, and XLA's batched product is slower than a loop over single
    ones. Elsewhere as many as fit into ``SLICE_BYTES`` with what an iteration holds of each: its input, its
    output and five m x m matrices.
    """
    if backend == "cpu":
        return 1
    m, n = min(m, n), max(m, n)
    return max(1, SLICE_BYTES // (itemsize * (2 * m * n + 5 * m * m)))
