"""Momentum in int8 and in bfloat16: what is rounded, how far, and that nothing else changes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_tour as jt
from tests.agreement import STEPS, follow

WEIGHT = {"blocks": {"0": {"up": {"kernel": jnp.zeros((64, 96))}}}}


def rounded_by_hand(m: np.ndarray, block: int) -> np.ndarray:
    """Every block of every row as whole multiples of a 127th of its largest entry."""
    blocks = m.reshape(*m.shape[:-1], -1, block)
    scale = np.abs(blocks).max(axis=-1, keepdims=True) / 127
    return (scale * np.round(blocks / np.where(scale == 0, 1, scale))).reshape(m.shape)


@pytest.mark.parametrize("form", ["ema", "sum"])
def test_int8_momentum_is_momentum_that_is_rounded_after_every_step(form: Any, x64: None) -> None:
    rng = np.random.default_rng(0)
    theta, gradients = rng.normal(size=(3, 8)), rng.normal(size=(STEPS, 3, 8))
    gradients[:, 1, :4] = 0  # a block of zeros
    tx = jt.with_int8_momentum(jt.momentum(0.1, form=form, nesterov=True), block_size=4, min_size=1)
    w, m, expected = (0.1 if form == "ema" else 1.0), np.zeros_like(theta), []
    path = jax.jit(lambda p, g: follow(tx, p, g))(theta, gradients)
    for g in gradients:
        m = 0.9 * m + w * g
        theta, m = theta - 0.1 * (0.9 * m + w * g), rounded_by_hand(m, 4)
        expected.append(theta)
    np.testing.assert_allclose(path, expected, rtol=1e-9, atol=1e-12)


def test_int8_is_off_by_half_a_unit_at_most_and_passes_nan() -> None:
    tx = jt.with_int8_momentum(jt.momentum(0.1), block_size=32)
    m = np.float32(np.random.default_rng(0).standard_cauchy((64, 96)))  # outliers
    m[3, 40] = np.nan
    weight = jnp.zeros((64, 96))
    state = jax.jit(tx.update)(m, tx.init(weight))[1]
    assert state.scales["1/trace"].shape == (64, 3)
    # A zero gradient gives what was stored, times beta.
    stored = -10 * np.asarray(jax.jit(tx.update)(weight, state)[0]) / 0.9
    blocks, found = m.reshape(64, 3, 32), stored.reshape(64, 3, 32)
    assert np.isnan(found[3, 1]).all() and np.isnan(found).sum() == 32
    largest = np.abs(blocks).max(axis=-1, keepdims=True)
    ok = ~np.isnan(largest[..., 0])
    # 1/254, and float32's rounding of numbers of the largest's size.
    assert (np.abs(blocks - found) <= (1 / 254 + 1e-6) * largest)[ok].all()


def test_only_momenta_are_stored_in_fewer_bits_and_their_bytes_are_as_said() -> None:
    params = {"blocks": {"0": {"up": {"kernel": jnp.zeros((64, 4096)), "bias": jnp.zeros(64)}}}}

    def bytes_of(tx: Any) -> float:
        leaves = [x for x in jax.tree.leaves(jax.eval_shape(tx.init, params)) if x.shape[:1] == (64,) and x.ndim > 1]
        return sum(x.size * x.dtype.itemsize for x in leaves) / (64 * 4096)

    for inner, in_int8, in_bfloat16 in (
        (jt.muon(0.1), 1.002, 2.0),
        (jt.dion2(0.1), 1.002, 2.0),
        (optax.adamw(0.1), 5.002, 6.0),
        (jt.adamw(0.1), 5.002, 6.0),
        (optax.chain(optax.clip(1.0), optax.trace(0.9)), 1.002, 2.0),
    ):
        assert abs(bytes_of(jt.with_int8_momentum(inner)) - in_int8) < 1e-3
        assert bytes_of(jt.with_bfloat16_momentum(inner, 0)) == in_bfloat16
    state = jax.eval_shape(jt.with_int8_momentum(jt.adamw(0.1)).init, params)
    assert state.inner_state[0].nu["blocks"]["0"]["up"]["kernel"].dtype == jnp.float32
    assert state.inner_state[0].mu["blocks"]["0"]["up"]["bias"].dtype == jnp.float32  # small


def test_gradients_near_a_bfloat16_momentum_move_it_on_average() -> None:
    """One that is rounded to nearest stands still."""
    ones = jnp.ones((64, 64))

    def momentum_of(tx: Any) -> Any:
        state = jax.tree.map(lambda x: jnp.ones_like(x) if x.shape == ones.shape else x, tx.init(ones))
        state = jax.lax.scan(lambda state, g: (tx.update(g * ones, state)[1], None), state, jnp.full(25, 0.97))[0]
        return next(jnp.float32(x) for x in jax.tree.leaves(state) if x.shape == ones.shape)

    def make(**options: Any) -> Any:
        return jt.scale_by_momentum(0.96, form="ema", **options)

    exact, at_random, to_nearest = jax.jit(
        lambda: list(map(momentum_of, (make(), jt.with_bfloat16_momentum(make(), 0), make(mu_dtype="bfloat16"))))
    )()
    assert exact.mean() < 0.985
    # 4,096 entries; each is off by a few spacings of 2^-8.
    assert abs(at_random.mean() - exact.mean()) < 6 * 3 * 2.0**-8 / 64
    assert np.unique(at_random).size > 1
    np.testing.assert_array_equal(to_nearest, 1)


def test_the_same_key_gives_the_same_bits_and_layers_differ() -> None:
    params = {"0": {"up": {"kernel": jnp.ones((8, 8))}}, "1": {"up": {"kernel": jnp.ones((8, 8))}}}
    g = jax.tree.map(lambda p: 0.123 * p, params)

    @jax.jit
    def momenta(seed: Any) -> Any:
        tx = jt.with_bfloat16_momentum(jt.scale_by_momentum(), jax.random.key(seed))
        return tx.update(g, tx.init(params))[1].inner_state.trace

    first, again, other = (jax.tree.leaves(momenta(seed)) for seed in (0, 0, 1))
    assert first[0].dtype == jnp.bfloat16
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert not (first[0] == other[0]).all()
    assert not (first[0] == first[1]).all()


@pytest.mark.parametrize("wrap", [jt.with_int8_momentum, lambda tx: jt.with_bfloat16_momentum(tx, 0)])
def test_a_run_goes_on_with_and_without(wrap: Any) -> None:
    make = lambda: jt.muon(0.1, orthogonalizer=((1.5, -0.5, 0.0),))  # noqa: E731
    gradient = jax.tree.map(lambda p: jnp.float32(np.random.default_rng(0).normal(size=p.shape)), WEIGHT)
    plain, narrow = make(), wrap(make())
    state = jax.jit(lambda: plain.update(gradient, plain.init(WEIGHT), WEIGHT)[1])()
    there = jt.migrate_state(state, narrow, WEIGHT)
    again = jt.migrate_state(there.state, wrap(make()), WEIGHT)
    back = jt.migrate_state(again.state, plain, WEIGHT)
    for migration in (there, again, back):
        assert [line.outcome for line in migration.report.lines if line.parameter == "blocks/0/up/kernel"] == ["kept"]
    jax.eval_shape(narrow.update, gradient, there.state, WEIGHT)  # its dtypes are those of the optimizer
    moment, found = (s.inner_states["matrix"][0][0].mu["blocks"]["0"]["up"]["kernel"] for s in (state, back.state))
    np.testing.assert_allclose(found, moment, atol=0.01 * float(jnp.abs(moment).max()))


def test_the_monitor_belongs_inside() -> None:
    with pytest.raises(ValueError, match=r"with_int8_momentum\(jt.monitored"):
        jt.monitored(jt.with_int8_momentum(jt.momentum(0.1))).init(WEIGHT)
    inside = jt.with_int8_momentum(jt.monitored(jt.momentum(0.1)))
    state = jax.jit(lambda g: inside.update(g, inside.init(WEIGHT), WEIGHT)[1])(WEIGHT)
    assert state.inner_state.inner_state[1].trace["blocks"]["0"]["up"]["kernel"].dtype == jnp.int8


def test_wrong_calls_are_named() -> None:
    for arguments in ({"block_size": 0}, {"min_size": 1.5}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            jt.with_int8_momentum(jt.momentum(0.1), **arguments)
    with pytest.raises(ValueError, match="key must be a key"):
        jt.with_bfloat16_momentum(jt.momentum(0.1), None)
    with pytest.raises(ValueError, match=r"'blocks/0/up/kernel'.*float32"):
        jt.with_bfloat16_momentum(jt.momentum(0.1), 0).init(jax.tree.map(jnp.bfloat16, WEIGHT))
    state = jt.with_int8_momentum(jt.momentum(0.1)).init(WEIGHT)
    as_dicts = jax.tree.map(
        lambda x: x, {"scales": state.scales, "inner_state": [x._asdict() for x in state.inner_state]}
    )
    with pytest.raises(ValueError, match=r"'blocks/0/up/kernel'.*target"):
        jt.migrate_state(as_dicts, jt.momentum(0.1), WEIGHT)
