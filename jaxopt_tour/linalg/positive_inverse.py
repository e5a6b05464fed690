"""The inverse of a positive definite matrix, by block elimination: products, and Cholesky factors of small blocks.

The matrices to invert are `R + c I` with R a Gram matrix. Every block of columns is eliminated in turn (a sweep):
with D the block on the diagonal, `D = L L^T`,

    `G = A[:, k] L^-T`,  `G[k] = -L^-T`;   `A <- A - G G^T`, where the rows and columns k of A count as zero

after which A holds minus the inverse of what is eliminated and the Schur complement of what is not. Complements are
formed from Cholesky factors, never from an inverse: as in a Cholesky factorization an error of the size of rounding
stays one, and R may be singular as long as c is well above it.

One elimination is the body of a loop, so the program does not grow with the matrix, and nearly all of the work is the
product `G G^T`: 2 m^3 operations in all. Source: Goodnight, A Tutorial on the SWEEP Operator, 1979,
doi:10.1080/00031305.1979.10482685, in blocks.
"""

from __future__ import annotations

from typing import Final

import jax
import jax.numpy as jnp
from jax import lax

from jaxopt_tour._types import Array, Float
from jaxopt_tour.linalg.decompositions import decompose
from jaxopt_tour.linalg.products import product

#: Rows of a block that is eliminated at once.
BLOCK: Final = 64


@jax.custom_jvp
def positive_inverse(a: Float[Array, "*batch m m"]) -> Float[Array, "*batch m m"]:
    """`A^-1` for symmetric positive definite matrices of float32 or float64.

    The derivative is `dA^-1 = -A^-1 dA A^-1`. A matrix that is not positive definite, up to rounding, gives NaN.
    """
    return decompose(_eliminated, a) if a.size else a


@positive_inverse.defjvp
def _positive_inverse_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (a,), (da,) = primals, tangents
    inverse = positive_inverse(a)
    return inverse, -product(inverse, product(da, inverse))


def block_rows(m: int) -> int:
    """Rows of the blocks of an m x m matrix: `BLOCK`, or of a smaller matrix all, rounded up to a power of two."""
    rows = 16
    while rows < min(m, BLOCK):
        rows *= 2
    return rows


def operations(m: int) -> int:
    """Floating-point operations of the inverse of an m x m matrix: of the products, and of the triangles."""
    block = block_rows(m)
    blocks = -(-m // block)
    rows = blocks * block
    return blocks * (2 * rows * block**2 + 2 * rows**2 * block + 2 * block**3)


def _eliminated(a: Array) -> Array:
    m = a.shape[-1]
    block = block_rows(m)
    padding = -m % block
    if padding:
        ones = jnp.concatenate([jnp.zeros(m, a.dtype), jnp.ones(padding, a.dtype)])
        a = jnp.pad(a, [(0, 0)] * (a.ndim - 2) + [(0, padding)] * 2) + jnp.diag(ones)
    number = jnp.arange(m + padding) // block  # of the block that a row or column is in

    def eliminate(k: Array | int, a: Array) -> Array:
        columns = lax.dynamic_slice_in_dim(a, k * block, block, axis=-1)
        diagonal = lax.dynamic_slice_in_dim(columns, k * block, block, axis=-2)
        inverse = _inverse_of_triangle(jnp.linalg.cholesky(diagonal, symmetrize_input=False)).mT
        g = lax.dynamic_update_slice_in_dim(product(columns, inverse), -inverse, k * block, axis=-2)
        eliminated = (number == k)[:, None] | (number == k)[None, :]
        return jnp.where(eliminated, 0.0, a) - product(g, g.mT)

    blocks = (m + padding) // block
    a = eliminate(0, a) if blocks == 1 else lax.fori_loop(0, blocks, eliminate, a)
    return -a[..., :m, :m]


def _inverse_of_triangle(lower: Array) -> Array:
    """The inverse of a lower triangular matrix.

    On a CPU by forward substitution, a row at a time: row k is `(e_k - sum_(j < k) L_kj X_j) / L_kk`. It compiles in
    half the time of LAPACK's triangular solve in blocks, and runs faster than it. For 64 rows OpenBLAS, which is LAPACK
    on CPU, would wake threads of its own; while those wait for work they take cores from the products around.
    """
    identity = jnp.eye(lower.shape[-1], dtype=lower.dtype)

    def row_by_row(lower: Array) -> Array:
        below = jnp.tril(lower, -1)

        def row(k: Array, x: Array) -> Array:
            weights = lax.dynamic_slice_in_dim(below, k, 1, axis=-2)  # (1, 64), zero from k on
            pivot = lax.dynamic_slice_in_dim(lax.dynamic_slice_in_dim(lower, k, 1, axis=-2), k, 1, axis=-1)
            new = (lax.dynamic_slice_in_dim(identity, k, 1, axis=-2) - product(weights, x)) / pivot
            return lax.dynamic_update_slice_in_dim(x, new, k, axis=-2)

        return lax.fori_loop(0, lower.shape[-1], row, jnp.zeros_like(lower))

    def at_once(lower: Array) -> Array:
        return lax.linalg.triangular_solve(lower, jnp.broadcast_to(identity, lower.shape), left_side=True, lower=True)

    return lax.platform_dependent(lower, cpu=row_by_row, default=at_once)
