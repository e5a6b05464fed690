"""A whole update on real parameter trees: time, compile time and memory of ours, optax.contrib.muon and optax.adamw.

python benchmarks/optimizer_step.py [--rounds 7] [--trees gpt2-small ...]

`optax.contrib.muon` runs as released and with its loop not unrolled, as its development head has it, and is told
which parameters are which matrices, so that all do the same work. Writes benchmarks/results/optimizer_step.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import optax
from _common import ROOT, alternate, compare, quartiles, seconds_of, table, write
from peers import loops_not_unrolled, optax_muon
from trees import TREES, filled

import jaxopt_tour as jt

Tree = Any
BASELINE, ROLLED = "optax.contrib.muon", "the same, loop not unrolled"
#: What came after Muon, with Muon's orthogonalization: the difference to "ours, default" is its cost.
AFTER_MUON = {
    "normuon": jt.normuon(1e-3, weight_decay=0.1),
    "muonh": jt.muonh(1e-3),
    "adamh": jt.adamh(1e-3),
    "muown": jt.muown(1e-3, weight_decay=0.1),
    "dion2": jt.dion2(1e-3, weight_decay=0.1),
    "muon, int8 momentum": jt.with_int8_momentum(jt.muon(1e-3, weight_decay=0.1)),
    "muon ahead": jt.ema_nesterov(jt.muon(1e-3, weight_decay=0.1)),
    "lion": jt.lion(1e-3, weight_decay=0.1),
    "scion": jt.scion(2**-12),
    "soap": jt.soap(1e-3, weight_decay=0.1),
}


def whole_update(tx: optax.GradientTransformation) -> Callable[[Tree, Tree, Tree], tuple[Tree, Tree]]:
    """Parameters, state and gradients in, new parameters and state out.

    In this order donated buffers serve their own successors: JAX pairs each with the first free result of its shape and
    dtype.
    """

    def update(params: Tree, state: Tree, gradients: Tree) -> tuple[Tree, Tree]:
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    return update


class Step:
    """One compiled update with donated state, run again and again on its own result."""

    def __init__(self, tx: optax.GradientTransformation, params: Tree, gradients: Tree) -> None:
        self.gradients, self.state = gradients, tx.init(params)
        self.params = jax.tree.map(lambda leaf: leaf.copy(), params)

        lowered = jax.jit(whole_update(tx), donate_argnums=(0, 1)).lower(self.params, self.state, gradients)
        start = time.perf_counter()
        self.compiled = lowered.compile()
        self.compile_seconds = time.perf_counter() - start
        self.temporary_bytes = self.compiled.memory_analysis().temp_size_in_bytes

    def __call__(self) -> Tree:
        self.params, self.state = self.compiled(self.params, self.state, self.gradients)
        return self.params


def steps(params: Tree, gradients: Tree) -> dict[str, Step]:
    """Every contender, compiled."""
    found = {BASELINE: Step(optax_muon(params), params, gradients)}
    with loops_not_unrolled():
        found[ROLLED] = Step(optax_muon(params), params, gradients)
    found["ours, default"] = Step(jt.muon(1e-3, weight_decay=0.1), params, gradients)
    found["ours, fast"] = Step(jt.muon(1e-3, weight_decay=0.1, orthogonalizer="fast"), params, gradients)
    for name, tx in AFTER_MUON.items():
        found[f"ours, {name}"] = Step(tx, params, gradients)
    found["optax.adamw"] = Step(optax.adamw(1e-3, weight_decay=0.1), params, gradients)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--trees", nargs="+", default=list(TREES), choices=list(TREES))
    parser.add_argument("--no-write", action="store_true", help="print only")
    arguments = parser.parse_args()
    results = {}
    for name in arguments.trees:
        params, gradients = filled(TREES[name](), 0, 0.02), filled(TREES[name](), 1)
        contenders = steps(params, gradients)
        seconds = alternate(contenders, arguments.rounds, measure=seconds_of)
        lines = compare(seconds, BASELINE)
        print(f"\n{name}: {sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e6:.1f} M parameters\n{table(lines)}")
        compile_seconds = contenders[BASELINE].compile_seconds
        for line in lines:
            step = contenders[line["name"]]
            pairs = [b / a for a, b in zip(seconds[line["name"]], seconds[ROLLED], strict=True)]
            line |= {
                "speedup": 1 / line["ratio"],
                "speedup_to_rolled": quartiles(pairs)[1],
                "compile_seconds": step.compile_seconds,
                "temporary_bytes": step.temporary_bytes,
            }
            print(
                f"  {line['name']:<28} {line['speedup']:6.2f} x released, {line['speedup_to_rolled']:6.2f} x not "
                f"unrolled; compile {step.compile_seconds:5.1f} s ({step.compile_seconds / compile_seconds:.2f} x), "
                f"temporary memory {step.temporary_bytes / 2**20:7.0f} MiB"
            )
        results[name] = lines
        del contenders, step, params, gradients  # ten states of GPT-2 small take 16 GB; the next tree needs the room
    if not arguments.no_write:
        path = write("optimizer_step", results, {"rounds": arguments.rounds})
        print(f"written to {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
