"""One run: killed, resumed by a newer version, given a schedule, rerouted and moved to a mesh; it loses nothing."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from typing import Any

import chex
import jax
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import jaxopt_tour as jt
from tests.mesh.meshes import Tree, mesh_of
from tests.mesh.saved_run import RATE, first_params, muon, stepper, train

ocp = pytest.importorskip("orbax.checkpoint", reason="Orbax is an optional dependency")

pytestmark = [
    pytest.mark.slow,
    # It is restored to the devices of the checkpoint, which is what Orbax warns of.
    pytest.mark.filterwarnings("ignore:Sharding info not provided"),
]
ROOT = pathlib.Path(__file__).parents[2]
#: Steps before the run is killed, gets a schedule, is rerouted, is moved, and ends.
KILLED, SCHEDULED, REROUTED, MOVED, END = 12, 15, 20, 25, 30
REROUTING = {"blocks/0/up/kernel": "other"}
#: The rate of the start until step 17, then falling: its count must have gone on.
SCHEDULE = optax.linear_schedule(RATE, 0.0, END - 17, transition_begin=17)


def killed_run(folder: pathlib.Path) -> list[float]:
    """The losses of a process that was killed after some steps, without a chance to save."""
    command = [sys.executable, "-m", "tests.mesh.saved_run", str(folder)]
    # As tests/conftest.py says: the compiler's options decide the bits.
    environment = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        losses = []
        try:
            for line in process.stdout:
                losses.append(float.fromhex(line.split()[1]))
                if len(losses) == KILLED:
                    break
        finally:
            process.kill()  # SIGKILL
    assert process.returncode == -9 and len(losses) == KILLED
    return losses


def last_checkpoint(folder: pathlib.Path) -> tuple[int, pathlib.Path]:
    """The last complete one: what was being written has a temporary name."""
    found = {int(path.name.removeprefix("step_")): path for path in folder.glob("step_*") if path.name[5:].isdigit()}
    return max(found.items())


def counts_of(state: Any) -> set[int]:
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {int(leaf) for path, leaf in leaves if getattr(path[-1], "name", None) == "count"}


def rerouted(state: Any, tx: Any, params: Tree) -> Any:
    """The migrated state; one second moment, which Muon has not, is estimated, and every other moment is kept."""
    report = jt.migrate_state(state, tx, params).report
    said = {(line.parameter, line.moment): line.outcome for line in report.lines}
    assert said.pop(("blocks/0/up/kernel", "nu")) == "estimated"
    assert set(said.values()) == {"kept"}
    return jt.migrate_state(state, tx, params).state


def on_mesh(tree: Tree) -> Tree:
    """Shapes of parameters whose matrices are sharded over their columns."""

    def like(leaf: Any) -> jax.ShapeDtypeStruct:
        sharding = NamedSharding(mesh_of(), P(None, "fsdp") if leaf.ndim > 1 else P())
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(like, tree)


def test_a_run_loses_no_moment_and_no_step(tmp_path: pathlib.Path) -> None:
    # The same run without interruption: one process, one device, states that are never written.
    constant = muon(RATE)
    scheduled = muon(SCHEDULE)
    other = muon(SCHEDULE, routing=REROUTING)
    step, step_scheduled, step_other = map(stepper, (constant, scheduled, other))
    params = first_params()
    to_kill = train(step, params, constant.init(params), range(10))
    to_schedule = train(step, *to_kill[:2], range(10, SCHEDULED))
    to_reroute = train(step_scheduled, *to_schedule[:2], range(SCHEDULED, REROUTED))
    changed = rerouted(to_reroute[1], other, to_reroute[0])
    to_move = train(step_other, to_reroute[0], changed, range(REROUTED, MOVED))
    to_end = train(step_other, *to_move[:2], range(MOVED, END))

    # Killed: its losses were those of the other run, bit for bit.
    losses = killed_run(tmp_path)
    assert losses == [*to_kill[2], *to_schedule[2]][:KILLED]

    # Resumed by a newer version, from the last checkpoint and the routes beside it: steps are repeated, none is lost.
    done, folder = last_checkpoint(tmp_path)
    assert done == 10
    with ocp.StandardCheckpointer() as checkpointer:
        params, old = checkpointer.restore(folder)
    tx = muon(RATE, routing=jt.Routes.from_json((tmp_path / "routes.json").read_text()))
    migration = jt.migrate_state(old, tx, params, trace="average")
    assert {line.outcome for line in migration.report.lines} == {"kept"}
    state = migration.state
    chex.assert_trees_all_equal((params, state), to_kill[:2])
    params, state, losses = train(step, params, state, range(done, SCHEDULED))
    assert losses == to_schedule[2]

    # The constant rate becomes a schedule: the state fits, and the schedule is at the run's step.
    params, state, losses = train(step_scheduled, params, state, range(SCHEDULED, REROUTED))
    assert losses == to_reroute[2]
    np.testing.assert_allclose(SCHEDULE(REROUTED), RATE * (1 - 3 / 13))
    assert counts_of(state) == {REROUTED}

    # Rerouted from a checkpoint: the matrix that goes to AdamW keeps its momentum.
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "before_rerouting", state)
        checkpointer.wait_until_finished()
        old = checkpointer.restore(tmp_path / "before_rerouting")
    with pytest.raises(ValueError, match=r"jt\.migrate_state"):
        other.update(params, state, params)
    params, state, losses = train(step_other, params, rerouted(old, other, params), range(REROUTED, MOVED))
    assert losses == to_move[2]
    assert max(losses) < 1.1 * min(to_reroute[2])  # no jump

    # Moved to eight devices: sums are taken in another order there, which is all that differs.
    moved = muon(SCHEDULE, routing=REROUTING, mesh="fsdp")
    like = on_mesh(params)
    state_like = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        jax.eval_shape(moved.init, like),
        jt.state_shardings(moved, like),
    )
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "before_the_move", (params, state))
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "before_the_move", (like, state_like))
    chex.assert_trees_all_equal(jax.device_get(restored), jax.device_get((params, state)))
    params, state, losses = train(stepper(moved), *restored, range(MOVED, END))
    np.testing.assert_allclose(losses, to_end[2], rtol=1e-5)
    assert not params["blocks"]["0"]["up"]["kernel"].sharding.is_fully_replicated
    assert counts_of(state) == counts_of(to_end[1]) == {END}
    chex.assert_trees_all_close(jax.device_get((params, state)), jax.device_get(to_end[:2]), rtol=1e-3, atol=2e-5)
    assert losses[-1] < to_kill[2][0] / 2  # and it has learned
