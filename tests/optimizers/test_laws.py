"""Laws that hold for the elementwise rules whatever the numbers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxopt_tour.optimizers.adadelta import scale_by_adadelta
from jaxopt_tour.optimizers.adagrad import scale_by_adagrad
from jaxopt_tour.optimizers.adam import adam, adamw, scale_by_adam
from jaxopt_tour.optimizers.eadam import eadam, scale_by_eadam
from jaxopt_tour.optimizers.laprop import laprop, scale_by_laprop
from jaxopt_tour.optimizers.momentum import momentum, nesterov, scale_by_momentum
from jaxopt_tour.optimizers.rmsprop import rmsprop, scale_by_rmsprop
from jaxopt_tour.optimizers.sgd import sgd
from jaxopt_tour.optimizers.sign import scale_by_sign, signsgd, signum
from jaxopt_tour.optimizers.weight_decay import add_decayed_weights

ENTRIES = 6
# Zero, or a number whose square float32 can hold after a change of scale by 2^20.
NUMBERS = st.one_of(st.just(0.0), st.floats(2**-10, 2**10, width=32), st.floats(-(2**10), -(2**-10), width=32))
VECTORS = hnp.arrays(np.float32, ENTRIES, elements=NUMBERS)
SEQUENCES = hnp.arrays(np.float32, (4, ENTRIES), elements=NUMBERS)

# At eps = 0 these do not see the scale of the loss.
SCALE_FREE = {
    "adam": scale_by_adam(eps=0.0),
    "adam uncorrected": scale_by_adam(eps=0.0, bias_correction=False),
    "adam first gradient": scale_by_adam(eps=0.0, initial_moments="first_gradient"),
    "adam nesterov": scale_by_adam(eps=0.0, nesterov=True),
    "laprop": scale_by_laprop(eps=0.0),
    "eadam": scale_by_eadam(eps=0.0),
    "adagrad": scale_by_adagrad(eps=0.0),
    "rmsprop": scale_by_rmsprop(eps=0.0),
    "signum": optax.chain(scale_by_momentum(form="ema"), scale_by_sign()),
}
RULES = {
    **SCALE_FREE,
    "adadelta": scale_by_adadelta(),
    "rmsprop centered": scale_by_rmsprop(centered=True),
    "momentum": scale_by_momentum(),
    "nesterov ema": scale_by_momentum(form="ema", nesterov=True, bias_correction=True),
    "sign": scale_by_sign(),
}
READY = {
    "sgd": sgd,
    "momentum": momentum,
    "nesterov": nesterov,
    "signsgd": signsgd,
    "signum": signum,
    "adagrad": lambda rate: optax.chain(scale_by_adagrad(), optax.scale_by_learning_rate(rate)),
    "adadelta": lambda rate: optax.chain(scale_by_adadelta(), optax.scale_by_learning_rate(rate)),
    "rmsprop": rmsprop,
    "rmsprop centered": lambda rate: rmsprop(rate, centered=True, eps_in_sqrt=True),
    "adam": adam,
    "adam at eps 0": lambda rate: adam(rate, eps=0.0),
    "adam first gradient": lambda rate: adam(rate, initial_moments="first_gradient"),
    "adamw": adamw,
    "adamw cautious": lambda rate: adamw(rate, cautious=True, weight_decay=0.1),
    "laprop": laprop,
    "eadam": eadam,
}


def make_run(tx):
    """All updates of a sequence of gradients; jitted once a rule."""

    @jax.jit
    def run(gradients):
        def step(state, g):
            u, state = tx.update(g, state)
            return state, u

        return jax.lax.scan(step, tx.init(gradients[0]), gradients)[1]

    return run


RUNS = {name: make_run(tx) for name, tx in RULES.items()}


@pytest.mark.parametrize("name", SCALE_FREE)
@given(gradients=SEQUENCES, exponent=st.integers(-20, 20))
def test_the_scale_of_the_loss_does_not_matter(name, gradients, exponent):
    # A power of two is exact in every operation, and so is the law.
    np.testing.assert_array_equal(RUNS[name](gradients), RUNS[name](gradients * np.float32(2.0**exponent)))


@pytest.mark.parametrize("name", RULES)
@given(g=VECTORS)
def test_the_first_update_has_the_sign_of_the_gradient(name, g):
    u = RUNS[name](np.stack([g] * 4))[0]
    np.testing.assert_array_equal(np.sign(u), np.sign(g))


@pytest.mark.parametrize("name", RULES)
@given(gradients=SEQUENCES, order=st.permutations(range(ENTRIES)))
def test_every_entry_goes_its_own_way(name, gradients, order):
    order = np.array(order)
    # Vector lanes and the remainder loop may round differently: a few roundings of float32, magnified where the
    # centered variance is a small difference.
    np.testing.assert_allclose(RUNS[name](gradients)[:, order], RUNS[name](gradients[:, order]), rtol=1e-4, atol=1e-6)


@given(u=VECTORS, theta=VECTORS)
def test_cautious_decay_never_works_against_the_update(u, theta):
    tx = add_decayed_weights(0.5, cautious=True)
    decayed, _ = tx.update(u, tx.init(theta), theta)
    agree = np.sign(u) * np.sign(theta) > 0
    np.testing.assert_array_equal(decayed, np.where(agree, u + np.float32(0.5) * theta, u))


@given(theta=VECTORS)
def test_decoupled_decay_shrinks_weights_by_one_factor_whatever_the_gradients(theta):
    tx = adamw(0.1, weight_decay=0.5)
    plain = adamw(0.1, weight_decay=0.0)
    g = jnp.linspace(-3.0, 3.0, ENTRIES)
    with_decay, _ = tx.update(g, tx.init(theta), theta)
    without, _ = plain.update(g, plain.init(theta), theta)
    # Rounding of float32 at the size of the update and of the weight.
    np.testing.assert_allclose(with_decay - without, -0.1 * 0.5 * theta, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", READY)
def test_hyper_gradients_are_finite_also_where_a_gradient_is_exactly_zero(name):
    params = {"used": jnp.array([1.0, -2.0]), "unused": jnp.array([3.0, 4.0]), "dead": jnp.zeros(2)}

    def loss(params):
        return jnp.sum(params["used"] ** 4) + jnp.sum(params["dead"] ** 2)

    @jax.jit
    def final_loss(rate, params):
        tx = READY[name](rate)

        def step(carry, _):
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), length=20)
        return loss(params)

    by_rate, by_params = jax.grad(final_loss, argnums=(0, 1))(0.01, params)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves((by_rate, by_params)))
    assert float(by_rate) != 0


@pytest.mark.parametrize("name", READY)
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
def test_extreme_gradients_give_finite_updates_and_states(name, scale):
    tx = READY[name](0.01)
    params = {"matrix": jnp.ones((2, 3)), "vector": -jnp.ones(2)}
    gradients = jax.tree.map(lambda p: p * scale, params)
    state = tx.init(params)
    for g in (gradients, gradients, jax.tree.map(jnp.negative, gradients)):
        updates, state = tx.update(g, state, params)
        assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves((updates, state)))


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop", "laprop", "eadam"])
def test_a_huge_gradient_makes_a_step_of_ordinary_size(name):
    tx = READY[name](1.0)
    params = jnp.ones(2)
    updates, _ = tx.update(jnp.array([1e30, -1e30]), tx.init(params), params)
    # 1 / sqrt(1 - 0.9) for RMSProp and (1 - b1) / sqrt(1 - b2) for LaProp are 3.2, 1 for the others.
    assert bool((jnp.abs(updates) > 0.9).all()) and bool((jnp.abs(updates) < 3.3).all())
