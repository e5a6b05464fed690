"""A floor under relative updates and a brake on growing norms: the rules in NumPy, and their laws."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

import jaxopt_tour as jt

STACK = jt.MatrixAxes(1, 2)
RNG = np.random.default_rng(0)
W = RNG.normal(size=(4, 3, 5))
#: Small, large, growing and shrinking updates.
U = (
    RNG.normal(size=W.shape) * np.array([0.01, 10.0, 0.1, 0.1])[:, None, None]
    + np.array([0, 0, 1, -0.5])[:, None, None] * W
)


def apply(tx: Any, u: Any = U, w: Any = W) -> np.ndarray:
    return np.asarray(jax.jit(lambda u, w: tx.update(u, tx.init(w), w)[0])(u, w))


def norms(x: Any) -> np.ndarray:
    return np.linalg.norm(x, axis=(1, 2))


def test_an_update_is_raised_to_the_floor_and_never_lowered(x64: None) -> None:
    floored = apply(jt.floor_relative_update(0.35, axes=STACK))
    scale = np.maximum(1, 0.35 * norms(W) / norms(U))
    np.testing.assert_allclose(floored, scale[:, None, None] * U, rtol=1e-12)
    assert 1 < scale[0] and scale[1] == 1
    assert not apply(jt.floor_relative_update(axes=STACK), 0 * U).any()


@pytest.mark.parametrize(("outward", "inward"), [(0.5, 1.0), (0.0, 0.25)])
def test_a_fraction_of_the_change_of_a_norm_is_kept_and_all_of_the_direction(
    outward: float, inward: float, x64: None
) -> None:
    after, free = W + apply(jt.radial_brake(outward, inward, axes=STACK)), W + U
    change = norms(free) - norms(W)
    assert (change > 0).any() and (change < 0).any()
    expected = norms(W) + np.where(change > 0, outward, inward) * change
    np.testing.assert_allclose(after, free * (expected / norms(free))[:, None, None], rtol=1e-12)


def test_a_brake_that_keeps_everything_changes_nothing_and_one_that_keeps_nothing_keeps_norms(x64: None) -> None:
    np.testing.assert_array_equal(apply(jt.radial_brake(1.0, 1.0, axes=STACK)), U)
    np.testing.assert_allclose(norms(W + apply(jt.radial_brake(0.0, 0.0, axes=STACK))), norms(W), rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: jt.floor_relative_update(-1.0), "floor"),
        (lambda: jt.radial_brake(1.5), "outward"),
        (lambda: jt.radial_brake(inward=-0.5), "inward"),
        (lambda: jt.radial_brake(axes=STACK).update(U, jt.radial_brake(axes=STACK).init(W)), "radial_brake.*params"),
    ],
)
def test_wrong_calls_are_named(call: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        call()
