"""Weight normalization inside an optimizer: directions and norms of the outputs of a matrix have a rule each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import jax.numpy as jnp
import optax

from jaxopt_tour._checks import check_transformation
from jaxopt_tour._trees import map_with_names, named_leaves, rebox, unbox
from jaxopt_tour._types import Array, Tree
from jaxopt_tour.mesh.on_mesh import MeshLike, as_on_mesh
from jaxopt_tour.optimizers._init_report import collect_report
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
from jaxopt_tour.optimizers._numerics import safe_divide, widen
from jaxopt_tour.routing.axes import MatrixAxes

#: What of a gradient is rounding, in units of its norm and of the dtype's: as for the bases of `scale_by_soap`.
_ROUNDING: Final = 8


class WeightNormalizationState(NamedTuple):
    """State of `with_weight_normalization`.

    A parameter (12, 768, 3072) of 12 layers has `output_norm` and `direction_norm` of shape (12, 1, 3072), a fused one
    (batch, outputs of all parts).
    """

    output_norm: Tree  # g, the norm of the weights of each output; may become negative
    direction_norm: Tree  # |v|
    directions: Any  # state of the rule of v
    norms: Any  # state of the rule of g


def with_weight_normalization(
    directions: optax.GradientTransformation,
    norms: optax.GradientTransformation,
    *,
    axes: MatrixAxes | Mapping[str, MatrixAxes] | None = None,
    mesh: MeshLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Update the directions and the norms of the outputs of a matrix by a rule each, and put the weights together.

    $$
    \begin{aligned}
    w_i &= \gamma_i \hat v_i, \qquad \hat v_i = v_i / |v_i| \\
    g_{\gamma, i} &= \langle g_i, \hat v_i \rangle \\
    g_{v, i} &= \frac{\gamma_i}{|v_i|} (g_i - g_{\gamma, i} \hat v_i) \\
    v &\leftarrow v + u_\text{directions}(g_v), \qquad \gamma \leftarrow \gamma + u_\text{norms}(g_\gamma)
    \end{aligned}
    $$

    $w_i$ holds the weights of output $i$: a row of PyTorch's weight, a column of a Flax kernel. $v$ starts as $W$ and
    $\gamma$ as the norms. The model keeps its weights; $v$ is not stored, since $W$, $\gamma$ and $|v|$ give it.

    Both rules are whole optimizers with their learning rates. The rule of the norms sees a tree of one number an
    output. Weight decay belongs there: a decay of $v$ changes no weight, only the length of later steps.

    ```python
    jt.with_weight_normalization(  # the matrices of muown
        optax.chain(jt.scale_by_muon(), jt.scale_by_matrix_shape(), optax.scale_by_learning_rate(1e-3)),
        jt.adamw(1e-3, b2=0.95, weight_decay=0.0),
    )
    ```

    A gradient $g_v$ is at right angles to $v$. Steps along it lengthen $v$, so the angle by which a step turns it
    shrinks over a run.

    Args:
        directions: Transformation of $v$, which has the shapes of the parameters. It receives the matrix axes.
        norms: Elementwise transformation of $\gamma$.
        axes: Matrix axes: one `MatrixAxes` for all parameters, or one by path name. Default None: the reading by name;
            a plain 2-D parameter is (in, out). Inside `multi_transform`, pass what it hands to a function in place of
            a transformation.
        mesh: Needed inside `jax.shard_map` only: a `jt.OnMesh` whose `layouts` say how parameters are sharded. The
            numbers of the state are then sharded like their parameter along the axes that both have. Default None.

    Returns:
        The Optax transformation. Its state has two numbers an output (float32, or wider for wider parameters) and the
        states of both rules. Its updates are added to the parameters as they are.

    Raises:
        ValueError: `directions` or `norms` is no transformation; at `init`, a parameter is no matrix, or an output of
            it has no weight but zeros, by its path; `update` is called without `params`. Where `init` runs under `jit`,
            values are unknown: an output of zeros then stays zero.

    Source:
        Salimans & Kingma 2016, https://arxiv.org/abs/1602.07868, equation 3; inside the optimizer as in Lion et al.
        2026, https://arxiv.org/abs/2605.10797. The shrinking angle: Hübler et al. 2026,
        https://arxiv.org/abs/2606.23637.
    """
    for name, tx in {"directions": directions, "norms": norms}.items():
        check_transformation(name, tx)
    directions_tx, norms_tx = optax.with_extra_args_support(directions), optax.with_extra_args_support(norms)
    on_mesh = as_on_mesh(mesh)

    def init(params: Tree) -> WeightNormalizationState:
        views = resolve_axes(axes, None, params)
        parts = parts_of(params, views, on_mesh)
        numbers = {name: [part.norm("fan_in") for part in of_leaf] for name, of_leaf in parts.items()}
        for name, leaf in named_leaves(params).items():
            check_nonzero(
                name, leaf, numbers[name], "output whose weights are all zeros: weight normalization scales outputs"
            )
        joined_numbers = {name: join_numbers(of_leaf, views[name]) for name, of_leaf in numbers.items()}
        gamma = map_with_names(lambda name, leaf: rebox(leaf, joined_numbers[name]), params)
        # A copy: a state is donated, each buffer once.
        copy = map_with_names(lambda name, leaf: rebox(leaf, jnp.copy(joined_numbers[name])), params)
        with collect_report():  # the update of W is not the orthogonal factor that the rule of v reports
            directions_state = directions_tx.init(params)
        return WeightNormalizationState(gamma, copy, directions_state, norms_tx.init(gamma))

    def update(
        updates: Tree,
        state: WeightNormalizationState,
        params: Tree | None = None,
        *,
        matrix_axes: Mapping[str, MatrixAxes] | None = None,
        **extra_args: Any,
    ) -> tuple[Tree, WeightNormalizationState]:
        if params is None:
            raise ValueError("with_weight_normalization needs the parameters: call update(updates, state, params)")
        views = resolve_axes(axes, None, updates)
        if axes is None:
            same_axes_as_at_init("with_weight_normalization", views, matrix_axes)
        leaves, gammas, lengths = map(named_leaves, (params, state.output_norm, state.direction_norm))
        gradients, weights = parts_of(updates, views, on_mesh), parts_of(params, views, on_mesh)
        by_part = {
            name: [
                _Output(weight, widen(gamma), widen(length))
                for weight, gamma, length in zip(
                    weights[name],
                    split_numbers(gammas[name], weights[name], views[name], "outputs"),
                    split_numbers(lengths[name], weights[name], views[name], "outputs"),
                    strict=True,
                )
            ]
            for name in gradients
        }
        of_norms: dict[str, Array] = {}
        of_directions: dict[str, Array] = {}
        v: dict[str, Array] = {}
        for name, leaf in named_leaves(updates).items():
            pairs = [output.gradients(g) for output, g in zip(by_part[name], gradients[name], strict=True)]
            of_norms[name] = join_numbers([g for g, _ in pairs], views[name], gammas[name])
            of_directions[name] = joined(leaf, views[name], [g for _, g in pairs])
            v[name] = joined(leaves[name], views[name], [output.v for output in by_part[name]])

        def placed(arrays: Mapping[str, Array], tree: Tree) -> Tree:
            return map_with_names(lambda name, leaf: rebox(leaf, arrays.get(name, unbox(leaf))), tree)

        steps, directions_state = directions_tx.update(
            placed(of_directions, updates), state.directions, placed(v, params), matrix_axes=views, **extra_args
        )
        norm_steps, norms_state = norms_tx.update(
            placed(of_norms, updates), state.norms, state.output_norm, **extra_args
        )
        moved, changes = parts_of(steps, views, on_mesh), named_leaves(norm_steps)
        u: dict[str, Array] = {}
        new_gammas: dict[str, Array] = {}
        new_lengths: dict[str, Array] = {}
        for name in gradients:
            pieces = split_numbers(changes[name], weights[name], views[name], "outputs")
            rows = [
                output.moved(step, widen(change))
                for output, step, change in zip(by_part[name], moved[name], pieces, strict=True)
            ]
            u[name] = joined(leaves[name], views[name], [x for x, _, _ in rows])
            new_gammas[name] = join_numbers([x for _, x, _ in rows], views[name], gammas[name])
            new_lengths[name] = join_numbers([x for _, _, x in rows], views[name], lengths[name])
        # Where a parameter had no gradient its state stays.
        new_state = WeightNormalizationState(
            placed(new_gammas, state.output_norm),
            placed(new_lengths, state.direction_norm),
            directions_state,
            norms_state,
        )
        return placed(u, updates), new_state

    return optax.GradientTransformationExtraArgs(init, update)


class _Output(NamedTuple):
    """The outputs of a batch of matrices."""

    weight: Part  # W
    gamma: Array
    length: Array  # |v|

    @property
    def direction(self) -> Array:
        """The unit vectors."""
        # By gamma, not by the norm of W: gamma may be negative, and its small steps are not rounded to W's dtype.
        return self.weight.x * safe_divide(jnp.ones_like(self.gamma), self.gamma)

    @property
    def v(self) -> Array:
        return self.length * self.direction

    def gradients(self, g: Part) -> tuple[Array, Array]:
        """Those of gamma and of v."""
        direction = self.direction
        of_gamma = self.weight.sum(g.x * direction, "fan_in")
        across = g.x - of_gamma * direction
        # The rounding of a gradient along w must not become a direction: an orthogonalization would give it full size.
        limit = _ROUNDING * float(jnp.finfo(across.dtype).eps) * g.norm("fan_in")
        across = jnp.where(g.norm("fan_in", across) <= limit, 0, across)
        return of_gamma, safe_divide(self.gamma, self.length) * across

    def moved(self, step: Part, change: Array) -> tuple[Array, Array, Array]:
        """The update of W, the new gamma and the new length of v, after these steps of v and gamma."""
        v, gamma = self.v + step.x, self.gamma + change
        length = self.weight.norm("fan_in", v)
        u = safe_divide(gamma, length) * v - self.weight.x
        # Without a step nothing moves, not even by rounding.
        stays = (change == 0) & (self.weight.sum(jnp.abs(step.x), "fan_in") == 0)
        # On Explicit axes a sum takes the layout of the sharded term, and a choice needs two of one layout.
        return jnp.where(stays, 0, u), gamma, jnp.where(stays, self.length + jnp.zeros_like(length), length)
