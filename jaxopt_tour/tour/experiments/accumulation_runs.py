"""What the second half of the experiment variance-and-shampoo compares, and the cells of its runs."""

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
from jaxopt_tour.tour.laboratory.observe import Moment, observe
from jaxopt_tour.tour.laboratory.protocol import read, tune
from jaxopt_tour.tour.laboratory.rules import ADAMW, MUON, entrant
from jaxopt_tour.tour.laboratory.runs import Rule
from jaxopt_tour.tour.laboratory.tiny import tiny_workload

if TYPE_CHECKING:
    pass


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
