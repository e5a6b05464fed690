"""A Pallas kernel for symmetric products on Hopper GPUs: one triangle of tiles, each written twice.

``P = L R^T`` with P known to be symmetric. A thread block computes tiles of the lower triangle, two warpgroups with
``wgmma`` and a third that loads, summed in float32. Every 64 x 64 square of a finished tile is written at (row, column)
and, transposed in registers, at (column, row); a square on the diagonal becomes half the sum of itself and its
transpose, so P equals P^T bit for bit. Of the t x t tiles of the full product it computes t (t + 1) / 2.

It takes float16 and bfloat16, and what it was run on so far is Pallas' interpreter of GPU kernels on CPU alone: it has
been lowered for CUDA but not timed on any GPU, and :func:`jaxopt_tour.linalg.symmetric.symmetric_product` therefore
chooses it only where it is asked to. Pallas' Mosaic GPU interface changes from one release of JAX to the next;
:func:`supports` says whether the installed one has what this needs, and nothing here fails at import where it has not.

The pipeline is that of JAX's own ``jax/experimental/pallas/ops/gpu/hopper_matmul_mgpu.py``.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from typing import Any, Final

import jax
import jax.numpy as jnp

from jaxopt_tour._types import Array, DTypeLike, Float

DTYPES: Final = ("float16", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Tiling:
    """Sizes of the kernel's tiles, in entries.

    Attributes:
        rows: of one of the two compute warpgroups; a thread block's tile has twice as many.
        columns: of a tile; divides twice ``rows``.
        depth: of one step along k.
        steps: of depth held in shared memory at a time.
        square: side of the squares that are mirrored; divides ``rows`` and ``columns``.
        cores: thread blocks, which share the tiles among them; None: one for every multiprocessor of the GPU.
    """

    rows: int = 64
    columns: int = 128
    depth: int = 64
    steps: int = 4
    square: int = 64
    cores: int | None = None

    def __post_init__(self) -> None:
        if 2 * self.rows % self.columns or self.rows % self.square or self.columns % self.square:
            raise ValueError(f"columns must divide 2 rows, and square both rows and columns, got {self}")


def supports(dtype: DTypeLike, out_dtype: DTypeLike) -> bool:
    """Whether the installed JAX and its default device can run the kernel on matrices of this dtype."""
    return takes(dtype, out_dtype) and _hopper_cores() is not None and _pallas() is not None


def takes(dtype: DTypeLike, out_dtype: DTypeLike) -> bool:
    """Whether the kernel is written for this dtype: half precision, into itself or into float32."""
    return jnp.dtype(dtype).name in DTYPES and jnp.dtype(out_dtype) in (jnp.dtype(dtype), jnp.dtype(jnp.float32))


def symmetric_kernel(
    left: Float[Array, "*batch m k"],
    right: Float[Array, "*batch m k"],
    out_dtype: DTypeLike | None = None,
    *,
    tiling: Tiling | None = None,
    interpret: Any = None,
) -> Float[Array, "*batch m m"]:
    """``left right^T``, known to be symmetric, from its lower triangle.

    Args:
        left: float16 or bfloat16. Its m and k are padded with zeros to whole tiles where they are not.
        right: as left.
        out_dtype: that of left, or float32.
        tiling: sizes of the tiles; None: the default ones.
        interpret: parameters of Pallas' interpreter of GPU kernels, to run on CPU; None to compile.

    Returns:
        The products; each equals its transpose bit for bit.
    """
    tiling = tiling or Tiling()
    out_dtype = jnp.dtype(left.dtype if out_dtype is None else out_dtype)

    @jax.custom_batching.custom_vmap
    def compute(left: Array, right: Array) -> Array:
        *batch, m, k = left.shape
        tile = 2 * tiling.rows
        m_padded, k_padded = -(-m // tile) * tile, -(-k // tiling.depth) * tiling.depth
        padding = [(0, 0), (0, m_padded - m), (0, k_padded - k)]

        def rows_of(x: Array) -> Array:
            """The padded matrices of a batch below each other."""
            x = x.reshape(-1, m, k)
            x = x if x.shape[1:] == (m_padded, k_padded) else jnp.pad(x, padding)
            return x.reshape(-1, k_padded)

        count = math.prod(batch)
        result = _on_rows(count, tiling, out_dtype, interpret)(rows_of(left), rows_of(right))
        return result.reshape(count, m_padded, m_padded)[:, :m, :m].reshape(*batch, m, m)

    @compute.def_vmap
    def _(size: int, batched: list[bool], left: Array, right: Array) -> tuple[Array, bool]:
        # One more batch axis, and still one kernel.
        pairs = zip((left, right), batched, strict=True)
        left, right = (x if own else jnp.broadcast_to(x, (size, *x.shape)) for x, own in pairs)
        return compute(left, right), True

    return compute(left, right)


def _on_rows(count: int, tiling: Tiling, out_dtype: Any, interpret: Any) -> Any:
    """The kernel for ``count`` matrices of whole tiles below each other, (count m, k) -> (count m, m)."""
    pl, plgpu = _pallas() or _missing()

    def compute(left: Array, right: Array) -> Array:
        m = left.shape[0] // count
        tile = 2 * tiling.rows
        per_slab = tile // tiling.columns  # tiles side by side in a square of tile x tile
        slabs = m // tile
        tiles = count * (slabs * (slabs + 1) // 2) * per_slab
        stacked = functools.partial(
            _kernel, pl=pl, plgpu=plgpu, m=m, tiling=tiling, tiles=tiles, interpreted=interpret is not None
        )
        return plgpu.kernel(
            stacked,
            out_type=jax.ShapeDtypeStruct((count * m, m), out_dtype),
            grid=(min(tiles, tiling.cores or _hopper_cores() or 132),),
            grid_names=("core",),
            num_threads=3,
            thread_name="warpgroup",
            compiler_params=plgpu.CompilerParams(lowering_semantics=plgpu.LoweringSemantics.Warpgroup),
            interpret=interpret,
        )(left, right.T if interpret is not None else right)

    return compute


def triangle_index(index: Array | int, side: int) -> tuple[Any, Any]:
    """The (row, column) of a lower triangle of ``side`` rows that comes ``index``-th, without a square root.

    The longest row stands beside the shortest, the next beside the next shortest: a rectangle, which is read row by
    row. For an even side the two have side + 1 entries together; for an odd one the longest row stands alone.
    """
    odd = side % 2
    width = side + 1 - odd
    row, column = index // width, index % width
    long = side - row  # entries of the long row; the rest of the width are those of row `row - odd`
    in_long = column < long
    select = jax.lax.select
    row, column, long = (jnp.asarray(value, jnp.int32) for value in (row, column, long))
    return select(in_long, long - 1, row - odd), select(in_long, column, column - long)


def _kernel(
    left: Any, right: Any, out: Any, *, pl: Any, plgpu: Any, m: int, tiling: Tiling, tiles: int, interpreted: bool
) -> None:
    """The program of one thread block: every so-many-th tile of the lower triangles.

    ``right`` is (count m, k), as left is. The interpreter knows no transposed references, so that it is given the
    transpose, (k, count m), and transposes registers by jnp.
    """
    rows, columns, depth, square = tiling.rows, tiling.columns, tiling.depth, tiling.square
    tile = 2 * rows
    slabs, per_slab = m // tile, tile // columns
    per_matrix = slabs * (slabs + 1) // 2 * per_slab

    def transforms(minor: int, dtype: Any) -> tuple[Any, ...]:
        swizzle = plgpu.find_swizzle(minor * jnp.dtype(dtype).itemsize * 8)
        tiled = plgpu.TilingTransform((8, swizzle // jnp.dtype(dtype).itemsize))
        return (tiled, plgpu.SwizzleTransform(swizzle))

    def pipeline(body: Any, context: Any) -> Any:
        in_smem = functools.partial(plgpu.BlockSpec, memory_space=plgpu.SMEM)
        if interpreted:
            right_spec = in_smem((depth, columns), lambda step: (step, 0), transforms=transforms(columns, right.dtype))
        else:
            right_spec = in_smem((columns, depth), lambda step: (0, step), transforms=transforms(depth, right.dtype))
        return plgpu.emit_pipeline_warp_specialized(
            body,
            grid=(left.shape[1] // depth,),
            memory_registers=40,
            in_specs=[
                in_smem((tile, depth), lambda step: (0, step), transforms=transforms(depth, left.dtype)),
                right_spec,
            ],
            wg_axis="warpgroup",
            num_compute_wgs=2,
            max_concurrent_steps=tiling.steps,
            compute_context=context,
        )

    def ignore(*_: Any, **__: Any) -> None:
        """Stands for the functions of a pipeline where only its memory is asked for."""

    @functools.partial(
        pl.run_scoped,
        allocations=pipeline(ignore, ignore).get_allocations(left, right),
        # For each compute warpgroup, the square as it is and its transpose.
        staging=plgpu.SMEM((2, 2, square, square), out.dtype, transforms=transforms(square, out.dtype)),
        collective_axes="warpgroup",
    )
    def _(allocations: Any, staging: Any) -> None:
        warpgroup = jax.lax.axis_index("warpgroup")

        @plgpu.nd_loop((tiles,), collective_axes="core")
        def _(loop: Any) -> None:
            (index,) = loop.index
            first_row = index // per_matrix * m  # of this matrix among those below each other
            index = index % per_matrix
            slab, slab_column = triangle_index(index // per_slab, slabs)
            tile_row = slab * tile
            tile_column = slab_column * tile + index % per_slab * columns
            own_rows = pl.ds(warpgroup * rows, rows)

            def store(block: Any, row: Any, column: Any) -> None:
                direct, mirror = staging.at[warpgroup, 0], staging.at[warpgroup, 1]

                def store_transposed() -> None:
                    if interpreted:
                        mirror[...] = block.T
                    else:
                        turned = plgpu.layout_cast(block, plgpu.Layout.WGMMA_TRANSPOSED)
                        plgpu.transpose_ref(mirror, (1, 0))[...] = turned

                def send(source: Any, row: Any, column: Any) -> None:
                    place = out.at[pl.ds(first_row + row, square), pl.ds(column, square)]
                    plgpu.copy_smem_to_gmem(source, place)

                # The staging squares may still be on their way out.
                plgpu.wait_smem_to_gmem(0, wait_read_only=True)

                @pl.when(row > column)
                def _() -> None:
                    direct[...] = block
                    store_transposed()
                    plgpu.commit_smem()
                    send(direct, row, column)
                    send(mirror, column, row)

                @pl.when(row == column)
                def _() -> None:
                    store_transposed()
                    plgpu.commit_smem()
                    transposed = mirror[...] if interpreted else plgpu.load(mirror, (), layout=plgpu.Layout.WGMMA)
                    mean = 0.5 * (block.astype(jnp.float32) + transposed.astype(jnp.float32))
                    direct[...] = mean.astype(out.dtype)
                    plgpu.commit_smem()
                    send(direct, row, column)

                # Squares above the diagonal are mirrors of others.

            def finish(evaluate: Any) -> None:
                @functools.partial(pl.run_scoped, accumulator=plgpu.ACC((rows, columns), jnp.float32))
                def _(accumulator: Any) -> None:
                    evaluate(accumulator)
                    result = accumulator[...].astype(out.dtype)
                    for i in range(0, rows, square):
                        for j in range(0, columns, square):
                            block = result[i : i + square, j : j + square]
                            store(block, tile_row + warpgroup * rows + i, tile_column + j)

            def multiply(_: Any, left_tile: Any, right_tile: Any, accumulator: Any) -> Any:
                turned = right_tile if interpreted else plgpu.transpose_ref(right_tile, (1, 0))
                plgpu.wgmma(accumulator, left_tile.at[own_rows], turned)
                plgpu.wgmma_wait(0)
                return accumulator

            left_rows = pl.ds(first_row + tile_row, tile)
            right_rows = pl.ds(first_row + tile_column, columns)
            pipeline(multiply, finish)(
                left.at[left_rows, :],
                right.at[:, right_rows] if interpreted else right.at[right_rows, :],
                allocations=allocations,
            )

    # Everything has left before the thread block ends.
    plgpu.wait_smem_to_gmem(0, wait_read_only=True)


@functools.cache
def _pallas() -> tuple[Any, Any] | None:
    """Pallas and its Mosaic GPU part, or None where the installed JAX lacks them or has an older interface."""
    try:
        from jax.experimental import pallas as pl
        from jax.experimental.pallas import mosaic_gpu as plgpu

        parameters = inspect.signature(plgpu.kernel).parameters
    except Exception:  # An experimental part of JAX: whatever it raises, there is no kernel.
        return None
    needed = ("LoweringSemantics", "emit_pipeline_warp_specialized", "nd_loop", "layout_cast", "transpose_ref")
    complete = all(hasattr(plgpu, name) for name in needed) and {"out_type", "interpret"} <= parameters.keys()
    return (pl, plgpu) if complete else None


def _missing() -> Any:
    raise NotImplementedError("the installed JAX has no Pallas Mosaic GPU that this kernel can use: jax >= 0.10 has")


def _hopper_cores() -> int | None:
    """The number of multiprocessors of the default device where it is a Hopper GPU, else None."""
    try:
        device = jax.devices()[0]
    except RuntimeError:
        return None
    capability = getattr(device, "compute_capability", None)
    return device.core_count if device.platform == "gpu" and capability == "9.0" else None
