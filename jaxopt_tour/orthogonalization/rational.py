"""The steps of rational coefficients, on Gram matrices alone.

With R the Gram matrix of the iterate and Q the product of the steps, one step is

    W_j = (R + c_j I)^-1;   Z = C I + sum_j a_j W_j;   Q <- Q Z;   R <- Z R Z

`R W_j = I - c_j W_j` gives R Z without a product, so that a step takes its inverses and two products, of which the
first step spares Q Z and the last Z R Z.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax

from jaxopt_tour._types import Array, Float
from jaxopt_tour.coefficients.rational import Rational
from jaxopt_tour.linalg.positive_inverse import positive_inverse
from jaxopt_tour.linalg.symmetric import Method, symmetric_product


def product_of_rational_steps(
    r: Float[Array, "*batch m m"], functions: Sequence[Rational], commuting_product: Method
) -> Float[Array, "*batch m m"]:
    """Q with `Q X` the result of all steps, from the Gram matrix R of X, whose norm is at most 1.

    Two steps are a loop in the program (more are not), and so are the inverses of a step: each would be compiled anew.

    Example: two steps with C = 0.5, a = 1, c = 0.5 on a 1 x 1 matrix X = 0.5, so R = 0.25. Step one multiplies by
    Z = 0.5 + 1 / (0.25 + 0.5) = 1.8333, after which R = 0.25 * 1.8333^2 = 0.8403; step two by
    Z = 0.5 + 1 / (0.8403 + 0.5) = 1.2461. So Q = 1.8333 * 1.2461 = 2.2845.
    """
    identity = jnp.eye(r.shape[-1], dtype=r.dtype)
    constants, weights, shifts = (jnp.asarray(values, r.dtype) for values in zip(*functions, strict=True))

    def commuting(left: Array, right: Array) -> Array:
        return symmetric_product(left, right, method=commuting_product, right_symmetric=True)

    def one_step(r: Array, constant: Array, weights: Array, shifts: Array) -> tuple[Array, Array]:
        """Z and R Z."""

        def add(sums: tuple[Array, Array], pole: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
            (z, rz), (weight, shift) = sums, pole
            inverse = positive_inverse(r + shift * identity)
            return (z + weight * inverse, rz + weight * (identity - shift * inverse)), None

        start = constant * identity + 0 * r, constant * r  # both of the shape and the sharding of R
        if len(shifts) == 1:
            return add(start, (weights[0], shifts[0]))[0]
        return lax.scan(add, start, (weights, shifts))[0]

    def one_of_two(carry: tuple[Array, Array], function: tuple[Array, ...]) -> tuple[tuple[Array, Array], None]:
        """Step one turns (R, R) into (Z, Z R Z), step two turns that (Q, R) into (Q Z, Q Z)."""
        (q, r), (first, *rest) = carry, function
        z, rz = one_step(r, *rest)
        next_matrix = commuting(z, jnp.where(first, rz, q))  # step one makes the next R, step two the last Q
        return (jnp.where(first, z, next_matrix), next_matrix), None

    if len(functions) == 2:
        return lax.scan(one_of_two, (r, r), (jnp.array([True, False]), constants, weights, shifts))[0][0]
    q, rz = one_step(r, constants[0], weights[0], shifts[0])
    z = q
    for function in zip(constants[1:], weights[1:], shifts[1:], strict=True):
        z, rz = one_step(commuting(z, rz), *function)
        q = commuting(q, z)
    return q
