"""Momentum in eight bits: whole numbers and a scale for every block."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxopt_tour._checks import check_integer, check_transformation
from jaxopt_tour._trees import HOLE, is_hole
from jaxopt_tour._types import Array, Tree
from jaxopt_tour.mesh.layouts import laid_like
from jaxopt_tour.optimizers._numerics import safe_divide, widen
from jaxopt_tour.optimizers._state_check import with_state_check
from jaxopt_tour.state.momentum_arrays import map_arrays, map_momenta

_LARGEST: Final = 127  # -128 is not used: the range is symmetric
#: A block is at least this fraction of the block size, or a whole row: few scales for sizes with few divisors.
_LEAST_FRACTION: Final = 8


class Int8MomentumState(NamedTuple):
    """State of `with_int8_momentum`.

    A momentum (768, 3072) is int8 in `inner_state` and has scales of shape (768, 2): two blocks of 1,536 a row.
    """

    scales: dict[str, Tree]  # by the place of the momentum in inner_state; optax.MaskedNode for those not in int8
    inner_state: Any  # that of the wrapped transformation, with int8 in place of its momenta


def with_int8_momentum(
    tx: optax.GradientTransformation, *, block_size: int = 2048, min_size: int = 4096
) -> optax.GradientTransformationExtraArgs:
    r"""Keep the momenta of an optimizer in int8, with one scale a block.

    $$
    q = \operatorname{round}(m / s), \qquad s = \max_\text{block} |m| / 127
    $$

    `tx` sees $s q$ as its momentum and computes with it in full precision; what it returns is rounded to nearest. No
    entry is off by more than 1/254 of the largest of its block; a block with an infinity or NaN becomes NaN. Momenta
    are sums and averages of gradients: `mu` and `trace` of Muon, Adam, Lion and SGD, ours and Optax's, and the
    accumulated gradients of `dion2`. Second moments stay as they are: on a linear scale the small ones would become
    zero.

    | bytes a parameter, float32 | Muon's matrices | AdamW |
    |---|---|---|
    | plain | 4 | 8 |
    | int8 momentum, blocks of 2,048 | 1.002 | 5.002 |
    | bfloat16 momentum | 2 | 6 |

    For Muon nothing is lost at 2.7 billion parameters, by its authors' measurements. The directions of small singular
    values have the most to lose: they must exceed the rounding.

    Blocks are pieces of rows, so that no array is reshaped over a mesh: as long as a divisor of the last axis can be
    without exceeding `block_size`. During an update the momentum exists in full precision, one array at a time if
    the compiler fuses. Inside `jax.shard_map`, blocks are those of a shard, and `init` must run there too.

    Example:
        >>> import jaxopt_tour as jt
        >>> tx = jt.with_int8_momentum(jt.muon(3e-3, weight_decay=0.1))

    Args:
        tx: Any Optax transformation whose state has momenta.
        block_size: Most entries that share a scale. Default 2048. Smaller blocks round less; 256 take 1.6 % more bytes.
        min_size: Arrays with fewer elements keep their precision. Default 4096, as in bitsandbytes.

    Returns:
        The Optax transformation.

    Raises:
        ValueError: `block_size` or `min_size` is no positive integer.

    Source:
        Gupta et al. 2025, https://arxiv.org/abs/2509.23106 (8-bit Muon, linear, blocks of 2,048 of the flattened
        array); Dettmers et al. 2022, https://arxiv.org/abs/2110.02861 (blocks).
    """
    check_integer("block_size", block_size, 1)
    check_integer("min_size", min_size, 1)
    check_transformation("tx", tx)
    inner = optax.with_extra_args_support(tx)

    def init(params: Tree) -> Int8MomentumState:
        state = inner.init(params)
        scales: dict[str, Tree] = {}

        def scales_of(place: str, tree: Tree) -> Tree:
            scales[place] = map_arrays(lambda name, m: _zero_scales(m, block_size, min_size), tree)
            return tree

        map_momenta(scales_of, state)
        return encoded(Int8MomentumState(scales, state))

    def update(
        updates: Tree, state: Int8MomentumState, params: Tree | None = None, **extra_args: Any
    ) -> tuple[Tree, Int8MomentumState]:
        updates, inner_state = inner.update(updates, decoded(state).inner_state, params, **extra_args)
        return updates, encoded(Int8MomentumState(state.scales, inner_state))

    return with_state_check(optax.GradientTransformationExtraArgs(init, update))


def decoded(state: Int8MomentumState) -> Int8MomentumState:
    """Return the state with momenta in place of their int8."""

    def decode(place: str, tree: Tree) -> Tree:
        def array(name: str, q: Array, scale: Array) -> Array:
            return q if is_hole(scale) else (q.astype(scale.dtype) * _spread(scale, q.shape[-1]))

        return map_arrays(array, tree, state.scales[place])

    return Int8MomentumState(state.scales, map_momenta(decode, state.inner_state))


def encoded(state: Int8MomentumState) -> Int8MomentumState:
    """Return the state with int8 in place of its momenta, and new scales in the form of those it has."""
    scales: dict[str, Tree] = {}

    def encode(place: str, tree: Tree) -> Tree:
        scales[place] = map_arrays(
            lambda name, m, scale: scale if is_hole(scale) else _scales(m, scale), tree, state.scales[place]
        )

        def array(name: str, m: Array, scale: Array) -> Array:
            if is_hole(scale):
                return m
            q = jnp.round(safe_divide(widen(m), widen(_spread(scale, m.shape[-1]))))
            return jnp.clip(q, -_LARGEST, _LARGEST).astype(jnp.int8)

        return map_arrays(array, tree, scales[place])

    inner_state = map_momenta(encode, state.inner_state)
    return Int8MomentumState(scales, inner_state)


def map_int8_states(function: Any, state: Any) -> Any:
    """Apply a function to every `Int8MomentumState` within a state."""
    return jax.tree.map(
        lambda node: function(node) if isinstance(node, Int8MomentumState) else node,
        state,
        is_leaf=lambda node: isinstance(node, Int8MomentumState),
    )


def _zero_scales(m: Array, block_size: int, min_size: int) -> Any:
    """Zeros of the shape of the scales of a momentum; a hole if it stays as it is."""
    if m.size < min_size or not jnp.issubdtype(m.dtype, jnp.floating):
        return HOLE
    length = m.shape[-1]
    if length <= block_size:
        return jnp.zeros((*m.shape[:-1], 1), m.dtype)
    count = next(count for count in range(-(-length // block_size), length + 1) if length % count == 0)
    if length // count * _LEAST_FRACTION < block_size:
        count = 1
    return jnp.zeros((*m.shape[:-1], count), m.dtype)


def _scales(m: Array, like: Array) -> Array:
    """The scales of the blocks, with the shape, dtype and layout of others."""
    count = like.shape[-1]
    blocks = jnp.abs(m) if count == 1 else jnp.abs(m).reshape(*m.shape[:-1], count, m.shape[-1] // count)
    largest = jnp.max(blocks, axis=-1, keepdims=count == 1)
    # A maximum may leave out NaN on CPU, and int8 has none: a block that is not finite becomes NaN by its scale.
    finite = jnp.all(jnp.isfinite(blocks), axis=-1, keepdims=count == 1)
    largest = jnp.where(finite, largest, jnp.nan)
    return laid_like((largest / _LARGEST).astype(like.dtype), like)


def _spread(scale: Array, length: int) -> Array:
    """The scale of every entry, or one for all of them."""
    return scale if scale.shape[-1] == 1 else jnp.repeat(scale, length // scale.shape[-1], axis=-1)
