"""What is read off a trajectory: effective rates, angles, singular values, the distance to the lowest value."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from jaxopt_tour._types import Array
from jaxopt_tour.linalg.decompositions import decompose
from jaxopt_tour.tour.rollout import Trajectory


def effective_learning_rate(trajectory: Trajectory) -> Array:
    """`|update| / |gradient|` of every coordinate at every step: the rate at which SGD would have made that step.

    NaN where the gradient is exactly zero and there is no such rate.
    """
    gradient = jnp.abs(_before_each_step(trajectory))
    return jnp.where(gradient == 0, jnp.nan, jnp.abs(trajectory.update) / jnp.where(gradient == 0, 1, gradient))


def angles(trajectory: Trajectory) -> dict[str, Array]:
    """Angles in degrees at every step, 0 to 180.

    Returns:
        `gradient`: between a step and the direction of steepest descent; `previous`: between a step and the one
        before it (NaN at the first).
    """
    axis = _step_axis(trajectory)
    update, gradient = _flat(trajectory.update, axis), _flat(_before_each_step(trajectory), axis)
    before = jnp.concatenate([jnp.full_like(update[..., :1, :], jnp.nan), update[..., :-1, :]], axis=-2)
    return {"gradient": _angle(update, -gradient), "previous": _angle(update, before)}


def singular_values(trajectory: Trajectory) -> dict[str, Array]:
    """Singular values of `gradient`, `momentum` (where there is one) and `update` at every step, largest first.

    A vector is a column: its one singular value is its length.
    """
    axis = _step_axis(trajectory)
    shape = trajectory.update.shape[axis + 1 :]

    def values(x: Array) -> Array:
        matrices = x.reshape(*x.shape[: axis + 1], *(shape if len(shape) > 1 else (*shape, 1)))
        return decompose(functools.partial(jnp.linalg.svd, compute_uv=False), matrices)

    found = {"gradient": values(_before_each_step(trajectory))}
    if "m" in trajectory.state:
        found["momentum"] = values(trajectory.state["m"])
    return found | {"update": values(trajectory.update)}


def gap(trajectory: Trajectory, lowest: float) -> Array:
    """How far the loss is above the lowest value there is; rounding never brings it below zero."""
    return jnp.maximum(trajectory.loss - lowest, 0)


def _step_axis(trajectory: Trajectory) -> int:
    """The axis of the steps, behind those of a sweep."""
    return trajectory.loss.ndim - 1


def _before_each_step(trajectory: Trajectory) -> Array:
    """The gradients that made the steps: all but the last."""
    axis = _step_axis(trajectory)
    return jax.lax.slice_in_dim(trajectory.gradient, 0, trajectory.update.shape[axis], axis=axis)


def _flat(x: Array, axis: int) -> Array:
    return x.reshape(*x.shape[: axis + 1], -1)


def _angle(a: Array, b: Array) -> Array:
    # Of unit vectors, so that squares of tiny steps do not underflow.
    a, b = (x / jnp.max(jnp.abs(x), axis=-1, keepdims=True) for x in (a, b))
    lengths = jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1)
    return jnp.degrees(jnp.arccos(jnp.clip(jnp.sum(a * b, axis=-1) / lengths, -1, 1)))
