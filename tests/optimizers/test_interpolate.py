"""A mixture of two transformations is either of them at its ends, and both go on throughout."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_tour as jt

PARAMS = {"w": jnp.array([[1.0, -2.0, 3.0], [0.5, 0.0, -1.0]]), "b": jnp.array(2.0)}


def gradients(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), p.dtype), PARAMS)


def follow(tx: optax.GradientTransformation, steps: int = 6) -> list[Any]:
    """The updates under gradients that do not depend on them."""
    state, found, update = tx.init(PARAMS), [], jax.jit(tx.update)
    for seed in range(steps):
        u, state = update(gradients(seed), state, PARAMS)
        found.append(u)
    return found


def test_it_hands_over_and_back_and_both_advance_at_every_step() -> None:
    schedule = jnp.array([0.0, 0.0, 1.0, 1.0, 0.25, 0.0])
    first, second = jt.adam(0.1), jt.momentum(0.01)
    mixed = follow(jt.interpolate(first, second, lambda count: schedule[count]))
    for w, u, a, b in zip(schedule, mixed, follow(first), follow(second), strict=True):
        if w in (0, 1):
            chex.assert_trees_all_equal(u, b if w else a)  # exactly, and as if it had been alone all the time
        else:
            # Two products and a sum in float32.
            chex.assert_trees_all_close(u, jax.tree.map(lambda a, b, w=w: (1 - w) * a + w * b, a, b), rtol=1e-6)


@pytest.mark.parametrize("bad", [jnp.inf, -jnp.inf, jnp.nan])
def test_at_an_end_the_other_may_be_infinite(bad: float) -> None:
    broken = optax.stateless(lambda updates, _: jax.tree.map(lambda u: jnp.full_like(u, bad), updates))
    sound = optax.identity()
    g = gradients(0)
    for tx in (jt.interpolate(sound, broken, 0.0), jt.interpolate(broken, sound, lambda _: 1.0)):
        chex.assert_trees_all_equal(tx.update(g, tx.init(PARAMS))[0], g)
    between = jt.interpolate(sound, broken, 0.5)
    assert not np.any(np.isfinite(between.update(g, between.init(PARAMS))[0]["w"])), "an overflow is to be seen"


def test_the_derivative_with_respect_to_the_weight_is_the_difference_at_the_ends_too() -> None:
    g = gradients(0)

    def first_entry(w: Any) -> jax.Array:
        tx = jt.interpolate(optax.scale(2.0), optax.scale(5.0), w)
        return tx.update(g, tx.init(PARAMS))[0]["w"][0, 0]

    for w in (0.0, 0.3, 1.0):
        np.testing.assert_allclose(jax.grad(first_entry)(w), 3 * g["w"][0, 0], rtol=1e-6)


def test_vmap_over_weights() -> None:
    def run(w: Any) -> Any:
        return follow(jt.interpolate(jt.adam(0.1), jt.momentum(0.01), w), 2)[-1]

    batch = jax.vmap(run)(jnp.array([0.0, 0.5]))
    for i, w in enumerate((0.0, 0.5)):
        # Two programs with one meaning, float32.
        chex.assert_trees_all_close(jax.tree.map(lambda u, i=i: u[i], batch), run(w), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_the_updates_keep_their_dtype(dtype: str) -> None:
    params = jax.tree.map(lambda p: p.astype(dtype), PARAMS)
    for weight in (0.5, jnp.float32(0.5), lambda count: jnp.float32(0.5)):
        tx = jt.interpolate(jt.adam(0.1), jt.sgd(0.1), weight)
        u, _ = tx.update(params, tx.init(params), params)
        chex.assert_trees_all_equal_dtypes(u, params)


def test_extra_arguments_reach_both() -> None:
    def record(name: str, seen: list[Any]) -> optax.GradientTransformationExtraArgs:
        def update(updates: Any, state: Any, params: Any = None, *, value: Any, **extra: Any) -> Any:
            seen.append((name, value, sorted(extra)))
            return updates, state

        return optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)

    seen: list[Any] = []
    tx = jt.interpolate(record("first", seen), record("second", seen), 0.5)
    tx.update(PARAMS, tx.init(PARAMS), PARAMS, value=3, matrix_axes={})
    assert seen == [("first", 3, ["matrix_axes"]), ("second", 3, ["matrix_axes"])]
    # And a transformation that takes none is asked for none.
    plain = jt.interpolate(jt.sgd(0.1), record("second", seen), 0.5)
    plain.update(PARAMS, plain.init(PARAMS), PARAMS, value=4)


def test_it_mixes_trees_with_holes_and_whole_optimizers() -> None:
    # Muon inside hands axes to its own parts; a parameter without a gradient stays without an update.
    params = {"up": {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)}, "frozen": None}
    tx = jt.interpolate(jt.muon(0.1), jt.adamw(0.1), 0.5)
    u, _ = jax.jit(lambda p: tx.update(p, tx.init(p), p))(params)
    assert jax.tree.structure(u) == jax.tree.structure(params)


@pytest.mark.parametrize("weight", [-0.1, 1.5, float("nan"), float("inf"), "half", None, True, np.ones(2)], ids=repr)
def test_a_wrong_weight_is_named(weight: Any) -> None:
    with pytest.raises(ValueError, match=r"weight must be a number with 0 <= weight <= 1 or a schedule"):
        jt.interpolate(jt.sgd(0.1), jt.adam(0.1), weight)


def test_what_is_no_transformation_is_named() -> None:
    with pytest.raises(ValueError, match="first"):
        jt.interpolate(jt.sgd, jt.adam(0.1), 0.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="second"):
        jt.interpolate(jt.sgd(0.1), 0.1, 0.5)  # type: ignore[arg-type]
