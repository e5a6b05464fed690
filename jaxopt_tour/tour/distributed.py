"""Train the race's GPT with Muon, its parameters spread over the devices of several processes (FSDP).

One command a process, the same on every host but for the number:

```text
python -m jaxopt_tour.tour.distributed --coordinator HOST:PORT --processes 4 --process 0 --checkpoints DIR
```

On TPUs, Slurm and other clusters that JAX knows, `--detect` in place of the first three. A run that was cut off goes
on from its last checkpoint when it is started again with the same folder, on any number of processes.

When a process is lost the others end within `--patience` seconds, with exit status 3 and a message; none of them
waits forever. docs/mesh.md has the whole story.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxopt_tour._types import Array, Tree
from jaxopt_tour.mesh.sharded_state import sharded_state, state_shardings
from jaxopt_tour.optimizers.muon import muon
from jaxopt_tour.problems import tasks
from jaxopt_tour.problems.models import GPT
from jaxopt_tour.tour.checkpoints import arrays_by_name
from jaxopt_tour.tour.train import TrainState, model_builder, warmup_then_decay

#: Exit status of a process whose peers are gone.
PEER_LOST = 3

#: The mesh's one axis: parameters, optimizer state and batch are spread over it.
AXIS = "fsdp"


class Job(NamedTuple):
    """What all processes agree on."""

    steps: int
    learning_rate: float
    seed: int
    width: int
    blocks: int
    save_every: int


def fsdp_spec(shape: Sequence[int], devices: int) -> PartitionSpec:
    """The longest dimension that the devices divide is spread over them; none: a copy on each."""
    fitting = [axis for axis, length in enumerate(shape) if length % devices == 0 and length >= devices]
    if not fitting:
        return PartitionSpec()
    longest = max(fitting, key=lambda axis: shape[axis])
    return PartitionSpec(*(AXIS if axis == longest else None for axis in range(len(shape))))


def make_task(job: Job) -> tasks.Task:
    """The race's GPT task, with a model of the job's size."""
    task = tasks.gpt()
    hidden = 8 * (job.width * 11 // 32)  # 352 for the race's 128
    return dataclasses.replace(
        task,
        model=lambda rngs: GPT(76, width=job.width, blocks=job.blocks, hidden=hidden, rngs=rngs),
    )


class Training:
    """A job on a mesh: its state, its step, its checkpoints."""

    def __init__(self, job: Job, mesh: Mesh) -> None:
        self.job, self.mesh, self.task = job, mesh, make_task(job)
        schedule = lambda count: warmup_then_decay(count, peak=job.learning_rate, steps=job.steps)  # noqa: E731
        self.tx = sharded_state(muon(schedule, mesh=AXIS))
        self._build = model_builder(self.task)
        self._step = jax.jit(self._train_step, donate_argnums=0)

    def init(self) -> TrainState:
        """Fresh parameters and state; no device ever holds more than its part."""
        draw = lambda key: nnx.state(self.task.model(nnx.Rngs(key)), nnx.Param)  # noqa: E731
        key = jax.random.key(self.job.seed)
        layout = jax.tree.map(
            lambda leaf: NamedSharding(self.mesh, fsdp_spec(leaf.shape, self.mesh.size)), jax.eval_shape(draw, key)
        )
        params = jax.jit(draw, out_shardings=layout)(key)
        return TrainState(params, self.tx.init(params))

    def batch(self, step: int) -> tasks.Batch:
        """The batch of a step: every process builds the part of it that its devices need."""
        whole = self.task.batch(self.job.seed, step)
        sharding = NamedSharding(self.mesh, fsdp_spec((len(whole.inputs), 1), self.mesh.size))

        def spread(x: np.ndarray) -> Array:
            return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

        return tasks.Batch(spread(np.asarray(whole.inputs)), spread(np.asarray(whole.targets)))

    def step(self, state: TrainState, number: int) -> tuple[TrainState, float]:
        """One step; the loss is that of the whole batch, the same on every process."""
        state, loss = self._step(state, self.batch(number))
        return state, float(loss)

    def _train_step(self, state: TrainState, batch: tasks.Batch) -> tuple[TrainState, Array]:
        loss, grads = jax.value_and_grad(lambda params: self.task.loss(self._build(params), batch))(state.params)
        updates, opt_state = self.tx.update(grads, state.opt_state, state.params)
        new = TrainState(optax.apply_updates(state.params, updates), opt_state)
        # Without this, XLA may choose another layout for the result than the argument has, and compile twice.
        layout = jax.tree.map(lambda leaf: leaf.sharding, self._abstract(state.params))
        return jax.lax.with_sharding_constraint(new, layout), loss

    def _abstract(self, params: Tree) -> TrainState:
        """Shapes, dtypes and layouts of a state."""

        def placed(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

        spread = jax.tree.map(
            lambda leaf: placed(leaf, NamedSharding(self.mesh, fsdp_spec(leaf.shape, self.mesh.size))), params
        )
        opt_state = jax.eval_shape(self.tx.init, params)
        return TrainState(spread, jax.tree.map(placed, opt_state, state_shardings(self.tx, spread)))

    def restore(self, manager: ocp.CheckpointManager, like: TrainState) -> tuple[TrainState, int]:
        """The last checkpoint, laid out for this mesh, however many devices wrote it; `like` and 0 without one."""
        latest = manager.latest_step()
        if latest is None:
            return like, 0
        abstract = arrays_by_name(self._abstract(like.params))
        arrays = manager.restore(latest, args=ocp.args.StandardRestore(abstract))
        return jax.tree.unflatten(jax.tree.structure(like), [arrays[name] for name in abstract]), latest


def run(job: Job, checkpoints: Path, patience: float, pause: float = 0.0) -> None:
    """Train to the end; process 0 prints."""
    training = Training(job, jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(AxisType.Auto,)))
    options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
    alive = Watch(patience)
    with ocp.CheckpointManager(checkpoints.absolute(), options=options) as manager:
        state, done = training.restore(manager, training.init())
        say(f"{jax.process_count()} processes, {jax.device_count()} devices, from step {done}")
        alive.done = done
        for number in range(done, job.steps):
            state, loss = training.step(state, number)
            alive.saw_step(number + 1)
            say(f"step {number + 1} loss {loss:.6f}")
            time.sleep(pause)
            if (number + 1) % job.save_every == 0 or number + 1 == job.steps:
                manager.save(number + 1, args=ocp.args.StandardSave(arrays_by_name(state)))
    alive.stop()
    say("done")


def say(text: str) -> None:
    """Print, on one process."""
    if jax.process_index() == 0:
        print(text, flush=True)


class Watch:
    """Ends this process when no step has been completed for `patience` seconds.

    A collective whose peer is gone may fail at once, or wait for it forever; this bounds the wait.
    """

    def __init__(self, patience: float) -> None:
        self.patience, self.done = patience, 0
        self._last = time.monotonic()
        self._stopped = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def saw_step(self, number: int) -> None:
        """A step is complete, which no process can do alone."""
        self.done, self._last = number, time.monotonic()

    def stop(self) -> None:
        """The run is over."""
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(0.2):
            if time.monotonic() - self._last > self.patience:
                end(f"no step for {self.patience:g} s after step {self.done}")


def end(reason: str) -> None:
    """End this process now, with a message and status 3; finalizers would wait for peers that are gone."""
    print(
        f"process {os.environ.get('JAXOPT_TOUR_PROCESS', '?')}: another process is gone ({reason}). "
        "Start the job again, on any number of processes: it goes on from the last checkpoint.",
        file=sys.stderr,
        flush=True,
    )
    os._exit(PEER_LOST)


def main(arguments: Sequence[str] | None = None) -> int:
    """One process of the job."""
    parser = argparse.ArgumentParser(prog="python -m jaxopt_tour.tour.distributed", description=__doc__.splitlines()[0])
    parser.add_argument("--coordinator", help="HOST:PORT of process 0, reachable from all")
    parser.add_argument("--processes", type=int, help="number of processes")
    parser.add_argument("--process", type=int, help="number of this one, from 0")
    parser.add_argument("--detect", action="store_true", help="let JAX find the three from the cluster it runs on")
    parser.add_argument("--checkpoints", type=Path, required=True, help="a folder that all processes see")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--save-every", type=int, default=50, help="steps between checkpoints")
    parser.add_argument("--learning-rate", type=float, default=0.018)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--patience", type=float, default=300, help="seconds without a step before a process gives up")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds to wait after every step")
    args = parser.parse_args(arguments)
    if not args.detect and None in (args.coordinator, args.processes, args.process):
        parser.error("give --coordinator, --processes and --process, or --detect")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    if args.detect:
        jax.distributed.initialize()
    else:
        jax.distributed.initialize(args.coordinator, args.processes, args.process)
    os.environ["JAXOPT_TOUR_PROCESS"] = str(jax.process_index())
    job = Job(args.steps, args.learning_rate, args.seed, args.width, args.blocks, args.save_every)
    try:
        run(job, args.checkpoints, args.patience, args.pause)
    except jax.errors.JaxRuntimeError as error:
        end(str(error).splitlines()[0])
    jax.distributed.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
