"""Which axes of a parameter are fan-in, which are fan-out and which are the batch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import jax.numpy as jnp

from jaxopt_tour._types import Array, Num


def _as_axes(name: str, axes: int | Sequence[int]) -> tuple[int, ...]:
    axes = (axes,) if isinstance(axes, int) else tuple(axes)
    if not all(isinstance(axis, int) for axis in axes):
        raise ValueError(f"{name} must be an axis or a sequence of axes (integers), got {axes!r}")
    return axes


@dataclasses.dataclass(frozen=True)
class MatrixAxes:
    """Fan-in and fan-out axes of a parameter of any rank, which make it a batch of matrices.

    ``y[..., fan_out] = sum over fan_in of x[..., fan_in] w[batch, fan_in, fan_out]``. Axes that are neither fan-in nor
    fan-out are the batch: scanned layers, experts, or attention heads as separate matrices. Fan-in axes are flattened
    into one dimension in the given order, and so are fan-out axes.

    | parameter | shape | axes |
    |---|---|---|
    | Dense | (in, out) | ``MatrixAxes(0, 1)`` |
    | attention query, key, value | (in, heads, head_dim) | ``MatrixAxes(0, (1, 2))`` |
    | the same, a matrix per head | (in, heads, head_dim) | ``MatrixAxes(0, 2)`` |
    | attention output | (heads, head_dim, out) | ``MatrixAxes((0, 1), 2)`` |
    | convolution | (kh, kw, in, out) | ``MatrixAxes((0, 1, 2), 3)`` |
    | scanned layers, experts | (layers, experts, in, out) | ``MatrixAxes(2, 3)`` |
    | fused query, key, value | (in, 3 * width) | ``MatrixAxes(0, 1, split=(width, width, width))`` |

    Args:
        fan_in: axis or axes that are summed over. Negative axes count from the end.
        fan_out: axis or axes of the output.
        split: sizes of the parts of a fused projection, which add up to the flattened fan-out; every part is a separate
            matrix. None: one matrix.

    Raises:
        ValueError: no axis is given, or ``split`` is not positive sizes. Once a shape is given: an axis does not exist
            or is used twice, or the split does not add up to fan-out.
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
        """Return the batch, fan-in and fan-out axes of an array of this shape, as non-negative numbers."""
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
        """Return ``(batch, fan_in, fan_out)`` of every part of a parameter of this shape; one part unless split."""
        axes = self.dimensions(shape)
        batch, fan_in, fan_out = (math.prod(shape[axis] for axis in group) for group in axes)
        if self.split is None:
            return ((batch, fan_in, fan_out),)
        if sum(self.split) != fan_out:
            raise ValueError(f"split {self.split} adds up to {sum(self.split)}, not to fan-out {fan_out} of {shape}")
        return tuple((batch, fan_in, size) for size in self.split)

    def to_matrices(self, leaf: Num[Array, ...]) -> tuple[Num[Array, "batch fan_in _"], ...]:
        """Return the parameter as matrices of shape (batch, fan_in, fan_out), one array per part."""
        shapes = self.matrix_shapes(leaf.shape)
        batch, fan_in, fan_out = self.dimensions(leaf.shape)
        # (12, 768, 3, 12, 64), fan-in 1 and fan-out (2, 3, 4) -> (12, 768, 2304)
        matrix = leaf.transpose(batch + fan_in + fan_out).reshape(*shapes[0][:2], sum(shape[2] for shape in shapes))
        if self.split is None:
            return (matrix,)
        ends = [sum(self.split[: i + 1]) for i in range(len(self.split))]
        return tuple(matrix[..., end - size : end] for end, size in zip(ends, self.split, strict=True))

    def from_matrices(self, parts: Sequence[Num[Array, "batch fan_in _"]], shape: tuple[int, ...]) -> Num[Array, ...]:
        """Return the parameter of this shape from its matrices: the inverse of :meth:`to_matrices`."""
        batch, fan_in, fan_out = self.dimensions(shape)
        order = batch + fan_in + fan_out
        matrix = parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)
        inverse = sorted(range(len(shape)), key=order.__getitem__)
        return matrix.reshape([shape[axis] for axis in order]).transpose(inverse)
