from __future__ import annotations

import itertools

import jax.numpy as jnp
import optax
import pytest

from agreement import assert_agrees
from jaxopt_tour.optimizers.momentum import momentum, nesterov, scale_by_momentum
from references import momentum_by_hand

SWITCHES = [
    {"form": form, "nesterov": look_ahead, "bias_correction": corrected}
    for form, look_ahead, corrected in itertools.product(("sum", "ema"), (False, True), (False, True))
    if not (form == "sum" and corrected)
]


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999])
def test_agrees_with_the_reference(x64, switches, beta):
    tx = optax.chain(scale_by_momentum(beta, **switches), optax.scale_by_learning_rate(0.02))
    assert_agrees(tx, momentum_by_hand, eta=0.02, beta=beta, **switches)


@pytest.mark.parametrize("form", ["sum", "ema"])
def test_ready_made_optimizers_agree_with_the_reference(x64, form):
    expected = {"eta": 0.02, "beta": 0.8, "form": form, "lam": 0.1}
    for look_ahead in (False, True):
        tx = momentum(0.02, beta=0.8, form=form, nesterov=look_ahead, l2=0.1)
        assert_agrees(tx, momentum_by_hand, nesterov=look_ahead, **expected)
    assert_agrees(nesterov(0.02, beta=0.8, form=form, l2=0.1), momentum_by_hand, nesterov=True, **expected)


def test_a_corrected_average_of_a_constant_is_that_constant():
    tx = scale_by_momentum(0.99999, form="ema", bias_correction=True)
    g = jnp.float32(3.0)
    u, _ = tx.update(g, tx.init(g))
    # One rounding each of 1 - beta, of its product with g, and of the divisor; 1 - beta^t would be off by 1e-3 here.
    assert abs(float(u) - 3.0) < 3e-6


def test_dtype_of_the_momentum():
    g = jnp.ones(3, jnp.bfloat16)
    assert scale_by_momentum().init(g).trace.dtype == jnp.bfloat16
    tx = scale_by_momentum(mu_dtype="float32")
    u, state = tx.update(g, tx.init(g), g)
    assert (u.dtype, state.trace.dtype) == (jnp.bfloat16, jnp.float32)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"beta": 1.0}, "beta"),
        ({"form": "mean"}, "form.*'sum', 'ema'"),
        ({"nesterov": "yes"}, "nesterov"),
        ({"bias_correction": True}, "bias_correction"),
        ({"mu_dtype": "int8"}, "mu_dtype"),
    ],
)
def test_wrong_arguments_are_named(arguments, name):
    with pytest.raises(ValueError, match=name):
        scale_by_momentum(**arguments)
