"""Train other people's loops with their own optimizer and with Muon in its place: one line changed.

`python -m benchmarks.outside_loops nano_moe PATH` (or `haiku`, or `equinox`), where PATH is a checkout of

* `nano_moe`: carrycooldude/Nano-MoE-JAX, a mixture of experts in Flax linen;
* `haiku`: google-deepmind/dm-haiku, its example `transformer`;
* `equinox`: patrick-kidger/equinox, its example `train_rnn`.

Nothing in the checkout is changed. `optax.adam` or `optax.adamw` is replaced where the loop calls it, which is what
editing the line would do. Models are of toy size; both optimizers run at the loop's rate and at four times it. This
shows that the loops run and learn, not which optimizer is better. Needs what the checkout needs: Flax, Haiku or
Equinox.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import platform
import random
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

import jaxopt_tour as jt
from jaxopt_tour.problems.data.datasets import shakespeare

#: What takes the place of a loop's optimizer, made from that optimizer.
Swap = Callable[[Callable[..., Any]], Callable[..., Any]]


def own(factor: float) -> Swap:
    """The loop's optimizer at a multiple of its rate."""
    return lambda optimizer: lambda learning_rate, *args, **kwargs: optimizer(factor * learning_rate, *args, **kwargs)


def muon(factor: float) -> Swap:
    """Muon at a multiple of the loop's rate and at its decay; Adam's other settings are not Muon's."""
    return lambda _: (
        lambda learning_rate, *_, weight_decay=0.0, **__: jt.muon(factor * learning_rate, weight_decay=weight_decay)
    )


@contextlib.contextmanager
def swapped(name: str, swap: Swap) -> Iterator[None]:
    """`optax.adam` or `optax.adamw` is something else for a while."""
    before = getattr(optax, name)
    try:
        setattr(optax, name, swap(before))
        yield
    finally:
        setattr(optax, name, before)


def nano_moe(checkout: Path, swap: Swap, steps: int) -> list[float]:
    """The package's own `create_train_state` and `train_step`, on Shakespeare."""
    sys.path.insert(0, str(checkout))
    from nano_moe.config import NanoMoEConfig
    from nano_moe.train import create_train_state, train_step
    from nano_moe.utils import get_batch

    tokens = shakespeare().encode(shakespeare().text)
    sizes = {"vocab_size": len(shakespeare().alphabet), "d_model": 64, "n_layers": 2, "n_heads": 2, "d_ff": 128}
    config = NanoMoEConfig(**sizes, n_experts=4, block_size=32, batch_size=16, weight_decay=0.1)
    with swapped("adamw", swap):
        state = create_train_state(jax.random.key(0), config)
    losses = []
    for step in range(steps):
        x, y = get_batch(tokens, config.batch_size, config.block_size, jax.random.key(step))
        state, metrics = train_step(state, x, y, config)
        losses.append(float(metrics["ce_loss"]))
    return losses


def haiku(checkout: Path, swap: Swap, steps: int) -> list[float]:
    """The example's own `init` and `update`; it passes no parameters to `update`, so it has no weight decay."""
    sys.path.insert(0, str(checkout))
    from examples.transformer import dataset, train

    train.NUM_LAYERS, train.NUM_HEADS, train.MODEL_SIZE, train.KEY_SIZE = 2, 2, 64, 32
    jax.clear_caches()  # the example's functions are compiled once a process, with the optimizer of that time
    random.seed(0)
    batches = dataset.load_ascii_dataset(shakespeare().text, batch_size=16, sequence_length=32)
    with swapped("adam", swap):
        data = next(batches)
        state = train.init(jax.random.key(0), data)
        losses = []
        for _ in range(steps):
            state, metrics = train.update(state, data)
            data = next(batches)
            losses.append(float(metrics["loss"]))
    return losses


def equinox(checkout: Path, swap: Swap, steps: int) -> list[float]:
    """The notebook's own `main`, which prints the loss of every step."""
    notebook = json.loads((checkout / "docs/examples/train_rnn.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    names: dict[str, Any] = {"__name__": __name__}
    exec("\n".join(cell for cell in cells if not cell.startswith("main()")), names)
    np.random.seed(0)
    printed = io.StringIO()
    with swapped("adam", swap), contextlib.redirect_stdout(printed):
        names["main"](dataset_size=1000, steps=steps)
    return [float(loss) for loss in re.findall(r"loss=(\S+)", printed.getvalue())]


LOOPS = {"nano_moe": nano_moe, "haiku": haiku, "equinox": equinox}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("loop", choices=LOOPS)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--factors", type=float, nargs="+", default=[1.0, 4.0], help="multiples of the loop's rate")
    arguments = parser.parse_args()
    machine = f"{jax.default_backend()} ({platform.machine()}), JAX {jax.__version__}"
    print(f"{arguments.loop}, {arguments.steps} steps, {machine}")
    for name, swap in (("its own", own), ("jt.muon", muon)):
        for factor in arguments.factors:
            losses = LOOPS[arguments.loop](arguments.checkout, swap(factor), arguments.steps)
            tenth = max(len(losses) // 10, 1)
            last = np.mean(losses[-tenth:])
            print(
                f"{name} at {factor:g} times the rate: first loss {losses[0]:.3f}, mean of the last {tenth} {last:.3f}"
            )


if __name__ == "__main__":
    main()
