"""Small functions to watch an optimizer on: formula, source, box and start."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import jax.numpy as jnp
import numpy as np

from jaxopt_tour._checks import check_choice
from jaxopt_tour._types import Array
from jaxopt_tour.problems.landscape import Landscape, Plane
from jaxopt_tour.problems.matrix_landscapes import matrix_regression, matrix_steep, rank_deficient


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
