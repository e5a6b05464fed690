"""Several transformations over one tree: each parameter goes to the one that its route names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import optax

from jaxopt_tour._trees import HOLE, is_box, is_hole, map_with_names
from jaxopt_tour._types import Tree
from jaxopt_tour.routing import ROLES, MatrixAxes, Routes, Routing, resolve

#: A transformation whose state is shaped by the axes of its parameters, made once these are known, by path name.
MadeForAxes = Callable[[Mapping[str, MatrixAxes]], optax.GradientTransformation]


class MultiTransformState(NamedTuple):
    """The states of the transformations by label; a parameter that is elsewhere is a hole (optax.MaskedNode)."""

    inner_states: dict[str, Any]


def multi_transform(
    transforms: Mapping[str, optax.GradientTransformation | MadeForAxes], routing: Routing = None
) -> optax.GradientTransformationExtraArgs:
    """Send every parameter to the transformation that its route names.

    ``optax.multi_transform`` with four additions: labels are roles that come from routing (by name by default, never
    from ``ndim == 2``); a role without a transformation goes to ``"other"``; the transformations receive the :class:`MatrixAxes` of their parameters as the extra argument
    ``matrix_axes``; and a hole stands for a whole Flax variable, so that ``nnx.Optimizer`` works on flax 0.11 too.

    Example:
        >>> import jaxopt_tour as jt, optax
        >>> tx = jt.multi_transform({
        ...     "matrix": optax.chain(jt.scale_by_muon(), jt.scale_by_matrix_shape(), optax.scale_by_learning_rate(1e-3)),
        ...     "embedding": optax.set_to_zero(),
        ...     "other": jt.adamw(1e-3),
        ... })

    Args:
        transforms: transformation by label: roles such as ``"matrix"`` and ``"embedding"``, ``"other"`` for all roles
            that have none, and labels of your own. One whose state is shaped by the axes, such as
            :func:`jaxopt_tour.scale_by_shampoo`, must know them at ``init`` already, where Optax has no extra
            arguments: give a function of the axes by path name that returns it,
            ``lambda axes: optax.chain(jt.scale_by_shampoo(axes=axes), ...)``.
        routing: see :func:`jaxopt_tour.routing.resolve.resolve`.

    Raises:
        ValueError: at ``init``, a parameter's label has no transformation; the message names path and labels.
    """

    def made_for(axes: Mapping[str, MatrixAxes]) -> dict[str, optax.GradientTransformationExtraArgs]:
        return {
            label: optax.with_extra_args_support(tx(axes) if callable(tx) else tx) for label, tx in transforms.items()
        }

    made_for({})  # a wrong argument is named now, not at init

    def routes_of(params: Tree) -> Routes:
        routes = resolve(routing, params)
        for name, route in routes.items():
            if route.label in transforms:
                continue
            if route.label not in ROLES or "other" not in transforms or route.label == "matrix":
                raise ValueError(
                    f"parameter {name!r} is routed to {route.label!r}, and transforms has {sorted(transforms)}"
                )
            routes[name] = dataclasses.replace(route, label="other")
        return routes

    def init(params: Tree) -> MultiTransformState:
        if _is_placeholder(params):  # optax.tree.map_params asks which parts of the state are parameter trees
            return MultiTransformState({label: tx.init(params) for label, tx in made_for({}).items()})
        routes = routes_of(params)
        own = made_for(_axes_of(routes))
        return MultiTransformState({label: tx.init(_only(params, routes, label)) for label, tx in own.items()})

    def update(
        updates: Tree, state: MultiTransformState, params: Tree | None = None, **extra_args: Any
    ) -> tuple[Tree, MultiTransformState]:
        routes = routes_of(updates if params is None else params)
        axes = _axes_of(routes)
        inner_states = {}
        for label, tx in made_for(axes).items():
            own_params = None if params is None else _only(params, routes, label)
            own_updates, inner_states[label] = tx.update(
                _only(updates, routes, label),
                state.inner_states[label],
                own_params,
                **{**extra_args, "matrix_axes": axes},
            )
            updates = jax.tree.map(
                lambda old, new: old if is_hole(new) else new, updates, own_updates, is_leaf=_is_leaf
            )
        return updates, MultiTransformState(inner_states)

    return optax.GradientTransformationExtraArgs(init, update)


def _axes_of(routes: Routes) -> dict[str, MatrixAxes]:
    return {name: route.axes for name, route in routes.items() if route.axes is not None}


def _only(tree: Tree, routes: Routes | Mapping[str, Any], label: str) -> Tree:
    """The tree with a hole in place of every parameter that goes elsewhere."""
    return map_with_names(lambda name, leaf: leaf if routes[name].label == label else HOLE, tree)


def _is_leaf(node: Any) -> bool:
    return is_box(node) or is_hole(node)


def _is_placeholder(params: Tree) -> bool:
    """Whether this is the opaque node with which ``optax.tree.map_params`` probes an ``init``."""
    return type(params).__name__ == "_ParamsPlaceholder"
