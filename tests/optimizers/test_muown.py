"""Weight normalization inside an optimizer, and Muown: against NumPy, and their laws."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_tour as jt
from tests.agreement import STEPS, follow
from tests.matrix_references import muown_by_hand

VIEWS = {
    "a stack": ((2, 6, 4), jt.MatrixAxes(1, 2)),
    "fused": ((2, 4, 9), jt.MatrixAxes(1, 2, split=(5, 3, 1))),
    "heads": ((6, 8), jt.MatrixAxes(0, 2, factors={1: (4,)})),
}
AXES = {name: view for name, (_, view) in VIEWS.items()}


def drawn(seed: int, *leading: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(*leading, *shape)) for name, (shape, _) in VIEWS.items()}


def outputs(tree: Any) -> dict[str, np.ndarray]:
    """The weights of every output of every matrix, (outputs, inputs)."""
    parts = {name: view.to_matrices(tree[name]) for name, (_, view) in VIEWS.items()}
    return {
        name: np.concatenate([np.swapaxes(part, 1, 2).reshape(-1, part.shape[1]) for part in of_leaf])
        for name, of_leaf in parts.items()
    }


@pytest.mark.parametrize(("shape", "nesterov"), [((5, 4), True), ((3, 6), False)])
@pytest.mark.slow
def test_muown_agrees_with_the_paper(shape: tuple[int, int], nesterov: bool, x64: None) -> None:
    rng = np.random.default_rng(0)
    theta, gradients = rng.normal(size=shape), rng.normal(size=(STEPS, *shape))
    tx = jt.muown(0.02, weight_decay=0.1, nesterov=nesterov, orthogonalizer="exact", routing="matrix")
    expected = muown_by_hand(theta, gradients, 0.02, nesterov=nesterov, lam=0.1)
    # float64: parameters of size one, fifty steps.
    np.testing.assert_allclose(follow(tx, theta, gradients), expected, rtol=1e-9, atol=1e-9)


def test_every_output_of_a_view_of_any_rank_is_normalized_by_itself(x64: None) -> None:
    """Under gradient descent of both, the step of one output is that of weight normalization, by hand."""
    tx = jt.with_weight_normalization(jt.sgd(0.1), jt.sgd(0.01), axes=AXES)
    params, gradients = drawn(0), drawn(1, 3)
    path = jax.jit(lambda p, g: follow(tx, p, g))(params, gradients)
    steps = [outputs({name: leaf[t] for name, leaf in gradients.items()}) for t in range(3)]
    final = outputs({name: np.asarray(leaf)[-1] for name, leaf in path.items()})
    for name, v in outputs(params).items():
        gamma = np.linalg.norm(v, axis=1, keepdims=True)
        for step in steps:
            length = np.linalg.norm(v, axis=1, keepdims=True)
            g_gamma = np.sum(step[name] * v / length, axis=1, keepdims=True)
            g_v = gamma / length * (step[name] - g_gamma * v / length)
            v, gamma = v - 0.1 * g_v, gamma - 0.01 * g_gamma
        w = gamma * v / np.linalg.norm(v, axis=1, keepdims=True)
        np.testing.assert_allclose(final[name], w, rtol=1e-12, err_msg=name)


def test_a_rule_that_rests_keeps_the_norms_or_the_directions() -> None:
    """In bfloat16, so that rounding that adds up would show."""
    params, gradients = (
        jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), drawn(seed, *n)) for seed, *n in ((0,), (1, 40))
    )

    @jax.jit
    def last(params: Any, gradients: Any) -> Any:
        rules = optax.sgd(0.03), optax.set_to_zero()
        txs = [jt.with_weight_normalization(*pair, axes=AXES) for pair in (rules, rules[::-1])]
        return [jax.tree.map(lambda path: jnp.float32(path[-1]), follow(tx, params, gradients)) for tx in txs]

    kept_norms, kept_directions = map(outputs, last(params, gradients))
    for name, before in outputs(jax.tree.map(lambda x: np.asarray(x, np.float32), params)).items():
        norms = np.linalg.norm(before, axis=1)
        # The rounding of the entries: nothing adds up over the steps.
        np.testing.assert_allclose(np.linalg.norm(kept_norms[name], axis=1), norms, rtol=1e-2)
        assert np.abs(kept_norms[name] - before).max() > 0.03
        after = kept_directions[name]
        norms_after = np.linalg.norm(after, axis=1)
        np.testing.assert_allclose(np.abs(np.sum(before * after, axis=1)), norms * norms_after, rtol=1e-2)
        assert np.abs(norms_after - norms).max() > 0.03


def test_a_gradient_along_the_weights_turns_nothing_and_no_step_moves_nothing() -> None:
    """The rounding of such a gradient does not reach the rule of directions, which would magnify it."""
    params = jax.tree.map(jnp.float32, drawn(0))

    @jax.jit
    def updated(rate: Any) -> Any:
        tx = jt.with_weight_normalization(optax.sign_sgd(rate), optax.sgd(rate), axes=AXES)
        return tx.update(params, tx.init(params), params)

    updates, _ = updated(0.1)
    jax.tree.map(lambda u, p: np.testing.assert_allclose(u, -0.1 * p, rtol=1e-4, atol=1e-6), updates, params)
    still, state = updated(0.0)
    assert not any(leaf.any() for leaf in jax.tree.leaves(still))
    jax.tree.map(np.testing.assert_array_equal, state.output_norm, state.direction_norm)


def test_derivatives_are_finite_where_the_gradient_is_zero() -> None:
    params = jnp.float32(drawn(0)["a stack"])

    def moved(rate: Any, g: Any) -> Any:
        tx = jt.with_weight_normalization(optax.sgd(rate), optax.sgd(rate), axes=AXES["a stack"])
        return jnp.sum(jnp.abs(tx.update(g, tx.init(params), params)[0]))

    derivative = jax.jit(jax.grad(moved, argnums=(0, 1)))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(derivative(0.1, jnp.zeros_like(params))))


def test_the_mask_of_matrices_decays_their_norms_alone() -> None:
    """In its first step without a gradient: a kernel shrinks by the factor 1 - rate * decay, a bias stays."""
    params = {"up": {"kernel": jnp.full((4, 6), 0.5), "bias": jnp.ones(6)}}
    tx = jt.muown(0.1, weight_decay=0.5, mask="matrices", orthogonalizer=((1.5, -0.5, 0.0),))
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates = jax.jit(lambda: tx.update(zeros, tx.init(params), params)[0])()
    np.testing.assert_allclose(updates["up"]["kernel"], -0.05 * params["up"]["kernel"], rtol=1e-5)
    assert not updates["up"]["bias"].any()


def test_its_state_is_two_numbers_an_output_and_those_of_the_rules() -> None:
    params = {"layers": {"up": {"kernel": jnp.ones((12, 6, 24))}}}
    tx = jt.with_weight_normalization(jt.scale_by_muon(), jt.scale_by_adam(), axes=jt.MatrixAxes(1, 2))
    shapes = [leaf.shape for leaf in jax.tree.leaves(jax.eval_shape(tx.init, params)) if leaf.ndim]
    assert shapes == [(12, 1, 24), (12, 1, 24), (12, 6, 24), (12, 1, 24), (12, 1, 24)]


def test_an_output_that_starts_at_zero_is_named() -> None:
    zeros = {"blocks": {"up": {"kernel": jnp.ones((4, 6))}, "down": {"kernel": jnp.ones((6, 4)).at[:, 2].set(0)}}}
    with pytest.raises(ValueError, match=r"'blocks/down/kernel'.*zeros"):
        jt.muown(0.02).init(zeros)
    tx = jt.with_weight_normalization(optax.sgd(0.1), optax.adam(0.1))
    updates = jax.jit(lambda p: tx.update(p, tx.init(p), p)[0])(zeros)  # a shape has no values
    assert not updates["blocks"]["down"]["kernel"][:, 2].any()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(updates))


def test_wrong_calls_are_named() -> None:
    params = {"up": {"kernel": jnp.ones((4, 6))}}
    tx = jt.with_weight_normalization(jt.sgd(0.1), jt.sgd(0.1))
    with pytest.raises(ValueError, match="params"):
        tx.update(params, tx.init(params))
    with pytest.raises(ValueError, match="norms"):
        jt.with_weight_normalization(jt.sgd(0.1), 0.1)
    with pytest.raises(ValueError, match="'bias'"):
        tx.init({"bias": jnp.ones(3)})
    other = jt.multi_transform({"matrix": tx}, {"up/kernel": jt.MatrixAxes(1, 0)})
    with pytest.raises(ValueError, match=r"'up/kernel'.*with_weight_normalization"):
        other.update(params, other.init(params), params)


def test_migration_does_not_take_the_moments_of_norms_for_those_of_weights() -> None:
    params = {"up": {"kernel": jnp.ones((1, 6))}}  # one input: norms have the shape of the weights
    routing = {"up/kernel": jt.MatrixAxes(0, 1)}
    old = jax.jit(jt.muown(0.1, routing=routing).init)(params)
    to_itself = jt.migrate_state(old, jt.muown(0.2, routing=routing), params)
    assert to_itself.report.is_complete
    to_adam = jt.migrate_state(old, jt.adam(0.1), params, count=0)
    assert "kept" not in {line.outcome for line in to_adam.report.lines}
