"""Equal norms within a matrix and the norm of an orthogonal one, against NumPy, and their laws."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxopt_tour as jt
from tests.matrix_references import equalize_norms_by_hand, polar_by_hand

SHAPES = [(5, 5), (3, 8), (9, 4)]
ALONG = ("outputs", "inputs", "longer")
SCALES = (1e-30, 1.0, 1e30)
MATRIX = jt.MatrixAxes(0, 1)


def apply(tx: optax.GradientTransformationExtraArgs, x: Any) -> Any:
    """The updates as one program, since compiling takes the time."""
    return jax.jit(lambda x: tx.update(x, tx.init(x))[0])(x)


def matrix(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Entries of many sizes, so that the norms differ."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape) * 10.0 ** rng.uniform(-2, 2, size=shape)


@pytest.mark.parametrize("target", ["mean", "unit"])
def test_agrees_with_the_reference(target: Any, x64: None) -> None:
    xs = {str(shape): matrix(shape) for shape in SHAPES}
    for x in xs.values():
        x[:, 0] = 0
        x[1] = 0
    for along in ALONG:
        updates = apply(jt.equalize_norms(along, target=target, axes=MATRIX), xs)
        for name, x in xs.items():
            np.testing.assert_allclose(updates[name], equalize_norms_by_hand(x, along, target), rtol=1e-12)


RUN = jax.jit(
    lambda xs: {
        along: {
            name: tx.update(x, tx.init(x))[0]
            for name, x in xs.items()
            for tx in [jt.equalize_norms(along, axes=MATRIX)]
        }
        for along in ALONG
    }
)


@given(seed=st.integers(0, 2**16), exponent=st.integers(-80, 80))
def test_the_norms_are_equal_and_the_matrix_keeps_its_own_at_any_scale(seed: int, exponent: int) -> None:
    # Beyond 2^64 the squares leave float32, and below 2^-75 they vanish in it.
    xs = {str(shape): (matrix(shape, seed) * 2.0**exponent).astype(np.float32) for shape in SHAPES}
    for along, updates in RUN(xs).items():
        for name, x in xs.items():
            u = np.asarray(updates[name], np.float64)
            axis = 1 if along == "inputs" or (along == "longer" and x.shape[0] > x.shape[1]) else 0
            norms = np.linalg.norm(u, axis=axis)
            np.testing.assert_allclose(norms, norms[0], rtol=1e-5)  # rounding of float32
            np.testing.assert_allclose(np.linalg.norm(u), np.linalg.norm(x.astype(np.float64)), rtol=1e-5)


def test_after_an_exact_polar_factor_the_shorter_side_is_equal_already(x64: None) -> None:
    polar = polar_by_hand(matrix((9, 4)))
    np.testing.assert_allclose(apply(jt.equalize_norms("outputs", axes=MATRIX), polar), polar, rtol=1e-12)
    assert np.abs(apply(jt.equalize_norms("inputs", axes=MATRIX), polar) - polar).max() > 0.1


def test_before_an_orthogonalization_the_target_does_not_matter(x64: None) -> None:
    x = matrix((3, 8))
    mean, unit = (
        apply(optax.chain(jt.equalize_norms(target=target), jt.orthogonalize_via_newton_schulz()), {"kernel": x})
        for target in ("mean", "unit")
    )
    np.testing.assert_allclose(mean["kernel"], unit["kernel"], rtol=1e-6)


def test_a_norm_below_eps_of_the_target_is_not_raised_to_it() -> None:
    x = np.ones((4, 3), np.float32) * np.float32([1.0, 1.0, 1e-12])
    norms = np.linalg.norm(apply(jt.equalize_norms(eps=1e-6, axes=MATRIX), x), axis=0)
    assert norms[0] == norms[1] > 1 and norms[2] < 1e-5


def test_the_frobenius_norm_is_that_of_an_orthogonal_matrix() -> None:
    rng = np.random.default_rng(0)
    xs = {f"{shape} {scale}": np.float32(scale * rng.normal(size=shape)) for shape in SHAPES for scale in SCALES}
    for name, u in apply(jt.normalize_frobenius(axes=MATRIX), xs).items():
        x, u = np.float64(xs[name]), np.float64(u)
        np.testing.assert_allclose(u, np.sqrt(min(x.shape)) * x / np.linalg.norm(x), rtol=1e-5, err_msg=name)


VIEWS = {
    "a stack": ((2, 3, 6, 4), jt.MatrixAxes(2, 3)),
    "transposed": ((6, 3, 4), jt.MatrixAxes(2, 0)),
    "a convolution": ((2, 2, 3, 5), jt.MatrixAxes((0, 1, 2), 3)),
    "fused": ((2, 4, 9), jt.MatrixAxes(1, 2, split=(5, 3, 1))),
    "fused over two axes": ((4, 3, 4), jt.MatrixAxes(0, (1, 2), split=(8, 4))),
    "heads": ((6, 8), jt.MatrixAxes(0, 2, factors={1: (4,)})),
}


PARTS = {
    "equalize_norms": (
        lambda views: jt.equalize_norms("longer", axes=views),
        lambda x: equalize_norms_by_hand(x, "longer"),
    ),
    "normalize_frobenius": (
        lambda views: jt.normalize_frobenius(axes=views),
        lambda x: np.sqrt(min(x.shape)) * x / np.linalg.norm(x),
    ),
}


@pytest.mark.parametrize("part", PARTS)
def test_a_view_of_any_rank_is_treated_as_its_matrices(part: str) -> None:
    make, by_hand = PARTS[part]
    xs = {name: np.float32(matrix(shape)) for name, (shape, _) in VIEWS.items()}
    updates = apply(make({name: view for name, (_, view) in VIEWS.items()}), xs)
    for name, (_, view) in VIEWS.items():
        for us, of_part in zip(view.to_matrices(np.asarray(updates[name])), view.to_matrices(xs[name]), strict=True):
            for u, x in zip(us, of_part, strict=True):
                np.testing.assert_allclose(u, by_hand(x), rtol=1e-5, err_msg=name)


def test_zeros_stay_zeros_and_what_is_not_finite_stays_visible() -> None:
    xs = {str(value): np.zeros((3, 4), np.float32) for value in (0.0, np.nan, np.inf)}
    for value, x in xs.items():
        x[1, 2] = float(value)
    for part in (jt.equalize_norms(axes=MATRIX), jt.normalize_frobenius(axes=MATRIX)):
        updates = apply(part, xs)
        assert not updates["0.0"].any()
        assert not np.isfinite(updates["nan"]).all() and not np.isfinite(updates["inf"]).all()


def test_the_dtype_and_the_box_of_an_update_are_kept() -> None:
    linen = pytest.importorskip("flax.linen")
    box = linen.Partitioned(jnp.ones((3, 4), jnp.bfloat16), names=("in", "out"))
    updates = apply(jt.equalize_norms(axes=MATRIX), {"up": box})
    assert updates["up"].names == box.names and updates["up"].value.dtype == jnp.bfloat16


def test_derivatives_are_finite_at_zero() -> None:
    for part in (jt.equalize_norms(axes=MATRIX), jt.normalize_frobenius(axes=MATRIX)):
        x = np.eye(3, 4, dtype=np.float32) * np.float32([1.0, 0, 0, 0])
        slope = jax.jit(jax.grad(lambda x, part=part: apply(part, x).sum()))(x)
        assert np.isfinite(slope).all()


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: jt.equalize_norms("rows"), "along"),
        (lambda: jt.equalize_norms(target="max"), "target"),  # type: ignore[arg-type]
        (lambda: jt.equalize_norms(eps=-1.0), "eps"),
        (lambda: jt.normalize_frobenius(mesh=()), "axes"),
        (lambda: apply(jt.equalize_norms(), {"bias": jnp.ones(3)}), "'bias'"),
    ],
)
def test_wrong_arguments_are_named(call: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        call()
