"""Training loops of other packages run and learn with `jt.muon` in the place of their `optax.adamw`."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from benchmarks import outside_loops


@pytest.mark.not_understood
def test_nano_moe_learns_with_one_line_changed() -> None:
    nano_moe = pytest.importorskip("nano_moe")
    folder = pathlib.Path(nano_moe.__file__).parents[1]
    losses = outside_loops.nano_moe(folder, outside_loops.muon(4.0), 40)
    assert np.isfinite(losses).all()
    assert np.mean(losses[-5:]) < losses[0] - 0.5
