"""The README's evidence and the tables of docs/race.md, from committed results and pages and nothing else.

python benchmarks/readme.py

Reads race.json (`./tour --seeds 3 --out DIR`, its results.json), import_time.json and optimizer_step.json in
benchmarks/results, the laboratory's race, and the tables of docs/routing.md and docs/maxtext.md. Writes
docs/figures/race.png, the tables of docs/race.md, a line of docs/choose.md and of docs/speed.md, and the README's
evidence.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from _common import RESULTS, ROOT

from jaxopt_tour.tour.experiments.after_muon import BASELINES, MUON, ahead, settings
from jaxopt_tour.tour.experiments.race import PAIR, compare, heats
from jaxopt_tour.tour.laboratory.cells import Cells
from jaxopt_tour.tour.laboratory.protocol import budget_to_target
from jaxopt_tour.tour.laboratory.rules import RULES, entrant

END = "<!-- end -->"
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


def steps_to_the_same_loss() -> tuple[list[float], int]:
    """AdamW's steps over Muon's in the laboratory's settings where both ends are known, and the number of settings."""
    cells = Cells(ROOT / "experiments" / "results" / "race" / "results.json", "race", read_only=True)
    compared = [compare(cells, heat, *PAIR) for heat in heats(quick=False)]
    assert all(found.call == 1 for found in compared), "AdamW does not need more steps than Muon everywhere"
    return sorted(found.interval.value for found in compared if found.interval), len(compared)


def steps_with_rates_by_role() -> tuple[str, str]:
    """AdamW's steps over Muon's to AdamW's loss on the character GPT: plain, and with rates by role tuned."""
    cells = Cells(ROOT / "experiments" / "results" / "after-muon" / "results.json", "after-muon", read_only=True)
    gpt = next(setting for setting in settings(quick=False) if setting.workload.name == "gpt")
    plain, by_role = (ahead(cells, gpt, MUON, name) for name in BASELINES)
    return plain.words(), by_role.words()


def rates_line() -> str:
    """How many times AdamW's tuned rate Muon's is, at the first number of steps that reaches the target."""
    cells = Cells(ROOT / "experiments" / "results" / "race" / "results.json", "race", read_only=True)
    ratios = []
    for heat in heats(quick=False):
        rates = {}
        for name in PAIR:
            readings = budget_to_target(cells, heat.workload, entrant(RULES[name]), heat.budgets)
            target = heat.workload.target
            reached = (each for each in readings if None not in each["final"] and max(each["final"]) <= target)
            rates[name] = next(reached, readings[-1])["numbers"]["learning_rate"]
        ratios.append(rates["muon"] / rates["adamw"])
    return (
        f"In the laboratory's {len(ratios)} settings Muon's tuned rate is {min(ratios):.2f} to {max(ratios):.1f} times "
        f"AdamW's, {statistics.median(ratios):.1f} times in the median."
    )


def routed(page: str, pattern: str, *columns: int) -> list[int]:
    """Sums of some columns of a page's table rows that match a pattern; of all numbers in a cell."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    rows = [line.strip("|").split("|") for line in text.splitlines() if re.match(pattern, line)]
    assert rows, f"no table in {page}"
    return [len(rows), *(sum(int(n) for row in rows for n in re.findall(r"\d+", row[column])) for column in columns)]


def evidence_lines(steps: Json) -> list[str]:
    """One row a claim."""
    ratios, number = steps_to_the_same_loss()
    plain, by_role = steps_with_rates_by_role()
    rows = {row["name"]: row for row in steps["results"]["gpt2-small"]}
    ours, fast = (f"{rows[name]['speedup']:.1f}" for name in ("ours, default", "ours, fast"))
    maxtext, wrong_by_use = routed("maxtext.md", r"\| [\w.-]+ \| [\d/ -]+ \| \d+, \d+", 2)
    _, models, wrong_by_name = routed("routing.md", r"\| all but MaxText", 1, 5)
    machine, versions = steps["machine"], steps["versions"]
    optax = f"`optax.contrib.muon` {versions['optax']}"
    return [
        "| claim | number | page |",
        "|---|---|---|",
        f"| steps to the same loss, AdamW / Muon, both tuned, small models | {ratios[0]:.2f} to {ratios[-1]:.2f} "
        f"where both ends are known; Muon is ahead in {number} of {number} settings "
        "| [laboratory](docs/laboratory.md) |",
        f"| the same on a character GPT, where AdamW also tunes its rates of embedding and head | {by_role}; without "
        f"that {plain} | [after Muon](docs/laboratory/after-muon.md) |",
        f"| a whole update on GPT-2 small against {optax}, **on CPU** | {ours} times as fast; {fast} with "
        '`orthogonalizer="fast"` | [speed](docs/speed.md) |',
        f"| parameters routed wrong by use | {wrong_by_use} on {maxtext} models of MaxText "
        "| [MaxText](docs/maxtext.md) |",
        f"| parameters routed wrong by name | {wrong_by_name} on {models} other models; some are missed "
        "| [routing](docs/routing.md) |",
        "",
        f"Measured on {machine['processor']}, {machine['cores']} cores, jax {versions['jax']}; each page names its "
        "command.",
    ]


def replace_between(path: Path, name: str, lines: Iterable[str]) -> None:
    """Write lines between a page's markers."""
    text = path.read_text(encoding="utf-8")
    begin = f"<!-- {name}: written by `python benchmarks/readme.py` -->"
    head, rest = text.split(begin)
    _, tail = rest.split(END, 1)
    path.write_text(head + begin + "\n" + "\n".join(lines) + "\n" + END + tail, encoding="utf-8")


def main() -> None:
    race = read("race")
    draw(race)
    imports = {row["name"]: row for row in read("import_time")["results"]}["jaxopt_tour"]
    low, high = imports["ratio_quartiles"]
    replace_between(ROOT / "docs" / "race.md", "race", race_lines(race))
    replace_between(ROOT / "README.md", "evidence", evidence_lines(read("optimizer_step")))
    replace_between(ROOT / "docs" / "choose.md", "rates", [rates_line()])
    line = (
        f"`import jaxopt_tour` takes {imports['ratio']:.2f} times as long as `import optax` [{low:.2f}, {high:.2f}] "
        "(`python benchmarks/import_time.py`)."
    )
    replace_between(ROOT / "docs" / "speed.md", "import", [line])


if __name__ == "__main__":
    main()
