"""A workload that is compiled in a second or two, for quick runs that only show that everything works."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxopt_tour._types import Array, Tree
from jaxopt_tour.problems.workloads import Workload, fashion_mlp
from jaxopt_tour.routing.axes import MatrixAxes


@functools.cache
def tiny_workload() -> Workload:
    """Softmax regression on Fashion-MNIST, from zero weights, 32 images a step."""

    def loss(params: Tree, batch: tuple[Array, Array]) -> Array:
        images, labels = batch
        logits = images.reshape(len(images), -1) @ params["kernel"] + params["bias"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def draw(data: Any, key: Array) -> tuple[Array, Array]:
        chosen = jax.random.randint(key, (32,), 0, data["labels"].shape[0])
        return data["images"][chosen], data["labels"][chosen]

    return Workload(
        name="tiny",
        title="Fashion-MNIST, softmax regression",
        data=fashion_mlp().data,
        init=lambda key: {"kernel": jnp.zeros((784, 10)), "bias": jnp.zeros(10)},
        draw=draw,
        loss=loss,
        measure=lambda params, data: loss(params, (data["held_out_images"], data["held_out_labels"])),
        measured="held-out cross-entropy (nats)",
        target=1.0,
        steps=8,
        batch_text="32 images",
        routing={"kernel": MatrixAxes(0, 1)},  # the head, as the only matrix there is
    )
