"""SOAP-Muon: momentum rescaled in SOAP's bases, then orthogonalized; for matrices, with AdamW for the rest."""

from __future__ import annotations

from collections.abc import Mapping

import optax

from jaxopt_tour._checks import check_choice, check_decay_rate, check_float_dtype
from jaxopt_tour._types import Array, DTypeLike, ScalarOrSchedule
from jaxopt_tour.mesh.on_mesh import MeshLike, as_on_mesh
from jaxopt_tour.optimizers._numerics import Scalar, scale_by_learning_rate
from jaxopt_tour.optimizers.matrix_optimizer import Rest, matrix_optimizer
from jaxopt_tour.optimizers.orthogonalize import orthogonalize_via_newton_schulz, scale_by_matrix_shape
from jaxopt_tour.optimizers.soap import scale_by_soap
from jaxopt_tour.optimizers.weight_decay import Mask, add_decayed_weights, masks_by_label
from jaxopt_tour.orthogonalization.orthogonalizer import OrthogonalizerLike
from jaxopt_tour.routing import Routing
from jaxopt_tour.routing.axes import MatrixAxes
from jaxopt_tour.routing.shape_factors import SHAPE_FACTORS, ShapeFactor


def soap_muon(
    learning_rate: ScalarOrSchedule,
    *,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask | None = None,
    cautious: bool = False,
    beta: Scalar = 0.95,
    b2: Scalar = 0.9,
    eps: Scalar = 1e-8,
    shampoo_beta: Scalar | None = None,
    update_every: int | Array = 1,
    max_size: int | None = None,
    nesterov: bool = True,
    orthogonalizer: OrthogonalizerLike = "auto",
    shape_factor: ShapeFactor | None = "match_rms_adamw",
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    rest: Rest = None,
    routing: Routing = None,
    mesh: MeshLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Optimize the matrices of a model with SOAP-Muon, and everything else with AdamW.

    $$
    \begin{aligned}
    P_t &= Q_L^\top \, \text{(Nesterov momentum of } g_t) \, Q_R \\
    v_t &= \beta_2 v_{t-1} + (1 - \beta_2) P_t^2 \\
    O_t &= \operatorname{orthogonalize}\left(Q_L \frac{P_t}{\sqrt{v_t} + \epsilon} Q_R^\top\right) \\
    \theta_t &= (1 - \eta \lambda) \theta_{t-1} - \eta s O_t
    \end{aligned}
    $$

    It is `muon` with `scale_by_soap` in place of the momentum. The bases are SOAP's, of the gradients; unlike in SOAP
    $v$ averages squares of the momentum. What is orthogonalized is back in the parameter's own rows and columns: its
    polar factor rotates along, $\operatorname{polar}(Q_L X Q_R^\top) = Q_L \operatorname{polar}(X) Q_R^\top$, so the
    place of the rotation is a matter of rounding alone. The factor of $v$ cancels, and nothing is bias-corrected.

    The size of an update is Muon's, so Muon's learning rate and decay are where to start. The first update is Muon's.

    Args:
        learning_rate: Step size $\eta$, a number or a schedule of the step count.
        weight_decay: Strength $\lambda$ of the decoupled weight decay, a number or a schedule of the step count. It is
            multiplied by the learning rate, not by $s$. Default 1e-4.
        mask: Parameters that decay: `"matrices"` (what is routed as a matrix), a tree of booleans, or a function of the
            parameters that returns one. Default None: all parameters.
        cautious: Whether to decay only where update and weight agree in sign. Default False.
        beta: Exponential decay rate of the momentum, $0 \le \beta < 1$. Default 0.95.
        b2: Exponential decay rate of $v$, $0 \le \beta_2 < 1$. Default 0.9.
        eps: Constant added to the root. Default 1e-8.
        shampoo_beta: Exponential decay rate of the covariances whose eigenvectors are the bases. Default None: `b2`.
        update_every: Steps between two changes of the bases. Default 1, as in the source; raise it to save time.
        max_size: Longest side that has a basis, see `scale_by_soap`. Default None: 10000.
        nesterov: Whether to use Nesterov momentum. Default True.
        orthogonalizer: A `jt.Orthogonalizer`, or coefficients by name or value. Default `"auto"`.
        shape_factor: Factor $s$ of fan-in and fan-out, see `scale_by_matrix_shape`. Default `"match_rms_adamw"`.
        mu_dtype: Dtype of the momentum, and of the first moment of the default `rest`. Default None: the dtype of the
            parameters.
        nu_dtype: Dtype of $v$, the covariances and the bases, float32 or float64. Default None: the dtype of the
            parameters, but at least float32.
        rest: What optimizes all other parameters: a transformation, or transformations by role, see `muon`. Default
            None: AdamW at this rate and decay, with `b2` of 0.95.
        routing: What each parameter is, see `jt.routing.resolve`. Default None: by name and shape.
        mesh: Mesh axes whose devices share the orthogonalization, by name or as a `jt.OnMesh` without layouts: every
            device computes all bases, for which it needs whole matrices. Default None.

    Returns:
        The optimizer as an Optax transformation.

    Raises:
        ValueError: An argument is not one of those allowed; at `init`, a parameter cannot be what it is routed to.

    Source:
        https://github.com/KellerJordan/modded-nanogpt, track 3, record `20260609_soap_f1_auxb2_clean`, its functions
        `soap_precondition_momentum` and `soap_update_preconditioner`. Not here: its gate between the momentum and
        SOAP's update of attention outputs, its floor on relative updates (`floor_relative_update`) and its brake on
        norms (`radial_brake`). There $\sqrt{v}$ is clipped at $\epsilon$ from below.
    """
    check_choice("shape_factor", shape_factor, SHAPE_FACTORS)
    check_decay_rate("beta", beta)
    mu_dtype = check_float_dtype("mu_dtype", mu_dtype)
    on_mesh = as_on_mesh(mesh)
    if on_mesh is not None and on_mesh.layouts is not None:
        raise ValueError("mesh must have no layouts in soap_muon: a shard inside jax.shard_map has no bases of its own")
    mask_of_matrices, mask_of_rest = masks_by_label(mask)

    def matrices(axes: Mapping[str, MatrixAxes]) -> optax.GradientTransformationExtraArgs:
        return optax.chain(
            scale_by_soap(
                beta,
                b2,
                eps,
                shampoo_beta=shampoo_beta,
                update_every=update_every,
                max_size=max_size,
                bias_correction=False,
                nesterov=nesterov,
                squares_of="momentum",
                first_update="momentum",
                mu_dtype=mu_dtype,
                nu_dtype=nu_dtype,
                axes=axes,
            ),
            orthogonalize_via_newton_schulz(orthogonalizer, mesh=mesh),
            scale_by_matrix_shape(shape_factor, mesh=mesh),
            add_decayed_weights(weight_decay, mask_of_matrices, cautious=cautious),
            scale_by_learning_rate(learning_rate),
        )

    return matrix_optimizer(
        matrices,
        rest,
        learning_rate,
        weight_decay=weight_decay,
        mask=mask_of_rest,
        cautious=cautious,
        mu_dtype=mu_dtype,
        routing=routing,
    )
