"""Where a landscape is level: every minimum, saddle and maximum in its box, computed and classified."""

from __future__ import annotations

import contextlib
import functools
import importlib
import itertools
import math
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_tour._types import Array
from jaxopt_tour.problems.landscape import Landscape

Kind = Literal["global minimum", "local minimum", "valley", "saddle", "maximum"]

#: An eigenvalue of the Hessian counts as zero below this share of the largest.
_FLAT: Final = 1e-9
#: Newton's method starts from this many places along each side of the box.
_STARTS: Final = 121


class StationaryPoint(NamedTuple):
    """A place where the gradient is zero (or, at a kink, not defined).

    Attributes:
        params: the place, in float64 and of the landscape's shape.
        value: the function there.
        kind: by the Hessian's eigenvalues: all positive, a minimum, the lowest one global; some zero, a valley of
            minima that are not apart (the one nearest to the start is listed); of both signs, a saddle; all negative,
            a maximum. At a kink, where there is no Hessian, by the values around it.
        eigenvalues: of the Hessian, ascending; empty at a kink.
    """

    params: np.ndarray
    value: float
    kind: Kind
    eigenvalues: np.ndarray


@functools.lru_cache(maxsize=64)
def stationary_points(landscape: Landscape) -> tuple[StationaryPoint, ...]:
    """Every stationary point whose coordinates lie in the box, lowest first.

    Newton's method in float64 from a grid over the box, or, for a sum over coordinates, along one coordinate and then
    every combination. What it ends in is kept where the gradient is zero to rounding.

    Raises:
        ValueError: a separable landscape with more than 100,000 of them.
    """
    with _double_precision():
        candidates = _by_coordinate(landscape) if landscape.separable else _by_newton(landscape)
        points = [_classified(landscape, params) for params in candidates]
        points += [_at_kink(landscape, np.asarray(kink)) for kink in landscape.kinks]
    valleys = [point for point in points if point.kind == "valley"]
    if valleys:
        start = landscape.plane.params(*landscape.start)
        nearest = min(valleys, key=lambda point: float(np.sum((point.params - start) ** 2)))
        points = [point for point in points if point.kind != "valley" or point is nearest]
    lowest = min((point.value for point in points if point.kind in ("local minimum", "valley")), default=math.nan)
    tolerance = 1e-9 * max(1.0, abs(lowest))
    points = [
        point._replace(kind="global minimum")
        if point.kind == "local minimum" and point.value <= lowest + tolerance
        else point
        for point in points
    ]
    return tuple(sorted(points, key=lambda point: (point.value, *point.params.ravel())))


def minima(landscape: Landscape) -> tuple[StationaryPoint, ...]:
    """The minima among them, global ones first; a valley counts as one."""
    kinds = ("global minimum", "local minimum", "valley")
    return tuple(point for point in stationary_points(landscape) if point.kind in kinds)


def _double_precision() -> contextlib.AbstractContextManager[Any]:
    enable: Any = getattr(jax, "enable_x64", None)
    if enable is None:  # before JAX 0.8
        enable = importlib.import_module("jax.experimental").enable_x64
    return enable(True)


def _by_coordinate(landscape: Landscape) -> list[np.ndarray]:
    """Roots of the derivative along one coordinate, by sign changes and bisection, then all combinations."""
    (dimensions,) = landscape.shape
    derivative: Any = jax.jit(jax.vmap(jax.grad(lambda x: landscape.fn(x[None]))))
    low, high = landscape.box[0]
    # An irrational step to the side: no grid point lies on a root.
    grid = np.linspace(low - math.sqrt(0.5) * 1e-4, high, 20_001)
    slopes = np.asarray(derivative(grid))
    changes = np.flatnonzero(np.sign(slopes[:-1]) != np.sign(slopes[1:]))
    left, right = grid[changes], grid[changes + 1]
    rising = slopes[changes + 1] > slopes[changes]
    for _ in range(60):
        middle = (left + right) / 2
        up = (np.asarray(derivative(middle)) > 0) == rising
        left, right = np.where(up, left, middle), np.where(up, middle, right)
    roots = (left + right) / 2
    if len(roots) ** dimensions > 100_000:
        raise ValueError(f"{landscape.name} has {len(roots)}^{dimensions} stationary points: too many to list")
    return [np.array(each) for each in itertools.product(roots, repeat=dimensions)]


def _by_newton(landscape: Landscape) -> list[np.ndarray]:
    gradient, hessian = jax.grad(landscape.fn), jax.hessian(landscape.fn)
    size = math.prod(landscape.shape)

    def newton(params: Array) -> Array:
        def step(_: int, p: Array) -> Array:
            # The least-squares step: where the Hessian is singular, along what is not flat.
            h, g = hessian(p).reshape(size, size), gradient(p).reshape(size)
            return p - (jnp.linalg.pinv(h, rtol=_FLAT, hermitian=True) @ g).reshape(p.shape)

        return jax.lax.fori_loop(0, 30, step, params)

    (x_low, x_high), (y_low, y_high) = landscape.box
    # Off the center of the box by an irrational share, so that no start lies on a line of symmetry.
    shares = (np.arange(_STARTS) + math.sqrt(0.5)) / (_STARTS + 1)
    x, y = np.meshgrid(x_low + (x_high - x_low) * shares, y_low + (y_high - y_low) * shares)
    at = [np.append(first, grid.ravel()) for first, grid in zip(landscape.start, (x, y), strict=True)]
    starts = jnp.asarray(landscape.plane.params(*at))
    solved = jax.jit(lambda p: (lambda q: (q, jax.vmap(gradient)(q)))(jax.vmap(newton)(p)))(starts)
    ends, slopes = np.asarray(solved[0]), np.asarray(solved[1]).reshape(len(starts), -1)
    where = landscape.plane.coordinates(ends)
    inside = np.all((where >= [x_low, y_low]) & (where <= [x_high, y_high]), axis=-1)
    settled = np.max(np.abs(slopes), axis=-1) < 1e-9
    found: list[np.ndarray] = []
    _, first = np.unique(ends[inside & settled].reshape(-1, size).round(7), axis=0, return_index=True)
    for params in ends[inside & settled][np.sort(first)]:
        if not any(np.max(np.abs(params - other)) < 1e-6 for other in found):
            found.append(params)
        if len(found) > 1_000:  # a valley: every start ends elsewhere
            break
    kinks = [np.asarray(kink) for kink in landscape.kinks]
    return [params for params in found if all(np.max(np.abs(params - kink)) > 1e-6 for kink in kinks)]


def _classified(landscape: Landscape, params: np.ndarray) -> StationaryPoint:
    size = math.prod(landscape.shape)
    value, hessian = _value_and_hessian(landscape)(jnp.asarray(params))
    eigenvalues = np.linalg.eigvalsh(np.asarray(hessian).reshape(size, size))
    zero = _FLAT * max(1.0, float(np.max(np.abs(eigenvalues))))
    kind: Kind
    if np.all(eigenvalues > zero):
        kind = "local minimum"
    elif np.all(eigenvalues >= -zero):
        kind = "valley"
    elif np.all(eigenvalues < -zero):
        kind = "maximum"
    else:
        kind = "saddle"
    return StationaryPoint(params, float(value) + 0.0, kind, eigenvalues)  # + 0.0: never -0


@functools.lru_cache(maxsize=64)
def _value_and_hessian(landscape: Landscape) -> Callable[[Array], tuple[Array, Array]]:
    return jax.jit(lambda p: (landscape.fn(p), jax.hessian(landscape.fn)(p)))


def _at_kink(landscape: Landscape, params: np.ndarray) -> StationaryPoint:
    """A minimum or a maximum where the values on small circles around it all lie to one side, else a saddle."""
    value = float(landscape.fn(jnp.asarray(params)))
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    around = np.concatenate(
        [np.asarray(jax.vmap(landscape.fn)(jnp.asarray(params + r * circle))) for r in (1e-6, 1e-4, 1e-2)]
    )
    kind: Kind = "saddle"
    if np.all(around > value):
        kind = "local minimum"
    elif np.all(around < value):
        kind = "maximum"
    return StationaryPoint(params, value, kind, np.zeros(0))
