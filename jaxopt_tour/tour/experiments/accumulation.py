"""Muon as Shampoo without accumulation: how near are updates and losses as Shampoo averages less and less?

Shampoo preconditions a matrix by averages of `G G^T` and `G^T G`; without averaging, `(G G^T)^(-1/4) G
(G^T G)^(-1/4)` is the polar factor of G, which is what Muon steps along (Bernstein & Newhouse 2024, Old Optimizer, New
Norm, https://arxiv.org/abs/2409.20325). The second half of the experiment "variance-and-shampoo".
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
from jaxopt_tour.orthogonalization.svd import polar_factor
from jaxopt_tour.problems.models import MLP
from jaxopt_tour.problems.workloads import Workload, fashion_workload
from jaxopt_tour.routing.resolution import resolve
from jaxopt_tour.tour.laboratory.cells import Cells
from jaxopt_tour.tour.laboratory.comparison import (
    by_direction,
    difference_in_words,
    direction,
    listed,
    loss_in_words,
    mean_loss,
    paired,
    tuned_in_words,
)
from jaxopt_tour.tour.laboratory.experiment import Table
from jaxopt_tour.tour.laboratory.observe import Moment, observe
from jaxopt_tour.tour.laboratory.protocol import read, tune
from jaxopt_tour.tour.laboratory.rules import ADAMW, MUON, entrant
from jaxopt_tour.tour.laboratory.runs import Rule
from jaxopt_tour.tour.laboratory.statistics import Interval, in_words, mean, mean_difference, signed
from jaxopt_tour.tour.laboratory.tiny import tiny_workload
from jaxopt_tour.tour.palette import HUES

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@functools.cache
def pooled_mlp() -> Workload:
    """An MLP of 49, 64, 64 and 10 units on Fashion-MNIST, its images averaged over blocks of 4 x 4 pixels.

    Small on every side, because Shampoo decomposes a matrix of each side's size at every step; runs are not vmapped,
    because decompositions are computed one after the other on a CPU.
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
        routing=None,  # by name
    )


class Plan(NamedTuple):
    """How much is computed.

    Attributes:
        matrices: () -> what Shampoo and Muon are compared on.
        decays: of Shampoo, where updates are compared.
        trained: of Shampoo, where losses are compared.
        ridges: eps of Shampoo at decay 0.
        steps: of every run.
        trials: of every search.
        recorded: seeds whose gradients are recorded.
        seeds: that losses are read on.
    """

    matrices: Callable[[], Workload]
    decays: tuple[float, ...]
    trained: tuple[float, ...]
    ridges: tuple[float, ...]
    steps: int
    trials: int
    recorded: int
    seeds: int


FULL: Final = Plan(
    matrices=pooled_mlp,
    decays=(0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99),
    trained=(0.0, 0.9, 0.95, 0.99),
    ridges=(1e-2, 1e-4, 1e-6, 1e-8),
    steps=240,
    trials=12,
    recorded=4,
    seeds=16,
)

QUICK: Final = Plan(
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


def _shampoo_build(schedule: optax.Schedule, numbers: Mapping[str, Any], workload: Workload) -> Any:
    return jt.shampoo(
        schedule,
        weight_decay=numbers["weight_decay"],
        beta=numbers["momentum"],
        b2=numbers["b2"],
        routing=workload.routing,
    )


def shampoo_rule(b2: float) -> Rule:
    """Shampoo on momentum, with this decay rate of its averages; all of them share one program."""
    return Rule(f"shampoo {b2:g}", _shampoo_build, {**MUON.defaults, "b2": b2})


def hidden_gradients(moment: Moment) -> dict[str, Array]:
    """The gradients of hidden matrices, (fan_in, fan_out)."""
    routes = resolve(None, moment.params)
    return {
        name: route.axes.to_matrices(moment.gradient[name])[0][0]
        for name, route in routes.items()
        if route.label == "matrix" and route.axes is not None
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
    for rule in trained_rules(cells):
        losses(cells, rule)
    for seed in range(plan(cells).recorded):
        compared(cells, seed)


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
        `momentum`: its beta. `by_decay` and `by_gradient`: on Nesterov's momentum and on the gradients
        themselves, `Against` by decay, at the default eps. `by_ridge`: on momentum, by eps at decay 0. Every number
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


def against(cells: Cells, part: str, place: int, name: str) -> list[float]:
    """A number a recorded seed of `compared`."""
    return [compared(cells, seed)[part][place][name] for seed in range(plan(cells).recorded)]


def loss_gap(cells: Cells, first: Rule, second: Rule) -> Interval | None:
    """First rule's loss minus the second's, seed by seed; None where one of them diverged."""
    return paired(losses(cells, first), losses(cells, second))


def tables(cells: Cells) -> list[Table]:
    """Shampoo's updates against the polar factor, and losses."""
    return [_by_decay(cells), _by_ridge(cells), _losses(cells)]


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


def _losses(cells: Cells) -> Table:
    rows = []
    for rule in trained_rules(cells):
        gaps = [None if rule.name == other.name else loss_gap(cells, rule, other) for other in (MUON, ADAMW)]
        rows.append([
            rule.name,
            tuned_in_words(tuned_for(cells, rule)),
            loss_in_words(losses(cells, rule), 4),
            *(difference_in_words(gap, 4) for gap in gaps),
        ])  # fmt: skip
    now = plan(cells)
    return Table(
        f"{now.matrices().title}, {now.steps} steps, {now.seeds} seeds: {now.matrices().measured} at the tuned rate "
        f"and momentum ({now.trials} trials each, more from an edge), and the difference to Muon's and AdamW's, seed "
        "by seed. (edge): a neighbor of the best point was not tried.",
        ["rule", "rate, momentum", "loss", "minus Muon", "minus AdamW"],
        rows,
    )


def answer(cells: Cells) -> list[str]:
    """What the intervals allow, in sentences."""
    return [_of_distance(cells), _of_losses(cells)]


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
            f"Shampoo at decay {rule.defaults['b2']:g}": loss_gap(cells, rule, other)
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


def draw_distance(ax: Axes, cells: Cells) -> None:
    """Distance to the polar factor, and cosine, by decay."""
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


def draw_losses(ax: Axes, cells: Cells) -> None:
    """Loss by decay, beside AdamW and Muon."""
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
