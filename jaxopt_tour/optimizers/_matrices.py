"""Matrices of a parameter for rules that need sums over their inputs and outputs and no products of matrices.

A parameter that is one batch of matrices keeps its axes: sums go over its fan-in or fan-out axes, so that nothing is
reshaped or gathered on a mesh. The parts of a fused parameter are cut out and put together again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.lax import stop_gradient
from jax.sharding import AxisType

from jaxopt_tour._trees import map_with_names, named_leaves, rebox, unbox
from jaxopt_tour._types import Array, Tree
from jaxopt_tour.mesh.layouts import axis_types, gathered, given_layouts, laid_like, whole_shapes
from jaxopt_tour.mesh.on_mesh import OnMesh
from jaxopt_tour.optimizers._matrix_axes import stateless_with_axes
from jaxopt_tour.optimizers._numerics import abs_squared, safe_sqrt, widen
from jaxopt_tour.routing.axes import MatrixAxes

#: The units of a matrix that a rule measures; "longer" is outputs or inputs, whichever are more.
Along = Literal["outputs", "inputs", "longer"]

Over = Literal["fan_in", "fan_out", "matrix"]


class Part(NamedTuple):
    """A batch of matrices, at least in float32: a whole parameter, or one part of a fused parameter.

    A parameter (12, 768, 3072) with the axes (1, 2) is 12 matrices; sums over fan-in have the shape (12, 1, 3072).
    Inside `jax.shard_map` the array is a shard, and the sizes are those of the whole matrices.
    """

    x: Array
    fan_in_axes: tuple[int, ...]
    fan_out_axes: tuple[int, ...]
    fan_in: int
    fan_out: int
    fan_in_mesh_axes: tuple[str, ...] = ()  # of jax.shard_map, which shard fan-in
    fan_out_mesh_axes: tuple[str, ...] = ()

    @property
    def min_size(self) -> int:
        """The largest possible rank."""
        return min(self.fan_in, self.fan_out)

    def sum(self, x: Array, over: Over) -> Array:
        """Sum `x` of this part's shape; the axes stay, with length 1."""
        axes, names = self._reduced(over)
        total = jnp.sum(x, axis=axes, keepdims=True)
        return jax.lax.psum(total, names) if names else total

    def norm(self, over: Over, x: Array | None = None) -> Array:
        """Return Euclidean norms, whose squares neither overflow nor vanish, and whose derivative at zero is zero."""
        x = self.x if x is None else x
        axes, names = self._reduced(over)
        largest = jnp.max(jnp.abs(stop_gradient(x)), axis=axes, keepdims=True, initial=0)
        largest = jax.lax.pmax(largest, names) if names else largest
        scale = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
        return scale * safe_sqrt(self.sum(abs_squared(x / scale), over))

    def _reduced(self, over: Over) -> tuple[tuple[int, ...], tuple[str, ...]]:
        axes, names = {
            "fan_in": (self.fan_in_axes, self.fan_in_mesh_axes),
            "fan_out": (self.fan_out_axes, self.fan_out_mesh_axes),
            "matrix": (self.fan_in_axes + self.fan_out_axes, self.fan_in_mesh_axes + self.fan_out_mesh_axes),
        }[over]
        return axes, names


class Units(NamedTuple):
    """What one number a unit of a matrix stands for."""

    over: Over  # what is summed over
    size: int  # entries of one unit
    number: int  # units of one matrix


def units_of(along: Along | None, fan_in: int, fan_out: int) -> Units:
    """Return the units of a matrix; for `along` None the whole matrix is one unit."""
    if along is None:
        return Units("matrix", fan_in * fan_out, 1)
    if along == "inputs" or (along == "longer" and fan_in > fan_out):
        return Units("fan_out", fan_out, fan_in)
    return Units("fan_in", fan_in, fan_out)


def parts_of(
    tree: Tree, views: Mapping[str, MatrixAxes], on_mesh: OnMesh | None, *, vectors: bool = False
) -> dict[str, tuple[Part, ...]]:
    """Return the matrices of every parameter of a tree: one part each, several for a fused parameter.

    Args:
        tree: Parameters, gradients or updates.
        views: The matrix axes of each, by path name.
        on_mesh: Its `layouts` say which mesh axes of `jax.shard_map` shard which axes.
        vectors: Whether an array without matrix axes is a part too: one vector of all its entries, as fan-in.

    Raises:
        ValueError: Inside `jax.shard_map`, a layout does not fit its parameter or the mesh.
    """
    leaves = named_leaves(tree)
    layouts = None if on_mesh is None else on_mesh.layouts
    shapes = whole_shapes(leaves, layouts)
    mesh = jax.sharding.get_abstract_mesh()
    sizes = {name: mesh.shape[name] for name, kind in axis_types(mesh).items() if kind == AxisType.Manual}
    known = given_layouts(layouts, leaves, sizes) if sizes and layouts is not None else {}
    parts = {}
    for name, leaf in leaves.items():
        layout = known.get(name, ((),) * leaf.ndim)
        if name in views:  # a parameter without a gradient has none
            parts[name] = _parts(leaf, views[name], shapes[name], layout)
        elif vectors:
            mesh_axes = tuple(mesh_axis for axis in layout for mesh_axis in axis)
            size = math.prod(shapes[name])
            parts[name] = (Part(widen(leaf), tuple(range(leaf.ndim)), (), size, 1, mesh_axes),)
    return parts


def _parts(leaf: Array, view: MatrixAxes, whole: tuple[int, ...], layout: Sequence[Sequence[str]]) -> tuple[Part, ...]:
    leaf = gathered(leaf) if view.split is not None or view.factors else leaf
    _, fan_in_axes, fan_out_axes = view.dimensions(leaf.shape)
    sizes, axis_of = view.factored(leaf.shape)

    def mesh_axes(axes: Sequence[int]) -> tuple[str, ...]:
        stored = [axis_of[axis] for axis in axes]
        return tuple(mesh_axis for axis in stored if axis is not None for mesh_axis in layout[axis])

    over_fan_in, over_fan_out = mesh_axes(fan_in_axes), mesh_axes(fan_out_axes)
    whole_shapes_of_parts = view.matrix_shapes(whole)
    if view.split is None:
        _, fan_in, fan_out = whole_shapes_of_parts[0]
        x = widen(leaf.reshape(sizes) if view.factors else leaf)
        return (Part(x, fan_in_axes, fan_out_axes, fan_in, fan_out, over_fan_in, over_fan_out),)
    return tuple(
        Part(widen(x), (1,), (2,), fan_in, fan_out, over_fan_in)
        for x, (_, fan_in, fan_out) in zip(view.to_matrices(leaf), whole_shapes_of_parts, strict=True)
    )


def joined(leaf: Array, view: MatrixAxes | None, xs: Sequence[Array]) -> Array:
    """Put the arrays of the parts together, in the shape, dtype and layout of the parameter: undoes `parts_of`."""
    if view is None:
        return xs[0].astype(leaf.dtype)
    if view.split is not None:
        x = view.from_matrices(xs, leaf.shape)
    else:
        x = xs[0].reshape(leaf.shape) if view.factors else xs[0]
    x = x.astype(leaf.dtype)
    return laid_like(x, leaf) if view.split is not None or view.factors else x


def same_axes_as_at_init(
    part: str, views: Mapping[str, MatrixAxes], matrix_axes: Mapping[str, MatrixAxes] | None
) -> None:
    """Raise a ValueError where routing hands over other axes than those by name, which shaped the state at `init`."""
    for name, view in views.items():
        if matrix_axes is not None and matrix_axes.get(name, view) != view:
            raise ValueError(
                f"parameter {name!r} is routed as {matrix_axes[name]}, and {part} saw it as {view} at init: give "
                f"multi_transform a function, lambda axes: {part}(..., axes=axes)"
            )


def numbers_shape(view: MatrixAxes, shape: tuple[int, ...], along: Along | None) -> tuple[int, ...]:
    """Return the shape in which a state holds one number a unit (`units_of`) of a parameter of this shape.

    The parameter's own, with length 1 along the axes that are summed over. For a fused parameter `(batch, total)`,
    the units of one part after those of another.
    """
    units = [units_of(along, fan_in, fan_out) for _, fan_in, fan_out in view.matrix_shapes(shape)]
    batch_axes, fan_in_axes, fan_out_axes = view.dimensions(shape)
    sizes, _ = view.factored(shape)
    if view.split is not None:
        return math.prod(sizes[axis] for axis in batch_axes), sum(unit.number for unit in units)
    summed = {"fan_in": fan_in_axes, "fan_out": fan_out_axes, "matrix": fan_in_axes + fan_out_axes}[units[0].over]
    return tuple(1 if axis in summed else size for axis, size in enumerate(sizes))


def split_numbers(numbers: Array, parts: Sequence[Part], view: MatrixAxes, along: Along | None) -> list[Array]:
    """Cut an array of `numbers_shape` into one array a part, which broadcasts against the part's."""
    if view.split is None:
        return [numbers]
    pieces, start = [], 0
    for part in parts:
        units = units_of(along, part.fan_in, part.fan_out)
        piece = numbers[:, start : start + units.number]  # (12, 768)
        pieces.append(piece[:, None, :] if units.over == "fan_in" else piece[:, :, None])
        start += units.number
    return pieces


def join_numbers(pieces: Sequence[Array], view: MatrixAxes, like: Array | None = None) -> Array:
    """Put the numbers of the parts together, in the dtype and layout of `like` if given: undoes `split_numbers`."""
    if view.split is None:
        numbers = pieces[0]
    else:
        numbers = jnp.concatenate([piece.reshape(piece.shape[0], -1) for piece in pieces], axis=1)
    return numbers if like is None else laid_like(numbers.astype(like.dtype), like)


def check_nonzero(name: str, leaf: Array, norms: Sequence[Array], what: str) -> None:
    """Raise unless the norms of all pieces of a parameter are positive, where values are known; `what` says why."""
    known = leaf.size and not any(isinstance(norm, jax.core.Tracer) for norm in norms)
    if known and not all(bool((norm > 0).all()) for norm in norms):
        raise ValueError(
            f"parameter {name!r} of shape {tuple(leaf.shape)} must have no {what}, and it would stay zero; "
            "initialize it otherwise, or route it elsewhere with routing="
        )


def on_matrices(
    rule: Callable[..., Array],
    axes: MatrixAxes | Mapping[str, MatrixAxes] | None,
    on_mesh: OnMesh | None,
    *,
    with_params: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Return a transformation without a state that applies a rule to every matrix.

    Args:
        rule: From a part of the updates to an array of its shape.
        axes: Matrix axes, as every part takes them.
        on_mesh: Layouts inside `jax.shard_map`.
        with_params: Name of a transformation whose rule also takes the part of the parameters.
    """

    def applied(updates: Tree, views: Mapping[str, MatrixAxes], params: Tree | None) -> Tree:
        if with_params is not None and params is None:
            raise ValueError(f"{with_params} needs the parameters: call update(updates, state, params)")
        trees = (updates,) if with_params is None else (updates, params)
        parts = [parts_of(tree, views, on_mesh) for tree in trees]

        def apply(name: str, leaf: Any) -> Any:
            xs = [rule(*matching) for matching in zip(*(of_tree[name] for of_tree in parts), strict=True)]
            return rebox(leaf, joined(unbox(leaf), views[name], xs))

        return map_with_names(apply, updates)

    return stateless_with_axes(applied, axes)
