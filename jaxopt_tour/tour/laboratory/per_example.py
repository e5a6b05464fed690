"""Gradients of single examples: their mean and variance, and what of Adam's second moment each of them is.

Of a batch of B examples drawn independently, the mean gradient `g_B` has, entry by entry,
`E[g_B^2] = mean^2 + variance / B`, mean and variance those of the gradient of one example.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import rankdata

from jaxopt_tour._trees import named_leaves
from jaxopt_tour._types import Array, Tree
from jaxopt_tour.problems.workloads import Workload


def second_moment(average: Any, variance: Any, batch: float) -> Any:
    """`E[g_B^2] = mean^2 + variance / B` for B examples drawn independently.

    Args:
        average: mean of the gradient of one example.
        variance: its variance.
        batch: B.
    """
    return average**2 + variance / batch


def per_example_gradients(loss: Callable[[Tree, Any], Array], params: Tree, batch: Any) -> Tree:
    """The gradient of every example's own loss, with the examples as leading axis.

    Args:
        loss: (parameters, batch) -> the mean over the batch's examples.
        params: where.
        batch: arrays with the examples as leading axis.
    """

    def one(example: Any) -> Tree:
        return jax.grad(loss)(params, jax.tree.map(lambda x: x[None], example))

    return jax.vmap(one)(batch)


def mean_and_variance(workload: Workload, params: Tree, data: Any, key: Array, draws: int) -> tuple[Tree, Tree, int]:
    """Mean and variance (that of a sample, divided by n - 1) of the gradient of one example, over fresh batches.

    Returns:
        Both, by path name, and the number of examples.
    """

    def add(total: Any, key: Array) -> tuple[Any, None]:
        gradients = named_leaves(per_example_gradients(workload.loss, params, workload.draw(data, key)))
        sums = {name: jnp.stack([g.sum(0), jnp.square(g).sum(0)]) for name, g in gradients.items()}
        return jax.tree.map(jnp.add, total, sums), None

    zeros = {name: jnp.zeros((2, *leaf.shape)) for name, leaf in named_leaves(params).items()}
    totals, _ = jax.lax.scan(add, zeros, jax.random.split(key, draws))
    batch = jax.eval_shape(workload.draw, data, key)
    n = draws * jax.tree.leaves(batch)[0].shape[0]
    average = {name: total[0] / n for name, total in totals.items()}
    variance = {name: (total[1] - n * jnp.square(average[name])) / (n - 1) for name, total in totals.items()}
    return average, variance, n


class Parts(NamedTuple):
    """Of all parameters in one vector: v without its bias, and mean and variance of the gradient of one example."""

    second: Array
    average: Array
    variance: Array


def apart(parts: Parts, batch: int, examples: int) -> dict[str, float]:
    """What v is made of, at one moment.

    `mean^2` is estimated without bias by `average^2 - variance / n`: the square of an average over n examples has
    `variance / n` too much.

    Returns:
        Of the sums over all parameters, `variance` and `mean_squared`: shares of the sum of v that are
        `variance / B` and `mean^2`. `median`: the share of `variance / B` in `mean^2 + variance / B`, the
        median over the parameters. `rank_variance`, `rank_mean` and `rank_both`: Spearman's correlation over the
        parameters of v with the variance, with the squared average and with `mean^2 + variance / B`.
    """
    second, average, variance = (np.asarray(x, np.float64) for x in parts)
    squared = average**2 - variance / examples
    noise, total = variance / batch, second.sum()
    whole = np.maximum(squared, 0) + noise
    known = whole > 0  # a unit that answers to no example has no gradient at all
    return {
        "variance": float(noise.sum() / total),
        "mean_squared": float(squared.sum() / total),
        "median": float(np.median(noise[known] / whole[known])),
        "rank_variance": rank_correlation(second, variance),
        "rank_mean": rank_correlation(second, average**2),
        "rank_both": rank_correlation(second, whole),
    }


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's: the correlation of the ranks, equal values sharing theirs."""
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])
