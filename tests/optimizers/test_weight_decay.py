from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_tour.optimizers.adam import adamw
from jaxopt_tour.optimizers.laprop import laprop
from jaxopt_tour.optimizers.muon import muon
from jaxopt_tour.optimizers.shampoo import shampoo
from jaxopt_tour.optimizers.sign import signum
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


MODEL = {
    "embed": {"embedding": jnp.ones((20, 8))},
    "blocks": {
        "up": {"kernel": jnp.ones((3, 8, 16)), "bias": jnp.ones((3, 16))},  # three layers: a bias has two axes
        "down": {"kernel": jnp.ones((3, 16, 8)), "bias": jnp.ones((3, 8))},
        "norm": {"scale": jnp.ones((3, 8))},
    },
    "head": {"kernel": jnp.ones((8, 20))},
}
MATRICES = {"up/kernel", "down/kernel"}


def decaying(tx, params):
    """Names of the parameters that a decay of one half changes where gradients are zero."""
    zeros = jax.tree.map(jnp.zeros_like, params)
    moved = tx.update(zeros, tx.init(params), params)[0]
    leaves = jax.tree_util.tree_leaves_with_path(moved)
    return {jax.tree_util.keystr(path[-2:], simple=True, separator="/") for path, u in leaves if jnp.any(u != 0)}


@pytest.mark.parametrize("optimizer", [adamw, laprop, signum, muon, shampoo], ids=lambda f: f.__name__)
def test_matrices_alone_decay_and_the_same_under_every_optimizer(optimizer):
    assert decaying(optimizer(1.0, weight_decay=0.5, mask="matrices"), MODEL) == MATRICES
    assert len(decaying(optimizer(1.0, weight_decay=0.5), MODEL)) == 7


def test_what_is_routed_as_a_matrix_decays_whatever_its_name():
    tx = muon(1.0, weight_decay=0.5, mask="matrices", routing={"head/kernel": "matrix", "blocks/up": "other"})
    assert decaying(tx, MODEL) == {"down/kernel", "head/kernel"}


def test_two_axes_decay_where_names_do_not_say_what_they_are():
    tx = add_decayed_weights(0.5, "matrices")
    (matrix, vector, number) = decayed(tx, (jnp.zeros((4, 6)), jnp.zeros(6), 0.0), (jnp.ones((4, 6)), jnp.ones(6), 1.0))
    assert np.all(matrix == 0.5) and not np.any(vector) and not number


def test_matrices_decay_in_holes_boxes_and_none():
    from flax import nnx

    params = {"up": {"kernel": nnx.Param(jnp.ones((4, 6))), "bias": None}, "norm": optax.MaskedNode()}
    result = decayed(add_decayed_weights(0.5, "matrices"), jax.tree.map(jnp.zeros_like, params), params)
    assert np.all(result["up"]["kernel"][...] == 0.5)
    assert jax.tree.structure(result) == jax.tree.structure(params)


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
