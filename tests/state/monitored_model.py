"""A small model, and Muon with one short step, for tests of what is measured in an update."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxopt_tour as jt
from tests.contenders import make_gradients

UP, DOWN = "blocks/0/up/kernel", "blocks/0/down/kernel"
#: The tests look at what is measured, so that one step of the iteration is enough.
SHORT = ((3.4445, -4.7750, 2.0315),)
RATE, DECAY = 0.01, 0.1


def short_muon(**arguments: Any) -> optax.GradientTransformationExtraArgs:
    return jt.muon(RATE, weight_decay=DECAY, orthogonalizer=SHORT, **arguments)


def model(dtype: Any = jnp.float32) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    shapes = {
        "embed": {"embedding": (10, 4)},
        "blocks": {"0": {"up": {"kernel": (4, 6), "bias": (6,)}, "down": {"kernel": (6, 4)}}},
        "head": {"kernel": (4, 10)},
    }
    is_shape = lambda node: isinstance(node, tuple)  # noqa: E731
    return jax.tree.map(lambda shape: jnp.asarray(rng.standard_normal(shape), dtype), shapes, is_leaf=is_shape)


def updated(tx: Any, params: Any, steps: int = 1) -> Any:
    """The state after some steps, each compiled."""
    state = tx.init(params)
    step = jax.jit(tx.update)
    for seed in range(steps):
        updates, state = step(make_gradients(params, seed), state, params)
        params = optax.apply_updates(params, updates)
    return state


def flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])


def norm(x: Any) -> float:
    return float(np.linalg.norm(np.asarray(x, np.float64)))
