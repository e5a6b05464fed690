"""Orthogonalization and the shape factor as transformations of a whole tree of matrices."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_tour._checks import check_choice
from jaxopt_tour._trees import map_with_names, named_leaves, rebox, unbox
from jaxopt_tour._types import Array, Tree
from jaxopt_tour.mesh.layouts import whole_shapes
from jaxopt_tour.mesh.on_mesh import MeshLike, as_on_mesh
from jaxopt_tour.mesh.run import orthogonalize_parameters
from jaxopt_tour.optimizers._init_report import report_orthogonalized
from jaxopt_tour.optimizers._matrix_axes import stateless_with_axes
from jaxopt_tour.orthogonalization.orthogonalizer import OrthogonalizerLike, as_orthogonalizer
from jaxopt_tour.routing.axes import MatrixAxes
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
        mesh: for parameters that are sharded over a device mesh: the axes whose devices share the work, by name or
            as an `OnMesh`. None: Explicit axes that shard the matrices share it, Auto ones leave it to the partitioner.
            The mesh is that of the arrays, or `jax.set_mesh`'s.

    Raises:
        ValueError: an unknown name, option or mesh axis; at `init`, a parameter that is no matrix, by its path.
    """
    orthogonalizer, on_mesh = as_orthogonalizer(orthogonalizer), as_on_mesh(mesh)

    def orthogonalized(updates: Tree, views: Mapping[str, MatrixAxes], params: Tree | None) -> Tree:
        del params
        orthogonal = orthogonalize_parameters(orthogonalizer, named_leaves(updates), views, on_mesh)
        return map_with_names(lambda name, leaf: rebox(leaf, orthogonal[name]), updates)

    def at_init(params: Tree) -> None:
        report_orthogonalized(named_leaves(params), orthogonalizer)

    return stateless_with_axes(orthogonalized, axes, at_init=at_init)


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

    def scaled(updates: Tree, views: Mapping[str, MatrixAxes], params: Tree | None) -> Tree:
        del params
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

        return map_with_names(lambda name, leaf: rebox(leaf, scale(name, unbox(leaf))), updates)

    return stateless_with_axes(scaled, axes)
