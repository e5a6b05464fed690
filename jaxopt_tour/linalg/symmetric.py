"""Products that are known to be symmetric: one half computed, the other mirrored.

``P = L R^T`` is symmetric where R = L (a Gram matrix) and where L and R are symmetric and commute (polynomials of one
symmetric matrix). Three ways to the same P:

* ``"plain"``: one product, 2 m^2 k operations.
* ``"blocks"``: p x p blocks, those on and above the diagonal computed, the others mirrored. The blocks of one row are
  one product, of p in all, and take (p + 1) / (2 p) of the operations: 3/4 for two, 2/3 for three.
* ``"kernel"``: one triangle of tiles in a single kernel, see :mod:`jaxopt_tour.linalg.symmetric_kernel`.

``"auto"`` is plain except where a measurement says otherwise, see :data:`BLOCKS_FROM` and :data:`KERNEL_FROM`.

Derivatives are those of the plain product, whichever method computed P.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Final

import jax
import jax.numpy as jnp

from jaxopt_tour._checks import check_choice
from jaxopt_tour._types import Array, DTypeLike, Float
from jaxopt_tour.linalg import symmetric_kernel
from jaxopt_tour.linalg.products import product

METHODS: Final = ("auto", "plain", "blocks", "kernel")

#: By platform, the number of rows from which "auto" takes blocks where both factors are symmetric. ``python
#: benchmarks/symmetric.py`` measures what they gain (benchmarks/results/symmetric-cpu.json): on CPU the median falls
#: below plain's from 768 rows on, all of its quartiles from 1,024. Below, copies and thin products cost more than
#: the operations that are saved. X X^T stays plain: the blocks of X would have to be copied out of it first.
BLOCKS_FROM: dict[str, int] = {"cpu": 768}

#: How many blocks a side has. Two save less, and from four on the products become too thin.
BLOCKS: Final = 3

#: By device kind (``jax.devices()[0].device_kind``), the number of rows from which "auto" takes the kernel; a kind
#: enters with a committed results file. ``python benchmarks/symmetric.py`` on that device prints its line.
KERNEL_FROM: dict[str, int] = {}

_Method = Callable[[Array, Array], Array]


def symmetric_product(
    left: Float[Array, "*batch m k"],
    right: Float[Array, "*batch m k"],
    *,
    method: str = "auto",
    keep: bool = False,
    right_symmetric: bool = False,
    blocks: int = BLOCKS,
) -> Float[Array, "*batch m m"]:
    """``left right^T`` where the caller knows that it is symmetric; nothing checks that it is.

    Args:
        left: a batch of real floating matrices.
        right: of the shape and dtype of left.
        method: ``"plain"``, ``"blocks"``, ``"kernel"`` or ``"auto"``. The kernel takes float16 and bfloat16 on a Hopper
            GPU; for any other dtype, device or release of JAX the product is plain.
        keep: leave the result in the dtype of its sums: float32 for half precision.
        right_symmetric: right is symmetric as well (m = k), so that right itself is its transpose.
        blocks: how many a side has under ``"blocks"``.

    Returns:
        The products, in the dtype of left. By the kernel each equals its transpose bit for bit; by blocks, outside the
        blocks on the diagonal; plain, up to rounding.

    Raises:
        ValueError: method or blocks is not one of those named above.
    """
    check_choice("method", method, METHODS)
    if isinstance(blocks, bool) or not isinstance(blocks, int) or blocks < 1:
        raise ValueError(f"blocks must be an integer >= 1, got {blocks!r}")
    plain = functools.partial(_plain, keep=keep, right_symmetric=right_symmetric)
    if left.size == 0 or left.shape[-2] == 1:
        return plain(left, right)
    out_dtype = jnp.promote_types(left.dtype, jnp.float32) if keep else left.dtype
    if method == "auto":
        by_platform = _chosen(left.shape[-2], left.dtype, out_dtype, right_symmetric)
    else:
        by_platform = {"default": method} if method != "kernel" else {"cuda": "kernel"}
    ways: dict[str, _Method] = {}
    for platform, name in by_platform.items():
        if name == "blocks":
            by_blocks = functools.partial(_blocks, keep=keep, right_symmetric=right_symmetric, blocks=blocks)
            ways[platform] = functools.partial(mirrored, by_blocks, right_symmetric)
        elif name == "kernel" and symmetric_kernel.supports(left.dtype, out_dtype):
            kernel = functools.partial(_kernel, out_dtype=out_dtype)
            ways[platform] = functools.partial(mirrored, kernel, right_symmetric)
    if not ways:
        return plain(left, right)
    if ways.keys() == {"default"}:
        return ways["default"](left, right)
    return jax.lax.platform_dependent(left, right, **({"default": plain} | ways))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def mirrored(function: _Method, right_symmetric: bool, left: Array, right: Array) -> Array:
    """``function(left, right)``, which computes half of a symmetric product, with the plain product's derivatives.

    A cotangent sent through the mirror would count for one half of P only. That is right for the sum over all uses of a
    symmetric P, but gives each factor another derivative than the plain product does.
    """
    return function(left, right)


@mirrored.defjvp
def _(
    function: _Method, right_symmetric: bool, values: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    (left, right), (left_dot, right_dot) = values, tangents
    result = mirrored(function, right_symmetric, left, right)
    moved = _plain(left_dot, right, True, right_symmetric) + _plain(left, right_dot, True, right_symmetric)
    return result, moved.astype(result.dtype)


def _chosen(m: int, dtype: DTypeLike, out_dtype: DTypeLike, both_symmetric: bool) -> dict[str, str]:
    """What "auto" takes, by platform: whatever is missing is plain."""
    chosen = {platform: "blocks" for platform, start in BLOCKS_FROM.items() if both_symmetric and m >= start}
    if KERNEL_FROM and symmetric_kernel.supports(dtype, out_dtype) and jax.device_count() == 1:
        # A program over several devices is left to XLA, which can partition a product but not a kernel.
        start = KERNEL_FROM.get(jax.devices()[0].device_kind)
        if start is not None and m >= start:
            chosen["cuda"] = "kernel"
    return chosen


def _plain(left: Array, right: Array, keep: bool, right_symmetric: bool) -> Array:
    return product(left, right if right_symmetric else right.mT, keep)


def _blocks(left: Array, right: Array, keep: bool, right_symmetric: bool, blocks: int) -> Array:
    """The rows of blocks from the diagonal on, each one product, and what the rows above have to its left."""
    # Rows of right are, for a symmetric right, the same columns, which are ready for the product.
    turned = right if right_symmetric else right.mT
    m = left.shape[-2]
    edges = sorted({i * m // blocks for i in range(blocks + 1)})
    computed: list[Array] = []
    rows: list[Array] = []
    for low, high in itertools.pairwise(edges):
        mirror = [above[..., low - first : high - first].mT for first, above in zip(edges, computed, strict=False)]
        computed.append(product(left[..., low:high, :], turned[..., :, low:], keep))
        rows.append(jnp.concatenate([*mirror, computed[-1]], axis=-1))
    return jnp.concatenate(rows, axis=-2)


def _kernel(left: Array, right: Array, out_dtype: DTypeLike) -> Array:
    return symmetric_kernel.symmetric_kernel(left, right, out_dtype)
