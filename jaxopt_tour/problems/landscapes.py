"""Small functions to watch an optimizer on: formula, source, box and start.

A landscape is a function of one array, a vector or a matrix, and is drawn over a plane with coordinates (x, y). For
two parameters the plane is all there is; a matrix landscape is drawn over the two directions that matter to it. Their
minima and saddles are computed in `stationary`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_tour._checks import check_choice, check_nonnegative
from jaxopt_tour._types import Array


@dataclasses.dataclass(frozen=True, eq=False)
class Plane:
    """The plane over which a landscape is drawn: `params = origin + x first + y second`, both of length one."""

    origin: np.ndarray
    first: np.ndarray
    second: np.ndarray

    def params(self, x: Any, y: Any) -> np.ndarray:
        """Parameters at coordinates; `x` and `y` may be arrays, whose axes come first."""
        x, y = (np.asarray(each, np.float64)[(...,) + (None,) * self.origin.ndim] for each in (x, y))
        return self.origin + x * self.first + y * self.second

    def coordinates(self, params: Any) -> np.ndarray:
        """(..., 2): where parameters (..., *shape) are seen; what lies off the plane is projected onto it."""
        offset = np.asarray(params, np.float64) - self.origin
        axes = list(range(-self.origin.ndim, 0))
        return np.stack([np.sum(offset * each, tuple(axes)) for each in (self.first, self.second)], axis=-1)


@dataclasses.dataclass(frozen=True, eq=False)
class Landscape:
    """A function to minimize, with all that is needed to draw it and to start on it.

    Attributes:
        name: what commands and tables call it.
        title: what a person calls it.
        formula: its formula as text.
        source: where it is from.
        about: what to look for on it, in a sentence.
        fn: array of `shape` -> scalar.
        start: where a run begins, in coordinates of the plane.
        box: ((lowest x, highest x), (lowest y, highest y)) of what is drawn.
        plane: the plane over which it is drawn.
        separable: whether fn is a sum over coordinates, the same function of each.
        kinks: parameters at which the gradient is not defined.
        gram: of a regression, the second moments of its inputs.
        noise: standard deviation of what is added to every entry of the gradient at each step.
    """

    name: str
    title: str
    formula: str
    source: str
    about: str
    fn: Callable[[Array], Array]
    start: tuple[float, float]
    box: tuple[tuple[float, float], tuple[float, float]]
    plane: Plane
    separable: bool = False
    kinks: tuple[tuple[float, ...], ...] = ()
    gram: np.ndarray | None = None
    noise: float = 0.0

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the parameters."""
        return self.plane.origin.shape

    def init(self, start: Any = None) -> Array:
        """The parameters at the start, or at other coordinates `(..., 2)` of the plane."""
        at = np.asarray(self.start if start is None else start, np.float64)
        return jnp.asarray(self.plane.params(at[..., 0], at[..., 1]), jnp.result_type(float))

    def loss(self, params: Array, key: Array) -> Array:
        """The value; its gradient carries the noise, if there is any, drawn with `key`."""
        value = self.fn(params)
        if not self.noise:
            return value
        noise = self.noise * jax.random.normal(key, params.shape, params.dtype)
        return value + jnp.vdot(noise, params - jax.lax.stop_gradient(params))  # adds noise to the gradient alone

    def with_noise(self, noise: float) -> Landscape:
        """The same landscape with noisy gradients: each entry gets a Gaussian of this standard deviation."""
        check_nonnegative("noise", noise)
        return dataclasses.replace(self, noise=float(noise))

    def values(self, x: Any, y: Any) -> np.ndarray:
        """The function over coordinates of the plane, for drawing."""
        params = jnp.asarray(self.plane.params(x, y), jnp.result_type(float))
        flat = params.reshape(-1, *self.shape)
        return np.asarray(jax.jit(jax.vmap(self.fn))(flat)).reshape(params.shape[: params.ndim - len(self.shape)])


def _coordinate_plane(dimensions: int, rest: float = 0.0) -> Plane:
    """The first two coordinates; the others stay at `rest`."""
    first, second = np.eye(dimensions)[:2]
    origin = np.full(dimensions, float(rest))
    origin[:2] = 0
    return Plane(origin, first, second)


# --- the functions ----------------------------------------------------------------------------------------------------


def styblinski_tang(dimensions: int = 2) -> Landscape:
    """Styblinski-Tang: the same double well along every coordinate, summed; 2^d minima, one of them global."""
    if isinstance(dimensions, bool) or not isinstance(dimensions, int) or dimensions < 2:
        raise ValueError(f"dimensions must be an integer >= 2, got {dimensions!r}")
    return Landscape(
        name="styblinski-tang",
        title="Styblinski-Tang",
        formula="f(x) = ½ Σᵢ (xᵢ⁴ − 16 xᵢ² + 5 xᵢ)",
        source="https://www.sfu.ca/~ssurjano/stybtang.html",
        about="Four valleys; the deepest lies diagonally across from the start. Only what carries speed gets there.",
        fn=lambda x: 0.5 * jnp.sum(x**4 - 16 * x**2 + 5 * x),
        start=(4.1, 4.5),
        box=((-5.0, 5.0), (-5.0, 5.0)),
        plane=_coordinate_plane(dimensions, rest=4.1),
        separable=True,
    )


def rosenbrock() -> Landscape:
    """Rosenbrock's banana: a curved valley, easy to find and slow to follow."""

    def fn(p: Array) -> Array:
        x, y = p
        return (1 - x) ** 2 + 100 * (y - x**2) ** 2

    return Landscape(
        name="rosenbrock",
        title="Rosenbrock",
        formula="f(x, y) = (1 − x)² + 100 (y − x²)²",
        source="Rosenbrock 1960, https://doi.org/10.1093/comjnl/3.3.175",
        about="A curved valley with steep walls and almost no slope along its floor.",
        fn=fn,
        start=(-1.2, 1.0),
        box=((-2.0, 2.0), (-1.0, 3.0)),
        plane=_coordinate_plane(2),
    )


def beale() -> Landscape:
    """Beale: wide plateaus and sharp walls; gradients differ by orders of magnitude."""

    def fn(p: Array) -> Array:
        x, y = p
        return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2

    return Landscape(
        name="beale",
        title="Beale",
        formula="f(x, y) = (1.5 − x + xy)² + (2.25 − x + xy²)² + (2.625 − x + xy³)²",
        source="Beale 1958; Moré, Garbow & Hillstrom 1981, no. 5, https://doi.org/10.1145/355934.355936",
        about="Flat in the middle, a wall at the corners: a rate that suits one place is wrong at another.",
        fn=fn,
        start=(1.0, 1.0),
        box=((-4.5, 4.5), (-4.5, 4.5)),
        plane=_coordinate_plane(2),
    )


def himmelblau() -> Landscape:
    """Himmelblau: four minima of the same depth around a hill."""

    def fn(p: Array) -> Array:
        x, y = p
        return (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2

    return Landscape(
        name="himmelblau",
        title="Himmelblau",
        formula="f(x, y) = (x² + y − 11)² + (x + y² − 7)²",
        source="Himmelblau 1972, https://en.wikipedia.org/wiki/Himmelblau%27s_function",
        about="Four minima, all of them global. Which one is reached depends on the rule as much as on the start.",
        fn=fn,
        start=(-0.5, -0.5),
        box=((-6.0, 6.0), (-6.0, 6.0)),
        plane=_coordinate_plane(2),
    )


def rastrigin() -> Landscape:
    """Rastrigin: a bowl with a ripple, a minimum near every grid point."""
    return Landscape(
        name="rastrigin",
        title="Rastrigin",
        formula="f(x) = Σᵢ (10 + xᵢ² − 10 cos 2πxᵢ)",
        source="https://www.sfu.ca/~ssurjano/rastr.html",
        about="A shallow bowl under deep ripples: 121 minima, and every rule ends in one near its start.",
        fn=lambda x: jnp.sum(10 + x**2 - 10 * jnp.cos(2 * jnp.pi * x)),
        start=(3.4, 2.6),
        box=((-5.12, 5.12), (-5.12, 5.12)),
        plane=_coordinate_plane(2),
        separable=True,
    )


def ackley() -> Landscape:
    """Ackley: a nearly flat, rippled plain around a deep funnel with a kink at its bottom."""

    def fn(p: Array) -> Array:
        mean_square = jnp.mean(p**2)
        at_kink = mean_square == 0
        root = jnp.where(at_kink, 0.0, jnp.sqrt(jnp.where(at_kink, 1.0, mean_square)))  # its gradient at 0 is 0
        return -20 * jnp.exp(-0.2 * root) - jnp.exp(jnp.mean(jnp.cos(2 * jnp.pi * p))) + 20 + jnp.e

    return Landscape(
        name="ackley",
        title="Ackley",
        formula="f(x, y) = 20 + e − 20 exp(−0.2 √((x² + y²)/2)) − exp((cos 2πx + cos 2πy)/2)",
        source="Ackley 1987, https://www.sfu.ca/~ssurjano/ackley.html",
        about="Ripples far out, a funnel in the middle with a kink at its bottom, where no gradient shrinks.",
        fn=fn,
        start=(2.6, -1.7),
        box=((-5.0, 5.0), (-5.0, 5.0)),
        plane=_coordinate_plane(2),
        kinks=((0.0, 0.0),),
    )


def ravine() -> Landscape:
    """A ravine along the diagonal: a quadratic of condition number 100, turned by 45 degrees."""

    def fn(p: Array) -> Array:
        x, y = p
        return 0.25 * (x + y) ** 2 / 10 + 0.25 * 10 * (y - x) ** 2

    return Landscape(
        name="ravine",
        title="Ravine",
        formula="f(x, y) = ½ (u²/10 + 10 v²),  u = (x + y)/√2,  v = (y − x)/√2",
        source="a quadratic of condition number 100, turned by 45 degrees",
        about="Steep across, gentle along, and turned: one rate per coordinate helps little, momentum much.",
        fn=fn,
        start=(-3.9, -2.7),
        box=((-5.0, 5.0), (-5.0, 5.0)),
        plane=_coordinate_plane(2),
    )


def saddle() -> Landscape:
    """A saddle between two minima; the start is almost on the ridge that leads to it."""

    def fn(p: Array) -> Array:
        x, y = p
        return 0.5 * x**2 + 0.25 * y**4 - 0.5 * y**2

    return Landscape(
        name="saddle",
        title="Saddle",
        formula="f(x, y) = ½ x² + ¼ y⁴ − ½ y²",
        source="the simplest saddle that is bounded below",
        about="The start is 0.001 off the ridge. Dividing by the root of g² leaves the saddle at once; SGD lingers.",
        fn=fn,
        start=(1.6, 1e-3),
        box=((-2.0, 2.0), (-2.0, 2.0)),
        plane=_coordinate_plane(2),
    )


def quadratic(condition_number: float = 25.0) -> Landscape:
    """A bowl with axes along the coordinates: `f = (c x^2 + y^2 / c) / 2` with `c^2` the condition number.

    Args:
        condition_number: largest over smallest curvature, at least 1.
    """
    if not 1 <= condition_number < math.inf:
        raise ValueError(f"condition_number must be a number >= 1, got {condition_number!r}")
    c = math.sqrt(condition_number)

    def fn(p: Array) -> Array:
        x, y = p
        return 0.5 * (c * x**2 + y**2 / c)

    return Landscape(
        name="quadratic",
        title=f"Quadratic, condition {condition_number:g}",
        formula=f"f(x, y) = ½ (c x² + y²/c),  c² = {condition_number:g}",
        source="a bowl whose curvatures differ by the condition number",
        about="Steep in x, flat in y, and straight: one rate per coordinate is exactly what it takes.",
        fn=fn,
        start=(-2.0, 4.0),
        box=((-5.0, 5.0), (-5.0, 5.0)),
        plane=_coordinate_plane(2),
    )


def _rotation(degrees: float) -> np.ndarray:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[cos, -sin], [sin, cos]])


#: Singular directions of the matrix landscapes: those of the inputs and those of the outputs.
_INPUTS, _OUTPUTS = _rotation(30.0), _rotation(-20.0)
_TARGET: Final = np.array([[0.5, -0.3], [0.2, 0.4]])


def _singular_plane() -> Plane:
    """`W = W* + x q1 p1^T + y q2 p2^T`: x and y are the singular values (with sign) of the error W - W*."""
    first, second = (np.outer(_INPUTS[:, i], _OUTPUTS[:, i]) for i in range(2))
    return Plane(_TARGET, first, second)


def _regression(gram: np.ndarray) -> Callable[[Array], Array]:
    """`W -> 1/2 tr((W - W*)^T gram (W - W*))`: half the mean-square error of inputs with second moments `gram`."""

    def fn(w: Array) -> Array:
        error = w - jnp.asarray(_TARGET, w.dtype)
        return 0.5 * jnp.sum(error * (jnp.asarray(gram, w.dtype) @ error))

    return fn


def matrix_regression() -> Landscape:
    """Linear regression with a 2x2 weight, inputs of unequal size: what Muon is made for, in the smallest form."""
    gram = _INPUTS @ np.diag([4.0, 0.16]) @ _INPUTS.T
    return Landscape(
        name="matrix-regression",
        title="2×2 weight, regression",
        formula="f(W) = ½ tr((W − W*)ᵀ Q (W − W*)),  W is 2×2,  Q = E[input inputᵀ], eigenvalues 4 and 0.16",
        source="multi-output linear regression; drawn over the singular directions of W − W*",
        about="The gradient is nearly of rank one. Muon makes both singular values one and goes both ways as fast.",
        fn=_regression(gram),
        start=(2.2, 3.4),
        box=((-4.0, 4.0), (-4.0, 4.0)),
        plane=_singular_plane(),
        gram=gram,
    )


def matrix_steep() -> Landscape:
    """The same with inputs whose sizes differ more, as those of a real layer do: condition number 100."""
    gram = _INPUTS @ np.diag([4.0, 0.04]) @ _INPUTS.T
    return dataclasses.replace(
        matrix_regression(),
        name="matrix-steep",
        title="2×2 weight, condition 100",
        formula="f(W) = ½ tr((W − W*)ᵀ Q (W − W*)),  W is 2×2,  Q = E[input inputᵀ], eigenvalues 4 and 0.04",
        about="Along x the loss is a hundred times as steep as along y. Muon's step is as long along y as along x.",
        fn=_regression(gram),
        gram=gram,
    )


def rank_deficient() -> Landscape:
    """The same with inputs along one direction: every gradient has rank one, and minima form a valley."""
    gram = _INPUTS @ np.diag([1.0, 0.0]) @ _INPUTS.T
    return Landscape(
        name="rank-deficient",
        title="2×2 weight, rank-deficient inputs",
        formula="f(W) = ½ tr((W − W*)ᵀ Q (W − W*)),  W is 2×2,  Q = E[input inputᵀ] of rank one",
        source="multi-output linear regression with inputs along one direction",
        about="Every gradient has rank one. Under Newton-Schulz zero stays zero, so Muon moves only "
        "where there is something to learn; one rate per entry moves off, into the valley.",
        fn=_regression(gram),
        start=(3.0, 2.0),
        box=((-4.0, 4.0), (-4.0, 4.0)),
        plane=_singular_plane(),
        gram=gram,
    )


#: Every landscape by its name, each with its default arguments.
LANDSCAPES: Final[dict[str, Callable[[], Landscape]]] = {
    "styblinski-tang": styblinski_tang,
    "rosenbrock": rosenbrock,
    "beale": beale,
    "himmelblau": himmelblau,
    "rastrigin": rastrigin,
    "ackley": ackley,
    "ravine": ravine,
    "saddle": saddle,
    "quadratic": quadratic,
    "matrix-regression": matrix_regression,
    "matrix-steep": matrix_steep,
    "rank-deficient": rank_deficient,
}


def make_landscape(name: str) -> Landscape:
    """The landscape of that name.

    Raises:
        ValueError: there is none; the message lists those there are.
    """
    check_choice("landscape", name, LANDSCAPES)
    return LANDSCAPES[name]()
