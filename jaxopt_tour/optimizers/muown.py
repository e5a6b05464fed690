"""Muown: Muon for the directions of the outputs of a matrix, Adam for their norms."""

from __future__ import annotations

from collections.abc import Mapping

import optax

from jaxopt_tour._checks import check_choice, check_float_dtype
from jaxopt_tour._types import DTypeLike, ScalarOrSchedule
from jaxopt_tour.mesh.on_mesh import MeshLike
from jaxopt_tour.optimizers._numerics import Scalar, scale_by_learning_rate
from jaxopt_tour.optimizers.adam import scale_by_adam
from jaxopt_tour.optimizers.matrix_optimizer import Rest, matrix_optimizer
from jaxopt_tour.optimizers.muon import scale_by_muon
from jaxopt_tour.optimizers.orthogonalize import scale_by_matrix_shape
from jaxopt_tour.optimizers.weight_decay import Mask, add_decayed_weights, masks_by_label
from jaxopt_tour.optimizers.weight_normalization import with_weight_normalization
from jaxopt_tour.orthogonalization.orthogonalizer import OrthogonalizerLike
from jaxopt_tour.routing import Routing
from jaxopt_tour.routing.axes import MatrixAxes
from jaxopt_tour.routing.shape_factors import SHAPE_FACTORS, ShapeFactor


def muown(
    learning_rate: ScalarOrSchedule,
    *,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
    beta: float = 0.95,
    b1: Scalar = 0.9,
    b2: Scalar = 0.95,
    eps: Scalar = 1e-8,
    nesterov: bool = True,
    orthogonalizer: OrthogonalizerLike = "auto",
    shape_factor: ShapeFactor | None = "match_rms_adamw",
    mu_dtype: DTypeLike | None = None,
    rest: Rest = None,
    routing: Routing = None,
    mesh: MeshLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Optimize directions and norms of matrices apart, by Muon and Adam, and everything else with AdamW.

    $$
    \begin{aligned}
    w_i &= \gamma_i v_i / |v_i| \\
    v_t &= v_{t-1} - \eta s \operatorname{orthogonalize}(\text{Nesterov momentum of } g_v) \\
    \gamma_t &= (1 - \eta \lambda) \gamma_{t-1} - \eta \operatorname{Adam}(g_\gamma)
    \end{aligned}
    $$

    $w_i$ holds the weights of output $i$. `with_weight_normalization` has the gradients of $v$ and $\gamma$. The norm
    of an output changes by about $\eta$ a step. Its direction turns by about $0.2 \eta \sqrt{n} / |v_i|$ with the
    default $s$, where $n$ is the number of inputs. $|v_i|$ grows, so these angles fall over a run.

    Args:
        learning_rate: Step size $\eta$ of both, a number or a schedule of the step count. Published runs have 1e-3 to
            3.5e-3.
        weight_decay: Strength $\lambda$ of the decoupled weight decay, of the norms $\gamma$ and of the default `rest`,
            a number or a schedule of the step count. Default 0.
        mask: Parameters that decay: `"matrices"` (what is routed as a matrix), a tree of booleans, or a function of the
            parameters that returns one, which gets norms in place of matrices. Default None: all parameters.
        beta: Exponential decay rate of the momentum of $g_v$, $0 \le \beta < 1$. Default 0.95.
        b1: Exponential decay rate of the first moment of $g_\gamma$. Default 0.9.
        b2: Exponential decay rate of its second moment. Default 0.95.
        eps: Constant added to the denominator of Adam. Default 1e-8.
        nesterov: Whether to use Nesterov momentum for $v$. Default True.
        orthogonalizer: A `jt.Orthogonalizer`, or coefficients by name or value. Default `"auto"`.
        shape_factor: Factor $s$ of fan-in and fan-out, see `scale_by_matrix_shape`. Default `"match_rms_adamw"`, the
            authors'.
        mu_dtype: Dtype of the momentum, and of the first moment of the default `rest`. Default None: the dtype of the
            parameters.
        rest: What optimizes all other parameters: a transformation, or transformations by role, see `muon`. Default
            None: AdamW at this rate and decay, with `b2` of 0.95.
        routing: What each parameter is, see `jt.routing.resolve`. Default None: by name and shape.
        mesh: Mesh axes whose devices share the orthogonalization, by name or as a `jt.OnMesh`. Default None.

    Returns:
        The optimizer as an Optax transformation.

    Raises:
        ValueError: An argument is not one of those allowed; at `init`, a parameter cannot be what it is routed to, or
            an output of a matrix has no weight but zeros.

    Source:
        Lion et al. 2026, https://arxiv.org/abs/2605.10797, and its code, https://github.com/kcc-lion/muown, with which
        this agrees step by step without decay. With decay that code subtracts $\eta \lambda W_{t-1}$ from the new
        weights, which also turns them by $O(\eta^2 \lambda)$; Emerging-Optimizers decays $\gamma$, after Adam's step.
        The code cuts a matrix of three times as many outputs as inputs into three. Emerging-Optimizers has no Nesterov
        momentum. The paper's record in modded-nanogpt also drives $|v_i|$ to a target; that is not here.
    """
    check_choice("shape_factor", shape_factor, SHAPE_FACTORS)
    mu_dtype = check_float_dtype("mu_dtype", mu_dtype)
    mask_of_matrices, mask_of_rest = masks_by_label(mask)

    def matrices(axes: Mapping[str, MatrixAxes]) -> optax.GradientTransformationExtraArgs:
        directions = optax.chain(
            scale_by_muon(beta, nesterov=nesterov, orthogonalizer=orthogonalizer, mesh=mesh, mu_dtype=mu_dtype),
            scale_by_matrix_shape(shape_factor, mesh=mesh),
            scale_by_learning_rate(learning_rate),
        )
        norms = optax.chain(
            scale_by_adam(b1, b2, eps),
            add_decayed_weights(weight_decay, mask_of_matrices),
            scale_by_learning_rate(learning_rate),
        )
        return with_weight_normalization(directions, norms, axes=axes, mesh=mesh)

    return matrix_optimizer(
        matrices,
        rest,
        learning_rate,
        weight_decay=weight_decay,
        mask=mask_of_rest,
        mu_dtype=mu_dtype,
        routing=routing,
    )
