"""Hyperball: every matrix keeps its norm, and the learning rate is the relative length of a step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from jaxopt_tour._checks import check_decay_rate, check_float_dtype, check_nonnegative, check_rate
from jaxopt_tour._trees import map_with_names, named_leaves, rebox
from jaxopt_tour._types import Array, DTypeLike, ScalarOrSchedule, Tree
from jaxopt_tour.mesh.on_mesh import MeshLike, as_on_mesh
from jaxopt_tour.optimizers._matrices import (
    Part,
    check_nonzero,
    join_numbers,
    joined,
    parts_of,
    same_axes_as_at_init,
    split_numbers,
)
from jaxopt_tour.optimizers._matrix_axes import resolve_axes
from jaxopt_tour.optimizers._numerics import Scalar, hyperparameter, safe_divide, widen
from jaxopt_tour.optimizers.adam import scale_by_adam
from jaxopt_tour.optimizers.matrix_optimizer import Rest, matrix_optimizer
from jaxopt_tour.optimizers.muon import scale_by_muon
from jaxopt_tour.orthogonalization.orthogonalizer import OrthogonalizerLike
from jaxopt_tour.routing import Routing
from jaxopt_tour.routing.axes import MatrixAxes


class HyperballState(NamedTuple):
    """State of `hyperball`: a tree like the parameters.

    A parameter (12, 768, 3072) of 12 layers has `radius` of shape (12, 1, 1), a fused one (batch, parts).
    """

    count: Array  # type: ignore[assignment]  # t, int32
    radius: Tree  # R, the norm of each matrix at init


def hyperball(
    learning_rate: ScalarOrSchedule,
    *,
    axes: MatrixAxes | Mapping[str, MatrixAxes] | None = None,
    mesh: MeshLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Take a step of a fixed relative length, and put every matrix back to the norm that it had at `init`.

    $$
    W_t = R \operatorname{normalize}\left(W_{t-1} - \eta R \operatorname{normalize}(u_t)\right),
    \qquad \operatorname{normalize}(X) = X / |X|_F, \quad R = |W_0|_F
    $$

    It ends a chain, in place of the shape factor, the weight decay and the learning rate: the size of what comes in
    does not matter. $\eta$ is nearly the angle, in radians, by which a matrix turns in a step at right angles to it.
    Levanter's advice for a rate $\eta$ and a decay $\lambda$ that worked is $\sqrt{\eta \lambda}$.

    ```python
    optax.chain(jt.scale_by_muon(), jt.hyperball(0.02))  # the matrices of muonh
    ```

    Args:
        learning_rate: Step size $\eta$, a number or a schedule of the step count. Published runs start at 0.014 to
            0.03.
        axes: Matrix axes: one `MatrixAxes` for all parameters, or one by path name. Default None: the reading by name;
            a plain 2-D parameter is (in, out). Inside `multi_transform`, pass what it hands to a function in place of
            a transformation. Every matrix of a stack, and every part of a fused projection, has a norm of its own.
        mesh: Needed inside `jax.shard_map` only: a `jt.OnMesh` whose `layouts` say how parameters are sharded. Default
            None.

    Returns:
        The Optax transformation; its state has one number a matrix. Its updates are added to the parameters as they
        are.

    Raises:
        ValueError: The rate is neither a number >= 0 nor a schedule; at `init`, a parameter is no matrix, or a matrix
            of it is zero, by its path; `update` is called without `params`. Where `init` runs under `jit`, as in
            `jt.sharded_state`, values are unknown: a matrix of zeros then stays zero.

    Source:
        Wen et al. 2026, https://arxiv.org/abs/2606.16899. R is the norm at the start there; Levanter and
        modded-nanogpt take the norm before each step, which drifts by rounding. Emerging-Optimizers asks for one norm
        for all matrices.
    """
    check_rate("learning_rate", learning_rate)
    on_mesh = as_on_mesh(mesh)

    def init(params: Tree) -> HyperballState:
        views = resolve_axes(axes, None, params)
        parts = parts_of(params, views, on_mesh)
        norms = {name: [part.norm("matrix") for part in of_leaf] for name, of_leaf in parts.items()}
        for name, leaf in named_leaves(params).items():
            check_nonzero(name, leaf, norms[name], "matrix of zeros: hyperball keeps norms")

        def radius(name: str, leaf: Any) -> Any:
            return rebox(leaf, join_numbers(norms[name], views[name]))

        return HyperballState(jnp.zeros([], jnp.int32), map_with_names(radius, params))

    def update(
        updates: Tree,
        state: HyperballState,
        params: Tree | None = None,
        *,
        matrix_axes: Mapping[str, MatrixAxes] | None = None,
        **extra_args: Any,
    ) -> tuple[Tree, HyperballState]:
        del extra_args
        if params is None:
            raise ValueError("hyperball needs the parameters: call update(updates, state, params)")
        views = resolve_axes(axes, None, updates)
        if axes is None:
            same_axes_as_at_init("hyperball", views, matrix_axes)
        eta = hyperparameter(learning_rate(state.count) if callable(learning_rate) else learning_rate)
        leaves, radii = named_leaves(params), named_leaves(state.radius)
        directions, weights = parts_of(updates, views, on_mesh), parts_of(params, views, on_mesh)

        def step(name: str, leaf: Any) -> Any:
            rows = zip(
                directions[name],
                weights[name],
                split_numbers(radii[name], weights[name], views[name], None),
                strict=True,
            )
            steps = [_step(direction, weight, widen(radius), eta) for direction, weight, radius in rows]
            return rebox(leaf, joined(leaves[name], views[name], steps))

        return map_with_names(step, updates), HyperballState(optax.safe_increment(state.count), state.radius)

    return optax.GradientTransformationExtraArgs(init, update)


def _step(direction: Part, weight: Part, radius: Array, eta: Scalar) -> Array:
    """The step of one batch of matrices, from W to its successor on the sphere."""
    w, u = weight.x, direction.x
    u = u * safe_divide(jnp.ones_like(radius), direction.norm("matrix"))
    ahead = w - eta * radius * u
    ahead = ahead * safe_divide(radius, weight.norm("matrix", ahead))
    # A rate of zero moves nothing, not even back to the sphere by what rounding moved.
    return jnp.where(jnp.asarray(eta) == 0, 0, ahead - w)


def muonh(
    learning_rate: ScalarOrSchedule,
    *,
    beta: float = 0.95,
    nesterov: bool = True,
    orthogonalizer: OrthogonalizerLike = "auto",
    mu_dtype: DTypeLike | None = None,
    rest: Rest = None,
    routing: Routing = None,
    mesh: MeshLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Optimize the matrices of a model with Muon at constant norms, and everything else with AdamW.

    $$
    \begin{aligned}
    O_t &= \operatorname{orthogonalize}(\text{Nesterov momentum of } g_t) \\
    W_t &= R \operatorname{normalize}\left(W_{t-1} - \eta R \operatorname{normalize}(O_t)\right)
    \end{aligned}
    $$

    `hyperball` has the rule. There is no weight decay: matrices keep the norm $R$ of their initialization, so that
    this matters more than elsewhere, and none may start at zero.

    Args:
        learning_rate: Step size $\eta$ relative to the norm of a matrix, a number or a schedule of the step count.
            Published runs start at 0.014 to 0.03.
        beta: Exponential decay rate of the momentum, $0 \le \beta < 1$. Default 0.95.
        nesterov: Whether to use Nesterov momentum. Default True.
        orthogonalizer: A `jt.Orthogonalizer`, or coefficients by name or value. Default `"auto"`.
        mu_dtype: Dtype of the momentum, and of the first moment of the default `rest`. Default None: the dtype of the
            parameters.
        rest: What optimizes all other parameters: a transformation, or transformations by role, see `muon`. Default
            None: AdamW at this rate without decay. The rate of matrices is no rate for embeddings and the head: set
            `rest`. Levanter has `jt.adamw(6e-4, weight_decay=0.0)` beside a rate of 0.02.
        routing: What each parameter is, see `jt.routing.resolve`. Default None: by name and shape.
        mesh: Mesh axes whose devices share the orthogonalization, by name or as a `jt.OnMesh`. Default None.

    Returns:
        The optimizer as an Optax transformation.

    Raises:
        ValueError: An argument is not one of those allowed; at `init`, a parameter cannot be what it is routed to, or a
            matrix is zero.

    Source:
        Wen et al. 2026, https://arxiv.org/abs/2606.16899.
    """
    check_decay_rate("beta", beta)
    mu_dtype = check_float_dtype("mu_dtype", mu_dtype)

    def matrices(axes: Mapping[str, MatrixAxes]) -> optax.GradientTransformationExtraArgs:
        return optax.chain(
            scale_by_muon(beta, nesterov=nesterov, orthogonalizer=orthogonalizer, mesh=mesh, mu_dtype=mu_dtype),
            hyperball(learning_rate, axes=axes, mesh=mesh),
        )

    return matrix_optimizer(matrices, rest, learning_rate, mu_dtype=mu_dtype, routing=routing)


def adamh(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.95,
    eps: Scalar = 1e-8,
    *,
    mu_dtype: DTypeLike | None = None,
    rest: Rest = None,
    routing: Routing = None,
    mesh: MeshLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Optimize the matrices of a model with Adam at constant norms, and everything else with AdamW.

    $$
    W_t = R \operatorname{normalize}\left(W_{t-1} - \eta R \operatorname{normalize}(u_t)\right),
    \qquad u_t: \text{the update of Adam}
    $$

    `hyperball` has the rule. There is no weight decay, and no matrix may start at zero.

    Args:
        learning_rate: Step size $\eta$ relative to the norm of a matrix, a number or a schedule of the step count.
        b1: Exponential decay rate of the first moment of past gradients, $0 \le \beta_1 < 1$. Default 0.9.
        b2: Exponential decay rate of the second moment of past gradients, $0 \le \beta_2 < 1$. Default 0.95.
        eps: Constant added to the denominator. Default 1e-8.
        mu_dtype: Dtype of the first moment, also of the default `rest`. Default None: the dtype of the parameters.
        rest: What optimizes all other parameters: a transformation, or transformations by role, see `muon`. Default
            None: AdamW at this rate without decay. The rate of matrices is no rate for embeddings and the head: set
            `rest`. Levanter has `jt.adamw(6e-4, weight_decay=0.0)` beside a rate of 0.02.
        routing: What each parameter is, see `jt.routing.resolve`. Default None: by name and shape.
        mesh: Needed inside `jax.shard_map` only: a `jt.OnMesh` with `layouts`. Default None.

    Returns:
        The optimizer as an Optax transformation.

    Raises:
        ValueError: An argument is out of range; at `init`, a parameter cannot be what it is routed to, or a matrix is
            zero.

    Source:
        Wen et al. 2026, https://arxiv.org/abs/2606.16899; betas as in Levanter and modded-nanogpt.
    """
    check_decay_rate("b1", b1)
    check_decay_rate("b2", b2)
    check_nonnegative("eps", eps)
    mu_dtype = check_float_dtype("mu_dtype", mu_dtype)

    def matrices(axes: Mapping[str, MatrixAxes]) -> optax.GradientTransformationExtraArgs:
        return optax.chain(
            scale_by_adam(b1, b2, eps, mu_dtype=mu_dtype), hyperball(learning_rate, axes=axes, mesh=mesh)
        )

    return matrix_optimizer(matrices, rest, learning_rate, mu_dtype=mu_dtype, routing=routing)
