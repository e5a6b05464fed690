"""Adam's second moment as the variance of the gradient: what is v made of?

Of a batch of B examples drawn independently, the mean gradient `g_B` has, entry by entry,

    E[g_B^2] = mean^2 + variance / B,

mean and variance those of the gradient of one example. Adam's `v` averages `g_B^2` over some `1 / (1 - b2)`
steps, while the parameters move. The first half of the experiment "variance-and-shampoo".
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxopt_tour as jt
from jaxopt_tour._types import Array
from jaxopt_tour.problems.workloads import Workload, fashion_mlp
from jaxopt_tour.tour.laboratory.cells import Cells
from jaxopt_tour.tour.laboratory.comparison import direction, listed
from jaxopt_tour.tour.laboratory.experiment import Table
from jaxopt_tour.tour.laboratory.observe import Moment, observe
from jaxopt_tour.tour.laboratory.per_example import Parts, apart, mean_and_variance
from jaxopt_tour.tour.laboratory.protocol import tune
from jaxopt_tour.tour.laboratory.rules import rate_alone
from jaxopt_tour.tour.laboratory.runs import Rule
from jaxopt_tour.tour.laboratory.statistics import in_words, mean, mean_difference, signed
from jaxopt_tour.tour.laboratory.tiny import tiny_workload
from jaxopt_tour.tour.palette import HUES

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def _b2_build(schedule: optax.Schedule, numbers: Mapping[str, Any], workload: Workload) -> Any:
    return jt.adamw(schedule, b1=0.9, b2=numbers["b2"], weight_decay=0.1)


class Setting(NamedTuple):
    """A run of AdamW whose v is taken apart.

    Attributes:
        name: of the setting.
        workload: () -> what is trained.
        batch: B, examples a step.
        b2: decay of v.
        measured_on: () -> the same model, with the batches that mean and variance are measured on.
        draws: how many of those.
        seeds: that are read.
    """

    name: str
    workload: Callable[[], Workload]
    batch: int
    b2: float
    measured_on: Callable[[], Workload]
    draws: int
    seeds: int

    @property
    def rule(self) -> Rule:
        """AdamW with this b2."""
        return Rule(f"adamw b2={self.b2:g}", _b2_build, {"learning_rate": 3e-3, "b2": self.b2})


class Plan(NamedTuple):
    """How much is computed.

    Attributes:
        settings: that v is taken apart in.
        every: steps from one look at v to the next.
        steps: of every run.
        trials: of the search of every setting's rate.
    """

    settings: tuple[Setting, ...]
    every: int
    steps: int
    trials: int


FULL: Final = Plan(
    settings=(
        Setting("B = 4", lambda: fashion_mlp(4), 4, 0.95, fashion_mlp, 16, 4),
        Setting("B = 32", lambda: fashion_mlp(32), 32, 0.95, fashion_mlp, 16, 4),
        Setting("B = 256", lambda: fashion_mlp(256), 256, 0.95, fashion_mlp, 16, 4),
    ),
    every=40,
    steps=240,
    trials=7,
)

QUICK: Final = Plan(
    settings=(Setting("softmax regression, B = 32", tiny_workload, 32, 0.95, tiny_workload, 2, 2),),
    every=4,
    steps=8,
    trials=5,
)


def plan(cells: Cells) -> Plan:
    """That of these cells."""
    return QUICK if cells.quick else FULL


class Apart(NamedTuple):
    """What is measured, and on how many examples."""

    parts: Parts
    examples: Array


@functools.cache
def _taking_apart(workload: Workload, draws: int) -> Callable[[Moment], Apart]:
    """A measurement, the same function for the same arguments, as `observe` wants it."""

    def measure(moment: Moment) -> Apart:
        average, variance, examples = mean_and_variance(workload, moment.params, moment.data, moment.key, draws)
        corrected = jax.tree.map(lambda v: v / (1 - moment.numbers["b2"] ** moment.step), moment.second)
        names = list(average)
        vectors = (jnp.concatenate([tree[name].ravel() for name in names]) for tree in (corrected, average, variance))
        return Apart(Parts(*vectors), jnp.int32(examples))

    return measure


def run(cells: Cells) -> None:
    """Fill the cells."""
    for setting in plan(cells).settings:
        for seed in range(setting.seeds):
            taken_apart(cells, setting, seed)


def adam_tuned(cells: Cells, setting: Setting) -> dict[str, Any]:
    """The cell of a setting's tuned rate."""
    now = plan(cells)
    return tune(cells, setting.workload(), rate_alone(setting.rule), now.steps, trials=now.trials)


def taken_apart(cells: Cells, setting: Setting, seed: int) -> dict[str, Any]:
    """The cell of a run of AdamW whose v was taken apart: `step`, and the fields of `apart` by step."""
    now, workload = plan(cells), setting.workload()
    numbers = adam_tuned(cells, setting)["numbers"]

    def compute() -> dict[str, Any]:
        measure = _taking_apart(setting.measured_on(), setting.draws)
        seen = observe(workload, setting.rule, numbers, seed, now.steps, now.every, measure)
        examples = int(seen.seen.examples[0])
        parts = (Parts(*(x[i] for x in seen.seen.parts)) for i in range(len(seen.step)))
        moments = [apart(each, setting.batch, examples) for each in parts]
        by_name = {name: [float(f"{moment[name]:.4g}") for moment in moments] for name in moments[0]}
        return {"step": [int(t) for t in seen.step], "final": float(seen.outcome.final), **by_name}

    key = {
        "what": "second moment", "setting": setting.name, "workload": workload.name, "batch": workload.batch_text,
        "b2": setting.b2, "measured_on": [setting.draws, setting.measured_on().batch_text], "steps": now.steps,
        "every": now.every, "numbers": numbers, "seed": seed,
    }  # fmt: skip
    return cells.get(key, compute)


# --- what is read from the cells --------------------------------------------------------------------------------------


class Made:
    """What v is made of in one setting: a number a seed, the mean over the run."""

    def __init__(self, cells: Cells, setting: Setting) -> None:
        self.setting, self.tuned = setting, adam_tuned(cells, setting)
        self.runs = [taken_apart(cells, setting, seed) for seed in range(setting.seeds)]
        self.diverged = sum(run["final"] is None for run in self.runs)

    def series(self, name: str) -> np.ndarray:
        """(seeds, looks)."""
        return np.array([run[name] for run in self.runs], np.float64)

    def by_seed(self, name: str) -> list[float]:
        """The mean over the looks."""
        return [float(x) for x in self.series(name).mean(axis=1)]

    def share(self) -> list[float]:
        """The variance's part of what is explained: of the sums over parameters, `variance / B` of both together."""
        noise, squared = self.series("variance"), self.series("mean_squared")
        return [float(x) for x in (noise / (noise + squared)).mean(axis=1)]


def made(cells: Cells) -> list[Made]:
    """All settings in which no run diverged."""
    return [each for each in (Made(cells, setting) for setting in plan(cells).settings) if not each.diverged]


def made_of(cells: Cells) -> Table:
    """The table of what v is made of."""
    rows = []
    for each in made(cells):
        gap = mean_difference(each.by_seed("rank_variance"), each.by_seed("rank_mean"))
        rows.append([
            each.setting.name,
            *(in_words(mean(each.by_seed(name))) for name in ("variance", "mean_squared", "median")),
            *(f"{np.mean(each.by_seed(name)):.2f}" for name in ("rank_variance", "rank_mean", "rank_both")),
            signed(gap, 2),
        ])  # fmt: skip
    return Table(
        "What Adam's v (without its bias) is made of, the mean over the run. Variance / B and mean^2: of the sums over "
        "all parameters, as parts of the sum of v; they add up to 1 where the parameters hardly move within v's "
        "memory. Median: variance / B as a part of variance / B + mean^2, in the median parameter. Ranks: Spearman's "
        "correlation over the parameters of v with the variance, with the squared average of the same examples' "
        "gradients, which holds variance / n of noise besides mean^2, and with variance / B + mean^2; "
        "difference: of the first two. b2 is 0.95. Brackets: 95 % over "
        f"{min(setting.seeds for setting in plan(cells).settings)} seeds.",
        ["setting", "variance / B", "mean^2", "median", "rank: variance", "average^2", "both", "difference"],
        rows,
    )


def answer(cells: Cells) -> list[str]:
    """What the intervals allow, in sentences."""
    return [_of_second_moment(cells), _of_ranks(cells), _of_explained(cells)]


def _of_second_moment(cells: Cells) -> str:
    groups: dict[str, list[str]] = {}
    for each in made(cells):
        share = mean(each.share())
        words = (
            "more variance than squared mean" if share.low > 0.5
            else "more squared mean than variance" if share.high < 0.5
            else "neither shown to be the larger part"
        )  # fmt: skip
        groups.setdefault(words, []).append(f"{each.setting.name} ({in_words(share)})")
    if not groups:
        return "AdamW diverged in every setting, and nothing is shown about v."
    parts = "; ".join(f"{words} for {listed(names)}" for words, names in groups.items())
    return (
        f"Summed over the parameters and averaged over the run, Adam's v holds (in brackets, the variance's part of "
        f"both): {parts}."
    )


def _of_ranks(cells: Cells) -> str:
    words = {
        1: "more by the variance than by the squared average",
        -1: "more by the squared average than by the variance",
        0: "not shown to be nearer to one of the two orders",
    }
    groups: dict[int, list[str]] = {}
    for each in made(cells):
        gap = mean_difference(each.by_seed("rank_variance"), each.by_seed("rank_mean"))
        groups.setdefault(direction(gap), []).append(f"{each.setting.name} ({signed(gap, 2)})")
    parts = "; ".join(f"{words[sign]} for {listed(names)}" for sign, names in groups.items())
    return f"Parameters are ordered by v (difference of rank correlations) {parts}." if parts else ""


def _of_explained(cells: Cells) -> str:
    texts = []
    for each in made(cells):
        both = mean([a + b for a, b in zip(each.by_seed("variance"), each.by_seed("mean_squared"), strict=True)])
        texts.append(f"{each.setting.name} {in_words(both)}")
    if not texts:
        return ""
    return f"Both parts together, measured at the present parameters, are this multiple of v: {listed(texts)}."


# --- the picture ------------------------------------------------------------------------------------------------------


_HUES: Final = ("sky", "blue", "purple")


def draw_shares(ax: Axes, cells: Cells) -> None:
    """The variance's part of v over training."""
    for each, hue in zip(made(cells), _HUES, strict=False):
        noise, squared = each.series("variance"), each.series("mean_squared")
        shares, steps = noise / (noise + squared), each.runs[0]["step"]
        color = HUES[hue][0]
        ax.plot(steps, shares.mean(axis=0), color=color, marker="o", markersize=4, label=each.setting.name)
        ax.fill_between(steps, shares.min(axis=0), shares.max(axis=0), color=color, alpha=0.15, linewidth=0)
    ax.axhline(0.5, color="0.6", linewidth=0.8)
    ax.set(ylim=(0, 1.02), xlabel="training step", ylabel="variance / B, part of mean² + variance / B")
    ax.set_title("How much of E[g²] is variance (mean and range of seeds)")
    ax.legend(frameon=False, fontsize=8)


def draw_ranks(ax: Axes, cells: Cells) -> None:
    """Rank correlations of v."""
    settings = made(cells)
    for name, label, hue, shift in (
        ("rank_variance", "the variance", "blue", -0.2),
        ("rank_mean", "the squared average", "ochre", 0.0),
        ("rank_both", "mean² + variance / B", "gray", 0.2),
    ):
        for row, each in enumerate(settings):
            found = mean(each.by_seed(name))
            ax.plot([found.low, found.high], [row + shift] * 2, color=HUES[hue][0], linewidth=2)
            ax.plot(found.value, row + shift, "o", color=HUES[hue][0], label=label if row == 0 else None)
    ax.set_yticks(range(len(settings)), [each.setting.name.replace(", ", ",\n") for each in settings])
    ax.set(ylim=(len(settings) - 0.5, -0.5), xlabel="Spearman correlation with v over the parameters (95 %)")
    ax.set_title("Whose order of the parameters is v's?")
    ax.grid(axis="x", alpha=0.25)
    ax.legend(frameon=False, fontsize=8)
