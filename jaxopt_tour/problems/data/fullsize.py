"""The data sets at full size, from files that the user has, or from optional packages that fetch them.

No file here is part of the package, and importing this module fetches nothing. `fashion_mnist`, `cifar10` and
`tiny_shakespeare` read local files; the functions that end in `_from_datasets` and `_from_tensorflow_datasets`
are those that may go to the network, through the package of that name, which must be installed.
"""

from __future__ import annotations

import gzip
import importlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np


@dataclass(frozen=True)
class Images:
    """Images and their classes, for training and for testing."""

    train_images: np.ndarray  # (N, height, width) or (N, height, width, channels) uint8
    train_labels: np.ndarray  # (N,) uint8
    test_images: np.ndarray
    test_labels: np.ndarray


#: Examples of each split.
FASHION_MNIST_SIZES: Final = (60_000, 10_000)
CIFAR10_SIZES: Final = (50_000, 10_000)
CIFAR10_CLASSES: Final = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
TINY_SHAKESPEARE_CHARACTERS: Final = 1_115_394


# --- local files ------------------------------------------------------------------------------------------------------


def read_idx(path: Path) -> np.ndarray:
    """An array of unsigned bytes from an IDX file, gzipped or plain.

    The file is 0, 0, 8 (the type), the rank, the sizes as big-endian int32, then the bytes, last axis fastest.

    Raises:
        ValueError: it is none, or it is cut off, or has something behind its end.

    Source: LeCun, Cortes & Burges, The MNIST database, http://yann.lecun.com/exdb/mnist/
    """
    content = _unzipped(path)
    if content[:3] != b"\x00\x00\x08" or len(content) < 4 + 4 * content[3]:
        raise ValueError(f"{path} is not an IDX file of unsigned bytes")
    rank = content[3]
    shape = tuple(int(size) for size in np.frombuffer(content, ">i4", count=rank, offset=4))
    size, expected = len(content) - 4 - 4 * rank, math.prod(shape)
    if min(shape, default=0) < 0 or size != expected:
        raise ValueError(f"{path} says shape {shape}, which is {expected:,} bytes, and has {size:,}")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def fashion_mnist(folder: str | Path, *, whole: bool = True) -> Images:
    """Fashion-MNIST from its four IDX files, as its authors and Debian's `dataset-fashion-mnist` have them.

    Args:
        folder: with `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and
            `t10k-labels-idx1-ubyte`, each with or without `.gz`.
        whole: it must be the whole set of 60,000 and 10,000 images of 28 x 28 pixels; False takes any IDX files.

    Raises:
        ValueError: a file is missing, is no IDX file, or has other sizes.

    Source: Xiao, Rasul & Vollgraf 2017, https://arxiv.org/abs/1708.07747
    """
    folder = _folder(folder)
    images = Images(
        *(
            read_idx(_either(folder, f"{split}-{kind}-ubyte"))
            for split in ("train", "t10k")
            for kind in ("images-idx3", "labels-idx1")
        )
    )
    return _checked(images, str(folder), (28, 28), FASHION_MNIST_SIZES if whole else None)


def cifar10(folder: str | Path, *, whole: bool = True) -> Images:
    """CIFAR-10 from the binary version: `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin`.

    Every image is one byte of class and 3 x 1,024 bytes of red, green and blue, row by row. The version "for Python" is
    pickled, and unpickling runs whatever code is in a file: it is not read.

    Args:
        folder: with the files, or with `cifar-10-batches-bin` in it; `.gz` is taken, too.
        whole: it must be the whole set of 50,000 and 10,000 images; False takes as many as there are.

    Raises:
        ValueError: a file is missing, does not hold whole images, or has a class that does not exist.

    Source: Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html
    """
    folder = _folder(folder)
    if (folder / "cifar-10-batches-bin").is_dir():
        folder = folder / "cifar-10-batches-bin"
    if not list(folder.glob("*.bin*")) and (folder / "data_batch_1").exists():
        raise ValueError(
            f"{folder} holds CIFAR-10's pickled version, which is not read: take the binary version, "
            "cifar-10-binary.tar.gz"
        )
    train = [_cifar_batch(_either(folder, f"data_batch_{number}.bin")) for number in range(1, 6)]
    test_images, test_labels = _cifar_batch(_either(folder, "test_batch.bin"))
    images = Images(
        np.concatenate([images for images, _ in train]),
        np.concatenate([labels for _, labels in train]),
        test_images,
        test_labels,
    )
    return _checked(images, str(folder), (32, 32, 3), CIFAR10_SIZES if whole else None)


def _cifar_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    record = 1 + 3 * 32 * 32
    content = _unzipped(path)
    if not content or len(content) % record:
        raise ValueError(f"{path} has {len(content):,} bytes, which is no multiple of {record:,}, an image of CIFAR-10")
    records = np.frombuffer(content, np.uint8).reshape(-1, record)
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # (N, height, width, channels)
    return np.ascontiguousarray(images), records[:, 0]


def tiny_shakespeare(path: str | Path, *, whole: bool = True) -> str:
    """Karpathy's tiny-shakespeare from its one text file (`input.txt`).

    Args:
        path: of the file.
        whole: it must have the 1,115,394 characters of the original; False takes any text.

    Raises:
        ValueError: there is no such file, it is no UTF-8 text, or it has another length.

    Source: Karpathy 2015, https://github.com/karpathy/char-rnn/tree/master/data/tinyshakespeare
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is not a file; tiny-shakespeare is one text file, input.txt")
    try:
        text = _unzipped(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8: {error}") from None
    return _whole_text(text, str(path)) if whole else text


# --- optional packages ------------------------------------------------------------------------------------------------


def cifar10_from_datasets(name: str = "uoft-cs/cifar10", *, whole: bool = True) -> Images:
    """CIFAR-10 through Hugging Face's `datasets`, which fetches it where its cache does not have it.

    Args:
        name: a data set of the hub, or a local folder that `datasets.load_dataset` reads, with splits `train` and
            `test` and columns `img` and `label`.
        whole: as in `cifar10`.

    Raises:
        ImportError: the package is missing.
        ValueError: sizes or columns are others.
    """
    loaded = _optional("datasets", "datasets pillow", "cifar10").load_dataset(name)
    arrays = []
    for split in ("train", "test"):
        columns = loaded[split].column_names if split in loaded else []
        if not {"img", "label"} <= set(columns):
            raise ValueError(f"{name!r} must have a split {split!r} with columns img and label, got columns {columns}")
        arrays += [np.stack([np.asarray(image) for image in loaded[split]["img"]]), np.asarray(loaded[split]["label"])]
    return _checked(Images(*arrays), repr(name), (32, 32, 3), CIFAR10_SIZES if whole else None)


def cifar10_from_tensorflow_datasets(data_dir: str | None = None, *, download: bool = True) -> Images:
    """CIFAR-10 through `tensorflow_datasets`.

    Args:
        data_dir: where it keeps its files; None: its own place.
        download: fetch the set where it is not there; False raises in that case.

    Raises:
        ImportError: the package is missing.
        ValueError: sizes are others.
    """
    package = _optional("tensorflow_datasets", "tensorflow-datasets tensorflow", "cifar10")
    splits = package.load(
        "cifar10", split=["train", "test"], batch_size=-1, as_supervised=True, data_dir=data_dir, download=download
    )
    arrays = [np.asarray(array) for split in package.as_numpy(splits) for array in split]
    return _checked(Images(*arrays), "tensorflow_datasets' cifar10", (32, 32, 3), CIFAR10_SIZES)


def tiny_shakespeare_from_datasets(
    name: str = "karpathy/tiny_shakespeare", revision: str | None = "refs/convert/parquet", *, whole: bool = True
) -> str:
    """tiny-shakespeare through Hugging Face's `datasets`: its splits joined again.

    Args:
        name: a data set of the hub, or a local folder, with a column `text`.
        revision: of the hub; the branch with data files in place of a loading script, which newer versions do not run.
        whole: as in `tiny_shakespeare`.

    Raises:
        ImportError: the package is missing.
        ValueError: length or columns are others.
    """
    loaded = _optional("datasets", "datasets", "tiny_shakespeare").load_dataset(name, revision=revision)
    parts = [split for split in ("train", "validation", "test") if split in loaded]
    if not parts or any("text" not in loaded[split].column_names for split in parts):
        raise ValueError(f"{name!r} must have splits train, validation or test with a column text, got {loaded}")
    text = "".join("".join(loaded[split]["text"]) for split in parts)
    return _whole_text(text, repr(name)) if whole else text


def _optional(module: str, packages: str, local: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"this needs {error.name!r}: pip install {packages}; or give a local copy to fullsize.{local}"
        ) from error


# --- checks -----------------------------------------------------------------------------------------------------------


def _folder(folder: str | Path) -> Path:
    if not Path(folder).is_dir():
        raise ValueError(f"folder must be one that exists, got {str(folder)!r}")
    return Path(folder)


def _either(folder: Path, name: str) -> Path:
    """The file, plain or gzipped."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise ValueError(f"{folder} has neither {name} nor {name}.gz")


def _unzipped(path: Path) -> bytes:
    content = path.read_bytes()
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError) as error:
        raise ValueError(f"{path} is a damaged gzip file: {error}") from None


def _checked(images: Images, source: str, shape: tuple[int, ...], sizes: tuple[int, int] | None) -> Images:
    """The images as bytes, after comparing their shapes, their number and their classes."""
    splits = {"train": (images.train_images, images.train_labels), "test": (images.test_images, images.test_labels)}
    for place, (split, (pixels, labels)) in enumerate(splits.items()):
        n = pixels.shape[0] if sizes is None else sizes[place]
        if pixels.shape != (n, *shape) or labels.shape != (n,):
            raise ValueError(
                f"{source}: {split} must be {n:,} images of shape {shape} and as many labels, got images "
                f"{pixels.shape} and labels {labels.shape}"
            )
        if n == 0 or labels.min() < 0 or labels.max() > 9:
            raise ValueError(f"{source}: {split} must have classes 0 to 9, got {sorted(set(labels.tolist()))[:20]}")
    return Images(*(np.asarray(array, np.uint8) for pair in splits.values() for array in pair))


def _whole_text(text: str, source: str) -> str:
    if len(text) != TINY_SHAKESPEARE_CHARACTERS:
        raise ValueError(
            f"{source} has {len(text):,} characters, and tiny-shakespeare has {TINY_SHAKESPEARE_CHARACTERS:,}; "
            "whole=False takes any text"
        )
    return text
