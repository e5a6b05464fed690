"""Every direction of steepest descent attains the dual norm, and each norm is measured as its name says."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_tour as jt

SHAPES = [(5, 5), (3, 8), (9, 4), (6, 1)]  # (fan_in, fan_out)


def largest_gain(d: np.ndarray) -> float:
    return float(np.linalg.svd(d, compute_uv=False)[0])


def nuclear(g: np.ndarray) -> float:
    return float(np.linalg.svd(g, compute_uv=False).sum())


def inputs(g: np.ndarray) -> np.ndarray:
    return np.linalg.norm(g, axis=1)


def outputs(g: np.ndarray) -> np.ndarray:
    return np.linalg.norm(g, axis=0)


#: The norm of a direction and the dual norm of a gradient, both (fan_in, fan_out), from their definitions.
NORMS: dict[str, tuple[Any, Any]] = {
    "l2": (lambda d: np.sqrt(np.sum(d**2)), lambda g: np.sqrt(np.sum(g**2))),
    "rms": (lambda d: np.sqrt(np.mean(d**2)), lambda g: np.sqrt(g.size * np.sum(g**2))),
    "linf": (lambda d: np.abs(d).max(), lambda g: np.abs(g).sum()),
    "spectral": (largest_gain, nuclear),
    "rms_to_rms": (
        lambda d: np.sqrt(d.shape[0] / d.shape[1]) * largest_gain(d),
        lambda g: np.sqrt(g.shape[1] / g.shape[0]) * nuclear(g),
    ),
    "column": (lambda d: inputs(d).max(), lambda g: inputs(g).sum()),
    "one_to_rms": (
        lambda d: inputs(d).max() / np.sqrt(d.shape[1]),
        lambda g: np.sqrt(g.shape[1]) * inputs(g).sum(),
    ),
    "row": (lambda d: outputs(d).max(), lambda g: outputs(g).sum()),
    "rms_to_linf": (
        lambda d: np.sqrt(d.shape[0]) * outputs(d).max(),
        lambda g: outputs(g).sum() / np.sqrt(g.shape[0]),
    ),
    "mean_to_linf": (lambda d: d.shape[0] * np.abs(d).max(), lambda g: np.abs(g).sum() / g.shape[0]),
}
OF_MATRICES = [name for name in NORMS if name not in ("l2", "rms", "linf")]


def direction(norm: Any, tree: Any, **options: Any) -> Any:
    options.setdefault("orthogonalizer", "exact")
    options.setdefault("axes", jt.MatrixAxes(0, 1))
    tx = jt.scale_by_dual_norm(norm, **options)
    return jax.tree.map(np.asarray, jax.jit(lambda tree: tx.update(tree, tx.init(tree))[0])(tree))


def gradients() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {str(shape): rng.normal(size=shape) * 10.0 ** rng.uniform(-2, 2, size=shape[1:]) for shape in SHAPES}


@pytest.mark.parametrize("norm", NORMS)
def test_the_direction_has_norm_one_and_attains_the_dual_norm(norm: str, x64: None) -> None:
    measure, dual = NORMS[norm]
    gs = gradients()
    for name, d in direction(norm, gs).items():
        np.testing.assert_allclose(measure(d), 1, rtol=1e-12, err_msg=name)
        np.testing.assert_allclose(np.sum(gs[name] * d), dual(gs[name]), rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("norm", NORMS)
def test_no_other_point_of_the_ball_goes_further_down(norm: str, x64: None) -> None:
    """What the dual norm is: the largest product with a point of norm one, among many drawn ones."""
    measure, dual = NORMS[norm]
    rng = np.random.default_rng(1)
    for g in gradients().values():
        for _ in range(100):
            d = rng.normal(size=g.shape) + 3 * np.sign(g) * rng.uniform()
            assert np.sum(g * d) / measure(d) <= dual(g) * (1 + 1e-12)


#: The norm of what a matrix makes of inputs (rows of x), divided by that of the inputs.
GAINS = {
    "rms_to_rms": (lambda y: np.sqrt(np.mean(y**2, -1)), lambda x: np.sqrt(np.mean(x**2, -1))),
    "rms_to_linf": (lambda y: np.abs(y).max(-1), lambda x: np.sqrt(np.mean(x**2, -1))),
    "mean_to_linf": (lambda y: np.abs(y).max(-1), lambda x: np.abs(x).mean(-1)),
    "one_to_rms": (lambda y: np.sqrt(np.mean(y**2, -1)), lambda x: np.abs(x).sum(-1)),
}


@pytest.mark.parametrize("norm", GAINS)
def test_a_name_with_to_bounds_what_the_direction_does_to_inputs(norm: str, x64: None) -> None:
    of_outputs, of_inputs = GAINS[norm]
    rng = np.random.default_rng(2)
    for d in direction(norm, gradients()).values():
        # Directions, one-hot inputs, signs of outputs' weights, and singular vectors: one of them attains each norm.
        u = np.linalg.svd(d)[0]
        x = np.concatenate([rng.normal(size=(100, len(d))), np.eye(len(d)), d.T, u.T])
        gains = of_outputs(x @ d) / of_inputs(x)
        np.testing.assert_allclose(gains.max(), 1, rtol=1e-12)


def test_spectral_is_the_orthogonalization_and_rms_to_rms_its_multiple() -> None:
    x, axes = {"up": np.float32(np.random.default_rng(0).normal(size=(3, 8)))}, jt.MatrixAxes(0, 1)
    orthogonal = jt.orthogonalize_via_newton_schulz("keller_jordan", axes=axes)
    expected = np.asarray(orthogonal.update(x, orthogonal.init(x))[0]["up"])
    ours = {name: direction(name, x, orthogonalizer="keller_jordan")["up"] for name in ("spectral", "rms_to_rms")}
    np.testing.assert_allclose(ours["spectral"], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours["rms_to_rms"], np.sqrt(8 / 3) * expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_zeros_stay_zero_and_size_does_not_matter(norm: str) -> None:
    g, one_row = jnp.eye(4, 3) + 0.1, jnp.zeros((4, 3)).at[1].set(1.0)
    xs = {"zeros": jnp.zeros((4, 3)), "one row": one_row, "g": g, "tiny": 1e-25 * g, "huge": 1e25 * g}
    d = direction(norm, xs)
    assert not d["zeros"].any()
    assert d["one row"][1].all()
    np.testing.assert_allclose(np.delete(d["one row"], 1, axis=0), 0, atol=1e-6)
    for name in ("tiny", "huge"):
        np.testing.assert_allclose(d[name], d["g"], rtol=1e-5, atol=1e-6)


VIEWS = {
    "a stack": ((2, 3, 6, 4), jt.MatrixAxes(2, 3)),
    "transposed": ((6, 3, 4), jt.MatrixAxes(2, 0)),
    "a convolution": ((2, 2, 3, 5), jt.MatrixAxes((0, 1, 2), 3)),
    "fused": ((2, 4, 9), jt.MatrixAxes(1, 2, split=(5, 3, 1))),
    "heads": ((6, 8), jt.MatrixAxes(0, 2, factors={1: (4,)})),
}


@pytest.mark.parametrize("norm", NORMS)
def test_every_matrix_of_a_view_has_norm_one(norm: str) -> None:
    rng = np.random.default_rng(0)
    xs = {name: np.float32(rng.normal(size=shape)) for name, (shape, _) in VIEWS.items()}
    for name, d in direction(norm, xs, axes={name: view for name, (_, view) in VIEWS.items()}).items():
        _, view = VIEWS[name]
        assert d.shape == xs[name].shape
        matrices = [matrix for part in view.to_matrices(d) for matrix in np.asarray(part)]
        norms = [NORMS[norm][0](matrix) for matrix in matrices]
        np.testing.assert_allclose(norms, 1, rtol=1e-5, err_msg=name)  # float32


@pytest.mark.parametrize("norm", ["l2", "rms", "linf"])
def test_an_array_without_axes_is_one_vector(norm: str) -> None:
    rng = np.random.default_rng(0)
    tree = {"norm": {"scale": jnp.float32(rng.normal(size=7))}, "gain": jnp.float32(-3.0)}
    d = direction(norm, tree, axes=None)
    np.testing.assert_allclose(NORMS[norm][0](d["norm"]["scale"]), 1, rtol=1e-6)
    assert d["gain"] == -1


@pytest.mark.parametrize("norm", OF_MATRICES)
def test_a_vector_is_refused_by_its_path(norm: Any) -> None:
    tx = jt.scale_by_dual_norm(norm)
    tree = {"norm": {"scale": jnp.ones(7)}}
    with pytest.raises(ValueError, match=r"'norm/scale'.*no matrix"):
        tx.update(tree, tx.init(tree))


def test_an_unknown_norm_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"norm must be one of 'l2'.*'mean_to_linf'; got 'nuclear'"):
        jt.scale_by_dual_norm("nuclear")  # type: ignore[arg-type]


def test_a_direction_has_the_dtype_of_its_gradient() -> None:
    tree = {"up": {"kernel": jnp.ones((4, 6), jnp.bfloat16)}}
    for norm in ("rms", "one_to_rms", "mean_to_linf"):
        tx = jt.scale_by_dual_norm(norm)  # type: ignore[arg-type]
        assert tx.update(tree, tx.init(tree))[0]["up"]["kernel"].dtype == jnp.bfloat16
