"""QK-clip: keep the largest attention logit of every head at or below a threshold, by shrinking queries and keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from jaxopt_tour._checks import check_number
from jaxopt_tour._trees import is_hole, map_with_names, named_leaves, rebox, unbox
from jaxopt_tour._types import Array, Tree

Names = str | Sequence[str]


def clip_qk(
    threshold: float = 100.0,
    *,
    query: Names = "query/kernel",
    key: Names = "key/kernel",
    heads_axis: int = -2,
) -> optax.GradientTransformationExtraArgs:
    r"""Shrink the queries and keys of every head whose largest logit was above a threshold.

    $$
    \gamma_h = \min(1, \tau / S_h), \qquad
    W^Q_h \leftarrow \sqrt{\gamma_h} W^Q_h, \qquad
    W^K_h \leftarrow \sqrt{\gamma_h} W^K_h
    $$

    $S_h$ is the largest logit of head $h$ in the step's forward pass, before the softmax, with its scale. The logits
    of the head are multiplied by $\gamma_h$; other heads stay as they are. Muon's updates have full rank, so that
    logits can grow faster than with AdamW in a model whose queries and keys are not normalized.

    It comes last in a chain, since it changes the parameters after their step, $\theta + u$. The model has to return
    the logits, which `update` takes by the path of each attention layer:

    ```python
    tx = optax.chain(jt.muon(3e-3), jt.clip_qk(100.0))
    updates, state = tx.update(grads, state, params, max_logits={"blocks/0/attention": largest})  # (heads,)
    ```

    Where several query heads share a key head, the key has the smallest factor $\sqrt{\gamma}$ of its group, and each
    query has the rest of its own $\gamma_h$.

    Args:
        threshold: Largest logit $\tau$ that is left alone. Default 100.
        query: Ends of the path names of the query projections, one or several: a bias has to shrink with its kernel.
            Default `"query/kernel"`, as in Flax.
        key: The same of the key projections.
        heads_axis: Axis of these parameters that holds the heads, alone or with each head's entries side by side.
            Default -2, as in `(embed, heads, head_dim)`; -1 for `(embed, heads * head_dim)`.

    Returns:
        The Optax transformation, without a state. Its `update` needs the parameters and `max_logits`: by layer, an
        array of one number a head, or `(layers, heads)` where the first axis of the parameters holds layers.

    Raises:
        ValueError: An argument is not one of those allowed; at `init`, no layer has both projections; at `update`,
            `max_logits` lacks a layer or has one that is not there, or heads do not fit, by its path.

    Source:
        Kimi K2, 2025, https://arxiv.org/abs/2507.20534, section 2.1 and algorithm 1. In its attention all heads share
        the part of the keys that holds positions; there a query takes the whole of $\gamma_h$. The rule for shared key
        heads above is ours, and multiplies every head's logits by its $\gamma_h$ as well.
    """
    check_number("threshold", threshold, "a number > 0", lambda number: 0 < number < float("inf"))
    queries, keys = _names("query", query), _names("key", key)
    if isinstance(heads_axis, bool) or not isinstance(heads_axis, int):
        raise ValueError(f"heads_axis must be an integer, got {heads_axis!r}")

    def init(params: Tree) -> optax.EmptyState:
        names = list(named_leaves(params))
        if names and not _layers(params, queries, keys):
            raise ValueError(
                f"no layer has parameters that end in {' or '.join(map(repr, queries))} and in "
                f"{' or '.join(map(repr, keys))}; there are {', '.join(names[:8])}"
            )
        return optax.EmptyState()

    def update(
        updates: Tree,
        state: optax.EmptyState,
        params: Tree | None = None,
        *,
        max_logits: Mapping[str, Any] | None = None,
        **extra_args: Any,
    ) -> tuple[Tree, optax.EmptyState]:
        del extra_args
        if params is None or max_logits is None:
            raise ValueError("clip_qk needs update(updates, state, params, max_logits={layer: largest logit by head})")
        layers = _layers(params, queries, keys)
        if different := sorted(set(layers) ^ set(max_logits)):
            raise ValueError(
                f"max_logits must have one entry for each of {', '.join(layers)}; {different[0]!r} "
                + ("is missing" if different[0] in layers else "is none of them")
            )
        weights = named_leaves(params)
        factors = {
            name: factor
            for layer, members in layers.items()
            for name, factor in _factors(layer, members, max_logits[layer], threshold, heads_axis)
        }

        def clipped(name: str, leaf: Any) -> Any:
            if name not in factors or is_hole(unbox(leaf)):
                return leaf
            # f (theta + u) - theta, which is u itself where f is 1.
            u, f = unbox(leaf), factors[name]
            return rebox(leaf, (f * u + (f - 1) * unbox(weights[name])).astype(u.dtype))

        return map_with_names(clipped, updates), state

    return optax.GradientTransformationExtraArgs(init, update)


class _Member(NamedTuple):
    """A parameter of an attention layer."""

    name: str
    array: Any
    is_key: bool


def _names(argument: str, names: Names) -> tuple[str, ...]:
    found = (names,) if isinstance(names, str) else tuple(names) if isinstance(names, Sequence) else ()
    if not found or not all(isinstance(name, str) and name for name in found):
        raise ValueError(f"{argument} must be the end of a path name such as 'query/kernel', or several; got {names!r}")
    return found


def _layers(params: Tree, queries: Sequence[str], keys: Sequence[str]) -> dict[str, list[_Member]]:
    """The layers that have queries and keys, such as `"blocks/0/attention"`, with these parameters."""
    found: dict[str, list[_Member]] = {}
    for name, leaf in named_leaves(params).items():
        for ends, is_key in ((queries, False), (keys, True)):
            end = next((end for end in ends if f"/{name}".endswith(f"/{end}")), None)
            if end is not None and not is_hole(unbox(leaf)):
                layer = name[: -len(end)].rstrip("/")
                found.setdefault(layer, []).append(_Member(name, unbox(leaf), is_key))
    return {layer: members for layer, members in found.items() if len({member.is_key for member in members}) == 2}


def _factors(
    layer: str, members: Sequence[_Member], largest: Any, threshold: float, axis: int
) -> Iterator[tuple[str, Array]]:
    """What every query and key parameter of a layer is multiplied by."""
    largest = jnp.asarray(largest, jnp.float32)
    if largest.ndim not in (1, 2):
        raise ValueError(f"max_logits[{layer!r}] must have the shape (heads,) or (layers, heads), got {largest.shape}")
    too_large = jnp.isfinite(largest) & (largest > threshold)
    gamma = jnp.where(too_large, threshold / jnp.where(too_large, largest, 1), 1)
    heads = gamma.shape[-1]
    of_queries, of_keys = (
        next(_size(member, axis) for member in members if member.is_key == is_key) for is_key in (False, True)
    )
    key_heads, rest = divmod(heads * of_keys, of_queries)
    if rest or key_heads == 0 or heads % key_heads:
        raise ValueError(
            f"the {heads} heads of max_logits[{layer!r}] do not fit queries of size {of_queries} and keys of size "
            f"{of_keys} along axis {axis}"
        )
    group = heads // key_heads
    shared = jnp.sqrt(jnp.min(gamma.reshape(*gamma.shape[:-1], key_heads, group), axis=-1))
    own = gamma / jnp.repeat(shared, group, axis=-1)
    for member in members:
        yield member.name, _along(shared if member.is_key else own, member, axis)


def _size(member: _Member, axis: int) -> int:
    if not -member.array.ndim <= axis < member.array.ndim:
        raise ValueError(f"heads_axis is {axis}, and {member.name!r} has the shape {member.array.shape}")
    return int(member.array.shape[axis])


def _along(factor: Array, member: _Member, axis: int) -> Array:
    """The factors of heads, in a shape that multiplies the parameter."""
    size, heads = _size(member, axis), factor.shape[-1]
    if size % heads:
        raise ValueError(f"axis {axis} of {member.name!r} has the size {size}, which is no multiple of {heads} heads")
    shape = [1] * member.array.ndim
    shape[axis] = size
    if factor.ndim == 2:
        if member.array.shape[0] != factor.shape[0]:
            raise ValueError(f"max_logits has {factor.shape[0]} layers, and {member.name!r} {member.array.shape}")
        shape[0] = factor.shape[0]
    return jnp.repeat(factor, size // heads, axis=-1).reshape(shape)
