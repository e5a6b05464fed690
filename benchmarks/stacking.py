"""Matrices of one shape in one stack, processed one by one or several at a time, against separate iterations.

python benchmarks/stacking.py [--rounds 9] [--shapes 24x128x128 ...]

Prints time and ratio to the stack taken one by one, for both forms of the iteration, and compile seconds.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from _common import alternate, compare, table

import jaxopt_tour as jt
from jaxopt_tour.orthogonalization import run

SHAPES = ("64x64x128", "8x128x128", "24x128x128", "24x128x352", "12x256x256", "48x256x256", "6x512x512", "4x768x768")
#: `grouping=`, and how many matrices of a stack are processed at once; None: as planned.
WAYS = {
    "one by one": ("by_shape", 1),
    "four at a time": ("by_shape", 4),
    "all at once": ("by_shape", 10**6),
    "separate": ("none", 1),
    "as planned": ("auto", None),
}


def contender(
    tree: dict[str, jax.Array], form: str, grouping: str, together: int | None
) -> tuple[Callable[[], Any], float]:
    """A compiled function of no arguments, and the seconds that it took to compile."""
    orthogonalizer = jt.Orthogonalizer(form=form, grouping=grouping)
    tx = jt.orthogonalize_via_newton_schulz(orthogonalizer, axes=jt.MatrixAxes(0, 1))
    planned = run.at_once
    with mock.patch.object(run, "at_once", lambda *arguments: together or planned(*arguments)):
        lowered = jax.jit(lambda tree: tx.update(tree, tx.init(tree))[0]).lower(tree)
    start = time.perf_counter()
    compiled = lowered.compile()
    return functools.partial(compiled, tree), time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="COUNTxROWSxCOLUMNS")
    arguments = parser.parse_args()
    for text in arguments.shapes:
        count, rows, columns = map(int, text.split("x"))
        rng = np.random.default_rng(0)
        tree = {str(i): jnp.asarray(rng.standard_normal((rows, columns), np.float32)) for i in range(count)}
        for form in ("standard", "gram"):
            runs = {name: contender(tree, form, *way) for name, way in WAYS.items()}
            lines = compare(alternate({name: run for name, (run, _) in runs.items()}, arguments.rounds), "one by one")
            print(f"\n{text}, {form} form\n{table(lines)}")
            print("  compiled in " + ", ".join(f"{name} {seconds:.1f} s" for name, (_, seconds) in runs.items()))


if __name__ == "__main__":
    main()
