"""Softer means than hyperball against weights that outgrow their updates: a floor, and a brake on growing norms."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
import optax

from jaxopt_tour._checks import check_fraction, check_nonnegative
from jaxopt_tour._types import Array
from jaxopt_tour.mesh.on_mesh import MeshLike, as_on_mesh
from jaxopt_tour.optimizers._matrices import Part, on_matrices
from jaxopt_tour.optimizers._numerics import Scalar, hyperparameter, safe_divide
from jaxopt_tour.routing.axes import MatrixAxes


def floor_relative_update(
    floor: Scalar = 0.35,
    *,
    axes: MatrixAxes | Mapping[str, MatrixAxes] | None = None,
    mesh: MeshLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Scale an update up where it is smaller than a fraction of the norm of its matrix.

    $$
    U \leftarrow \max\left(1, \frac{f |W|_F}{|U|_F}\right) U
    $$

    It comes after the shape factor and before the learning rate, in place of weight decay: as weights grow, so do their
    steps. An update of zeros stays zero.

    Args:
        floor: Least size $f$ of an update relative to its matrix, before the learning rate. Default 0.35.
        axes: Matrix axes: one `MatrixAxes` for all parameters, or one by path name. Default None: what
            `multi_transform` passes, else the reading by name; a plain 2-D parameter is (in, out).
        mesh: Needed inside `jax.shard_map` only: a `jt.OnMesh` whose `layouts` say how parameters are sharded. Default
            None.

    Returns:
        The Optax transformation; it has no state.

    Raises:
        ValueError: `floor` is negative; a parameter is no matrix, by its path; `update` is called without `params`.

    Source:
        modded-nanogpt, track 3, record 9 (https://github.com/KellerJordan/modded-nanogpt/pull/274), with a shape factor
        `"original"` and a rate of 0.0375; later records have 0.3825.
    """
    check_nonnegative("floor", floor)
    f = hyperparameter(floor)

    def rule(update: Part, weight: Part) -> Array:
        size = update.norm("matrix")
        return update.x * jnp.maximum(1, safe_divide(f * weight.norm("matrix"), size))

    return on_matrices(rule, axes, as_on_mesh(mesh), with_params="floor_relative_update")


def radial_brake(
    outward: Scalar = 0.5,
    inward: Scalar = 1.0,
    *,
    axes: MatrixAxes | Mapping[str, MatrixAxes] | None = None,
    mesh: MeshLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Keep a fraction of the change of a matrix's norm, and all of the change of its direction.

    $$
    W_t = \frac{r}{|W'|_F} W', \qquad W' = W_{t-1} + u_t, \quad
    r = |W_{t-1}|_F + s (|W'|_F - |W_{t-1}|_F)
    $$

    $s$ is `outward` where the norm grows and `inward` where it shrinks. With 0 for both, every matrix keeps its norm;
    with 1, nothing changes. It ends a chain, after the learning rate.

    Args:
        outward: Fraction of a growth that is kept, 0 to 1. Default 0.5.
        inward: Fraction of a loss that is kept, 0 to 1. Default 1.
        axes: Matrix axes, as in `floor_relative_update`.
        mesh: Layouts inside `jax.shard_map`, as in `floor_relative_update`.

    Returns:
        The Optax transformation; it has no state.

    Raises:
        ValueError: A fraction is not between 0 and 1; a parameter is no matrix, by its path; `update` is called
            without `params`.

    Source:
        Emerging-Optimizers, weight_update_hooks/radial_brake.py. modded-nanogpt's record 29
        (https://github.com/KellerJordan/modded-nanogpt/pull/294), where it comes from, halves the part of the update
        along $W$ instead, and removes all other growth.
    """
    for name, value in {"outward": outward, "inward": inward}.items():
        check_fraction(name, value)
    kept_outward, kept_inward = hyperparameter(outward), hyperparameter(inward)

    def rule(update: Part, weight: Part) -> Array:
        before = weight.norm("matrix")
        after = weight.x + update.x
        change = weight.norm("matrix", after) - before
        s = jnp.where(change > 0, kept_outward, kept_inward)
        braked = after * safe_divide(before + s * change, before + change) - weight.x
        return jnp.where(s == 1, update.x, braked)  # without the rounding of a sum and a difference

    return on_matrices(rule, axes, as_on_mesh(mesh), with_params="radial_brake")
