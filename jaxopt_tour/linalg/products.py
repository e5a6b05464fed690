"""The matrix product that every iteration is made of."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.lax import Precision

from jaxopt_tour._types import Array, Float


def product(
    left: Float[Array, "*batch m k"], right: Float[Array, "*batch k n"], keep: bool = False
) -> Float[Array, "*batch m n"]:
    """A matrix product summed in at least float32; ``keep`` leaves the result in that dtype.

    Factors of float32 and more are multiplied as what they are: not as TF32 or bfloat16, as accelerators do by default.
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
    return result if keep else result.astype(left.dtype)
