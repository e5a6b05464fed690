"""What do the rules after Muon add, and what is left of Muon's lead where AdamW may choose its rates by role?"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure

from jaxopt_tour.problems.workloads import Workload, parameters, small_gpt
from jaxopt_tour.tour.experiments.after_muon_rules import ENTRANTS
from jaxopt_tour.tour.laboratory.budgets import Compared, compare_steps, steps_to
from jaxopt_tour.tour.laboratory.cells import Cells
from jaxopt_tour.tour.laboratory.comparison import (
    Losses,
    by_direction,
    difference_in_words,
    direction,
    listed,
    loss_in_words,
    mean_loss,
    paired,
    trials_in_words,
)
from jaxopt_tour.tour.laboratory.experiment import Experiment, Table
from jaxopt_tour.tour.laboratory.protocol import Entrant, read, tune
from jaxopt_tour.tour.laboratory.statistics import Interval
from jaxopt_tour.tour.laboratory.tiny import tiny_workload
from jaxopt_tour.tour.plots import line

MUON: Final = "Muon"
MUON_BY_ROLE: Final = "Muon, rates by role"
#: The baselines; the headline is against the better of them.
ADAMW: Final = "AdamW"
ADAMW_BY_ROLE: Final = "AdamW, rates by role"
BASELINES: Final = (ADAMW, ADAMW_BY_ROLE)


EQUAL_BY_ROLE: Final = "MuonEq and Muon+, rates by role"


def title(name: str) -> str:
    """A rule's name as pages have it, fit for a list: `AdamW (rates by role)`."""
    what, _, how = name.replace(" and ", " with ").partition(", ")
    return f"{what} ({how})" if how else what


@dataclass(frozen=True)
class Setting:
    """What is trained, for how long, and by whom.

    Attributes:
        workload: what is trained.
        steps: T, for which every rule is tuned.
        shorter: fewer steps, ascending.
        rules: by name; Muon and the baselines are among them.
        without: numbers that the workload's model has no parameters for; they are not tuned.
        trials: of every search, exactly.
        tuning_seeds: how many.
        seeds: read.
    """

    workload: Workload
    steps: int
    shorter: tuple[int, ...]
    rules: tuple[str, ...]
    without: tuple[str, ...] = ()
    trials: int = 20
    tuning_seeds: int = 1
    seeds: int = 8

    @property
    def label(self) -> str:
        """The problem, its batch and T."""
        return f"{self.workload.title}, {self.workload.batch_text}, {self.steps} steps"

    def entrant(self, name: str) -> Entrant:
        """A rule with the numbers that are tuned here."""
        full = ENTRANTS[name]
        return dataclasses.replace(full, axes=tuple(axis for axis in full.axes if axis.name not in self.without))


def settings(quick: bool) -> list[Setting]:
    """All of them, in the order of the table."""
    if quick:
        few = (MUON, *BASELINES)
        return [Setting(tiny_workload(), 8, (4,), few, without=("embedding",), trials=6, seeds=2)]
    return [Setting(small_gpt(8), 120, (60, 85), tuple(ENTRANTS))]


def run(cells: Cells) -> None:
    """Rule by rule, so that a run that is cut off leaves whole rows."""
    for setting in settings(cells.quick):
        for name in setting.rules:
            _row(cells, setting, name)
        if EQUAL_BY_ROLE in setting.rules:
            _borrowed(cells, setting)


def _row(cells: Cells, setting: Setting, name: str) -> None:
    _state_bytes(cells, setting, name)
    _finals(cells, setting, name)
    _readings(cells, setting, name)


def _tuned(cells: Cells, setting: Setting, name: str) -> dict[str, Any]:
    return tune(
        cells, setting.workload, setting.entrant(name), setting.steps,
        trials=setting.trials, seeds=setting.tuning_seeds, widest=0,
    )  # fmt: skip


def _finals(cells: Cells, setting: Setting, name: str, steps: int | None = None) -> list[float | None]:
    """The final loss of every reading seed, after T steps or fewer, with the numbers that were tuned for T."""
    numbers = _tuned(cells, setting, name)["numbers"]
    return read(cells, setting.workload, ENTRANTS[name].rule, steps or setting.steps, numbers, setting.seeds)["final"]


def _borrowed(cells: Cells, setting: Setting) -> list[float | None]:
    """The final losses of Muon with the numbers that were found for MuonEq and Muon+ with rates by role."""
    numbers = _tuned(cells, setting, EQUAL_BY_ROLE)["numbers"]
    return read(cells, setting.workload, ENTRANTS[MUON_BY_ROLE].rule, setting.steps, numbers, setting.seeds)["final"]


def _readings(cells: Cells, setting: Setting, name: str) -> list[dict[str, Any]]:
    every = (*setting.shorter, setting.steps)
    return [{"steps": steps, "final": _finals(cells, setting, name, steps)} for steps in every]


def _state_bytes(cells: Cells, setting: Setting, name: str) -> float:
    """Bytes of optimizer state per parameter."""
    rule, workload = ENTRANTS[name].rule, setting.workload

    def init(params: Any) -> Any:
        numbers = {number: jnp.float32(value) for number, value in rule.defaults.items()}
        return rule.build(lambda count: numbers["learning_rate"], numbers, workload).init(params)

    def compute() -> float:
        state = jax.eval_shape(init, jax.eval_shape(workload.init, jax.random.key(0)))
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)) / parameters(workload)

    key = {"what": "state", "workload": workload.name, "batch": workload.batch_text, "rule": name}
    return cells.get(key, compute)


# --- what the cells say -----------------------------------------------------------------------------------------------


def _minus(cells: Cells, setting: Setting, name: str, other: str) -> Interval | None:
    """Final loss of one rule minus that of another, seed by seed."""
    return paired(_finals(cells, setting, name), _finals(cells, setting, other))


def better_baseline(cells: Cells, setting: Setting) -> str:
    """The AdamW with the lower mean final loss."""

    def loss(name: str) -> float:
        found = mean_loss(_finals(cells, setting, name))
        return math.inf if found is None else found.value

    return min(BASELINES, key=loss)


def compare_with(readings: Sequence[Mapping[str, Any]], targets: Losses, steps: int) -> Compared:
    """T over the steps that a rule needs, seed by seed, to the loss that another has after T steps.

    Args:
        readings: of the rule, by ascending number of steps; the last is T.
        targets: the other's final loss by seed.
        steps: T.
    """
    needed = [None if target is None else steps_to(readings, seed, target) for seed, target in enumerate(targets)]
    return compare_steps([float(steps)] * len(needed), needed, [reading["steps"] for reading in readings])


def ahead(cells: Cells, setting: Setting, name: str, other: str) -> Compared:
    """How many times the rule's steps the other needs to its loss after T steps."""
    return compare_with(_readings(cells, setting, name), _finals(cells, setting, other), setting.steps)


def _words(compared: Compared) -> str:
    return compared.words() or "—"


def _tables(cells: Cells) -> list[Table]:
    rows, trials = [], []
    for setting in settings(cells.quick):
        for name in setting.rules:
            tuned = _tuned(cells, setting, name)
            rows.append([
                f"{setting.workload.name}, {title(name)}",
                ", ".join(f"{number.replace('_', ' ')} {value:.2g}" for number, value in tuned["numbers"].items()),
                f"{_state_bytes(cells, setting, name):.1f}",
                loss_in_words(_finals(cells, setting, name)),
                "" if name == MUON else difference_in_words(_minus(cells, setting, name, MUON)),
                *(
                    "" if name == other else _words(ahead(cells, setting, name, other))
                    for other in (*BASELINES, MUON)
                ),
            ])  # fmt: skip
            note = "surrounded by worse points" if tuned["interior"] else "a neighbor was not tried"
            trials.append([f"{setting.workload.name}, {title(name)}", note, trials_in_words(tuned["tried"])])
    described = "; ".join(
        f"{setting.workload.name}: {setting.label}, {setting.trials} trials on {setting.tuning_seeds} tuning "
        f"seed{'s' if setting.tuning_seeds > 1 else ''}, {setting.seeds} reading seeds"
        for setting in settings(cells.quick)
    )
    return [
        Table(
            f"{described}. State in bytes per parameter; held-out loss in nats with 95 % intervals; its paired "
            "difference to Muon's; and how many times the rule's steps AdamW, AdamW with rates by role, and Muon "
            "need to the loss that they have after all steps. >, <: a bound, because the rule was there at the "
            "fewest steps or never; —: on some seeds alone.",
            ["rule", "tuned numbers", "bytes", "final loss", "minus Muon", "AdamW's steps", "AdamW by role's steps",
             "Muon's steps"],
            rows,
        ),
        Table("Every trial, as the numbers in the order of the table above, and loss on the tuning seeds.",
              ["rule", "the best point", "trials"], trials),
    ]  # fmt: skip


def _figure(cells: Cells) -> Figure:
    every = settings(cells.quick)
    names = [name for name in ENTRANTS if any(name in setting.rules for setting in every)]
    figure = Figure(figsize=(12, 1.8 + 0.32 * len(names)), layout="constrained")
    axes = figure.subplots(1, 2 * len(every), sharey=True, squeeze=False)[0]
    for place, setting in enumerate(every):
        left, right = axes[2 * place], axes[2 * place + 1]
        better = better_baseline(cells, setting)
        for name in setting.rules:
            y, color = names.index(name), line("adamw" if name in BASELINES else "muon")["color"]
            difference = _minus(cells, setting, name, MUON)
            if name == MUON:
                left.plot(0, y, "o", color=color)
            elif difference is not None:
                left.plot([difference.low, difference.high], [y, y], color=color, linewidth=2)
                left.plot(difference.value, y, "o", color=color, markersize=5)
            found = ahead(cells, setting, name, better)
            if name == better:
                right.plot(1, y, "o", color=color)
            elif found.interval is not None:
                right.plot([found.interval.low, found.interval.high], [y, y], color=color, linewidth=2)
                right.plot(found.interval.value, y, "o", color=color, markersize=5)
            elif found.bound is not None:
                right.plot(found.bound, y, ">" if found.above else "<", color=color, markersize=6)
        left.axvline(0, color="0.4", linewidth=0.8)
        right.axvline(1, color="0.4", linewidth=0.8)
        left.set(xlabel="final loss minus Muon's (nats)", title=f"{setting.workload.name}: loss")
        right.set(xlabel=f"steps of {title(better)} / its own", title=f"{setting.workload.name}: steps")
    for ax in axes:
        ax.grid(axis="y", color="0.93")
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
        ax.title.set_fontsize(10)
        ax.xaxis.label.set_fontsize(9)
    axes[0].set_yticks(range(len(names)), [title(name) for name in names], size=9)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    return figure


def _lead(cells: Cells, setting: Setting) -> str:
    """What is left of Muon's lead where AdamW chooses its rates by role, too."""
    plain, by_role = (_minus(cells, setting, name, MUON) for name in BASELINES)
    gain = _minus(cells, setting, ADAMW_BY_ROLE, ADAMW)
    ratios = [_words(ahead(cells, setting, MUON, name)) for name in BASELINES]
    text = (
        f"AdamW ends {difference_in_words(plain)} nats from Muon, with rates by role {difference_in_words(by_role)}; "
        f"choosing them changes its loss by {difference_in_words(gain)}, and AdamW's steps over Muon's from "
        f"{ratios[0]} to {ratios[1]}"
    )
    if plain and by_role and plain.low > 0:
        text += f" ({100 * by_role.value / plain.value:.0f} % of the difference in loss is left)"
    text += "."
    if MUON_BY_ROLE in setting.rules:
        both = _minus(cells, setting, ADAMW_BY_ROLE, MUON_BY_ROLE)
        text += (
            f" Where Muon chooses them, too, AdamW by role ends {difference_in_words(both)} nats from it and needs "
            f"{_words(ahead(cells, setting, MUON_BY_ROLE, ADAMW_BY_ROLE))} times its steps."
        )
        gains = {
            plain: _tuned(cells, setting, by_role)["loss"] - _tuned(cells, setting, plain)["loss"]
            for plain, by_role in ((ADAMW, ADAMW_BY_ROLE), (MUON, MUON_BY_ROLE))
        }
        text += (
            f" Where they were tuned, rates by role changed the loss by {gains[ADAMW]:+.3f} for AdamW and "
            f"{gains[MUON]:+.3f} for Muon; on the reading seeds Muon's changed by "
            f"{difference_in_words(_minus(cells, setting, MUON_BY_ROLE, MUON))}."
        )
    return text


def _answer(cells: Cells) -> str:
    every = settings(cells.quick)
    rows = [(setting, name) for setting in every for name in setting.rules]
    parts, intervals = [], 0
    for setting in every:
        others = [name for name in setting.rules if name not in (MUON, *BASELINES)]
        differences = {title(name): _minus(cells, setting, name, MUON) for name in others}
        intervals += len(others) + len(BASELINES)
        said = f" Of the other rules, {by_direction(differences, MUON)}." if differences else ""
        parts.append(f"{setting.label}, {setting.seeds} seeds: {_lead(cells, setting)}{said}")
        if EQUAL_BY_ROLE in setting.rules:
            borrowed = _borrowed(cells, setting)
            to_muon = paired(borrowed, _finals(cells, setting, MUON))
            rest = paired(_finals(cells, setting, EQUAL_BY_ROLE), borrowed)
            parts[-1] += (
                f" With the numbers found for {title(EQUAL_BY_ROLE)}, Muon ends {difference_in_words(to_muon)} nats "
                f"from Muon with its own, and {title(EQUAL_BY_ROLE)} {difference_in_words(rest)} from that."
            )
        unclear = [x for x in differences.values() if x is not None and direction(x) == 0]
        if unclear:
            most = max(max(-x.low, x.high) for x in unclear)
            parts[-1] += f" Where no difference is shown, the intervals allow up to {most:.3f} nats."
    cut_off = [name for setting, name in rows if not _tuned(cells, setting, name)["interior"]]
    luck = statistics.median(_spread(_tuned(cells, setting, name)["tried"]) for setting, name in rows)
    parts.append(
        f"Of {intervals} intervals at 95 %, about {max(1, round(0.05 * intervals))} would exclude zero if nothing "
        "differed; all of a setting share Muon's runs."
    )
    parts.append(
        f"In {len(rows) - len(cut_off)} of {len(rows)} searches the best point is surrounded by worse ones"
        + (f"; more trials may lower the loss of {listed(dict.fromkeys(map(title, cut_off)))}. " if cut_off else ". ")
        + f"The second best trial is {luck:.3f} nats behind the best in the median: what the choice between two "
        "neighbors is worth, which is in no interval."
    )
    parts.append(
        f"Not shown: anything beyond {listed(setting.label for setting in every)}; larger models, other schedules, and "
        "time, which was not measured."
    )
    return "\n\n".join(f"* {part}" for part in parts)


def _spread(tried: Sequence[tuple[Mapping[str, float], float | None]]) -> float:
    """How far the second best trial is behind the best."""
    best, second, *_ = sorted(math.inf if loss is None else loss for _, loss in tried)
    return second - best


EXPERIMENT: Final = Experiment(
    name="after-muon",
    title="What came after Muon",
    question="What do the rules published after Muon add to it, and what is left of its lead over AdamW, if all of "
    "them are tuned with the same number of trials and AdamW may choose its rates by role, too?",
    protocol=(
        "Every rule has its rate and momentum tuned by the same search with exactly the same number of trials (5 % "
        'warm-up, linear decay). "Rates by role" has multiples of the rate for embeddings and head among the numbers '
        "that these trials tune, MuonH the turn of matrices, EMA-Nesterov its memory.",
        "The tuned rules run on other seeds than they were tuned on; differences are paired over seeds, with 95 % "
        "intervals. They run for fewer steps, too, with the same numbers: a rule's steps to the loss that another has "
        "after all steps are read between these runs, seed by seed, linearly in the logarithms.",
        "Everywhere weight decay is 0.1 times the rate of its role, b2 0.95, the orthogonalization five quintics, and "
        "AdamW takes all that is no matrix. MuonEq and Muon+ are as in nanochat: outputs of equal norm before, one "
        "Frobenius norm after.",
    ),
    run=run,
    figure=_figure,
    tables=_tables,
    answer=_answer,
    change_our_mind="A search with more trials or tuning seeds, or decay tuned as well, that changes the order; longer "
    "runs, larger models or other data that show another one. Published gains of single rules over Muon are 1 to 5 % "
    "of its steps.",
)
