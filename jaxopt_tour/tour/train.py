"""Training one Flax model with one optimizer: the step, the loop, the evaluation."""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jaxopt_tour._types import Array, Tree
from jaxopt_tour.problems.tasks import Batch, Task

#: Evaluations on held-out data in one run, at most, and the steps between two of them, at least.
MOST_EVALUATIONS = 10
LEAST_INTERVAL = 10

#: The part of a run in which the learning rate rises.
WARMUP = 0.05

MakeOptimizer = Callable[[optax.Schedule], optax.GradientTransformation]


class TrainState(NamedTuple):
    """All that a step reads and writes."""

    params: Tree
    opt_state: Tree


@dataclass
class Curve:
    """What was measured at each evaluation. None stands for a number that is not finite."""

    step: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)  # spent in training steps; no compilation, no evaluation
    train_loss: list[float | None] = field(default_factory=list)  # mean since the evaluation before
    validation_loss: list[float | None] = field(default_factory=list)
    validation_accuracy: list[float | None] | None = None  # None: the task has no accuracy


@dataclass
class History:
    """Where a run stands, apart from its arrays."""

    step: int = 0
    diverged: bool = False
    durations: list[float] = field(default_factory=list)  # seconds of every step
    curve: Curve = field(default_factory=Curve)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> History:
        """The inverse of `dataclasses.asdict`."""
        return cls(**{**content, "curve": Curve(**content["curve"])})

    @property
    def milliseconds_per_step(self) -> float:
        """Median over all steps."""
        return 1000 * statistics.median(self.durations)


@dataclass(frozen=True)
class Run:
    """What decides a run's numbers: the same Run gives the same curve, bit for bit, on the same machine."""

    task: str
    optimizer: str
    seed: int
    steps: int
    learning_rate: float


class Store(Protocol):
    """Where a run is kept; `Checkpoints` is one."""

    def save(self, state: TrainState, history: History) -> None:
        """Keep this state in place of the one before."""

    def restore(self, like: TrainState) -> tuple[TrainState, History] | None:
        """The state kept last, or None."""


def warmup_then_decay(count: Array | int, *, peak: float | Array, steps: int | Array, shape: str = "linear") -> Array:
    """Learning rate at a step: up linearly over the first 5 % of the steps, then down to zero.

    `peak min((count + 1) / warmup, d)` with `d = left / (steps - warmup)` for a linear decay and
    `(1 - cos(pi d)) / 2` for a cosine one. The first step and the last are not wasted on a rate of zero.

    Args:
        count: steps done before this one.
        peak: the highest rate.
        steps: steps of the whole run.
        shape: "linear" or "cosine".
    """
    if shape not in ("linear", "cosine"):
        raise ValueError(f"shape must be 'linear' or 'cosine', got {shape!r}")
    warmup = jnp.maximum(1, jnp.round(WARMUP * steps))
    left = jnp.clip((steps - count) / jnp.maximum(1, steps - warmup), 0, 1)
    decay = left if shape == "linear" else (1 - jnp.cos(jnp.pi * left)) / 2
    return peak * jnp.minimum((count + 1) / warmup, decay)


def steps_of_evaluations(steps: int) -> set[int]:
    """After how many steps a run is evaluated: evenly spaced, the last step among them."""
    number = max(1, min(MOST_EVALUATIONS, steps // LEAST_INTERVAL))
    return {math.ceil(steps * (i + 1) / number) for i in range(number)}


class Trainer:
    """A task and an optimizer, compiled once and run for any seed, learning rate and number of steps."""

    def __init__(self, task: Task, make_optimizer: MakeOptimizer) -> None:
        self.task = task
        self.make_optimizer = make_optimizer
        self._build = model_builder(task)
        self._compiled: Callable[..., tuple[TrainState, Array]] | None = None
        self._update_seconds: float | None = None

    def init(self, seed: int) -> TrainState:
        """Fresh parameters and a fresh optimizer state."""
        params = _initial_parameters(self.task)(jax.random.key(seed))
        # Under jit every array gets a buffer of its own, which donation needs.
        return TrainState(params, jax.jit(self.make_optimizer(lambda count: jnp.zeros(())).init)(params))

    def _train_step(self, state: TrainState, batch: Batch, peak: Array, steps: Array) -> tuple[TrainState, Array]:
        """One step of training: loss, gradients, update."""
        loss, grads = jax.value_and_grad(lambda params: self.task.loss(self._build(params), batch))(state.params)
        return self._update(state, grads, peak, steps), loss

    def _update(self, state: TrainState, grads: Tree, peak: Array, steps: Array) -> TrainState:
        # The rate and the length are arguments of the compiled step, so that a sweep over them compiles once.
        optimizer = self.make_optimizer(functools.partial(warmup_then_decay, peak=peak, steps=steps))
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        return TrainState(optax.apply_updates(state.params, updates), opt_state)

    def compiled_step(self, state: TrainState, batch: Batch) -> Callable[..., tuple[TrainState, Array]]:
        """The training step, compiled for arguments like these. It takes over the old state's memory for the new."""
        if self._compiled is None:
            jitted = jax.jit(self._train_step, donate_argnames="state")
            self._compiled = jitted.lower(state, batch, jnp.float32(0), jnp.int32(0)).compile()
        return self._compiled

    def update_milliseconds(self) -> float:
        """Median time of the optimizer's update alone, compiled apart from the gradients."""
        if self._update_seconds is None:
            state = self.init(0)
            rng = np.random.default_rng(0)
            grads = jax.tree.map(lambda leaf: jnp.float32(1e-3 * rng.standard_normal(leaf.shape)), state.params)
            update = jax.jit(self._update, donate_argnames="state")
            durations: list[float] = []
            while len(durations) < 6 or (sum(durations) < 0.2 and len(durations) < 50):
                started = time.perf_counter()
                state = jax.block_until_ready(update(state, grads, jnp.float32(1e-3), jnp.int32(100)))
                durations.append(time.perf_counter() - started)
            self._update_seconds = statistics.median(durations[1:])  # the first one compiles
        return 1000 * self._update_seconds

    def run(
        self,
        run: Run,
        *,
        store: Store | None = None,
        on_step: Callable[[int, float], None] = lambda step, loss: None,
        on_resume: Callable[[int], None] = lambda step: None,
    ) -> tuple[TrainState, History]:
        """Train from the start, or from where `store` left off, to the end.

        A loss that is not finite ends the run there.

        Args:
            run: what to run.
            store: keeps the state at every evaluation and gives it back.
            on_step: called after every step with the number of steps done and the training loss.
            on_resume: called with the number of steps that `store` had done already.
        """
        state, history = self.init(run.seed), History()
        if self.task.metrics:
            history.curve.validation_accuracy = []
        kept = store.restore(state) if store is not None else None
        if kept is not None:
            state, history = kept
            on_resume(history.step)
        peak, steps = jnp.float32(run.learning_rate), jnp.int32(run.steps)
        train_step = self.compiled_step(state, self.task.batch(run.seed, 0))  # compiled before the clock starts

        evaluation_steps = steps_of_evaluations(run.steps)
        losses: list[float] = []
        while history.step < run.steps and not history.diverged:
            batch = self.task.batch(run.seed, history.step)
            started = time.perf_counter()
            state, loss = jax.block_until_ready(train_step(state, batch, peak, steps))
            history.durations.append(time.perf_counter() - started)
            history.step += 1
            losses.append(float(loss))
            history.diverged = not math.isfinite(losses[-1])
            on_step(history.step, losses[-1])
            if history.step in evaluation_steps or history.diverged:
                self._record(history, state, losses)
                losses = []
                if store is not None:
                    store.save(state, history)
        return state, history

    def _record(self, history: History, state: TrainState, losses: list[float]) -> None:
        """Evaluate on held-out data and add a point to the curve."""
        measured = evaluate(self.task, state.params)
        # A model that blew up at the last step shows it here first.
        history.diverged |= not math.isfinite(measured["loss"])
        curve = history.curve
        curve.step.append(history.step)
        curve.seconds.append(sum(history.durations))
        curve.train_loss.append(finite(statistics.fmean(losses)))
        curve.validation_loss.append(finite(measured["loss"]))
        if curve.validation_accuracy is not None:
            curve.validation_accuracy.append(finite(measured["accuracy"]))


def finite(number: float) -> float | None:
    """The number, or None where JSON has no word for it."""
    return number if math.isfinite(number) else None


@functools.lru_cache(maxsize=8)
def model_builder(task: Task) -> Callable[[Tree], Any]:
    """`parameters -> model` for a task.

    Raises:
        ValueError: the model has arrays other than parameters, which the training step would not carry along.
    """
    graph, *states = nnx.split(nnx.eval_shape(lambda: task.model(nnx.Rngs(0))), nnx.Param, ...)
    rest = states[1]
    if jax.tree.leaves(rest):
        raise ValueError(f"the model of task {task.name} must have no state but its parameters, got {rest}")
    return lambda params: nnx.merge(graph, params, rest)


@functools.lru_cache(maxsize=8)
def _initial_parameters(task: Task) -> Callable[[Array], Tree]:
    # Compiled as a whole: drawing the parameters one by one would compile dozens of small functions.
    return jax.jit(lambda key: nnx.state(task.model(nnx.Rngs(key)), nnx.Param))


@functools.lru_cache(maxsize=8)
def _evaluation(task: Task) -> Callable[[Tree, Batch], dict[str, Array]]:
    build = model_builder(task)

    def measure(params: Tree, batch: Batch) -> dict[str, Array]:
        model = build(params)
        return {"loss": task.loss(model, batch)} | {name: metric(model, batch) for name, metric in task.metrics.items()}

    return jax.jit(measure)


def evaluate(task: Task, params: Tree) -> dict[str, float]:
    """Loss and metrics on the held-out batches, averaged."""
    measured = [_evaluation(task)(params, batch) for batch in task.held_out]
    return {name: statistics.fmean(float(each[name]) for each in measured) for name in measured[0]}


def state_bytes_per_parameter(state: TrainState) -> float:
    """Memory of the optimizer's state, in bytes for every parameter of the model."""
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    return sum(leaf.nbytes for leaf in jax.tree.leaves(state.opt_state)) / parameters
