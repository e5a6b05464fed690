"""The README's picture and numbers, from the committed results and nothing else.

python benchmarks/readme.py

Reads race.json (``./tour --seeds 3 --out DIR``, its results.json), import_time.json, optimizer_step.json and
compile_time.json in benchmarks/results; writes docs/figures/race.png and the lines between the README's ``numbers``
markers.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from _common import RESULTS, ROOT

BEGIN, END = "<!-- numbers -->", "<!-- end of numbers -->"
#: Okabe and Ito's colors, as in the report (https://jfly.uni-koeln.de/color/).
LINES = {
    "sgd-momentum": ("#009e73", "-"),
    "adam": ("#56b4e9", "--"),
    "adamw": ("#0072b2", "-"),
    "muon": ("#d55e00", "-"),
    "muon-0.7": ("#d55e00", "--"),
}
#: Label at the end of each curve, and its place beside that end in points.
LABELS = {
    "sgd-momentum": ("SGD with momentum", (5, 0)),
    "adam": ("Adam (dashed)", (5, -9)),
    "adamw": ("AdamW", (5, 4)),
    "muon": ("Muon", (5, 0)),
    "muon-0.7": ("Muon, 0.7 of the steps", (-4, -14)),
}

Json = dict[str, Any]


def read(name: str) -> Json:
    """One committed results file."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def grouped(runs: Iterable[Json]) -> dict[str, list[Json]]:
    """The runs of every optimizer, in the order of the file."""
    groups: dict[str, list[Json]] = {}
    for run in runs:
        groups.setdefault(run["optimizer"], []).append(run)
    return groups


def draw(race: Json) -> None:
    """Held-out loss of the GPT against steps and against seconds: the mean over seeds, and their range."""
    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    figure, panels = plt.subplots(1, 2, figsize=(10, 3.8), sharey=True, layout="constrained")
    lowest = []
    for name, runs in grouped(race["tasks"]["gpt"]["runs"]).items():
        color, dashes = LINES[name]
        losses = list(zip(*(run["curve"]["validation_loss"] for run in runs), strict=True))
        mean = [statistics.fmean(values) for values in losses]
        lowest.append(mean[-1])
        for panel, axis in zip(panels, ("step", "seconds"), strict=True):
            x = [statistics.fmean(values) for values in zip(*(run["curve"][axis] for run in runs), strict=True)]
            panel.plot(x, mean, color=color, linestyle=dashes, linewidth=1.8)
            panel.fill_between(x, [min(v) for v in losses], [max(v) for v in losses], color=color, alpha=0.15, lw=0)
            if axis == "step":
                label, offset = LABELS[name]
                aligned = "right" if offset[0] < 0 else "left"
                panel.annotate(
                    label, (x[-1], mean[-1]), offset, textcoords="offset points", color=color, va="center", ha=aligned
                )
    panels[0].set(xlabel="training steps", ylabel="held-out loss (nats per character)")
    panels[0].set_xlim(0, panels[0].get_xlim()[1] * 1.22)
    panels[0].set_ylim(min(lowest) - 0.06, 2.9)
    panels[1].set(xlabel="seconds of training on two CPU cores")
    for panel in panels:
        panel.grid(axis="y", color="#e3e6ea", linewidth=0.8)
        panel.set_axisbelow(True)
    seeds = len({run["seed"] for run in race["tasks"]["gpt"]["runs"]})
    figure.suptitle(
        f"Character GPT, {race['tasks']['gpt']['parameters'] / 1e6:.2f} M parameters: mean and range of {seeds} seeds",
        fontsize=11,
        x=0.01,
        ha="left",
    )
    path = ROOT / "docs" / "figures" / "race.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def spread(values: list[float], form: str) -> str:
    """Mean and range of the seeds."""
    return f"{statistics.fmean(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def race_lines(race: Json) -> list[str]:
    """The tables of the race."""
    lines = []
    for task in race["tasks"].values():
        accuracy = task["metric"] == "accuracy"
        lines += [
            f"{task['title']}, {task['parameters']:,} parameters, {task['batch']} a step:",
            "",
            "| optimizer | rate | steps | held-out loss |"
            + (" accuracy |" if accuracy else "")
            + " ms a step | optimizer's share "
            "| state, bytes a parameter |",
            "|---|---|---|---|" + ("---|" if accuracy else "") + "---|---|---|",
        ]
        for name, runs in grouped(task["runs"]).items():
            losses = [run["final"]["validation_loss"] for run in runs]
            cells = [f"`{name}`", f"{runs[0]['learning_rate']:g}", str(runs[0]["steps"])]
            cells.append("diverged" if None in losses else spread(losses, ".3f"))
            if accuracy:
                shares = [100 * run["final"]["validation_accuracy"] for run in runs]
                cells.append(spread(shares, ".1f") + " %")
            cells.append(f"{statistics.median(run['milliseconds_per_step'] for run in runs):.1f}")
            cells.append(f"{100 * statistics.median(run['optimizer_share'] for run in runs):.0f} %")
            cells.append(f"{runs[0]['state_bytes_per_parameter']:.1f}")
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    for claim in race["claims"]:
        lines += [claim["text"], ""]
    machine, versions = race["machine"], race["versions"]
    lines += [
        f"Mean and range over seeds; `./tour --seeds 3`, on {machine['processor']}, {machine['cores']} cores, "
        f"jax {versions['jax']}, flax {versions['flax']}. Milliseconds compare optimizers within this table alone. "
        "Muon orthogonalizes with five quintics, its default on GPUs and TPUs.",
        "",
    ]
    return lines


def step_lines(steps: Json, compiling: Json) -> list[str]:
    """Speed of the whole update against Optax."""
    # Of the phases of a build, the last one that was measured: from Python to an executable.
    phase = list(next(iter(compiling["results"].values())))[-1]
    headings = {"compile": "compile time", "total": "time to trace and compile"}
    lines = [
        "Time of one whole update, as a multiple of the speed of `optax.contrib.muon` 0.2.8 that does the same work "
        "(`python benchmarks/optimizer_step.py`; medians of alternating rounds, quartiles in brackets):",
        "",
        "| tree | ours, default | ours, fast | against its loop not unrolled: default, fast "
        f"| {headings[phase]}: default, fast |",
        "|---|---|---|---|---|",
    ]
    for tree, rows in steps["results"].items():
        by_name = {row["name"]: row for row in rows}
        ours, fast = by_name["ours, default"], by_name["ours, fast"]
        compile_ratio = {row["name"]: row["ratio"] for row in compiling["results"][tree][phase]}

        def speed(row: Json) -> str:
            low, high = row["ratio_quartiles"]
            return f"{row['speedup']:.2f} x [{1 / high:.2f}, {1 / low:.2f}]"

        lines.append(
            f"| {tree} | {speed(ours)} | {speed(fast)} | {ours['speedup_to_rolled']:.2f} x, "
            f"{fast['speedup_to_rolled']:.2f} x | {compile_ratio['ours, default']:.2f} x, "
            f"{compile_ratio['ours, fast']:.2f} x |"
        )
    return [*lines, ""]


def main() -> None:
    race = read("race")
    draw(race)
    imports = {row["name"]: row for row in read("import_time")["results"]}["jaxopt_tour"]
    low, high = imports["ratio_quartiles"]
    lines = [
        *race_lines(race),
        *step_lines(read("optimizer_step"), read("compile_time")),
        f"`import jaxopt_tour` takes {imports['ratio']:.2f} x the time of `import optax` [{low:.2f}, {high:.2f}] "
        "(`python benchmarks/import_time.py`).",
    ]
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    readme.write_text(head + BEGIN + "\n" + "\n".join(lines) + "\n" + END + tail, encoding="utf-8")


if __name__ == "__main__":
    main()
