"""Shampoo: every gradient matrix preconditioned from both sides; for matrices, with AdamW for the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.lax import Precision, stop_gradient

from jaxopt_tour._checks import (
    check_choice,
    check_decay_rate,
    check_flag,
    check_float_dtype,
    check_integer,
    check_nonnegative,
    check_number,
)
from jaxopt_tour._trees import map_with_names, named_leaves, rebox, unbox
from jaxopt_tour._types import Array, DTypeLike, ScalarOrSchedule, Tree
from jaxopt_tour.linalg.inverse_root import inverse_root
from jaxopt_tour.mesh.layouts import gathered, laid_like
from jaxopt_tour.optimizers._matrix_axes import resolve_axes
from jaxopt_tour.optimizers._numerics import (
    Scalar,
    cast_update,
    hyperparameter,
    one_minus_power,
    scale_by_learning_rate,
)
from jaxopt_tour.optimizers._state_check import with_state_check
from jaxopt_tour.optimizers.matrix_optimizer import Rest, matrix_optimizer
from jaxopt_tour.optimizers.momentum import scale_by_momentum
from jaxopt_tour.optimizers.orthogonalize import scale_by_matrix_shape
from jaxopt_tour.optimizers.weight_decay import Mask, add_decayed_weights, masks_by_label
from jaxopt_tour.routing import Routing
from jaxopt_tour.routing.axes import MatrixAxes
from jaxopt_tour.routing.shape_factors import SHAPE_FACTORS, ShapeFactor


class ShampooState(NamedTuple):
    """State of `scale_by_shampoo`: trees like the parameters, whose arrays have the shapes of the preconditioners.

    A parameter seen as `batch` stacks of `pieces` (m, n) matrices has `scale` of shape (batch, pieces, 1, 1),
    `left` of (batch, pieces, m, m) and `right` of (batch, pieces, n, n).
    """

    count: Array  # type: ignore[assignment]  # t, int32
    scale: Tree  # s, a power of two near the size of the accumulated gradients
    left: Tree  # L / s^2
    right: Tree  # R / s^2
    left_root: Tree  # L^(-1/root) as of its last update; None where update_every is
    right_root: Tree


class ShampooSumState(NamedTuple):
    """State of `scale_by_shampoo` with `b2=None`: saved averages must not be taken for sums."""

    count: Array  # type: ignore[assignment]  # t, int32
    scale: Tree  # as in ShampooState
    left_sum: Tree  # L / s^2
    right_sum: Tree  # R / s^2
    left_sum_root: Tree  # as in ShampooState
    right_sum_root: Tree


def scale_by_shampoo(
    b2: Scalar | None = 0.95,
    *,
    root: Scalar = 4,
    eps: Scalar = 1e-6,
    bias_correction: bool = True,
    update_every: int | Array | None = None,
    nu_dtype: DTypeLike | None = None,
    axes: MatrixAxes | Mapping[str, MatrixAxes] | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Multiply the gradient of every matrix by inverse roots of its averaged row and column covariances.

    $$
    \begin{aligned}
    L_t &= \beta_2 L_{t-1} + (1 - \beta_2) G_t G_t^\top, \qquad \hat L = L_t / (1 - \beta_2^t) \\
    R_t &= \beta_2 R_{t-1} + (1 - \beta_2) G_t^\top G_t, \qquad \hat R = R_t / (1 - \beta_2^t) \\
    u_t &= (\hat L + \epsilon \operatorname{tr}(\hat L) I)^{-1/\text{root}} \; G_t \;
    (\hat R + \epsilon \operatorname{tr}(\hat R) I)^{-1/\text{root}}
    \end{aligned}
    $$

    With `b2=None` they are sums, $L_t = L_{t-1} + G_t G_t^\top$, as published.

    At `b2=0` nothing is accumulated, and for `root=4` and `eps=0` the update of `G = U S V^T` is `U V^T`,
    Muon's by its exact polar factor. In float32 that holds for singular values above some 1e-3 of the largest: G G^T
    has their squares.

    At `root=4` scaling the loss changes nothing. The singular values of the first update are 1 (but for eps);
    later ones are smaller where gradients differ from step to step, since L holds more than G G^T. With sums they fall
    like `1 / sqrt(t)`.

    L and R are kept relative to a power of two that follows the size of the gradients, so that G G^T neither overflows
    nor underflows. They cost `m^2 + n^2` numbers for an (m, n) matrix, and as much again for their roots where these
    are kept. Pieces of a split fan-out that differ in width are padded to the widest.

    Args:
        b2: decay rate of the averages; None: sums, as published.
        root: a number >= 2: 4 as published; 2 preconditions fully on both sides. It may be traced, need not be an
            integer, and tends to G itself as it grows (for gradients of size 1).
        eps: ridge, relative to the trace.
        bias_correction: divide the averages by `1 - b2^t`; sums need none.
        update_every: steps between two inverse roots, each an eigendecomposition; the first step always takes them.
            None: every step, and no roots are kept in the state.
        nu_dtype: of L and R: float32 or float64; None: the parameter's, but at least float32.
        axes: how parameters are seen as matrices: one `MatrixAxes` for all, or one by path name. None: the
            reading by name; a plain 2-D parameter is (in, out). Inside `multi_transform`, pass what
            it hands to a function in place of a transformation.

    Raises:
        ValueError: an argument out of range; at `init`, a parameter that is no matrix, by its path.

    Source: Gupta, Koren & Singer, Shampoo, 2018, algorithm 1, https://arxiv.org/abs/1802.09568; averages in place of
    sums, and stale roots: Anil et al., 2020, https://arxiv.org/abs/2002.09018; bias correction: Shi et al., 2023,
    https://arxiv.org/abs/2309.06497
    """
    if b2 is not None:
        check_decay_rate("b2", b2)
        b2 = hyperparameter(b2)
    check_number("root", root, "a number >= 2", lambda number: 2 <= number < math.inf)
    check_nonnegative("eps", eps)
    check_flag("bias_correction", bias_correction)
    if update_every is not None:
        check_integer("update_every", update_every, 1, or_array=True)
    dtype = check_float_dtype("nu_dtype", nu_dtype)
    if dtype is not None and dtype not in (jnp.float32, jnp.float64):
        raise ValueError(f"nu_dtype must be None, float32 or float64, got {dtype}")
    root, eps = hyperparameter(root), hyperparameter(eps)
    make_state: Any = ShampooSumState if b2 is None else ShampooState

    def init(params: Tree) -> ShampooState | ShampooSumState:
        views = resolve_axes(axes, None, params)

        def zeros(rows: int, columns: int) -> Tree:  # which of 1, m and n; a buffer of its own each time, to be donated
            def one_leaf(name: str, leaf: Any) -> Any:
                array = named[name]
                batch, pieces, m, n = _stack_shape(views[name], tuple(array.shape))
                wide = jnp.promote_types(array.dtype, jnp.float32) if dtype is None else dtype
                return rebox(leaf, jnp.zeros((batch, pieces, (1, m, n)[rows], (1, m, n)[columns]), wide))

            named = named_leaves(params)
            return map_with_names(one_leaf, params)

        roots = (None, None) if update_every is None else (zeros(1, 1), zeros(2, 2))
        return make_state(jnp.zeros([], jnp.int32), zeros(0, 0), zeros(1, 1), zeros(2, 2), *roots)

    def update(
        updates: Tree,
        state: ShampooState | ShampooSumState,
        params: Tree | None = None,
        *,
        matrix_axes: Mapping[str, MatrixAxes] | None = None,
        **extra_args: Any,
    ) -> tuple[Tree, ShampooState | ShampooSumState]:
        del extra_args
        views = resolve_axes(axes, None, updates)
        for name, view in views.items():
            if axes is None and matrix_axes is not None and matrix_axes.get(name, view) != view:
                raise ValueError(
                    f"parameter {name!r} is routed as {matrix_axes[name]}, and scale_by_shampoo saw it as {view} at "
                    "init: give multi_transform a function, lambda axes: scale_by_shampoo(axes=axes)"
                )
        t = optax.safe_increment(state.count)
        gradients = {name: _to_stack(views[name], gathered(leaf)) for name, leaf in named_leaves(updates).items()}
        _, scales, left_sides, right_sides, left_roots, right_roots = state
        old = [named_leaves(tree) for tree in (scales, left_sides, right_sides)]
        new = {name: _accumulate(b2, g, *(leaves[name] for leaves in old)) for name, g in gradients.items()}
        correction = 1.0 if b2 is None or not bias_correction else one_minus_power(b2, t)

        def roots() -> dict[str, tuple[Array, Array]]:
            return {
                name: (
                    _true_root(scale, left / correction, root, eps),
                    _true_root(scale, right / correction, root, eps),
                )
                for name, (scale, left, right) in new.items()
            }

        if update_every is None:
            taken = roots()
        else:
            lefts, rights = named_leaves(left_roots), named_leaves(right_roots)
            kept = {name: (lefts[name], rights[name]) for name in new}
            taken = jax.lax.cond(state.count % update_every == 0, roots, lambda: kept)

        likes = named_leaves(updates if params is None else params)

        def preconditioned(name: str, leaf: Any) -> Any:
            left, right = taken[name]
            u = _matmul(_matmul(left, gradients[name].astype(left.dtype)), right)
            update = laid_like(_from_stack(views[name], u, likes[name].shape), unbox(leaf))
            return rebox(leaf, cast_update(update, likes[name]))

        def renewed(tree: Tree, found: Mapping[str, Array]) -> Tree:
            # Where a parameter had no gradient its state stays.
            return map_with_names(lambda name, leaf: rebox(leaf, found[name]) if name in found else leaf, tree)

        trees = [
            renewed(tree, {name: arrays[i] for name, arrays in new.items()})
            for i, tree in enumerate((scales, left_sides, right_sides))
        ]
        trees += [
            None if tree is None else renewed(tree, {name: pair[i] for name, pair in taken.items()})
            for i, tree in enumerate((left_roots, right_roots))
        ]
        return map_with_names(preconditioned, updates), make_state(t, *trees)

    return with_state_check(optax.GradientTransformationExtraArgs(init, update))


def _stack_shape(view: MatrixAxes, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """`(batch, pieces, m, n)`, n the width of the widest piece."""
    pieces = view.matrix_shapes(shape)
    batch, m, _ = pieces[0]
    return batch, len(pieces), m, max(n for _, _, n in pieces)


def _to_stack(view: MatrixAxes, leaf: Array) -> Array:
    """The parameter's matrices as (batch, pieces, m, n), narrow ones with columns of zeros."""
    n = _stack_shape(view, leaf.shape)[-1]
    pieces = [jnp.pad(piece, ((0, 0), (0, 0), (0, n - piece.shape[-1]))) for piece in view.to_matrices(leaf)]
    return jnp.stack(pieces, axis=1)


def _from_stack(view: MatrixAxes, stack: Array, shape: tuple[int, ...]) -> Array:
    """The inverse of `_to_stack` for a parameter of this shape."""
    widths = [n for _, _, n in view.matrix_shapes(shape)]
    return view.from_matrices([stack[:, i, :, :n] for i, n in enumerate(widths)], shape)


def _matmul(left: Array, right: Array) -> Array:
    """A product in full precision: of TF32's three digits the root of a small eigenvalue would keep none."""
    return jnp.matmul(left, right, precision=Precision.HIGHEST)


def _power_of_two(x: Array) -> Array:
    """The largest power of two up to x, for x > 0."""
    _, exponent = jnp.frexp(x)
    return jnp.ldexp(jnp.ones_like(x), exponent - 1)


def _accumulate(b2: Scalar | None, g: Array, scale: Array, left: Array, right: Array) -> tuple[Array, Array, Array]:
    """New s, L / s^2 and R / s^2. L and R do not depend on s but by rounding: it is a constant to derivatives."""
    g = g.astype(left.dtype)
    limits = jnp.finfo(left.dtype)
    trace = stop_gradient(jnp.trace(left, axis1=-2, axis2=-1))[..., None, None]
    accumulated = jnp.minimum(jnp.sqrt(trace) * scale, limits.max)
    largest = jnp.max(jnp.abs(stop_gradient(g)), axis=(-2, -1), keepdims=True, initial=0.0)
    new_scale = _power_of_two(jnp.maximum(jnp.maximum(accumulated, largest), limits.tiny))
    old_share = jnp.where(trace > 0, jnp.square(scale / new_scale), 0)
    x = g / new_scale
    keep, new = (1.0, 1.0) if b2 is None else (b2, 1 - b2)
    next_left = keep * (old_share * left) + new * _matmul(x, x.mT)
    next_right = keep * (old_share * right) + new * _matmul(x.mT, x)
    return new_scale, next_left.astype(left.dtype), next_right.astype(right.dtype)


def _true_root(scale: Array, side: Array, root: Scalar, eps: Scalar) -> Array:
    """`(s^2 A + eps tr(s^2 A) I)^(-1/root)` from `A = L / s^2`; in range for any s, since root >= 2."""
    ridge = eps * jnp.trace(side, axis1=-2, axis2=-1)
    return (inverse_root(side, root, ridge) * scale ** (-2 / root)).astype(scale.dtype)


def shampoo(
    learning_rate: ScalarOrSchedule,
    *,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask | None = None,
    cautious: bool = False,
    beta: Scalar = 0.95,
    nesterov: bool = True,
    b2: Scalar | None = 0.95,
    root: Scalar = 4,
    eps: Scalar = 1e-6,
    bias_correction: bool = True,
    update_every: int | Array | None = None,
    shape_factor: ShapeFactor | None = "match_rms_adamw",
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    rest: Rest = None,
    routing: Routing = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Optimize the matrices of a model with Shampoo, everything else with AdamW: `muon` with another middle part.

    $$
    \begin{aligned}
    u_t &= L_t^{-1/\text{root}} \, m_t \, R_t^{-1/\text{root}} \\
    \theta_t &= (1 - \eta \lambda) \theta_{t-1} - \eta s u_t
    \end{aligned}
    $$

    $m$ is the momentum, $L$ and $R$ are averages of $m m^\top$ and $m^\top m$, and $s$ is the shape factor.

    The momentum is what is preconditioned, as in Muon, so that `b2=0, eps=0` is Muon by its exact polar factor.

    `init` logs what the parameters are, as `muon` does.

    Args:
        learning_rate: eta, a number or a schedule.
        weight_decay: lambda, decoupled and multiplied by the learning rate, not by s; a number or a schedule.
        mask: what is decayed: `"matrices"` (what is routed as a matrix), a tree of booleans, or a function of the
            parameters that returns one. None: everything.
        cautious: whether to decay only where update and weight agree in sign.
        beta: decay rate of the momentum.
        nesterov: whether to look ahead by one step.
        b2: decay rate of L and R; None: sums. See `scale_by_shampoo`, as for the next four.
        root: 4 as published.
        eps: ridge, relative to the trace.
        bias_correction: whether to correct L and R for their start at zero.
        update_every: steps between eigendecompositions; None: every step.
        shape_factor: s, see `scale_by_matrix_shape`.
        mu_dtype: dtype of the momentum, and of the first moment of the default `rest`; None: the parameter's.
        nu_dtype: dtype of L and R, float32 or float64; None: the parameter's, but at least float32.
        rest: what optimizes all other parameters, see `muon`.
        routing: what each parameter is, see `resolve`. None: by name and shape.

    Raises:
        ValueError: an argument is not one of those allowed; at `init`, a parameter cannot be what it is routed to.

    Source: Gupta, Koren & Singer, Shampoo, 2018, https://arxiv.org/abs/1802.09568
    """
    check_choice("shape_factor", shape_factor, SHAPE_FACTORS)
    check_decay_rate("beta", beta)
    mu_dtype = check_float_dtype("mu_dtype", mu_dtype)
    mask_of_matrices, mask_of_rest = masks_by_label(mask)

    def matrices(axes: Mapping[str, MatrixAxes]) -> optax.GradientTransformationExtraArgs:
        return optax.chain(
            scale_by_momentum(beta, form="ema", nesterov=nesterov, mu_dtype=mu_dtype),
            scale_by_shampoo(
                b2,
                root=root,
                eps=eps,
                bias_correction=bias_correction,
                update_every=update_every,
                nu_dtype=nu_dtype,
                axes=axes,
            ),
            scale_by_matrix_shape(shape_factor),
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
