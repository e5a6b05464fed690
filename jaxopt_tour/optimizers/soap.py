"""SOAP: Adam in the eigenbases of Shampoo's preconditioners; for matrices, with AdamW for the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax
from jax.lax import stop_gradient

from jaxopt_tour._checks import (
    check_choice,
    check_decay_rate,
    check_flag,
    check_float_dtype,
    check_integer,
    check_nonnegative,
)
from jaxopt_tour._trees import map_with_names, named_leaves, rebox, unbox
from jaxopt_tour._types import Array, DTypeLike, ScalarOrSchedule, Tree
from jaxopt_tour.mesh.layouts import gathered, laid_like, replicator
from jaxopt_tour.optimizers._bases import (
    SIDES,
    Key,
    Piece,
    Side,
    TwoSides,
    accumulated,
    has_basis,
    refreshed,
    sorted_like,
    with_first_bases,
    with_sides,
    zeros_of_sides,
)
from jaxopt_tour.optimizers._matrices import same_axes_as_at_init
from jaxopt_tour.optimizers._matrix_axes import resolve_axes
from jaxopt_tour.optimizers._numerics import (
    Scalar,
    abs_squared,
    cast_update,
    clip_to_square_range,
    hyperparameter,
    one_minus_power,
    safe_divide,
    safe_sqrt,
    scale_by_learning_rate,
    zeros_like_first_moment,
)
from jaxopt_tour.optimizers._state_check import with_state_check
from jaxopt_tour.optimizers.matrix_optimizer import Rest, matrix_optimizer
from jaxopt_tour.optimizers.weight_decay import Mask, add_decayed_weights, masks_by_label
from jaxopt_tour.routing import Routing
from jaxopt_tour.routing.axes import MatrixAxes

#: The update of a matrix with its first gradient, which has no bases of earlier gradients.
FirstUpdate = Literal["rotated", "momentum", "zero"]
SquaresOf = Literal["gradient", "momentum"]

#: The authors' limit on the sides that have a basis.
MAX_SIZE: Final = 10000


class SoapState(NamedTuple):
    """State of `scale_by_soap`: trees like the parameters.

    `mu` and `nu` have the parameters' shapes. A parameter seen as `batch` stacks of `pieces` (m, n) matrices has
    `left` and `left_basis` of shape (batch, pieces, m, m), `right` and `right_basis` of (batch, pieces, n, n), and
    (batch, pieces, 1, 1) for a side above `max_size`. A basis is zero until its matrix has had a gradient.
    """

    count: Array  # type: ignore[assignment]  # t, int32
    mu: Tree  # m, EMA of g
    nu: Tree  # v, EMA of squares in the bases: entry (i, j) belongs to column i of Q_L and column j of Q_R
    left: Tree  # L, EMA of g g^T
    right: Tree  # R, EMA of g^T g
    left_basis: Tree  # Q_L
    right_basis: Tree  # Q_R


def scale_by_soap(
    b1: Scalar = 0.95,
    b2: Scalar = 0.95,
    eps: Scalar = 1e-8,
    *,
    shampoo_beta: Scalar | None = None,
    update_every: int | Array = 10,
    max_size: int | None = None,
    bias_correction: bool = True,
    nesterov: bool = False,
    squares_of: SquaresOf = "gradient",
    first_update: FirstUpdate = "rotated",
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    axes: MatrixAxes | Mapping[str, MatrixAxes] | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Rescale the gradient of every matrix by Adam's rule in slowly changing bases of its rows and columns.

    $$
    \begin{aligned}
    m_t &= \beta_1 m_{t-1} + (1 - \beta_1) G_t \\
    v_t &= \beta_2 v_{t-1} + (1 - \beta_2) (Q_L^\top G_t Q_R)^2 \\
    u_t &= Q_L \frac{Q_L^\top \hat m_t Q_R}{\sqrt{\hat v_t} + \epsilon} Q_R^\top, \qquad
    \hat m_t = \frac{m_t}{1 - \beta_1^t}, \quad \hat v_t = \frac{v_t}{1 - \beta_2^t} \\
    L_t &= \beta_s L_{t-1} + (1 - \beta_s) G_t G_t^\top \\
    R_t &= \beta_s R_{t-1} + (1 - \beta_s) G_t^\top G_t
    \end{aligned}
    $$

    The bases are eigenvectors: of the first $L$ and $R$ by an eigendecomposition, and after steps 1 + k `update_every`
    by one power step, $Q_L \leftarrow \operatorname{qr}(L Q_L)$, with columns sorted by eigenvalue. $v$ follows the
    sorting. An update thus uses bases of gradients before it; the first one has none, see `first_update`.

    The entries of an update are near 1 in the bases, up to `1 / sqrt(1 - b2)`, and its root mean square is Adam's.
    Scaling the loss changes only the relative size of `eps`. With all decay rates 0 the first update is the polar
    factor $U V^\top$ of $G = U S V^\top$: in float32 for singular values above some 1e-3 of the largest, since
    $G G^\top$ has their squares.

    Entries of the rotated gradient that are rounding, 8 machine epsilons of its norm, count as zero. Adam would enlarge
    them to full size where a gradient has less than full rank. Derivatives treat the bases as constants.

    Args:
        b1: Exponential decay rate of the first moment $m$, $0 \le \beta_1 < 1$. Default 0.95.
        b2: Exponential decay rate of the second moment $v$, $0 \le \beta_2 < 1$. Default 0.95.
        eps: Constant added to the denominator. Default 1e-8.
        shampoo_beta: Exponential decay rate $\beta_s$ of $L$ and $R$, $0 \le \beta_s < 1$. Default None: `b2`.
        update_every: Steps between two changes of the bases, an integer >= 1. Default 10. 1 follows the gradients best
            and costs two QR decompositions per matrix and step.
        max_size: Longest side that has a basis. A longer one keeps the identity, so that the rule is one-sided; where
            both are longer it is Adam. Default None: 10000, for layers but not for vocabularies. List it in
            `static_args` of `optax.inject_hyperparams`: shapes depend on it.
        bias_correction: Whether to divide the moments by $1 - \beta^t$. Default True.
        nesterov: Whether to use Nesterov momentum, as `scale_by_adam` does. Default False.
        squares_of: Whose squares $v$ averages: `"gradient"` (default) or `"momentum"`, what is divided by $\sqrt v$, as
            in SOAP-Muon.
        first_update: The update of a matrix with its first gradient other than zero. `"rotated"` (default): the rule,
            in the bases of that gradient itself; `"momentum"`: $\hat m$ as it is, which $v$ does not count; `"zero"`:
            none, and neither moment counts that gradient, as in the authors' code.
        mu_dtype: Dtype of the first moment. Default None: the dtype of the parameters.
        nu_dtype: Dtype of $v$, $L$, $R$ and the bases: float32 or float64. Default None: the dtype of the parameters,
            but at least float32.
        axes: Matrix axes: one `MatrixAxes` for all parameters, or one by path name. Default None: the reading by name;
            a plain 2-D parameter is (in, out). Inside `multi_transform`, pass what it hands to a function in place of
            a transformation.

    Returns:
        The Optax transformation. Its state has two arrays of a parameter's shape, and $2 m^2 + 2 n^2$ numbers for an
        (m, n) matrix.

    Raises:
        ValueError: An argument is out of range; at `init`, a parameter is no matrix, by its path; a parameter is
            routed with other axes than at `init`.

    Source:
        Vyas et al. 2024, https://arxiv.org/abs/2409.11321, algorithms 3 and 4; the order of the steps is that of
        https://github.com/nikhilvyas/SOAP, which adds `eps` to $\sqrt v$ before the correction. NVIDIA's
        Emerging-Optimizers renew the bases before every update.
    """
    for name, rate in {"b1": b1, "b2": b2, "shampoo_beta": b2 if shampoo_beta is None else shampoo_beta}.items():
        check_decay_rate(name, rate)
    check_nonnegative("eps", eps)
    check_integer("update_every", update_every, 1, or_array=True)
    longest = MAX_SIZE if max_size is None else max_size
    if isinstance(max_size, jax.Array):
        raise ValueError(f"max_size must be an integer, got {max_size!r}: list it in static_args of inject_hyperparams")
    check_integer("max_size", longest, 1)
    for name, flag in {"bias_correction": bias_correction, "nesterov": nesterov}.items():
        check_flag(name, flag)
    check_choice("squares_of", squares_of, get_args(SquaresOf))
    check_choice("first_update", first_update, get_args(FirstUpdate))
    mu_dtype, dtype = check_float_dtype("mu_dtype", mu_dtype), check_float_dtype("nu_dtype", nu_dtype)
    if dtype is not None and dtype not in (jnp.float32, jnp.float64):
        raise ValueError(f"nu_dtype must be None, float32 or float64, got {dtype}")
    b1, b2, eps = map(hyperparameter, (b1, b2, eps))
    beta_s = b2 if shampoo_beta is None else hyperparameter(shampoo_beta)

    def init(params: Tree) -> SoapState:
        views, leaves = resolve_axes(axes, None, params), named_leaves(params)

        def squares(name: str, leaf: Any) -> Any:
            wide = jnp.promote_types(leaves[name].dtype, jnp.float32) if dtype is None else dtype
            return rebox(leaf, jnp.zeros_like(leaves[name], dtype=wide))

        # An identity is a 1 of shape (1, 1); a basis that is to be found, zeros.
        covariances, bases = (
            [zeros_of_sides(params, views, of, longest, dtype, identity) for of in SIDES] for identity in (0.0, 1.0)
        )
        mu = zeros_like_first_moment(params, mu_dtype)
        return SoapState(jnp.zeros([], jnp.int32), mu, map_with_names(squares, params), *covariances, *bases)

    def rule(x: _Matrices, sides: TwoSides, new: Array, t: Array, t_before: Array) -> tuple[_Matrices, Array]:
        """The moments and the update; `new` says which matrices have their bases from this gradient."""
        g, m, v = x
        seen = jnp.maximum(t_before, 1) if first_update == "zero" else t  # gradients in the moments
        times = ((b1, seen), (b1, optax.safe_increment(seen)), (b2, seen))
        c1, c1_ahead, c2 = (one_minus_power(b, k) if bias_correction else 1.0 for b, k in times)
        m_new = b1 * m + (1 - b1) * g
        m_hat = b1 * m_new / c1_ahead + (1 - b1) * g / c1 if nesterov else m_new / c1
        # The covariances of a single gradient have half the digits of its singular values, and so have the bases.
        rounding = float(jnp.finfo(g.dtype).eps)
        limit = jnp.where(new, math.sqrt(max(g.shape[1:]) * rounding), 8 * rounding)
        p = _without_rounding(sides.rotated(m_hat), limit)
        squared = p if squares_of == "momentum" else _without_rounding(sides.rotated(g), limit)
        v_new = b2 * v + (1 - b2) * abs_squared(squared)
        u = sides.rotated_back(safe_divide(p, safe_sqrt(v_new / c2) + eps))
        if first_update != "rotated":
            u = jnp.where(new, m_hat if first_update == "momentum" else 0, u)
            v_new = jnp.where(new, v, v_new)
        if first_update == "zero":
            m_new = jnp.where(new, m, m_new)
        return _Matrices(g, m_new, v_new), u

    def update(
        updates: Tree,
        state: SoapState,
        params: Tree | None = None,
        *,
        matrix_axes: Mapping[str, MatrixAxes] | None = None,
        **extra_args: Any,
    ) -> tuple[Tree, SoapState]:
        del extra_args
        views, leaves = resolve_axes(axes, None, updates), named_leaves(updates)
        if axes is None:
            same_axes_as_at_init("scale_by_soap", views, matrix_axes)
        old = {field: named_leaves(getattr(state, field)) for field in SoapState._fields[1:]}
        t = optax.safe_increment(state.count)
        replicate = replicator(next(iter(leaves.values()), state.count))
        matrices: dict[Piece, _Matrices] = {}
        sides: dict[Key, Side] = {}
        for name, leaf in leaves.items():
            stacks = leaf, old["mu"][name], old["nu"][name]
            pieces = [views[name].to_matrices(replicate(gathered(x)).astype(old["nu"][name].dtype)) for x in stacks]
            for i, (g, m, v) in enumerate(zip(*pieces, strict=True)):
                matrices[name, i] = x = _Matrices(clip_to_square_range(g), m, v)
                for of, rows in zip(SIDES, (x.g, x.g.mT), strict=True):
                    size = rows.shape[-2]
                    if 1 < size <= longest:
                        cut = (gathered(old[field][name])[:, i, :size, :size] for field in (of, f"{of}_basis"))
                        sides[name, i, of] = jax.tree.map(replicate, accumulated(Side(*cut), rows, beta_s))
        had = {key: has_basis(side) for key, side in sides.items()}
        sides = with_first_bases(sides, replicate)

        u: dict[Piece, Array] = {}
        for (name, i), x in matrices.items():
            keys = [(name, i, of) for of in SIDES]
            found = [has_basis(sides[key]) & ~had[key] for key in keys if key in sides]
            new = found[0] if found else jnp.broadcast_to(state.count == 0, x.g.shape[:1])
            matrices[name, i], u[name, i] = rule(x, TwoSides(*map(sides.get, keys)), new[:, None, None], t, state.count)

        def changed() -> tuple[dict[Key, Array], dict[Piece, Array]]:
            bases, orders = refreshed(sides, replicate)
            return bases, {
                piece: sorted_like(x.v, *(orders.get((*piece, of)) for of in SIDES)) for piece, x in matrices.items()
            }

        def kept() -> tuple[dict[Key, Array], dict[Piece, Array]]:
            return {key: side.basis for key, side in sides.items()}, {piece: x.v for piece, x in matrices.items()}

        bases, squares = jax.lax.cond((state.count > 0) & (state.count % update_every == 0), changed, kept)
        covariances = {key: side.covariance for key, side in sides.items()}
        likes = leaves if params is None else named_leaves(params)

        def joined(name: str, of: Mapping[Piece, Array], like: Any) -> Array:
            pieces = [of[name, i] for i in range(len(views[name].split or (1,)))]
            return laid_like(views[name].from_matrices(pieces, like.shape), like)

        def renewed(tree: Tree, of: Mapping[Piece, Array]) -> Tree:
            # Where a parameter had no gradient its state stays.
            def one_leaf(name: str, leaf: Any) -> Any:
                return rebox(leaf, joined(name, of, unbox(leaf)).astype(unbox(leaf).dtype)) if name in leaves else leaf

            return map_with_names(one_leaf, tree)

        new_state = SoapState(
            t,
            renewed(state.mu, {piece: x.m for piece, x in matrices.items()}),
            renewed(state.nu, squares),
            with_sides(state.left, "left", covariances, leaves),
            with_sides(state.right, "right", covariances, leaves),
            with_sides(state.left_basis, "left", bases, leaves),
            with_sides(state.right_basis, "right", bases, leaves),
        )
        final = lambda name, leaf: rebox(leaf, cast_update(joined(name, u, unbox(leaf)), likes[name]))  # noqa: E731
        return map_with_names(final, updates), new_state

    return with_state_check(optax.GradientTransformationExtraArgs(init, update))


class _Matrices(NamedTuple):
    """A batch of matrices (batch, m, n) of one piece."""

    g: Array
    m: Array
    v: Array


def _without_rounding(x: Array, limit: Array | float) -> Array:
    """Return `x` with zeros for entries up to `limit` times the norm of their matrix."""
    norm = stop_gradient(jnp.sqrt(jnp.sum(jnp.square(x), axis=(-2, -1), keepdims=True)))
    return jnp.where(jnp.abs(x) <= limit * norm, 0, x)


def soap(
    learning_rate: ScalarOrSchedule,
    *,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask | None = None,
    cautious: bool = False,
    b1: Scalar = 0.95,
    b2: Scalar = 0.95,
    eps: Scalar = 1e-8,
    shampoo_beta: Scalar | None = None,
    update_every: int | Array = 10,
    max_size: int | None = None,
    bias_correction: bool = True,
    nesterov: bool = False,
    first_update: FirstUpdate = "rotated",
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    rest: Rest = None,
    routing: Routing = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Optimize the matrices of a model with SOAP, and everything else with AdamW.

    $$
    \theta_t = (1 - \eta \lambda) \theta_{t-1} - \eta u_t
    $$

    `scale_by_soap` has the rule of $u_t$. The size of an update is Adam's, so one learning rate and one decay serve
    both groups. `init` logs what the parameters are, as `muon` does.

    Args:
        learning_rate: Step size $\eta$, a number or a schedule of the step count.
        weight_decay: Strength $\lambda$ of the decoupled weight decay, a number or a schedule of the step count. It is
            multiplied by the learning rate. Default 1e-4.
        mask: Parameters that decay: `"matrices"` (what is routed as a matrix), a tree of booleans, or a function of the
            parameters that returns one. Default None: all parameters.
        cautious: Whether to decay only where update and weight agree in sign. Default False.
        b1: Exponential decay rate of the first moment. Default 0.95. See `scale_by_soap`, as for the next seven.
        b2: Exponential decay rate of the second moment. Default 0.95.
        eps: Constant added to the denominator. Default 1e-8.
        shampoo_beta: Exponential decay rate of the covariances. Default None: `b2`.
        update_every: Steps between two changes of the bases. Default 10.
        max_size: Longest side that has a basis. Default None: 10000.
        bias_correction: Whether to correct the moments. Default True.
        nesterov: Whether to use Nesterov momentum. Default False.
        first_update: `"rotated"` (default), `"momentum"` or `"zero"` (the authors' code), see `scale_by_soap`.
        mu_dtype: Dtype of the first moment, also of the default `rest`. Default None: the dtype of the parameters.
        nu_dtype: Dtype of the other arrays of the state, float32 or float64. Default None: the dtype of the
            parameters, but at least float32.
        rest: What optimizes all other parameters, see `muon`. Default None: AdamW at this rate, with `b2` of 0.95.
        routing: What each parameter is, see `jt.routing.resolve`. Default None: by name and shape.

    Returns:
        The optimizer as an Optax transformation.

    Raises:
        ValueError: An argument is not one of those allowed; at `init`, a parameter cannot be what it is routed to.

    Source:
        Vyas et al. 2024, https://arxiv.org/abs/2409.11321. The authors train at a rate of 3e-3. They give every
        parameter of two and more axes bases, and decay by $\eta \lambda$ after the step.
    """
    mu_dtype = check_float_dtype("mu_dtype", mu_dtype)
    mask_of_matrices, mask_of_rest = masks_by_label(mask)

    def matrices(axes: Mapping[str, MatrixAxes]) -> optax.GradientTransformationExtraArgs:
        return optax.chain(
            scale_by_soap(
                b1,
                b2,
                eps,
                shampoo_beta=shampoo_beta,
                update_every=update_every,
                max_size=max_size,
                bias_correction=bias_correction,
                nesterov=nesterov,
                first_update=first_update,
                mu_dtype=mu_dtype,
                nu_dtype=nu_dtype,
                axes=axes,
            ),
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
