"""A small regression with two layers, and programs that train on it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

Tree = Any

UP, DOWN = "blocks/0/up/kernel", "blocks/0/down/kernel"
X = jnp.asarray(np.random.default_rng(1).standard_normal((16, 6)), jnp.float32)
#: Standard deviation of the noise in every entry of a gradient.
NOISE = 0.1
Y = jnp.asarray(np.random.default_rng(2).standard_normal((16, 6)), jnp.float32)


def make_params(dtype: Any = jnp.float32, seed: int = 0) -> Tree:
    rng = np.random.default_rng(seed)
    up, down = rng.standard_normal((6, 8)) / 3, rng.standard_normal((8, 6)) / 3
    return {
        "blocks": {
            "0": {
                "up": {"kernel": jnp.asarray(up, dtype), "bias": jnp.zeros(8, dtype)},
                "down": {"kernel": jnp.asarray(down, dtype), "bias": jnp.zeros(6, dtype)},
            }
        }
    }


def loss(params: Tree) -> jax.Array:
    block = params["blocks"]["0"]
    h = jnp.tanh(X @ block["up"]["kernel"] + block["up"]["bias"])
    return jnp.mean(jnp.square(h @ block["down"]["kernel"] + block["down"]["bias"] - Y))


def train(tx: optax.GradientTransformation, steps: int) -> Any:
    """A compiled `(params, state, key) -> (params, state, losses)`, with noise in the gradients."""

    @jax.jit
    def run(params: Tree, state: Any, key: jax.Array) -> tuple[Tree, Any, jax.Array]:
        def step(carry: tuple[Tree, Any], key: jax.Array) -> tuple[tuple[Tree, Any], jax.Array]:
            params, state = carry
            value, gradients = jax.value_and_grad(loss)(params)
            gradients = optax.tree.add_scale(gradients, NOISE, optax.tree.random_like(key, params))
            updates, state = tx.update(gradients, state, params)
            return (optax.apply_updates(params, updates), state), value

        carry, losses = jax.lax.scan(step, (params, state), jax.random.split(key, steps))
        return *carry, losses

    return run


def state_after(tx: optax.GradientTransformation, params: Tree, steps: int = 1) -> Any:
    """A state that is not zero; the program computes no updates, which take the most to compile."""
    state = tx.init(params)
    next_state = jax.jit(lambda gradients, state: tx.update(gradients, state, params)[1])
    for i in range(steps):
        gradients = [
            jnp.sin(i + 1 + jnp.arange(p.size).reshape(p.shape)).astype(p.dtype) for p in jax.tree.leaves(params)
        ]
        state = next_state(jax.tree.unflatten(jax.tree.structure(params), gradients), state)
    return state
