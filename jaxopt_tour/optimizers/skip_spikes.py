"""Leave out the steps whose gradient is far larger than those before it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_tour._checks import check_integer, check_nonnegative, check_transformation
from jaxopt_tour._types import Array, Float, Tree
from jaxopt_tour.optimizers._numerics import Scalar, hyperparameter, widen


class SkipSpikesState(NamedTuple):
    """State of `skip_spikes`."""

    norms: Array  # the last norms |g|, float32 of shape (window,); the next one replaces that at norm_count % window
    norm_count: Array  # finite norms so far, int32
    skipped_count: Array  # steps left out so far, int32
    inner_state: Any


def skip_spikes(
    inner: optax.GradientTransformation, *, window: int = 128, sigmas: Scalar = 6.0
) -> optax.GradientTransformationExtraArgs:
    r"""Skip a step whose gradient norm is far above the norms of the steps before it.

    $$
    \text{skip } t \Leftrightarrow |g_t| > \mu_t + k \sigma_t \quad \text{or} \quad |g_t| \text{ is not finite}
    $$

    $\mu_t$ and $\sigma_t$ are the mean and the standard deviation of the last `window` norms before step $t$. A skipped
    step has an update of zero and leaves the state of `inner` as it was: no moment, no count and no weight decay
    advances. Until half of the window is filled, only gradients that are not finite are skipped.

    The norm of a skipped gradient enters the window unless it is infinite or NaN. So a lasting rise is followed: with
    the default values at most four steps of it are skipped. Scaling the loss does not change which steps are skipped.

    ```python
    tx = jt.skip_spikes(jt.muon(3e-3))
    optax.tree.get(state, "skipped_count")  # worth a line in the log: a run whose gradients are all NaN stands still
    ```

    Put it around everything, clipping included, so that it sees the gradient as it is.

    Args:
        inner: Transformation that receives the gradients that are not skipped.
        window: Number of norms that are remembered, at least 4. Default 128.
        sigmas: Number $k$ of standard deviations above the mean from which on a step is skipped. Default 6. Lower it to
            skip more steps.

    Returns:
        The Optax transformation; its state has that of `inner` and `window` numbers.

    Raises:
        ValueError: `inner` is no transformation, or `window` or `sigmas` is out of range.

    Source:
        `SkipStepOptimizer` of OLMo-core, https://github.com/allenai/OLMo-core, described in OLMo 2, 2024,
        https://arxiv.org/abs/2501.00656. It also looks at the loss, and a NaN stays in its window.
    """
    check_transformation("inner", inner)
    check_integer("window", window, 4)
    check_nonnegative("sigmas", sigmas)
    k, tx = hyperparameter(sigmas), optax.with_extra_args_support(inner)

    def init(params: Tree) -> SkipSpikesState:
        zero = jnp.zeros([], jnp.int32)
        return SkipSpikesState(jnp.zeros(window, jnp.float32), zero, zero, tx.init(params))

    def update(
        updates: Tree, state: SkipSpikesState, params: Tree | None = None, **extra_args: Any
    ) -> tuple[Tree, SkipSpikesState]:
        norm = jax.lax.stop_gradient(_norm(updates))
        is_finite = jnp.isfinite(norm)
        skip = ~is_finite | _is_spike(norm, state.norms, state.norm_count, k)

        # Selects, not a conditional: `inner` may hold collectives. It sees zeros in place of what is skipped, so that
        # no NaN reaches a derivative through the selects.
        g = jax.tree.map(lambda g: jnp.where(skip, jnp.zeros_like(g), g), updates)
        u, inner_state = tx.update(g, state.inner_state, params, **extra_args)
        u = jax.tree.map(lambda u: jnp.where(skip, jnp.zeros_like(u), u), u)
        inner_state = jax.tree.map(lambda new, old: jnp.where(skip, old, new), inner_state, state.inner_state)

        norms = jnp.where(is_finite, state.norms.at[state.norm_count % window].set(norm), state.norms)
        return u, SkipSpikesState(
            norms,
            jnp.where(is_finite, _next_count(state.norm_count, window), state.norm_count),
            jnp.where(skip, optax.safe_increment(state.skipped_count), state.skipped_count),
            inner_state,
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _norm(gradients: Tree) -> Float[Array, ""]:
    """The norm of all entries, in float32, of gradients whose squares may be out of range."""
    leaves = [jnp.abs(widen(g)) for g in jax.tree.leaves(gradients) if jnp.size(g)]
    if not leaves:
        return jnp.zeros([], jnp.float32)
    largest = jnp.max(jnp.stack([jnp.max(g) for g in leaves]))
    unit = jnp.where(largest > 0, largest, 1)
    return (largest * jnp.sqrt(sum(jnp.sum(jnp.square(g / unit)) for g in leaves))).astype(jnp.float32)


def _is_spike(norm: Array, norms: Float[Array, " window"], count: Array, sigmas: Scalar) -> Array:
    """Whether a norm is more than `sigmas` standard deviations above the mean of those that are known."""
    (window,) = norms.shape
    known = jnp.arange(window) < count
    number = jnp.minimum(count, window)
    unit = jnp.max(norms, initial=jnp.finfo(jnp.float32).tiny)  # squares of the quotients are in range
    x = norms / unit
    mean = jnp.sum(x, where=known) / jnp.maximum(number, 1)
    variance = jnp.sum(jnp.square(x - mean), where=known) / jnp.maximum(number - 1, 1)
    # Equal norms differ by rounding, which is no spike.
    deviation = jnp.maximum(jnp.sqrt(variance), 1e-5 * mean)
    return (number >= window // 2) & (norm / unit > mean + sigmas * deviation)


def _next_count(count: Array, window: int) -> Array:
    """The count of norms, which goes round within the second half of its range: a full window stays full."""
    top = np.iinfo(np.int32).max // window * window
    return jnp.where(count + 1 >= top, window, count + 1)
