"""A run that was saved with Orbax, stopped and rerouted goes on with the momentum of the checkpoint."""

from __future__ import annotations

import pathlib
from typing import Any

import chex
import jax
import pytest

import jaxopt_tour as jt
from tests.state.problem import UP, make_params, state_after

ocp = pytest.importorskip("orbax.checkpoint", reason="Orbax is an optional dependency")

pytestmark = [
    pytest.mark.slow,
    # It is restored to the devices of the checkpoint, which is what Orbax warns of.
    pytest.mark.filterwarnings("ignore:Sharding info not provided"),
]
PARAMS = make_params()
TRAINED = {
    "muon": jt.muon(0.1),
    "shampoo": jt.shampoo(0.1),
    "adamw": jt.adamw(0.1),
    "adagrad": jt.adagrad(0.1),
    "momentum": jt.momentum(0.1),
}
REROUTED = jt.muon(0.1, routing={UP: "other"})


def saved(tx: Any, folder: pathlib.Path) -> Any:
    """The state that is in the folder."""
    state = state_after(tx, PARAMS, 2)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "state", state)
    return state


@pytest.mark.parametrize("name", TRAINED)
def test_what_is_restored_without_a_target_migrates_like_the_state_that_was_saved(name: str, tmp_path: pathlib.Path):
    state = saved(TRAINED[name], tmp_path)
    with ocp.StandardCheckpointer() as checkpointer:
        restored = checkpointer.restore(tmp_path / "state")
    expected = jt.migrate_state(state, REROUTED, PARAMS, beta=0.9)
    migration = jt.migrate_state(restored, REROUTED, PARAMS, beta=0.9)
    chex.assert_trees_all_equal(migration.state, expected.state)
    assert migration.report.totals == expected.report.totals
    jax.eval_shape(REROUTED.update, PARAMS, migration.state, PARAMS)


def test_what_is_restored_into_another_routing_raises_with_the_path(tmp_path: pathlib.Path):
    saved(TRAINED["muon"], tmp_path)
    like = ocp.args.PyTreeRestore(jax.eval_shape(REROUTED.init, PARAMS))
    restored = ocp.PyTreeCheckpointer().restore(tmp_path / "state", like)
    with pytest.raises(ValueError, match=rf"momentum of '{UP}' .* is None.*jt\.migrate_state"):
        jax.jit(REROUTED.update)(PARAMS, restored, PARAMS)
