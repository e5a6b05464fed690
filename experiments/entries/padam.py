"""Padam: Adam's mean over a power of its second moment below one half, between SGD and Adam.

Source: Chen et al. 2018, Closing the Generalization Gap of Adaptive Gradient Methods, https://arxiv.org/abs/1806.06763.
"""

from __future__ import annotations

from typing import Annotated, Any

import jax
import jax.numpy as jnp
import optax


def padam(
    learning_rate: optax.ScalarOrSchedule,
    b1: Annotated[float, (0.5, 0.99)] = 0.9,
    b2: float = 0.95,
    power: float = 0.125,
) -> optax.GradientTransformation:
    """`w - rate m / v^power`, both averages without bias; plain Adam has the power 1/2."""

    def init(params: Any) -> Any:
        return jax.tree.map(lambda p: (jnp.zeros_like(p), jnp.zeros_like(p)), params), jnp.zeros([], jnp.int32)

    def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        moments, count = state[0], state[1] + 1
        moments = jax.tree.map(
            lambda g, mv: (b1 * mv[0] + (1 - b1) * g, b2 * mv[1] + (1 - b2) * g**2), gradients, moments
        )

        def direction(g: jax.Array, mv: Any) -> jax.Array:
            m, v = mv[0] / (1 - b1**count), mv[1] / (1 - b2**count)
            return m / (v**power + 1e-8)

        return jax.tree.map(direction, gradients, moments), (moments, count)

    return optax.chain(optax.GradientTransformation(init, update), optax.scale_by_learning_rate(learning_rate))
