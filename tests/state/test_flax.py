"""A migrated state goes on in Flax's own holders of optimizer state as it does in plain Optax."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import linen, nnx
from flax.training.train_state import TrainState

import jaxopt_tour as jt

pytestmark = pytest.mark.versions
X = jnp.sin(jnp.arange(24.0).reshape(4, 6))
THEIRS, OURS = optax.adamw(0.1, weight_decay=0.1), jt.adamw(0.1, weight_decay=0.1)


def loss(y: Any) -> Any:
    return jnp.mean(jnp.square(y - X[:, :3]))


def test_nnx_optimizer() -> None:
    """Three steps with Optax's AdamW and two with ours are five with Optax's."""
    model, twin = (nnx.Linear(6, 3, rngs=nnx.Rngs(0)) for _ in range(2))

    def step(model: Any, optimizer: Any) -> None:
        optimizer.update(model, nnx.grad(lambda model: loss(model(X)))(model))

    before, expected = (nnx.Optimizer(one, THEIRS, wrt=nnx.Param) for one in (model, twin))
    for _ in range(3):
        step(model, before)
    for _ in range(5):
        step(twin, expected)

    migration = jt.migrate_state(before.opt_state, OURS, nnx.state(model, nnx.Param))
    assert migration.report.is_complete
    optimizer = nnx.Optimizer(model, OURS, wrt=nnx.Param)
    structure = jax.tree.structure(optimizer.opt_state)
    optimizer.opt_state = jax.tree.unflatten(structure, jax.tree.leaves(migration.state))
    optimizer.step = before.step
    compiled = nnx.jit(step)
    for _ in range(2):
        compiled(model, optimizer)
    assert jax.tree.structure(optimizer.opt_state) == structure
    assert int(jax.tree.leaves(optimizer.step)[0]) == 5
    # Rounding: bias corrections are computed otherwise, and the compiler may fuse.
    pair = (nnx.to_pure_dict(nnx.state(one, nnx.Param)) for one in (model, twin))
    chex.assert_trees_all_close(*pair, rtol=1e-4, atol=1e-6)


def test_linen_train_state() -> None:
    model = linen.Dense(3)
    params = model.init(jax.random.key(0), X)["params"]
    start = TrainState.create(apply_fn=model.apply, params=params, tx=THEIRS)

    @jax.jit
    def step(state: TrainState) -> TrainState:
        return state.apply_gradients(grads=jax.grad(lambda p: loss(state.apply_fn({"params": p}, X)))(state.params))

    before = step(step(start))
    expected = step(before)
    migration = jt.migrate_state(before.opt_state, OURS, before.params)
    assert migration.report.is_complete
    after = step(before.replace(tx=OURS, opt_state=migration.state))
    assert after.step == 3
    chex.assert_trees_all_close(after.params, expected.params, rtol=1e-4, atol=1e-6)
