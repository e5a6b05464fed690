"""Orthogonalization and the shape factor as transformations of a whole tree of matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import optax

from jaxopt_tour._checks import check_choice, check_float_dtype, check_nonnegative
from jaxopt_tour._trees import map_with_names, named_leaves, rebox, unbox
from jaxopt_tour._types import Array, DTypeLike, Tree
from jaxopt_tour.linalg.coefficients import Exact, Schedule, as_schedule
from jaxopt_tour.linalg.newton_schulz import METHODS, orthogonalize
from jaxopt_tour.linalg.shape_factors import SHAPE_FACTORS, shape_factor
from jaxopt_tour.matrices.axes import MatrixAxes
from jaxopt_tour.matrices.names import routes_by_name
from jaxopt_tour.matrices.stacking import STACKINGS, map_matrices


def orthogonalize_via_newton_schulz(
    schedule: str | Schedule | Exact | Sequence[Sequence[float]] = "polar_express",
    *,
    method: str = "auto",
    dtype: DTypeLike | None = None,
    eps: float = 0.0,
    stacking: str = "auto",
    axes: MatrixAxes | Mapping[str, MatrixAxes] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Replace every update, seen as matrices, by its orthogonal polar factor, nearly.

    ``U S V^T -> U p(S / |S|) V^T``, with ``p(s)`` near 1: the steepest descent direction under the spectral norm.

    Units: every singular value of an update is near 1, whatever the size of the gradient; its root mean square is
    ``1 / sqrt(max(fan_in, fan_out))`` at full rank.

    Args:
        schedule: ``"polar_express"``, ``"fast"``, ``"keller_jordan"``, ``"you"``, ``"modula"``, ``"turbo"``,
            ``"cans"``, ``"cubic"``, ``"exact"``, a value such as
            ``jt.schedules.polar_express(steps=4, lower_bound=1e-2)``, or a sequence of (a, b, c).
        method: ``"auto"``, ``"standard"`` or ``"gram"``, see :func:`jaxopt_tour.linalg.newton_schulz.orthogonalize`.
        dtype: of the iteration; None: the update's, at least float32. Updates keep their dtype.
        eps: added to the prescaling norm.
        stacking: ``"auto"``, ``"by_shape"`` or ``"apart"``, see :func:`jaxopt_tour.matrices.stacking.map_matrices`.
        axes: how parameters are seen as matrices: one :class:`MatrixAxes` for all, or one by path name. None: what
            :func:`jaxopt_tour.multi_transform` hands over, else the reading by name; a plain 2-D parameter is
            (in, out).

    Raises:
        ValueError: an unknown schedule, method or stacking; at ``init``, a parameter that is no matrix, by its path.
    """
    schedule = as_schedule(schedule)
    check_choice("method", method, METHODS)
    check_choice("stacking", stacking, STACKINGS)
    check_float_dtype("dtype", dtype)
    check_nonnegative("eps", eps)

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

        def one_batch(x: Array) -> Array:
            return orthogonalize(x, schedule, method=method, dtype=dtype, eps=eps)

        views = resolve_axes(axes, matrix_axes, updates)
        orthogonal = map_matrices(one_batch, named_leaves(updates), views, stacking)
        return map_with_names(lambda name, leaf: rebox(leaf, orthogonal[name]), updates), state

    return optax.GradientTransformationExtraArgs(init, update)


def scale_by_matrix_shape(
    factor: str | None = "match_rms_adamw", *, axes: MatrixAxes | Mapping[str, MatrixAxes] | None = None
) -> optax.GradientTransformationExtraArgs:
    """Multiply every update by the factor of its fan-in and fan-out.

    ``"original"`` sqrt(max(1, fan_out / fan_in)), ``"match_rms_adamw"`` 0.2 sqrt(max(fan_in, fan_out)), ``"spectral"``
    sqrt(fan_out / fan_in), None 1; sources in :func:`jaxopt_tour.linalg.shape_factors.shape_factor`.

    Units, after orthogonalization: the spectral norm of an update is the factor; under ``"match_rms_adamw"`` the root
    mean square of a full-rank update is 0.2.

    Args:
        factor: its name, or None.
        axes: as in :func:`orthogonalize_via_newton_schulz`.

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

        def scale(name: str, leaf: Array) -> Array:
            pieces = views[name].matrix_shapes(leaf.shape)
            factors = [shape_factor(factor, fan_in, fan_out) for _, fan_in, fan_out in pieces]
            if len(set(factors)) == 1:
                return leaf * jnp.asarray(factors[0], leaf.dtype)
            scaled = [s * x for s, x in zip(factors, views[name].to_matrices(leaf), strict=True)]
            return views[name].from_matrices(scaled, leaf.shape).astype(leaf.dtype)

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
