"""Muon: momentum, orthogonalized; for the matrices of a model, with AdamW for the rest."""

from __future__ import annotations

from collections.abc import Mapping

import optax

from jaxopt_tour._checks import check_choice, check_decay_rate, check_flag, check_float_dtype
from jaxopt_tour._types import DTypeLike, ScalarOrSchedule
from jaxopt_tour.mesh.on_mesh import MeshLike
from jaxopt_tour.optimizers._numerics import scale_by_learning_rate
from jaxopt_tour.optimizers.matrix_optimizer import Rest, matrix_optimizer
from jaxopt_tour.optimizers.momentum import scale_by_momentum
from jaxopt_tour.optimizers.orthogonalize import orthogonalize_via_newton_schulz, scale_by_matrix_shape
from jaxopt_tour.optimizers.weight_decay import Mask, add_decayed_weights, masks_by_label
from jaxopt_tour.orthogonalization.orthogonalizer import OrthogonalizerLike
from jaxopt_tour.routing import MatrixAxes, Routing
from jaxopt_tour.routing.shape_factors import SHAPE_FACTORS, ShapeFactor


def scale_by_muon(
    beta: float = 0.95,
    *,
    nesterov: bool = True,
    bias_correction: bool = False,
    orthogonalizer: OrthogonalizerLike = "auto",
    axes: MatrixAxes | Mapping[str, MatrixAxes] | None = None,
    mesh: MeshLike | None = None,
    mu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Replace the gradient of every matrix by the orthogonal polar factor of its momentum.

    $$
    \begin{aligned}
    m_t &= \beta m_{t-1} + (1 - \beta) g_t \\
    u_t &= \beta m_t + (1 - \beta) g_t \qquad \text{(Nesterov)} \\
    O_t &= \operatorname{orthogonalize}(u_t)
    \end{aligned}
    $$

    With `bias_correction`, as in Optax, $u_t = \beta m_t / (1 - \beta^{t+1}) + (1 - \beta) g_t / (1 - \beta^t)$. It
    changes the weights of $m$ and $g$ against each other in the first steps, not the size of the update. The momentum
    as a sum, $m_t = \beta m_{t-1} + g_t$, gives the same updates: orthogonalization does not see the factor.

    Every singular value of an update is near 1, whatever the size of the gradient.

    Args:
        beta: Exponential decay rate of the momentum, $0 \le \beta < 1$. Default 0.95.
        nesterov: Whether to use Nesterov momentum. Default True.
        bias_correction: Whether to use Optax's correction. Default False: Keller Jordan's and PyTorch's Muon have none.
        orthogonalizer: An `Orthogonalizer`, or coefficients by name or value, such as `"fast"`. Default `"auto"`.
        axes: How parameters are seen as matrices, see `orthogonalize_via_newton_schulz`.
        mesh: Mesh axes whose devices share the work, by name or as an `OnMesh`. Default None.
        mu_dtype: Dtype of the momentum. Default None: the dtype of the parameters.

    Raises:
        ValueError: An argument is not one of those allowed; at `init`, a parameter that is no matrix, by its path.

    Source: Jordan et al., Muon, 2024, https://kellerjordan.github.io/posts/muon/
    """
    check_decay_rate("beta", beta)
    check_flag("nesterov", nesterov)
    mu_dtype = check_float_dtype("mu_dtype", mu_dtype)
    return optax.chain(
        scale_by_momentum(beta, form="ema", nesterov=nesterov, bias_correction=bias_correction, mu_dtype=mu_dtype),
        orthogonalize_via_newton_schulz(orthogonalizer, axes=axes, mesh=mesh),
    )


def muon(
    learning_rate: ScalarOrSchedule,
    *,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask | None = None,
    cautious: bool = False,
    beta: float = 0.95,
    nesterov: bool = True,
    bias_correction: bool = False,
    orthogonalizer: OrthogonalizerLike = "auto",
    shape_factor: ShapeFactor | None = "match_rms_adamw",
    mu_dtype: DTypeLike | None = None,
    rest: Rest = None,
    routing: Routing = None,
    mesh: MeshLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Optimize the matrices of a model with Muon; embeddings, head, norms, biases and everything else with AdamW.

    $$
    \begin{aligned}
    O_t &= \operatorname{orthogonalize}(\text{Nesterov momentum of } g_t) \\
    \theta_t &= (1 - \eta \lambda) \theta_{t-1} - \eta s O_t
    \end{aligned}
    $$

    $s$ is the shape factor. By default the entries of an update have the root mean square of AdamW's, $0.2 \eta$, so
    one learning rate and one decay serve both groups: start at AdamW's rate, then try 2 and 4 times that.

    `print(jt.routing_table(model))` shows which parameter goes where, and `print(jt.plan(model, platform="tpu"))`
    what is done to the matrices. Routing by use, `routing=jt.routing.from_function(model, example_input)`, does not
    depend on names.

    `init` logs one line, `matrix 62 parameters (88.1 %), embedding 2, ...`, at level INFO, and warns if matrices
    with more than 2 % of the elements are not understood. `logging.getLogger("jaxopt_tour").setLevel("ERROR")`
    silences both.

    Published parametrizations, each one call:

    ```python
    kj = jt.Orthogonalizer("keller_jordan", dtype="bfloat16")
    jt.muon(lr, weight_decay=wd, orthogonalizer=kj, shape_factor="original")                    # torch.optim.Muon
    jt.muon(lr, weight_decay=wd, shape_factor="original",                                       # Keller Jordan's
            orthogonalizer=jt.Orthogonalizer("keller_jordan", dtype="bfloat16", eps=1e-7),
            rest=jt.adamw(lr_rest, b2=0.95, eps=1e-10, weight_decay=wd))
    jt.muon(lr, weight_decay=wd, shape_factor="original", bias_correction=True,                 # optax.contrib.muon
            orthogonalizer=jt.Orthogonalizer("keller_jordan", eps=1e-8),
            rest=jt.adamw(lr, weight_decay=0.0, nesterov=True),
            routing=lambda path, leaf: "matrix" if leaf.ndim == 2 else "other")
    ```

    Args:
        learning_rate: Step size $\eta$, a number or a schedule of the step count.
        weight_decay: Strength $\lambda$ of the decoupled weight decay, a number or a schedule of the step count. It is
            multiplied by the learning rate, not by $s$. Default 1e-4.
        mask: what is decayed: `"matrices"` (what is routed as a matrix), a tree of booleans, or a function of the
            parameters that returns one. None: everything.
        cautious: Whether to decay only where update and weight agree in sign. Default False.
        beta: Exponential decay rate of the momentum. Default 0.95. Lower it (0.9) for short runs.
        nesterov: Whether to use Nesterov momentum. Default True.
        bias_correction: Whether to use Optax's correction inside Nesterov, see `scale_by_muon`. Default False.
        orthogonalizer: An `Orthogonalizer`, or coefficients by name or value, such as `"fast"`. Default `"auto"`.
        shape_factor: $s$: `"match_rms_adamw"` (default), `"original"`, `"spectral"` or None, see
            `scale_by_matrix_shape`.
        mu_dtype: Dtype of the momentum, and of the first moment of the default `rest`. Default None: the dtype of the
            parameters.
        rest: What optimizes all other parameters. Default None: AdamW at this rate and decay, with b2 = 0.95. A
            transformation, or one by role:
            `{"embedding": jt.adamw(1e-2), "head": jt.adamw(1e-3), "other": jt.adamw(3e-3)}`.
        routing: What each parameter is, see `jt.routing.resolve`. Default None: by name and shape.
        mesh: Mesh axes whose devices share the work, by name or as an `OnMesh`. Default None.

    Raises:
        ValueError: An argument is not one of those allowed; at `init`, a parameter cannot be what it is routed to.

    Source: Jordan et al., Muon, 2024, https://kellerjordan.github.io/posts/muon/; shape factor and decay: Liu et al.,
    Muon is Scalable for LLM Training, 2025, https://arxiv.org/abs/2502.16982
    """
    check_choice("shape_factor", shape_factor, SHAPE_FACTORS)
    mask_of_matrices, mask_of_rest = masks_by_label(mask)
    matrices = optax.chain(
        scale_by_muon(
            beta,
            nesterov=nesterov,
            bias_correction=bias_correction,
            orthogonalizer=orthogonalizer,
            mesh=mesh,
            mu_dtype=mu_dtype,
        ),
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
