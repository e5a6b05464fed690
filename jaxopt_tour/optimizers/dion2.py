"""Dion2: Muon that orthogonalizes the largest rows of its momentum alone, and remembers the others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxopt_tour._checks import check_choice, check_decay_rate, check_float_dtype, check_number
from jaxopt_tour._trees import map_with_names, named_leaves, rebox, unbox
from jaxopt_tour._types import Array, DTypeLike, Float, ScalarOrSchedule, Tree
from jaxopt_tour.mesh.layouts import gathered, laid_like
from jaxopt_tour.mesh.on_mesh import MeshLike, as_on_mesh
from jaxopt_tour.mesh.run import orthogonalize_parameters
from jaxopt_tour.optimizers._matrix_axes import resolve_axes
from jaxopt_tour.optimizers._numerics import (
    Scalar,
    cast_update,
    hyperparameter,
    scale_by_learning_rate,
    widen,
    zeros_like_first_moment,
)
from jaxopt_tour.optimizers._state_check import with_state_check
from jaxopt_tour.optimizers.matrix_optimizer import Rest, matrix_optimizer
from jaxopt_tour.optimizers.orthogonalize import scale_by_matrix_shape
from jaxopt_tour.optimizers.weight_decay import Mask, add_decayed_weights, masks_by_label
from jaxopt_tour.orthogonalization.orthogonalizer import OrthogonalizerLike, as_orthogonalizer
from jaxopt_tour.routing import Routing
from jaxopt_tour.routing.axes import MatrixAxes
from jaxopt_tour.routing.shape_factors import SHAPE_FACTORS, ShapeFactor

_MATRIX = MatrixAxes(1, 2)


class Dion2State(NamedTuple):
    """State of `scale_by_dion2`."""

    count: Array  # type: ignore[assignment]  # t, int32
    residual: Tree  # M, the gradients so far, less what chosen rows have decayed by


def scale_by_dion2(
    fraction: float | Fraction = Fraction(1, 4),
    *,
    decay: Scalar = 0.95,
    orthogonalizer: OrthogonalizerLike = "auto",
    axes: MatrixAxes | Mapping[str, MatrixAxes] | None = None,
    mesh: MeshLike | None = None,
    mu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Orthogonalize the largest rows of the accumulated gradient of every matrix, and leave the others for later.

    $$
    \begin{aligned}
    M &\leftarrow M + g_t \\
    K &= \text{the } \lceil \alpha m \rceil \text{ rows with the largest } |M_i|_1 \\
    U_K &= \operatorname{orthogonalize}(M_K), \qquad U_i = 0 \text{ for } i \notin K \\
    M_K &\leftarrow \mu M_K
    \end{aligned}
    $$

    $|M_i|_1$ is the sum of the sizes of the entries of row $i$. Rows are outputs or inputs, whichever are fewer: $m$ of
    them. A row that is not chosen keeps all of its sum until it is (error feedback). At $\alpha = 1$ it is
    `scale_by_muon` without Nesterov momentum.

    The singular values of the chosen rows of an update are near 1; the others are zero, so its root mean square is
    $\sqrt{\alpha}$ times Muon's.

    **Cost.** The products of the iteration take $\alpha^2$ of Muon's time or less: a sixteenth at the default. The
    choice sums $|M|$ once and sorts $m$ numbers; the state is Muon's, one copy. On a mesh the whole of $M$ is gathered
    for the choice, so no communication is saved. The authors' default chooses among the rows of each shard, which
    saves it, and their updates then depend on the number of devices.

    Args:
        fraction: Fraction $\alpha$ of the rows that is chosen, 0 < fraction <= 1, rounded up. It decides shapes, so it
            cannot be traced. Default 1/4.
        decay: Decay rate $\mu$ of the rows that were chosen, $0 \le \mu < 1$. Default 0.95.
        orthogonalizer: A `jt.Orthogonalizer`, or coefficients by name or value. Default `"auto"`.
        axes: Matrix axes: one `MatrixAxes` for all parameters, or one by path name. Default None: what
            `multi_transform` passes, else the reading by name; a plain 2-D parameter is (in, out). Every matrix of a
            stack, and every part of a fused projection, has a choice of its own.
        mesh: Mesh axes whose devices share the orthogonalization, by name or as a `jt.OnMesh` without layouts. Default
            None.
        mu_dtype: Dtype of $M$. Default None: the dtype of the parameters.

    Returns:
        The Optax transformation; its state has one array of the parameter's shape for every parameter.

    Raises:
        ValueError: An argument is not one of those allowed, such as a mesh with layouts: a shard inside
            `jax.shard_map` has not all rows to choose from. A parameter is no matrix, by its path.

    Source:
        Ahn et al. 2025, https://arxiv.org/abs/2512.16928, and its code, https://github.com/microsoft/dion, with which
        this agrees step by step on one device.
    """
    allowed = "a number with 0 < value <= 1"
    if isinstance(fraction, jax.Array):
        raise ValueError(
            f"fraction must be {allowed}, got an array: it decides shapes. List 'fraction' in static_args of "
            "optax.inject_hyperparams, or pass a fractions.Fraction"
        )
    check_number("fraction", fraction, allowed, lambda number: 0 < number <= 1)
    check_decay_rate("decay", decay)
    mu_dtype = check_float_dtype("mu_dtype", mu_dtype)
    orthogonalizer, on_mesh = as_orthogonalizer(orthogonalizer), as_on_mesh(mesh)
    if on_mesh is not None and on_mesh.layouts is not None:
        raise ValueError(
            "mesh must have no layouts in Dion2: a shard inside jax.shard_map has not all rows to choose from"
        )
    mu = hyperparameter(decay)

    def init(params: Tree) -> Dion2State:
        resolve_axes(axes, None, params, complain=axes is not None)
        return Dion2State(jnp.zeros([], jnp.int32), zeros_like_first_moment(params, mu_dtype))

    def update(
        updates: Tree,
        state: Dion2State,
        params: Tree | None = None,
        *,
        matrix_axes: Mapping[str, MatrixAxes] | None = None,
        **extra_args: Any,
    ) -> tuple[Tree, Dion2State]:
        del extra_args
        views, leaves = resolve_axes(axes, matrix_axes, updates), named_leaves(updates)
        residuals = named_leaves(state.residual)
        likes = leaves if params is None else named_leaves(params)
        stacks: dict[str, list[_Rows]] = {}
        chosen: dict[str, Array] = {}
        for name, g in leaves.items():
            # On Explicit axes the choice needs whole matrices.
            total = gathered(widen(g) + widen(residuals[name]))
            stacks[name] = [_Rows.of(x, fraction) for x in views[name].to_matrices(total)]
            # In the dtype that Muon's iteration gets, which decides in what it runs.
            chosen |= {_key(name, i): rows.chosen().astype(likes[name].dtype) for i, rows in enumerate(stacks[name])}
        orthogonal = orthogonalize_parameters(orthogonalizer, chosen, dict.fromkeys(chosen, _MATRIX), on_mesh)

        def joined(name: str, xs: list[Array], like: Array) -> Array:
            return laid_like(views[name].from_matrices(xs, like.shape), like)

        def final(name: str, leaf: Any) -> Any:
            xs = [rows.update(widen(orthogonal[_key(name, i)])) for i, rows in enumerate(stacks[name])]
            return rebox(leaf, cast_update(joined(name, xs, unbox(leaf)), likes[name]))

        def kept(name: str, leaf: Any) -> Any:
            if name not in stacks:  # without a gradient its state stays
                return leaf
            m = unbox(leaf)
            return rebox(leaf, joined(name, [rows.decayed(mu) for rows in stacks[name]], m).astype(m.dtype))

        new_state = Dion2State(optax.safe_increment(state.count), map_with_names(kept, state.residual))
        return map_with_names(final, updates), new_state

    return with_state_check(optax.GradientTransformationExtraArgs(init, update))


class _Rows(NamedTuple):
    """A batch of matrices as their rows, and which of these are chosen."""

    m: Float[Array, "batch m n"]
    numbers: Array  # (batch, chosen)
    are_outputs: bool

    @classmethod
    def of(cls, x: Float[Array, "batch fan_in fan_out"], fraction: float | Fraction) -> _Rows:
        """The rows along the shorter side, and a fraction of them with the largest sums."""
        _, fan_in, fan_out = x.shape
        m = x.mT if fan_out <= fan_in else x
        _, numbers = jax.lax.top_k(jnp.sum(jnp.abs(m), axis=-1), math.ceil(fraction * m.shape[1]))
        return cls(m, numbers, fan_out <= fan_in)

    def chosen(self) -> Float[Array, "batch chosen n"]:
        return jax.vmap(lambda m, numbers: m[numbers])(self.m, self.numbers)

    def update(self, of_chosen: Float[Array, "batch chosen n"]) -> Float[Array, "batch fan_in fan_out"]:
        """The matrices that have these rows, and zeros elsewhere."""
        return self._with_chosen(jnp.zeros_like(self.m), of_chosen)

    def decayed(self, mu: Scalar) -> Float[Array, "batch fan_in fan_out"]:
        """The matrices with the chosen rows times mu."""
        return self._with_chosen(self.m, mu * self.chosen())

    def _with_chosen(self, m: Array, of_chosen: Array) -> Array:
        m = jax.vmap(lambda m, numbers, rows: m.at[numbers].set(rows))(m, self.numbers, of_chosen)
        return m.mT if self.are_outputs else m


def _key(name: str, part: int) -> str:
    return f"{name}, part {part}"


def dion2(
    learning_rate: ScalarOrSchedule,
    *,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask | None = None,
    cautious: bool = False,
    fraction: float | Fraction = Fraction(1, 4),
    decay: Scalar = 0.95,
    orthogonalizer: OrthogonalizerLike = "auto",
    shape_factor: ShapeFactor | None = "match_rms_adamw",
    mu_dtype: DTypeLike | None = None,
    rest: Rest = None,
    routing: Routing = None,
    mesh: MeshLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Optimize the matrices of a model with Dion2, and everything else with AdamW.

    $$
    \theta_t = (1 - \eta \lambda) \theta_{t-1} - \eta s U_t, \qquad
    U_t: \text{a fraction } \alpha \text{ of the rows of the accumulated gradient, orthogonalized}
    $$

    `scale_by_dion2` has the rule and its cost. The chosen rows move as far as Muon's do, so Muon's learning rate and
    decay are where to start.

    Args:
        learning_rate: Step size $\eta$, a number or a schedule of the step count. The authors' default is 0.01 with the
            shape factor `"spectral"`.
        weight_decay: Strength $\lambda$ of the decoupled weight decay, of all rows, a number or a schedule of the step
            count. It is multiplied by the learning rate, not by $s$. Default 1e-4.
        mask: Parameters that decay: `"matrices"` (what is routed as a matrix), a tree of booleans, or a function of the
            parameters that returns one. Default None: all parameters.
        cautious: Whether to decay only where update and weight agree in sign: then rows that are not chosen do not
            decay. Default False.
        fraction: Fraction $\alpha$ of the rows that is chosen. Default 1/4.
        decay: Decay rate $\mu$ of the chosen rows of the accumulated gradient. Default 0.95.
        orthogonalizer: A `jt.Orthogonalizer`, or coefficients by name or value. Default `"auto"`.
        shape_factor: Factor $s$ of fan-in and fan-out of the whole matrix, see `scale_by_matrix_shape`. Default
            `"match_rms_adamw"`.
        mu_dtype: Dtype of the accumulated gradient, and of the first moment of the default `rest`. Default None: the
            dtype of the parameters.
        rest: What optimizes all other parameters: a transformation, or transformations by role, see `muon`. Default
            None: AdamW at this rate and decay, with `b2` of 0.95.
        routing: What each parameter is, see `jt.routing.resolve`. Default None: by name and shape.
        mesh: Mesh axes whose devices share the orthogonalization, by name or as a `jt.OnMesh` without layouts. Default
            None.

    Returns:
        The optimizer as an Optax transformation.

    Raises:
        ValueError: An argument is not one of those allowed; at `init`, a parameter cannot be what it is routed to.

    Source:
        Ahn et al. 2025, https://arxiv.org/abs/2512.16928, which reports final losses near Muon's at 300 M and 1 B
        parameters. By its code, the choice among the rows of each shard ties with that among all rows at 1 B, and once
        ended 0.09 nats above it at 1.5 B; here it is among all rows.
    """
    check_choice("shape_factor", shape_factor, SHAPE_FACTORS)
    mask_of_matrices, mask_of_rest = masks_by_label(mask)
    matrices = optax.chain(
        scale_by_dion2(fraction, decay=decay, orthogonalizer=orthogonalizer, mesh=mesh, mu_dtype=mu_dtype),
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
