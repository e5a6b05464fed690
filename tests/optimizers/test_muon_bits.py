"""`jt.muon` with all additions off is bit for bit what it was before them."""

from __future__ import annotations

import pathlib

import jax
import numpy as np
import pytest

import jaxopt_tour as jt
from tests.golden.make_muon_golden import path_of, products

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden" / "muon.npz", allow_pickle=False)


@pytest.mark.slow
def test_its_bits_are_those_from_before_the_rules_after_it() -> None:
    ours = path_of(jt.muon(0.02, weight_decay=0.1))
    # The same version compiles the same kernels; a machine of another kind may still sum in another order.
    rounds_alike = jax.__version__ == str(GOLDEN["jax_version"]) and all(
        np.array_equal(value, GOLDEN[name]) for name, value in products().items()
    )
    for name, value in ours.items():
        if rounds_alike:
            np.testing.assert_array_equal(value, GOLDEN[name], err_msg=name)
        else:  # float32: five steps of numbers of size one, and an iteration that magnifies rounding a little
            np.testing.assert_allclose(value, GOLDEN[name], rtol=0, atol=1e-5, err_msg=name)
