"""Least squares, quadratic and softmax regression against NumPy in double precision."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_tour as jt
from jaxopt_tour.problems.regression import (
    NOISE,
    RIDGE,
    class_counts,
    least_softmax_loss,
    linear_regression,
    matrix_quadratic,
    power_law,
    rotation,
    softmax_regression,
)

# Sums of some thousand products in single precision.
SINGLE = {"rtol": 2e-5, "atol": 1e-6}


def test_a_rotation_is_orthogonal() -> None:
    q = rotation(7, np.random.default_rng(1))
    np.testing.assert_allclose(q.T @ q, np.eye(7), atol=1e-14)


@pytest.mark.parametrize("aligned", [False, True])
def test_the_quadratic_has_the_spectrum_and_the_value_it_is_named_for(aligned: bool) -> None:
    workload = matrix_quadratic(2.0, aligned=aligned, fan_in=6, fan_out=4)
    data = workload.data()
    q = np.float64(data["root"]).T @ np.float64(data["root"])
    np.testing.assert_allclose(np.sort(np.linalg.eigvalsh(q))[::-1], power_law(6, 2.0), rtol=1e-5)
    assert np.allclose(q, np.diag(np.diag(q)), atol=1e-7) == aligned
    w = np.random.default_rng(2).standard_normal((6, 4))
    value, gradient = jax.value_and_grad(workload.loss)({"w": jnp.float32(w)}, data)
    np.testing.assert_allclose(value, 0.5 * np.trace(w.T @ q @ w), **SINGLE)
    np.testing.assert_allclose(gradient["w"], q @ w, **SINGLE)


def test_the_measure_is_one_at_the_start_on_average() -> None:
    for workload in (
        matrix_quadratic(1.0, fan_in=6, fan_out=4),
        matrix_quadratic(1.0, uneven=True, fan_in=6, fan_out=4),
        linear_regression(1.0, fan_in=6, fan_out=4),
    ):
        data = workload.data()
        params = jax.vmap(workload.init)(jax.random.split(jax.random.key(0), 4000))
        starts = jax.vmap(lambda w, data=data, workload=workload: workload.measure(w, data))(params)
        # One value spreads by less than its mean, so 4000 leave less than 1.6 %; three times that.
        assert abs(float(starts.mean()) - 1) < 0.05


def test_an_uneven_start_is_longer_along_some_outputs() -> None:
    workload = matrix_quadratic(0.0, uneven=True, fan_in=400, fan_out=4)
    values = np.linalg.svd(np.asarray(workload.init(jax.random.key(0))["w"]), compute_uv=False)
    # Columns of 400 entries are orthogonal and of length 1 up to about 1 / sqrt(400), three times that.
    np.testing.assert_allclose(values, power_law(4, 1.0), rtol=0.15)


def test_least_squares_finds_the_optimum_the_gap_and_the_noise() -> None:
    workload = linear_regression(1.0, 5, fan_in=6, fan_out=4, examples=50)
    data = {name: np.float64(value) for name, value in workload.data().items()}
    x, y = data["x"], data["y"]
    found, _, _, _ = np.linalg.lstsq(x, y, rcond=None)
    np.testing.assert_allclose(data["optimum"], found, rtol=1e-4, atol=1e-5)  # the data are single precision
    np.testing.assert_allclose(np.linalg.eigvalsh(x.T @ x / 50)[::-1], power_law(6, 1.0), rtol=1e-5)
    noise = np.sqrt(np.mean((y - x @ found) ** 2, axis=0))
    assert noise[-1] / noise[0] == pytest.approx(NOISE[1] / NOISE[0], rel=1e-4)
    signal = np.sqrt(np.mean((x @ found) ** 2))
    assert noise[-1] == pytest.approx(NOISE[1] * signal, rel=1e-4)

    def value(w: np.ndarray) -> float:
        return 0.5 * np.sum((x @ w - y) ** 2) / 50

    w = np.random.default_rng(3).standard_normal((6, 4))
    gap = (value(w) - value(found)) / data["start"]
    assert float(workload.measure({"w": jnp.float32(w)}, workload.data())) == pytest.approx(gap, rel=1e-4)


def test_the_full_batch_is_the_mean_over_all_examples_and_batches_are_unbiased() -> None:
    full, small = (linear_regression(1.0, batch, fan_in=6, fan_out=4, examples=50) for batch in (None, 5))
    params = full.init(jax.random.key(0))
    data = jax.tree.map(jnp.asarray, small.data())
    gradient = jax.grad(full.loss)(params, full.draw(full.data(), jax.random.key(1)))["w"]
    x, y = np.float64(data["x"]), np.float64(data["y"])
    np.testing.assert_allclose(gradient, x.T @ (x @ np.float64(params["w"]) - y) / 50, rtol=1e-4, atol=1e-5)
    keys = jax.random.split(jax.random.key(2), 4000)
    noisy = jax.vmap(lambda key: jax.grad(small.loss)(params, small.draw(data, key))["w"])(keys)
    spread = np.std(noisy, axis=0) / 4000**0.5
    assert np.all(np.abs(noisy.mean(axis=0) - gradient) < 5 * spread)  # five standard errors, 24 entries


def test_classes_are_balanced_or_follow_zipf() -> None:
    assert class_counts(4, 40, "balanced").tolist() == [10, 10, 10, 10]
    zipf = class_counts(32, 1024, "zipf")
    assert zipf.sum() == 1024
    shares = power_law(32, 1.0)
    assert np.all(np.abs(zipf - 1024 * shares / shares.sum()) <= 1)
    assert class_counts(30, 40, "zipf").tolist().count(0) == 0
    assert class_counts(30, 40, "zipf").sum() == 40


@pytest.mark.parametrize("kind", ["balanced", "zipf"])
def test_the_softmax_optimum_is_one(kind: str) -> None:
    workload = softmax_regression(kind, fan_in=5, classes=4, examples=60)
    data = workload.data()
    x, labels = np.float64(data["x"]), np.asarray(data["labels"])
    w, least = least_softmax_loss(x, labels, 4, RIDGE)

    def value(w: np.ndarray) -> float:
        logits = x @ w
        per_example = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(60), labels]
        return per_example.mean() + 0.5 * RIDGE * np.sum(w**2)

    assert value(w) == pytest.approx(least, abs=1e-12)
    # Convex: no direction may lead down, found here by differences rather than by the solver's own gradient.
    for _ in range(20):
        d = np.random.default_rng(4).standard_normal(w.shape)
        assert abs(value(w + 1e-5 * d) - value(w - 1e-5 * d)) / 2e-5 < 1e-8  # rounding of 1e-16 over 2e-5, and |G|
        assert value(w + 0.1 * d) > least
    assert float(workload.measure({"w": jnp.float32(w)}, data)) == pytest.approx(0, abs=1e-6)
    assert float(workload.measure({"w": jnp.zeros((5, 4))}, data)) == pytest.approx(1, abs=1e-6)
    random = np.random.default_rng(5).standard_normal(w.shape)
    gap = (value(random) - least) / (value(0 * w) - least)
    assert float(workload.measure({"w": jnp.float32(random)}, data)) == pytest.approx(gap, rel=1e-5)


def test_plain_gradient_descent_agrees_with_newton() -> None:
    rng = np.random.default_rng(6)
    x, labels = rng.standard_normal((40, 3)), rng.integers(3, size=40)
    w, least = least_softmax_loss(x, labels, 3, 0.1)
    slow = np.zeros((3, 3))
    for _ in range(2000):
        p = np.exp(x @ slow)
        p /= p.sum(axis=1, keepdims=True)
        slow -= 0.5 * (x.T @ (p - np.eye(3)[labels]) / 40 + 0.1 * slow)
    np.testing.assert_allclose(w, slow, atol=1e-8)
    assert least < np.log(3)


def test_every_workload_has_one_matrix_and_muon_takes_it() -> None:
    for workload in (
        matrix_quadratic(1.0, fan_in=6, fan_out=4),
        linear_regression(1.0, 5, fan_in=6, fan_out=4, examples=50),
        softmax_regression("zipf", 5, fan_in=5, classes=4, examples=60),
    ):
        params = workload.init(jax.random.key(0))
        route = jt.routing.resolve(workload.routing, params)["w"]
        assert route.label == "matrix"
        assert route.axes == jt.MatrixAxes(0, 1)
        value = workload.loss(params, workload.draw(workload.data(), jax.random.key(1)))
        assert value.dtype == jnp.float32
        assert value.shape == ()


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="batch must be None"):
        linear_regression(1.0, 0)
    with pytest.raises(ValueError, match="batch must be None"):
        softmax_regression("zipf", 5000)
    with pytest.raises(ValueError, match="examples must be at least fan_in"):
        linear_regression(1.0, examples=80)
    with pytest.raises(ValueError, match="kind must be one of"):
        softmax_regression("long")
    with pytest.raises(ValueError, match="examples must be at least as many"):
        class_counts(10, 5, "zipf")
    with pytest.raises(ValueError, match="ridge must be larger"):
        least_softmax_loss(np.array([[1.0], [-1.0]]), np.array([0, 1]), 2, 0.0, tolerance=1e-300)
