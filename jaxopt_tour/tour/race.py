"""Several optimizers, one problem, the same batches: each run is trained, measured and written down in turn."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import jax
from flax import nnx

import jaxopt_tour as jt
from jaxopt_tour.problems.tasks import TASKS, Task, make_task
from jaxopt_tour.tour import rates
from jaxopt_tour.tour.checkpoints import Checkpoints
from jaxopt_tour.tour.contenders import OPTIMIZERS, Contender, contenders
from jaxopt_tour.tour.results import Results, new_results, read_results, write_json
from jaxopt_tour.tour.train import History, Run, Trainer, TrainState, state_bytes_per_parameter

#: Steps of `--quick`: enough to see every part at work, too few to rank anybody.
QUICK_STEPS = {"cnn": 60, "gpt": 30}

#: Seeds of a race that names no number: noise is to be seen where a run takes four seconds. In steps, the CNN's two
#: further seeds are 7,200 of 12,210, each about an eighth as long as a step of the GPT (docs/race.md).
SEEDS = {"cnn": 3, "gpt": 1}

#: Contenders of `--quick`, one a family: most of its time goes into compiling them.
QUICK_CONTENDERS = ("sgd", "momentum", "sgd-momentum", "rmsprop", "adam", "adamw", "muon", "muon-0.7")


@dataclass(frozen=True)
class Settings:
    """What a race is.

    Attributes:
        tasks: names of the problems.
        optimizers: names of the contenders; None for all of each task, or for one a family where `quick`.
        seeds: how many; they are 0, 1, 2, ... None: each task's own number (`SEEDS`), or one where `quick`.
        steps: of every run; None for the task's own number.
        quick: a few steps only, unless `steps` says how many.
    """

    tasks: tuple[str, ...] = tuple(TASKS)
    optimizers: tuple[str, ...] | None = None
    seeds: int | None = 1
    steps: int | None = None
    quick: bool = False

    def steps_of(self, task: Task) -> int:
        """Steps of one full run on this task."""
        if self.steps is not None:
            return self.steps
        return QUICK_STEPS[task.name] if self.quick else task.steps

    def seeds_of(self, task: Task) -> int:
        """Seeds of every contender of this task."""
        if self.seeds is not None:
            return self.seeds
        return 1 if self.quick else SEEDS[task.name]

    def plan(self, rates_file: Path) -> list[tuple[Task, Contender, Run]]:
        """Every run, in order.

        Raises:
            ValueError: an unknown name, a number that is not positive, or an optimizer without a rate.
        """
        for name, value in (("seeds", self.seeds), ("steps", self.steps)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        planned = []
        for task in map(make_task, self.tasks):
            for contender in contenders(task.name, self.optimizers):
                if self.quick and self.optimizers is None and contender.name not in QUICK_CONTENDERS:
                    continue
                rate = rates.learning_rate(task.name, contender.name, rates_file)
                steps = contender.steps(self.steps_of(task))
                planned += [
                    (task, contender, Run(task.name, contender.name, seed, steps, rate))
                    for seed in range(self.seeds_of(task))
                ]
        if not planned:
            known = [contender.name for task in self.tasks for contender in contenders(task)]
            raise ValueError(
                f"optimizers on {' and '.join(self.tasks)} must be among {', '.join(known)}; "
                f"got {', '.join(self.optimizers or ())}"
            )
        return planned


class RunListener(Protocol):
    """Hears of the steps of one run."""

    def update(self, step: int, loss: float) -> None:
        """So many steps are done."""


class Listener(Protocol):
    """Hears how a race goes; `Display` is one."""

    def note(self, text: str) -> None:
        """Something to tell the person who watches."""

    def skip(self, steps: int) -> None:
        """So many steps need not be run."""

    def run(self, name: str, steps: int) -> Any:
        """A context manager that gives a `RunListener` for the time of one run."""


def race(
    settings: Settings, out: Path, listener: Listener, *, resume: bool = False, rates_file: Path = rates.EMBEDDED
) -> Results:
    """Run all that is planned, one after the other, and keep `out/results.json` up to date.

    Args:
        settings: who races on what.
        out: the folder for results and checkpoints.
        listener: is told what happens.
        resume: go on from what an earlier call with the same `out` left: finished runs are taken over, an unfinished
            one continues from its checkpoint to the same numbers, bit for bit. Otherwise each run starts over.
        rates_file: the learning rates.
    """
    plan = settings.plan(rates_file)
    results = new_results({**asdict(settings), "command": "jaxopt-tour race"})
    earlier = read_results(out / "results.json") if resume else None
    if earlier is not None and any(earlier[part] != results[part] for part in ("machine", "versions")):
        listener.note("The earlier results come from another machine or other versions: starting over.")
        earlier, resume = None, False
    write_json(out / "results.json", results)
    trainers: dict[tuple[str, str], Trainer] = {}
    for task, contender, run in plan:
        if task.name not in results["tasks"]:
            results["tasks"][task.name] = describe(task)
        runs = results["tasks"][task.name]["runs"]
        name = f"{task.name} {contender.name} seed {run.seed}"
        finished = find_run(earlier, run)
        if finished is not None:
            listener.skip(run.steps)
            runs.append(finished)
            listener.note(f"{name}: already done")
        else:
            key = (task.name, contender.optimizer)
            if key not in trainers:
                trainers[key] = Trainer(task, OPTIMIZERS[contender.optimizer])
            folder = out / "checkpoints" / task.name / f"{contender.name}-seed{run.seed}"
            runs.append(run_one(trainers[key], run, Checkpoints(folder, run, keep=resume), listener, name))
        results["claims"] = claims(results)
        write_json(out / "results.json", results)
    return results


def run_one(trainer: Trainer, run: Run, checkpoints: Checkpoints, listener: Listener, name: str) -> dict[str, Any]:
    """Train once and measure; the entry for the results file."""
    try:
        with listener.run(name, run.steps) as shown:
            state, history = trainer.run(
                run,
                store=checkpoints,
                on_step=shown.update,
                on_resume=lambda step: listener.note(f"{name}: going on from step {step}"),
            )
            share = trainer.update_milliseconds() / history.milliseconds_per_step
    finally:
        checkpoints.close()
    entry = run_entry(run, state, history, share)
    final = entry["final"]
    accuracy = "" if final["validation_accuracy"] is None else f", accuracy {100 * final['validation_accuracy']:.1f} %"
    loss = "diverged" if history.diverged else f"validation loss {final['validation_loss']:.4f}{accuracy}"
    listener.note(f"{name}: {loss}; {history.step} steps in {entry['seconds']:.1f} s")
    return entry


def run_entry(run: Run, state: TrainState, history: History, optimizer_share: float) -> dict[str, Any]:
    """One run as the results file has it. The final numbers of a run that diverged are null."""
    curve = history.curve
    accuracies = curve.validation_accuracy
    return {
        "optimizer": run.optimizer,
        "seed": run.seed,
        "learning_rate": run.learning_rate,
        "steps": run.steps,
        "curve": asdict(curve),
        "final": {
            "validation_loss": None if history.diverged else curve.validation_loss[-1],
            "validation_accuracy": None if history.diverged or accuracies is None else accuracies[-1],
        },
        "milliseconds_per_step": history.milliseconds_per_step,
        "optimizer_share": min(1.0, optimizer_share),
        "state_bytes_per_parameter": state_bytes_per_parameter(state),
        "seconds": sum(history.durations),
    }


def describe(task: Task) -> dict[str, Any]:
    """A task as the results file has it, without runs."""
    model = nnx.eval_shape(lambda: task.model(nnx.Rngs(0)))
    return {
        "title": task.title,
        "metric": "accuracy" if "accuracy" in task.metrics else None,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))),
        "routing": routing_text(task),
        "batch": task.batch_text,
        "runs": [],
    }


def routing_text(task: Task) -> str:
    """What each parameter of the task's model is, and why."""
    model = nnx.eval_shape(lambda: task.model(nnx.Rngs(0)))
    usage = jt.routing.from_function(model, task.held_out[0].inputs)
    return str(jt.routing_table(model, usage=usage))


def find_run(results: Results | None, run: Run) -> dict[str, Any] | None:
    """The finished run with the same settings, if there is one."""
    entries = (results or {}).get("tasks", {}).get(run.task, {}).get("runs", [])
    wanted = {name: value for name, value in asdict(run).items() if name != "task"}
    return next((entry for entry in entries if wanted.items() <= entry.items()), None)


def claims(results: Results) -> list[dict[str, Any]]:
    """What the results say about the claims that the tour makes; a claim whose runs are missing is left out."""
    runs = results["tasks"].get("gpt", {}).get("runs", [])
    found = {(run["optimizer"], run["seed"]): run for run in runs}
    seeds = sorted(seed for name, seed in found if name == "muon-0.7" and ("adamw", seed) in found)
    if not seeds:
        return []
    muon, adamw = ([found[name, seed] for seed in seeds] for name in ("muon-0.7", "adamw"))
    pairs = [(a["final"]["validation_loss"], b["final"]["validation_loss"]) for a, b in zip(muon, adamw, strict=True)]
    # A run that diverged has no loss: Muon's is then not under, AdamW's not to be compared with.
    under = [a is not None and b is not None and a <= b for a, b in pairs]
    each = "; ".join(f"seed {seed}: {_loss(a)} against {_loss(b)}" for seed, (a, b) in zip(seeds, pairs, strict=True))
    verdict = "ends at or under AdamW's final loss" if all(under) else "does not always end at or under AdamW's loss"
    text = (
        f"GPT: Muon trained for {muon[0]['steps']} steps, 0.7 of AdamW's {adamw[0]['steps']}, {verdict} "
        f"({sum(under)} of {len(under)} seeds; {each})."
    )
    numbers = {
        "seeds": seeds,
        "muon_steps": muon[0]["steps"],
        "adamw_steps": adamw[0]["steps"],
        "muon_validation_loss": [a for a, _ in pairs],
        "adamw_validation_loss": [b for _, b in pairs],
    }
    return [{"name": "muon-at-0.7-of-adamws-steps", "text": text, "holds": all(under), "numbers": numbers}]


def _loss(value: float | None) -> str:
    return "diverged" if value is None else f"{value:.4f}"
