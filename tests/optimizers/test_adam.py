from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from agreement import assert_agrees
from jaxopt_tour.optimizers.adam import adam, adamw, scale_by_adam
from references import adam_by_hand

SWITCHES = [
    {"bias_correction": corrected, "initial_moments": initial, "nesterov": look_ahead}
    for corrected, initial, look_ahead in itertools.product((True, False), ("zeros", "first_gradient"), (False, True))
]


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
@pytest.mark.parametrize("b2", [0.95, 0.999])
def test_agrees_with_the_reference(x64, switches, b2):
    tx = optax.chain(scale_by_adam(0.9, b2, 1e-6, 1e-9, **switches), optax.scale_by_learning_rate(0.02))
    assert_agrees(tx, adam_by_hand, eta=0.02, b1=0.9, b2=b2, eps=1e-6, eps_root=1e-9, **switches)


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_ready_made_optimizers_agree_with_the_reference(x64, switches):
    arguments = {"eta": 0.02, "b1": 0.8, "b2": 0.95, "eps": 1e-6, "eps_root": 1e-9}
    coupled = adam(0.02, 0.8, 0.95, 1e-6, 1e-9, l2=0.1, **switches)
    assert_agrees(coupled, adam_by_hand, coupled=0.1, **arguments, **switches)
    for cautious in (False, True):
        decoupled = adamw(0.02, 0.8, 0.95, 1e-6, 1e-9, weight_decay=0.1, cautious=cautious, **switches)
        assert_agrees(decoupled, adam_by_hand, decoupled=0.1, cautious=cautious, **arguments, **switches)


@pytest.mark.parametrize(
    ("bias_correction", "initial_moments", "size"),
    [
        (True, "zeros", 1.0),
        (False, "zeros", (1 - 0.9) / (1 - 0.999) ** 0.5),
        (True, "first_gradient", (1 - 0.999) ** 0.5 / (1 - 0.9)),
        (False, "first_gradient", 1.0),
    ],
)
def test_size_of_the_first_step(bias_correction, initial_moments, size):
    g = jnp.array([3.0, -2.0, 500.0, 0.0])
    tx = scale_by_adam(bias_correction=bias_correction, initial_moments=initial_moments)
    u, _ = tx.update(g, tx.init(g))
    # eps = 1e-8 against a root of 0.06 or more, then a few roundings of float32.
    np.testing.assert_allclose(u, np.sign(g) * size, rtol=2e-6)


def test_a_decay_near_one_is_kept_in_bfloat16():
    tx = scale_by_adam(b2=0.999)
    g = jnp.ones(2, jnp.bfloat16)

    def step(state, _):
        return tx.update(g, state, g)[1], None

    state, _ = jax.lax.scan(step, tx.init(g), length=1000)
    # A thousand additions in float32; in bfloat16 v would stop growing near 0.25.
    np.testing.assert_allclose(state.nu, 1 - 0.999**1000, rtol=1e-4)


def test_dtypes_of_the_moments():
    params = {"half": jnp.ones(2, jnp.bfloat16), "complex": jnp.ones(2, jnp.complex64)}
    state = scale_by_adam().init(params)
    assert jax.tree.map(lambda m: m.dtype.name, state.mu) == {"half": "bfloat16", "complex": "complex64"}
    assert jax.tree.map(lambda v: v.dtype.name, state.nu) == {"half": "float32", "complex": "float32"}
    assert scale_by_adam(mu_dtype="float32").init(params["half"]).mu.dtype == jnp.float32


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"b1": 1.0}, "b1"),
        ({"b2": -0.5}, "b2"),
        ({"eps": -1e-8}, "eps"),
        ({"eps_root": -1e-8}, "eps_root"),
        ({"initial_moments": "ones"}, "initial_moments.*'zeros', 'first_gradient'"),
        ({"bias_correction": None}, "bias_correction"),
        ({"mu_dtype": "float33"}, "mu_dtype"),
        ({"weight_decay": -1.0}, "weight_decay"),
    ],
)
def test_wrong_arguments_are_named(arguments, name):
    with pytest.raises(ValueError, match=name):
        adamw(1e-3, **arguments)
