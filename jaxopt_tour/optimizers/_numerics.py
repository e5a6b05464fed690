"""Shared parts of the elementwise rules: leaves, dtypes, and operations that are safe near zero and infinity.

A rule is a function of arrays, `(g, *moments) -> (u, *moments)`; `map_rule` applies it to trees. Inside a rule all
arrays are at least float32, because bfloat16 cannot represent `b2 = 0.999`; outside, every accumulator keeps its own
dtype and an update has the dtype of its parameter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_tour._checks import check_rate
from jaxopt_tour._trees import is_array, not_an_array, path_name
from jaxopt_tour._types import Array, DTypeLike, ScalarOrSchedule, Tree

#: A decay rate or eps: a number, or an array from optax.inject_hyperparams or jax.vmap.
Scalar = float | Array


def hyperparameter(value: Any) -> Scalar:
    """Prepare a decay rate or eps for arithmetic in at least float32.

    A Python number stays a Python number and takes the precision of the array it is combined with. An array (traced,
    injected by `optax.inject_hyperparams`) is widened. That cannot undo earlier rounding: in bfloat16 0.999 is 1, so
    pass `hyperparam_dtype=jnp.float32` to `inject_hyperparams` for bfloat16 parameters.
    """
    return float(value) if isinstance(value, (int, float, np.number)) else widen(value)


def widen(x: Any) -> Array:
    """Convert `x` to at least float32 (complex64 if complex)."""
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def cast_update(u: Array, like: Any) -> Array:
    """Cast the update to the dtype of `like`; for a real parameter, take the real part."""
    dtype = jnp.result_type(like)
    return (u if jnp.issubdtype(dtype, jnp.complexfloating) else u.real).astype(dtype)


def _cast_moment(m: Array, like: Array) -> Array:
    if jnp.iscomplexobj(m) and not jnp.iscomplexobj(like):
        raise ValueError(f"an accumulator of dtype {like.dtype} cannot hold the mean of complex gradients")
    return m.astype(like.dtype)


def map_rule(rule: Callable[..., tuple[Array, ...]], updates: Tree, params: Tree | None, *moments: Tree) -> tuple:
    """Apply `rule(g, *moments) -> (u, *moments)` leaf by leaf, in at least float32.

    `u` gets the dtype of the parameter (of the gradient if `params` is None); every moment keeps its own. If a gradient
    is None, its update is None and its moments do not change.

    Returns:
        The tree of updates and the trees of moments.
    """
    treedef: Any  # its methods are unknown to type checkers
    gradients, treedef = jax.tree.flatten(updates, is_leaf=lambda leaf: leaf is None)
    likes = gradients if params is None else treedef.flatten_up_to(params)

    def apply_to_leaf(g: Any, like: Any, *leaf_moments: Any) -> tuple:
        if g is None:
            return None, *leaf_moments
        u, *new_moments = rule(widen(g), *map(widen, leaf_moments))
        return cast_update(u, like), *map(_cast_moment, new_moments, leaf_moments)

    rows = [apply_to_leaf(*row) for row in zip(gradients, likes, *map(treedef.flatten_up_to, moments), strict=True)]
    columns = zip(*rows, strict=True) if rows else [()] * (1 + len(moments))
    return tuple(treedef.unflatten(column) for column in columns)


def check_arrays(params: Tree) -> None:
    """Raise unless every parameter is an array or a number.

    Raises:
        ValueError: A parameter is something else, such as a function in an unfiltered Equinox module; by its path.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not (is_array(leaf) or isinstance(leaf, (int, float, complex, np.number))):
            raise not_an_array(path_name(path), leaf)


def zeros_like_first_moment(params: Tree, dtype: DTypeLike | None = None) -> Tree:
    """Return zeros for an average of g, by default in the dtype of the parameters."""
    check_arrays(params)
    return jax.tree.map(lambda p: jnp.zeros_like(p, dtype=dtype or jnp.result_type(p)), params)


def full_like_second_moment(params: Tree, dtype: DTypeLike | None = None, fill: Any = 0.0) -> Tree:
    """Return real accumulators for `|g|^2`, filled with `fill`, by default in at least float32.

    At b2 = 0.999 a step changes v by one part in 1,000, and bfloat16 resolves one part in 256.
    """

    def full_like_leaf(p: Any) -> Array:
        real_dtype = jnp.finfo(dtype or jnp.promote_types(jnp.result_type(p), jnp.float32)).dtype
        return jnp.full_like(p, fill, dtype=real_dtype)

    check_arrays(params)
    return jax.tree.map(full_like_leaf, params)


def clip_to_square_range(g: Array) -> Array:
    """Clip finite entries of `g` so that a sum of 4e9 of their squares is finite: 2.8e14 in float32.

    Beyond it `g^2` would overflow and `g / sqrt(g^2)` would be a silent zero. Infinities and NaN pass unclipped, so
    that `optax.apply_if_finite` sees a gradient that overflowed.
    """
    if jnp.iscomplexobj(g):
        return jax.lax.complex(clip_to_square_range(g.real), clip_to_square_range(g.imag))
    bound = math.sqrt(jnp.finfo(g.dtype).max) * 2.0**-16
    return jnp.where(jnp.isfinite(g), jnp.clip(g, -bound, bound), g)


def abs_squared(g: Array) -> Array:
    """Return `|g|^2`, real, with a derivative at zero."""
    return g.real * g.real + g.imag * g.imag if jnp.iscomplexobj(g) else g * g


def safe_sqrt(x: Array) -> Array:
    """Return `sqrt(x)` with derivative 0 (not infinite) at 0, so that a hypergradient stays finite; NaN passes."""
    zero = x == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, x)))


def safe_divide(a: Array, b: Array) -> Array:
    """Return `a / b`, and 0 with derivative 0 where `b` is 0; NaN passes."""
    zero = b == 0
    return jnp.where(zero, 0, a / jnp.where(zero, 1, b))


def one_minus_power(b: Scalar, t: Array) -> Scalar:
    """Return `1 - b^t` as `-expm1(t log b)`; in float32 the plain form is off by 1e-3 at b = 0.99999, t = 1."""
    if isinstance(b, float):
        return -jnp.expm1(t * math.log(b)) if b > 0 else 1.0
    positive = b > 0
    return jnp.where(positive, -jnp.expm1(t * jnp.log(jnp.where(positive, b, 1))), 1)


def scale_by_learning_rate(learning_rate: ScalarOrSchedule) -> optax.GradientTransformation:
    """Multiply updates by the negative learning rate, as `optax.scale_by_learning_rate`, and keep their dtype.

    Optax's version turns bfloat16 updates into float32 if the rate is a float32 array, as after `inject_hyperparams`.
    Its state depends on whether the rate is a schedule. Here it is a step count in any case, so that a constant rate
    can become a schedule in a saved run.

    Raises:
        ValueError: The rate is neither a number >= 0 nor a schedule.
    """
    check_rate("learning_rate", learning_rate)
    if callable(learning_rate):
        return optax.scale_by_learning_rate(learning_rate)
    eta = hyperparameter(learning_rate)

    def init(params: Tree) -> optax.ScaleByScheduleState:
        del params
        return optax.ScaleByScheduleState(jnp.zeros([], jnp.int32))

    def update(
        updates: Tree, state: optax.ScaleByScheduleState, params: Tree | None = None
    ) -> tuple[Tree, optax.ScaleByScheduleState]:
        del params
        scaled = jax.tree.map(lambda u: cast_update(-eta * widen(u), u), updates)
        return scaled, optax.ScaleByScheduleState(optax.safe_increment(state.count))

    return optax.GradientTransformation(init, update)
