"""Problems as pure functions of arrays, so that a whole training run of one is a single compiled program.

A `Workload` draws its batches inside the program from data that is an argument of it: runs with other rates and
seeds are the same program with other numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxopt_tour._types import Array, Tree
from jaxopt_tour.problems.data import datasets
from jaxopt_tour.problems.models import CNN, GPT, MLP, ResNet, ViT
from jaxopt_tour.problems.tasks import Batch, cross_entropy, unit_range, windows_at
from jaxopt_tour.routing.resolution import Routing

Data = Any


@dataclass(frozen=True, eq=False)
class Workload:
    """A problem to train on, many times.

    Attributes:
        name: what files call it.
        title: what pages call it.
        data: () -> the arrays that the other functions read.
        init: key -> fresh parameters.
        draw: (data, key) -> a batch; at every step with another key.
        loss: (parameters, batch) -> the loss that is trained on, a scalar.
        measure: (parameters, data) -> what is compared at the end of a run, a scalar; lower is better.
        measured: that number in words.
        target: the value of `measure` that a run shall reach.
        steps: of a run whose length is not the question.
        batch_text: the batch in words.
        side_by_side: how many runs are one vmapped program; 1 where a single run fills the machine.
        routing: which parameters are matrices, where their names do not say.
    """

    name: str
    title: str
    data: Callable[[], Data]
    init: Callable[[Array], Tree]
    draw: Callable[[Data, Array], Any]
    loss: Callable[[Tree, Any], Array]
    measure: Callable[[Tree, Data], Array]
    measured: str
    target: float
    steps: int
    batch_text: str
    side_by_side: int = 1
    routing: Routing = None


def parameters(workload: Workload) -> int:
    """How many numbers are trained."""
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(workload.init, jax.random.key(0))))


def functions_of_model(
    make: Callable[[nnx.Rngs], nnx.Module],
) -> tuple[Callable[[Array], Tree], Callable[[Tree], Any]]:
    """`init: key -> parameters` and `build: parameters -> model`.

    Raises:
        ValueError: the model has arrays other than parameters, which a training step would not carry along.
    """
    graph, *states = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))), nnx.Param, ...)
    rest = states[1]
    if jax.tree.leaves(rest):
        raise ValueError(f"the model must have no state but its parameters, got {rest}")
    return lambda key: nnx.state(make(nnx.Rngs(key)), nnx.Param), lambda params: nnx.merge(graph, params, rest)


def model_workload(
    make: Callable[[nnx.Rngs], nnx.Module],
    *,
    held_out: Callable[[Data], Batch],
    parts: int = 1,
    **attributes: Any,
) -> Workload:
    """A Flax model trained on cross-entropy and measured by it on held-out data.

    Args:
        make: fresh model.
        held_out: data -> what is never trained on.
        parts: in how many equal parts the held-out data is measured, one after the other.
        attributes: the others of `Workload`.
    """
    init, build = functions_of_model(make)

    def measure(params: Tree, data: Data) -> Array:
        batch = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), held_out(data))
        return jax.lax.map(lambda part: cross_entropy(build(params), part), batch).mean()

    return Workload(
        init=init, loss=lambda params, batch: cross_entropy(build(params), batch), measure=measure, **attributes
    )


@functools.cache
def _fashion() -> dict[str, np.ndarray]:
    data = datasets.fashion_mnist()
    return {
        "images": unit_range(data.train_images),
        "labels": data.train_labels.astype(np.int32),
        "held_out_images": unit_range(data.test_images),
        "held_out_labels": data.test_labels.astype(np.int32),
    }


def _flipped_and_shifted(images: Array, key: Array, pixels: int) -> Array:
    """Every image (B, height, width, ...) as it is or mirrored, moved by some pixels each way; background moves in."""
    flip_key, shift_key = jax.random.split(key)
    rest = (0,) * (images.ndim - 3)  # where a pixel has channels
    mirrored = jax.random.bernoulli(flip_key, shape=(images.shape[0], 1, 1, *(1 for _ in rest)))
    images = jnp.where(mirrored, images[:, :, ::-1], images)
    edges = (pixels, pixels)
    padded = jnp.pad(images, ((0, 0), edges, edges, *((0, 0) for _ in rest)), constant_values=images.min())
    corners = jax.random.randint(shift_key, (images.shape[0], 2), 0, 2 * pixels + 1)
    return jax.vmap(lambda image, corner: jax.lax.dynamic_slice(image, (*corner, *rest), images.shape[1:]))(
        padded, corners
    )


def fashion_workload(
    name: str,
    title: str,
    make: Callable[[nnx.Rngs], nnx.Module],
    *,
    target: float,
    batch: int = 64,
    steps: int = 200,
    side_by_side: int = 1,
    data: Callable[[], Data] = _fashion,
    pixels: int = 1,
    parts: int = 1,
) -> Workload:
    """A classifier of Fashion-MNIST, or of other images, mirrored and shifted at random.

    Args:
        name: what files call it.
        title: what pages call it.
        make: a model of images (B, 28, 28), or of those that `data` has.
        target: held-out cross-entropy to reach.
        batch: images of a step, drawn with replacement.
        steps: of a run whose length is not the question.
        side_by_side: how many runs are one program.
        data: images and labels, and those held out, by the names of the embedded set's.
        pixels: how far an image is shifted at most.
        parts: in how many equal parts the held-out images are measured.
    """

    def draw(data: Data, key: Array) -> Batch:
        choose, move = jax.random.split(key)
        chosen = jax.random.randint(choose, (batch,), 0, data["labels"].shape[0])
        return Batch(_flipped_and_shifted(data["images"][chosen], move, pixels), data["labels"][chosen])

    return model_workload(
        make,
        held_out=lambda data: Batch(data["held_out_images"], data["held_out_labels"]),
        parts=parts,
        name=name,
        title=title,
        data=data,
        draw=draw,
        measured="held-out cross-entropy (nats)",
        target=target,
        steps=steps,
        batch_text=f"{batch} images",
        side_by_side=side_by_side,
    )


@functools.cache
def fashion_mlp(batch: int = 64) -> Workload:
    """An MLP of 784, 64, 64 and 10 units on Fashion-MNIST."""

    class OnImages(MLP):
        """The MLP on flattened images."""

        def __call__(self, x: Array) -> Array:
            return super().__call__(x.reshape(x.shape[0], -1))

    return fashion_workload(
        "mlp",
        "Fashion-MNIST, MLP",
        lambda rngs: OnImages((784, 64, 64, 10), rngs=rngs),
        target=0.60,
        batch=batch,
        side_by_side=8,
    )


@functools.cache
def fashion_cnn(batch: int = 64) -> Workload:
    """The tour's small CNN, at half its channels, on Fashion-MNIST."""
    return fashion_workload(
        "cnn", "Fashion-MNIST, CNN", lambda rngs: CNN(channels=(8, 16), rngs=rngs), target=0.60, batch=batch
    )


@functools.cache
def fashion_resnet(batch: int = 32) -> Workload:
    """A ResNet of two residual blocks on Fashion-MNIST."""
    return fashion_workload(
        "resnet", "Fashion-MNIST, ResNet", lambda rngs: ResNet((8, 16), stride=4, rngs=rngs), target=0.80, batch=batch
    )


@functools.cache
def fashion_vit(batch: int = 64) -> Workload:
    """A vision transformer of two blocks over 16 patches on Fashion-MNIST."""
    return fashion_workload(
        "vit", "Fashion-MNIST, vision transformer", lambda rngs: ViT(rngs=rngs), target=0.65, batch=batch
    )


def text_data(tokens: np.ndarray, length: int) -> dict[str, np.ndarray]:
    """What `text_workload` reads: nine tenths of the tokens, and 128 windows evenly over the last tenth."""
    boundary = len(tokens) * 9 // 10
    # The same windows at every measurement.
    starts = np.linspace(0, len(tokens) - boundary - length - 1, 128).astype(int)
    held_out = windows_at(tokens[boundary:], starts, length)
    return {"tokens": tokens[:boundary], "held_out_inputs": held_out.inputs, "held_out_targets": held_out.targets}


@functools.cache
def _plays() -> dict[str, np.ndarray]:
    data = datasets.shakespeare()
    return text_data(data.encode(data.text), 64)


def text_workload(
    name: str,
    title: str,
    make: Callable[[nnx.Rngs], nnx.Module],
    *,
    target: float,
    batch: int,
    length: int,
    steps: int,
    data: Callable[[], Data],
    unit: str = "character",
) -> Workload:
    """A model of text, trained on windows at random places.

    Args:
        name: what files call it.
        title: what pages call it.
        make: a model of tokens (B, T).
        target: held-out cross-entropy to reach.
        batch: windows of a step.
        length: tokens of a window.
        steps: of a run whose length is not the question.
        data: `tokens`, `held_out_inputs` and `held_out_targets`.
        unit: what a token is.
    """

    def draw(data: Data, key: Array) -> Batch:
        tokens = data["tokens"]
        starts = jax.random.randint(key, (batch, 1), 0, tokens.shape[0] - length)
        windows = tokens[starts + jnp.arange(length + 1)]
        return Batch(windows[:, :-1], windows[:, 1:])

    return model_workload(
        make,
        held_out=lambda data: Batch(data["held_out_inputs"], data["held_out_targets"]),
        parts=4,
        name=name,
        title=title,
        data=data,
        draw=draw,
        measured=f"held-out cross-entropy (nats a {unit})",
        target=target,
        steps=steps,
        batch_text=f"{batch} windows of {length} {unit}s",
    )


@functools.cache
def small_gpt(batch: int = 8) -> Workload:
    """A character GPT of width 64 and two blocks, on eight plays of Shakespeare."""
    vocabulary = len(datasets.shakespeare().alphabet)
    return text_workload(
        "gpt",
        "Shakespeare, character GPT",
        lambda rngs: GPT(vocabulary, width=64, blocks=2, hidden=176, rngs=rngs),
        target=2.45,
        batch=batch,
        length=64,
        steps=240,
        data=_plays,
    )
