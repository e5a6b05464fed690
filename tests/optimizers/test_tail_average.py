"""Tail average against NumPy: what it holds at every step, what it leaves out, and what is evaluated."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_tour as jt
from tests import test_composition as composition
from tests import test_contract as contract
from tests.agreement import follow, replay
from tests.contenders import Contender
from tests.references import tail_average_by_hand

PARAMS = {"embed": {"embedding": jnp.ones((5, 3))}, "up": {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)}}


@pytest.mark.parametrize("start", [0, 10])
def test_agrees_with_the_reference(start: int, x64: None) -> None:
    theta, gradients = replay()
    tx = optax.chain(jt.sgd(0.01), jt.tail_average(start, 7.0))

    def step(carry: Any, g: Any) -> Any:
        theta, state = carry
        u, state = tx.update(g, state, theta)
        theta = optax.apply_updates(theta, u)
        return (theta, state), (
            theta,
            jt.tail_average_params(state, theta, 1.0),
            jt.tail_average_params(state, theta, 0.3),
        )

    theta = jax.tree.map(jnp.asarray, theta)
    path, averages, blends = jax.jit(lambda t, g: jax.lax.scan(step, (t, tx.init(t)), g)[1])(theta, gradients)
    for name in theta:
        # From step 0 on, the average starts from the parameters before the first step.
        whole = np.concatenate([np.asarray(theta[name])[None], path[name]])
        expected = tail_average_by_hand(whole, start + 1, 7.0)[1:]
        np.testing.assert_allclose(averages[name], expected, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(blends[name], 0.7 * path[name] + 0.3 * expected, rtol=1e-12, atol=1e-12)


def test_training_does_not_change() -> None:
    theta, gradients = jax.tree.map(np.float32, replay())
    plain = jt.adamw(0.02)
    paths = [follow(tx, theta, gradients) for tx in (plain, optax.chain(plain, jt.tail_average(5, 10.0)))]
    jax.tree.map(np.testing.assert_array_equal, *paths)


@pytest.mark.parametrize(
    ("arguments", "left_out"),
    [({}, {"embedding"}), ({"leave_out": ()}, set()), ({"leave_out": ("embedding", "vector")}, {"embedding", "bias"})],
)
def test_the_roles_left_out_cost_nothing_and_stay_as_they_are(arguments: dict[str, Any], left_out: set[str]) -> None:
    tx = optax.chain(jt.sgd(0.1), jt.tail_average(1, 10.0, **arguments))
    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(3):
        updates, state = tx.update(PARAMS, state, params)
        params = optax.apply_updates(params, updates)
    blended = jt.tail_average_params(state, params, 0.5)
    for path, leaf in jax.tree_util.tree_leaves_with_path(blended):
        name = path[-1].key
        theta = params[path[0].key][name]
        assert bool((leaf == theta).all()) == (name in left_out), name
    held = {path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(optax.tree.get(state, "average"))}
    assert held == {"embedding", "kernel", "bias"} - left_out


def test_an_average_of_bfloat16_parameters_is_float32() -> None:
    state = jt.tail_average(1).init({"up": {"kernel": jnp.ones((3, 4), jnp.bfloat16)}})
    assert state.average["up"]["kernel"].dtype == jnp.float32
    params = {"up": {"kernel": jnp.ones((3, 4), jnp.bfloat16)}}
    assert jt.tail_average_params(state, params)["up"]["kernel"].dtype == jnp.bfloat16


def averaged(learning_rate: optax.ScalarOrSchedule) -> Any:
    return optax.chain(jt.adamw(learning_rate), jt.tail_average(2, 5.0))


PROMISES = [
    contract.test_the_state_is_arrays_like_the_parameters_and_an_int32_count,
    contract.test_the_count_counts_and_stops_at_its_end,
    contract.test_structure_and_dtypes_of_the_state_never_change,
    contract.test_it_compiles_once,
    contract.test_parameters_and_state_can_be_donated,
    composition.test_map_params_finds_what_is_shaped_like_the_parameters,
]


@pytest.mark.parametrize("promise", PROMISES)
def test_the_contract_holds(promise: Any) -> None:
    promise(Contender("tail_average", averaged, 0.1))


def test_flax_variables_are_averaged_in_their_boxes() -> None:
    nnx = pytest.importorskip("flax.nnx")
    model = nnx.Linear(3, 4, rngs=nnx.Rngs(0))
    params = nnx.state(model, nnx.Param)
    tx = jt.tail_average(0, 2.0)
    updates = jax.tree.map(jnp.ones_like, params)
    _, state = tx.update(updates, tx.init(params), params)
    blended = jt.tail_average_params(state, params, 1.0)
    jax.tree.map(lambda b, p: np.testing.assert_allclose(b, p + 0.5), blended, params)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: jt.tail_average(-1), "start"),
        (lambda: jt.tail_average(1.5), "start"),  # type: ignore[arg-type]
        (lambda: jt.tail_average(1, 0.5), "horizon"),
        (lambda: jt.tail_average(1, leave_out="embedding"), "leave_out"),
        (lambda: jt.tail_average(1, leave_out=("embed",)), "leave_out"),  # type: ignore[arg-type]
        (lambda: jt.tail_average(1, dtype="int8"), "dtype"),
        (lambda: jt.tail_average(1).update(PARAMS, jt.tail_average(1).init(PARAMS)), "params"),
        (lambda: jt.tail_average_params(jt.sgd(0.1).init(PARAMS), PARAMS), "TailAverageState, got 0"),
    ],
)
def test_wrong_arguments_are_named(call: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        call()
