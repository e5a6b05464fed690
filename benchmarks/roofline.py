"""How near the whole update comes to the machine's own rate of matrix products.

python benchmarks/roofline.py [--rounds 5] [--trees gpt2-small ...]

Counts the floating-point operations of every matrix product in the compiled program (loops times their trips), measures
how many a second this machine makes of one large product and of products of the tree's own sizes, and prints the share
of either that the update reaches, and how much of the update is not products at all. Writes
benchmarks/results/roofline.json.
"""

from __future__ import annotations

import argparse
import re
from typing import Any

import jax
import jax.numpy as jnp
from _common import ROOT, alternate, quartiles, write
from compiled import computations
from optimizer_step import Step
from trees import TREES, filled

import jaxopt_tour as jt

#: One product that keeps every core busy for long.
LARGE = 2048


def products_of(text: str) -> dict[tuple[int, int, int], int]:
    """How often a step makes each product, by (rows, columns, summed), from the compiled program's own text.

    Raises:
        ValueError: a loop whose trips the program does not name.
    """
    bodies = computations(text)
    counted: dict[tuple[int, int, int], int] = {}

    def visit(name: str, times: int) -> None:
        shapes: dict[str, list[int]] = {}
        for line in bodies[name]:
            result = re.match(r"^\s*(?:ROOT )?%([\w.\-]+) = \w+\[([\d,]*)\]", line)
            if result:
                shapes[result[1]] = [int(size) for size in result[2].split(",") if size]
            if " dot(" in line and result:
                left = re.search(r" dot\((?:\w+\[[\d,]*\](?:\{[\d,]*\})? )?%([\w.\-]+)", line)
                over = re.search(r"lhs_contracting_dims=\{([\d,]+)\}", line)
                assert left and over
                *batch, rows, columns = [1, *shapes[result[1]]][-3:]
                summed = 1
                for axis in over[1].split(","):
                    summed *= shapes[left[1]][int(axis)]
                key = (rows, columns, summed)
                counted[key] = counted.get(key, 0) + times * (batch[0] if batch else 1)
            trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', line)
            loop = re.search(r" while\(.*body=%([\w.\-]+)", line)
            if loop:
                if not trips:
                    raise ValueError(f"a loop without a known number of trips: {line.strip()[:120]}")
                visit(loop[1], times * int(trips[1]))
            for called in re.findall(r"(?:calls|to_apply)=%([\w.\-]+)", line):
                visit(called, times)

    visit("ENTRY", 1)
    return counted


def operations(products: dict[tuple[int, int, int], int]) -> int:
    """A product of (m, k) and (k, n) counts 2 m k n."""
    return sum(2 * times * rows * columns * summed for (rows, columns, summed), times in products.items())


def product_rate(rows: int, columns: int, summed: int, rounds: int) -> float:
    """Operations a second of this product alone."""
    left = jax.random.normal(jax.random.key(0), (rows, summed))
    right = jax.random.normal(jax.random.key(1), (summed, columns))
    multiply = jax.jit(jnp.matmul)
    again = min(1_000, max(1, int(2e10 / (2 * rows * columns * summed))))  # a tenth of a second or so

    def run() -> Any:
        return [multiply(left, right) for _ in range(again)]

    seconds = alternate({"product": run}, rounds)["product"]
    return 2 * rows * columns * summed * again / quartiles(seconds)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trees", nargs="+", default=["gpt2-small"], choices=list(TREES))
    parser.add_argument("--no-write", action="store_true", help="print only")
    arguments = parser.parse_args()
    large = product_rate(LARGE, LARGE, LARGE, arguments.rounds)
    print(f"one product of {LARGE}x{LARGE} matrices: {large / 1e9:.0f} GFLOP/s")
    results: dict[str, Any] = {"large_product_rate": large}
    for tree in arguments.trees:
        params, gradients = filled(TREES[tree](), 0, 0.02), filled(TREES[tree](), 1)
        for name, coefficients in {"default": "auto", "fast": "fast"}.items():
            step = Step(jt.muon(1e-3, weight_decay=0.1, orthogonalizer=coefficients), params, gradients)
            products = products_of(step.compiled.as_text())
            rates = {shape: product_rate(*shape, arguments.rounds) for shape in products}
            own = sum(2 * times * shape[0] * shape[1] * shape[2] / rates[shape] for shape, times in products.items())
            count = operations(products)
            low, seconds, high = quartiles(alternate({name: step}, arguments.rounds)[name])
            results[f"{tree}, {name}"] = {
                "operations": count,
                "seconds": seconds,
                "seconds_quartiles": [low, high],
                "rate": count / seconds,
                "share_of_large_product": count / seconds / large,
                "share_of_own_products": own / seconds,
                "products": [
                    {"shape": list(shape), "times": times, "rate": rates[shape]} for shape, times in products.items()
                ],
            }
            rate = count / seconds
            print(
                f"{tree}, {name}: {count / 1e12:.3f} TFLOP of products a step in {seconds:.2f} s\n"
                f"  {rate / 1e9:.0f} GFLOP/s, {rate / large:.0%} of the large product's rate; of these sizes alone "
                f"would take {own / seconds:.0%} of the step:"
            )
            for shape, times in sorted(products.items(), key=lambda item: -operations(dict([item]))):
                share, alone = operations({shape: times}) / count, rates[shape] / 1e9
                print(f"  {times:5} x {'x'.join(map(str, shape)):<16} {share:4.0%} {alone:6.0f} GFLOP/s alone")
    if not arguments.no_write:
        path = write("roofline", results, {"rounds": arguments.rounds})
        print(f"written to {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
