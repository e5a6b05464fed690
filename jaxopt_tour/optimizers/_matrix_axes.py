"""Which axes of each parameter are fan-in and fan-out, for transformations of matrices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import optax

from jaxopt_tour._trees import named_leaves
from jaxopt_tour._types import Tree
from jaxopt_tour.routing.axes import MatrixAxes
from jaxopt_tour.routing.by_name.routes import routes_by_name


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


def stateless_with_axes(
    rule: Callable[[Tree, Mapping[str, MatrixAxes], Tree | None], Tree],
    axes: MatrixAxes | Mapping[str, MatrixAxes] | None,
    *,
    at_init: Callable[[Tree], None] = lambda params: None,
) -> optax.GradientTransformationExtraArgs:
    """Return a transformation without a state whose rule needs the matrix axes of every parameter.

    Args:
        rule: From updates, axes by path name, and parameters to updates.
        axes: As `resolve_axes` takes them. None: what `multi_transform` hands over, else the reading by name.
        at_init: Called with the parameters by `init`.
    """

    def init(params: Tree) -> optax.EmptyState:
        resolve_axes(axes, None, params, complain=axes is not None)
        at_init(params)
        return optax.EmptyState()

    def update(
        updates: Tree,
        state: optax.EmptyState,
        params: Tree | None = None,
        *,
        matrix_axes: Mapping[str, MatrixAxes] | None = None,
        **extra_args: Any,
    ) -> tuple[Tree, optax.EmptyState]:
        del extra_args
        return rule(updates, resolve_axes(axes, matrix_axes, updates), params), state

    return optax.GradientTransformationExtraArgs(init, update)
