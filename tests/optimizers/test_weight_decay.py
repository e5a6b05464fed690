from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_tour.optimizers.adam import adamw
from jaxopt_tour.optimizers.weight_decay import add_decayed_weights

PARAMS = {"layer": {"kernel": jnp.full((2, 2), 2.0), "bias": jnp.full(2, 3.0)}, "scale": jnp.full(2, 5.0)}
UPDATES = jax.tree.map(jnp.ones_like, PARAMS)


def decayed(tx, updates=UPDATES, params=PARAMS):
    return tx.update(updates, tx.init(params), params)[0]


def added(tx):
    """What was added to the updates, one number a leaf."""
    return jax.tree.map(lambda u: float(u.reshape(-1)[0]) - 1, decayed(tx))


def test_adds_decay_times_weight():
    assert added(add_decayed_weights(0.5)) == {"layer": {"kernel": 1.0, "bias": 1.5}, "scale": 2.5}


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ({"layer": {"kernel": True, "bias": False}, "scale": False}, (1.0, 0.0, 0.0)),
        ({"layer": True, "scale": False}, (1.0, 1.5, 0.0)),  # a prefix
        (lambda params: jax.tree.map(lambda p: p.ndim > 1, params), (1.0, 0.0, 0.0)),
        (lambda params: {"layer": False, "scale": True}, (0.0, 0.0, 2.5)),
    ],
)
def test_mask(mask, expected):
    kernel, bias, scale = expected
    assert added(add_decayed_weights(0.5, mask)) == {"layer": {"kernel": kernel, "bias": bias}, "scale": scale}


def test_mask_passes_holes_and_none():
    params = {"layer": optax.MaskedNode(), "scale": None, "other": jnp.ones(2)}
    tx = add_decayed_weights(0.5, {"layer": True, "scale": None, "other": True})
    result = decayed(tx, params, params)
    assert isinstance(result["layer"], optax.MaskedNode)
    assert result["scale"] is None
    np.testing.assert_array_equal(result["other"], 1.5)


def test_a_missing_gradient_stays_missing():
    assert decayed(add_decayed_weights(0.5), {"w": None}, {"w": jnp.ones(2)}) == {"w": None}


def test_schedule():
    tx = add_decayed_weights(lambda step: 0.1 * step)
    state = tx.init(PARAMS)
    for step in range(3):
        updates, state = jax.jit(tx.update)(UPDATES, state, PARAMS)
        np.testing.assert_allclose(updates["scale"], 1 + 0.1 * step * 5, rtol=1e-6)  # float32


def test_cautious():
    u, theta = jnp.array([1.0, 1.0, -1.0, -1.0, 0.0, 1e-30]), jnp.array([2.0, -2.0, 2.0, -2.0, 2.0, 1e-30])
    result = decayed(add_decayed_weights(0.5, cautious=True), u, theta)
    np.testing.assert_array_equal(result, jnp.array([2.0, 1.0, -1.0, -2.0, 0.0, 1.5e-30]))


def test_without_params():
    nothing = add_decayed_weights(0.0)
    assert nothing.update(UPDATES, nothing.init(PARAMS))[0] is UPDATES
    with pytest.raises(ValueError, match="needs the parameters"):
        add_decayed_weights(0.1).update(UPDATES, nothing.init(PARAMS))


def test_gives_the_parameters_dtype():
    params = jnp.ones(2, jnp.bfloat16)
    for weight_decay in (0.0, 0.1):
        assert decayed(add_decayed_weights(weight_decay), jnp.ones(2), params).dtype == jnp.bfloat16


@pytest.mark.parametrize("mask", [True, np.ones(2, bool)])
def test_a_mask_that_is_no_tree_is_refused(mask):
    with pytest.raises(ValueError, match="mask"):
        add_decayed_weights(0.1, mask)


def test_a_mask_of_something_else_than_bools_is_refused():
    with pytest.raises(ValueError, match="True or False"):
        decayed(add_decayed_weights(0.1, {"layer": 1.0, "scale": False}))


def test_a_mask_function_that_inject_hyperparams_took_for_a_schedule_is_refused():
    tx = optax.inject_hyperparams(adamw)(1e-3, mask=lambda p: jax.tree.map(lambda x: x.ndim > 1, p))
    with pytest.raises(ValueError, match="static_args"):
        tx.init(PARAMS)


@pytest.mark.parametrize(("name", "value"), [("weight_decay", -1.0), ("cautious", 1)])
def test_wrong_arguments_are_named(name, value):
    with pytest.raises(ValueError, match=name):
        add_decayed_weights(**{name: value})
