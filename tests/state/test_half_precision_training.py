"""Bfloat16 weights train as well as float32 ones with either wrapper, and hardly at all without."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxopt_tour as jt
from jaxopt_tour.problems.data import datasets
from jaxopt_tour.problems.models import MLP
from jaxopt_tour.problems.tasks import unit_range

STEPS, BATCH = 300, 64
#: Weights of the first layer are near 0.04, where bfloat16's numbers are 0.00024 apart: a step of AdamW is lost.
RATE = 3e-5


@functools.cache
def data() -> tuple[np.ndarray, np.ndarray]:
    """Batches of Fashion-MNIST: images (STEPS, BATCH, 784) and classes."""
    images = datasets.fashion_mnist()
    chosen = np.random.default_rng(0).integers(len(images.train_labels), size=(STEPS, BATCH))
    flat = unit_range(images.train_images).reshape(-1, 784)
    return flat[chosen], images.train_labels.astype(np.int32)[chosen]


def final_loss(tx: Any, dtype: Any, seed: int) -> tuple[float, float]:
    """Mean loss over the last fifty steps, and the share of first-layer weights that ever moved."""
    graph, start = nnx.split(MLP((784, 64, 10), rngs=nnx.Rngs(seed)))
    start = jax.tree.map(lambda leaf: leaf.astype(dtype), start)

    def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        # The model computes in float32 whatever the weights are, so that nothing but their rounding differs.
        model = nnx.merge(graph, jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params))
        return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()

    def step(carry: Any, batch: Any) -> Any:
        params, state = carry
        value, g = jax.value_and_grad(loss)(params, *batch)
        updates, state = tx.update(g, state, params)
        return (optax.apply_updates(params, updates), state), value

    run = jax.jit(lambda params, batches: jax.lax.scan(step, (params, tx.init(params)), batches))
    (end, _), losses = run(start, data())
    moved = np.asarray(end["layers"][0]["kernel"][...] != start["layers"][0]["kernel"][...]).mean()
    return float(losses[-50:].mean()), float(moved)


@pytest.mark.slow
def test_either_wrapper_trains_bfloat16_weights_like_float32_ones(optimized: None) -> None:
    tx = jt.adamw(RATE)
    wide, _ = final_loss(tx, jnp.float32, 0)
    another, _ = final_loss(tx, jnp.float32, 1)
    copy, _ = final_loss(jt.with_master_weights(tx), jnp.bfloat16, 0)
    random, _ = final_loss(jt.with_stochastic_rounding(tx, 0), jnp.bfloat16, 0)
    plain, moved = final_loss(tx, jnp.bfloat16, 0)
    noise = max(abs(wide - another), 0.01)
    assert abs(copy - wide) < noise
    assert abs(random - wide) < noise
    assert plain - wide > 0.1 and plain - wide > 5 * noise
    assert moved < 0.5
