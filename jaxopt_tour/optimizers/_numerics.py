"""What the elementwise rules share: leaves and dtypes, and the few operations that need care near zero and infinity.

A rule is a function of arrays, ``(g, *moments) -> (u, *moments)``; `map_rule` lifts it to trees. Inside a rule all is
at least float32, so that ``1 - b2 = 0.001`` means something for bfloat16 parameters; outside, every accumulator keeps
its own dtype and an update has its parameter's.
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
from jaxopt_tour._types import Array, DTypeLike, ScalarOrSchedule, Tree

#: A decay rate or eps: a number, or an array where optax.inject_hyperparams or jax.vmap passes one.
Scalar = float | Array


def hyperparameter(value: Any) -> Scalar:
    """A decay rate or eps, ready for arithmetic in at least float32.

    A Python number stays one: it takes the precision of the array it meets and loses nothing in float64. An array
    (traced, injected by ``optax.inject_hyperparams``) is widened. What it lost before it came cannot be restored: in
    bfloat16 0.999 is 1, so pass ``hyperparam_dtype=jnp.float32`` to ``inject_hyperparams`` for such parameters.
    """
    return float(value) if isinstance(value, (int, float, np.number)) else widen(value)


def widen(x: Any) -> Array:
    """``x`` in at least float32 (complex64 if complex)."""
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def cast_update(u: Array, like: Any) -> Array:
    """The update in the dtype of ``like``; of a real parameter it is the real part."""
    dtype = jnp.result_type(like)
    return (u if jnp.issubdtype(dtype, jnp.complexfloating) else u.real).astype(dtype)


def _cast_moment(m: Array, like: Array) -> Array:
    if jnp.iscomplexobj(m) and not jnp.iscomplexobj(like):
        raise ValueError(f"an accumulator of dtype {like.dtype} cannot hold the mean of complex gradients")
    return m.astype(like.dtype)


def map_rule(rule: Callable[..., tuple[Array, ...]], updates: Tree, params: Tree | None, *moments: Tree) -> tuple:
    """Apply ``rule(g, *moments) -> (u, *moments)`` leaf by leaf, in at least float32.

    ``u`` gets the dtype of the parameter (of the gradient where ``params`` is None), each moment keeps its own. Where
    the gradient is None there is no update and the moments stay.

    Returns:
        The tree of updates and the trees of moments.
    """
    treedef: Any  # its methods are unknown to type checkers
    gradients, treedef = jax.tree.flatten(updates, is_leaf=lambda leaf: leaf is None)
    likes = gradients if params is None else treedef.flatten_up_to(params)

    def one_leaf(g: Any, like: Any, *leaf_moments: Any) -> tuple:
        if g is None:
            return None, *leaf_moments
        u, *new_moments = rule(widen(g), *map(widen, leaf_moments))
        return cast_update(u, like), *map(_cast_moment, new_moments, leaf_moments)

    rows = [one_leaf(*row) for row in zip(gradients, likes, *map(treedef.flatten_up_to, moments), strict=True)]
    columns = zip(*rows, strict=True) if rows else [()] * (1 + len(moments))
    return tuple(treedef.unflatten(column) for column in columns)


def first_moment(params: Tree, dtype: DTypeLike | None = None) -> Tree:
    """Zeros for an average of g: in the parameters' dtype unless told otherwise."""
    return jax.tree.map(lambda p: jnp.zeros_like(p, dtype=dtype or jnp.result_type(p)), params)


def second_moment(params: Tree, dtype: DTypeLike | None = None, fill: Any = 0.0) -> Tree:
    """An accumulator for ``|g|^2``: real, in at least float32 unless told otherwise, filled with ``fill``.

    At least float32, because at b2 = 0.999 a step changes v by a thousandth and bfloat16 keeps 1 part in 256.
    """

    def one_leaf(p: Any) -> Array:
        real = jnp.finfo(dtype or jnp.promote_types(jnp.result_type(p), jnp.float32)).dtype
        return jnp.full_like(p, fill, dtype=real)

    return jax.tree.map(one_leaf, params)


def limit(g: Array) -> Array:
    """``g`` with finite entries held to where a sum of 4e9 of their squares is still finite.

    That is 2.8e14 in float32. Beyond it ``g^2`` would soon be infinite and ``g / sqrt(g^2)`` a silent zero. Infinities
    and NaN pass: a gradient that overflowed is to be seen (``optax.apply_if_finite``), not to be turned into a step.
    """
    if jnp.iscomplexobj(g):
        return jax.lax.complex(limit(g.real), limit(g.imag))
    bound = math.sqrt(jnp.finfo(g.dtype).max) * 2.0**-16
    return jnp.where(jnp.isfinite(g), jnp.clip(g, -bound, bound), g)


def abs_squared(g: Array) -> Array:
    """``|g|^2``, real, with a derivative at zero."""
    return g.real * g.real + g.imag * g.imag if jnp.iscomplexobj(g) else g * g


def safe_sqrt(x: Array) -> Array:
    """``sqrt(x)`` whose derivative at 0 is 0 and not infinite, so that a hyper-gradient stays finite; NaN passes."""
    zero = x == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, x)))


def safe_divide(a: Array, b: Array) -> Array:
    """``a / b``, and 0 with derivative 0 where ``b`` is 0; NaN passes."""
    zero = b == 0
    return jnp.where(zero, 0, a / jnp.where(zero, 1, b))


def one_minus_power(b: Scalar, t: Array) -> Scalar:
    """``1 - b^t`` as ``-expm1(t log b)``; in float32 the plain form is off by 1e-3 at b = 0.99999, t = 1."""
    if isinstance(b, float):
        return -jnp.expm1(t * math.log(b)) if b > 0 else 1.0
    positive = b > 0
    return jnp.where(positive, -jnp.expm1(t * jnp.log(jnp.where(positive, b, 1))), 1)


def scale_by_learning_rate(learning_rate: ScalarOrSchedule) -> optax.GradientTransformation:
    """``u <- -eta u``, as ``optax.scale_by_learning_rate``, with the update's dtype kept.

    Optax's turns bfloat16 updates into float32 where the rate is a float32 array, as an injected or vmapped one is.

    Raises:
        ValueError: the rate is neither a number >= 0 nor a schedule.
    """
    check_rate("learning_rate", learning_rate)
    if callable(learning_rate):
        return optax.scale_by_learning_rate(learning_rate)
    eta = hyperparameter(learning_rate)
    return optax.stateless(lambda updates, _: jax.tree.map(lambda u: cast_update(-eta * widen(u), u), updates))
