"""Orthogonalization and the shape factor as transformations of a whole tree of matrices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_tour._checks import check_choice
from jaxopt_tour._trees import map_with_names, named_leaves, rebox, unbox
from jaxopt_tour._types import Array, Tree
from jaxopt_tour.mesh.layouts import whole_shapes
from jaxopt_tour.mesh.on_mesh import MeshLike, as_on_mesh
from jaxopt_tour.mesh.run import orthogonalize_parameters
from jaxopt_tour.optimizers._facts import tell_orthogonalized
from jaxopt_tour.orthogonalization.orthogonalizer import OrthogonalizerLike, as_orthogonalizer
from jaxopt_tour.routing.axes import MatrixAxes
from jaxopt_tour.routing.by_name.routes import routes_by_name
from jaxopt_tour.routing.shape_factors import SHAPE_FACTORS, ShapeFactor, shape_factor


def orthogonalize_via_newton_schulz(
    orthogonalizer: OrthogonalizerLike = "auto",
    *,
    axes: MatrixAxes | Mapping[str, MatrixAxes] | None = None,
    mesh: MeshLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Replace every update, seen as matrices, by its orthogonal polar factor, nearly.

    $$
    U S V^\top \to U \, p(S / |S|) \, V^\top, \qquad p(s) \approx 1
    $$

    This is the direction of steepest descent under the spectral norm. Every singular value of an update is near 1,
    whatever the size of the gradient; its root mean square is `1 / sqrt(max(fan_in, fan_out))` at full rank.

    Args:
        orthogonalizer: an `Orthogonalizer`, or coefficients by name or value, such as `"fast"`.
        axes: how parameters are seen as matrices: one `MatrixAxes` for all, or one by path name. None: what
            `multi_transform` passes, else the reading by name; a plain 2-D parameter is (in, out).
        mesh: for parameters that are sharded over a device mesh: the axes whose devices share the work, by name or as a
            `OnMesh`. None: Explicit axes that shard the matrices share it, Auto ones leave it to the
            partitioner. The mesh is that of the arrays, or `jax.set_mesh`'s.

    Raises:
        ValueError: an unknown name, option or mesh axis; at `init`, a parameter that is no matrix, by its path.
    """
    orthogonalizer, on_mesh = as_orthogonalizer(orthogonalizer), as_on_mesh(mesh)

    def init(params: Tree) -> optax.EmptyState:
        resolve_axes(axes, None, params, complain=axes is not None)
        tell_orthogonalized(named_leaves(params))
        return optax.EmptyState()

    def update(
        updates: Tree,
        state: optax.EmptyState,
        params: Tree | None = None,
        *,
        matrix_axes: Mapping[str, MatrixAxes] | None = None,
        **extra_args: Any,
    ) -> tuple[Tree, optax.EmptyState]:
        del params, extra_args
        views = resolve_axes(axes, matrix_axes, updates)
        orthogonal = orthogonalize_parameters(orthogonalizer, named_leaves(updates), views, on_mesh)
        return map_with_names(lambda name, leaf: rebox(leaf, orthogonal[name]), updates), state

    return optax.GradientTransformationExtraArgs(init, update)


def scale_by_matrix_shape(
    factor: ShapeFactor | None = "match_rms_adamw",
    *,
    axes: MatrixAxes | Mapping[str, MatrixAxes] | None = None,
    mesh: MeshLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Multiply every update by the factor of its fan-in and fan-out.

    `"original"` sqrt(max(1, fan_out / fan_in)), `"match_rms_adamw"` 0.2 sqrt(max(fan_in, fan_out)), `"spectral"`
    sqrt(fan_out / fan_in), None 1; sources in `shape_factor`.

    After orthogonalization the spectral norm of an update is the factor; under `"match_rms_adamw"` the root
    mean square of a full-rank update is 0.2.

    Args:
        factor: its name, or None.
        axes: as in `orthogonalize_via_newton_schulz`.
        mesh: as there; inside `jax.shard_map` its layouts tell fan-in and fan-out of the whole parameter.

    Raises:
        ValueError: an unknown factor; a parameter that is no matrix, by its path.
    """
    check_choice("factor", factor, SHAPE_FACTORS)
    on_mesh = as_on_mesh(mesh)

    def init(params: Tree) -> optax.EmptyState:
        resolve_axes(axes, None, params, complain=axes is not None)
        return optax.EmptyState()

    def update(
        updates: Tree,
        state: optax.EmptyState,
        params: Tree | None = None,
        *,
        matrix_axes: Mapping[str, MatrixAxes] | None = None,
        **extra_args: Any,
    ) -> tuple[Tree, optax.EmptyState]:
        del params, extra_args
        views = resolve_axes(axes, matrix_axes, updates)

        shapes = whole_shapes(named_leaves(updates), None if on_mesh is None else on_mesh.layouts)

        def scale(name: str, leaf: Array) -> Array:
            pieces = views[name].matrix_shapes(shapes[name])
            factors = [shape_factor(factor, fan_in, fan_out) for _, fan_in, fan_out in pieces]
            if len(set(factors)) == 1:
                return leaf * jnp.asarray(factors[0], leaf.dtype)
            # One factor an entry of fan-out, by broadcasting: no piece is cut out of a leaf that is spread over a mesh.
            _, _, fan_out = views[name].dimensions(leaf.shape)
            along = np.repeat(factors, [width for _, _, width in pieces]).reshape([leaf.shape[i] for i in fan_out])
            along = along.transpose(np.argsort(fan_out))
            along = np.expand_dims(along, [axis for axis in range(leaf.ndim) if axis not in fan_out])
            return leaf * jnp.asarray(along, leaf.dtype)

        return map_with_names(lambda name, leaf: rebox(leaf, scale(name, unbox(leaf))), updates), state

    return optax.GradientTransformationExtraArgs(init, update)


def resolve_axes(
    axes: MatrixAxes | Mapping[str, MatrixAxes] | None,
    handed_over: Mapping[str, MatrixAxes] | None,
    tree: Tree,
    complain: bool = True,
) -> dict[str, MatrixAxes]:
    """The matrix view of every parameter: as given, else as handed over by routing, else by name.

    Raises:
        ValueError: a parameter has no such view (unless `complain` is False), or the view does not fit its shape.
    """
    leaves = named_leaves(tree)
    if isinstance(axes, MatrixAxes):
        given: Mapping[str, MatrixAxes] = dict.fromkeys(leaves, axes)
    elif axes is None or isinstance(axes, Mapping):
        given = axes or handed_over or {}
    else:
        raise ValueError(f"axes must be None, a MatrixAxes, or MatrixAxes by path name, got {axes!r}")
    by_name = routes_by_name(tree) if set(leaves) - set(given) else {}
    views = {}
    for name, leaf in leaves.items():
        view = given.get(name)
        if view is None:
            view = by_name[name].axes or (MatrixAxes(0, 1) if leaf.ndim == 2 else None)
        if view is None and complain:
            raise ValueError(
                f"parameter {name!r} of shape {tuple(leaf.shape)} is no matrix ({by_name[name].reason}): give its "
                "MatrixAxes, or route it elsewhere with jaxopt_tour.multi_transform"
            )
        if view is not None:
            try:
                view.matrix_shapes(tuple(leaf.shape))
            except ValueError as error:
                raise ValueError(f"parameter {name!r}: {error}") from None
            views[name] = view
    return views
