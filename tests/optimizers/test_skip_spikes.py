"""A step far above its predecessors is left out, as if it had never been."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_tour as jt
from tests.contenders import make_params

PARAMS = {"up": {"kernel": jnp.ones((4, 6)), "bias": jnp.ones(6)}}


def gradients_of(norms: Any) -> Any:
    """A stack of gradients with these norms."""
    rng = np.random.default_rng(1)
    flat = rng.standard_normal((len(norms), 30))
    flat *= (np.asarray(norms) / np.linalg.norm(flat, axis=1))[:, None]
    flat = flat.astype(np.float32)
    return {"up": {"kernel": flat[:, :24].reshape(-1, 4, 6), "bias": flat[:, 24:]}}


def trained(tx: Any, gradients: Any, params: Any = PARAMS) -> tuple[Any, Any, Any]:
    """Parameters and state at the end, and whether each step moved something."""

    def step(carry: Any, g: Any) -> Any:
        params, state = carry
        updates, state = tx.update(g, state, params)
        return (optax.apply_updates(params, updates), state), jnp.any(updates["up"]["bias"] != 0)

    (params, state), moved = jax.jit(lambda g: jax.lax.scan(step, (params, tx.init(params)), g))(gradients)
    return params, state, moved


def reference(norms: Any, window: int, sigmas: float) -> np.ndarray:
    """Which steps are taken, by the definition, in float64."""
    kept: list[float] = []
    taken = []
    for norm in norms:
        past = kept[-window:]
        limit = np.mean(past) + sigmas * np.std(past, ddof=1) if len(past) >= window // 2 else np.inf
        taken.append(np.isfinite(norm) and norm <= limit)
        kept += [norm] if np.isfinite(norm) else []
    return np.array(taken)


@pytest.mark.parametrize(("window", "sigmas"), [(4, 1.5), (9, 3.0)])
def test_it_skips_what_the_definition_skips(window: int, sigmas: float):
    norms = np.random.default_rng(0).lognormal(sigma=0.8, size=200)
    norms[[20, 80, 81]] = np.nan, np.inf, 50
    tx = jt.skip_spikes(optax.sgd(0.1), window=window, sigmas=sigmas)
    _, state, moved = trained(tx, gradients_of(norms))
    np.testing.assert_array_equal(moved, reference(norms, window, sigmas))
    assert 5 < state.skipped_count == np.sum(~moved) < 100


@pytest.mark.parametrize(
    "inner",
    [jt.adamw(0.1, weight_decay=0.5), pytest.param(jt.muon(0.1), marks=pytest.mark.slow)],
    ids=["adamw", "muon"],
)
def test_a_skipped_step_leaves_no_trace(inner: Any):
    gradients = gradients_of(1 + 0.1 * np.random.default_rng(0).standard_normal(12))
    spikes = np.float32([1e3, 1e30, np.inf, np.nan])
    spoiled = jax.tree.map(lambda g: np.stack([np.insert(g, 10, g[10] * s, axis=0) for s in spikes]), gradients)
    tx = jt.skip_spikes(inner, window=8)
    params, state, moved = jax.vmap(lambda g: trained(tx, g))(spoiled)
    np.testing.assert_array_equal(np.argwhere(~moved), [[i, 10] for i in range(4)])
    np.testing.assert_array_equal(state.skipped_count, 1)
    clean_params, clean_state, _ = trained(tx, gradients)
    for i in range(4):  # up to the rounding of another program
        final = jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i], (params, state.inner_state))
        chex.assert_trees_all_close(final, (clean_params, clean_state.inner_state), rtol=1e-5)


def test_without_spikes_it_is_its_inner_transformation():
    gradients = gradients_of(1 + 0.1 * np.random.default_rng(0).standard_normal(20))
    params, state, _ = trained(jt.skip_spikes(jt.adamw(0.1), window=8), gradients)
    expected_params, expected, _ = trained(jt.adamw(0.1), gradients)
    chex.assert_trees_all_close((params, state.inner_state), (expected_params, expected), rtol=1e-6)


def test_a_lasting_rise_is_skipped_for_four_steps_by_default():
    norms = np.tile([0.99, 1.01], 100)
    norms[130:] *= 10
    _, _, moved = trained(jt.skip_spikes(optax.sgd(0.1)), gradients_of(norms))
    np.testing.assert_array_equal(np.flatnonzero(~moved), [130, 131, 132, 133])


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_scale_of_the_loss_does_not_matter(scale: float):
    norms = np.random.default_rng(0).lognormal(sigma=0.8, size=60)
    moved = [
        trained(jt.skip_spikes(optax.sgd(1.0), window=8, sigmas=2.0), gradients_of(x))[2]
        for x in (norms, norms * scale)
    ]
    np.testing.assert_array_equal(*moved)
    assert not moved[0].all()


def test_equal_norms_are_no_spikes():
    gradients = jax.tree.map(lambda p: jnp.broadcast_to(p / 3, (40, *p.shape)), PARAMS)
    assert trained(jt.skip_spikes(optax.sgd(0.1), window=8), gradients)[2].all()
    zeros = jax.tree.map(jnp.zeros_like, gradients)
    assert trained(jt.skip_spikes(optax.sgd(0.1), window=8), zeros)[1].skipped_count == 0


def test_the_count_never_ends_and_a_full_window_stays_full():
    tx = jt.skip_spikes(optax.sgd(0.1), window=8)
    top = np.iinfo(np.int32).max // 8 * 8
    state = tx.init(PARAMS)._replace(norms=jnp.arange(8.0), norm_count=jnp.asarray(top - 1, jnp.int32))
    _, state = jax.jit(tx.update)(jax.tree.map(lambda g: g[0], gradients_of([5.0])), state)
    assert state.norm_count == 8
    np.testing.assert_allclose(state.norms, [0, 1, 2, 3, 4, 5, 6, 5])


def test_it_keeps_dtypes_and_structure_and_passes_arguments_on():
    params = {**make_params(jnp.bfloat16), "none": None, "hole": optax.MaskedNode()}
    gradients = jax.tree.map(lambda p: p.astype(jnp.float32), params)
    inner = optax.GradientTransformationExtraArgs(
        jt.adamw(0.1).init, lambda u, s, p, *, value: jt.adamw(0.1).update(jax.tree.map(lambda g: g * value, u), s, p)
    )
    tx = jt.skip_spikes(inner)
    state = tx.init(params)
    updates, after = jax.jit(tx.update)(gradients, state, params, value=2.0)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)


def test_derivatives_through_skipped_steps_are_finite():
    gradients = gradients_of([1.0, 1.1, np.nan, 1.2, np.inf, 1.0])

    def final(rate: Any) -> Any:
        params, _, _ = trained(jt.skip_spikes(jt.adamw(rate), window=4), gradients)
        return params["up"]["bias"].sum()

    derivative = jax.grad(final)(0.1)
    assert np.isfinite(derivative) and derivative != 0


def test_it_composes_and_lowers_for_every_platform():
    tx = optax.MultiSteps(jt.skip_spikes(optax.chain(optax.clip_by_global_norm(0.1), jt.adamw(0.1))), 2)
    step = jax.jit(tx.update)
    exported = jax.export.export(step, platforms=["cpu", "cuda", "tpu"])(PARAMS, tx.init(PARAMS), PARAMS)
    assert exported.platforms == ("cpu", "cuda", "tpu")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"inner": 3}, "inner"),
        ({"window": 3}, "window"),
        ({"window": 8.0}, "window"),
        ({"window": True}, "window"),
        ({"sigmas": -1.0}, "sigmas"),
        ({"sigmas": "six"}, "sigmas"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], named: str):
    with pytest.raises(ValueError, match=named):
        jt.skip_spikes(**{"inner": optax.sgd(0.1), **arguments})
