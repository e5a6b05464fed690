"""A parameter seen as a batch of matrices: which of its axes are fan-in, which are fan-out, which are the batch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import jax.numpy as jnp

from jaxopt_tour._types import Array


def _as_axes(name: str, axes: int | Sequence[int]) -> tuple[int, ...]:
    axes = (axes,) if isinstance(axes, int) else tuple(axes)
    if not all(isinstance(axis, int) for axis in axes):
        raise ValueError(f"{name} must be an axis or a sequence of axes (integers), got {axes!r}")
    return axes


@dataclasses.dataclass(frozen=True)
class MatrixAxes:
    """How a parameter of any rank is a batch of matrices that map fan-in to fan-out.

    ``y[..., fan_out] = sum over fan_in of x[..., fan_in] w[batch, fan_in, fan_out]``; the axes named in neither list
    are the batch: scanned layers, experts, heads that are to be treated apart. The axes of one list are flattened into
    one dimension, in the order given.

    | parameter | shape | axes |
    |---|---|---|
    | Dense | (in, out) | ``MatrixAxes(0, 1)`` |
    | attention query, key, value | (in, heads, head_dim) | ``MatrixAxes(0, (1, 2))`` |
    | the same, every head apart | (in, heads, head_dim) | ``MatrixAxes(0, 2)`` |
    | attention out | (heads, head_dim, out) | ``MatrixAxes((0, 1), 2)`` |
    | convolution | (kh, kw, in, out) | ``MatrixAxes((0, 1, 2), 3)`` |
    | scanned layers, experts | (layers, experts, in, out) | ``MatrixAxes(2, 3)`` |
    | fused query, key, value | (in, 3 * width) | ``MatrixAxes(0, 1, split=(width, width, width))`` |

    Args:
        fan_in: the axis or axes that are summed over. Negative axes count from the end.
        fan_out: the axis or axes that remain.
        split: sizes into which the flattened fan-out is cut, each piece a matrix of its own (fused projections); they
            add up to fan-out. None: one matrix.

    Raises:
        ValueError: an axis stands in both lists, or (once a shape is known) does not exist, or the split does not add
            up.
    """

    fan_in: tuple[int, ...]
    fan_out: tuple[int, ...]
    split: tuple[int, ...] | None = None

    def __init__(
        self, fan_in: int | Sequence[int], fan_out: int | Sequence[int], split: Sequence[int] | None = None
    ) -> None:
        object.__setattr__(self, "fan_in", _as_axes("fan_in", fan_in))
        object.__setattr__(self, "fan_out", _as_axes("fan_out", fan_out))
        object.__setattr__(self, "split", None if split is None else tuple(split))
        if not self.fan_in or not self.fan_out:
            raise ValueError(f"fan_in and fan_out need at least one axis each, got {self}")
        if self.split is not None and not all(isinstance(size, int) and size > 0 for size in self.split):
            raise ValueError(f"split must be positive sizes, got {self.split!r}")

    def dimensions(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Batch, fan-in and fan-out axes of an array of this shape, as non-negative numbers."""
        rank = len(shape)
        for axis in self.fan_in + self.fan_out:
            if not -rank <= axis < rank:
                raise ValueError(f"axis {axis} of {self} does not exist in an array of shape {shape}")
        fan_in = tuple(axis % rank for axis in self.fan_in)
        fan_out = tuple(axis % rank for axis in self.fan_out)
        if len(set(fan_in + fan_out)) != len(fan_in) + len(fan_out):
            raise ValueError(f"{self} uses an axis of shape {shape} twice")
        batch = tuple(axis for axis in range(rank) if axis not in fan_in + fan_out)
        return batch, fan_in, fan_out

    def matrix_shapes(self, shape: tuple[int, ...]) -> tuple[tuple[int, int, int], ...]:
        """``(batch, fan_in, fan_out)`` of every piece of a parameter of this shape; one piece unless split."""
        axes = self.dimensions(shape)
        batch, fan_in, fan_out = (math.prod(shape[axis] for axis in group) for group in axes)
        if self.split is None:
            return ((batch, fan_in, fan_out),)
        if sum(self.split) != fan_out:
            raise ValueError(f"split {self.split} adds up to {sum(self.split)}, not to fan-out {fan_out} of {shape}")
        return tuple((batch, fan_in, size) for size in self.split)

    def to_matrices(self, leaf: Array) -> tuple[Array, ...]:
        """The parameter's pieces, each of shape (batch, fan_in, fan_out)."""
        shapes = self.matrix_shapes(leaf.shape)
        batch, fan_in, fan_out = self.dimensions(leaf.shape)
        rows = shapes[0][:2]
        matrix = leaf.transpose(batch + fan_in + fan_out).reshape(*rows, sum(shape[2] for shape in shapes))
        if self.split is None:
            return (matrix,)
        ends = [sum(self.split[: i + 1]) for i in range(len(self.split))]
        return tuple(matrix[..., end - size : end] for end, size in zip(ends, self.split, strict=True))

    def from_matrices(self, pieces: Sequence[Array], shape: tuple[int, ...]) -> Array:
        """The inverse of :meth:`to_matrices` for a parameter of this shape."""
        batch, fan_in, fan_out = self.dimensions(shape)
        order = batch + fan_in + fan_out
        matrix = pieces[0] if len(pieces) == 1 else jnp.concatenate(pieces, axis=-1)
        inverse = sorted(range(len(shape)), key=order.__getitem__)
        return matrix.reshape([shape[axis] for axis in order]).transpose(inverse)
