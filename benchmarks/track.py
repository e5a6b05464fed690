"""What must not get worse, by revision: a fixed set of numbers, appended to a file, and what moved beyond its spread.

python benchmarks/track.py [--rounds 5] [--no-write]

Takes under ten minutes on two CPU cores with nothing beside it. Operations of the TPU's and the GPU's plans are counted
in the lowered programs, bytes in the compiled one, and need no accelerator. Times are ratios to a peer in the same
rounds. Appends a line to benchmarks/results/history.jsonl, where a line holds what `_common.write` writes.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import logging
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

from _common import RESULTS, ROOT, alternate, compare, document, seconds_of
from compile_time import build_seconds
from import_time import import_seconds
from lowered import lowered_text, product_operations
from optimizer_step import BASELINE, Step
from peers import optax_muon
from trees import TREES, filled

import jaxopt_tour as jt

HISTORY = RESULTS / "history.jsonl"
#: A number and its quartiles; an exact number is its own.
Number = tuple[float, float, float]
#: A median that moves by less is not called moved, whatever the quartiles of few rounds say.
LEAST = 0.03


def exactly(value: float) -> Number:
    """A number that the same program gives again."""
    return value, value, value


def ratios(contenders: Mapping[str, Callable[[], Any]], rounds: int, measure: Any = seconds_of) -> dict[str, Number]:
    """The time of every contender as a ratio to the first, with its quartiles."""
    rows = compare(alternate(contenders, rounds, measure=measure), next(iter(contenders)))
    return {row["name"]: (row["ratio"], *row["ratio_quartiles"]) for row in rows[1:]}


def operations() -> dict[str, Number]:
    """Operations of the accelerators' plans as a share of Optax's on the same tree."""
    found = {}
    params = TREES["gpt2-small"]()
    theirs = product_operations(lowered_text(optax_muon(params), params, "tpu"))
    for platform in ("tpu", "cuda"):
        for name, value in {"default": "auto", "fast": "fast"}.items():
            text = lowered_text(jt.muon(1e-3, orthogonalizer=value), params, platform)
            found[f"operations, {platform}, {name}, of Optax's"] = exactly(product_operations(text) / theirs)
    return found


def whole_steps(rounds: int) -> dict[str, Number]:
    """Seconds of a whole update, and its temporary memory, as ratios to Optax's Muon."""
    params, gradients = filled(TREES["gpt2-small"](), 0, 0.02), filled(TREES["gpt2-small"](), 1)
    steps = {
        BASELINE: Step(optax_muon(params), params, gradients),
        "default": Step(jt.muon(1e-3, weight_decay=0.1), params, gradients),
        "fast": Step(jt.muon(1e-3, weight_decay=0.1, orthogonalizer="fast"), params, gradients),
    }
    found = {f"whole step, {name}, of Optax's": number for name, number in ratios(steps, rounds).items()}
    for name in ("default", "fast"):
        share = steps[name].temporary_bytes / steps[BASELINE].temporary_bytes
        found[f"temporary memory, {name}, of Optax's"] = exactly(share)
    return found


def builds(rounds: int) -> dict[str, Number]:
    """Seconds from Python to an executable, as ratios to Optax's Muon."""
    found = {}
    for tree in ("gpt2-small", "gpt2-small-scanned"):
        params = filled(TREES[tree]())
        makers = {BASELINE: functools.partial(optax_muon, params), "default": lambda: jt.muon(1e-3, weight_decay=0.1)}
        runs = {name: functools.partial(_build, make, params) for name, make in makers.items()}
        number = ratios(runs, rounds, measure=lambda run: run())["default"]
        found[f"trace, lower and compile, {tree}, of Optax's"] = number
    return found


def _build(make: Callable[[], Any], params: Any) -> float:
    return build_seconds(make, params, contextlib.nullcontext).total


def imports(rounds: int) -> dict[str, Number]:
    """Seconds of the import, as a ratio to Optax's."""
    runs = {module: functools.partial(import_seconds, module) for module in ("optax", "jaxopt_tour")}
    return {"import, of Optax's": ratios(runs, rounds, measure=lambda run: run())["jaxopt_tour"]}


def race() -> dict[str, Number]:
    """The losses at the end of a quick race: they change where the numbers of a rule change."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "jaxopt_tour.cli", "race", "--quick", "--out", folder]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        tasks = json.loads(pathlib.Path(folder, "results.json").read_text(encoding="utf-8"))["tasks"]
    runs = [(name, run) for name, task in tasks.items() for run in task["runs"]]
    return {f"loss, {name}, {run['optimizer']}": exactly(run["final"]["validation_loss"]) for name, run in runs}


def measured(rounds: int) -> dict[str, Number]:
    """The fixed set."""
    return operations() | builds(rounds) | imports(3 * rounds) | whole_steps(rounds) | race()


def moved(before: Mapping[str, Number], now: Mapping[str, Number]) -> list[str]:
    """A line for every number whose quartiles lie outside the earlier ones and whose median moved by 3 % or more."""
    lines = []
    for name in sorted(before.keys() & now.keys()):
        (old, old_low, old_high), (new, low, high) = before[name], now[name]
        apart = low > old_high or high < old_low
        exact = old_low == old_high and low == high
        if apart and abs(new - old) >= (1e-6 if exact else LEAST) * abs(old):
            lines.append(f"{name}: {old:.4g} -> {new:.4g} ({new / old - 1:+.1%})")
    lines += [f"{name}: new, {now[name][0]:.4g}" for name in sorted(now.keys() - before.keys())]
    lines += [f"{name}: no longer measured" for name in sorted(before.keys() - now.keys())]
    return lines


def last_line(history: pathlib.Path) -> dict[str, Any] | None:
    """The newest entry of a history, None if it has none."""
    lines = history.read_text(encoding="utf-8").splitlines() if history.exists() else []
    return json.loads(lines[-1]) if lines else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each timing (default %(default)s)")
    parser.add_argument("--no-write", action="store_true", help="print only")
    arguments = parser.parse_args()
    logging.getLogger("jaxopt_tour").setLevel(logging.ERROR)
    now = measured(arguments.rounds)
    width = max(map(len, now))
    for name, (value, low, high) in now.items():
        print(f"{name:<{width}}  {value:8.4f}" + ("" if low == high else f"  {low:.4f} to {high:.4f}"))
    before = last_line(HISTORY)
    if before is not None:
        lines = moved({name: tuple(number) for name, number in before["results"].items()}, now)
        print(f"\nmoved since {before['revision']}: " + ("\n  ".join(["", *lines]) if lines else "nothing"))
    if not arguments.no_write:
        with HISTORY.open("a", encoding="utf-8") as file:
            file.write(json.dumps(document(now, {"rounds": arguments.rounds}), allow_nan=False) + "\n")
        print(f"appended to {HISTORY.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
