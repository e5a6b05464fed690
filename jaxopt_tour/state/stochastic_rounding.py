"""Half-precision weights without a copy: every step is rounded at random, and right on average."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxopt_tour._checks import check_transformation
from jaxopt_tour._trees import is_hole, is_placeholder, map_with_names, named_leaves, rebox, unbox
from jaxopt_tour._types import Array, Tree
from jaxopt_tour.state.rounding import is_half_precision, round_stochastically, update_to, widen_half_precision


class StochasticRoundingState(NamedTuple):
    """State of `with_stochastic_rounding`."""

    count: Array  # type: ignore[assignment]  # t, int32
    key: Array  # uint32, the data of the key; the same in every step
    inner_state: Any  # of the wrapped transformation, which sees float32 weights


def with_stochastic_rounding(
    tx: optax.GradientTransformation, key: Array | int
) -> optax.GradientTransformationExtraArgs:
    r"""Round the new value of half-precision parameters at random, so that it is right on average.

    $$
    \theta_t = \begin{cases}
    b & \text{with probability } (x - a) / (b - a) \\
    a & \text{otherwise}
    \end{cases}
    \qquad x = \theta_{t-1} + u_t \text{ in float32}
    $$

    where $a \le x \le b$ are the neighbors of $x$ in the parameter's dtype. The mean of $\theta_t$ is $x$: a weight of
    1 in bfloat16 that is updated by -0.001 falls by 0.004 in one step of four, and stays in the others. It takes no
    memory per parameter. The price is noise: the variance of one step is $(x - a)(b - x)$.

    `tx` sees the parameters and gradients as float32; its moments are float32 too unless its own arguments say
    otherwise, such as `mu_dtype="bfloat16"`. Parameters of other dtypes are updated as by `tx`.

    **Updates are float32** for half-precision parameters, as in `jt.with_master_weights`: `optax.apply_updates` adds in
    float32, and the sum is the rounded value. Make this the outermost transformation; `optax.MultiSteps` may be
    around it, `optax.apply_if_finite` belongs inside.

    The same key, step and parameters give the same bits, on one device and, with JAX's default partitionable random
    numbers, on any mesh. Replicas of data parallelism need the same key, or they drift apart.

    Example:
        >>> import jax, jaxopt_tour as jt
        >>> tx = jt.with_stochastic_rounding(jt.muon(3e-3, weight_decay=0.1), jax.random.key(0))

    Args:
        tx: Any Optax transformation.
        key: A key of `jax.random`, or a seed.

    Returns:
        The Optax transformation. Its state has the key and a count beside the state of `tx`.

    Raises:
        ValueError: `key` is neither a key nor a seed, or `update` is called without `params`.

    Source:
        Gupta et al. 2015, Deep Learning with Limited Numerical Precision, section 3,
        https://arxiv.org/abs/1502.02551.
    """
    check_transformation("tx", tx)
    inner = optax.with_extra_args_support(tx)
    typed = as_key(key)
    implementation = jax.random.key_impl(typed)

    def init(params: Tree) -> StochasticRoundingState:
        inner_state = inner.init(params if is_placeholder(params) else widen_half_precision(params))
        # A copy: the state may be donated, and the caller's key must survive that.
        return StochasticRoundingState(jnp.zeros([], jnp.int32), jnp.array(jax.random.key_data(typed)), inner_state)

    def update(
        updates: Tree, state: StochasticRoundingState, params: Tree | None = None, **extra_args: Any
    ) -> tuple[Tree, StochasticRoundingState]:
        if params is None:
            raise ValueError("with_stochastic_rounding needs the parameters: call update(updates, state, params)")
        steps, inner_state = inner.update(
            widen_half_precision(updates), state.inner_state, widen_half_precision(params), **extra_args
        )
        key_of_step = jax.random.fold_in(jax.random.wrap_key_data(state.key, impl=implementation), state.count)
        parameters = named_leaves(params)
        keys = {name: jax.random.fold_in(key_of_step, index) for index, name in enumerate(parameters)}

        def rounded(name: str, leaf: Any) -> Any:
            u, p = unbox(leaf), parameters[name]
            if is_hole(u) or not is_half_precision(p):
                return leaf
            target = round_stochastically(keys[name], p.astype(jnp.float32) + u.astype(jnp.float32), p.dtype)
            return rebox(leaf, update_to(target, p))

        state = StochasticRoundingState(optax.safe_increment(state.count), state.key, inner_state)
        return map_with_names(rounded, steps), state

    return optax.GradientTransformationExtraArgs(init, update)


def as_key(key: Any) -> Array:
    """A typed key, from a typed key, the data of one, or a seed."""
    message = f"key must be a key such as jax.random.key(0), or a seed such as 0; got {key!r}"
    if isinstance(key, int) and not isinstance(key, bool):
        try:
            return jax.random.key(key)
        except OverflowError:
            raise ValueError(message) from None
    if not isinstance(key, jax.Array) or (jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim):
        raise ValueError(message)
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    try:
        wrapped = jax.random.wrap_key_data(key)
    except (TypeError, ValueError):
        raise ValueError(message) from None
    if wrapped.ndim:
        raise ValueError(message)
    return wrapped
