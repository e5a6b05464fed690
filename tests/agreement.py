"""Following an optimizer through given gradients, beside its reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

STEPS = 50


def replay(seed: int = 0, steps: int = STEPS) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A small tree of float64 parameters and, stacked, the gradients of every step.

    Gradients range over orders of magnitude between entries, drift, and are exactly zero in places: for the first
    steps of one leaf, and always in one entry of another.
    """
    rng = np.random.default_rng(seed)
    shapes = {"matrix": (4, 3), "vector": (5,), "scalar": ()}
    theta = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    gradients = {}
    for name, shape in shapes.items():
        size = 10.0 ** rng.uniform(-3, 2, size=shape)
        gradients[name] = size * (rng.normal(size=(steps, *shape)) + 0.5)
    gradients["vector"][:3] = 0
    gradients["matrix"][:, 0, 0] = 0
    return theta, gradients


def follow(tx: optax.GradientTransformation, theta: Any, gradients: Any) -> Any:
    """The parameters after every step, stacked; in the precision that is switched on."""
    theta = jax.tree.map(jnp.asarray, theta)

    def step(carry: Any, g: Any) -> Any:
        theta, state = carry
        updates, state = tx.update(g, state, theta)
        theta = optax.apply_updates(theta, updates)
        return (theta, state), theta

    return jax.lax.scan(step, (theta, tx.init(theta)), gradients)[1]


def assert_agrees(
    tx: optax.GradientTransformation, by_hand: Callable[..., np.ndarray], skip: int = 0, **arguments: Any
) -> None:
    """`tx` and its reference walk the same path in float64; with `skip`, from where the first steps left them.

    1e-9 after 50 steps: the parameters are of size one and steps at most of size 100, so rounding is below 1e-12;
    dividing by a small root (centered RMSProp) magnifies it at most a thousandfold.
    """
    theta, gradients = replay()
    ours = follow(tx, theta, gradients)
    for name in theta:
        assert ours[name].dtype == np.float64
        expected = by_hand(theta[name], gradients[name], **arguments)
        path = np.asarray(ours[name])
        if skip:
            path, expected = (whole[skip:] - whole[skip - 1] for whole in (path, expected))
        np.testing.assert_allclose(path, expected, rtol=1e-9, atol=1e-9, err_msg=name)
