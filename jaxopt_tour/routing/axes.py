"""Which axes of a parameter are fan-in, which are fan-out and which are the batch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import jax.numpy as jnp

from jaxopt_tour._types import Array, Num


def _as_axes(name: str, axes: int | Sequence[int]) -> tuple[int, ...]:
    found = (axes,) if isinstance(axes, int) else tuple(axes) if isinstance(axes, Sequence) else ()
    if not all(isinstance(axis, int) for axis in found) or not isinstance(axes, int | Sequence):
        raise ValueError(f"{name} must be an axis or a sequence of axes (integers), got {axes!r}")
    return found


@dataclasses.dataclass(frozen=True)
class MatrixAxes:
    """Fan-in and fan-out axes of a parameter of any rank, which make it a batch of matrices.

    `y[..., fan_out] = sum over fan_in of x[..., fan_in] w[batch, fan_in, fan_out]`. Axes that are neither fan-in nor
    fan-out are the batch: scanned layers, experts, or attention heads as separate matrices. Fan-in axes are flattened
    into one dimension in the given order, and so are fan-out axes.

    | parameter | shape | axes |
    |---|---|---|
    | Dense | (in, out) | `MatrixAxes(0, 1)` |
    | attention query, key, value | (in, heads, head_dim) | `MatrixAxes(0, (1, 2))` |
    | the same, a matrix per head | (in, heads, head_dim) | `MatrixAxes(0, 2)` |
    | attention output | (heads, head_dim, out) | `MatrixAxes((0, 1), 2)` |
    | convolution | (kh, kw, in, out) | `MatrixAxes((0, 1, 2), 3)` |
    | scanned layers, experts | (layers, experts, in, out) | `MatrixAxes(2, 3)` |
    | fused query, key, value | (in, 3 * width) | `MatrixAxes(0, 1, split=(width, width, width))` |
    | a matrix per head, heads flattened | (in, heads * 64) | `MatrixAxes(0, 2, factors={1: (64,)})` |
    | output, a matrix per head | (heads * 64, out) | `MatrixAxes(1, 2, factors={0: (64,)})` |
    | query, key, value interleaved by head | (in, heads * 3 * 64) | `MatrixAxes(0, (1, 3), factors={1: (3, 64)})` |

    Args:
        fan_in: axis or axes that are summed over. Negative axes count from the end.
        fan_out: axis or axes of the output.
        split: sizes of the parts of a fused projection, which add up to the flattened fan-out; every part is a separate
            matrix. None: one matrix.
        factors: inner sizes of axes that are products, by axis: `{1: (3, 64)}` reshapes axis 1 of size 2304 to
            (12, 3, 64). Fan-in and fan-out then number the axes of the reshaped array. Not together with `split`.

    Raises:
        ValueError: no axis is given, `split` or `factors` are not positive sizes, or both are given. Once a shape
            is given: an axis does not exist or is used twice, the split does not add up to fan-out, or factors do not
            divide their axis.
    """

    fan_in: tuple[int, ...]
    fan_out: tuple[int, ...]
    split: tuple[int, ...] | None = None
    factors: tuple[tuple[int, tuple[int, ...]], ...] = ()

    def __init__(
        self,
        fan_in: int | Sequence[int],
        fan_out: int | Sequence[int],
        split: Sequence[int] | None = None,
        *,
        factors: Mapping[int, Sequence[int]] | tuple[tuple[int, tuple[int, ...]], ...] | None = None,
    ) -> None:
        object.__setattr__(self, "fan_in", _as_axes("fan_in", fan_in))
        object.__setattr__(self, "fan_out", _as_axes("fan_out", fan_out))
        if split is not None and not isinstance(split, Sequence):
            raise ValueError(f"split must be positive sizes, got {split!r}")
        object.__setattr__(self, "split", None if split is None else tuple(split))
        if not self.fan_in or not self.fan_out:
            raise ValueError(f"fan_in and fan_out need at least one axis each, got {self}")
        if self.split is not None and not all(isinstance(size, int) and size > 0 for size in self.split):
            raise ValueError(f"split must be positive sizes, got {self.split!r}")
        try:
            pairs = tuple((int(axis), tuple(sizes)) for axis, sizes in sorted(dict(factors or ()).items()))
        except (TypeError, ValueError):
            raise ValueError(f"factors must be inner sizes by axis, such as {{1: (64,)}}, got {factors!r}") from None
        object.__setattr__(self, "factors", pairs)
        if not all(sizes and all(isinstance(size, int) and size > 0 for size in sizes) for _, sizes in pairs):
            raise ValueError(f"factors must be positive inner sizes by axis, such as {{1: (64,)}}, got {factors!r}")
        if pairs and self.split is not None:
            raise ValueError(f"split and factors cannot be given together, got {self}")

    def __repr__(self) -> str:
        factors = f", factors={dict(self.factors)}" if self.factors else ""
        return f"MatrixAxes(fan_in={self.fan_in}, fan_out={self.fan_out}, split={self.split}{factors})"

    def factored(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int | None, ...]]:
        """Return the shape that `factors` give an array, and for each axis of it the array's axis.

        None stands for an inner factor: a sharded axis is sharded along its outermost factor.
        """
        if not self.factors:
            return shape, tuple(range(len(shape)))
        by_axis = {axis % len(shape): sizes for axis, sizes in self.factors if -len(shape) <= axis < len(shape)}
        if len(by_axis) < len(self.factors):
            raise ValueError(f"an axis in factors of {self} does not exist in an array of shape {shape}")
        sizes: list[int] = []
        axes: list[int | None] = []
        for axis, size in enumerate(shape):
            inner = by_axis.get(axis, ())
            if size % math.prod(inner):
                raise ValueError(f"axis {axis} of shape {shape} is not divisible by its factors {inner}")
            sizes += [size // math.prod(inner), *inner]
            axes += [axis, *(None for _ in inner)]
        return tuple(sizes), tuple(axes)

    def dimensions(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Return the batch, fan-in and fan-out axes of an array of this shape, as non-negative numbers.

        With `factors` they number the axes of the reshaped array.
        """
        shape, _ = self.factored(shape)
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
        """Return `(batch, fan_in, fan_out)` of every part of a parameter of this shape; one part unless split."""
        axes = self.dimensions(shape)
        shape, _ = self.factored(shape)
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
        leaf = leaf.reshape(self.factored(leaf.shape)[0]) if self.factors else leaf
        matrix = leaf.transpose(batch + fan_in + fan_out).reshape(*shapes[0][:2], sum(shape[2] for shape in shapes))
        if self.split is None:
            return (matrix,)
        ends = [sum(self.split[: i + 1]) for i in range(len(self.split))]
        return tuple(matrix[..., end - size : end] for end, size in zip(ends, self.split, strict=True))

    def from_matrices(self, parts: Sequence[Num[Array, "batch fan_in _"]], shape: tuple[int, ...]) -> Num[Array, ...]:
        """Return the parameter of this shape from its matrices: the inverse of `to_matrices`."""
        batch, fan_in, fan_out = self.dimensions(shape)
        order = batch + fan_in + fan_out
        matrix = parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)
        inverse = sorted(range(len(order)), key=order.__getitem__)
        sizes, _ = self.factored(shape)
        leaf = matrix.reshape([sizes[axis] for axis in order]).transpose(inverse)
        return leaf.reshape(shape) if self.factors else leaf
