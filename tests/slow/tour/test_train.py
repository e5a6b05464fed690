"""The step trains, compiles once, donates; the loop measures, stops at a divergence, and goes on bit for bit."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import asdict

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from jaxopt_tour.problems import tasks
from jaxopt_tour.problems.models import GPT
from jaxopt_tour.tour.contenders import OPTIMIZERS
from jaxopt_tour.tour.train import (
    History,
    Run,
    Trainer,
    TrainState,
    evaluate,
    model_builder,
    state_bytes_per_parameter,
    steps_of_evaluations,
    warmup_then_decay,
)


class Memory:
    """A store that keeps everything, and can pretend that the process died after so many saves."""

    def __init__(self, saves_until_death: int | None = None) -> None:
        self.kept: list[tuple[TrainState, History]] = []
        self.left = saves_until_death

    def save(self, state: TrainState, history: History) -> None:
        self.kept.append((jax.tree.map(np.array, state), History.from_json(copy.deepcopy(asdict(history)))))
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt

    def restore(self, like: TrainState) -> tuple[TrainState, History] | None:
        if not self.kept:
            return None
        state, history = self.kept[-1]
        return jax.tree.map(jax.numpy.array, state), history


def run_of(task: tasks.Task, **changes) -> Run:
    return Run(**{"task": task.name, "optimizer": "adam", "seed": 0, "steps": 40, "learning_rate": 0.03, **changes})


def assert_same_bits(first, second) -> None:
    assert jax.tree.structure(first) == jax.tree.structure(second)
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_of_the_tour_lowers_the_loss(tiny, optimizer):
    rate = {"sgd": 0.3, "adadelta": 3.0, "signsgd": 0.01, "signum": 0.01}.get(optimizer, 0.03)
    state, history = Trainer(tiny, OPTIMIZERS[optimizer]).run(run_of(tiny, learning_rate=rate))
    before = evaluate(tiny, Trainer(tiny, OPTIMIZERS[optimizer]).init(0).params)["loss"]
    assert history.curve.validation_loss[-1] < 0.9 * before
    assert history.curve.step == [10, 20, 30, 40]
    assert len(history.durations) == history.step == 40
    assert all(leaf.dtype != np.float64 for leaf in jax.tree.leaves(state))


def test_a_small_gpt_learns_under_muon():
    text = tasks.gpt()
    task = tasks.Task(
        name="gpt", title="", metrics={}, steps=20, batch_text="", loss=tasks.cross_entropy,
        model=lambda rngs: GPT(76, width=32, heads=2, blocks=1, hidden=48, rngs=rngs),
        batch=lambda seed, step: jax.tree.map(lambda x: x[:, :32], text.batch(seed, step)),
        held_out=(jax.tree.map(lambda x: x[:8, :32], text.held_out[0]),),
    )  # fmt: skip
    _, history = Trainer(task, OPTIMIZERS["muon"]).run(Run("gpt", "muon", 0, 20, 0.03))
    assert history.curve.validation_accuracy is None
    assert history.curve.validation_loss[-1] < 3.4 < np.log(76)


def test_the_first_update_is_that_of_the_optimizer_alone(tiny):
    run = run_of(tiny, steps=1, optimizer="sgd", learning_rate=0.5)
    trainer = Trainer(tiny, OPTIMIZERS["sgd"])
    params = trainer.init(0).params
    grads = jax.grad(lambda p: tiny.loss(model_builder(tiny)(p), tiny.batch(0, 0)))(params)
    expected = optax.apply_updates(params, jax.tree.map(lambda g: -0.5 * g, grads))
    state, _ = trainer.run(run)
    # One compiled program rounds otherwise than two.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), state.params, expected)


def test_two_runs_are_equal_bit_for_bit_and_two_seeds_are_not(tiny):
    trainer = Trainer(tiny, OPTIMIZERS["adam"])
    (first, one), (second, two), (third, _) = (trainer.run(run_of(tiny, seed=seed)) for seed in (0, 0, 1))
    assert_same_bits(first, second)
    assert (one.curve.train_loss, one.curve.validation_loss) == (two.curve.train_loss, two.curve.validation_loss)
    assert not np.array_equal(jax.tree.leaves(first)[0], jax.tree.leaves(third)[0])


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
@pytest.mark.parametrize("saves", [1, 3])
def test_an_interrupted_run_goes_on_to_the_same_bits(tiny, optimizer, saves):
    run = run_of(tiny, optimizer=optimizer)
    whole, history = Trainer(tiny, OPTIMIZERS[optimizer]).run(run)
    store = Memory(saves_until_death=saves)
    with pytest.raises(KeyboardInterrupt):
        Trainer(tiny, OPTIMIZERS[optimizer]).run(run, store=store)
    store.left = None
    seen: list[int] = []
    resumed, after = Trainer(tiny, OPTIMIZERS[optimizer]).run(
        run, store=store, on_step=lambda step, loss: seen.append(step)
    )
    assert seen == list(range(10 * saves + 1, 41))
    assert_same_bits(whole, resumed)
    for name in ("step", "train_loss", "validation_loss", "validation_accuracy"):
        assert getattr(history.curve, name) == getattr(after.curve, name)


def test_seeds_rates_and_lengths_share_one_compilation(tiny):
    trainer = Trainer(tiny, OPTIMIZERS["adam"])
    traces = []
    make = trainer.make_optimizer
    trainer.make_optimizer = lambda schedule: traces.append(1) or make(schedule)
    for changes in ({}, {"seed": 1}, {"learning_rate": 0.1}, {"steps": 20}):
        trainer.run(run_of(tiny, **changes))
    # One for the step and one for the state of each of the four runs.
    assert len(traces) == 1 + 4


def test_the_step_takes_over_the_memory_of_the_old_state(tiny):
    trainer = Trainer(tiny, OPTIMIZERS["adam"])
    state, batch = trainer.init(0), tiny.batch(0, 0)
    trainer.compiled_step(state, batch)(state, batch, np.float32(0.1), np.int32(10))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))


def test_a_run_that_diverges_stops_and_says_so_with_none(tiny):
    _, history = Trainer(tiny, OPTIMIZERS["sgd"]).run(run_of(tiny, learning_rate=1e30))
    assert history.diverged and history.step < 40
    assert history.curve.train_loss[-1] is None or history.curve.validation_loss[-1] is None


def test_history_counts_steps_of_training_alone(tiny):
    _, history = Trainer(tiny, OPTIMIZERS["adam"]).run(run_of(tiny))
    assert history.curve.seconds[-1] == pytest.approx(sum(history.durations))
    assert history.milliseconds_per_step == pytest.approx(1000 * np.median(history.durations))


def test_update_time_is_positive_and_measured_once(tiny):
    trainer = Trainer(tiny, OPTIMIZERS["muon"])
    first = trainer.update_milliseconds()
    assert 0 < first == trainer.update_milliseconds()


@pytest.mark.parametrize(("optimizer", "bytes_"), [("sgd", 0), ("momentum", 4), ("adam", 8)])
def test_state_bytes_of_known_optimizers(tiny, optimizer, bytes_):
    state = Trainer(tiny, OPTIMIZERS[optimizer]).init(0)
    # Counters of steps add a few bytes to this model of 83 parameters.
    assert bytes_ <= state_bytes_per_parameter(state) < bytes_ + 0.2


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_schedule_rises_for_5_percent_then_falls_to_zero(shape):
    rates = np.array([warmup_then_decay(step, peak=2.0, steps=100, shape=shape) for step in range(101)])
    np.testing.assert_allclose(rates[:5], 2.0 * np.arange(1, 6) / 5, rtol=1e-6)  # float32
    assert np.all(np.diff(rates[5:]) < 0) and rates[99] > 0 and rates[100] == 0
    assert rates.argmax() in (4, 5) and rates.max() == pytest.approx(2.0)
    middle = rates[5 + 95 // 2]
    assert middle == pytest.approx(1.0, rel=0.03)


def test_linear_decay_by_hand():
    rates = [float(warmup_then_decay(step, peak=1.0, steps=20)) for step in (0, 1, 10, 19)]
    np.testing.assert_allclose(rates, [1.0, 1.0, 10 / 19, 1 / 19], rtol=1e-6)  # float32


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_shortest_schedules_are_finite_and_positive(steps):
    rates = [float(warmup_then_decay(step, peak=1.0, steps=steps)) for step in range(steps)]
    assert all(0 < rate <= 1 for rate in rates)


def test_an_unknown_shape_is_refused():
    with pytest.raises(ValueError, match="shape must be 'linear' or 'cosine', got 'step'"):
        warmup_then_decay(0, peak=1.0, steps=10, shape="step")


@pytest.mark.parametrize("steps", [1, 7, 10, 33, 99, 300, 1001])
def test_evaluations_are_even_and_end_at_the_end(steps):
    chosen = sorted(steps_of_evaluations(steps))
    assert chosen[-1] == steps and 1 <= len(chosen) <= 10
    assert min(np.diff(chosen), default=10) >= 9


def test_a_model_with_other_state_than_parameters_is_refused(tiny):
    with_dropout = dataclasses.replace(tiny, model=lambda rngs: nnx.BatchNorm(6, rngs=rngs))
    with pytest.raises(ValueError, match="must have no state but its parameters"):
        model_builder(with_dropout)
