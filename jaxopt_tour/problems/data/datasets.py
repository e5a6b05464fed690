"""The data sets of the distribution jaxopt-tour-data: loaded, checked against their sums, never fetched."""

from __future__ import annotations

import functools
import gzip
import hashlib
import importlib.util
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

#: Where a checkout has the distribution.
_IN_CHECKOUT = Path(__file__).parents[3] / "data" / "jaxopt_tour_data"


@dataclass(frozen=True)
class FashionMnist:
    """5,000 of the 70,000 images of Fashion-MNIST (MIT licence), ten balanced classes."""

    train_images: np.ndarray  # (4000, 28, 28) uint8
    train_labels: np.ndarray  # (4000,) uint8
    test_images: np.ndarray  # (1000, 28, 28) uint8
    test_labels: np.ndarray  # (1000,) uint8


#: What the labels 0 to 9 stand for.
CLASSES = (
    "T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


@dataclass(frozen=True)
class Shakespeare:
    """Eight plays as one string of characters (plays in the public domain, compilation CC-BY 2.5)."""

    text: str  # 1,036,482 characters
    alphabet: str  # the 76 distinct ones, sorted

    def encode(self, text: str) -> np.ndarray:
        """Characters as their positions in the alphabet, int32."""
        position = {character: index for index, character in enumerate(self.alphabet)}
        unknown = sorted(set(text) - set(self.alphabet))
        if unknown:
            raise ValueError(f"text has characters outside the alphabet: {''.join(unknown)!r}")
        return np.array([position[character] for character in text], np.int32)

    def decode(self, tokens: np.ndarray) -> str:
        """The inverse of `encode`."""
        return "".join(self.alphabet[token] for token in tokens)


def folder() -> Path:
    """The folder with the data files: of the checkout that this module is in, or of the installed distribution.

    Raises:
        ValueError: there is neither.
    """
    if _IN_CHECKOUT.is_dir():
        return _IN_CHECKOUT
    installed = importlib.util.find_spec("jaxopt_tour_data")
    if installed is None or installed.origin is None:
        raise ValueError("the data sets are not installed: pip install jaxopt-tour-data")
    return Path(installed.origin).parent


def read_checked(name: str, directory: Path | None = None) -> bytes:
    """The bytes of a data file, after comparing them with `SHA256SUMS`.

    Args:
        name: the file's name.
        directory: the folder. None: the one that `folder` finds.

    Raises:
        ValueError: the file is not listed, is missing, or is not the file that the sum was made from.
    """
    directory = folder() if directory is None else directory
    lines = (directory / "SHA256SUMS").read_text().splitlines()
    sums = {file: digest for digest, file in (line.split() for line in lines)}
    if name not in sums:
        raise ValueError(f"no data file is named {name!r}; there are {', '.join(sorted(sums))}")
    path = directory / name
    if not path.exists():
        raise ValueError(f"{path} is missing: install jaxopt-tour-data again")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != sums[name]:
        raise ValueError(
            f"{path} is damaged, its SHA-256 is {digest}, not {sums[name]}: install jaxopt-tour-data again"
        )
    return content


@functools.cache
def fashion_mnist() -> FashionMnist:
    """Load the images and labels."""
    with np.load(io.BytesIO(read_checked("fashion_mnist_5k.npz")), allow_pickle=False) as arrays:
        return FashionMnist(arrays["train_x"], arrays["train_y"], arrays["test_x"], arrays["test_y"])


@functools.cache
def shakespeare() -> Shakespeare:
    """Load the plays."""
    text = gzip.decompress(read_checked("shakespeare.txt.gz")).decode()
    return Shakespeare(text, "".join(sorted(set(text))))
