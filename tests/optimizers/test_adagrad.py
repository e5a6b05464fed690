from __future__ import annotations

import jax.numpy as jnp
import pytest

from agreement import assert_agrees
from jaxopt_tour.optimizers.adagrad import adagrad, scale_by_adagrad
from references import adagrad_by_hand


@pytest.mark.parametrize("initial_accumulator", [0.0, 0.1])
@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_agrees_with_the_reference(x64, initial_accumulator, l2):
    tx = adagrad(0.5, eps=1e-3, initial_accumulator=initial_accumulator, l2=l2)
    assert_agrees(tx, adagrad_by_hand, eta=0.5, eps=1e-3, r0=initial_accumulator, lam=l2)


def test_steady_gradients_make_steps_of_one_over_root_t():
    tx = scale_by_adagrad()
    g = jnp.array([-7.0, 1e-3])
    state = tx.init(g)
    for t in range(1, 10):
        u, state = tx.update(g, state)
        # A few roundings of float32.
        assert jnp.allclose(u, jnp.sign(g) / t**0.5, rtol=1e-6)


@pytest.mark.parametrize("name", ["eps", "initial_accumulator"])
def test_wrong_arguments_are_named(name):
    with pytest.raises(ValueError, match=name):
        scale_by_adagrad(**{name: -1.0})
