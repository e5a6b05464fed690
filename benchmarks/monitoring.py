"""What jt.monitored costs: one update with and without it, between measurements and in the measured step.

python benchmarks/monitoring.py [--rounds 15] [--trees gpt2-small ...]

Every contender runs on its own result with donated parameters and state. The cost at an interval follows from two
ratios: that of a step that does not measure, and that of one that does. The update alone is timed, which is the smaller
part of a training step, so the share of a training step is smaller than what is printed. Writes
benchmarks/results/monitoring.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import jax
import optax
from _common import ROOT, alternate, compare, quartiles, table, write
from optimizer_step import whole_update
from trees import TREES, filled

import jaxopt_tour as jt

Tree = Any
EVERY = 50
NEVER = 2**30
OPTIMIZERS = {
    "muon": lambda: jt.muon(1e-3, weight_decay=0.1),
    "adamw": lambda: jt.adamw(1e-3, weight_decay=0.1),
}


class Step:
    """One compiled update with donated parameters and state, run again and again on its own result."""

    def __init__(self, tx: optax.GradientTransformation, params: Tree, gradients: Tree) -> None:
        self.gradients, self.state = gradients, tx.init(params)
        self.params = jax.tree.map(lambda leaf: leaf.copy(), params)
        lowered = jax.jit(whole_update(tx), donate_argnums=(0, 1)).lower(self.params, self.state, gradients)
        self.compiled = lowered.compile()
        self.temporary_bytes = self.compiled.memory_analysis().temp_size_in_bytes

    def __call__(self) -> Tree:
        self.params, self.state = self.compiled(self.params, self.state, self.gradients)
        return self.params


def steps(optimizer: Callable[[], Any], params: Tree, gradients: Tree) -> dict[str, Step]:
    """The optimizer alone, monitored between two measurements, and measured in every step."""
    return {
        "alone": Step(optimizer(), params, gradients),
        "between": Step(jt.monitored(optimizer(), every=NEVER), params, gradients),
        "measured": Step(jt.monitored(optimizer(), every=1), params, gradients),
    }


def cost(seconds: dict[str, list[float]], every: int = EVERY) -> tuple[float, float, float]:
    """Quartiles over rounds of the share by which monitoring lengthens an update at this interval."""
    shares = [
        ((every - 1) * between + measured) / (every * alone) - 1
        for alone, between, measured in zip(*(seconds[name] for name in ("alone", "between", "measured")), strict=True)
    ]
    return quartiles(shares)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--trees", nargs="+", default=list(TREES), choices=list(TREES))
    parser.add_argument("--no-write", action="store_true", help="print only")
    chosen = parser.parse_args(arguments)
    results = {}
    for tree in chosen.trees:
        params, gradients = filled(TREES[tree](), 0, 0.02), filled(TREES[tree](), 1)
        for name, optimizer in OPTIMIZERS.items():
            contenders = steps(optimizer, params, gradients)
            # The warm-up round is the first update, which every monitor measures.
            seconds = alternate(contenders, chosen.rounds)
            lines = compare(seconds, "alone")
            for line in lines:
                line["temporary_bytes"] = contenders[line["name"]].temporary_bytes
            low, middle, high = cost(seconds)
            print(f"\n{tree}, {name}\n{table(lines)}")
            print(
                f"  every {EVERY} updates: {100 * middle:+.2f} % of an update, {100 * low:+.2f} to {100 * high:+.2f} %"
            )
            results[f"{tree}, {name}"] = {"rows": lines, "cost": middle, "cost_quartiles": [low, high]}
    if not chosen.no_write:
        path = write("monitoring", results, {"rounds": chosen.rounds, "every": EVERY})
        print(f"written to {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
