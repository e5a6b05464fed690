"""What a landscape is: a small function to watch an optimizer on, and the plane over which it is drawn.

A landscape is a function of one array, a vector or a matrix, and is drawn over a plane with coordinates (x, y). For
two parameters the plane is all there is; a matrix landscape is drawn over the two directions that matter to it. Their
minima and saddles are computed in `stationary`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_tour._checks import check_nonnegative
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
