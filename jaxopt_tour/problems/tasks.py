"""What the optimizers are raced on: a model, a loss, an input pipeline and a held-out split.

Every batch is a function of (seed, step) alone, so that a run that was cut off goes on with the same batches.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jaxopt_tour._types import Array
from jaxopt_tour.problems.data import datasets
from jaxopt_tour.problems.models import CNN, GPT


class Batch(NamedTuple):
    """Inputs and what the model should answer."""

    inputs: Any  # images (B, 28, 28) float32, or characters (B, T) int32
    targets: Any  # classes (B,) int32, or the next characters (B, T) int32


def cross_entropy(model: Callable[[Array], Array], batch: Batch) -> Array:
    """Mean cross-entropy in nats, over examples (and characters)."""
    return optax.softmax_cross_entropy_with_integer_labels(model(batch.inputs), batch.targets).mean()


def accuracy(model: Callable[[Array], Array], batch: Batch) -> Array:
    """Share of targets that get the largest logit."""
    return jnp.mean(jnp.argmax(model(batch.inputs), axis=-1) == batch.targets)


@dataclass(frozen=True, eq=False)
class Task:
    """A problem to train on.

    Attributes:
        name: what `--task` calls it.
        title: what the report calls it.
        model: `rngs -> nnx.Module`, fresh parameters.
        loss: `(model, batch) -> scalar`.
        metrics: name -> `(model, batch) -> scalar`, beside the loss on held-out data.
        batch: `(seed, step) -> Batch`, the training data at that step.
        held_out: batches of equal size that are never trained on.
        steps: training steps of one run.
        batch_text: the batch in words.
    """

    name: str
    title: str
    model: Callable[[nnx.Rngs], nnx.Module]
    loss: Callable[[Any, Batch], Array]
    metrics: dict[str, Callable[[Any, Batch], Array]]
    batch: Callable[[int, int], Batch]
    held_out: tuple[Batch, ...]
    steps: int
    batch_text: str


@functools.lru_cache(maxsize=4)
def _epoch_order(size: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(size)


def shuffled_positions(size: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """The examples of one step: every epoch a new order, without replacement; a last partial batch is left out."""
    steps_per_epoch = size // batch_size
    if steps_per_epoch == 0:
        raise ValueError(f"batch_size must be at most the number of examples, {size}, got {batch_size}")
    epoch, within = divmod(step, steps_per_epoch)
    return _epoch_order(size, seed, epoch)[within * batch_size : (within + 1) * batch_size]


def random_windows(tokens: np.ndarray, batch_size: int, length: int, seed: int, step: int) -> Batch:
    """Windows of `length` characters at random places, and the same windows one character later."""
    starts = np.random.default_rng((seed, step)).integers(len(tokens) - length, size=batch_size)
    return windows_at(tokens, starts, length)


def windows_at(tokens: np.ndarray, starts: np.ndarray, length: int) -> Batch:
    """Windows that begin at `starts`, and the characters that follow each of theirs."""
    windows = tokens[starts[:, None] + np.arange(length + 1)]  # (B, T + 1)
    return Batch(windows[:, :-1], windows[:, 1:])


def flip_and_shift(images: np.ndarray, seed: int, step: int) -> np.ndarray:
    """Every image as it is or mirrored, moved by up to one pixel each way; what moves in is background.

    Without it a few hundred steps learn 4,000 images by heart, and the race is about who overfits least.
    """
    rng = np.random.default_rng((seed, step))
    mirrored = rng.random(len(images)) < 0.5
    images = np.where(mirrored[:, None, None], images[:, :, ::-1], images)  # (B, 28, 28)
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)), constant_values=images.min())  # (B, 30, 30)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (28, 28), axis=(1, 2))  # (B, 3, 3, 28, 28)
    down, right = rng.integers(3, size=(2, len(images)))
    return windows[np.arange(len(images)), down, right]  # (B, 28, 28)


def unit_range(images: np.ndarray) -> np.ndarray:
    """Bytes as numbers of mean 0 and deviation 1, by those of Fashion-MNIST's training pixels."""
    return ((images / 255.0 - 0.286) / 0.353).astype(np.float32)


@functools.cache
def cnn(batch_size: int = 128) -> Task:
    """A small CNN on 4,000 images of Fashion-MNIST, mirrored and shifted at random; 1,000 are held out."""
    data = datasets.fashion_mnist()
    images, labels = unit_range(data.train_images), data.train_labels.astype(np.int32)

    def batch(seed: int, step: int) -> Batch:
        chosen = shuffled_positions(len(labels), batch_size, seed, step)
        return Batch(flip_and_shift(images[chosen], seed, step), labels[chosen])

    held_out = (Batch(unit_range(data.test_images), data.test_labels.astype(np.int32)),)
    return Task(
        name="cnn",
        title="Fashion-MNIST, small CNN",
        model=lambda rngs: CNN(rngs=rngs),
        loss=cross_entropy,
        metrics={"accuracy": accuracy},
        batch=batch,
        held_out=held_out,
        steps=300,
        batch_text=f"{batch_size} images",
    )


@functools.cache
def gpt(batch_size: int = 8, length: int = 128) -> Task:
    """A character GPT on eight plays of Shakespeare; the last tenth of the text is held out."""
    data = datasets.shakespeare()
    tokens = data.encode(data.text)
    boundary = len(tokens) * 9 // 10
    train, held_out_tokens = tokens[:boundary], tokens[boundary:]
    # 96 windows evenly over the held-out text (12,288 characters): the same ones at every evaluation of every run.
    starts = np.linspace(0, len(held_out_tokens) - length - 1, 96).astype(int)
    return Task(
        name="gpt",
        title="Shakespeare, character GPT",
        model=lambda rngs: GPT(len(data.alphabet), rngs=rngs),
        loss=cross_entropy,
        metrics={},
        batch=lambda seed, step: random_windows(train, batch_size, length, seed, step),
        held_out=tuple(windows_at(held_out_tokens, group, length) for group in np.split(starts, 3)),
        steps=300,
        batch_text=f"{batch_size} windows of {length} characters",
    )


#: Every task by its name.
TASKS: dict[str, Callable[[], Task]] = {"cnn": cnn, "gpt": gpt}


def make_task(name: str) -> Task:
    """The task of that name.

    Raises:
        ValueError: there is none; the message lists those there are.
    """
    if name not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, got {name!r}")
    return TASKS[name]()
