"""Numbers to watch during training: measured inside the update, every so many steps, and kept in its state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_tour._checks import check_integer, check_transformation
from jaxopt_tour._trees import is_box, is_hole, is_placeholder, named_leaves, path_name, unbox
from jaxopt_tour._types import Array, Tree
from jaxopt_tour.mesh.layouts import explicit_axes, mesh_of
from jaxopt_tour.optimizers._init_report import collect_report
from jaxopt_tour.orthogonalization.plan import Platform
from jaxopt_tour.routing import Routing, resolve
from jaxopt_tour.routing.resolution import check_routing
from jaxopt_tour.state.int8_momentum import Int8MomentumState
from jaxopt_tour.state.master_weights import MasterWeightsState
from jaxopt_tour.state.measure import Layer, keys_of, measure
from jaxopt_tour.state.polar_bound import bound_of_program, bounds_by_platform
from jaxopt_tour.state.recompute import with_recomputation
from jaxopt_tour.state.rounding import is_half_precision, round_to_nearest
from jaxopt_tour.state.stochastic_rounding import StochasticRoundingState

#: Fields of optimizer states that hold a momentum: Optax's and ours.
_MOMENTA: Final = ("trace", "mu")
#: Counters of skipped steps in the states of wrappers: of optax.apply_if_finite, and of steps in a row.
_COUNTERS: Final = {"total_notfinite": "steps_skipped", "notfinite_count": "steps_skipped_in_a_row"}


class MonitorState(NamedTuple):
    """State of `monitored`; read it with `jt.metrics`."""

    count: Array  # type: ignore[assignment]  # updates so far, int32
    inner_state: Any  # of the wrapped transformation
    measured_at: Array  # the update that was measured last, counted from 1; 0: none. int32
    values: Array  # (keys,) float32, what was measured then
    keys: Array  # (characters,) uint8, the names of the values, one a line; never changes


class _Subject(NamedTuple):
    """What is known of a parameter tree before anything is measured."""

    layers: tuple[Layer, ...]
    momentum_of: Mapping[str, int]  # place of a parameter's momentum among the leaves of the state
    with_decay: bool
    polar_bounds: Mapping[Platform, float]  # empty where nothing is orthogonalized


def monitored(
    tx: optax.GradientTransformation, *, every: int = 50, routing: Routing = None
) -> optax.GradientTransformationExtraArgs:
    r"""Measure the updates of `tx` every so many steps, and keep the numbers in the state; updates do not change.

    ```python
    tx = jt.monitored(jt.muon(3e-3), every=50)
    ...                                    # train as usual
    writer.write_scalars(step, jt.metrics(state))
    ```

    For every parameter, every role, and all together (g the gradient, u the update, m the momentum, $\theta$ the
    weights before the update):

    | metric | meaning |
    |---|---|
    | `update_rms` | root mean square of u |
    | `update_ratio` | $\lvert u \rvert / \lvert \theta \rvert$ in the Frobenius norm; 0 if all weights are 0 |
    | `gradient_norm` | $\lvert g \rvert$ |
    | `momentum_norm` | $\lvert m \rvert$, if `tx` has a momentum |
    | `decay_share` | $\lvert d \rvert / (\lvert d \rvert + \lvert u - d \rvert)$, with d the weight decay in u |
    | `vanished` | share of entries with $u \ne 0$ whose weight does not move, for rounding |
    | `stable_rank` | $\lvert M \rvert_F^2 / \lvert M \rvert_2^2$ of the momentum of matrices, an upper bound |
    | `polar_error` | how far the singular values of an orthogonalized update, without decay, are from equal |
    | `polar_error_bound` | the largest one that the plan explains, for all matrices; see `jt.diagnose` |

    `jt.metrics` names the keys. `optax.snapshot` and `optax.monitor` measure in every step and see nothing but updates;
    here `lax.cond` measures in one step of `every`, also what needs weights and momenta. The branch computes the update
    a second time from what is in memory, so that a step without a measurement reads and writes what it does without a
    monitor. Under `vmap` a condition computes both branches: the measurement then costs its time in every step.

    Roles and axes are those of `jt.multi_transform`, `jt.muon` and `jt.shampoo` inside `tx`; otherwise they come from
    `routing`. The momentum is the field `trace` or `mu` of a state inside `tx`. Weight decay is the derivative of the
    update along the weights. It is known if the update depends on the weights by a number times them alone; otherwise
    (cautious decay, coupled L2 before a rule, trust ratios) `decay_share` is left out, and `polar_error` is that of the
    update with its decay.

    Order of wrappers: `monitored` goes inside `jt.with_master_weights`, `jt.with_stochastic_rounding` and
    `optax.MultiSteps`, around `jt.muon` or `optax.chain`.

    Args:
        tx: Any Optax transformation.
        every: Updates from one measurement to the next; the first update is measured. Default 50. With
            `optax.MultiSteps` inside `tx`, only steps that move the weights are measured.
        routing: What each parameter is, for a `tx` that does not say, see `jt.routing.resolve`. Default None: by name.

    Returns:
        The Optax transformation. Its state has one float32 array of all values, whose number never changes, beside the
        state of `tx`.

    Raises:
        ValueError: `every` is no integer of at least 1; at `init`, `tx` has `jt.with_master_weights` or
            `jt.with_stochastic_rounding` inside; `update` is called without `params`.
    """
    check_integer("every", every, 1)
    check_routing(routing)
    check_transformation("tx", tx)
    inner = optax.with_extra_args_support(tx)
    subjects: dict[Any, _Subject] = {}

    def subject_of(params: Tree) -> _Subject:
        """Of this tree, once: in an `init` that is compiled twice, transformations would not report twice."""
        leaves = named_leaves(params)
        shape = tuple((name, tuple(leaf.shape), jnp.dtype(leaf.dtype)) for name, leaf in leaves.items())
        if shape not in subjects:
            abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
            subjects[shape] = _subject(inner, abstract, routing)
        return subjects[shape]

    def init(params: Tree) -> MonitorState:
        if is_placeholder(params):
            keys: list[str] = []
        else:
            subject = subject_of(params)
            keys = keys_of(subject.layers, subject.with_decay)
            keys += ["polar_error_bound"] if subject.polar_bounds else []
        text = jnp.asarray(np.frombuffer("\n".join(keys).encode(), np.uint8))
        # Two zeros: a buffer that is in the state twice cannot be donated.
        count, measured_at = jnp.zeros([], jnp.int32), jnp.zeros([], jnp.int32)
        return MonitorState(count, inner.init(params), measured_at, jnp.zeros(len(keys), jnp.float32), text)

    def update(
        updates: Tree, state: MonitorState, params: Tree | None = None, **extra_args: Any
    ) -> tuple[Tree, MonitorState]:
        if params is None:
            raise ValueError("monitored needs the parameters: call update(updates, state, params)")
        subject, gradients = subject_of(params), updates

        def run(gradients: Tree, inner_state: Tree, params: Tree) -> tuple[Tree, Tree, Tree]:
            """The new state; the updates; and the part of them that is weight decay, if it can be told apart."""
            if not subject.with_decay:
                updates, new_state = inner.update(gradients, inner_state, params, **extra_args)
                return new_state, updates, None
            updates, new_state, derivative = _linearized(inner, gradients, inner_state, params, extra_args)
            return new_state, updates, derivative(_floating(params))

        inner_state, updates, again = with_recomputation(run, gradients, state.inner_state, params)
        count = optax.safe_increment(state.count)
        due = ((state.measured_at == 0) | (count - state.measured_at >= every)) & _moves_weights(inner_state)

        leaves = _leaves_with_paths(inner_state)
        momenta = {name: unbox(leaves[place][1]) for name, place in subject.momentum_of.items()}
        arrays = jax.lax.stop_gradient((_arrays(gradients), _arrays(params), momenta))

        def measured() -> tuple[Array, Array]:
            (gradients, params, momenta), (updates, decay) = arrays, again()
            decays = None if decay is None else _arrays(decay)
            values = _on_auto_axes(
                lambda *trees: measure(subject.layers, *trees), gradients, _rounded(updates), params, decays, momenta
            )
            bound = [bound_of_program(subject.polar_bounds)] if subject.polar_bounds else []
            return jnp.concatenate([values, *bound]), count

        values, measured_at = jax.lax.cond(due, measured, lambda: (state.values, state.measured_at))

        # Updates wait for the measurement, which reads the weights: weights that are donated are then overwritten in
        # place. Without this order XLA would copy all of them in every step. It cannot know that the count is never
        # negative, and a barrier does not last until it decides about copies (XLA:CPU, jaxlib 0.10.2). The choice is
        # fused with the sum of weights and update: it reads and writes nothing.
        updates = jax.tree.map(lambda u: jnp.where(measured_at < 0, jnp.zeros_like(u), u), updates)
        return updates, MonitorState(count, inner_state, measured_at, values, state.keys)

    return optax.GradientTransformationExtraArgs(init, update)


def metrics(state: Any) -> dict[str, Any]:
    """Return what `jt.monitored` measured last, as a flat dictionary for any logger.

    Keys are `metric/path` for a parameter, such as `"update_rms/blocks/0/up/kernel"`; `metric_by_role/role`, such as
    `"update_rms_by_role/matrix"`; and `metric_by_role/all`. `stable_rank` of a role is the mean over its matrices,
    `polar_error` the largest, also of a parameter that is a stack of matrices; the others are computed from the entries
    of all parameters of the role. `"measured_at"` is the update that was measured, counted from 1. `"steps_skipped"`
    and `"steps_skipped_in_a_row"` are `optax.apply_if_finite`'s counters, if it is in the state; they are up to date,
    not as of the measurement.

    Args:
        state: The state of a monitored optimizer, or any tree that has one, such as `optimizer.opt_state` of Flax nnx.

    Returns:
        Floats; NumPy arrays if the state has a batch axis from `vmap`. Before the first update all values are 0, also
        `"measured_at"`.

    Raises:
        ValueError: The state has no monitor, two monitors measure the same parameter, or the state is traced. Inside
            `jit` and `scan` return `state.values`, and give `state._replace(values=...)` afterwards.
    """
    nodes = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, MonitorState))
    monitors = [node for node in nodes if isinstance(node, MonitorState)]
    if not monitors:
        raise ValueError("the state has no monitor: wrap the optimizer, tx = jt.monitored(tx)")
    found: dict[str, Any] = {}
    for monitor in monitors:
        keys, values, measured_at = map(unbox, (monitor.keys, monitor.values, monitor.measured_at))
        if isinstance(values, jax.core.Tracer):
            raise ValueError(
                "metrics reads a state that is not traced: call it outside of jit, on the state it returns"
            )
        keys = np.asarray(keys)
        names = bytes(keys.reshape(-1, keys.shape[-1])[0]).decode().split("\n") if keys.size else []
        rows = {"measured_at": measured_at, **dict(zip(names, np.moveaxis(np.asarray(values), -1, 0), strict=True))}
        for name in rows.keys() & found.keys():
            raise ValueError(f"two monitors in the state measure {name!r}: pass the state of one of them")
        found |= rows
    for path, leaf in _leaves_with_paths(state):
        field = path_name(path[-1:])
        if field in _COUNTERS:
            found[_COUNTERS[field]] = unbox(leaf)
    return {name: _as_floats(value) for name, value in found.items()}


def _as_floats(value: Any) -> Any:
    value = np.asarray(value)
    return float(value) if value.ndim == 0 else value


#: What must be around the monitor, which could not read weights or momenta through it.
_OUTSIDE: Final[Mapping[type, str]] = {
    MasterWeightsState: "master_weights",
    StochasticRoundingState: "stochastic_rounding",
    Int8MomentumState: "int8_momentum",
}


def _subject(inner: optax.GradientTransformationExtraArgs, params: Tree, routing: Routing) -> _Subject:
    """What can be known from shapes: roles, axes, where momenta are, and whether weight decay can be told apart."""
    with collect_report() as report:
        state = jax.eval_shape(inner.init, params)
    for node in jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, tuple(_OUTSIDE))):
        if type(node) in _OUTSIDE:
            name = _OUTSIDE[type(node)]
            raise ValueError(f"tx must not have jt.with_{name} inside: write jt.with_{name}(jt.monitored(tx))")
    leaves = named_leaves(params)
    routes = {**resolve(routing, params), **report.routes}
    momentum_of = _places_of_momenta(state, leaves)
    layers = tuple(
        Layer(
            name,
            routes[name].role,
            int(np.prod(leaf.shape)),
            routes[name].axes if routes[name].role == "matrix" and jnp.issubdtype(leaf.dtype, jnp.floating) else None,
            name in report.orthogonalized or _is_in_muon_state(state, momentum_of.get(name)),
            name in momentum_of,
        )
        for name, leaf in leaves.items()
    )
    uses = [
        (report.orthogonalized[layer.name], fan_in, fan_out, jnp.dtype(leaves[layer.name].dtype))
        for layer in layers
        if layer.name in report.orthogonalized and layer.axes is not None
        for _, fan_in, fan_out in layer.axes.matrix_shapes(tuple(leaves[layer.name].shape))
    ]
    bounds = bounds_by_platform(uses) if uses else {}
    return _Subject(layers, momentum_of, _decay_is_linear(inner, params, state), bounds)


def _leaves_with_paths(tree: Tree) -> list[tuple[Any, Any]]:
    return jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_box)


def _arrays(tree: Tree) -> dict[str, Array]:
    return {name: jnp.asarray(leaf) for name, leaf in named_leaves(tree).items()}


def _rounded(updates: Tree) -> dict[str, Array]:
    """Updates of half precision as float32 numbers: XLA leaves out a rounding whose result is not stored."""
    arrays = _arrays(updates)
    return {
        name: round_to_nearest(u.astype(jnp.float32), u.dtype) if is_half_precision(u) else u
        for name, u in arrays.items()
    }


def _places_of_momenta(state: Tree, leaves: Mapping[str, Any]) -> dict[str, int]:
    """For every parameter the first leaf of a state's `trace` or `mu` that has its path and shape."""
    places: dict[str, int] = {}
    for place, (path, leaf) in enumerate(_leaves_with_paths(state)):
        fields = [i for i, key in enumerate(path) if getattr(key, "name", None) in _MOMENTA]
        array = unbox(leaf)
        for field in fields:
            name = path_name(path[field + 1 :])
            if name in leaves and not is_hole(array) and tuple(array.shape) == tuple(leaves[name].shape):
                places.setdefault(name, place)
    return places


def _is_in_muon_state(state: Tree, place: int | None) -> bool:
    """Whether this leaf is in a state of `optax.contrib.muon`, which reports nothing."""
    if place is None:
        return False
    start = 0
    for node in jax.tree.leaves(state, is_leaf=lambda node: is_box(node) or type(node).__name__ == "MuonState"):
        end = start + len(_leaves_with_paths(node))
        if start <= place < end:
            return type(node).__name__ == "MuonState"
        start = end
    return False


def _linearized(
    inner: optax.GradientTransformationExtraArgs,
    gradients: Tree,
    state: Tree,
    params: Tree,
    extra_args: Mapping[str, Any],
) -> tuple[Tree, Tree, Callable[[Sequence[Array]], Tree]]:
    """The update, the new state, and the derivative of the update as a function of a direction of the weights.

    In the direction of the weights themselves, the derivative of decoupled weight decay `-eta lambda theta` is the
    decay itself. Only what depends on the weights is differentiated: the momentum, the orthogonalization and all else
    run as they are.
    """
    leaves, treedef = jax.tree.flatten(params)

    def apply(floating: Sequence[Array]) -> tuple[Tree, Tree]:
        rest = iter(floating)
        replaced = [next(rest) if _is_floating(leaf) else leaf for leaf in leaves]
        return inner.update(gradients, state, jax.tree.unflatten(treedef, replaced), **extra_args)

    updates, derivative, new_state = jax.linearize(apply, _floating(params), has_aux=True)
    return updates, new_state, derivative


def _is_floating(leaf: Any) -> bool:
    return bool(jnp.issubdtype(jnp.result_type(leaf), jnp.inexact))


def _floating(params: Tree) -> list[Array]:
    return [jnp.asarray(leaf) for leaf in jax.tree.leaves(params) if _is_floating(leaf)]


def _decay_is_linear(inner: optax.GradientTransformationExtraArgs, params: Tree, state: Tree) -> bool:
    """Whether the update depends on the weights by no more than a number times them.

    Then its derivative along the weights needs numbers alone. Otherwise arrays of the parameters' size would be
    computed for it in every step, measured or not.
    """

    def needs(params: Tree, state: Tree) -> Array:
        _, _, derivative = _linearized(inner, params, state, params, {})
        constants = jax.make_jaxpr(derivative)(_floating(params)).consts
        large = [x for x in constants if jnp.size(x) > 1 and jnp.issubdtype(jnp.result_type(x), jnp.inexact)]
        return jnp.zeros(len(large))

    return jax.eval_shape(needs, params, state).shape == (0,)


def _moves_weights(state: Tree) -> Array:
    """Whether no `optax.MultiSteps` in the state is still accumulating gradients."""
    steps = [unbox(leaf) for path, leaf in _leaves_with_paths(state) if getattr(path[-1], "name", None) == "mini_step"]
    return jnp.all(jnp.stack([step == 0 for step in steps])) if steps else jnp.asarray(True)


def _on_auto_axes(function: Callable[..., Array], *trees: Any) -> Array:
    """The function of trees of arrays; Explicit mesh axes that shard them are left to the partitioner in it."""
    arrays = jax.tree.leaves(trees)
    axes = explicit_axes(arrays)
    if not axes:
        return function(*trees)
    everywhere = jax.sharding.NamedSharding(mesh_of(arrays), jax.sharding.PartitionSpec())
    return jax.sharding.auto_axes(function, axes=axes, out_sharding=everywhere)(*trees)
