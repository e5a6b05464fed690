"""How long XLA compiles the whole update: ours and optax.contrib.muon, in alternating rounds.

python benchmarks/compile_time.py [--rounds 5] [--trees gpt2-small ...]

Tracing is not counted, and nothing is kept from one round to the next. Writes benchmarks/results/compile_time.json.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import optax
from _common import ROOT, alternate, compare, table, write
from optimizer_step import whole_update
from peers import loops_not_unrolled, optax_muon
from trees import TREES, filled

import jaxopt_tour as jt

Tree = Any
BASELINE = "optax.contrib.muon"


def compile_seconds(make: Callable[[], optax.GradientTransformation], params: Tree, peer_loops: Any) -> float:
    """Trace the update anew, then compile it and time that."""
    tx = make()
    state = jax.eval_shape(tx.init, params)

    with peer_loops():
        lowered = jax.jit(whole_update(tx), donate_argnums=(0, 1)).lower(params, state, params)
    start = time.perf_counter()
    lowered.compile()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trees", nargs="+", default=list(TREES), choices=list(TREES))
    parser.add_argument("--no-write", action="store_true", help="print only")
    arguments = parser.parse_args()
    results = {}
    for name in arguments.trees:
        params = filled(TREES[name]())
        as_is = contextlib.nullcontext
        contenders = {
            BASELINE: functools.partial(compile_seconds, lambda params=params: optax_muon(params), params, as_is),
            "the same, loop not unrolled": functools.partial(
                compile_seconds, lambda params=params: optax_muon(params), params, loops_not_unrolled
            ),
            "ours, default": functools.partial(compile_seconds, lambda: jt.muon(1e-3, 0.1), params, as_is),
            "ours, fast": functools.partial(
                compile_seconds, lambda: jt.muon(1e-3, 0.1, coefficients="fast"), params, as_is
            ),
            "optax.adamw": functools.partial(
                compile_seconds, lambda: optax.adamw(1e-3, weight_decay=0.1), params, as_is
            ),
        }
        results[name] = compare(alternate(contenders, arguments.rounds, measure=lambda run: run()), BASELINE)
        print(f"\n{name}: seconds to compile one update\n{table(results[name])}")
    if not arguments.no_write:
        path = write("compile_time", results, {"rounds": arguments.rounds})
        print(f"written to {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
