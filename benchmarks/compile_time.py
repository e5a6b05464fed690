"""How long the whole update takes to build: ours and optax.contrib.muon, in alternating rounds.

python benchmarks/compile_time.py [--rounds 5] [--trees gpt2-small ...]

Prints seconds of tracing and lowering, of XLA's compilation, and of both together. Nothing is kept from one round to
the next. Writes benchmarks/results/compile_time.json.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import optax
from _common import ROOT, alternate, compare, table, write
from optimizer_step import whole_update
from peers import loops_not_unrolled, optax_muon
from trees import TREES, filled

import jaxopt_tour as jt

Tree = Any
BASELINE = "optax.contrib.muon"


class BuildSeconds(NamedTuple):
    """The seconds of one build by phase."""

    lower: float
    compile: float

    @property
    def total(self) -> float:
        """From Python to an executable."""
        return self.lower + self.compile


#: What is printed and written of every build. The time to an executable is what a user waits for.
PHASES: dict[str, Callable[[BuildSeconds], float]] = {
    "trace and lower": lambda seconds: seconds.lower,
    "compile": lambda seconds: seconds.compile,
    "total": lambda seconds: seconds.total,
}


def build_seconds(make: Callable[[], optax.GradientTransformation], params: Tree, peer_loops: Any) -> BuildSeconds:
    """Trace, lower and compile the update anew, and time each phase."""
    jax.clear_caches()  # an inner jit that was traced in another round would not be traced again
    tx = make()
    state = jax.eval_shape(tx.init, params)
    update = jax.jit(whole_update(tx), donate_argnums=(0, 1))
    with peer_loops():
        start = time.perf_counter()
        lowered = update.lower(params, state, params)
        lowered_at = time.perf_counter()
    compile_from = time.perf_counter()
    lowered.compile()
    return BuildSeconds(lowered_at - start, time.perf_counter() - compile_from)


def by_phase(builds: Mapping[str, Sequence[BuildSeconds]]) -> dict[str, list[dict[str, Any]]]:
    """The comparison of the contenders in every phase."""
    return {
        phase: compare({name: [seconds(build) for build in rounds] for name, rounds in builds.items()}, BASELINE)
        for phase, seconds in PHASES.items()
    }


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
        makers: dict[str, tuple[Callable[[], optax.GradientTransformation], Any]] = {
            BASELINE: (lambda params=params: optax_muon(params), as_is),
            "the same, loop not unrolled": (lambda params=params: optax_muon(params), loops_not_unrolled),
            "ours, default": (lambda: jt.muon(1e-3, weight_decay=0.1), as_is),
            "ours, fast": (lambda: jt.muon(1e-3, weight_decay=0.1, orthogonalizer="fast"), as_is),
            "optax.adamw": (lambda: optax.adamw(1e-3, weight_decay=0.1), as_is),
        }
        contenders = {
            contender: functools.partial(build_seconds, make, params, loops)
            for contender, (make, loops) in makers.items()
        }
        results[name] = by_phase(alternate(contenders, arguments.rounds, measure=lambda run: run()))
        for phase, rows in results[name].items():
            print(f"\n{name}, {phase}: seconds for one update\n{table(rows)}")
    if not arguments.no_write:
        path = write("compile_time", results, {"rounds": arguments.rounds})
        print(f"written to {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
