"""Record the matrices that Muon orthogonalizes while it trains the race's GPT.

python benchmarks/record_momentum.py [--out benchmarks/data/recorded_momentum.npz]

Trains for 200 steps with the race's Muon, learning rate and batches (seed 0), and keeps the Nesterov momentum
`u_t = beta m_t + (1 - beta) g_t`, seen as (fan_in, fan_out), of every kind of matrix at several steps. What is kept
is multiplied by a power of two, which no orthogonalization notices, and rounded to float16, which moves singular values
by about 1e-5 of the largest; the script prints by how much. Matrices without full rank (the first gradients of query,
key and value in block 0, which see no more different inputs than there are characters) stay in float32, because
rounding would fill their null space.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
from collections.abc import Collection, Mapping

import jax
import numpy as np
import optax
from _common import ROOT

import jaxopt_tour as jt
from jaxopt_tour._trees import named_leaves
from jaxopt_tour._types import Array, Tree
from jaxopt_tour.problems.tasks import Batch, make_task
from jaxopt_tour.tour import rates
from jaxopt_tour.tour.contenders import OPTIMIZERS
from jaxopt_tour.tour.train import model_builder, warmup_then_decay

DATA = ROOT / "benchmarks" / "data" / "recorded_momentum.npz"
STEPS = 200
SEED = 0  # of the parameters and the batches
BETA = 0.95  # of jt.muon's default
#: Which block's matrices are kept after how many gradients: both blocks at every step would be twice the file.
KEPT = {1: 0, 20: 1, 50: 0, 100: 1, 199: 0}


def matrices_of(momentum: Tree, routes: Mapping[str, jt.Route]) -> dict[str, np.ndarray]:
    """Every matrix that goes to Muon as (fan_in, fan_out), by a short name such as `block0/attention/query`."""
    found = {}
    for path, leaf in named_leaves(momentum).items():
        axes = routes[path].axes
        if axes is not None and path.startswith("blocks/"):
            _, block, layer, name, _ = path.split("/")
            (piece,) = axes.to_matrices(leaf)  # (1, fan_in, fan_out)
            found[f"block{block}/{layer}/{name}"] = np.asarray(piece[0])
    return found


def record(at: Collection[int], steps: int = STEPS) -> tuple[dict[str, np.ndarray], float]:
    """Train, and keep the momentum after `at` gradients; the matrices in float32 and the last training loss."""
    task = make_task("gpt")
    build = model_builder(task)
    rate = rates.learning_rate("gpt", "muon")
    optimizer = OPTIMIZERS["muon"](functools.partial(warmup_then_decay, peak=rate, steps=steps))
    # The same momentum beside Muon's own: what Muon hands to the orthogonalization is inside its update.
    beside = jt.scale_by_momentum(BETA, form="ema", nesterov=True)

    @jax.jit
    def init(key: Array) -> tuple[Tree, Tree, Tree]:
        from flax import nnx

        params = nnx.state(task.model(nnx.Rngs(key)), nnx.Param)
        return params, optimizer.init(params), beside.init(params)

    @jax.jit
    def step(state: tuple[Tree, Tree, Tree], batch: Batch) -> tuple[tuple[Tree, Tree, Tree], Tree, Array]:
        params, opt_state, beside_state = state
        loss, grads = jax.value_and_grad(lambda params: task.loss(build(params), batch))(params)
        momentum, beside_state = beside.update(grads, beside_state, params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state, beside_state), momentum, loss

    state = init(jax.random.key(SEED))
    routes = jt.routing.routes_by_name(state[0])
    kept: dict[str, np.ndarray] = {}
    for count in range(1, max(at) + 1):
        state, momentum, loss = step(state, task.batch(SEED, count - 1))
        if count in at:
            kept |= {f"{name}@{count}": matrix for name, matrix in matrices_of(momentum, routes).items()}
    return kept, float(loss)


def to_half(matrix: np.ndarray) -> np.ndarray:
    """Float16, with the largest entry brought into [2^12, 2^13): small entries stay out of the subnormal numbers."""
    _, exponent = np.frexp(np.abs(matrix).max())
    return np.ldexp(matrix, 13 - exponent).astype(np.float16)


def has_full_rank(matrix: np.ndarray) -> bool:
    """Whether all singular values are more than rounding in float32 makes of zero."""
    s = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    return bool(s[-1] > np.finfo(np.float32).eps * s[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=DATA)
    arguments = parser.parse_args()
    matrices, loss = record(KEPT)
    matrices = {
        name: matrix
        for name, matrix in matrices.items()
        if name.startswith(f"block{KEPT[int(name.rpartition('@')[2])]}/")
    }
    rate = rates.learning_rate("gpt", "muon")
    print(f"learning rate {rate}, training loss {loss:.3f} after {max(KEPT)} steps")
    print(f"{'matrix':<28} {'shape':<10}  median/max  min/max  largest change by rounding, of max")
    rounded = {}
    for name, matrix in matrices.items():
        rounded[name] = to_half(matrix) if has_full_rank(matrix) else matrix
        s, t = (np.linalg.svd(m.astype(np.float64), compute_uv=False) for m in (matrix, rounded[name]))
        s, t = s / s[0], t / t[0]
        shape = f"{matrix.shape[0]}x{matrix.shape[1]}"
        print(f"{name:<28} {shape:<10}  {np.median(s):10.4f}  {s[-1]:7.1e}  {np.abs(s - t).max():.1e}")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(arguments.out, **rounded)
    print(f"{len(rounded)} matrices, {arguments.out.stat().st_size / 1e6:.2f} MB: {arguments.out}")


if __name__ == "__main__":
    main()
