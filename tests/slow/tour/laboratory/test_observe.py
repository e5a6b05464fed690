"""What is seen of a run is what the run did: against `train`, and against a loop in Python."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_tour as jt
from jaxopt_tour._trees import named_leaves
from jaxopt_tour.problems.workloads import fashion_mlp
from jaxopt_tour.tour.laboratory.observe import Moment, observe, of_state
from jaxopt_tour.tour.laboratory.rules import ADAMW, MUON, SGD_MOMENTUM
from jaxopt_tour.tour.laboratory.runs import Rule, keys_of, rate_at, train

STEPS, EVERY = 6, 2


def everything(moment: Moment) -> Moment:
    return moment._replace(data=0, key=jax.random.key_data(moment.key))


@pytest.mark.parametrize("rule", [ADAMW, MUON], ids=lambda rule: rule.name)
def test_the_run_is_that_of_train(rule: Rule) -> None:
    observed = observe(fashion_mlp(), rule, {"momentum": 0.8}, 3, STEPS, EVERY, everything)
    ((outcome,),) = train(fashion_mlp(), rule, [{"momentum": 0.8}], [3], STEPS)
    # Two programs of the same run round differently, and Muon brings small singular values up to 1, noise and all.
    np.testing.assert_allclose(observed.outcome.final, outcome.final, rtol=1e-3)
    known = ~np.isnan(outcome.curve)  # a run shorter than its curve leaves gaps in it
    assert known.sum() == STEPS
    np.testing.assert_allclose(observed.outcome.curve[known], outcome.curve[known], rtol=1e-3)
    assert list(observed.step) == [2, 4, 6]


def test_every_moment_is_that_of_a_plain_loop() -> None:
    workload = fashion_mlp()
    numbers = {name: jnp.float32(value) for name, value in ADAMW.defaults.items()}
    tx = ADAMW.build(lambda count: rate_at(count, jnp.int32(STEPS), numbers), numbers, workload)
    first, batches = keys_of(jnp.uint32(5))
    params, data = workload.init(first), workload.data()
    state, update = tx.init(params), jax.tree.map(jnp.zeros_like, params)
    expected = []
    gradient_of, update_of = jax.jit(jax.grad(workload.loss)), jax.jit(tx.update)
    for count in range(STEPS):
        batch = workload.draw(jax.tree.map(jnp.asarray, data), jax.random.fold_in(batches, count))
        gradient = gradient_of(params, batch)
        before, previous = params, update
        update, state = update_of(gradient, state, params)
        params = optax.apply_updates(params, update)
        if (count + 1) % EVERY == 0:
            expected.append((before, gradient, of_state(state, "m"), of_state(state, "v"), update, previous, batch))
    observed = observe(workload, ADAMW, {}, 5, STEPS, EVERY, everything)
    seen = observed.seen
    for i, trees in enumerate(expected):
        names = ("gradient", "momentum", "second", "update", "previous_update")
        np.testing.assert_allclose(seen.batch.inputs[i], trees[-1].inputs, atol=1e-6)
        for name, tree in zip(names, trees[1:-1], strict=True):
            found, wanted = getattr(seen, name), named_leaves(tree)
            assert list(found) == list(wanted) == list(named_leaves(params))
            for path in wanted:  # compiled and not, the rounding differs; Adam's division makes the most of it
                np.testing.assert_allclose(found[path][i], wanted[path], rtol=2e-3, atol=2e-6)
        for path, leaf in named_leaves(trees[0]).items():
            np.testing.assert_allclose(named_leaves(seen.params)[path][i], leaf, rtol=2e-3, atol=1e-5)
    for path, leaf in named_leaves(params).items():
        np.testing.assert_allclose(named_leaves(observed.params)[path], leaf, rtol=2e-3, atol=1e-5)


def test_every_parameter_has_the_momentum_of_its_group() -> None:
    params = {"hidden": {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)}, "head": {"kernel": jnp.ones((4, 2))}}
    gradients = jax.tree.map(lambda x: 2 * x, params)
    tx = jt.muon(1e-3, beta=0.75, rest=jt.adamw(1e-3, b1=0.5, b2=0.75))
    _, state = tx.update(gradients, tx.init(params), params)
    momentum, second = of_state(state, "m"), of_state(state, "v")
    assert sorted(momentum) == ["head/kernel", "hidden/bias", "hidden/kernel"]
    np.testing.assert_allclose(momentum["hidden/bias"], 1.0)  # AdamW's average
    np.testing.assert_allclose(second["hidden/bias"], 1.0)
    assert sorted(second) == ["head/kernel", "hidden/bias"]
    assert of_state(jt.sgd(1e-3).init(params), "m") == {}


def test_arguments_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="every must be at least 1 and divide steps = 6, got 4"):
        observe(fashion_mlp(), SGD_MOMENTUM, {}, 0, 6, 4, everything)
    with pytest.raises(ValueError, match="numbers of sgd-momentum must be among learning_rate, momentum"):
        observe(fashion_mlp(), SGD_MOMENTUM, {"beta": 0.9}, 0, 6, 2, everything)
