"""Training steps on a small problem, and comparisons of their results, for tests of every optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax


def loss(params: Any) -> jax.Array:
    return sum(jnp.sum(jnp.square(leaf - 0.25)) for leaf in jax.tree.leaves(params))


def step_of(tx: optax.GradientTransformation, objective: Callable[[Any], jax.Array] = loss) -> Callable[..., Any]:
    """`(params, state) -> (params, state)`."""

    def step(params: Any, state: Any) -> tuple[Any, Any]:
        updates, state = tx.update(jax.grad(objective)(params), state, params)
        return optax.apply_updates(params, updates), state

    return step


def one_update(tx: optax.GradientTransformation, gradients: Any, params: Any) -> Any:
    return jax.jit(lambda g, p: tx.update(g, tx.init(p), p)[0])(gradients, params)


def run(tx: optax.GradientTransformation, params: Any, steps: int = 3, objective: Any = loss) -> tuple[Any, Any]:
    """Parameters and state after some steps, as one compiled scan."""

    def body(carry: Any, _: None) -> tuple[Any, None]:
        return step_of(tx, objective)(*carry), None

    return jax.jit(lambda p: jax.lax.scan(body, (p, tx.init(p)), length=steps)[0])(params)


def assert_close(actual: Any, expected: Any, rtol: float = 1e-5) -> None:
    # float32 keeps 6e-8; two programs with one meaning may round differently at every one of a few dozen operations.
    chex.assert_trees_all_close(actual, expected, rtol=rtol, atol=1e-7)


def assert_finite(tree: Any) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        assert np.all(np.isfinite(np.asarray(leaf, np.float64))), f"{jax.tree_util.keystr(path)} = {leaf}"


def avals(tree: Any) -> Any:
    """Shape, dtype and weak type of every leaf."""
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, getattr(leaf, "weak_type", False)), tree)
