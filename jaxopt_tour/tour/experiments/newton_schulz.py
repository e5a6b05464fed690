"""How exact must Muon's orthogonalization be? Number of steps, coefficients and dtypes against the SVD, in final loss.

Where cores are few, `OPENBLAS_NUM_THREADS=1` makes the SVDs of the exact rule faster by far.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import jaxopt_tour as jt
from jaxopt_tour._types import Array
from jaxopt_tour.coefficients import Coefficients, Exact
from jaxopt_tour.problems.workloads import Workload, fashion_cnn, fashion_mlp, small_gpt
from jaxopt_tour.tour.laboratory.cells import Cells
from jaxopt_tour.tour.laboratory.comparison import (
    by_direction,
    difference_in_words,
    direction,
    listed,
    loss_in_words,
    paired,
    trials_in_words,
    tuned_in_words,
)
from jaxopt_tour.tour.laboratory.experiment import Experiment, Table
from jaxopt_tour.tour.laboratory.observe import Moment, observe
from jaxopt_tour.tour.laboratory.protocol import read, tune
from jaxopt_tour.tour.laboratory.rules import ADAMW, rate_alone
from jaxopt_tour.tour.laboratory.runs import Rule
from jaxopt_tour.tour.laboratory.statistics import Interval
from jaxopt_tour.tour.laboratory.tiny import tiny_workload
from jaxopt_tour.tour.plots import line

EXACT: Final = "exact"
MOMENTUM: Final = 0.95
WEIGHT_DECAY: Final = 0.1


def _variant(coefficients: Coefficients, dtype: str = "float32") -> jt.Orthogonalizer:
    return jt.Orthogonalizer(coefficients, dtype=dtype)


#: What the update is orthogonalized with, by the name of the row.
VARIANTS: Final[dict[str, jt.Orthogonalizer]] = {
    EXACT: _variant(Exact()),
    **{f"polar_express x {steps}": _variant(jt.coefficients.polar_express(steps)) for steps in range(1, 11)},
    "polar_express x 4 (from 0.01)": _variant(jt.coefficients.polar_express(4, 1e-2)),
    "degree 17 x 2": _variant(jt.coefficients.polar_express(2, 1e-2, degree=17)),
    "degree 9 x 2": _variant(jt.coefficients.polar_express(2, 2e-2, degree=9)),
    "zolotarev x 2 (default)": _variant(jt.coefficients.zolotarev()),
    "zolotarev, degree 5 (fast)": _variant(jt.coefficients.zolotarev(1, 2e-3, inverses=2)),
    "keller_jordan x 5": _variant(jt.coefficients.keller_jordan()),
    "you x 5": _variant(jt.coefficients.you()),
    "cubic x 5": _variant(jt.coefficients.cubic(5)),
    "cubic x 10": _variant(jt.coefficients.cubic(10)),
    "polar_express x 5, bfloat16": _variant(jt.coefficients.polar_express(), "bfloat16"),
    "polar_express x 5, float16": _variant(jt.coefficients.polar_express(), "float16"),
    "keller_jordan x 5, bfloat16": _variant(jt.coefficients.keller_jordan(), "bfloat16"),
}


@functools.cache
def muon_with(variant: str) -> Rule:
    """Muon that orthogonalizes with that variant, or AdamW where the variant is `"adamw"`."""
    if variant == ADAMW.name:
        return ADAMW

    def build(rate: optax.Schedule, numbers: Mapping[str, Any], workload: Workload) -> Any:
        return jt.muon(
            rate,
            weight_decay=WEIGHT_DECAY,
            beta=MOMENTUM,
            orthogonalizer=VARIANTS[variant],
            routing=workload.routing,
        )

    return Rule(f"muon, {variant}", build, {"learning_rate": 1e-2})


@dataclass(frozen=True)
class Setting:
    """A workload, how long and how often it is trained, and with which variants.

    Attributes:
        workload: what is trained.
        steps: of a run.
        variants: the first is the exact one, which all others are compared with.
        trials: of every search.
        tuning_seeds: how many.
        seeds: read.
        looks: how often a run of the exact variant is looked into for the polar errors.
    """

    workload: Workload
    steps: int
    variants: tuple[str, ...]
    trials: int = 7
    tuning_seeds: int = 3
    seeds: int = 24
    looks: int = 5


def settings(quick: bool) -> list[Setting]:
    """All of them, in the order of the tables."""
    if quick:
        few = (EXACT, "polar_express x 1", "polar_express x 5, bfloat16")
        return [Setting(tiny_workload(), 4, few, trials=5, tuning_seeds=1, seeds=2, looks=2)]
    some = (
        EXACT,
        *(f"polar_express x {steps}" for steps in (1, 2, 3, 5, 7, 10)),
        "keller_jordan x 5",
        "cubic x 5",
        "degree 17 x 2",
        "degree 9 x 2",
        "zolotarev x 2 (default)",
        "zolotarev, degree 5 (fast)",
        "polar_express x 5, bfloat16",
    )
    return [
        Setting(fashion_mlp(), 120, (*VARIANTS, ADAMW.name)),
        Setting(small_gpt(), 120, (*some, ADAMW.name), tuning_seeds=1, seeds=5),
        Setting(fashion_cnn(), 100, some, seeds=20),
    ]


def run(cells: Cells) -> None:
    """Rates, final losses, and the polar errors on the way."""
    for setting in settings(cells.quick):
        for variant in setting.variants:
            _finals(cells, setting, variant)
            if variant in VARIANTS:
                _finals(cells, setting, variant, rate_of=EXACT)
        _polar_errors(cells, setting)


def _tuned(cells: Cells, setting: Setting, variant: str) -> dict[str, Any]:
    rule = muon_with(variant)
    trials, seeds = setting.trials, setting.tuning_seeds
    return tune(cells, setting.workload, rate_alone(rule), setting.steps, trials=trials, seeds=seeds)


def _finals(cells: Cells, setting: Setting, variant: str, *, rate_of: str | None = None) -> list[float | None]:
    """The final loss of every seed, at the variant's own tuned rate or at that of another."""
    numbers = _tuned(cells, setting, rate_of or variant)["numbers"]
    return read(cells, setting.workload, muon_with(variant), setting.steps, numbers, setting.seeds)["final"]


def polar_error(found: Array, exact: Array) -> Array:
    """`|O - U V^T|_F / |U V^T|_F`: the root mean square distance of the singular values from 1, if none is 0."""
    return jnp.sqrt(jnp.sum(jnp.square(found - exact)) / jnp.sum(jnp.square(exact)))


def _polar_errors(cells: Cells, setting: Setting) -> dict[str, float]:
    """By variant: the mean polar error on what a run of the exact variant orthogonalizes, over layers and steps."""
    variants = [variant for variant in setting.variants[1:] if variant in VARIANTS]

    def measure(moment: Moment) -> dict[str, Array]:
        routes = jt.routing.resolve(setting.workload.routing, moment.params)
        axes = {name: route.axes for name, route in routes.items() if route.label == "matrix" and route.axes}
        # The Nesterov momentum, as scale_by_muon has it.
        ahead = {name: MOMENTUM * moment.momentum[name] + (1 - MOMENTUM) * moment.gradient[name] for name in axes}

        def orthogonal(variant: str) -> Any:
            tx = jt.orthogonalize_via_newton_schulz(VARIANTS[variant], axes=axes)
            return tx.update(ahead, optax.EmptyState())[0]

        exact = orthogonal(EXACT)
        return {
            variant: jnp.stack([polar_error(each, exact[name]) for name, each in orthogonal(variant).items()])
            for variant in variants
        }

    numbers, every = _tuned(cells, setting, EXACT)["numbers"], setting.steps // setting.looks

    def compute() -> dict[str, float]:
        seen = observe(setting.workload, muon_with(EXACT), numbers, 0, setting.steps, every, measure).seen
        return {variant: float(np.mean(errors)) for variant, errors in seen.items()}

    key = {
        "what": "polar errors", "workload": setting.workload.name, "batch": setting.workload.batch_text,
        "steps": setting.steps, "looks": setting.looks, "variants": variants, "numbers": numbers,
    }  # fmt: skip
    return cells.get(key, compute)


# --- what the cells say -----------------------------------------------------------------------------------------------


def _differences(cells: Cells, setting: Setting) -> dict[str, Interval | None]:
    """Final loss of every other variant minus that of the exact one, by variant."""
    exact = _finals(cells, setting, EXACT)
    return {variant: paired(_finals(cells, setting, variant), exact) for variant in setting.variants[1:]}


def _at_one_rate(cells: Cells, setting: Setting) -> dict[str, Interval | None]:
    """The same with every variant at the rate that was tuned for the exact one: no luck of the tuning between them."""
    exact, others = _finals(cells, setting, EXACT), [name for name in setting.variants[1:] if name in VARIANTS]
    return {variant: paired(_finals(cells, setting, variant, rate_of=EXACT), exact) for variant in others}


def tables(cells: Cells) -> list[Table]:
    """Final losses, their differences to the exact variant, the polar errors, and every trial."""
    found = []
    for setting in settings(cells.quick):
        differences, errors = _differences(cells, setting), _polar_errors(cells, setting)
        at_one_rate = _at_one_rate(cells, setting)
        rows = []
        for variant in setting.variants:
            tuned = _tuned(cells, setting, variant)
            rows.append([
                variant,
                f"{errors[variant]:.3f}" if variant in errors else ("0" if variant == EXACT else ""),
                tuned_in_words(tuned),
                loss_in_words(_finals(cells, setting, variant), 4),
                difference_in_words(differences[variant], 4) if variant in differences else "",
                difference_in_words(at_one_rate[variant], 4) if variant in at_one_rate else "",
            ])  # fmt: skip
        caption = (
            f"{setting.workload.title}, {setting.workload.batch_text}, {setting.steps} steps: "
            f"{setting.workload.measured} over {setting.seeds} seeds with 95 % intervals, and paired difference to the "
            "exact factor, each at its own rate and then all at the exact one's. The rate is tuned by "
            f"{setting.trials} trials (more from an edge) on {setting.tuning_seeds} tuning seeds each; (edge): a "
            "neighbor was not tried."
        )
        found.append(
            Table(caption, ["orthogonalized by", "polar error", "rate", "final loss", "to exact", "at its rate"], rows)
        )
    trials = [
        [f"{setting.workload.name}, {variant}", trials_in_words(_tuned(cells, setting, variant)["tried"])]
        for setting in settings(cells.quick)
        for variant in setting.variants
    ]
    found.append(Table("Every trial, as rate: loss on the tuning seeds.", ["setting", "trials"], trials))
    return found


def figure(cells: Cells) -> Figure:
    """Polar errors on the first workload, and differences to the exact variant on all."""
    present = settings(cells.quick)
    rows = [variant for variant in (*VARIANTS, ADAMW.name) if variant in present[0].variants and variant != EXACT]
    picture = Figure(figsize=(12, 1.8 + 0.27 * len(rows)), layout="constrained")
    axes: Sequence[Axes] = picture.subplots(1, 1 + len(present), sharey=True)
    color = line("muon")["color"]
    errors = _polar_errors(cells, present[0])
    known = [(place, errors[variant]) for place, variant in enumerate(rows) if variant in errors]
    axes[0].plot([error for _, error in known], [place for place, _ in known], "o", color=color)
    axes[0].set(xscale="log", xlabel=f"polar error on the momentum ({present[0].workload.name})", title="polar error")
    low, high = axes[0].get_xlim()
    ticks = [x for x in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if low <= x <= high]
    axes[0].set_xticks(ticks, [f"{x:g}" for x in ticks])
    axes[0].minorticks_off()
    for ax, setting in zip(axes[1:], present, strict=True):
        for variant, interval in _differences(cells, setting).items():
            if interval is None:
                continue
            place, shade = rows.index(variant), line(ADAMW.name)["color"] if variant == ADAMW.name else color
            ax.plot([interval.low, interval.high], [place, place], color=shade, linewidth=2)
            ax.plot(interval.value, place, "o", color=shade, markersize=5)
        ax.axvline(0, color="0.4", linewidth=0.8)
        ax.set(xlabel="loss minus the exact factor's (nats)", title=setting.workload.title)
        ax.xaxis.label.set_fontsize(9)
    axes[0].xaxis.label.set_fontsize(9)
    for ax in axes:
        ax.grid(axis="y", color="0.93")
        ax.set_axisbelow(True)
        ax.title.set_fontsize(10)
    axes[0].set_yticks(range(len(rows)), rows, size=8)
    axes[0].set_ylim(len(rows) - 0.4, -0.6)
    return picture


def _on(cells: Cells, setting: Setting) -> str:
    """What one workload shows."""
    differences = _differences(cells, setting)
    yardstick = differences.pop(ADAMW.name, None)
    text = (
        f"{setting.workload.title}, {setting.seeds} seeds: "
        f"{by_direction(differences, 'the exact factor', 4)}."
    )  # fmt: skip
    hidden = [x for x in differences.values() if x is not None and direction(x) == 0]
    if hidden:
        most = max(max(-x.low, x.high) for x in hidden)
        text += f" Where none is shown, the intervals allow up to {most:.4f} nats."
    text += f" All at the exact factor's rate: {by_direction(_at_one_rate(cells, setting), 'it', 4)}."
    if yardstick is not None:
        text += f" For scale, AdamW to Muon with the exact factor: {difference_in_words(yardstick, 4)} nats."
    return text


def answer(cells: Cells) -> str:
    """What each workload shows, and what the polar errors beside it are."""
    present = settings(cells.quick)
    compared = sum(len(_differences(cells, each)) + len(_at_one_rate(cells, each)) for each in present)
    ranges = []
    for setting in present:
        errors = _polar_errors(cells, setting)
        least, most = min(errors, key=errors.__getitem__), max(errors, key=errors.__getitem__)
        ranges.append(
            f"{errors[least]:.3f} ({least}) to {errors[most]:.3f} ({most}) on the {setting.workload.name}'s momentum"
        )
    parts = [
        f"* {_on(cells, setting)}" for setting in present
    ] + [
        f"* Polar errors beside these losses: {listed(ranges)}.",
        f"Of {compared} intervals at 95 %, about {max(1, round(0.05 * compared))} would exclude zero if nothing "
        "differed at all; those of one problem share the exact factor's runs, whose luck moves them together; and each "
        "variant's rate is its own, found on a grid of quarter decades. A single small difference is weak evidence. "
        f"Not shown: longer runs, larger matrices, other momenta than {MOMENTUM:g}, half precision on an accelerator, "
        "and anything about time.",
    ]  # fmt: skip
    return "Final loss against that with the exact polar factor, rates tuned for each:\n\n" + "\n\n".join(parts)


EXPERIMENT: Final = Experiment(
    name="newton-schulz",
    title="How exact must the orthogonalization be?",
    question="Do more Newton-Schulz steps, other coefficients, a wider dtype or the exact SVD lower the loss that Muon "
    "ends at, or the polar error alone?",
    protocol=(
        f"Muon (momentum {MOMENTUM:g}, decay {WEIGHT_DECAY:g}, Nesterov) on an MLP, a CNN and a character GPT, with "
        "1 to 10 Polar Express steps (not all of these numbers), other coefficients, two half precisions, and the SVD.",
        "For every variant the rate is tuned by the same number of trials on tuning seeds, and by more where the best "
        "lies at an edge (quarter decades, 5 % warm-up, linear decay), then held-out loss is read on other seeds.",
        "Differences to the exact factor are paired over seeds, with 95 % intervals; polar errors are "
        "|O - UV'|/|UV'| in the Frobenius norm, on the Nesterov momentum of a run with the exact factor.",
    ),
    run=run,
    figure=figure,
    tables=tables,
    answer=answer,
    change_our_mind="A difference between five or more steps and the SVD that keeps its sign on several workloads with "
    "more seeds and finer rates; or one that grows with the length of the run or the size of the matrices.",
)
