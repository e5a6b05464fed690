"""Hyperball against NumPy, and its laws: norms are kept, and the rate is the relative length of a step."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_tour as jt
from tests.agreement import STEPS, follow
from tests.matrix_references import hyperball_by_hand, muon_by_hand, polar_by_hand
from tests.references import adam_by_hand

MATRIX = jt.MatrixAxes(0, 1)
VIEWS = {
    "a matrix": ((5, 4), MATRIX),
    "a stack": ((2, 3, 6, 4), jt.MatrixAxes(2, 3)),
    "fused": ((2, 4, 9), jt.MatrixAxes(1, 2, split=(5, 3, 1))),
    "heads": ((6, 8), jt.MatrixAxes(0, 2, factors={1: (4,)})),
}
AXES = {name: view for name, (_, view) in VIEWS.items()}


def drawn(seed: int, *leading: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(*leading, *shape)) for name, (shape, _) in VIEWS.items()}


def matrices(tree: Any) -> list[np.ndarray]:
    """Every single matrix of a tree of these shapes, below leading axes of steps."""
    found = []
    for name, (shape, view) in VIEWS.items():
        steps = np.asarray(tree[name]).reshape(-1, *shape)
        split = [view.to_matrices(step) for step in steps]
        found += [
            np.stack([step[k][i] for step in split]) for k in range(len(split[0])) for i in range(len(split[0][k]))
        ]
    return found


def test_agrees_with_the_paper_for_every_matrix_of_a_tree(x64: None) -> None:
    params, directions = drawn(0), drawn(1, STEPS)
    path = follow(jt.hyperball(0.03, axes=AXES), params, directions)
    for theta, us, ours in zip(matrices(params), matrices(directions), matrices(path), strict=True):
        # Each of 50 steps rounds numbers of size one once.
        np.testing.assert_allclose(ours, hyperball_by_hand(theta[0], us, 0.03), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_norm_does_not_drift(dtype: str) -> None:
    params, directions = (jnp.asarray(drawn(seed, *steps)["a stack"], dtype) for seed, *steps in ((0,), (1, 300)))
    last = follow(jt.hyperball(0.05, axes=VIEWS["a stack"][1]), params, directions)[-1]
    before, after = (np.linalg.norm(np.float32(x), axis=(-2, -1)) for x in (params, last))
    # The last rounding of the entries; nothing adds up over 300 steps.
    np.testing.assert_allclose(after, before, rtol={"float32": 1e-6, "bfloat16": 4e-3}[dtype])


def test_the_rate_is_the_tangent_of_the_angle_and_the_size_of_the_gradient_does_not_matter(x64: None) -> None:
    w = np.zeros((3, 3))
    w[0, 0], u = 2.0, np.zeros((3, 3))
    for size in (1e-200, 1.0, 1e200):
        u[1, 1] = size
        tx = jt.hyperball(0.1, axes=MATRIX)
        after = w + np.asarray(tx.update(u, tx.init(w), w)[0])
        np.testing.assert_allclose(np.arctan2(-after[1, 1], after[0, 0]), np.arctan(0.1), rtol=1e-12)


def test_without_a_gradient_or_a_rate_nothing_moves() -> None:
    params = {name: jnp.float32(drawn(0)[name]) for name in ("a stack", "fused")}
    zeros = jax.tree.map(jnp.zeros_like, params)

    @jax.jit
    def update(rate: Any, u: Any) -> Any:
        tx = jt.hyperball(rate, axes=AXES)
        return tx.update(u, tx.init(params), params)[0]

    assert all(np.abs(leaf).max() < 1e-6 for leaf in jax.tree.leaves(update(0.1, zeros)))
    assert not any(leaf.any() for leaf in jax.tree.leaves(update(0.0, params)))


def gradients_of(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=shape), rng.normal(size=(STEPS, *shape))


def directions_of(path: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """What an optimizer at rate 1 without decay subtracts in each step."""
    return -np.diff(np.concatenate([theta[None], path]), axis=0)


def test_muonh_is_muon_on_the_sphere(x64: None) -> None:
    theta, gradients = gradients_of((5, 4))
    ours = follow(jt.muonh(0.02, orthogonalizer="exact", routing="matrix"), theta, gradients)
    muon = muon_by_hand(theta, gradients, 1.0, orthogonalize=polar_by_hand)
    expected = hyperball_by_hand(theta, directions_of(muon, theta), 0.02)
    np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-9)


def test_adamh_is_adam_on_the_sphere(x64: None) -> None:
    theta, gradients = gradients_of((5, 4))
    ours = follow(jt.adamh(0.02, routing="matrix"), theta, gradients)
    adam = adam_by_hand(theta, gradients, 1.0, b2=0.95)
    expected = hyperball_by_hand(theta, directions_of(adam, theta), 0.02)
    np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-9)


def test_the_rest_goes_to_adamw_without_decay() -> None:
    params = {"up": {"kernel": jnp.ones((4, 6)), "bias": 2 * jnp.ones(6)}}
    rest = jt.adamw(0.02, b2=0.95, weight_decay=0.0)
    for make in (jt.muonh, jt.adamh):
        tx = make(0.02)
        updates, _ = tx.update(params, tx.init(params), params)
        expected, _ = rest.update(params["up"]["bias"], rest.init(params["up"]["bias"]), params["up"]["bias"])
        np.testing.assert_array_equal(updates["up"]["bias"], expected)


@pytest.mark.parametrize("make", [jt.muonh, jt.adamh])
def test_a_matrix_that_starts_at_zero_is_named(make: Any) -> None:
    params = {"blocks": {"up": {"kernel": jnp.ones((4, 6))}, "down": {"kernel": jnp.zeros((6, 4))}}}
    routing = {"blocks": MATRIX}
    with pytest.raises(ValueError, match=r"'blocks/down/kernel'.*zeros"):
        make(0.02, routing=routing).init(params)
    jax.eval_shape(make(0.02, routing=routing).init, params)  # a shape has no values


def test_one_zero_matrix_of_a_stack_is_named() -> None:
    stack = jnp.ones((3, 4, 6)).at[1].set(0)
    with pytest.raises(ValueError, match=r"'layers'.*zeros"):
        jt.hyperball(0.02, axes=jt.MatrixAxes(1, 2)).init({"layers": stack})


def test_it_ends_a_visible_chain() -> None:
    params = {"up": {"kernel": jnp.asarray(drawn(0)["a matrix"], jnp.float32)}}
    gradients = {"up": {"kernel": jnp.asarray(drawn(1)["a matrix"], jnp.float32)}}
    chain = optax.chain(jt.scale_by_muon(), jt.hyperball(0.02))
    ready = jt.muonh(0.02)
    expected, updates = (tx.update(gradients, tx.init(params), params)[0] for tx in (chain, ready))
    np.testing.assert_array_equal(updates["up"]["kernel"], expected["up"]["kernel"])


def test_wrong_calls_are_named() -> None:
    params = {"up": {"kernel": jnp.ones((4, 6))}}
    tx = jt.hyperball(0.02)
    with pytest.raises(ValueError, match="params"):
        tx.update(params, tx.init(params))
    with pytest.raises(ValueError, match="learning_rate"):
        jt.hyperball(-1.0)
    with pytest.raises(ValueError, match="'bias'"):
        tx.init({"bias": jnp.ones(3)})
    other = jt.multi_transform({"matrix": tx}, {"up/kernel": jt.MatrixAxes(1, 0)})
    with pytest.raises(ValueError, match=r"'up/kernel'.*hyperball"):
        other.update(params, other.init(params), params)
