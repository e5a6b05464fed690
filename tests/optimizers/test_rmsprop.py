from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import optax
import pytest

from agreement import assert_agrees
from jaxopt_tour.optimizers.rmsprop import rmsprop, scale_by_rmsprop
from references import rmsprop_by_hand


@pytest.mark.parametrize(
    ("centered", "eps_in_sqrt", "bias_correction"), list(itertools.product((False, True), repeat=3)), ids=str
)
@pytest.mark.parametrize("initial_scale", [0.0, 1.0])
def test_agrees_with_the_reference(x64, centered, eps_in_sqrt, bias_correction, initial_scale):
    switches = {"centered": centered, "eps_in_sqrt": eps_in_sqrt, "bias_correction": bias_correction}
    tx = optax.chain(
        scale_by_rmsprop(0.8, eps=1e-3, initial_scale=initial_scale, **switches), optax.scale_by_learning_rate(0.02)
    )
    # The corrected variance of a single gradient is zero up to rounding, and the first step compares roundings.
    skip = 1 if centered and bias_correction else 0
    assert_agrees(tx, rmsprop_by_hand, skip=skip, eta=0.02, beta=0.8, eps=1e-3, s0=initial_scale, **switches)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("centered", [False, True])
def test_with_momentum_and_l2_agrees_with_the_reference(x64, nesterov, centered):
    tx = rmsprop(0.02, beta=0.8, eps=1e-6, centered=centered, momentum=0.9, nesterov=nesterov, l2=0.1)
    arguments = {"eta": 0.02, "beta": 0.8, "eps": 1e-6, "momentum": 0.9, "lam": 0.1}
    assert_agrees(tx, rmsprop_by_hand, centered=centered, nesterov=nesterov, **arguments)


def test_a_variance_that_rounding_makes_negative_counts_as_zero():
    # A constant gradient has no variance: s - m^2 is rounding, of either sign.
    g = jnp.full(1000, 1.0) * jnp.linspace(0.1, 10, 1000)
    tx = scale_by_rmsprop(0.9, eps=1e-3, centered=True, bias_correction=True)

    def step(state, _):
        u, state = tx.update(g, state)
        return state, u

    _, u = jax.lax.scan(step, tx.init(g), length=100)
    assert bool(jnp.isfinite(u).all())


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"beta": -0.1}, "beta"),
        ({"eps": -1.0}, "eps"),
        ({"centered": 1}, "centered"),
        ({"nesterov": True}, "momentum"),
        ({"mu_dtype": "int32"}, "mu_dtype"),
        ({"nu_dtype": "int32"}, "nu_dtype"),
        ({"l2": -1.0}, "l2"),
    ],
)
def test_wrong_arguments_are_named(arguments, name):
    with pytest.raises(ValueError, match=name):
        rmsprop(1e-3, **arguments)
