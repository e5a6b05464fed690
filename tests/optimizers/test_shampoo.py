"""Shampoo against its algorithm in NumPy, as Muon without accumulation, and at every size of gradient."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_tour as jt
from tests.matrix_references import shampoo_by_hand

AXES = jt.MatrixAxes(0, 1)


def draws(shape: tuple[int, ...], steps: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(steps, *shape))


def follow(tx: optax.GradientTransformation) -> Callable[[Any], np.ndarray]:
    """A compiled function from one parameter's gradients, stacked, to its updates."""

    @jax.jit
    def updates(gradients: Any) -> Any:
        params = {"w": jnp.zeros_like(gradients[0])}

        def body(state: Any, g: Any) -> tuple[Any, Any]:
            u, state = tx.update({"w": g}, state, params)
            return state, u["w"]

        return jax.lax.scan(body, tx.init(params), gradients)[1]

    return lambda gradients: np.asarray(updates(jnp.asarray(gradients)))


def updates_of(tx: optax.GradientTransformation, gradients: Any) -> np.ndarray:
    return follow(tx)(gradients)


@pytest.mark.parametrize(
    ("b2", "root", "bias_correction"), [(None, 4, True), (None, 2, True), (0.9, 4, True), (0.9, 2, False)]
)
def test_the_published_algorithm(b2: float | None, root: int, bias_correction: bool, x64: None) -> None:
    gradients = draws((3, 5), 6)
    tx = jt.scale_by_shampoo(b2, root=root, eps=1e-4, bias_correction=bias_correction, axes=AXES)
    expected = shampoo_by_hand(gradients, b2, root, 1e-4, bias_correction)
    np.testing.assert_allclose(updates_of(tx, gradients), expected, atol=1e-9)  # float64, condition numbers up to 1e4


@pytest.mark.slow
def test_without_accumulation_it_is_the_polar_factor(x64: None) -> None:
    g = {"w": jnp.asarray(draws((4, 7), 1)[0])}
    shampoo = jt.scale_by_shampoo(0.0, eps=0.0, axes=AXES)
    exact = jt.orthogonalize_via_newton_schulz("exact", axes=AXES)
    ours, _ = shampoo.update(g, shampoo.init(g))
    expected, _ = exact.update(g, exact.init(g))
    np.testing.assert_allclose(ours["w"], expected["w"], atol=1e-10)  # eigenvalues are squares of singular values


@pytest.mark.slow
def test_without_accumulation_the_optimizer_is_muon(x64: None) -> None:
    # Through its momentum and for every kind of parameter: a vector, an attention kernel, a fused projection whose
    # pieces differ in width, layers that are scanned.
    params = {
        "up": {"kernel": jnp.ones((6, 4)), "bias": jnp.ones(4)},
        "heads": {"kernel": jnp.ones((3, 5, 5))},
        "fused": {"kernel": jnp.ones((4, 7))},
        "layers": {"kernel": jnp.ones((2, 3, 5))},
    }
    routing = {
        "heads": jt.MatrixAxes(1, 2),
        "fused": jt.MatrixAxes(0, 1, split=(3, 2, 2)),
        "layers": jt.MatrixAxes(1, 2),
    }
    ours = jt.shampoo(0.1, b2=0.0, eps=0.0, routing=routing)
    muon = jt.muon(0.1, orthogonalizer="exact", routing=routing)
    shampoo_state, muon_state = ours.init(params), muon.init(params)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        grads = jax.tree.map(lambda leaf, rng=rng: jnp.asarray(rng.normal(size=leaf.shape)), params)
        first, shampoo_state = jax.jit(ours.update)(grads, shampoo_state, params)
        second, muon_state = jax.jit(muon.update)(grads, muon_state, params)
        # Sums of outer products cost half the digits of the smallest singular value.
        chex.assert_trees_all_close(first, second, atol=1e-7)


@pytest.mark.slow
def test_the_first_update_has_singular_values_of_one_whatever_the_decay() -> None:
    for b2 in (0.0, 0.5, 0.999, None):
        (u,) = updates_of(jt.scale_by_shampoo(b2, axes=AXES), draws((3, 5), 1).astype(np.float32))
        # The ridge of 1e-6 of the trace, at a condition number below 10 of G G^T, and float32.
        np.testing.assert_allclose(np.linalg.svd(u, compute_uv=False), 1.0, atol=1e-4)


@pytest.mark.parametrize("arguments", [{}, {"b2": None}, {"update_every": 2}], ids=str)
def test_the_size_of_the_loss_changes_nothing(arguments: dict) -> None:
    gradients = draws((3, 5), 4).astype(np.float32)
    updates = follow(jt.scale_by_shampoo(axes=AXES, **arguments))
    expected = updates(gradients)
    for factor in np.float32(2.0) ** np.array([-100, -40, 60, 120], np.float32):
        # A power of two changes no rounding; eigendecompositions see the same numbers.
        np.testing.assert_allclose(updates(gradients * factor), expected, rtol=1e-5, atol=1e-6)


def test_at_root_two_the_update_goes_with_one_over_the_gradient() -> None:
    gradients = draws((3, 5), 3).astype(np.float32)
    updates = follow(jt.scale_by_shampoo(root=2, axes=AXES))
    expected = updates(gradients)
    for factor in np.float32(2.0) ** np.array([-100, 100], np.float32):
        np.testing.assert_allclose(updates(gradients * factor) * factor, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_huge_gradient_is_forgotten_at_the_rate_of_its_decay(x64: None) -> None:
    # In float64, whose range needs no care, NumPy says what the state must hold after a gradient 1e15 times the others.
    gradients = draws((3, 4), 120)
    gradients[0] *= 1e15
    expected = shampoo_by_hand(gradients, 0.5, 4, 1e-6)
    tx = jt.scale_by_shampoo(0.5, axes=AXES)
    # 1e30 decays by half a step: after 120 steps nothing is left, in float32 as in float64.
    found = updates_of(tx, gradients.astype(np.float32))
    np.testing.assert_allclose(found[-1], expected[-1], atol=1e-3)
    np.testing.assert_allclose(updates_of(tx, gradients)[-1], expected[-1], atol=1e-9)
    assert np.all(np.isfinite(found))


def test_roots_are_kept_between_their_updates(x64: None) -> None:
    tx = jt.scale_by_shampoo(update_every=3, axes=AXES)
    state = tx.init({"w": jnp.zeros((2, 3))})
    seen = []
    for g in draws((2, 3), 7):
        _, state = jax.jit(tx.update)({"w": jnp.asarray(g)}, state)
        seen.append(np.asarray(state.left_root["w"]))
    changed = [bool(np.any(a != b)) for a, b in itertools.pairwise(seen)]
    assert changed == [False, False, True, False, False, True]
    assert jt.scale_by_shampoo(axes=AXES).init({"w": jnp.zeros((2, 3))}).left_root is None


def test_integers_may_be_injected_and_traced() -> None:
    gradients = draws((2, 3), 5).astype(np.float32)
    arguments = {"b2": 0.5, "root": 3, "update_every": 2}
    injected = optax.inject_hyperparams(jt.scale_by_shampoo)(axes=AXES, **arguments)
    expected = updates_of(jt.scale_by_shampoo(axes=AXES, **arguments), gradients)
    # Injected numbers are float32 arrays.
    np.testing.assert_allclose(updates_of(injected, gradients), expected, rtol=1e-4, atol=1e-6)


def test_one_program_serves_many_roots() -> None:
    gradients = draws((2, 3), 5).astype(np.float32)
    many = jax.vmap(lambda root: follow_traced(root, gradients))(jnp.array([3.0, 4.0]))
    alone = updates_of(jt.scale_by_shampoo(0.5, root=3, axes=AXES), gradients)
    # Two programs with one meaning, float32, condition numbers up to 1e2.
    np.testing.assert_allclose(many[0], alone, rtol=1e-4, atol=1e-6)


def follow_traced(root: Any, gradients: np.ndarray) -> jax.Array:
    tx = jt.scale_by_shampoo(0.5, root=root, axes=AXES)
    params = {"w": jnp.zeros_like(gradients[0])}
    return jax.lax.scan(lambda state, g: tx.update({"w": g}, state)[::-1], tx.init(params), jnp.asarray(gradients))[1][
        "w"
    ]


def test_a_state_on_disk_says_what_it_is() -> None:
    params = {"kernel": jnp.zeros((3, 2, 4)), "fused": jnp.zeros((4, 7))}
    axes = {"kernel": jt.MatrixAxes(0, (1, 2)), "fused": jt.MatrixAxes(0, 1, split=(3, 2, 2))}
    state = jt.scale_by_shampoo(axes=axes, update_every=5).init(params)
    assert {name: leaf.shape for name, leaf in state.left.items()} == {"kernel": (1, 1, 3, 3), "fused": (1, 3, 4, 4)}
    assert {name: leaf.shape for name, leaf in state.right.items()} == {"kernel": (1, 1, 8, 8), "fused": (1, 3, 3, 3)}
    assert {leaf.shape[-2:] for leaf in state.scale.values()} == {(1, 1)}


def test_its_own_chain_gets_the_axes_from_multi_transform() -> None:
    params = {"h": {"kernel": jnp.ones((3, 2, 4)), "bias": jnp.ones(4)}}
    routing = {"h/kernel": jt.MatrixAxes((0, 1), 2)}
    rest = jt.sgd(0.1)
    tx = jt.multi_transform({"matrix": lambda axes: jt.scale_by_shampoo(axes=axes), "other": rest}, routing)
    state = tx.init(params)
    u, _ = jax.jit(tx.update)(params, state, params)
    assert optax.tree.get(state, "left")["h"]["kernel"].shape == (1, 1, 6, 6)
    chex.assert_trees_all_equal_shapes(u, params)
    # Without them it can only go by name, and says so where that is another reading.
    with pytest.raises(ValueError, match=r"h/kernel.*is no matrix"):
        jt.multi_transform({"matrix": jt.scale_by_shampoo(), "other": rest}, routing).init(params)
    turned = {"h": {"kernel": jnp.ones((3, 4))}}
    blind = jt.multi_transform({"matrix": jt.scale_by_shampoo()}, {"h/kernel": jt.MatrixAxes(1, 0)})
    with pytest.raises(ValueError, match=r"'h/kernel' is routed as .*lambda axes"):
        blind.update(turned, blind.init(turned), turned)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"b2": 1.0}, "b2"),
        ({"root": 1}, "root must be a number >= 2"),
        ({"root": "4"}, "root"),
        ({"root": float("inf")}, "root"),
        ({"eps": -1.0}, "eps"),
        ({"bias_correction": 1}, "bias_correction"),
        ({"update_every": 0}, "update_every must be an integer >= 1"),
        ({"update_every": 1.5}, "update_every"),
        ({"update_every": True}, "update_every"),
        ({"update_every": max}, "update_every"),
        ({"nu_dtype": "bfloat16"}, "nu_dtype"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(arguments: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        jt.scale_by_shampoo(**arguments)
    with pytest.raises(ValueError, match=named):
        jt.shampoo(1e-3, **arguments)


def test_what_is_no_matrix_is_named() -> None:
    with pytest.raises(ValueError, match="bias"):
        jt.scale_by_shampoo(axes=AXES).init({"bias": jnp.zeros(3)})
