"""Metrics are what NumPy computes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_tour as jt
from jaxopt_tour.state.measure import polar_error, stable_rank
from tests.contenders import make_params
from tests.state.monitored_model import DECAY, DOWN, RATE, UP, flat, model, norm, short_muon, updated


def test_every_number_is_numpys(step: tuple[Any, Any, Any]):
    params, (g, u, after) = model(), step
    measured = jt.metrics(after)
    after = after.inner_state.inner_state
    up, w = np.asarray(u["blocks"]["0"]["up"]["kernel"], np.float64), np.asarray(params["blocks"]["0"]["up"]["kernel"])
    m = np.asarray(after.inner_states["matrix"][0][0].mu["blocks"]["0"]["up"]["kernel"], np.float64)
    decay = -RATE * DECAY * w
    orthogonal = np.linalg.svd(up - decay, compute_uv=False) ** 2
    expected = {
        f"update_rms/{UP}": np.sqrt(np.mean(up**2)),
        f"update_ratio/{UP}": norm(up) / norm(w),
        f"gradient_norm/{UP}": norm(g["blocks"]["0"]["up"]["kernel"]),
        f"momentum_norm/{UP}": norm(m),
        f"decay_share/{UP}": norm(decay) / (norm(decay) + norm(up - decay)),
        f"vanished/{UP}": 0.0,
        f"stable_rank/{UP}": norm(m) ** 2 / np.linalg.norm(m, 2) ** 2,
        f"polar_error/{UP}": np.std(orthogonal) / np.mean(orthogonal) / 2,
        "update_rms_by_role/all": np.sqrt(np.mean(flat(u) ** 2)),
        "update_ratio_by_role/all": np.linalg.norm(flat(u)) / np.linalg.norm(flat(params)),
        "gradient_norm_by_role/embedding": norm(g["embed"]["embedding"]),
        "gradient_norm_by_role/matrix": np.linalg.norm(flat([layer["kernel"] for layer in g["blocks"]["0"].values()])),
        "measured_at": 1.0,
    }
    assert {key: measured[key] for key in expected} == pytest.approx(expected, rel=1e-3, abs=1e-7)
    assert measured["stable_rank_by_role/matrix"] == pytest.approx(
        np.mean([measured[f"stable_rank/{name}"] for name in (UP, DOWN)])
    )
    assert measured["polar_error_by_role/matrix"] == max(measured[f"polar_error/{name}"] for name in (UP, DOWN))


def test_matrices_alone_have_ranks_and_orthogonalized_ones_polar_errors():
    def names(tx: Any, metric: str) -> set[str]:
        keys = jt.metrics(jt.monitored(tx).init(model()))
        return {key.removeprefix(metric + "/") for key in keys if key.startswith(metric + "/")}

    assert names(short_muon(), "polar_error") == names(short_muon(), "stable_rank") & {UP, DOWN} == {UP, DOWN}
    assert names(optax.contrib.muon(1e-3), "polar_error") >= {UP, DOWN}
    assert not names(jt.adamw(1e-3), "polar_error") and names(jt.adamw(1e-3), "stable_rank") == {UP, DOWN}
    assert not names(optax.sgd(1e-3), "momentum_norm") and names(optax.sgd(1e-3, momentum=0.9), "momentum_norm")


def test_roles_are_those_of_the_optimizers_routing():
    chosen = {"blocks/0/down": "embedding"}
    keys = jt.metrics(jt.monitored(short_muon(routing=chosen)).init(model()))
    assert f"polar_error/{UP}" in keys and f"polar_error/{DOWN}" not in keys
    keys = jt.metrics(jt.monitored(optax.sgd(0.1), routing={"head": "position"}).init(model()))
    assert "update_rms_by_role/position" in keys and "update_rms_by_role/head" not in keys


@pytest.mark.parametrize(
    ("tx", "share"),
    [
        (optax.adamw(RATE, weight_decay=DECAY), True),
        (jt.adamw(lambda count: RATE, weight_decay=lambda count: DECAY), True),
        (optax.sgd(RATE), 0.0),
        (jt.adamw(RATE, weight_decay=DECAY, cautious=True), None),
        (jt.adam(RATE, l2=DECAY), None),
        (optax.lamb(RATE), None),
    ],
    ids=["optax", "schedules", "without decay", "cautious", "coupled", "trust ratio"],
)
def test_decay_is_told_apart_where_it_is_a_number_times_the_weights(tx, share):
    params = make_params()
    measured = jt.metrics(updated(jt.monitored(tx), params))
    key = "decay_share/up/kernel"
    if share is None:
        assert key not in measured
    elif share:
        d = RATE * DECAY * norm(params["up"]["kernel"])
        u = measured["update_rms/up/kernel"] * np.sqrt(24)
        assert d / (2 * u) < measured[key] < 2 * d / u
    else:
        assert measured[key] == share


def test_vanished_counts_the_entries_that_do_not_move():
    params = {"scale": jnp.asarray([1.0, 1.0, 0.01, 0.0], jnp.bfloat16)}
    g = {"scale": jnp.asarray([1.0, 0.0, 1.0, 1.0], jnp.bfloat16)}
    tx = jt.monitored(optax.sgd(1e-3))
    measured = jt.metrics(jax.jit(tx.update)(g, tx.init(params), params)[1])
    assert measured["vanished/scale"] == pytest.approx(1 / 3)  # of three entries with an update the first stays at 1


def test_stable_rank_is_close_from_above_and_the_accuracy_is_the_documented_one():
    """Within 20 % for Gaussian matrices, whose largest singular values are near each other, 1 % for decaying ones."""
    rng = np.random.default_rng(0)
    gaussian = rng.standard_normal((8, 96, 192))
    decaying = np.linalg.qr(rng.standard_normal((96, 96)))[0] * (1 + np.arange(96)) ** -1.0
    decaying = np.concatenate([decaying, np.zeros((96, 96))], axis=1)[None]
    edge = np.asarray([0, 1e-30, 1e30])[:, None, None] * np.ones((3, 96, 192))
    ranks = np.asarray(jax.jit(stable_rank)(jnp.asarray(np.concatenate([gaussian, decaying, edge]), jnp.float32)))
    exact = np.linalg.norm(gaussian, axis=(1, 2)) ** 2 / np.linalg.norm(gaussian, 2, axis=(1, 2)) ** 2
    assert (ranks[:8] > exact * (1 - 1e-5)).all() and (ranks[:8] < 1.2 * exact).all()
    np.testing.assert_allclose(ranks[8], np.sum((1 + np.arange(96)) ** -2.0), rtol=0.01)
    np.testing.assert_allclose(ranks[9:], [0, 1, 1], rtol=1e-5)


def test_polar_error_is_the_spread_of_the_singular_values():
    rng = np.random.default_rng(0)
    u, v = (np.linalg.qr(rng.standard_normal((n, 32)))[0] for n in (32, 64))
    s = 1 + 0.05 * rng.standard_normal(32)
    x = jnp.asarray((u * s) @ v.T, jnp.float32)
    spread = np.sqrt(np.mean((s / s.mean() - 1) ** 2))
    equal, half = (jnp.asarray((u * kept) @ v.T, jnp.float32) for kept in (np.ones(32), np.arange(32) < 16))
    stack = jnp.stack([x, 1e-20 * x, 1e20 * x, equal, half, jnp.zeros_like(x)])
    for matrices in (stack, stack.mT):
        errors = jax.jit(polar_error)(matrices)
        np.testing.assert_allclose(errors[:3], spread, rtol=0.02)
        np.testing.assert_allclose(errors[3:], [0, 0.5, 0], atol=1e-5)


def test_a_stack_of_layers_has_the_worst_polar_error_and_the_mean_rank():
    rng = np.random.default_rng(0)
    stack = jnp.asarray(rng.standard_normal((3, 4, 6)), jnp.float32).at[1].set(np.ones((4, 6)))
    tx = jt.monitored(short_muon(routing={"layers/kernel": jt.MatrixAxes(1, 2)}))
    params = {"layers": {"kernel": stack}}
    measured = jt.metrics(jax.jit(tx.update)(params, tx.init(params), params)[1])
    exact = np.linalg.norm(stack, axis=(1, 2)) ** 2 / np.linalg.norm(stack, 2, axis=(1, 2)) ** 2
    assert measured["stable_rank/layers/kernel"] == pytest.approx(exact.mean(), rel=0.05)
    assert measured["polar_error/layers/kernel"] == pytest.approx(0.5 * np.sqrt(3), rel=1e-2)  # one of four is not zero
