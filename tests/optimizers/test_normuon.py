"""NorMuon against the paper in NumPy, and its laws."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_tour as jt
from tests.agreement import STEPS, follow
from tests.matrix_references import equalize_norms_by_hand, newton_schulz_by_hand, normuon_by_hand

SHAPES = [(5, 5), (3, 8), (9, 4)]
ALONG = ("outputs", "inputs", "longer")
MATRIX = jt.MatrixAxes(0, 1)
KELLER_JORDAN = ((3.4445, -4.7750, 2.0315),) * 5


@pytest.mark.parametrize(
    ("shape", "along", "nesterov"),
    [((5, 5), "outputs", True), ((9, 4), "longer", True), ((3, 8), "outputs", False)],
)
def test_agrees_with_the_paper(shape: tuple[int, int], along: Any, nesterov: bool, x64: None) -> None:
    rng = np.random.default_rng(0)
    theta = rng.normal(size=shape)
    gradients = rng.normal(size=(STEPS, *shape)) * 10.0 ** rng.uniform(-2, 1, size=(STEPS, 1, 1))
    tx = jt.normuon(
        0.02,
        weight_decay=0.1,
        b2=0.9,
        along=along,
        nesterov=nesterov,
        orthogonalizer=jt.Orthogonalizer("keller_jordan", eps=1e-7),
        shape_factor="original",
        routing="matrix",
    )
    expected = normuon_by_hand(
        theta,
        gradients,
        0.02,
        orthogonalize=lambda x: newton_schulz_by_hand(x, KELLER_JORDAN),
        b2=0.9,
        along=along,
        nesterov=nesterov,
        lam=0.1,
    )
    # float64: parameters of size one, fifty steps.
    np.testing.assert_allclose(follow(tx, theta, gradients), expected, rtol=1e-9, atol=1e-9)


def updates_of(tx: optax.GradientTransformationExtraArgs, xs: Any) -> Any:
    """The updates for a sequence of inputs, stacked, as one program."""

    def step(state: Any, x: Any) -> Any:
        u, state = tx.update(x, state)
        return state, u

    first = jax.tree.map(lambda x: x[0], xs)
    return jax.jit(lambda xs: jax.lax.scan(step, tx.init(first), xs)[1])(xs)


def sequences(steps: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {str(shape): rng.normal(size=(steps, *shape)) for shape in SHAPES}


@pytest.mark.parametrize("along", ["outputs", "longer"])
def test_the_frobenius_norm_is_kept_and_scaling_scales(along: Any, x64: None) -> None:
    tx, xs = jt.scale_by_normuon(along=along, axes=MATRIX), sequences()
    updates = updates_of(tx, xs)
    hundred = updates_of(tx, {name: 100 * x for name, x in xs.items()})
    for name, x in xs.items():
        norms = np.linalg.norm(updates[name], axis=(1, 2))
        np.testing.assert_allclose(norms, np.linalg.norm(x, axis=(1, 2)), rtol=1e-12)
        np.testing.assert_allclose(hundred[name], 100 * updates[name], rtol=1e-7)  # but for eps
        assert np.abs(updates[name] - x).max() > 0.01


@pytest.mark.parametrize("along", ALONG)
def test_without_memory_the_norms_are_equal(along: Any, x64: None) -> None:
    xs = sequences()
    for name, u in updates_of(jt.scale_by_normuon(0.0, along=along, axes=MATRIX), xs).items():
        expected = [equalize_norms_by_hand(x, along) for x in xs[name]]
        np.testing.assert_allclose(u, expected, rtol=1e-7)  # eps


def test_the_first_update_is_that_of_equal_norms(x64: None) -> None:
    """v starts at zero without a correction: its common factor 1 - b2 cancels."""
    xs = sequences(1)
    for name, u in updates_of(jt.scale_by_normuon(0.95, axes=MATRIX), xs).items():
        np.testing.assert_allclose(u[0], equalize_norms_by_hand(xs[name][0], "longer"), rtol=1e-7)


VIEWS = {
    "a stack": ((2, 3, 6, 4), jt.MatrixAxes(2, 3)),
    "transposed": ((6, 3, 4), jt.MatrixAxes(2, 0)),
    "a convolution": ((2, 2, 3, 5), jt.MatrixAxes((0, 1, 2), 3)),
    "fused": ((2, 4, 9), jt.MatrixAxes(1, 2, split=(5, 3, 1))),
    "fused over two axes": ((4, 3, 4), jt.MatrixAxes(0, (1, 2), split=(8, 4))),
    "heads": ((6, 8), jt.MatrixAxes(0, 2, factors={1: (4,)})),
}


def normalized_by_hand(xs: Any, along: str, b2: float = 0.95) -> list[np.ndarray]:
    axis = 1 if along == "inputs" or (along == "longer" and xs[0].shape[0] > xs[0].shape[1]) else 0
    v, found = 0.0, []
    for x in xs:
        v = b2 * v + (1 - b2) * np.mean(np.square(x), axis=axis, keepdims=True)
        u = x / np.sqrt(v)
        found.append(u * np.linalg.norm(x) / np.linalg.norm(u))
    return found


@pytest.mark.parametrize("along", ["outputs", "inputs"])
def test_a_view_of_any_rank_is_treated_as_its_matrices(along: Any) -> None:
    rng = np.random.default_rng(0)
    xs = {name: np.float32(rng.normal(size=(2, *shape))) for name, (shape, _) in VIEWS.items()}
    results = updates_of(jt.scale_by_normuon(along=along, axes={name: VIEWS[name][1] for name in VIEWS}), xs)
    for name, (_, view) in VIEWS.items():
        parts = [view.to_matrices(x) for x in xs[name]]
        updated = [view.to_matrices(u) for u in np.asarray(results[name])]
        for k, part in enumerate(parts[0]):
            for i in range(len(part)):
                expected = normalized_by_hand([step[k][i] for step in parts], along)
                np.testing.assert_allclose([step[k][i] for step in updated], expected, rtol=1e-5, err_msg=name)


def test_its_state_is_one_number_a_unit() -> None:
    params = {"layers": {"up": {"kernel": jnp.ones((12, 6, 24))}, "down": {"kernel": jnp.ones((12, 24, 6))}}}
    view = jt.MatrixAxes(1, 2)
    nu = jt.scale_by_normuon(axes=view).init(params).unit_nu
    assert nu["layers"]["up"]["kernel"].shape == (12, 1, 24)
    assert nu["layers"]["down"]["kernel"].shape == (12, 24, 1)


def test_it_is_muon_with_a_visible_part() -> None:
    params = {"up": {"kernel": jnp.ones((4, 6)) * 0.5, "bias": jnp.ones(6)}}
    rng = np.random.default_rng(0)
    gradients = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), p.dtype), params)
    chain = jt.multi_transform(
        {
            "matrix": lambda axes: optax.chain(
                jt.scale_by_muon(),
                jt.scale_by_normuon(axes=axes),
                jt.scale_by_matrix_shape(),
                jt.add_decayed_weights(0.1),
                optax.scale_by_learning_rate(0.02),
            ),
            "other": jt.adamw(0.02, b2=0.95, weight_decay=0.1),
        }
    )
    ready = jt.normuon(0.02, weight_decay=0.1)
    expected, updates = jax.jit(lambda g: [tx.update(g, tx.init(params), params)[0] for tx in (chain, ready)])(
        gradients
    )
    jax.tree.map(lambda u, e: np.testing.assert_allclose(u, e, rtol=1e-6), updates, expected)


def test_other_axes_than_at_init_are_named() -> None:
    params = {"up": {"kernel": jnp.ones((4, 6))}}
    tx = jt.multi_transform({"matrix": jt.scale_by_normuon()}, {"up/kernel": jt.MatrixAxes(1, 0)})
    with pytest.raises(ValueError, match=r"'up/kernel'.*scale_by_normuon"):
        tx.update(params, tx.init(params), params)


@pytest.mark.parametrize(
    ("arguments", "named"), [({"b2": 1.0}, "b2"), ({"along": "rows"}, "along"), ({"eps": -1.0}, "eps")]
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        jt.scale_by_normuon(**arguments)
