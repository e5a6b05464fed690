"""NorMuon: Muon whose updates are divided by the size that each output or input has had, at the same norm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, get_args

import jax.numpy as jnp
import optax

from jaxopt_tour._checks import check_choice, check_decay_rate, check_float_dtype, check_nonnegative
from jaxopt_tour._trees import map_with_names, named_leaves, rebox, unbox
from jaxopt_tour._types import Array, DTypeLike, ScalarOrSchedule, Tree
from jaxopt_tour.mesh.on_mesh import MeshLike, as_on_mesh
from jaxopt_tour.optimizers._matrices import (
    Along,
    Part,
    join_numbers,
    joined,
    numbers_shape,
    parts_of,
    same_axes_as_at_init,
    split_numbers,
    units_of,
)
from jaxopt_tour.optimizers._matrix_axes import resolve_axes
from jaxopt_tour.optimizers._numerics import (
    Scalar,
    abs_squared,
    clip_to_square_range,
    hyperparameter,
    safe_divide,
    safe_sqrt,
    scale_by_learning_rate,
    widen,
)
from jaxopt_tour.optimizers.matrix_optimizer import Rest, matrix_optimizer
from jaxopt_tour.optimizers.muon import scale_by_muon
from jaxopt_tour.optimizers.orthogonalize import scale_by_matrix_shape
from jaxopt_tour.optimizers.weight_decay import Mask, add_decayed_weights
from jaxopt_tour.orthogonalization.orthogonalizer import OrthogonalizerLike
from jaxopt_tour.routing import Routing
from jaxopt_tour.routing.axes import MatrixAxes
from jaxopt_tour.routing.shape_factors import SHAPE_FACTORS, ShapeFactor


class NorMuonState(NamedTuple):
    """State of `scale_by_normuon`: a tree like the parameters.

    A parameter (12, 768, 3072) of 12 layers has `unit_nu` of shape (12, 1, 3072), a fused one (batch, units of all
    parts).
    """

    count: Array  # type: ignore[assignment]  # t, int32
    unit_nu: Tree  # v, the average of the mean square of each unit


def scale_by_normuon(
    b2: Scalar = 0.95,
    *,
    along: Along = "longer",
    eps: Scalar = 1e-10,
    axes: MatrixAxes | Mapping[str, MatrixAxes] | None = None,
    mesh: MeshLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Divide every output or input of an orthogonalized update by its running size, and keep the Frobenius norm.

    $$
    \begin{aligned}
    v_i &\leftarrow \beta_2 v_i + (1 - \beta_2) \operatorname{mean}(O_i^2) \\
    \hat O_i &= \frac{O_i}{\sqrt{v_i} + \epsilon} \\
    U &= \frac{|O|_F}{|\hat O|_F} \hat O
    \end{aligned}
    $$

    $O_i$ holds the entries of output $i$, or of input $i$. $v$ starts at zero without a correction: a common factor of
    all $v_i$ cancels. At $\beta_2 = 0$ all $U_i$ have equal norm, as after `equalize_norms`.

    The size of an update is that of what comes in. The vectors along the shorter side of an exact polar factor have
    norm 1 already, so that only the statistic along the longer side changes an accurately orthogonalized update. With
    Keller Jordan's five steps, whose singular values range from 0.7 to 1.2, the other one changes it too.

    Args:
        b2: Exponential decay rate of past mean squares, $0 \le \beta_2 < 1$. Default 0.95.
        along: Whose size is averaged: `"longer"` (default) the more numerous of outputs and inputs, `"outputs"`, or
            `"inputs"`.
        eps: Constant added to the root. Default 1e-10.
        axes: Matrix axes: one `MatrixAxes` for all parameters, or one by path name. Default None: the reading by name;
            a plain 2-D parameter is (in, out). Inside `multi_transform`, pass what it hands to a function in place of
            a transformation.
        mesh: Needed inside `jax.shard_map` only: a `jt.OnMesh` whose `layouts` say how parameters are sharded. The
            state is then sharded like its parameter along the axes that both have. Default None.

    Returns:
        The Optax transformation; its state has one float32 number an output or input.

    Raises:
        ValueError: An argument is out of range; at `init`, a parameter is no matrix, by its path; a parameter is
            routed with other axes than at `init`.

    Source:
        Li et al. 2025, https://arxiv.org/abs/2510.05491, algorithm 1. The paper, its code and Dion average along
        outputs; modded-nanogpt and nanochat along the longer side. The paper rescales $\hat O$ to the root mean square
        0.2, its code and all others to the norm of $O$. modded-nanogpt and nanochat divide by
        $\sqrt{\max(v_i, 10^{-10})}$, Dion has an $\epsilon$ of 1e-8.
    """
    check_decay_rate("b2", b2)
    check_choice("along", along, get_args(Along))
    check_nonnegative("eps", eps)
    b2, eps, on_mesh = hyperparameter(b2), hyperparameter(eps), as_on_mesh(mesh)

    def init(params: Tree) -> NorMuonState:
        views, leaves = resolve_axes(axes, None, params), named_leaves(params)

        def zeros(name: str, leaf: Any) -> Any:
            shape = numbers_shape(views[name], tuple(leaves[name].shape), along)
            return rebox(leaf, jnp.zeros(shape, jnp.promote_types(leaves[name].dtype, jnp.float32)))

        return NorMuonState(jnp.zeros([], jnp.int32), map_with_names(zeros, params))

    def update(
        updates: Tree,
        state: NorMuonState,
        params: Tree | None = None,
        *,
        matrix_axes: Mapping[str, MatrixAxes] | None = None,
        **extra_args: Any,
    ) -> tuple[Tree, NorMuonState]:
        del params, extra_args
        views = resolve_axes(axes, None, updates)
        if axes is None:
            same_axes_as_at_init("scale_by_normuon", views, matrix_axes)
        parts, old = parts_of(updates, views, on_mesh), named_leaves(state.unit_nu)
        scaled: dict[str, Array] = {}
        averages: dict[str, Array] = {}
        leaves = named_leaves(updates)
        for name, leaf in leaves.items():
            pieces = split_numbers(old[name], parts[name], views[name], along)
            pairs = [_normalize(part, widen(v), b2, eps, along) for part, v in zip(parts[name], pieces, strict=True)]
            scaled[name] = joined(leaf, views[name], [u for u, _ in pairs])
            averages[name] = join_numbers([v for _, v in pairs], views[name], old[name])
        # Where a parameter had no gradient its state stays.
        unit_nu = map_with_names(lambda name, leaf: rebox(leaf, averages.get(name, unbox(leaf))), state.unit_nu)
        u = map_with_names(lambda name, leaf: rebox(leaf, scaled[name]), updates)
        return u, NorMuonState(optax.safe_increment(state.count), unit_nu)

    return optax.GradientTransformationExtraArgs(init, update)


def _normalize(part: Part, v: Array, b2: Scalar, eps: Scalar, along: Along) -> tuple[Array, Array]:
    """The rule for one batch of matrices: U and the new v."""
    units = units_of(along, part.fan_in, part.fan_out)
    o = clip_to_square_range(part.x)
    v = b2 * v + (1 - b2) * part.sum(abs_squared(o), units.over) / max(units.size, 1)
    o_hat = o * safe_divide(jnp.ones_like(v), safe_sqrt(v) + eps)
    return o_hat * safe_divide(part.norm("matrix"), part.norm("matrix", o_hat)), v


def normuon(
    learning_rate: ScalarOrSchedule,
    *,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask | None = None,
    cautious: bool = False,
    beta: float = 0.95,
    b2: Scalar = 0.95,
    along: Along = "longer",
    nesterov: bool = True,
    orthogonalizer: OrthogonalizerLike = "auto",
    shape_factor: ShapeFactor | None = "match_rms_adamw",
    mu_dtype: DTypeLike | None = None,
    rest: Rest = None,
    routing: Routing = None,
    mesh: MeshLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Optimize the matrices of a model with NorMuon, and everything else with AdamW.

    $$
    \begin{aligned}
    O_t &= \operatorname{orthogonalize}(\text{Nesterov momentum of } g_t) \\
    \theta_t &= (1 - \eta \lambda) \theta_{t-1} - \eta s \operatorname{normalize}(O_t)
    \end{aligned}
    $$

    It is `muon` with `scale_by_normuon` after the orthogonalization. The size of an update is Muon's, so Muon's
    learning rate and decay are where to start.

    Args:
        learning_rate: Step size $\eta$, a number or a schedule of the step count.
        weight_decay: Strength $\lambda$ of the decoupled weight decay, a number or a schedule of the step count. It is
            multiplied by the learning rate, not by $s$. Default 1e-4.
        mask: Parameters that decay: a tree of booleans, a prefix of one, or a function from the parameters to such a
            tree. Default None: all parameters.
        cautious: Whether to decay only where update and weight agree in sign. Default False.
        beta: Exponential decay rate of the momentum, $0 \le \beta < 1$. Default 0.95.
        b2: Exponential decay rate of the statistic, $0 \le \beta_2 < 1$. Default 0.95.
        along: Whose size is averaged: `"longer"` (default), `"outputs"` (the paper) or `"inputs"`, see
            `scale_by_normuon`.
        nesterov: Whether to use Nesterov momentum. Default True.
        orthogonalizer: A `jt.Orthogonalizer`, or coefficients by name or value. Default `"auto"`.
        shape_factor: Factor $s$ of fan-in and fan-out, see `scale_by_matrix_shape`. Default `"match_rms_adamw"`.
        mu_dtype: Dtype of the momentum, and of the first moment of the default `rest`. Default None: the dtype of the
            parameters.
        rest: What optimizes all other parameters: a transformation, or transformations by role, see `muon`. Default
            None: AdamW at this rate and decay, with `b2` of 0.95.
        routing: What each parameter is, see `jt.routing.resolve`. Default None: by name and shape.
        mesh: Mesh axes whose devices share the orthogonalization, by name or as a `jt.OnMesh`. Default None.

    Returns:
        The optimizer as an Optax transformation.

    Raises:
        ValueError: An argument is not one of those allowed; at `init`, a parameter cannot be what it is routed to.

    Source:
        Li et al. 2025, https://arxiv.org/abs/2510.05491; `scale_by_normuon` says where implementations differ.
    """
    check_choice("shape_factor", shape_factor, SHAPE_FACTORS)
    mu_dtype = check_float_dtype("mu_dtype", mu_dtype)

    def matrices(axes: Mapping[str, MatrixAxes]) -> optax.GradientTransformationExtraArgs:
        return optax.chain(
            scale_by_muon(beta, nesterov=nesterov, orthogonalizer=orthogonalizer, mesh=mesh, mu_dtype=mu_dtype),
            scale_by_normuon(b2, along=along, axes=axes, mesh=mesh),
            scale_by_matrix_shape(shape_factor, mesh=mesh),
            add_decayed_weights(weight_decay, mask, cautious=cautious),
            scale_by_learning_rate(learning_rate),
        )

    return matrix_optimizer(
        matrices,
        rest,
        learning_rate,
        weight_decay=weight_decay,
        mask=mask,
        cautious=cautious,
        mu_dtype=mu_dtype,
        routing=routing,
    )
