"""Per-example gradients and what second moments are made of, against plain NumPy."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import spearmanr

from jaxopt_tour._trees import named_leaves
from jaxopt_tour.problems.workloads import Workload, fashion_mlp
from jaxopt_tour.tour.laboratory.per_example import (
    Parts,
    apart,
    mean_and_variance,
    per_example_gradients,
    rank_correlation,
    second_moment,
)


@pytest.mark.parametrize("batch", [1, 2, 3, 4])
def test_the_second_moment_of_a_batch_is_squared_mean_plus_variance_over_its_size(batch: int) -> None:
    """Exactly: the average over every batch that can be drawn (with replacement) of five examples."""
    gradients = np.random.default_rng(0).normal(size=(5, 3)) + [0.0, 0.5, 2.0]
    drawn = [np.mean(gradients[list(chosen)], axis=0) ** 2 for chosen in itertools.product(range(5), repeat=batch)]
    expected = second_moment(gradients.mean(axis=0), gradients.var(axis=0), batch)
    np.testing.assert_allclose(np.mean(drawn, axis=0), expected, rtol=1e-12)


def test_the_average_over_examples_is_the_batch_gradient() -> None:
    workload = fashion_mlp()
    params = workload.init(jax.random.key(0))
    batch = jax.tree.map(lambda x: x[:7], workload.draw(workload.data(), jax.random.key(1)))
    each = named_leaves(per_example_gradients(workload.loss, params, batch))
    gradient_of = jax.jit(jax.grad(workload.loss))
    whole = named_leaves(gradient_of(params, batch))
    one = named_leaves(gradient_of(params, jax.tree.map(lambda x: x[3:4], batch)))
    for name, gradient in whole.items():
        assert each[name].shape == (7, *gradient.shape)
        np.testing.assert_allclose(each[name].mean(axis=0), gradient, atol=2e-6)
        np.testing.assert_allclose(each[name][3], one[name], atol=2e-6)


def test_mean_and_variance_are_those_of_all_drawn_examples() -> None:
    def draw(data: jax.Array, key: jax.Array) -> jax.Array:
        return data[jax.random.randint(key, (4,), 0, len(data))]

    def loss(params: dict[str, jax.Array], batch: jax.Array) -> jax.Array:
        return jnp.mean(jnp.square(batch @ params["w"] - 1))

    # Only what mean_and_variance reads.
    workload = Workload(
        "linear", "", lambda: None, lambda key: None, draw, loss, lambda p, d: jnp.float32(0), "", 0.0, 1, ""
    )
    data, params = jax.random.normal(jax.random.key(2), (9, 3)), {"w": jnp.array([0.3, -1.0, 2.0])}
    average, variance, n = mean_and_variance(workload, params, data, jax.random.key(3), draws=5)
    rows = np.concatenate([np.asarray(draw(data, key)) for key in jax.random.split(jax.random.key(3), 5)])
    gradients = 2 * (rows @ np.asarray(params["w"]) - 1)[:, None] * rows
    assert n == 20
    np.testing.assert_allclose(average["w"], gradients.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(variance["w"], gradients.var(axis=0, ddof=1), rtol=1e-4)


def test_the_parts_of_a_second_moment_are_found_again() -> None:
    rng = np.random.default_rng(4)
    true_mean, deviation = rng.normal(size=4000), rng.exponential(size=4000) + 0.1
    examples, batch = 50, 8
    # What is measured on 50 examples, and a v that is exactly the second moment of batches of 8.
    measured = true_mean + deviation * rng.normal(size=4000) / examples**0.5
    variance = deviation**2 * rng.chisquare(examples - 1, size=4000) / (examples - 1)
    second = second_moment(true_mean, deviation**2, batch)
    found = apart(Parts(*map(jnp.asarray, (second, measured, variance))), batch, examples)
    total = second.sum()
    # Sums over 4,000 parameters: their deviation is about 1 %.
    np.testing.assert_allclose(found["variance"], (deviation**2).sum() / batch / total, rtol=0.05)
    np.testing.assert_allclose(found["mean_squared"], (true_mean**2).sum() / total, rtol=0.05)
    assert found["rank_both"] > 0.9 > found["rank_variance"]


def test_rank_correlation_is_spearman_s_with_ties() -> None:
    rng = np.random.default_rng(5)
    x, y = rng.integers(0, 5, 40), rng.normal(size=40)
    np.testing.assert_allclose(rank_correlation(x, y), spearmanr(x, y).statistic, rtol=1e-12)
