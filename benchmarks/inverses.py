"""From which size inverses pay: the default and `fast` with rational functions against their polynomials.

python benchmarks/inverses.py [--rounds 9] [--rows 64 96 ...] [--count 16]

For square matrices and those four times as wide, prints time and ratio to the polynomials (below 1 is faster), and
writes benchmarks/results/inverses-BACKEND.json. On CPU the size that it prints at the end is INVERSES_FROM in
orthogonalization/plan.py: the least of those measured from which on the median of the ratio is below 1 in every
case.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _common import ROOT, alternate, compare, table, write
from orthogonalize import ours

import jaxopt_tour as jt

ROWS = (64, 96, 128, 192, 256, 512, 768)
ASPECTS = (1, 4)
POLYNOMIALS, INVERSES = "polynomials", "inverses"


def contender(coefficients: jt.coefficients.Coefficients, xs: list[jax.Array]) -> Callable[[], Any]:
    """All leaves as the library works on them, compiled, as a function of no arguments."""
    return functools.partial(jax.jit(functools.partial(ours, orthogonalizer=coefficients)).lower(xs).compile(), xs)


def one_case(name: str, rows: int, columns: int, count: int, rounds: int) -> dict[str, Any]:
    """The comparison for one of the two coefficients and one shape."""
    rng = np.random.default_rng(0)
    xs = [jnp.asarray(rng.standard_normal((rows, columns), np.float32)) for _ in range(count)]
    coefficients = {"default": jt.coefficients.auto, "fast": jt.coefficients.fast}[name]()
    assert coefficients.polynomial is not None
    runs = {
        POLYNOMIALS: contender(coefficients.polynomial, xs),
        INVERSES: contender(dataclasses.replace(coefficients, polynomial=None), xs),  # whatever the size
    }
    lines = compare(alternate(runs, rounds), baseline=POLYNOMIALS)
    print(f"\n{name}, {count} x {rows}x{columns}\n{table(lines)}")
    return {"coefficients": name, "rows": rows, "columns": columns, "ways": lines}


def pay_from(cases: Sequence[dict[str, Any]]) -> int | None:
    """The number of rows from which inverses are faster in every case, in the median of the ratio."""
    start = None
    for rows in sorted({case["rows"] for case in cases}):
        ratios = [
            line["ratio"] for case in cases if case["rows"] == rows for line in case["ways"] if line["name"] == INVERSES
        ]
        start = None if max(ratios) >= 1 else rows if start is None else start
    return start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--no-write", action="store_true", help="print only")
    arguments = parser.parse_args()
    cases = [
        one_case(name, rows, aspect * rows, arguments.count, arguments.rounds)
        for rows in arguments.rows
        for aspect in ASPECTS
        for name in ("default", "fast")
    ]
    start = pay_from(cases)
    print(f"\nINVERSES_FROM: {start}")
    if not arguments.no_write:
        settings = {"rounds": arguments.rounds, "count": arguments.count, "entries": "Gaussian, float32"}
        path = write(f"inverses-{jax.default_backend()}", {"cases": cases, "pay_from": start}, settings)
        print(f"written to {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
