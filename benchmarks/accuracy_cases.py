"""The matrices that accuracy is measured on: made ones, and momenta recorded from a run."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Sequence

import numpy as np
from _common import ROOT

RECORDED = ROOT / "benchmarks" / "data" / "recorded_momentum.npz"


@dataclasses.dataclass(frozen=True)
class Case:
    """A matrix, the family it is summed up with, and its exact decomposition over the numerical range."""

    family: str
    matrix: np.ndarray
    u: np.ndarray
    s: np.ndarray
    vt: np.ndarray


def case(family: str, matrix: np.ndarray) -> Case:
    matrix = matrix.astype(np.float32)
    u, s, vt = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    rank = int(np.count_nonzero(s > max(matrix.shape) * np.finfo(np.float32).eps * s[0]))
    return Case(family, matrix, u[:, :rank], s[:rank], vt[:rank])


def power_law(rng: np.random.Generator, m: int, n: int, smallest: float) -> np.ndarray:
    """Singular values i^-p from 1 down to `smallest`, random singular vectors."""
    rank = min(m, n)
    s = np.arange(1.0, rank + 1) ** (np.log(smallest) / np.log(rank))
    u, v = (np.linalg.qr(rng.standard_normal((size, rank)))[0] for size in (m, n))
    return (u * s) @ v.T


def block_diagonal(rng: np.random.Generator, m: int, n: int, scales: Sequence[float]) -> np.ndarray:
    """Gaussian blocks of the given sizes of entries along the diagonal, zero elsewhere."""
    x = np.zeros((m, n))
    rows, columns = m // len(scales), n // len(scales)
    for i, scale in enumerate(scales):
        block = scale * rng.standard_normal((rows, columns))
        x[i * rows : (i + 1) * rows, i * columns : (i + 1) * columns] = block
    return x


def generated() -> dict[str, Case]:
    rng = np.random.default_rng(0)
    matrices = {
        "Gaussian 256x256": rng.standard_normal((256, 256)),
        "Gaussian 768x768": rng.standard_normal((768, 768)),
        "Gaussian 256x1024": rng.standard_normal((256, 1024)),
        "Gaussian 1024x256": rng.standard_normal((1024, 256)),
        "power law to 1e-2, 256x256": power_law(rng, 256, 256, 1e-2),
        "power law to 1e-4, 256x1024": power_law(rng, 256, 1024, 1e-4),
        "block-diagonal 256x1024": block_diagonal(rng, 256, 1024, (1.0, 0.3, 0.1, 0.03)),
        "rank one 256x1024": np.outer(rng.standard_normal(256), rng.standard_normal(1024)),
    }
    return {name: case(name, matrix) for name, matrix in matrices.items()}


@functools.cache
def recorded(path: pathlib.Path = RECORDED) -> dict[str, Case]:
    """The matrices of benchmarks/record_momentum.py by name: `block0/attention/query@50`."""
    found = {}
    with np.load(path, allow_pickle=False) as file:
        for name in file.files:
            one = case("", file[name])
            m, n = sorted(one.matrix.shape)
            family = f"recorded {m}x{n}" if len(one.s) > m // 2 else f"recorded {m}x{n}, low rank"
            found[name] = dataclasses.replace(one, family=family)
    return found


def small() -> dict[str, Case]:
    """What `--quick` takes."""
    rng = np.random.default_rng(0)
    matrices = {"Gaussian 24x24": rng.standard_normal((24, 24)), "power law 16x48": power_law(rng, 16, 48, 1e-2)}
    return {name: case(name, matrix) for name, matrix in matrices.items()}
