from __future__ import annotations

import numpy as np
import optax
import pytest

from agreement import assert_agrees, follow, replay
from jaxopt_tour.optimizers.lion import lion, scale_by_lion
from jaxopt_tour.optimizers.sign import signum
from references import lion_by_hand


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_agrees_with_the_reference(x64, weight_decay):
    assert_agrees(
        lion(0.02, 0.8, 0.95, weight_decay=weight_decay), lion_by_hand, eta=0.02, b1=0.8, b2=0.95, lam=weight_decay
    )


@pytest.mark.parametrize("arguments", [{}, {"b1": 0.8, "b2": 0.95, "weight_decay": 0.1}], ids=["defaults", "arguments"])
def test_walks_the_path_of_optax(x64, arguments):
    theta, gradients = replay()
    path, expected = (follow(make(0.02, **arguments), theta, gradients) for make in (lion, optax.lion))
    for name in theta:
        # A sign is exact, and so are sums of multiples of the rate but for rounding.
        np.testing.assert_allclose(path[name], expected[name], rtol=1e-12, atol=1e-12, err_msg=name)


def test_is_signum_where_both_averages_are_one(x64):
    theta, gradients = replay()
    ours, expected = (
        follow(tx, theta, gradients) for tx in (lion(0.02, 0.9, 0.9, weight_decay=0.1), signum(0.02, weight_decay=0.1))
    )
    for name in theta:
        np.testing.assert_array_equal(ours[name], expected[name])


@pytest.mark.parametrize(("name", "value"), [("b1", 1.0), ("b2", 2.0), ("mu_dtype", "int8")])
def test_wrong_arguments_are_named(name, value):
    with pytest.raises(ValueError, match=name):
        scale_by_lion(**{name: value})
