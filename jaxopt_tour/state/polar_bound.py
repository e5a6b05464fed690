"""The largest polar error that the plan of an orthogonalization leaves on matrices of nearly full rank."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

import jax.numpy as jnp

from jaxopt_tour._types import Array, DTypeLike, Float
from jaxopt_tour.coefficients import Exact
from jaxopt_tour.orthogonalization.orthogonalizer import Orthogonalizer
from jaxopt_tour.orthogonalization.plan import PLATFORMS, Iteration, Platform, plan_iteration
from jaxopt_tour.orthogonalization.run import on_lowered_platform

#: Singular values below this share of the prescaling norm are no failure of the coefficients: none of the usual ones
#: promises anything there (docs/accuracy.md, benchmarks/accuracy.py).
LOWER_BOUND: Final = 1e-2
#: What half precision adds at most on matrices of full rank, for coefficients that are made for it: .018 of
#: `polar_express(8)` in bfloat16, .012 of five quintics in float16 (docs/accuracy.md, benchmarks/accuracy.py).
HALF_PRECISION: Final = 0.02
#: The share of directions that may get no update at all: momentum of early training has a low rank.
WITHOUT_UPDATE: Final = 0.25

#: An orthogonalizer, and a matrix shape and dtype that it is used for.
Use = tuple[Orthogonalizer, int, int, DTypeLike]


def accepted_error(iteration: Iteration) -> float:
    r"""Return the polar error, as `jt.metrics` has it, beyond which something is wrong.

    Let a share r of the singular values be zero, and the others within e of 1, as the coefficients promise for
    [`LOWER_BOUND`, 1]. The half relative standard deviation of their squares is then at most

    $$
    \tfrac12 \sqrt{\frac{1 + 4 e^2}{1 - r} - 1}
    $$

    to first order in e.
    """
    coefficients = iteration.coefficients
    e = 0.0 if isinstance(coefficients, Exact) else coefficients.worst_error(LOWER_BOUND)
    e += HALF_PRECISION if jnp.finfo(iteration.dtype).bits == 16 else 0.0
    return 0.5 * math.sqrt((1 + 4 * e * e) / (1 - WITHOUT_UPDATE) - 1)


def bounds_by_platform(uses: Iterable[Use]) -> dict[Platform, float]:
    """Return the largest accepted error over some uses, by platform."""
    # By identity: an orthogonalizer with an array as eps has no hash.
    distinct = {(id(use), m, n, dtype): (use, min(m, n), max(m, n), dtype) for use, m, n, dtype in uses}.values()

    def bound(platform: Platform) -> float:
        return max(accepted_error(plan_iteration(use, m, n, dtype, platform)) for use, m, n, dtype in distinct)

    return {platform: bound(platform) for platform in PLATFORMS}


def bound_of_program(bounds: Mapping[Platform, float]) -> Float[Array, " 1"]:
    """Return the bound of the platform that the program is lowered for."""
    return on_lowered_platform(bounds, lambda bound, x: x + bound, jnp.zeros(1, jnp.float32))
