"""Learning rates: the tuned ones that the races use, and the sweep that finds them."""

from __future__ import annotations

import datetime
import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxopt_tour.problems.tasks import Task
from jaxopt_tour.tour.contenders import OPTIMIZERS, Contender
from jaxopt_tour.tour.results import machine, versions, write_json
from jaxopt_tour.tour.train import Run, Trainer

#: The rates in the package.
EMBEDDED = Path(__file__).parent / "rates.json"

#: Seeds of the sweep. The race's seeds count up from 0, so the two never meet.
TUNING_SEEDS = (1000, 1001)

#: Where a sweep starts when no rate is known yet.
FIRST_GUESS = {
    "sgd": 0.1, "momentum": 0.1, "sgd-momentum": 0.3, "nesterov": 0.1, "adagrad": 0.03, "adadelta": 1.0,
    "rmsprop": 1e-3, "rmsprop-centered": 1e-3, "signsgd": 1e-3, "signum": 1e-3,
    "adam": 3e-3, "adamw": 3e-3, "muon": 1e-2, "muon-0.7": 1e-2,
}  # fmt: skip

COARSE = math.sqrt(10)  # factor between the rates that are tried first
FINE = math.sqrt(COARSE)  # factor between the best of them and its neighbors, about 1.8
MOST_RATES = 12  # the sweep stops widening here


def read_rates(path: Path = EMBEDDED) -> dict[str, Any]:
    """The rates file, or an empty one where there is none."""
    if not path.exists():
        return {"rates": {}}
    return json.loads(path.read_text(encoding="utf-8"))


def learning_rate(task: str, contender: str, path: Path = EMBEDDED) -> float:
    """The tuned rate.

    Raises:
        ValueError: the pair was never tuned; the message says how to do it.
    """
    entry = read_rates(path)["rates"].get(task, {}).get(contender)
    if entry is None:
        command = f"jaxopt-tour sweep --task {task} --optimizers {contender} --output {path}"
        raise ValueError(f"{path} has no learning rate for {contender} on {task}; find one with: {command}")
    return float(entry["learning_rate"])


def round_rate(rate: float) -> float:
    """To two significant digits, so that a rate can be read and typed."""
    return float(f"{rate:.2g}")


def best_rate(score: Callable[[float], float], start: float) -> tuple[float, dict[float, float]]:
    """The rate with the lowest score, by a grid that widens until the best one is inside it.

    First `start` and its neighbors half a decade away; a neighbor on the side of the best rate as long as that is at
    an edge; then the two rates a quarter of a decade beside the best one.

    Args:
        score: `rate -> loss`, infinite or NaN where the run diverged.
        start: the middle of the first grid.

    Returns:
        The best rate, and every rate tried with its score.
    """
    scores: dict[float, float] = {}

    def measure(rate: float) -> None:
        rate = round_rate(rate)
        if rate not in scores:
            value = score(rate)
            scores[rate] = value if math.isfinite(value) else math.inf

    def best() -> float:
        return min(scores, key=lambda rate: (scores[rate], rate))

    for rate in (start / COARSE, start, start * COARSE):
        measure(rate)
    while len(scores) < MOST_RATES and best() in (min(scores), max(scores)):
        # Where everything diverged the least rate counts as best, and the grid widens downwards.
        measure(best() / COARSE if best() == min(scores) else best() * COARSE)
    middle = best()
    for rate in (middle / FINE, middle * FINE):
        measure(rate)
    return best(), scores


def sweep(
    task: Task,
    contender: Contender,
    *,
    steps: int,
    seeds: tuple[int, ...] = TUNING_SEEDS,
    start: float | None = None,
    on_rate: Callable[[float, list[float]], None] = lambda rate, losses: None,
) -> dict[str, Any]:
    """Tune one contender's rate for a race of so many steps: lowest mean final validation loss over the seeds.

    Args:
        task: what to train on.
        contender: who.
        steps: steps of the race; the contender runs its share of them.
        seeds: seeds to average over; they should not be the race's.
        start: middle of the first grid; the embedded rate, or a first guess, when None.
        on_rate: called with every rate and its losses.

    Returns:
        The entry of the rates file.
    """
    trainer = Trainer(task, OPTIMIZERS[contender.optimizer])
    losses: dict[float, list[float]] = {}

    def score(rate: float) -> float:
        losses[rate] = []
        for seed in seeds:
            run = Run(task.name, contender.name, seed, contender.steps(steps), rate)
            _, history = trainer.run(run)
            final = history.curve.validation_loss[-1]
            losses[rate].append(math.inf if final is None or history.diverged else final)
        on_rate(rate, losses[rate])
        return statistics.fmean(losses[rate])

    if start is None:
        known = read_rates()["rates"].get(task.name, {}).get(contender.name)
        start = known["learning_rate"] if known is not None else FIRST_GUESS[contender.name]
    rate, scores = best_rate(score, start)
    return {
        "learning_rate": rate,
        "inside_the_grid": min(scores) < rate < max(scores),
        "steps": contender.steps(steps),
        "seeds": list(seeds),
        "batch": task.batch_text,
        "validation_loss": {f"{each:g}": losses[each] for each in sorted(losses)},
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
    }


def is_current(entry: dict[str, Any] | None, contender: Contender, steps: int, seeds: tuple[int, ...]) -> bool:
    """Whether an entry of a rates file is the answer to the same sweep."""
    return entry is not None and entry["steps"] == contender.steps(steps) and entry["seeds"] == list(seeds)


def write_rate(path: Path, task: str, contender: str, entry: dict[str, Any]) -> None:
    """Put an entry into a rates file, leaving the others."""
    content = read_rates(path)
    content["rates"].setdefault(task, {})[contender] = entry
    write_json(path, content)
