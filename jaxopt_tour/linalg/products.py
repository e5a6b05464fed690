"""The matrix product that every iteration is made of."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.lax import Precision

from jaxopt_tour._types import Array, Float


def product(
    left: Float[Array, "*batch m k"], right: Float[Array, "*batch k n"], *, wide_result: bool = False
) -> Float[Array, "*batch m n"]:
    """Multiply matrices with sums in at least float32; `wide_result` returns the dtype of the sums.

    Factors of float32 and float64 are multiplied in full precision, not as TF32 or bfloat16, which accelerators take by
    default.
    """
    wide = jnp.promote_types(left.dtype, jnp.float32)
    precision = Precision.HIGHEST if left.dtype == wide else None

    def matmul(left: Array, right: Array) -> Array:
        return jnp.matmul(left, right, precision=precision, preferred_element_type=wide)

    if left.dtype == jnp.bfloat16:
        # XLA:CPU fails at run time on bfloat16 x bfloat16 -> float32 where the product is wanted transposed (jax 0.7 to
        # 0.10). Two bfloat16 numbers have an exact product in float32, so widened factors give the same sums.
        result = jax.lax.platform_dependent(
            left, right, cpu=lambda left, right: matmul(left.astype(wide), right.astype(wide)), default=matmul
        )
    else:
        result = matmul(left, right)
    return result if wide_result else result.astype(left.dtype)
