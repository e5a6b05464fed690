"""Symmetric products: plain against blocks and, on a Hopper GPU, the kernel that computes one triangle.

python benchmarks/symmetric.py [--rounds 9] [--rows 256 512 ...] [--batch 4] [--dtypes float32 ...]

For X X^T with X square and four times as wide, and for A A, prints time, ratio to plain (below 1 is faster) and error,
and writes benchmarks/results/symmetric-BACKEND.json. For a method that is right and gains at every size from some size
on, in every dtype it was timed in (the kernel for all three products, blocks for A A), it prints the line for
BLOCKS_FROM or KERNEL_FROM in jaxopt_tour/linalg/symmetric.py.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _common import ROOT, alternate, compare, table, write

from jaxopt_tour.linalg import symmetric_kernel
from jaxopt_tour.linalg.symmetric import symmetric_product

ROWS = (256, 512, 768, 1024, 2048)
PRODUCTS = ("X X^T, n = m", "X X^T, n = 4 m", "A A")
#: How many products A A stand in one program.
CHAIN = 8
#: A gain that is not worth a program of its own.
MARGIN = 0.95

Method = Callable[[jax.Array, jax.Array], jax.Array]


def matrices(product: str, rows: int, batch: int, dtype: str) -> tuple[jax.Array, jax.Array]:
    """Both factors, of entries that keep the product's of size 1."""
    rng = np.random.default_rng(0)
    columns = 4 * rows if "4 m" in product else rows
    x = rng.standard_normal((batch, rows, columns), np.float32) / np.float32(np.sqrt(columns))
    x = (x + x.swapaxes(1, 2)) / 2 if product == "A A" else x
    return jnp.asarray(x, dtype), jnp.asarray(x, dtype)


def methods(product: str, dtype: str, tilings: Sequence[symmetric_kernel.Tiling]) -> dict[str, Method]:
    """What is compared, by name. The kernel takes part where the device and the dtype allow it."""
    right_symmetric = product == "A A"
    common = functools.partial(symmetric_product, right_symmetric=right_symmetric)
    found: dict[str, Method] = {
        "plain": functools.partial(common, method="plain"),
        "blocks": functools.partial(common, method="blocks"),
        "2 blocks": functools.partial(common, method="blocks", blocks=2),
        "4 blocks": functools.partial(common, method="blocks", blocks=4),
    }
    if symmetric_kernel.supports(dtype, dtype):
        for tiling in tilings:
            name = f"kernel {tiling.rows}x{tiling.columns}x{tiling.depth}x{tiling.steps}"
            found[name] = functools.partial(symmetric_kernel.symmetric_kernel, tiling=tiling)
    return found


def chained(method: Method, left: jax.Array, right: jax.Array) -> jax.Array:
    """Products one after another, as the iteration makes them: factors still in the cache, copies fused away."""
    for _ in range(CHAIN):
        right = method(left, right)
    return right


def one_case(
    product: str, rows: int, batch: int, dtype: str, rounds: int, tilings: Sequence[symmetric_kernel.Tiling]
) -> dict[str, Any]:
    """The comparison for one product, with the error beside the time, and what failed with its reason."""
    left, right = matrices(product, rows, batch, dtype)
    exact = np.einsum("ik,jk->ij", *(np.asarray(x[-1], np.float64) for x in (left, right)), optimize=True)
    runs: dict[str, Callable[[], Any]] = {}
    failed: dict[str, str] = {}
    errors: dict[str, float] = {}
    mirrors: dict[str, bool] = {}
    for name, method in methods(product, dtype, tilings).items():
        try:
            result = np.asarray(jax.jit(method)(left, right)[-1], np.float64)
            timed = jax.jit(functools.partial(chained, method) if product == "A A" else method)
            compiled = timed.lower(left, right).compile()
        except Exception as error:  # A tiling that does not fit the device must not end the others' run.
            failed[name] = str(error).splitlines()[0]
            continue
        runs[name] = functools.partial(compiled, left, right)
        errors[name] = float(np.abs(result - exact).max())
        mirrors[name] = bool((result == result.T).all())
    lines = compare(alternate(runs, rounds), baseline="plain")
    for line in lines:
        line["largest_error"] = errors[line["name"]]
        line["symmetric"] = mirrors[line["name"]]
        # NaN is not at most anything. Plain's error is that of its rounding, and another order of sums has another.
        line["right"] = line["largest_error"] <= 2 * errors["plain"] + 1e-6
    flops = 2 * batch * rows * rows * left.shape[-1] * (CHAIN if product == "A A" else 1)
    print(f"\n{product}, m = {rows}, batch {batch}, {dtype}\n{table(lines)}")
    for line in lines:
        line["plain_flops_per_second"] = flops / line["seconds"]
        wrong = "" if line["right"] else ", WRONG"
        rate = f"{flops / line['seconds'] / 1e12:8.3f} TFLOP/s"
        print(f"  {line['name']:<24} {rate} (of plain's operations), error {line['largest_error']:.1e}{wrong}")
        if not np.isfinite(line["largest_error"]):
            line["largest_error"] = None
    for name, reason in failed.items():
        print(f"  {name}: failed, {reason}")
    case = {"product": product, "rows": rows, "dtype": dtype}
    return case | {"methods": lines, "failed": failed}


def gains_from(cases: Sequence[Mapping[str, Any]], name: str, products: Sequence[str]) -> int | None:
    """The size from which a method is right and gains in every case: the upper quartile of its ratio is below MARGIN.

    Of these products: blocks are for A A alone, as the blocks of X in X X^T would have to be copied out first.

    A dtype in which it takes no part, such as float32 for the kernel, says nothing against it; a failure does.
    """
    start = None
    for size in sorted({case["rows"] for case in cases}):
        own = [case for case in cases if case["rows"] == size and case["product"] in products]
        lines = [line for case in own for line in case["methods"] if line["name"] == name]
        good = all(line["right"] and line["ratio_quartiles"][1] < MARGIN for line in lines)
        gains = bool(lines) and good and not any(name in case["failed"] for case in own)
        start = (size if start is None else start) if gains else None
    return start


def tiling_of(text: str) -> symmetric_kernel.Tiling:
    """ROWSxCOLUMNSxDEPTHxSTEPS, as of :class:`jaxopt_tour.linalg.symmetric_kernel.Tiling`."""
    return symmetric_kernel.Tiling(*map(int, text.split("x")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    backend = jax.default_backend()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--batch", type=int, default=1 if backend == "cpu" else 4)
    parser.add_argument("--dtypes", nargs="+", default=["float32"] if backend == "cpu" else ["bfloat16", "float16"])
    parser.add_argument(
        "--tilings",
        nargs="+",
        type=tiling_of,
        default=[symmetric_kernel.Tiling()],
        metavar="ROWSxCOLUMNSxDEPTHxSTEPS",
        help="of the kernel; the library uses the default",
    )
    parser.add_argument("--no-write", action="store_true", help="print only")
    arguments = parser.parse_args()
    cases = [
        one_case(product, rows, arguments.batch, dtype, arguments.rounds, arguments.tilings)
        for dtype in arguments.dtypes
        for rows in arguments.rows
        for product in PRODUCTS
    ]
    print(f"\ngains (upper quartile of the ratio below {MARGIN}; blocks: A A alone) from")
    names = dict.fromkeys(line["name"] for case in cases for line in case["methods"] if line["name"] != "plain")
    found = {name: gains_from(cases, name, PRODUCTS if "kernel" in name else PRODUCTS[-1:]) for name in names}
    for name, start in found.items():
        print(f"  {name}: {'nowhere' if start is None else f'm = {start}'}")
    default = symmetric_kernel.Tiling()
    own = f"kernel {default.rows}x{default.columns}x{default.depth}x{default.steps}"
    if found.get(own) is not None:
        print(f"KERNEL_FROM: {jax.devices()[0].device_kind!r}: {found[own]}")
    if found.get("blocks") is not None:
        platform = "cuda" if backend == "gpu" else backend
        print(f"BLOCKS_FROM: {platform!r}: {found['blocks']}")
    if not arguments.no_write:
        settings = {"rounds": arguments.rounds, "batch": arguments.batch, "margin": MARGIN, "entries": "Gaussian"}
        path = write(f"symmetric-{backend}", {"cases": cases, "gains_from": found}, settings)
        print(f"written to {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
