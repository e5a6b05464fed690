"""Orthogonalization alone: ours against optax.contrib's (released, and with its loop not unrolled) and PyTorch's.

python benchmarks/orthogonalize.py [--rounds 9] [--shapes 12x768x768 ...]

Prints time, ratio to the released Optax and polar error for Gaussian matrices, and writes
benchmarks/results/orthogonalize.json. PyTorch's Muon takes part where torch can be imported.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax.contrib._muon as peer
from _common import ROOT, alternate, compare, quartiles, table, write
from peers import loops_not_unrolled

import jaxopt_tour as jt
from jaxopt_tour.orthogonalization.plan import INVERSES_FROM

SHAPES = ("12x768x768", "12x768x3072", "1x1024x4096", "64x64x128")
COEFFICIENTS = {"default": jt.coefficients.auto(), "fast": jt.coefficients.fast()}
#: Fewer products than those of `fast`, where no inverses run; it is no default anywhere (docs/accuracy.md).
FEWEST = {"degree 9 x 2": jt.coefficients.polar_express(2, 2e-2, degree=9)}


def optax_orthogonalize(x: jax.Array) -> jax.Array:
    """optax.contrib's at its defaults, leaf by leaf as it does it."""
    coefficients = jnp.asarray(peer._DEFAULT_NS_COEFFS)
    return peer.orthogonalize_via_newton_schulz(x, coefficients, 5, "frobenius", 1e-8)


def each(function: Callable[[jax.Array], jax.Array], xs: list[jax.Array]) -> list[jax.Array]:
    """The function of every leaf: a model's layers are separate leaves."""
    return [function(x) for x in xs]


def ours(xs: list[jax.Array], orthogonalizer: Any) -> list[jax.Array]:
    """Ours over the same leaves as a tree, grouped by its own plan."""
    tx = jt.orthogonalize_via_newton_schulz(orthogonalizer, axes=jt.MatrixAxes(0, 1))
    tree = {str(i): x for i, x in enumerate(xs)}
    updates, _ = tx.update(tree, tx.init(tree))
    return [updates[str(i)] for i in range(len(xs))]


def contenders(xs: list[jax.Array]) -> dict[str, Callable[[], Any]]:
    """Compiled functions of no arguments by name."""
    released = jax.jit(functools.partial(each, optax_orthogonalize)).lower(xs).compile()
    with loops_not_unrolled():
        rolled = jax.jit(functools.partial(each, lambda x: optax_orthogonalize(x))).lower(xs).compile()
    compiled: dict[str, Callable[..., Any]] = {"optax 0.2.8": released, "optax, loop not unrolled": rolled}
    small = min(xs[0].shape) < INVERSES_FROM
    for name, coefficients in (COEFFICIENTS | (FEWEST if small else {})).items():
        compiled[f"ours, {name}"] = jax.jit(functools.partial(ours, orthogonalizer=coefficients)).lower(xs).compile()
    found = {name: functools.partial(function, xs) for name, function in compiled.items()}
    try:
        import torch
        from torch.optim._muon import _zeropower_via_newtonschulz
    except ImportError:
        return found
    tensors = [torch.from_numpy(np.array(x)) for x in xs]

    def pytorch() -> list[np.ndarray]:
        with torch.no_grad():
            return [_zeropower_via_newtonschulz(t, (3.4445, -4.775, 2.0315), 5, 1e-7).float().numpy() for t in tensors]

    return found | {"torch, bfloat16": pytorch}


def polar_error(xs: list[jax.Array], results: Any) -> float:
    """Root mean square of |sigma - 1| over the polar factor's range, the mean of up to three matrices."""
    errors = []
    for x, o in list(zip(xs, results, strict=True))[:3]:
        exact = np.asarray(jt.orthogonalize(x, "exact"), np.float64)
        errors.append(np.linalg.norm(np.asarray(o, np.float64) - exact) / np.linalg.norm(exact))
    return float(np.mean(errors))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="COUNTxROWSxCOLUMNS")
    parser.add_argument("--no-write", action="store_true", help="print only")
    arguments = parser.parse_args()
    results = {}
    for text in arguments.shapes:
        count, rows, columns = map(int, text.split("x"))
        rng = np.random.default_rng(0)
        xs = [jnp.asarray(rng.standard_normal((rows, columns), np.float32)) for _ in range(count)]
        runs = contenders(xs)
        seconds = alternate(runs, arguments.rounds)
        lines = compare(seconds, baseline="optax 0.2.8")
        for line in lines:
            line["polar_error"] = polar_error(xs, runs[line["name"]]())
            line["speedup"] = 1 / line["ratio"]
            others = seconds["optax, loop not unrolled"]
            pairs = [b / a for a, b in zip(seconds[line["name"]], others, strict=True)]
            line["speedup_to_rolled"] = quartiles(pairs)[1]
        print(f"\n{text}\n{table(lines)}")
        for line in lines:
            print(
                f"  {line['name']:<26} {line['speedup']:.2f} x optax 0.2.8, {line['speedup_to_rolled']:.2f} x its loop "
                f"not unrolled, polar error {line['polar_error']:.3f}"
            )
        results[text] = lines
    if not arguments.no_write:
        path = write("orthogonalize", results, {"rounds": arguments.rounds, "entries": "Gaussian, float32"})
        print(f"written to {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
