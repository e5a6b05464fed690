"""Landscapes of a 2x2 weight, drawn over the singular directions of its error."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Final

import jax.numpy as jnp
import numpy as np

from jaxopt_tour._types import Array
from jaxopt_tour.problems.landscape import Landscape, Plane


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
