"""SOAP and SOAP-Muon against their algorithms in NumPy, and the laws of both."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_tour as jt
from tests.matrix_references import polar_by_hand, soap_by_hand

AXES = jt.MatrixAxes(0, 1)


def draws(shape: tuple[int, ...], steps: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(steps, *shape))


def followed(tx: optax.GradientTransformation, gradients: Any) -> tuple[Any, Any]:
    """The updates of a tree and the states after them, stacked, as one program."""

    def step(state: Any, g: Any) -> Any:
        u, state = tx.update(g, state)
        return state, (u, state)

    first = jax.tree.map(lambda g: jnp.asarray(g[0]), gradients)
    return jax.jit(lambda gs: jax.lax.scan(step, tx.init(first), gs)[1])(jax.tree.map(jnp.asarray, gradients))


def updates_of(tx: optax.GradientTransformation, gradients: Any) -> np.ndarray:
    return np.asarray(followed(tx, {"w": gradients})[0]["w"])


@pytest.mark.parametrize(
    "arguments",
    [
        {"update_every": 3, "b1": 0.9, "shampoo_beta": 0.7},
        {"max_size": 4, "update_every": 1},  # of the rows alone
        {"first_update": "zero", "update_every": 1},
        {"nesterov": True, "squares_of": "momentum", "first_update": "momentum", "update_every": 2},
        {"nesterov": True, "bias_correction": False, "eps": 1e-3},
        {"max_size": 1},  # Adam
    ],
    ids=str,
)
def test_the_published_algorithm(arguments: dict, x64: None) -> None:
    # One vector of the longer side is without an eigenvalue at first, which determines it.
    gradients = draws((4, 5), 25)
    ours = updates_of(jt.scale_by_soap(axes=AXES, **arguments), gradients)
    # float64, after 25 QR decompositions of matrices with condition numbers up to 1e3.
    np.testing.assert_allclose(ours, soap_by_hand(gradients, **arguments), atol=1e-9)


def test_without_sides_it_is_adam(x64: None) -> None:
    gradients = draws((4, 5), 9)
    adam = updates_of(jt.scale_by_adam(0.9, 0.95), gradients)
    np.testing.assert_allclose(
        updates_of(jt.scale_by_soap(0.9, 0.95, max_size=1, axes=AXES), gradients), adam, rtol=1e-9
    )


@pytest.mark.parametrize("b", [0.0, 0.95])
def test_the_first_update_is_the_polar_factor_whatever_the_decay(b: float) -> None:
    gradients = draws((3, 5), 1).astype(np.float32)
    (u,) = updates_of(jt.scale_by_soap(b, b, axes=AXES), gradients)
    # float32, and eps of 1e-8 beside singular values of size one.
    np.testing.assert_allclose(u, polar_by_hand(gradients[0]), atol=1e-5)


@pytest.mark.slow
def test_the_update_turns_with_the_gradient(x64: None) -> None:
    """SOAP does not depend on the axes that entries are written in; Adam does."""
    gradients = draws((5, 5), 8)
    left, right = (np.linalg.qr(draws((5, 5), 1, seed)[0])[0] for seed in (1, 2))
    tx = jt.scale_by_soap(update_every=2, axes=AXES)
    rotated = updates_of(tx, left @ gradients @ right.T)
    np.testing.assert_allclose(rotated, left @ updates_of(tx, gradients) @ right.T, atol=1e-8)


@pytest.mark.slow
def test_the_interval_changes_only_when_bases_change(x64: None) -> None:
    gradients = {"w": draws((4, 4), 8)}
    runs = {f: followed(jt.scale_by_soap(update_every=f, axes=AXES), gradients) for f in (3, 7)}
    for f, (_, states) in runs.items():
        for bases in (states.left_basis["w"], states.right_basis["w"]):
            changed = [bool(np.any(a != b)) for a, b in itertools.pairwise(np.asarray(bases))]
            # After the first step, whose bases are of the first gradient, every f steps.
            assert changed == [step % f == 0 for step in range(1, 8)], f
    for field in ("mu", "left", "right"):
        first, second = (np.asarray(getattr(states, field)["w"]) for _, states in runs.values())
        np.testing.assert_array_equal(first, second)
    first, second = (np.asarray(updates["w"]) for updates, _ in runs.values())
    np.testing.assert_allclose(first[:4], second[:4], rtol=1e-12)  # the bases changed after step 4
    assert np.abs(first[4] - second[4]).max() > 1e-3


VIEWS = {
    "a stack": ((2, 4, 4), jt.MatrixAxes(1, 2)),
    "a convolution": ((2, 2, 1, 5), jt.MatrixAxes((0, 1, 2), 3)),
    "fused": ((2, 4, 12), jt.MatrixAxes(1, 2, split=(5, 3, 4))),
    "heads": ((4, 10), jt.MatrixAxes(0, 2, factors={1: (5,)})),
}


@pytest.mark.slow
@pytest.mark.parametrize("max_size", [None, 4])
def test_a_view_of_any_rank_is_treated_as_its_matrices(max_size: int | None, x64: None) -> None:
    xs = {name: draws(shape, 4) for name, (shape, _) in VIEWS.items()}
    views = {name: view for name, (_, view) in VIEWS.items()}
    tx = jt.scale_by_soap(update_every=1, max_size=max_size, axes=views)
    updates, _ = followed(tx, xs)
    for name, view in views.items():
        parts = zip(*([np.asarray(part) for part in view.to_matrices(jnp.asarray(x))] for x in xs[name]), strict=True)
        found = zip(*(view.to_matrices(u) for u in updates[name]), strict=True)
        for gradients, us in zip(parts, found, strict=True):
            for i in range(len(gradients[0])):
                alone = soap_by_hand([g[i] for g in gradients], update_every=1, max_size=max_size or 100)
                np.testing.assert_allclose([u[i] for u in us], alone, atol=1e-8, err_msg=name)


def test_the_state_has_bases_of_the_sides_and_moments_of_the_parameter() -> None:
    params = {"kernel": jnp.zeros((3, 2, 4)), "fused": jnp.zeros((4, 7)), "long": jnp.zeros((9, 2))}
    axes = {"kernel": jt.MatrixAxes(0, (1, 2)), "fused": jt.MatrixAxes(0, 1, split=(3, 2, 2)), "long": AXES}
    state = jt.scale_by_soap(axes=axes, max_size=8).init(params)
    left = {"kernel": (1, 1, 3, 3), "fused": (1, 3, 4, 4), "long": (1, 1, 1, 1)}
    right = {"kernel": (1, 1, 8, 8), "fused": (1, 3, 3, 3), "long": (1, 1, 2, 2)}
    for shapes, trees in ((left, (state.left, state.left_basis)), (right, (state.right, state.right_basis))):
        for tree in trees:
            assert {name: leaf.shape for name, leaf in tree.items()} == shapes
    assert jax.tree.map(jnp.shape, state.mu) == jax.tree.map(jnp.shape, state.nu) == jax.tree.map(jnp.shape, params)


@pytest.mark.slow
def test_a_matrix_starts_with_its_first_gradient_other_than_zero(x64: None) -> None:
    gradients = draws((4, 4), 5)
    late = np.concatenate([np.zeros((3, 4, 4)), gradients])
    tx = jt.scale_by_soap(update_every=1, bias_correction=False, axes=AXES)
    updates = updates_of(tx, late)
    np.testing.assert_array_equal(updates[:3], 0)
    np.testing.assert_allclose(updates[3:], updates_of(tx, gradients), atol=1e-9)


def test_rounding_in_directions_without_a_gradient_does_not_grow() -> None:
    """In float32, of gradients of rank 2: Adam makes full steps of what is left of the others."""
    basis = np.linalg.qr(draws((8, 8), 1)[0])[0][:, :2]
    gradients = (basis @ draws((2, 6), 12, seed=1)).astype(np.float32)
    updates = updates_of(jt.scale_by_soap(update_every=1, axes=AXES), gradients)
    outside = updates - basis @ (basis.T @ updates)
    assert np.abs(updates).max() > 0.1
    assert np.abs(outside).max() < 1e-3


@pytest.mark.slow
def test_soap_muon_orthogonalizes_the_momentum_in_the_bases_of_the_gradients(x64: None) -> None:
    gradients = draws((4, 5), 12)
    arguments = {"b1": 0.95, "b2": 0.9, "update_every": 1, "nesterov": True, "bias_correction": False}
    expected = soap_by_hand(gradients, squares_of="momentum", first_update="momentum", **arguments)
    tx = jt.soap_muon(1.0, weight_decay=0.0, orthogonalizer="exact", shape_factor=None, routing="matrix")
    params = {"w": jnp.zeros((4, 5))}

    def step(state: Any, g: Any) -> Any:
        u, state = tx.update({"w": g}, state, params)
        return state, u["w"]

    updates = jax.jit(lambda gs: jax.lax.scan(step, tx.init(params), gs)[1])(jnp.asarray(gradients))
    np.testing.assert_allclose(updates, [-polar_by_hand(u) for u in expected], atol=1e-8)


def test_a_longest_side_cannot_be_injected_and_says_so() -> None:
    tx = optax.inject_hyperparams(jt.scale_by_soap)(max_size=4, axes=AXES)
    with pytest.raises(ValueError, match=r"max_size.*static_args"):
        tx.init({"w": jnp.zeros((2, 3))})


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"b1": 1.0}, "b1"),
        ({"shampoo_beta": -0.1}, "shampoo_beta"),
        ({"eps": -1.0}, "eps"),
        ({"update_every": 0}, "update_every must be an integer >= 1"),
        ({"update_every": 1.5}, "update_every"),
        ({"max_size": 0}, "max_size"),
        ({"bias_correction": 1}, "bias_correction"),
        ({"nesterov": "yes"}, "nesterov"),
        ({"first_update": "skip"}, "first_update.*'zero'"),
        ({"nu_dtype": "bfloat16"}, "nu_dtype"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(arguments: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        jt.scale_by_soap(**arguments)
    with pytest.raises(ValueError, match=named):
        jt.soap(1e-3, **arguments)


def test_what_is_no_matrix_is_named() -> None:
    with pytest.raises(ValueError, match="bias"):
        jt.scale_by_soap(axes=AXES).init({"bias": jnp.zeros(3)})
    with pytest.raises(ValueError, match="squares_of"):
        jt.scale_by_soap(squares_of="update")  # type: ignore[arg-type]
