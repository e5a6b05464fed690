"""A task small enough to train in milliseconds, standing in for the real ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from jaxopt_tour.problems import tasks
from jaxopt_tour.problems.models import MLP
from jaxopt_tour.tour import contenders
from jaxopt_tour.tour.contenders import Contender


def make_tiny(name: str) -> tasks.Task:
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((64, 6)).astype(np.float32)
    targets = (inputs[:, 0] > 0).astype(np.int32) + (inputs[:, 1] > 0).astype(np.int32)
    train, held_out = slice(0, 48), slice(48, 64)

    def batch(seed: int, step: int) -> tasks.Batch:
        chosen = tasks.shuffled_positions(48, 16, seed, step)
        return tasks.Batch(inputs[train][chosen], targets[train][chosen])

    return tasks.Task(
        name=name,
        title=f"tiny {name}",
        model=lambda rngs: MLP((6, 8, 3), rngs=rngs),
        loss=tasks.cross_entropy,
        metrics={"accuracy": tasks.accuracy} if name == "cnn" else {},
        batch=batch,
        held_out=(tasks.Batch(inputs[held_out], targets[held_out]),),
        steps=30,
        batch_text="16 vectors",
    )


@pytest.fixture(scope="session")
def tiny() -> tasks.Task:
    return make_tiny("cnn")


@pytest.fixture(scope="session")
def tiny_tasks() -> dict[str, tasks.Task]:
    return {name: make_tiny(name) for name in ("cnn", "gpt")}


@pytest.fixture
def tiny_race(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_tasks: dict[str, tasks.Task]) -> Path:
    """The tiny task under the names of both, two contenders each; gives the rates file."""
    table = {
        "cnn": (Contender("sgd", "sgd"), Contender("adam", "adam")),
        "gpt": (Contender("adamw", "adamw"), Contender("muon-0.7", "muon", share_of_steps=0.7)),
    }
    monkeypatch.setattr(tasks, "TASKS", {name: lambda name=name: tiny_tasks[name] for name in tiny_tasks})
    monkeypatch.setattr(contenders, "CONTENDERS", table)
    rates = {task: {each.name: {"learning_rate": 0.03} for each in group} for task, group in table.items()}
    path = tmp_path / "rates.json"
    path.write_text(json.dumps({"rates": rates}))
    return path
