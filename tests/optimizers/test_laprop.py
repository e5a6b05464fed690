from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from agreement import assert_agrees
from jaxopt_tour.optimizers.adam import scale_by_adam
from jaxopt_tour.optimizers.laprop import laprop, scale_by_laprop
from references import laprop_by_hand


@pytest.mark.parametrize("bias_correction", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_agrees_with_the_reference(x64, bias_correction, weight_decay):
    tx = laprop(0.02, 0.8, 0.95, 1e-6, bias_correction=bias_correction, weight_decay=weight_decay)
    arguments = {"eta": 0.02, "b1": 0.8, "b2": 0.95, "eps": 1e-6, "lam": weight_decay}
    assert_agrees(tx, laprop_by_hand, bias_correction=bias_correction, **arguments)


@pytest.mark.parametrize(("bias_correction", "size"), [(False, 0.1 / 0.001**0.5), (True, 1.0)])
def test_size_of_the_first_step(bias_correction, size):
    g = jnp.array([3.0, -0.02, 0.0])
    tx = scale_by_laprop(bias_correction=bias_correction)
    u, _ = tx.update(g, tx.init(g))
    # eps = 1e-8 against sqrt(v) of 6e-4 and more.
    np.testing.assert_allclose(u, np.sign(g) * size, rtol=3e-5)


def test_one_huge_gradient_outweighs_the_past_in_adam_but_not_here():
    def last_update(tx):
        state = tx.init(jnp.float32(0))
        for g in [1.0] * 20 + [-1e6]:
            u, state = tx.update(jnp.float32(g), state)
        return float(u)

    # Its ratio is bounded by sqrt((1 - b2^21) / (1 - b2)) = 4.56 and weighs 1 - b1 = 0.1, the past about 0.8.
    assert last_update(scale_by_laprop(bias_correction=True)) > 0.3
    assert last_update(scale_by_adam()) < -0.3


@pytest.mark.parametrize(("name", "value"), [("b1", 1.0), ("b2", 2.0), ("eps", -1.0), ("bias_correction", "no")])
def test_wrong_arguments_are_named(name, value):
    with pytest.raises(ValueError, match=name):
        scale_by_laprop(**{name: value})
