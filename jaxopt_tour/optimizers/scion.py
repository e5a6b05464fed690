"""Scion: momentum, then steepest descent under a norm that fits the role of each parameter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

import optax

from jaxopt_tour._checks import (
    check_choice,
    check_decay_rate,
    check_flag,
    check_float_dtype,
    check_mapping,
    check_nonnegative,
    check_rate,
    did_you_mean,
)
from jaxopt_tour._types import DTypeLike, ScalarOrSchedule
from jaxopt_tour.mesh.on_mesh import MeshLike, as_on_mesh
from jaxopt_tour.optimizers._numerics import scale_by_learning_rate
from jaxopt_tour.optimizers.dual_norm import Norm, scale_by_dual_norm
from jaxopt_tour.optimizers.momentum import scale_by_momentum
from jaxopt_tour.optimizers.multi_transform import multi_transform
from jaxopt_tour.optimizers.weight_decay import add_decayed_weights
from jaxopt_tour.orthogonalization.orthogonalizer import OrthogonalizerLike, as_orthogonalizer
from jaxopt_tour.routing import ROLES, MatrixAxes, Routing

_NORMS: dict[str, Norm] = {
    "matrix": "rms_to_rms",
    "embedding": "one_to_rms",
    "head": "mean_to_linf",
    "tied": "mean_to_linf",
    "other": "rms",
}
_RADII = {"matrix": 50.0, "embedding": 50.0, "head": 3000.0, "tied": 3000.0, "other": 50.0}


def scion(
    learning_rate: ScalarOrSchedule,
    *,
    radius: float | Mapping[str, float] | None = None,
    norms: Mapping[str, Norm] | None = None,
    constrained: bool = True,
    beta: float = 0.9,
    orthogonalizer: OrthogonalizerLike = "auto",
    mu_dtype: DTypeLike | None = None,
    routing: Routing = None,
    mesh: MeshLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Optimize with Scion: every parameter moves along the steepest descent of the norm of its role.

    $$
    \begin{aligned}
    d_t &= (1 - \alpha) d_{t-1} + \alpha g_t, \qquad \alpha = 1 - \beta \\
    \theta_t &= (1 - \eta) \theta_{t-1} - \eta \rho D_t && \text{constrained} \\
    \theta_t &= \theta_{t-1} - \eta \rho D_t && \text{unconstrained}
    \end{aligned}
    $$

    $D_t$ is the direction of unit norm that `scale_by_dual_norm` finds for $d_t$, and $\rho$ is the radius. The
    constrained form is a step of Frank-Wolfe's method: for $\eta \le 1$, parameters that start inside the ball of
    radius $\rho$ stay there. It is weight decay of strength 1, times the rate, and there is no other. No parameter
    goes to AdamW.

    An update has the norm $\eta \rho$, whatever the size of the gradient. Sensible rates are small, because radii are
    large: the default radii and a rate of $2^{-12}$ are the authors', for a GPT of 124 million parameters whose
    embedding is its head. Their radii for other models:

    ```python
    jt.scion(2**-6, radius={"matrix": 1.0, "head": 1024.0, "other": 1.0})             # an MLP
    jt.scion(2**-4, radius={"matrix": 8.0, "head": 128.0, "other": 8.0}, beta=0.5)    # a CNN
    jt.scion(lr, radius={"embedding": 1.0, "matrix": 3.0, "head": 10.0}, constrained=False)  # a GPT of two layers
    ```

    | role | norm | radius |
    |---|---|---|
    | `"matrix"` | `"rms_to_rms"`, spectral | 50 |
    | `"embedding"` | `"one_to_rms"` | 50 |
    | `"head"`, `"tied"` | `"mean_to_linf"`, signs | 3000 |
    | `"other"`: biases, gains and the rest | `"rms"` | 50 |

    The radius of an embedding that is not the head is that of the matrices, which is no choice of the authors. They
    also take signs there: `norms={"embedding": "linf"}`.

    An embedding that is also the head must be routed as `"tied"`. Routing by use finds that out; routing by name takes
    it for an embedding.

    Args:
        learning_rate: Step size $\eta$ ($\gamma$ in the paper), a number or a schedule of the step count.
        radius: Radius $\rho$ (`scale` in the authors' code): one number for all roles, or by role. Default None: the
            table. Roles that a mapping does not name have the radius in the table.
        norms: Norms by role, see `scale_by_dual_norm`. Default None: the table, which also serves roles that a mapping
            does not name. The keys are those of `radius`: `"matrix"`, every other role of routing, and `"other"`
            for roles without an entry.
        constrained: Whether parameters stay in the ball. Default True. `False` is the authors' `unconstrained=True`.
        beta: Exponential decay rate of past gradients, $0 \le \beta < 1$. Default 0.9, the authors' `momentum=0.1`.
            Lower it (0.5) for short runs with little noise.
        orthogonalizer: What orthogonalizes the matrices: a `jt.Orthogonalizer`, or coefficients by name or value.
            Default `"auto"`. The authors run `"keller_jordan"` in bfloat16.
        mu_dtype: Dtype of the momentum. Default None: the dtype of the parameters.
        routing: What each parameter is, see `jt.routing.resolve`. Default None: by name and shape.
        mesh: Mesh axes whose devices share the orthogonalization, by name or as a `jt.OnMesh`. Default None.

    Returns:
        The optimizer as an Optax transformation; its state has one array of the parameter's shape for every parameter.

    Raises:
        ValueError: An argument is not one of those allowed; at `init`, a parameter cannot be what it is routed to; at
            `update`, a parameter is no matrix and its norm is one of matrices, by its path.

    Source:
        Pethick et al. 2025, https://arxiv.org/abs/2502.07529, algorithms 1 and 2; radii, rates and momentum from
        https://github.com/LIONS-EPFL/scion at f58a393, README.md and examples. Their code differs in four points. It
        adds 1e-8 to root mean squares. A convolution with a kernel of width $k$ has the factor
        $\sqrt{\text{out} / \text{in}} / k^2$ there; here fan-in holds $k^2$, which gives $1 / k$. The first layer of
        their MLP has $\max(1, \sqrt{\text{fan\_out} / \text{fan\_in}})$. It draws the initial weights on the ball.
    """
    check_rate("learning_rate", learning_rate)
    check_flag("constrained", constrained)
    check_decay_rate("beta", beta)
    mu_dtype = check_float_dtype("mu_dtype", mu_dtype)
    orthogonalizer = as_orthogonalizer(orthogonalizer)
    as_on_mesh(mesh)
    norms = {} if norms is None else norms
    check_mapping("norms", norms, "from roles to norms")
    for name in norms:
        _check_role("norms", name)
        check_choice(f"norms[{name!r}]", norms[name], get_args(Norm))
    radii = _radii_by_role(radius)
    norm_of: dict[str, Norm] = {**_NORMS, **norms}

    def step(role: str, axes: Mapping[str, MatrixAxes] | None = None) -> optax.GradientTransformationExtraArgs:
        norm = norm_of.get(role, norm_of["other"])
        return optax.chain(
            scale_by_momentum(beta, form="ema", mu_dtype=mu_dtype),
            scale_by_dual_norm(norm, orthogonalizer=orthogonalizer, axes=axes, mesh=mesh),
            _scale(radii.get(role, radii["other"])),
            add_decayed_weights(1.0 if constrained else 0.0),
            scale_by_learning_rate(learning_rate),
        )

    roles = dict.fromkeys((*norm_of, *radii))
    transforms: dict[str, Any] = {role: step(role) for role in roles}
    # The rows of a tied table are looked up, and its columns are what the head contracts.
    transforms["tied"] = lambda axes: step("tied", _WithDefault(axes, MatrixAxes(-1, -2)))
    return multi_transform({**transforms, "frozen": optax.set_to_zero()}, routing, log=True)


def _radii_by_role(radius: float | Mapping[str, float] | None) -> dict[str, float]:
    if radius is None:
        return dict(_RADII)
    if not isinstance(radius, Mapping):
        check_nonnegative("radius", radius)
        return dict.fromkeys(_RADII, float(radius) if isinstance(radius, int) else radius)
    for role, number in radius.items():
        _check_role("radius", role)
        check_nonnegative(f"radius[{role!r}]", number)
    return {**_RADII, **radius}


def _check_role(argument: str, role: Any) -> None:
    allowed = (*ROLES, "other")
    if role not in allowed:
        raise ValueError(
            f"{argument} must have keys among {', '.join(map(repr, allowed))}; got {role!r}"
            f"{did_you_mean(str(role), allowed)}"
        )


def _scale(factor: float) -> optax.GradientTransformation:
    """`optax.scale` whose result keeps its dtype where the factor is an array."""
    return optax.stateless_with_tree_map(lambda u, _: (u * factor).astype(u.dtype))


class _WithDefault(Mapping[str, MatrixAxes]):
    """Axes by path name, with an answer for every other name too."""

    def __init__(self, known: Mapping[str, MatrixAxes], default: MatrixAxes) -> None:
        self._known, self._default = known, default

    def __getitem__(self, name: str) -> MatrixAxes:
        return self._known.get(name, self._default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def __bool__(self) -> bool:
        return True  # also where nothing is known: the default is an answer
