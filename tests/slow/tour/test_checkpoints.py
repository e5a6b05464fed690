"""A checkpoint is whole or not there, gives back the same bits, and is never taken for another run's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_tour.tour.checkpoints import Checkpoints
from jaxopt_tour.tour.contenders import OPTIMIZERS
from jaxopt_tour.tour.train import Curve, History, Run, Trainer, TrainState

RUN = Run("cnn", "adam", 0, 100, 0.1)


def history(step: int) -> History:
    # 0.1 + 0.2 is not 0.3: the numbers must come back to the last bit.
    return History(step, False, [0.1 + 0.2] * step, Curve([step], [1 / 3], [None], [0.1 + 0.2], [2 / 3]))


def state(value: float) -> TrainState:
    return TrainState({"w": jnp.full((3, 2), value)}, (jnp.int32(value), {"m": jnp.full((3, 2), -value)}, ()))


def test_round_trip_is_exact(tmp_path):
    store = Checkpoints(tmp_path / "run", RUN, keep=False)
    store.save(state(1 / 3), history(5))
    store.close()
    kept = Checkpoints(tmp_path / "run", RUN, keep=True).restore(state(0.0))
    assert kept is not None
    assert kept[1] == history(5)
    assert jax.tree.structure(kept[0]) == jax.tree.structure(state(0.0))
    for ours, theirs in zip(jax.tree.leaves(kept[0]), jax.tree.leaves(state(1 / 3)), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def test_the_latest_state_is_kept_and_the_others_go(tmp_path):
    store = Checkpoints(tmp_path / "run", RUN, keep=False)
    for step in (1, 2, 3):
        store.save(state(step), history(step))
    kept = store.restore(state(0.0))
    assert kept is not None and kept[1].step == 3 and kept[0].params["w"][0, 0] == 3
    assert [path.name for path in (tmp_path / "run").iterdir() if path.name.isdigit()] == ["3"]


@pytest.mark.parametrize("change", [{"seed": 1}, {"steps": 200}, {"learning_rate": 0.2}])
def test_another_runs_checkpoint_is_not_restored(tmp_path, change):
    store = Checkpoints(tmp_path / "run", RUN, keep=False)
    store.save(state(1.0), history(5))
    store.close()
    other = Checkpoints(tmp_path / "run", replace(RUN, **change), keep=True)
    assert other.restore(state(0.0)) is None
    other.save(state(2.0), history(1))  # and it may start over in the same folder, at an earlier step
    kept = other.restore(state(0.0))
    assert kept is not None and kept[1].step == 1


def test_without_keep_the_folder_starts_empty(tmp_path):
    Checkpoints(tmp_path / "run", RUN, keep=False).save(state(1.0), history(5))
    assert Checkpoints(tmp_path / "run", RUN, keep=False).restore(state(0.0)) is None


@pytest.mark.parametrize("optimizer", ["muon", "rmsprop-centered"])
def test_real_optimizer_states_survive(tmp_path, tiny, optimizer):
    run = Run("cnn", optimizer, 0, 10, 0.03)
    trainer = Trainer(tiny, OPTIMIZERS[optimizer])
    store = Checkpoints(tmp_path / "run", run, keep=False)
    trained, _ = trainer.run(run, store=store)
    kept = store.restore(trainer.init(0))
    assert kept is not None
    assert jax.tree.structure(kept[0]) == jax.tree.structure(trained)
    jax.tree.map(np.testing.assert_array_equal, kept[0], trained)


SAVE_FOREVER = """
    import sys
    from pathlib import Path
    from test_checkpoints import RUN, history, state
    from jaxopt_tour.tour.checkpoints import Checkpoints
    store = Checkpoints(Path(sys.argv[1]), RUN, keep=True)
    kept = store.restore(state(0.0))
    step = 0 if kept is None else kept[1].step
    while True:
        step += 1
        store.save(state(step), history(step))
        print(step, flush=True)
"""


def test_a_process_killed_while_it_saves_leaves_a_whole_checkpoint(tmp_path):
    folder = tmp_path / "run"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    rng = np.random.default_rng(0)
    before = 0
    for _ in range(2):
        command = [sys.executable, "-c", textwrap.dedent(SAVE_FOREVER), str(folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
            assert process.stdout is not None
            lines = [int(process.stdout.readline()) for _ in range(3)]
            time.sleep(rng.uniform(0, 0.1))  # into the middle of a save
            process.send_signal(signal.SIGKILL)
            lines += [int(line) for line in process.stdout]
        assert lines[0] == before + 1  # the second process went on from what the first one left
        store = Checkpoints(folder, RUN, keep=True)
        kept = store.restore(state(0.0))
        store.close()
        assert kept is not None
        before = kept[1].step
        assert before in (lines[-1], lines[-1] + 1)  # the last announced, or the one that was complete but not yet said
        assert kept[1] == history(before)
        np.testing.assert_array_equal(kept[0].params["w"], state(before).params["w"])
        np.testing.assert_array_equal(kept[0].opt_state[1]["m"], state(before).opt_state[1]["m"])
