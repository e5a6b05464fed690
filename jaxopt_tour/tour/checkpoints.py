"""Checkpoints of a run, with Orbax: whole or not there, whatever moment the process is killed at."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxopt_tour._types import Tree
from jaxopt_tour.tour.train import History, Run, TrainState


def arrays_by_name(tree: Tree) -> dict[str, Any]:
    """The leaves of a tree by key path: no containers, so a checkpoint outlives changes of a library's classes."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


class Checkpoints:
    """The latest state of one run, in a folder of its own.

    Orbax writes a step to a temporary folder and renames it when it is complete; the step before is removed after
    that. So a killed process leaves one complete step or the other.

    Args:
        directory: the run's folder.
        run: the run that it belongs to. A checkpoint of another run (other seed, steps or rate) is never restored.
        keep: whether to go on from what the folder holds. False empties it.
    """

    def __init__(self, directory: Path, run: Run, *, keep: bool) -> None:
        if not keep and directory.exists():
            shutil.rmtree(directory)
        self._run = run
        options = ocp.CheckpointManagerOptions(
            max_to_keep=1, enable_async_checkpointing=False, cleanup_tmp_directories=True, create=True
        )
        self._manager = ocp.CheckpointManager(directory.absolute(), options=options)

    def save(self, state: TrainState, history: History) -> None:
        """Write the state; returns when it is complete."""
        arrays = {name: np.asarray(leaf) for name, leaf in arrays_by_name(state).items()}
        progress = {"run": asdict(self._run), "history": asdict(history)}
        items = ocp.args.Composite(state=ocp.args.StandardSave(arrays), progress=ocp.args.JsonSave(progress))
        self._manager.save(history.step, args=items, force=True)

    def restore(self, like: TrainState) -> tuple[TrainState, History] | None:
        """The latest state of this run, or None where there is none.

        Args:
            like: a state of the same structure, shapes and dtypes.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        progress = self._manager.restore(step, args=ocp.args.Composite(progress=ocp.args.JsonRestore())).progress
        if progress["run"] != asdict(self._run):
            return None
        abstract = {name: np.empty(leaf.shape, leaf.dtype) for name, leaf in arrays_by_name(like).items()}
        arrays = self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract))).state
        leaves = [jax.numpy.array(arrays[name]) for name in arrays_by_name(like)]
        return jax.tree.unflatten(jax.tree.structure(like), leaves), History.from_json(progress["history"])

    def close(self) -> None:
        """Let go of the folder."""
        self._manager.close()
