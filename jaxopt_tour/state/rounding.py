"""Rounding of float32 weights to bfloat16 and float16, and the update that moves a weight to a rounded value."""

from __future__ import annotations

from typing import Any, Final

import jax
import jax.numpy as jnp

from jaxopt_tour._trees import is_hole, map_with_names, rebox, unbox
from jaxopt_tour._types import Array, DTypeLike, Tree

#: Between -2^-14 and 2^-14 the numbers of float16 are subnormal: multiples of 2^-24.
_FLOAT16_SPACING: Final = 2.0**-24
_FLOAT16_NORMAL: Final = 2.0**-14


def is_half_precision(array: Any) -> bool:
    """Whether this is an array of bfloat16 or float16."""
    return not is_hole(array) and jnp.result_type(array) in (jnp.bfloat16, jnp.float16)


def widen_half_precision(tree: Tree) -> Tree:
    """Convert bfloat16 and float16 arrays to float32; Flax boxes and every other array stay as they are."""

    def widen(name: str, leaf: Any) -> Any:
        array = unbox(leaf)
        return rebox(leaf, array.astype(jnp.float32)) if is_half_precision(array) else leaf

    return map_with_names(widen, tree)


def round_to_nearest(x: Array, dtype: DTypeLike) -> Array:
    """Round float32 numbers to the nearest number of a dtype, ties to even; the result is float32.

    XLA may leave out a conversion to bfloat16 and back, because that gains precision. It never leaves out
    `lax.reduce_precision`, which however takes subnormal numbers of float16 for zero.
    """
    info = jnp.finfo(dtype)
    rounded = jax.lax.reduce_precision(x, info.nexp, info.nmant)
    if jnp.dtype(dtype) != jnp.float16:
        return rounded
    subnormal = jnp.round(x / _FLOAT16_SPACING) * _FLOAT16_SPACING
    return jnp.where(jnp.abs(x) < _FLOAT16_NORMAL, subnormal, rounded)


def round_stochastically(key: Array, x: Array, dtype: DTypeLike) -> Array:
    """Round float32 numbers to one of their two neighbors in a dtype, the nearer one more often; the result is float32.

    Between neighbors `a < x < b` the result is b with probability `(x - a) / (b - a)`, so its mean is x. Infinities
    and NaN stay.
    """
    dropped = 23 - jnp.finfo(dtype).nmant  # bits of float32 that the dtype lacks: 16 of bfloat16, 13 of float16
    mask = jnp.uint32(2**dropped - 1)
    noise = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32) & mask
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    # Sign and magnitude: adding to the magnitude carries into the kept bits as often as the dropped bits are large.
    rounded = jax.lax.bitcast_convert_type((bits + noise) & ~mask, jnp.float32)
    if jnp.dtype(dtype) == jnp.float16:
        places = x / _FLOAT16_SPACING
        subnormal = jnp.floor(places + noise / 2.0**dropped) * _FLOAT16_SPACING
        rounded = jnp.where(jnp.abs(x) < _FLOAT16_NORMAL, subnormal, rounded)
    return jnp.where(jnp.isfinite(x), rounded, x)


def update_to(target: Array, weight: Array) -> Array:
    """Return the float32 update that takes a half-precision weight to a target that its dtype can hold.

    `optax.apply_updates` adds in float32 and rounds once. The sum is the target unless the target is smaller than
    2^-16 of the weight: then no float32 update reaches it, and the sum is off by at most 2^-24 of the weight.
    """
    return target - weight.astype(jnp.float32)


def applied(weight: Array, update: Array) -> Array:
    """Return what `optax.apply_updates` makes of a half-precision weight and a float32 update, as float32."""
    return round_to_nearest(weight.astype(jnp.float32) + update, weight.dtype)
