"""Several transformations for one tree: each parameter is updated by the one that its route names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import optax

from jaxopt_tour._checks import check_mapping, check_transformation, did_you_mean
from jaxopt_tour._trees import HOLE, is_box, is_hole, is_placeholder, map_with_names, named_leaves
from jaxopt_tour._types import Tree
from jaxopt_tour.optimizers._init_report import report_routes
from jaxopt_tour.optimizers._state_check import checked_state
from jaxopt_tour.routing import ROLES, MatrixAxes, Routes, Routing, resolve
from jaxopt_tour.routing.log import log_routes
from jaxopt_tour.routing.resolution import check_routing

#: A function from the axes of parameters, by path name, to a transformation whose state is shaped by them.
MadeForAxes = Callable[[Mapping[str, MatrixAxes]], optax.GradientTransformation]


class MultiTransformState(NamedTuple):
    """The states of the transformations by label; other transformations' parameters are `optax.MaskedNode`."""

    inner_states: dict[str, Any]


def multi_transform(
    transforms: Mapping[str, optax.GradientTransformation | MadeForAxes],
    routing: Routing = None,
    *,
    log: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Update every parameter with the transformation that its route names.

    Differs from `optax.multi_transform` in four ways:

    * labels are roles, which come from routing: by name unless `routing` says otherwise, never from `ndim == 2`;
    * `"other"` is for all roles without a transformation, except `"matrix"`;
    * transformations receive the `MatrixAxes` of their parameters as the extra argument `matrix_axes`;
    * `optax.MaskedNode` replaces a whole Flax variable, so that `nnx.Optimizer` also works on flax 0.11.

    Example:
        >>> import jaxopt_tour as jt, optax
        >>> matrices = optax.chain(jt.scale_by_muon(), jt.scale_by_matrix_shape(), optax.scale_by_learning_rate(1e-3))
        >>> tx = jt.multi_transform({
        ...     "matrix": matrices,
        ...     "embedding": optax.set_to_zero(),
        ...     "other": jt.adamw(1e-3),
        ... })

    Args:
        transforms: transformation by label: roles such as `"matrix"` and `"embedding"`, `"other"` for all roles
            without one (never `"matrix"`), and labels of your own. A transformation whose state is shaped by the
            axes, such as `scale_by_shampoo`, needs them at `init`, where Optax has no extra
            arguments. Give a function from axes by path name to the transformation:
            `lambda axes: optax.chain(jt.scale_by_shampoo(axes=axes), ...)`.
        routing: see `resolve`.
        log: whether `init` logs how many parameters have each role, through `logging.getLogger("jaxopt_tour")`.

    Raises:
        ValueError: `routing` is a function of other arguments than (path, leaf). At `init`, a parameter's label has
            no transformation. The message names the path, the labels that have one, and the closest of them. At
            `update`, the state is of another routing, another tree or another optimizer: see
            `migrate_state`.
    """

    def transforms_for(axes: Mapping[str, MatrixAxes]) -> dict[str, optax.GradientTransformationExtraArgs]:
        return {
            label: optax.with_extra_args_support(_made(label, tx(axes) if callable(tx) else tx))
            for label, tx in transforms.items()
        }

    check_mapping("transforms", transforms, "from labels to transformations")
    transforms_for({})  # a function with a wrong argument raises now, not at init

    check_routing(routing)
    if not transforms:
        raise ValueError("transforms must have a transformation for one label or more, got {}")
    logged: set[str] = set()  # an optimizer that is initialized again, as under jit, says nothing new
    accepted: set[Any] = set()  # structures of states that were checked

    def routes_of(params: Tree, log: bool = False) -> Routes:
        routes = resolve(routing, params)
        if log:
            log_routes(routes, {name: tuple(leaf.shape) for name, leaf in named_leaves(params).items()}, logged)
        for name, route in routes.items():
            if route.label in transforms:
                continue
            if route.label not in ROLES or "other" not in transforms or route.label == "matrix":
                raise ValueError(_no_transformation(name, route.label, tuple(transforms)))
            routes[name] = dataclasses.replace(route, label="other")
        return routes

    def init(params: Tree) -> MultiTransformState:
        if is_placeholder(params):
            return MultiTransformState({label: tx.init(params) for label, tx in transforms_for({}).items()})
        routes = routes_of(params, log)
        report_routes(routes)
        return init_routed(transforms_for(_axes_of(routes)), routes, params)

    def init_routed(
        by_label: Mapping[str, optax.GradientTransformation], routes: Routes, params: Tree
    ) -> MultiTransformState:
        return MultiTransformState({label: tx.init(_only(params, routes, label)) for label, tx in by_label.items()})

    def update(
        updates: Tree, state: MultiTransformState, params: Tree | None = None, **extra_args: Any
    ) -> tuple[Tree, MultiTransformState]:
        routes = routes_of(updates if params is None else params)
        axes = _axes_of(routes)
        by_label = transforms_for(axes)
        with checked_state(lambda likes: init_routed(by_label, routes, likes), state, updates, params, accepted):
            inner_states = {}
            for label, tx in by_label.items():
                params_of_label = None if params is None else _only(params, routes, label)
                updates_of_label, inner_states[label] = tx.update(
                    _only(updates, routes, label),
                    state.inner_states[label],
                    params_of_label,
                    **{**extra_args, "matrix_axes": axes},
                )
                updates = jax.tree.map(
                    lambda old, new: old if is_hole(new) else new, updates, updates_of_label, is_leaf=_is_leaf
                )
            return updates, MultiTransformState(inner_states)

    return optax.GradientTransformationExtraArgs(init, update)


def _made(label: str, tx: Any) -> optax.GradientTransformation:
    check_transformation(f"transforms[{label!r}]", tx)
    return tx


def _no_transformation(name: str, label: str, labels: tuple[str, ...]) -> str:
    if "other" in labels:
        candidates = dict.fromkeys((*labels, *(role for role in ROLES if role != "matrix")))
        allowed = f"{', '.join(map(repr, candidates))} (roles without a transformation go to 'other')"
    else:
        candidates = dict.fromkeys(labels)
        allowed = f"{', '.join(map(repr, candidates))}; 'other' would take the remaining roles"
    return (
        f"routing gives parameter {name!r} the label {label!r}, for which there is no transformation"
        f"{did_you_mean(label, candidates) or '.'} Labels: {allowed}"
    )


def _axes_of(routes: Routes) -> dict[str, MatrixAxes]:
    return {name: route.axes for name, route in routes.items() if route.axes is not None}


def _only(tree: Tree, routes: Routes | Mapping[str, Any], label: str) -> Tree:
    """The tree with `optax.MaskedNode` in place of every parameter with another label."""
    return map_with_names(lambda name, leaf: leaf if routes[name].label == label else HOLE, tree)


def _is_leaf(node: Any) -> bool:
    return is_box(node) or is_hole(node)
