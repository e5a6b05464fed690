"""Orthogonalization and the shape factor as transformations of a whole tree of matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_tour._checks import check_choice, check_float_dtype
from jaxopt_tour._trees import map_with_names, named_leaves, rebox, unbox
from jaxopt_tour._types import Array, DTypeLike, Tree
from jaxopt_tour.linalg.newton_schulz import Orthogonalization
from jaxopt_tour.linalg.schedules import ScheduleLike
from jaxopt_tour.linalg.shape_factors import SHAPE_FACTORS, shape_factor
from jaxopt_tour.matrices.axes import MatrixAxes
from jaxopt_tour.matrices.layouts import Layouts, check_mesh_axes, explicit_axes, whole_shapes
from jaxopt_tour.matrices.names import routes_by_name
from jaxopt_tour.matrices.sharding import orthogonalize_on_mesh
from jaxopt_tour.matrices.stacking import STACKINGS, orthogonalize_leaves


def orthogonalize_via_newton_schulz(
    schedule: ScheduleLike = "auto",
    *,
    method: str = "auto",
    dtype: DTypeLike | None = None,
    eps: float = 0.0,
    symmetric: str = "auto",
    stacking: str = "auto",
    axes: MatrixAxes | Mapping[str, MatrixAxes] | None = None,
    mesh_axes: str | Sequence[str] | None = None,
    layouts: Layouts | None = None,
    wire_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Replace every update, seen as matrices, by its orthogonal polar factor, nearly.

    ``U S V^T -> U p(S / |S|) V^T``, with ``p(s)`` near 1: the steepest descent direction under the spectral norm.

    Units: every singular value of an update is near 1, whatever the size of the gradient; its root mean square is
    ``1 / sqrt(max(fan_in, fan_out))`` at full rank.

    Args:
        schedule: ``"auto"`` (rational functions on CPU from 128 rows on, five quintics elsewhere, see
            :func:`jaxopt_tour.linalg.schedules.auto`), ``"fast"``, ``"zolotarev"``, ``"polar_express"``, ``"cans"``,
            ``"keller_jordan"``, ``"you"``, ``"modula"``, ``"turbo"``, ``"cubic"``, ``"exact"``, a value such as
            ``jt.schedules.polar_express(steps=4, lower_bound=1e-2)``, or a sequence of (a, b, c), longer for degree 9
            and 17.
        method: ``"auto"``, ``"standard"`` or ``"gram"``, see :func:`jaxopt_tour.linalg.newton_schulz.orthogonalize`.
        dtype: of the iteration; None: float32 on CPU, float16 on a GPU, bfloat16 on a TPU. Updates keep their dtype.
        eps: added to the prescaling norm.
        symmetric: how products that are known to be symmetric are computed: ``"auto"``, ``"plain"``, ``"blocks"`` or
            ``"kernel"``, see :func:`jaxopt_tour.linalg.symmetric.symmetric_product`.
        stacking: ``"auto"``, ``"by_shape"`` or ``"apart"``, see
            :func:`jaxopt_tour.matrices.stacking.orthogonalize_leaves`.
        axes: how parameters are seen as matrices: one :class:`MatrixAxes` for all, or one by path name. None: what
            :func:`jaxopt_tour.multi_transform` hands over, else the reading by name; a plain 2-D parameter is
            (in, out).
        mesh_axes: for parameters that are spread over a device mesh: the axes whose devices share the work, each
            iterating on whole matrices of its own, see :mod:`jaxopt_tour.matrices.sharding`. None: Explicit axes that
            spread the matrices share it, Auto ones leave it to the partitioner. The mesh is that of the arrays, or
            ``jax.set_mesh``'s.
        layouts: inside ``jax.shard_map``, where nothing else knows them: how parameters are spread, a tree of
            PartitionSpecs like the parameters, or a function of path name and shard that returns one.
        wire_dtype: of matrices on their way between devices, such as ``"bfloat16"``; None: the update's.

    Raises:
        ValueError: an unknown schedule, method, stacking or mesh axis; at ``init``, a parameter that is no matrix, by
            its path.
    """
    operation = Orthogonalization.of(schedule, method=method, dtype=dtype, eps=eps, symmetric=symmetric)
    check_choice("stacking", stacking, STACKINGS)
    shared_over = check_mesh_axes(mesh_axes)
    travels_as = check_float_dtype("wire_dtype", wire_dtype)

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
        leaves = named_leaves(updates)
        mesh_axes = explicit_axes(leaves.values()) if shared_over is None else shared_over
        if mesh_axes:
            orthogonal = orthogonalize_on_mesh(
                operation, leaves, views, mesh_axes, layouts=layouts, wire_dtype=travels_as
            )
        else:
            orthogonal = orthogonalize_leaves(operation, leaves, views, stacking)
        return map_with_names(lambda name, leaf: rebox(leaf, orthogonal[name]), updates), state

    return optax.GradientTransformationExtraArgs(init, update)


def scale_by_matrix_shape(
    factor: str | None = "match_rms_adamw",
    *,
    axes: MatrixAxes | Mapping[str, MatrixAxes] | None = None,
    layouts: Layouts | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Multiply every update by the factor of its fan-in and fan-out.

    ``"original"`` sqrt(max(1, fan_out / fan_in)), ``"match_rms_adamw"`` 0.2 sqrt(max(fan_in, fan_out)), ``"spectral"``
    sqrt(fan_out / fan_in), None 1; sources in :func:`jaxopt_tour.linalg.shape_factors.shape_factor`.

    Units, after orthogonalization: the spectral norm of an update is the factor; under ``"match_rms_adamw"`` the root
    mean square of a full-rank update is 0.2.

    Args:
        factor: its name, or None.
        axes: as in :func:`orthogonalize_via_newton_schulz`.
        layouts: as there; fan-in and fan-out are those of the whole parameter.

    Raises:
        ValueError: an unknown factor; a parameter that is no matrix, by its path.
    """
    check_choice("factor", factor, SHAPE_FACTORS)

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

        shapes = whole_shapes(named_leaves(updates), layouts)

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
        ValueError: a parameter has no such view (unless ``complain`` is False), or the view does not fit its shape.
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
