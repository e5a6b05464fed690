"""Steepest descent under a norm: the direction of unit norm along which the loss falls fastest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

import jax.numpy as jnp
import optax

from jaxopt_tour._checks import check_choice
from jaxopt_tour._trees import map_with_names, named_leaves, rebox
from jaxopt_tour._types import Array, Tree
from jaxopt_tour.mesh.on_mesh import MeshLike, as_on_mesh
from jaxopt_tour.optimizers._matrices import Over, Part, joined, on_matrices, parts_of
from jaxopt_tour.optimizers._matrix_axes import resolve_axes
from jaxopt_tour.optimizers._numerics import safe_divide
from jaxopt_tour.optimizers.orthogonalize import orthogonalize_via_newton_schulz, scale_by_matrix_shape
from jaxopt_tour.orthogonalization.orthogonalizer import OrthogonalizerLike, as_orthogonalizer
from jaxopt_tour.routing.axes import MatrixAxes

Norm = Literal[
    "l2",
    "rms",
    "linf",
    "spectral",
    "rms_to_rms",
    "column",
    "one_to_rms",
    "row",
    "rms_to_linf",
    "mean_to_linf",
]

#: Norms of arrays of any rank; all others are norms of matrices.
_OF_VECTORS = ("l2", "rms", "linf")

#: What has a Euclidean norm of its own: the whole matrix, each input's vector, or each output's.
_OVER: dict[str, Over] = {
    "l2": "matrix",
    "rms": "matrix",
    "column": "fan_out",
    "one_to_rms": "fan_out",
    "row": "fan_in",
    "rms_to_linf": "fan_in",
}


def scale_by_dual_norm(
    norm: Norm,
    *,
    orthogonalizer: OrthogonalizerLike = "auto",
    axes: MatrixAxes | Mapping[str, MatrixAxes] | None = None,
    mesh: MeshLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Replace every update by the direction of steepest descent under a norm.

    $$
    D = \operatorname*{arg\,max}_{\|D\| \le 1} \langle G, D \rangle, \qquad \langle G, D \rangle = \|G\|_*
    $$

    The negative of $D$ minimizes the linear model of the loss over the unit ball: it is the paper's linear minimization
    oracle. As in Optax, the learning rate brings the sign. $\|\cdot\|_*$ is the dual norm. The norm of $D$ is 1,
    whatever the size of $G$; a gradient of zeros gives zeros.

    Below, $D_i$ holds the `fan_out` entries of input $i$ (a column of PyTorch's weight, a row of a Flax kernel), $D_j$
    the `fan_in` entries of output $j$ (a row of PyTorch's weight), and $|\cdot|$ is Euclidean.

    * `"l2"`: $\|D\|_F$. $D = G / \|G\|_F$: Cauchy-Schwarz is an equality for a multiple of $G$.
    * `"rms"`: $\|D\|_F / \sqrt{n}$ for $n$ entries. $D = \sqrt{n}\, G / \|G\|_F$: the ball of `"l2"`, scaled.
    * `"linf"`: $\max |D_{ij}|$. $D = \operatorname{sign} G$: every entry by itself reaches its bound.
    * `"spectral"`: $\sigma_1(D)$. $D = U V^\top$ for $G = U S V^\top$: in
      $\langle G, D \rangle = \sum_k s_k u_k^\top D v_k$ no $u_k^\top D v_k$ exceeds 1.
    * `"rms_to_rms"`: $\sqrt{\text{fan\_in} / \text{fan\_out}}\, \sigma_1(D)$.
      $D = \sqrt{\text{fan\_out} / \text{fan\_in}}\, U V^\top$: the ball of `"spectral"`, scaled.
    * `"column"`: $\max_i |D_i|$. $D_i = G_i / |G_i|$: `"l2"` for every input by itself.
    * `"one_to_rms"`: $\max_i |D_i| / \sqrt{\text{fan\_out}}$. $D_i = \sqrt{\text{fan\_out}}\, G_i / |G_i|$: `"rms"` for
      every input by itself.
    * `"row"`: $\max_j |D_j|$. $D_j = G_j / |G_j|$: `"l2"` for every output by itself.
    * `"rms_to_linf"`: $\sqrt{\text{fan\_in}} \max_j |D_j|$. $D_j = G_j / (\sqrt{\text{fan\_in}}\, |G_j|)$: the ball of
      `"row"`, scaled.
    * `"mean_to_linf"`: $\text{fan\_in} \max |D_{ij}|$. $D = \operatorname{sign}(G) / \text{fan\_in}$: the ball of
      `"linf"`, scaled.

    A name with `to` is the largest factor by which the matrix changes a norm of its inputs into one of its outputs:
    `rms` is the root mean square, `mean` the mean absolute value, and `one` is for inputs that are one-hot, as those of
    an embedding. `"one_to_rms"` gives every row of an embedding table a root mean square of 1.

    Each matrix of a stack, and each part of a fused projection, has a norm of its own. Under `"l2"`, `"rms"` and
    `"linf"`, an array without matrix axes is one vector. That includes biases of scanned layers.

    Args:
        norm: The name of the norm.
        orthogonalizer: What computes $U V^\top$ for `"spectral"` and `"rms_to_rms"`: a `jt.Orthogonalizer`, or
            coefficients by name or value. Default `"auto"`. Its singular values are near 1; with `"exact"` they are 1.
        axes: Matrix axes: one `MatrixAxes` for all parameters, or one by path name. Default None: what
            `multi_transform` passes, else the reading by name; a plain 2-D parameter is (in, out).
        mesh: Mesh axes whose devices share the orthogonalization, by name or as a `jt.OnMesh`. The other norms need it
            inside `jax.shard_map` only: a `jt.OnMesh` whose `layouts` say how parameters are sharded. Default None.

    Returns:
        The Optax transformation; it has no state.

    Raises:
        ValueError: An argument is not one of those allowed; a parameter is no matrix and the norm is one of matrices,
            by its path; inside `jax.shard_map`, the fan-out of a fused parameter is sharded.

    Source:
        Pethick et al. 2025, https://arxiv.org/abs/2502.07529, tables 1 to 4 (`ColNorm` is `"one_to_rms"`, `RowNorm`
        `"rms_to_linf"`, `Sign` `"mean_to_linf"`, and `"linf"` where it is not normalized). Their code adds 1e-8 to
        the root mean square that it divides by. Bernstein & Newhouse 2024, https://arxiv.org/abs/2409.20325,
        propositions 1 to 8.

    Example:
        >>> import jax.numpy as jnp, jaxopt_tour as jt
        >>> tx = jt.scale_by_dual_norm("one_to_rms")
        >>> gradient = {"kernel": jnp.array([[5.0, -5.0], [0.0, 0.0]])}
        >>> direction, _ = tx.update(gradient, tx.init(gradient))
        >>> direction["kernel"].round(2).tolist()
        [[1.0, -1.0], [0.0, 0.0]]
    """
    check_choice("norm", norm, get_args(Norm))
    orthogonalizer, on_mesh = as_orthogonalizer(orthogonalizer), as_on_mesh(mesh)
    if norm in ("spectral", "rms_to_rms"):
        return optax.chain(
            orthogonalize_via_newton_schulz(orthogonalizer, axes=axes, mesh=mesh),
            scale_by_matrix_shape("spectral" if norm == "rms_to_rms" else None, axes=axes, mesh=mesh),
        )
    if norm not in _OF_VECTORS:
        return on_matrices(lambda part: _direction(norm, part), axes, on_mesh)

    def init(params: Tree) -> optax.EmptyState:
        resolve_axes(axes, None, params, complain=False)
        return optax.EmptyState()

    def update(
        updates: Tree,
        state: optax.EmptyState,
        params: Tree | None = None,
        *,
        matrix_axes: Mapping[str, MatrixAxes] | None = None,
        **extra_args: Any,
    ) -> tuple[Tree, optax.EmptyState]:
        del params, extra_args
        views = resolve_axes(axes, matrix_axes, updates, complain=False)
        parts, leaves = parts_of(updates, views, on_mesh, vectors=True), named_leaves(updates)

        def apply(name: str, leaf: Any) -> Any:
            directions = [_direction(norm, part) for part in parts[name]]
            return rebox(leaf, joined(leaves[name], views.get(name), directions))

        return map_with_names(apply, updates), state

    return optax.GradientTransformationExtraArgs(init, update)


def _direction(norm: Norm, part: Part) -> Array:
    """The direction of one batch of matrices; exactly 0 where what is normalized is 0."""
    if norm == "linf":
        return jnp.sign(part.x)
    if norm == "mean_to_linf":
        return jnp.sign(part.x) / max(part.fan_in, 1)
    size = {
        "rms": math.sqrt(part.fan_in * part.fan_out),
        "one_to_rms": math.sqrt(part.fan_out),
        "rms_to_linf": 1 / math.sqrt(max(part.fan_in, 1)),
    }.get(norm, 1.0)
    return size * safe_divide(part.x, part.norm(_OVER[norm]))
