"""Settings for the real scale: the same workloads on whole data sets and larger models, for a machine with a GPU.

Each is a `Workload` that runs wherever the small ones do. Data comes from a
function, so that nothing is read before a run begins:

```python
from jaxopt_tour.problems import fullscale
from jaxopt_tour.problems.data import fullsize

fullscale.fashion_cnn(lambda: fullsize.fashion_mnist("fashion-mnist"))
fullscale.cifar_resnet(lambda: fullsize.cifar10("cifar-10-batches-bin"))
fullscale.byte_gpt(lambda: pathlib.Path("enwik8").read_bytes(), size="26M", tokens=65_536)
```

Make a workload once and keep it: compiled programs belong to it. Targets are goals for runs of this kind, not results.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final

import numpy as np

from jaxopt_tour._checks import check_choice
from jaxopt_tour.problems.data import datasets
from jaxopt_tour.problems.data.fullsize import Images
from jaxopt_tour.problems.models import CNN, GPT, ResNet
from jaxopt_tour.problems.workloads import Data, Workload, fashion_workload, text_data, text_workload

#: Sizes of the byte GPT by their number of parameters.
GPT_SIZES: Final = {
    "11M": {"width": 384, "heads": 6, "blocks": 6, "hidden": 1024},
    "26M": {"width": 512, "heads": 8, "blocks": 8, "hidden": 1408},
}


def image_data(images: Images) -> Data:
    """What an image workload reads: every channel with mean 0 and deviation 1 over the training pixels."""
    channels = images.train_images.shape[3:]
    flat = images.train_images.reshape(-1, *channels or (1,))
    counts = np.stack([np.bincount(channel, minlength=256) for channel in flat.T])
    values, total = np.arange(256), counts.sum(axis=1)
    mean = counts @ values / total
    deviation = np.sqrt(np.maximum(counts @ values**2 / total - mean**2, 1e-12))
    mean, deviation = mean.astype(np.float32).reshape(channels), deviation.astype(np.float32).reshape(channels)
    return {
        "images": (images.train_images - mean) / deviation,
        "labels": images.train_labels.astype(np.int32),
        "held_out_images": (images.test_images - mean) / deviation,
        "held_out_labels": images.test_labels.astype(np.int32),
    }


def fashion_cnn(
    source: Callable[[], Images],
    *,
    channels: tuple[int, int] = (32, 64),
    batch: int = 512,
    steps: int = 2400,
    target: float = 0.25,
) -> Workload:
    """A CNN of strided convolutions, 0.22 million parameters, on the whole of Fashion-MNIST.

    Args:
        source: () -> the images, such as `jaxopt_tour.problems.data.fullsize.fashion_mnist`.
        channels: of the two convolutions.
        batch: images of a step.
        steps: of a run; 2,400 are some twenty epochs.
        target: held-out cross-entropy to reach.
    """
    return fashion_workload(
        "fashion-60k",
        "Fashion-MNIST, all 60,000 images, CNN",
        lambda rngs: CNN(channels=channels, rngs=rngs),
        target=target,
        batch=batch,
        steps=steps,
        data=functools.cache(lambda: image_data(source())),
    )


def cifar_resnet(
    source: Callable[[], Images],
    *,
    channels: tuple[int, ...] = (64, 128, 256, 512),
    blocks: int = 2,
    batch: int = 512,
    steps: int = 4900,
    target: float = 0.30,
    parts: int = 10,
) -> Workload:
    """A ResNet of 18 layers, 11 million parameters, on CIFAR-10, its images shifted by up to four pixels.

    Layers as of He et al. 2016, https://arxiv.org/abs/1603.05027, with group normalization, which has no state.

    Args:
        source: () -> the images, such as `jaxopt_tour.problems.data.fullsize.cifar10`.
        channels: of every stage, each a multiple of 4.
        blocks: of a stage.
        batch: images of a step.
        steps: of a run; 4,900 are some fifty epochs.
        target: held-out cross-entropy to reach.
        parts: in how many equal parts the test images are measured.
    """
    return fashion_workload(
        "cifar10",
        f"CIFAR-10, ResNet of {2 * blocks * len(channels) + 2} layers",
        lambda rngs: ResNet(channels, blocks=blocks, inputs=3, stride=1, rngs=rngs),
        target=target,
        batch=batch,
        steps=steps,
        data=functools.cache(lambda: image_data(source())),
        pixels=4,
        parts=parts,
    )


def byte_gpt(
    source: Callable[[], bytes] | None = None,
    *,
    size: str = "11M",
    tokens: int = 8192,
    length: int = 256,
    steps: int = 2000,
    target: float = 1.5,
) -> Workload:
    """A GPT on the bytes of a text, of 11 or 26 million parameters.

    Args:
        source: () -> the text as bytes; None: the embedded plays, a million characters: give a larger text to larger
            batches, of which a few dozen of 65,536 tokens are several passes over these.
        size: one of `GPT_SIZES`.
        tokens: of a step.
        length: of a window; it divides `tokens`.
        steps: of a run.
        target: held-out cross-entropy to reach, nats a byte.

    Raises:
        ValueError: an unknown size, or a length that does not divide the tokens.
    """
    check_choice("size", size, GPT_SIZES)
    if length < 1 or tokens % length:
        raise ValueError(f"length must divide tokens = {tokens}, got {length}")

    @functools.cache
    def data() -> Data:
        text = datasets.shakespeare().text.encode() if source is None else source()
        least = 10 * (length + 2)
        if len(text) < least:
            raise ValueError(f"the text must have at least {least:,} bytes for windows of {length}, got {len(text):,}")
        return text_data(np.frombuffer(text, np.uint8).astype(np.int32), length)

    return text_workload(
        f"byte-gpt-{size}",
        f"Byte GPT of {size.replace('M', ' million')} parameters",
        lambda rngs: GPT(256, **GPT_SIZES[size], rngs=rngs),
        target=target,
        batch=tokens // length,
        length=length,
        steps=steps,
        data=data,
        unit="byte",
    )
