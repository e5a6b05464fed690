"""Equal norms within a matrix, and a norm for the whole of it: parts for before and after orthogonalization."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, get_args

import jax.numpy as jnp
import optax

from jaxopt_tour._checks import check_choice, check_nonnegative
from jaxopt_tour._types import Array
from jaxopt_tour.mesh.on_mesh import MeshLike, as_on_mesh
from jaxopt_tour.optimizers._matrices import Along, Part, on_matrices, units_of
from jaxopt_tour.optimizers._numerics import Scalar, hyperparameter, safe_divide
from jaxopt_tour.routing.axes import MatrixAxes

Target = Literal["mean", "unit"]


def equalize_norms(
    along: Along = "outputs",
    *,
    target: Target = "mean",
    eps: Scalar = 1e-7,
    axes: MatrixAxes | Mapping[str, MatrixAxes] | None = None,
    mesh: MeshLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Give every output (or input) of a matrix an update of the same norm.

    $$
    u_i \leftarrow \frac{c}{\max(|u_i|, \epsilon c)} u_i,
    \qquad c = \sqrt{\frac{1}{n} \sum_i |u_i|^2} \text{ or } 1
    $$

    $u_i$ holds the entries of output $i$ (`along="outputs"`: a row of PyTorch's weight, a column of a Flax kernel) and
    $n$ is their number. With `target="mean"` the Frobenius norm of every matrix is kept; scaling a matrix scales its
    result.

    Before orthogonalization it is MuonEq, which balances what the iteration starts from; after it, Muon+, which
    balances what the iteration leaves unbalanced:

    ```python
    optax.chain(
        jt.scale_by_momentum(0.95, form="ema", nesterov=True),
        jt.equalize_norms(),  # MuonEq
        jt.orthogonalize_via_newton_schulz(),
        jt.equalize_norms(target="unit"),  # Muon+
        jt.scale_by_matrix_shape(),
        jt.add_decayed_weights(0.1),
        optax.scale_by_learning_rate(1e-3),
    )
    ```

    The vectors along the shorter side of an exact polar factor have norm 1 already. After an accurate
    orthogonalization, equalizing those therefore changes nothing.

    Args:
        along: Whose norms become equal: `"outputs"` (default), `"inputs"`, or `"longer"`, the more numerous of the
            two. Two in a chain are the two-sided variants.
        target: `"mean"` (default), the root mean square of the norms, or `"unit"`, 1.
        eps: Norms below this fraction of the target are not raised to it. Default 1e-7. Vectors of zeros stay zero.
        axes: Matrix axes: one `MatrixAxes` for all parameters, or one by path name. Default None: what
            `multi_transform` passes, else the reading by name; a plain 2-D parameter is (in, out).
        mesh: Needed inside `jax.shard_map` only: a `jt.OnMesh` whose `layouts` say how parameters are sharded. Sums
            then go over all shards. Default None: parameters are whole, or their arrays know the mesh.

    Returns:
        The Optax transformation; it has no state.

    Raises:
        ValueError: An argument is not one of those allowed; a parameter is no matrix, by its path; inside
            `jax.shard_map`, the fan-out of a fused parameter is sharded.

    Source:
        Chang et al. 2026, https://arxiv.org/abs/2603.28254, variant R (MuonEq); Zhang et al. 2026,
        https://arxiv.org/abs/2602.21545 (Muon+). Their code divides by $\sqrt{|u_i|^2 + \epsilon}$ with an absolute
        $\epsilon$ of 1e-8 and 1e-7, and nanochat by $\max(|u_i|, 10^{-6})$: there, small gradients are not equalized.
    """
    check_choice("along", along, get_args(Along))
    check_choice("target", target, get_args(Target))
    check_nonnegative("eps", eps)
    eps = hyperparameter(eps)

    def rule(part: Part) -> Array:
        units = units_of(along, part.fan_in, part.fan_out)
        norms = part.norm(units.over)
        if target == "mean":
            c = jnp.broadcast_to(part.norm("matrix") / math.sqrt(max(units.number, 1)), norms.shape)
        else:
            c = jnp.ones_like(norms)
        return part.x * safe_divide(c, jnp.maximum(norms, eps * c))

    return on_matrices(rule, axes, as_on_mesh(mesh))


def normalize_frobenius(
    *,
    axes: MatrixAxes | Mapping[str, MatrixAxes] | None = None,
    mesh: MeshLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Scale every matrix to the Frobenius norm of an orthogonal one.

    $$
    U \leftarrow \frac{\sqrt{\min(m, n)}}{|U|_F} U
    $$

    After orthogonalization it corrects an iteration that stopped early, and a gradient of low rank: every update then
    has the root mean square $1 / \sqrt{\max(m, n)}$ of a full-rank one, whatever the coefficients. Then the shape
    factor `"match_rms_adamw"` makes it exactly 0.2. A matrix of zeros stays zero.

    Args:
        axes: Matrix axes, as in `equalize_norms`.
        mesh: Layouts inside `jax.shard_map`, as in `equalize_norms`.

    Returns:
        The Optax transformation; it has no state.

    Raises:
        ValueError: A parameter is no matrix, by its path; inside `jax.shard_map`, the fan-out of a fused parameter is
            sharded.

    Source:
        nanochat, https://github.com/karpathy/nanochat, nanochat/optim.py, which names Muon+ as its source. The paper
        of Muon+ (https://arxiv.org/abs/2602.21545) normalizes rows or columns: `equalize_norms`.
    """

    def rule(part: Part) -> Array:
        norm = part.norm("matrix")
        return part.x * safe_divide(jnp.full_like(norm, part.min_size**0.5), norm)

    return on_matrices(rule, axes, as_on_mesh(mesh))
