"""Symmetric products: plain against blocks, of which those below the diagonal are mirrored.

python benchmarks/symmetric.py [--rounds 9] [--rows 256 512 ...] [--batch 4] [--dtypes float32 ...]

For X X^T with X square and four times as wide, and for A A, prints time, ratio to plain (below 1 is faster) and error,
and writes benchmarks/results/symmetric-BACKEND.json. At the end it prints the size from which blocks are right and
gain for A A in every dtype, by all quartiles: BLOCKS_FROM in orthogonalization/plan.py.
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


def methods(product: str) -> dict[str, Method]:
    """What is compared, by name."""
    right_symmetric = product == "A A"
    common = functools.partial(symmetric_product, right_symmetric=right_symmetric)
    return {
        "plain": functools.partial(common, method="plain"),
        "blocks": functools.partial(common, method="blocks"),
        "2 blocks": functools.partial(common, method="blocks", blocks=2),
        "4 blocks": functools.partial(common, method="blocks", blocks=4),
    }


def chained(method: Method, left: jax.Array, right: jax.Array) -> jax.Array:
    """Products one after another, as the iteration makes them: factors still in the cache, copies fused away."""
    for _ in range(CHAIN):
        right = method(left, right)
    return right


def one_case(product: str, rows: int, batch: int, dtype: str, rounds: int) -> dict[str, Any]:
    """The comparison for one product: times and errors."""
    left, right = matrices(product, rows, batch, dtype)
    exact = np.einsum("ik,jk->ij", *(np.asarray(x[-1], np.float64) for x in (left, right)), optimize=True)
    runs: dict[str, Callable[[], Any]] = {}
    errors: dict[str, float] = {}
    mirrors: dict[str, bool] = {}
    for name, method in methods(product).items():
        result = np.asarray(jax.jit(method)(left, right)[-1], np.float64)
        timed = jax.jit(functools.partial(chained, method) if product == "A A" else method)
        runs[name] = functools.partial(timed.lower(left, right).compile(), left, right)
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
    return {"product": product, "rows": rows, "dtype": dtype, "methods": lines}


def gains_from(cases: Sequence[Mapping[str, Any]], name: str) -> int | None:
    """The size from which a method is right and gains for A A: the upper quartile of its ratio is below MARGIN.

    X X^T does not count: the blocks of X would have to be copied first.
    """
    start = None
    for size in sorted({case["rows"] for case in cases}):
        own = [case for case in cases if case["rows"] == size and case["product"] == "A A"]
        lines = [line for case in own for line in case["methods"] if line["name"] == name]
        gains = bool(lines) and all(line["right"] and line["ratio_quartiles"][1] < MARGIN for line in lines)
        start = (size if start is None else start) if gains else None
    return start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    backend = jax.default_backend()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--batch", type=int, default=1 if backend == "cpu" else 4)
    parser.add_argument("--dtypes", nargs="+", default=["float32"] if backend == "cpu" else ["bfloat16", "float16"])
    parser.add_argument("--no-write", action="store_true", help="print only")
    arguments = parser.parse_args()
    cases = [
        one_case(product, rows, arguments.batch, dtype, arguments.rounds)
        for dtype in arguments.dtypes
        for rows in arguments.rows
        for product in PRODUCTS
    ]
    print(f"\ngains for A A (upper quartile of the ratio below {MARGIN}) from")
    names = dict.fromkeys(line["name"] for case in cases for line in case["methods"] if line["name"] != "plain")
    found = {name: gains_from(cases, name) for name in names}
    for name, start in found.items():
        print(f"  {name}: {'nowhere' if start is None else f'm = {start}'}")
    if not arguments.no_write:
        settings = {"rounds": arguments.rounds, "batch": arguments.batch, "margin": MARGIN, "entries": "Gaussian"}
        path = write(f"symmetric-{backend}", {"cases": cases, "gains_from": found}, settings)
        print(f"written to {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
