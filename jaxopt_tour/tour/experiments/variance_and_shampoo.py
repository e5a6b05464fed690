"""Two readings of second moments: Adam's as the variance of the gradient, and Muon as Shampoo that accumulates none.

Of a batch of B examples drawn independently, the mean gradient ``g_B`` has, entry by entry,

    E[g_B^2] = mean^2 + variance / B,

mean and variance those of the gradient of one example. Adam's ``v`` averages ``g_B^2`` over some ``1 / (1 - b2)``
steps, while the parameters move.

Shampoo preconditions a matrix by averages of ``G G^T`` and ``G^T G``; without averaging, ``(G G^T)^(-1/4) G
(G^T G)^(-1/4)`` is the polar factor of G, which is what Muon steps along (Bernstein & Newhouse 2024, Old Optimizer, New
Norm, https://arxiv.org/abs/2409.20325).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxopt_tour as jt
from jaxopt_tour._types import Array, Tree
from jaxopt_tour.linalg.polar import polar_factor
from jaxopt_tour.matrices.routing import resolve
from jaxopt_tour.problems.models import MLP
from jaxopt_tour.problems.workloads import Workload, fashion_mlp, fashion_workload
from jaxopt_tour.tour.laboratory.cells import Cells
from jaxopt_tour.tour.laboratory.comparison import (
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
from jaxopt_tour.tour.laboratory.observe import Moment, observe
from jaxopt_tour.tour.laboratory.per_example import Parts, apart, mean_and_variance
from jaxopt_tour.tour.laboratory.protocol import Entrant, read, tune
from jaxopt_tour.tour.laboratory.rules import ADAMW, MUON, entrant
from jaxopt_tour.tour.laboratory.runs import Rule
from jaxopt_tour.tour.laboratory.statistics import Interval, in_words, mean, mean_difference, signed
from jaxopt_tour.tour.laboratory.tiny import tiny_workload
from jaxopt_tour.tour.laboratory.tuning import rate
from jaxopt_tour.tour.palette import HUES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# --- Adam's second moment --------------------------------------------------------------------------------------------


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
        settings: of the first question.
        every: steps from one look at v to the next.
        matrices: () -> what Shampoo and Muon are compared on.
        decays: of Shampoo, where updates are compared.
        trained: of Shampoo, where losses are compared.
        ridges: eps of Shampoo at decay 0.
        steps: of every run.
        trials: of every search.
        recorded: seeds whose gradients are recorded.
        seeds: that losses are read on.
    """

    settings: tuple[Setting, ...]
    every: int
    matrices: Callable[[], Workload]
    decays: tuple[float, ...]
    trained: tuple[float, ...]
    ridges: tuple[float, ...]
    steps: int
    trials: int
    recorded: int
    seeds: int


@functools.cache
def pooled_mlp() -> Workload:
    """An MLP of 49, 64, 64 and 10 units on Fashion-MNIST, its images averaged over blocks of 4 x 4 pixels.

    Small on every side, because Shampoo decomposes a matrix of each side's size at every step. Runs are not vmapped:
    in jaxlib 0.10.2 batched eigendecompositions that run at the same time can wait for each other forever on a CPU
    with few cores (every thread of the pool blocks in ``ParallelBatchMap``).
    """

    class OnPooledImages(MLP):
        """The MLP on images of 7 x 7 pixels."""

        def __call__(self, x: Array) -> Array:
            return super().__call__(x.reshape(-1, 7, 4, 7, 4).mean(axis=(2, 4)).reshape(-1, 49))

    return fashion_workload(
        "mlp-7x7",
        "Fashion-MNIST at 7 x 7 pixels, MLP",
        lambda rngs: OnPooledImages((49, 64, 64, 10), rngs=rngs),
        target=0.65,
    )


FULL: Final = Plan(
    settings=(
        Setting("B = 4", lambda: fashion_mlp(4), 4, 0.95, fashion_mlp, 16, 4),
        Setting("B = 32", lambda: fashion_mlp(32), 32, 0.95, fashion_mlp, 16, 4),
        Setting("B = 256", lambda: fashion_mlp(256), 256, 0.95, fashion_mlp, 16, 4),
    ),
    every=40,
    matrices=pooled_mlp,
    decays=(0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99),
    trained=(0.0, 0.9, 0.95, 0.99),
    ridges=(1e-2, 1e-4, 1e-6, 1e-8),
    steps=240,
    trials=12,
    recorded=4,
    seeds=16,
)


@functools.cache
def _tiny_matrices() -> Workload:
    """For quick runs: `tiny_workload` with a hidden layer, on images averaged to 4 x 4 pixels, compiled in seconds."""
    outer = tiny_workload()

    def init(key: Array) -> Tree:
        return {"hidden": {"kernel": jax.random.normal(key, (16, 8)) / 4}, "head": {"kernel": jnp.zeros((8, 10))}}

    def loss(params: Tree, batch: tuple[Array, Array]) -> Array:
        images, labels = batch
        x = images.reshape(-1, 4, 7, 4, 7).mean(axis=(2, 4)).reshape(-1, 16)
        logits = jnp.tanh(x @ params["hidden"]["kernel"]) @ params["head"]["kernel"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    return dataclasses.replace(
        outer,
        name="tiny-matrices",
        title="Fashion-MNIST at 4 x 4 pixels, tiny MLP",
        init=init,
        loss=loss,
        measure=lambda params, data: loss(params, (data["held_out_images"], data["held_out_labels"])),
    )


QUICK: Final = Plan(
    settings=(Setting("softmax regression, B = 32", tiny_workload, 32, 0.95, tiny_workload, 2, 2),),
    every=4,
    matrices=_tiny_matrices,
    decays=(0.0, 0.9),
    trained=(0.0, 0.9),
    ridges=(1e-4, 1e-6),
    steps=8,
    trials=6,
    recorded=1,
    seeds=2,
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


# --- Shampoo and the polar factor -------------------------------------------------------------------------------------


def _shampoo_build(schedule: optax.Schedule, numbers: Mapping[str, Any], workload: Workload) -> Any:
    return jt.shampoo(
        schedule, numbers["weight_decay"], beta=numbers["momentum"], decay=numbers["decay"], routing=workload.routing
    )


def shampoo_rule(decay: float) -> Rule:
    """Shampoo on momentum, its averages with this decay; all of them share one program."""
    return Rule(f"shampoo {decay:g}", _shampoo_build, {**MUON.defaults, "decay": decay})


def hidden_gradients(moment: Moment) -> dict[str, Array]:
    """The gradients of hidden matrices, (fan_in, fan_out)."""
    routes = resolve(None, moment.params)
    return {
        name: route.axes.to_matrices(moment.gradient[name])[0][0]
        for name, route in routes.items()
        if route.label == "muon" and route.axes is not None
    }


class Against(NamedTuple):
    """Shampoo's update S against the polar factor O of the same matrix, a number a step."""

    distance: Array  # |S - O|_F / |O|_F
    cosine: Array  # <S, O> / (|S|_F |O|_F)
    size: Array  # |S|_F / |O|_F


@jax.jit
def against_polar(gradients: Array, momentum: Array, decay: Array, eps: Array) -> Against:
    """Run Shampoo over recorded gradients, and compare every update with the polar factor of what it was made from.

    Args:
        gradients: (T, m, n).
        momentum: beta of Nesterov's momentum, which both see; 0: the gradients themselves.
        decay: of Shampoo's averages.
        eps: its ridge, relative to the trace.
    """
    first = jt.scale_by_momentum(momentum, form="ema", nesterov=True)
    tx = jt.scale_by_shampoo(decay, eps=eps, axes=jt.MatrixAxes(0, 1))

    def step(state: Any, gradient: Array) -> tuple[Any, Against]:
        ahead, inner = state
        matrix, ahead = first.update(gradient, ahead)
        update, inner = tx.update(matrix, inner)
        polar = polar_factor(matrix)
        length, one = jnp.linalg.norm(update), jnp.linalg.norm(polar)
        return (ahead, inner), Against(
            jnp.linalg.norm(update - polar) / one, jnp.sum(update * polar) / (length * one), length / one
        )

    like = jnp.zeros_like(gradients[0])
    return jax.lax.scan(step, (first.init(like), tx.init(like)), gradients)[1]


def run(cells: Cells) -> None:
    """Fill the cells."""
    now = plan(cells)
    for rule in trained_rules(cells):
        losses(cells, rule)
    for seed in range(now.recorded):
        compared(cells, seed)
    for setting in now.settings:
        for seed in range(setting.seeds):
            taken_apart(cells, setting, seed)


def adam_tuned(cells: Cells, setting: Setting) -> dict[str, Any]:
    """The cell of the tuned rate of a setting of the first question."""
    now, rule = plan(cells), setting.rule
    axes = (rate(rule.defaults["learning_rate"]),)
    return tune(cells, setting.workload(), Entrant(rule, axes), now.steps, trials=7 if not cells.quick else 5)


def taken_apart(cells: Cells, setting: Setting, seed: int) -> dict[str, Any]:
    """The cell of a run of AdamW whose v was taken apart: ``step``, and the fields of `apart` by step."""
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


def trained_rules(cells: Cells) -> list[Rule]:
    """AdamW, Muon, and Shampoo with every decay."""
    return [ADAMW, MUON, *(shampoo_rule(decay) for decay in plan(cells).trained)]


def tuned_for(cells: Cells, rule: Rule) -> dict[str, Any]:
    """The cell of a rule's tuned rate and momentum on the small MLP."""
    now = plan(cells)
    return tune(cells, now.matrices(), entrant(rule), now.steps, trials=now.trials)


def losses(cells: Cells, rule: Rule) -> list[float | None]:
    """What a rule comes to on the reading seeds, from its cell."""
    now = plan(cells)
    numbers = tuned_for(cells, rule)["numbers"]
    return read(cells, now.matrices(), rule, now.steps, numbers, now.seeds)["final"]


def compared(cells: Cells, seed: int) -> dict[str, Any]:
    """The cell of the updates on one seed's gradients, recorded while Muon trained.

    Returns:
        ``momentum``: its beta. ``by_decay`` and ``by_gradient``: on Nesterov's momentum and on the gradients
        themselves, `Against` by decay, at the default eps. ``by_ridge``: on momentum, by eps at decay 0. Every number
        is the mean over hidden matrices and the second half of the run.
    """
    now, workload = plan(cells), plan(cells).matrices()
    numbers = tuned_for(cells, MUON)["numbers"]

    def compute() -> dict[str, Any]:
        recorded = observe(workload, MUON, numbers, seed, now.steps, 1, hidden_gradients).seen

        def measured(beta: float, decay: float, eps: float) -> dict[str, float]:
            found = [
                against_polar(jnp.asarray(g), jnp.float32(beta), jnp.float32(decay), jnp.float32(eps))
                for g in recorded.values()
            ]
            half = now.steps // 2
            return {
                name: float(f"{np.mean([np.asarray(getattr(each, name))[half:] for each in found]):.5g}")
                for name in Against._fields
            }

        beta = numbers["momentum"]
        return {
            "momentum": beta,
            "by_decay": [measured(beta, decay, 1e-6) for decay in now.decays],
            "by_gradient": [measured(0.0, decay, 1e-6) for decay in now.decays],
            "by_ridge": [measured(beta, 0.0, eps) for eps in now.ridges],
        }

    key = {
        "what": "against the polar factor", "workload": workload.name, "batch": workload.batch_text,
        "numbers": numbers, "steps": now.steps, "decays": list(now.decays), "ridges": list(now.ridges), "seed": seed,
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
        """The variance's part of what is explained: of the sums over parameters, ``variance / B`` of both together."""
        noise, squared = self.series("variance"), self.series("mean_squared")
        return [float(x) for x in (noise / (noise + squared)).mean(axis=1)]


def made(cells: Cells) -> list[Made]:
    """All settings in which no run diverged."""
    return [each for each in (Made(cells, setting) for setting in plan(cells).settings) if not each.diverged]


def against(cells: Cells, part: str, place: int, name: str) -> list[float]:
    """A number a recorded seed of `compared`."""
    return [compared(cells, seed)[part][place][name] for seed in range(plan(cells).recorded)]


def loss_gap(cells: Cells, first: Rule, second: Rule) -> Interval | None:
    """First rule's loss minus the second's, seed by seed; None where one of them diverged."""
    return paired(losses(cells, first), losses(cells, second))


def tables(cells: Cells) -> list[Table]:
    """What v is made of, Shampoo's updates against the polar factor, losses, and all trials."""
    return [_made_of(cells), _by_decay(cells), _by_ridge(cells), _losses(cells), _trials(cells)]


def _made_of(cells: Cells) -> Table:
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
        "correlation over the parameters of v with the variance, with mean^2, and with variance / B + mean^2; "
        "difference: of the first two. b2 is 0.95. Brackets: 95 % of the bootstrap over "
        f"{min(setting.seeds for setting in plan(cells).settings)} seeds.",
        ["setting", "variance / B", "mean^2", "median", "rank: variance", "mean^2", "both", "difference"],
        rows,
    )


def _by_decay(cells: Cells) -> Table:
    rows = [
        [
            f"{decay:g}",
            *(in_words(mean(against(cells, "by_decay", i, name)), 3) for name in Against._fields),
            *(in_words(mean(against(cells, "by_gradient", i, name)), 3) for name in ("distance", "cosine")),
        ]
        for i, decay in enumerate(plan(cells).decays)
    ]
    return Table(
        f"Shampoo's update S against the exact polar factor O of the same matrix, on gradients recorded while Muon "
        f"trained ({plan(cells).matrices().title}; {plan(cells).recorded} seeds, hidden layers, second half of the "
        "run, eps 1e-6): distance |S - O| / |O|, cosine, size |S| / |O|, all in the Frobenius norm; then the same on "
        "the gradients themselves, without momentum.",
        ["decay", "distance", "cosine", "size", "distance, no momentum", "cosine, no momentum"],
        rows,
    )


def _by_ridge(cells: Cells) -> Table:
    rows = [
        [f"{eps:g}", *(in_words(mean(against(cells, "by_ridge", i, name)), 3) for name in Against._fields)]
        for i, eps in enumerate(plan(cells).ridges)
    ]
    return Table(
        "The same at decay 0, on momentum, by the ridge eps (relative to the trace; float32).",
        ["eps", "distance", "cosine", "size"],
        rows,
    )


def _numbers(tuned: Mapping[str, Any]) -> str:
    text = ", ".join(f"{value:.3g}" for value in tuned["numbers"].values())
    return text if tuned["interior"] else f"{text} (edge)"


def _losses(cells: Cells) -> Table:
    rows = []
    for rule in trained_rules(cells):
        gaps = [None if rule.name == other.name else loss_gap(cells, rule, other) for other in (MUON, ADAMW)]
        rows.append([
            rule.name,
            _numbers(tuned_for(cells, rule)),
            loss_in_words(losses(cells, rule), 4),
            *(difference_in_words(gap, 4) for gap in gaps),
        ])  # fmt: skip
    now = plan(cells)
    return Table(
        f"{now.matrices().title}, {now.steps} steps, {now.seeds} seeds: {now.matrices().measured} at the tuned rate "
        f"and momentum ({now.trials} trials each), and the difference to Muon's and AdamW's, seed by seed. "
        "(edge): a neighbor of the best point was not tried.",
        ["rule", "rate, momentum", "loss", "minus Muon", "minus AdamW"],
        rows,
    )


def _trials(cells: Cells) -> Table:
    searches = [(setting.name, adam_tuned(cells, setting)) for setting in plan(cells).settings]
    searches += [(f"{rule.name}, small MLP", tuned_for(cells, rule)) for rule in trained_rules(cells)]
    rows = [[name, str(tuned["trials"]), _numbers(tuned), trials_in_words(tuned["tried"])] for name, tuned in searches]
    return Table(
        "All trials: rate (and momentum, where it was tuned), and the mean loss of two tuning seeds.",
        ["search", "trials", "best", "tried"],
        rows,
    )


def answer(cells: Cells) -> str:
    """What the intervals allow."""
    found = [_of_second_moment(cells), _of_ranks(cells), _of_explained(cells)]
    found += [_of_distance(cells), _of_losses(cells)]
    found.append(
        "Each interval is 95 % on its own, over seeds of small models in short runs on one machine; mean and variance "
        "were measured at one point, v remembers many. Nothing is shown for large models, for other roots or stale "
        "preconditioners, nor that being near the polar factor is why a rule trains well."
    )
    return " ".join(sentence for sentence in found if sentence)


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
        1: "more by the variance than by the squared mean",
        -1: "more by the squared mean than by the variance",
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


def _of_distance(cells: Cells) -> str:
    now = plan(cells)
    last = len(now.decays) - 1
    near, far = (against(cells, "by_decay", i, "distance") for i in (0, last))
    gap = mean_difference(far, near)
    verdict = {1: "nearer without averaging", -1: "nearer with averaging", 0: "no difference is shown"}[direction(gap)]
    ridges = [against(cells, "by_ridge", i, "distance") for i in (0, len(now.ridges) - 1)]
    change = {1: "grows", -1: "falls", 0: "is not shown to change"}[direction(mean_difference(ridges[1], ridges[0]))]
    return (
        f"Shampoo on Muon's momentum is {in_words(mean(near), 3)} away from the polar factor at decay "
        f"{now.decays[0]:g} and {in_words(mean(far), 3)} at decay {now.decays[last]:g}, relative to its length: "
        f"{verdict} ({signed(gap)}); their cosines are "
        f"{in_words(mean(against(cells, 'by_decay', 0, 'cosine')), 3)} and "
        f"{in_words(mean(against(cells, 'by_decay', last, 'cosine')), 3)}. At decay {now.decays[0]:g} the distance "
        f"{change} from {in_words(mean(ridges[0]), 3)} to {in_words(mean(ridges[1]), 3)} as the ridge eps goes from "
        f"{now.ridges[0]:g} to {now.ridges[-1]:g}."
    )


def _of_losses(cells: Cells) -> str:
    rules = [shampoo_rule(decay) for decay in plan(cells).trained]
    parts = []
    for other, title in ((MUON, "Muon"), (ADAMW, "AdamW"), (rules[0], "Shampoo without accumulation")):
        gaps = {
            f"Shampoo at decay {rule.defaults['decay']:g}": loss_gap(cells, rule, other)
            for rule in rules
            if rule.name != other.name
        }
        parts.append(by_direction(gaps, title, 4))
    parts.append(by_direction({"Muon": loss_gap(cells, MUON, ADAMW)}, "AdamW", 4))
    edges = [rule.name for rule in trained_rules(cells) if not tuned_for(cells, rule)["interior"]]
    if edges:
        parts.append(f"the trials did not surround the best point of {listed(edges)}, which may do better")
    return f"On the small MLP, with rate and momentum tuned: {'. '.join(part[0].upper() + part[1:] for part in parts)}."


# --- the picture ------------------------------------------------------------------------------------------------------


def figure(cells: Cells) -> Figure:
    """The variance's part of v over training, ranks, distance to the polar factor and loss, both by decay."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(10.5, 7.6), layout="constrained")
    axes = drawn.subplots(2, 2)
    _draw_shares(axes[0, 0], cells)
    _draw_ranks(axes[0, 1], cells)
    _draw_distance(axes[1, 0], cells)
    _draw_losses(axes[1, 1], cells)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
    return drawn


_HUES: Final = ("sky", "blue", "purple", "ochre", "green")


def _draw_shares(ax: Axes, cells: Cells) -> None:
    for each, hue in zip(made(cells), _HUES, strict=False):
        noise, squared = each.series("variance"), each.series("mean_squared")
        shares, steps = noise / (noise + squared), each.runs[0]["step"]
        dashes = "--" if each.setting.b2 > 0.95 else "-"
        color = HUES[hue][0]
        ax.plot(steps, shares.mean(axis=0), dashes, color=color, marker="o", markersize=4, label=each.setting.name)
        ax.fill_between(steps, shares.min(axis=0), shares.max(axis=0), color=color, alpha=0.15, linewidth=0)
    ax.axhline(0.5, color="0.6", linewidth=0.8)
    ax.set(ylim=(0, 1.02), xlabel="training step", ylabel="variance / B, part of mean² + variance / B")
    ax.set_title("How much of E[g²] is variance (mean and range of seeds)")
    ax.legend(frameon=False, fontsize=8)


def _draw_ranks(ax: Axes, cells: Cells) -> None:
    settings = made(cells)
    for name, label, hue, shift in (
        ("rank_variance", "the variance", "blue", -0.2),
        ("rank_mean", "the squared mean", "ochre", 0.0),
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


def _draw_distance(ax: Axes, cells: Cells) -> None:
    decays = plan(cells).decays
    for part, label, dashes in (("by_decay", "of Nesterov's momentum", "-"), ("by_gradient", "of the gradient", "--")):
        found = [mean(against(cells, part, i, "distance")) for i in range(len(decays))]
        ax.plot(range(len(decays)), [each.value for each in found], dashes, color=HUES["vermillion"][0], marker="o",
                markersize=4, label=f"distance, {label}")  # fmt: skip
        cosines = [mean(against(cells, part, i, "cosine")).value for i in range(len(decays))]
        ax.plot(range(len(decays)), cosines, dashes, color=HUES["gray"][0], marker="s", markersize=3,
                label=f"cosine, {label}")  # fmt: skip
    ax.set_xticks(range(len(decays)), [f"{decay:g}" for decay in decays])
    ax.set(ylim=(0, 1.05), xlabel="decay of Shampoo's averages", ylabel="distance / |O|, and cosine")
    ax.set_title("Shampoo's update and the polar factor O")
    ax.legend(frameon=False, fontsize=8)


def _draw_losses(ax: Axes, cells: Cells) -> None:
    from jaxopt_tour.tour import plots

    trained = plan(cells).trained
    for rule in (ADAMW, MUON):
        found, style = mean_loss(losses(cells, rule)), plots.line(rule.name)
        if found is not None:
            ax.axhline(found.value, label=rule.name, **style)
            ax.axhspan(found.low, found.high, color=style["color"], alpha=0.12, linewidth=0)
    color = HUES["vermillion"][0]
    for place, decay in enumerate(trained):
        found = mean_loss(losses(cells, shampoo_rule(decay)))
        if found is not None:
            ax.plot([place] * 2, [found.low, found.high], color=color, linewidth=2)
            ax.plot(place, found.value, "o", color=color, label="shampoo" if place == 0 else None)
    ax.set_xticks(range(len(trained)), [f"{decay:g}" for decay in trained])
    ax.set(xlim=(-0.5, len(trained) - 0.5), xlabel="decay of Shampoo's averages")
    ax.set(ylabel=plan(cells).matrices().measured)
    ax.set_title(f"Loss, tuned, {plan(cells).seeds} seeds (95 %)")
    ax.legend(frameon=False, fontsize=8)


EXPERIMENT: Final = Experiment(
    name="variance-and-shampoo",
    title="Adam's second moment as a variance, and Muon as Shampoo without accumulation",
    question=(
        "Is Adam's second moment the variance of the gradient or its squared mean, and how near is Muon to Shampoo, by "
        "its updates and by its losses, as Shampoo averages less and less?"
    ),
    protocol=(
        "AdamW trains an MLP of 784, 64, 64 and 10 units on Fashion-MNIST at three batch sizes, its rate tuned in each "
        "(7 trials); six times a run, gradients of 1,024 fresh examples give mean and variance entry by entry, and "
        "E[g^2] = mean^2 + variance / B is held against v.",
        "Gradients recorded while Muon trains a small MLP are run through Shampoo with decay 0 to 0.99, and every "
        "update is compared with the exact polar factor of the same matrix.",
        "AdamW, Muon and Shampoo with four decays train that MLP, rate and momentum tuned by the same 12 trials for "
        "all, and by more where the best lies at an edge, on tuning seeds; losses are read on other seeds, seed by "
        "seed, with 95 % bootstrap intervals.",
    ),
    run=run,
    figure=figure,
    tables=tables,
    answer=answer,
    change_our_mind=(
        "Another order with larger models and batches, with averages that start warm, with the ridge tuned too, or "
        "with preconditioners of momentum-free gradients, as published."
    ),
)
