"""Muon: momentum, orthogonalized; the matrices of a model, with AdamW for the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optax

from jaxopt_tour._checks import check_choice, check_decay_rate, check_float_dtype, check_nonnegative, check_rate
from jaxopt_tour._types import DTypeLike, ScalarOrSchedule
from jaxopt_tour.linalg.schedules import ScheduleLike
from jaxopt_tour.linalg.shape_factors import SHAPE_FACTORS
from jaxopt_tour.matrices.axes import MatrixAxes
from jaxopt_tour.matrices.layouts import Layouts
from jaxopt_tour.matrices.routing import Routing
from jaxopt_tour.optimizers._numerics import scale_by_learning_rate
from jaxopt_tour.optimizers.adam import adamw
from jaxopt_tour.optimizers.momentum import scale_by_momentum
from jaxopt_tour.optimizers.multi_transform import multi_transform
from jaxopt_tour.optimizers.orthogonalize import orthogonalize_via_newton_schulz, scale_by_matrix_shape
from jaxopt_tour.optimizers.weight_decay import add_decayed_weights


def scale_by_muon(
    beta: float = 0.95,
    *,
    nesterov: bool = True,
    bias_correction: bool = False,
    schedule: ScheduleLike = "auto",
    method: str = "auto",
    dtype: DTypeLike | None = None,
    eps: float = 0.0,
    symmetric: str = "auto",
    stacking: str = "auto",
    mesh_axes: str | Sequence[str] | None = None,
    layouts: Layouts | None = None,
    wire_dtype: DTypeLike | None = None,
    mu_dtype: DTypeLike | None = None,
    axes: MatrixAxes | Mapping[str, MatrixAxes] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Momentum, then its orthogonal polar factor. For matrices alone.

    ::

        m_t = beta m_(t-1) + (1 - beta) g_t
        u_t = beta m_t + (1 - beta) g_t              (Nesterov)
        O_t = orthogonalize(u_t)

    With ``bias_correction``, as in Optax: ``u_t = beta m_t / (1 - beta^(t+1)) + (1 - beta) g_t / (1 - beta^t)``. It
    changes the weights of m and g against each other in the first steps, not the size of the update.

    Units: every singular value of an update is near 1.

    Args:
        beta: decay of the momentum, 0 <= beta < 1.
        nesterov: look ahead by one step.
        bias_correction: Optax's; Keller Jordan's and PyTorch's Muon have none.
        schedule: see :func:`jaxopt_tour.orthogonalize_via_newton_schulz`, as for ``method``, ``dtype``, ``eps``,
            ``symmetric``, ``stacking`` and ``axes``.
        method: standard or Gram form of the iteration; inverses have the Gram form alone.
        dtype: of the iteration; None: float32 on CPU, float16 on a GPU, bfloat16 on a TPU.
        eps: added to the prescaling norm.
        symmetric: how products that are known to be symmetric are computed.
        stacking: whether matrices of one shape are worked on together.
        mesh_axes: the mesh axes whose devices share the iteration; None: Explicit ones share it, Auto ones do not.
        layouts: of the parameters, inside ``jax.shard_map``.
        wire_dtype: of matrices on their way between devices.
        mu_dtype: of the momentum; None: the parameter's.
        axes: how parameters are seen as matrices.

    Source: Jordan et al., Muon, 2024, https://kellerjordan.github.io/posts/muon/
    """
    check_decay_rate("beta", beta)
    mu_dtype = check_float_dtype("mu_dtype", mu_dtype)
    return optax.chain(
        scale_by_momentum(beta, form="ema", nesterov=nesterov, bias_correction=bias_correction, mu_dtype=mu_dtype),
        orthogonalize_via_newton_schulz(
            schedule,
            method=method,
            dtype=dtype,
            eps=eps,
            symmetric=symmetric,
            stacking=stacking,
            axes=axes,
            mesh_axes=mesh_axes,
            layouts=layouts,
            wire_dtype=wire_dtype,
        ),
    )


def muon(
    learning_rate: ScalarOrSchedule,
    weight_decay: ScalarOrSchedule = 1e-4,
    *,
    beta: float = 0.95,
    nesterov: bool = True,
    bias_correction: bool = False,
    schedule: ScheduleLike = "auto",
    shape_factor: str | None = "match_rms_adamw",
    method: str = "auto",
    dtype: DTypeLike | None = None,
    eps: float = 0.0,
    symmetric: str = "auto",
    stacking: str = "auto",
    mesh_axes: str | Sequence[str] | None = None,
    layouts: Layouts | None = None,
    wire_dtype: DTypeLike | None = None,
    mu_dtype: DTypeLike | None = None,
    adamw_learning_rate: ScalarOrSchedule | None = None,
    adamw_weight_decay: ScalarOrSchedule | None = None,
    adamw_b1: float = 0.9,
    adamw_b2: float = 0.95,
    adamw_eps: float = 1e-8,
    adamw_nesterov: bool = False,
    weight_decay_mask: Any = None,
    cautious: bool = False,
    routing: Routing = None,
) -> optax.GradientTransformationExtraArgs:
    """Muon for the matrices of a model, AdamW for embeddings, head, norms, biases and everything else.

    ::

        O_t = orthogonalize(nesterov momentum of g_t)
        theta_t = (1 - eta lambda) theta_(t-1) - eta s O_t         s: the shape factor

    ``muon(lr)`` replaces ``adamw(lr)``: under the default shape factor the entries of its updates have the root mean
    square of AdamW's (0.2), so one learning rate and one decay serve both groups.

    Which parameter goes where is read from names and shapes; ``print(jt.routing_table(model))`` shows it. Routing by
    use, ``routing=jt.routing.from_function(model, example_input)``, is right whatever the names.

    Three published parametrizations, each one call::

        muon(lr, wd, schedule="keller_jordan", shape_factor="original", eps=1e-7, adamw_eps=1e-10,
             dtype="bfloat16")                                                                   # Keller Jordan's
        muon(lr, wd, schedule="keller_jordan", shape_factor="original", dtype="bfloat16")         # torch.optim.Muon
        muon(lr, wd, schedule="keller_jordan", shape_factor="original", eps=1e-8, bias_correction=True,
             adamw_b2=0.999, adamw_weight_decay=0.0, adamw_nesterov=True,
             routing=lambda path, leaf: "muon" if leaf.ndim == 2 else "adamw")                    # optax.contrib.muon

    Args:
        learning_rate: eta, a number or a schedule; for both groups unless ``adamw_learning_rate`` is given.
        weight_decay: lambda, decoupled and multiplied by the learning rate, not by s; a number or a schedule.
        beta: decay of the momentum.
        nesterov: look ahead by one step.
        bias_correction: Optax's correction inside Nesterov, see :func:`scale_by_muon`.
        schedule: of the orthogonalization, see :func:`jaxopt_tour.orthogonalize_via_newton_schulz`, as for ``method``,
            ``dtype``, ``eps``, ``symmetric`` and ``stacking``.
        shape_factor: ``"match_rms_adamw"``, ``"original"``, ``"spectral"`` or None, see
            :func:`jaxopt_tour.scale_by_matrix_shape`.
        method: standard or Gram form of the iteration; inverses have the Gram form alone.
        dtype: of the iteration; None: float32 on CPU, float16 on a GPU, bfloat16 on a TPU.
        eps: added to the prescaling norm.
        symmetric: how products that are known to be symmetric are computed.
        stacking: whether matrices of one shape are worked on together.
        mesh_axes: the mesh axes whose devices share the iteration; None: Explicit ones share it, Auto ones do not.
        layouts: of the parameters, inside ``jax.shard_map``.
        wire_dtype: of matrices on their way between devices.
        mu_dtype: of Muon's momentum and AdamW's first moment; None: the parameter's.
        adamw_learning_rate: AdamW's own rate or schedule; None: ``learning_rate``.
        adamw_weight_decay: AdamW's own decay; None: ``weight_decay``.
        adamw_b1: AdamW's beta_1.
        adamw_b2: AdamW's beta_2.
        adamw_eps: AdamW's eps.
        adamw_nesterov: NAdamW in place of AdamW, as ``optax.contrib.muon`` has it.
        weight_decay_mask: a tree of booleans (or a function of the parameters that returns one) that says what is
            decayed, in both groups. None: everything.
        cautious: decay only where update and weight agree in sign.
        routing: overrides, see :func:`jaxopt_tour.matrices.routing.resolve`.

    Raises:
        ValueError: an argument is not one of those allowed; at ``init``, a parameter cannot be what it was routed to.

    Source: Jordan et al., Muon, 2024, https://kellerjordan.github.io/posts/muon/; shape factor and decay: Liu et al.,
    Muon is Scalable for LLM Training, 2025, https://arxiv.org/abs/2502.16982
    """
    check_rate("learning_rate", learning_rate)
    check_rate("weight_decay", weight_decay)
    check_choice("shape_factor", shape_factor, SHAPE_FACTORS)
    if adamw_learning_rate is not None:
        check_rate("adamw_learning_rate", adamw_learning_rate)
    if adamw_weight_decay is not None:
        check_rate("adamw_weight_decay", adamw_weight_decay)
    check_decay_rate("adamw_b1", adamw_b1)
    check_decay_rate("adamw_b2", adamw_b2)
    check_nonnegative("adamw_eps", adamw_eps)
    return multi_transform(
        {
            "muon": optax.chain(
                scale_by_muon(
                    beta,
                    nesterov=nesterov,
                    bias_correction=bias_correction,
                    schedule=schedule,
                    method=method,
                    dtype=dtype,
                    eps=eps,
                    symmetric=symmetric,
                    stacking=stacking,
                    mesh_axes=mesh_axes,
                    layouts=layouts,
                    wire_dtype=wire_dtype,
                    mu_dtype=mu_dtype,
                ),
                scale_by_matrix_shape(shape_factor, layouts=layouts),
                add_decayed_weights(weight_decay, weight_decay_mask, cautious=cautious),
                scale_by_learning_rate(learning_rate),
            ),
            "adamw": adamw(
                learning_rate if adamw_learning_rate is None else adamw_learning_rate,
                adamw_b1,
                adamw_b2,
                adamw_eps,
                weight_decay=weight_decay if adamw_weight_decay is None else adamw_weight_decay,
                mask=weight_decay_mask,
                cautious=cautious,
                nesterov=adamw_nesterov,
                mu_dtype=mu_dtype,
            ),
        },
        routing,
    )
