"""Products that are known to be symmetric: one half computed, the other mirrored.

`P = L R^T` is symmetric where R = L (a Gram matrix) and where L and R are symmetric and commute (polynomials of one
symmetric matrix). Two ways to the same P:

* `"plain"`: one product, 2 m^2 k operations.
* `"blocks"`: p x p blocks; those on and above the diagonal are computed, the others mirrored. The blocks of one row
  are one product, which makes p products and (p + 1) / (2 p) of the operations: 3/4 for two blocks, 2/3 for three.

Derivatives are those of the plain product, whichever method computed P.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Final, Literal

import jax
import jax.numpy as jnp

from jaxopt_tour._checks import check_choice
from jaxopt_tour._types import Array, Float
from jaxopt_tour.linalg.products import product

Method = Literal["plain", "blocks"]
METHODS: Final = ("plain", "blocks")

#: Blocks per side. Two save fewer operations; from four on the products become too thin (benchmarks/symmetric.py).
BLOCKS: Final = 3

_Product = Callable[[Array, Array], Array]


def symmetric_product(
    left: Float[Array, "*batch m k"],
    right: Float[Array, "*batch m k"],
    *,
    method: Method = "plain",
    wide_result: bool = False,
    right_symmetric: bool = False,
    blocks: int = BLOCKS,
) -> Float[Array, "*batch m m"]:
    """Multiply `left right^T` where the caller knows that the result is symmetric; nothing checks that it is.

    Args:
        left: a batch of real floating matrices.
        right: of the shape and dtype of `left`.
        method: `"plain"` or `"blocks"`.
        wide_result: return the dtype of the sums, float32 for half precision.
        right_symmetric: `right` is symmetric as well (m = k), so that it is its own transpose.
        blocks: blocks per side under `"blocks"`.

    Returns:
        The products, in the dtype of `left` unless `wide_result`. By blocks, entries outside the diagonal blocks
        equal their mirror images bit for bit; plain, up to rounding.

    Raises:
        ValueError: `method` or `blocks` is not one of those named above.
    """
    check_choice("method", method, METHODS)
    if isinstance(blocks, bool) or not isinstance(blocks, int) or blocks < 1:
        raise ValueError(f"blocks must be an integer >= 1, got {blocks!r}")
    if method == "plain" or left.size == 0 or left.shape[-2] == 1:
        return _plain(left, right, wide_result, right_symmetric)
    by_blocks = functools.partial(_blocks, wide_result=wide_result, right_symmetric=right_symmetric, blocks=blocks)
    return mirrored(by_blocks, right_symmetric, left, right)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def mirrored(function: _Product, right_symmetric: bool, left: Array, right: Array) -> Array:
    """`function(left, right)`, which computes half of a symmetric product, with the plain product's derivatives.

    A cotangent sent through the mirror would count for one half of P only. That is right for the sum over all uses of a
    symmetric P, but gives each factor another derivative than the plain product does.
    """
    return function(left, right)


@mirrored.defjvp
def _(
    function: _Product, right_symmetric: bool, values: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    (left, right), (left_dot, right_dot) = values, tangents
    result = mirrored(function, right_symmetric, left, right)
    moved = _plain(left_dot, right, True, right_symmetric) + _plain(left, right_dot, True, right_symmetric)
    return result, moved.astype(result.dtype)


def _plain(left: Array, right: Array, wide_result: bool, right_symmetric: bool) -> Array:
    return product(left, right if right_symmetric else right.mT, wide_result=wide_result)


def _blocks(left: Array, right: Array, wide_result: bool, right_symmetric: bool, blocks: int) -> Array:
    """Compute the rows of blocks from the diagonal on, each as one product, and mirror what is left of it.

    With m = 768 and three blocks: products of (256, k) with (k, 768), (256, k) with (k, 512), (256, k) with (k, 256).
    """
    # Rows of a symmetric right are the same columns, which are ready for the product.
    right_transposed = right if right_symmetric else right.mT
    m = left.shape[-2]
    edges = sorted({i * m // blocks for i in range(blocks + 1)})
    computed: list[Array] = []
    rows: list[Array] = []
    for low, high in itertools.pairwise(edges):
        mirror = [above[..., low - start : high - start].mT for start, above in zip(edges, computed, strict=False)]
        computed.append(product(left[..., low:high, :], right_transposed[..., :, low:], wide_result=wide_result))
        rows.append(jnp.concatenate([*mirror, computed[-1]], axis=-1))
    return jnp.concatenate(rows, axis=-2)
