"""Loaders of full-size data, on tiny files that the tests write, byte by byte as their formats say."""

from __future__ import annotations

import gzip
import importlib.util
import struct
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from jaxopt_tour.problems.data import fullsize

RNG = np.random.default_rng(0)
IMAGES = {"train": RNG.integers(0, 256, (6, 28, 28), np.uint8), "t10k": RNG.integers(0, 256, (3, 28, 28), np.uint8)}
LABELS = {"train": np.array([9, 0, 1, 2, 3, 4], np.uint8), "t10k": np.array([5, 6, 7], np.uint8)}


def idx(array: np.ndarray) -> bytes:
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes()


@pytest.fixture
def fashion(tmp_path: Path) -> Path:
    """Two of the files gzipped, two plain."""
    for split in ("train", "t10k"):
        (tmp_path / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(IMAGES[split])))
        (tmp_path / f"{split}-labels-idx1-ubyte").write_bytes(idx(LABELS[split]))
    return tmp_path


def test_idx_files_are_read_gzipped_and_plain(fashion: Path):
    data = fullsize.fashion_mnist(fashion, whole=False)
    np.testing.assert_array_equal(data.train_images, IMAGES["train"])
    np.testing.assert_array_equal(data.test_images, IMAGES["t10k"])
    np.testing.assert_array_equal(data.train_labels, LABELS["train"])
    np.testing.assert_array_equal(data.test_labels, LABELS["t10k"])


def test_a_part_of_fashion_mnist_is_not_taken_for_the_whole(fashion: Path):
    with pytest.raises(ValueError, match=r"train must be 60,000 images of shape \(28, 28\).*got images \(6, 28, 28\)"):
        fullsize.fashion_mnist(fashion)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\0\0\x09" + idx(LABELS["train"])[3:], "is not an IDX file of unsigned bytes"),
        (b"\0\0", "is not an IDX file of unsigned bytes"),
        (b"\0\0\x08\x03\0\0", "is not an IDX file of unsigned bytes"),
        (idx(LABELS["train"])[:-1], r"says shape \(6,\), which is 6 bytes, and has 5"),
        (idx(LABELS["train"]) + b"\0", r"says shape \(6,\), which is 6 bytes, and has 7"),
        (gzip.compress(idx(LABELS["train"]))[:-9], "is a damaged gzip file"),
        (idx(LABELS["train"][:5]), "as many labels"),
        (idx(LABELS["train"] + np.uint8(1)), "must have classes 0 to 9"),
    ],
    ids=["type", "short", "header", "too-few", "too-many", "gzip", "labels", "classes"],
)
def test_broken_idx_files_are_named(fashion: Path, content: bytes, message: str):
    (fashion / "train-labels-idx1-ubyte").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        fullsize.fashion_mnist(fashion, whole=False)


def test_a_missing_file_and_a_missing_folder_are_named(fashion: Path):
    (fashion / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(ValueError, match=r"has neither t10k-labels-idx1-ubyte nor t10k-labels-idx1-ubyte\.gz"):
        fullsize.fashion_mnist(fashion, whole=False)
    with pytest.raises(ValueError, match="folder must be one that exists"):
        fullsize.fashion_mnist(fashion / "nowhere")


@pytest.fixture
def cifar(tmp_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """Two images a file; the first pixel's channels are the file's number and its neighbors."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    images, labels = RNG.integers(0, 256, (12, 32, 32, 3), np.uint8), np.arange(12, dtype=np.uint8) % 10
    names = [f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"]
    for place, name in enumerate(names):
        rows = [
            bytes([labels[i]]) + b"".join(images[i, :, :, channel].tobytes() for channel in range(3))
            for i in (2 * place, 2 * place + 1)
        ]
        (folder / name).write_bytes(b"".join(rows))
    return tmp_path, images, labels


def test_cifar_s_binary_files_are_read(cifar: tuple[Path, np.ndarray, np.ndarray]):
    folder, images, labels = cifar
    for place in (folder, folder / "cifar-10-batches-bin"):
        data = fullsize.cifar10(place, whole=False)
        np.testing.assert_array_equal(data.train_images, images[:10])
        np.testing.assert_array_equal(data.train_labels, labels[:10])
        np.testing.assert_array_equal(data.test_images, images[10:])
        np.testing.assert_array_equal(data.test_labels, labels[10:])
    with pytest.raises(ValueError, match=r"train must be 50,000 images of shape \(32, 32, 3\)"):
        fullsize.cifar10(folder)


def test_broken_cifar_files_are_named(cifar: tuple[Path, np.ndarray, np.ndarray]):
    folder = cifar[0] / "cifar-10-batches-bin"
    content = (folder / "data_batch_3.bin").read_bytes()
    (folder / "data_batch_3.bin").write_bytes(content[:-1])
    with pytest.raises(ValueError, match=r"data_batch_3\.bin has 6,145 bytes, which is no multiple of 3,073"):
        fullsize.cifar10(folder, whole=False)
    (folder / "data_batch_3.bin").write_bytes(b"\x0b" + content[1:])
    with pytest.raises(ValueError, match="must have classes 0 to 9"):
        fullsize.cifar10(folder, whole=False)


def test_pickled_cifar_is_refused_unread(tmp_path: Path):
    (tmp_path / "data_batch_1").write_bytes(b"not even a pickle")
    with pytest.raises(ValueError, match="pickled version, which is not read: take the binary version"):
        fullsize.cifar10(tmp_path)


def test_tiny_shakespeare_is_one_text_file(tmp_path: Path):
    path = tmp_path / "input.txt"
    path.write_text("First Citizen:\nBefore we proceed any further, hear me speak.\n")
    assert fullsize.tiny_shakespeare(path, whole=False).startswith("First Citizen:\n")
    with pytest.raises(ValueError, match=r"has 61 characters, and tiny-shakespeare has 1,115,394"):
        fullsize.tiny_shakespeare(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="is no text in UTF-8"):
        fullsize.tiny_shakespeare(path)
    with pytest.raises(ValueError, match="is not a file"):
        fullsize.tiny_shakespeare(tmp_path)


@pytest.mark.parametrize(
    ("load", "package", "install"),
    [
        (fullsize.cifar10_from_datasets, "datasets", "pip install datasets pillow"),
        (
            fullsize.cifar10_from_tensorflow_datasets,
            "tensorflow_datasets",
            "pip install tensorflow-datasets tensorflow",
        ),
        (fullsize.tiny_shakespeare_from_datasets, "datasets", "pip install datasets"),
    ],
)
def test_a_missing_package_is_named_with_what_to_install(load, package: str, install: str, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(ImportError, match=f"{install}.*local copy"):
        load()


class Columns(dict):
    """A split as `datasets` gives it."""

    @property
    def column_names(self) -> list[str]:
        return list(self)


def standing_in(monkeypatch, name: str, **functions) -> None:
    module = types.ModuleType(name)
    vars(module).update(functions)
    monkeypatch.setitem(sys.modules, name, module)


def test_what_datasets_gives_is_joined_and_checked(monkeypatch, cifar):
    _, images, labels = cifar
    splits = {
        "train": Columns(img=list(images[:10]), label=[int(x) for x in labels[:10]]),
        "test": Columns(img=list(images[10:]), label=[int(x) for x in labels[10:]]),
    }
    asked = []
    standing_in(monkeypatch, "datasets", load_dataset=lambda *name, **options: asked.append((name, options)) or splits)
    data = fullsize.cifar10_from_datasets(whole=False)
    np.testing.assert_array_equal(data.train_images, images[:10])
    np.testing.assert_array_equal(data.test_labels, labels[10:])
    assert data.train_labels.dtype == np.uint8
    with pytest.raises(ValueError, match="train must be 50,000 images"):
        fullsize.cifar10_from_datasets()
    splits["test"] = Columns(image=[])
    with pytest.raises(ValueError, match="'test' with columns img and label, got columns \\['image'\\]"):
        fullsize.cifar10_from_datasets(whole=False)
    splits = {"train": Columns(text=["to be, "]), "validation": Columns(text=["or not "]), "test": Columns(text=["to"])}
    assert fullsize.tiny_shakespeare_from_datasets(whole=False) == "to be, or not to"
    assert asked[-1] == (("karpathy/tiny_shakespeare",), {"revision": "refs/convert/parquet"})


def test_what_tensorflow_datasets_gives_is_checked(monkeypatch):
    asked = {}
    pairs = [
        (np.zeros((2, 32, 32, 3), np.uint8), np.array([1, 2])),
        (np.zeros((1, 32, 32, 3), np.uint8), np.array([3])),
    ]
    standing_in(
        monkeypatch, "tensorflow_datasets", load=lambda name, **options: asked.update(options) or pairs,
        as_numpy=lambda x: x,
    )  # fmt: skip
    monkeypatch.setattr(fullsize, "CIFAR10_SIZES", (2, 1))
    data = fullsize.cifar10_from_tensorflow_datasets("here", download=False)
    assert data.train_images.shape == (2, 32, 32, 3) and data.test_labels.tolist() == [3]
    assert asked["data_dir"] == "here" and asked["download"] is False


@pytest.mark.skipif(importlib.util.find_spec("datasets") is None, reason="datasets is not installed")
def test_a_local_folder_through_the_real_datasets(tmp_path: Path):
    import datasets

    for split, text in (("train", "to be, "), ("validation", "or not "), ("test", "to be")):
        datasets.Dataset.from_dict({"text": [text]}).to_parquet(tmp_path / f"{split}.parquet")
    assert fullsize.tiny_shakespeare_from_datasets(str(tmp_path), None, whole=False) == "to be, or not to be"
