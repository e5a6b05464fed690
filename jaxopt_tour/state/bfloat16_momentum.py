"""Momentum in bfloat16, rounded at random, and right on average."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxopt_tour._checks import check_transformation
from jaxopt_tour._trees import is_hole
from jaxopt_tour._types import Array, Tree
from jaxopt_tour.optimizers._state_check import with_state_check
from jaxopt_tour.state.momentum_arrays import map_arrays, map_momenta
from jaxopt_tour.state.rounding import round_stochastically
from jaxopt_tour.state.stochastic_rounding import as_key


class Bfloat16MomentumState(NamedTuple):
    """State of `with_bfloat16_momentum`."""

    count: Array  # type: ignore[assignment]  # t, int32
    key: Array  # uint32, the data of the key; the same in every step
    inner_state: Any  # that of the wrapped transformation, with its float32 momenta in bfloat16


def with_bfloat16_momentum(tx: optax.GradientTransformation, key: Array | int) -> optax.GradientTransformationExtraArgs:
    r"""Keep the float32 momenta of an optimizer in bfloat16, rounded at random so that they are right on average.

    $$
    m_t \leftarrow \begin{cases}
    b & \text{with probability } (m_t - a) / (b - a) \\
    a & \text{otherwise}
    \end{cases}
    $$

    where $a \le m_t \le b$ are the neighbors of $m_t$ in bfloat16. An average that is rounded to nearest, as with
    `mu_dtype="bfloat16"`, stands still where its change $(1 - \beta)(g - m)$ is below half the distance of its
    neighbors, 0.2 to 0.4 % of it: at $\beta = 0.95$, where $g$ is within 4 to 8 % of $m$. Here it moves on average.
    `tx` computes in float32.

    Momenta are those of `with_int8_momentum`, whose table has the bytes: 2 a parameter in place of 4.

    Example:
        >>> import jaxopt_tour as jt
        >>> tx = jt.with_bfloat16_momentum(jt.muon(3e-3, weight_decay=0.1), 0)

    Args:
        tx: Any Optax transformation whose state has momenta. Give it `mu_dtype="float32"` for bfloat16 parameters.
        key: A key of `jax.random`, or a seed. Replicas of data parallelism need the same one.

    Returns:
        The Optax transformation. Its state has the key and a count beside the state of `tx`.

    Raises:
        ValueError: `key` is neither a key nor a seed; at `init`, a momentum is in half precision already, by its path.

    Source:
        Gupta et al. 2015, section 3, https://arxiv.org/abs/1502.02551.
    """
    check_transformation("tx", tx)
    inner = optax.with_extra_args_support(tx)
    typed = as_key(key)
    implementation = jax.random.key_impl(typed)

    def init(params: Tree) -> Bfloat16MomentumState:
        def narrow(place: str, tree: Tree) -> Tree:
            def array(name: str, m: Array) -> Array:
                if m.dtype in (jnp.bfloat16, jnp.float16):
                    raise ValueError(
                        f"the momentum of {name!r} ({place}) must be float32, got {m.dtype}: give the optimizer "
                        "mu_dtype='float32'"
                    )
                return m.astype(jnp.bfloat16) if m.dtype == jnp.float32 else m

            return map_arrays(array, tree)

        # A copy: the state may be donated, and the caller's key must survive that.
        data = jnp.array(jax.random.key_data(typed))
        return Bfloat16MomentumState(jnp.zeros([], jnp.int32), data, map_momenta(narrow, inner.init(params)))

    def update(
        updates: Tree, state: Bfloat16MomentumState, params: Tree | None = None, **extra_args: Any
    ) -> tuple[Tree, Bfloat16MomentumState]:
        key_of_step = jax.random.fold_in(jax.random.wrap_key_data(state.key, impl=implementation), state.count)
        number = 0

        def widened(place: str, tree: Tree) -> Tree:
            return map_arrays(lambda name, m: m.astype(jnp.float32) if m.dtype == jnp.bfloat16 else m, tree)

        def rounded(place: str, tree: Tree) -> Tree:
            def array(name: str, m: Array) -> Array:
                nonlocal number
                if is_hole(m) or m.dtype != jnp.float32:
                    return m
                number += 1
                return round_stochastically(jax.random.fold_in(key_of_step, number), m, jnp.bfloat16).astype(
                    jnp.bfloat16
                )

            return map_arrays(array, tree)

        updates, inner_state = inner.update(updates, map_momenta(widened, state.inner_state), params, **extra_args)
        count = optax.safe_increment(state.count)
        return updates, Bfloat16MomentumState(count, state.key, map_momenta(rounded, inner_state))

    return with_state_check(optax.GradientTransformationExtraArgs(init, update))
