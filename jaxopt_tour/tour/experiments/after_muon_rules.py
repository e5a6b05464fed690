"""The rules of the experiment after-muon: one entry each, with the numbers that are tuned.

Embeddings, the head and everything else that is no matrix have AdamW in all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import jax
import optax

import jaxopt_tour as jt
from jaxopt_tour._types import Array
from jaxopt_tour.problems.workloads import Workload
from jaxopt_tour.routing import MatrixAxes, Routes
from jaxopt_tour.tour.laboratory.protocol import Entrant
from jaxopt_tour.tour.laboratory.rules import QUINTICS
from jaxopt_tour.tour.laboratory.runs import Build, Rule
from jaxopt_tour.tour.laboratory.tuning import Axis, momentum, rate

Numbers = Mapping[str, Any]
Axes = Mapping[str, MatrixAxes]
#: (axes of the matrices) -> the parts of a chain.
Parts = Callable[[Axes], Sequence[optax.GradientTransformation]]

#: Numbers of every rule. `embedding` and `head` multiply the rate of AdamW there. Momentum starts at what the race
#: found for AdamW and for Muon on the GPT, at every number of steps.
DEFAULTS: Final = {"momentum": 0.6, "weight_decay": 0.1, "embedding": 1.0, "head": 1.0}


def multiple(name: str, start: float = 1.0) -> Axis:
    """The grid of a multiple of the rate: half a decade between neighbors."""
    return Axis(name, start, 10**0.5)


def times(schedule: optax.Schedule, factor: Any) -> optax.Schedule:
    """A schedule multiplied by a number."""
    return lambda count: factor * schedule(count)


def adamw_by_role(schedule: optax.Schedule, numbers: Numbers, b1: Any = 0.9) -> dict[str, Any]:
    """AdamW for every role but the matrices: embeddings and the head at multiples of the rate."""

    def adamw(factor: Any) -> optax.GradientTransformation:
        return jt.adamw(times(schedule, factor), b1=b1, b2=0.95, weight_decay=numbers["weight_decay"])

    return {"embedding": adamw(numbers["embedding"]), "head": adamw(numbers["head"]), "other": adamw(1.0)}


def adamw(schedule: optax.Schedule, numbers: Numbers, workload: Workload) -> optax.GradientTransformation:
    """AdamW for all parameters, at multiples of the rate by role."""
    by_role = adamw_by_role(schedule, numbers, numbers["momentum"])
    return jt.multi_transform({"matrix": by_role["other"], **by_role}, workload.routing)


def ready_made(make: Callable[..., Any], **options: Any) -> Build:
    """A public optimizer with Muon's arguments, such as `jt.normuon`."""

    def build(schedule: optax.Schedule, numbers: Numbers, workload: Workload) -> optax.GradientTransformation:
        return make(
            schedule,
            beta=numbers["momentum"],
            weight_decay=numbers["weight_decay"],
            orthogonalizer=QUINTICS,
            rest=adamw_by_role(schedule, numbers),
            routing=workload.routing,
            **options,
        )

    return build


def muon_with(before: Parts | None = None, after: Parts | None = None) -> Build:
    """Muon with parts before and after the orthogonalization."""

    def build(schedule: optax.Schedule, numbers: Numbers, workload: Workload) -> optax.GradientTransformation:
        def matrices(axes: Axes) -> optax.GradientTransformation:
            return optax.chain(
                jt.scale_by_momentum(numbers["momentum"], form="ema", nesterov=True),
                *(before(axes) if before else ()),
                jt.orthogonalize_via_newton_schulz(QUINTICS),
                *(after(axes) if after else ()),
                jt.scale_by_matrix_shape(),
                jt.add_decayed_weights(numbers["weight_decay"]),
                optax.scale_by_learning_rate(schedule),
            )

        return jt.multi_transform({"matrix": matrices, **adamw_by_role(schedule, numbers)}, workload.routing)

    return build


def muonh(schedule: optax.Schedule, numbers: Numbers, workload: Workload) -> optax.GradientTransformation:
    """MuonH; the rate is that of AdamW, and matrices turn by a multiple of it."""
    return jt.muonh(
        times(schedule, numbers["turn"]),
        beta=numbers["momentum"],
        orthogonalizer=QUINTICS,
        rest=adamw_by_role(schedule, numbers),
        routing=workload.routing,
    )


def looking_ahead(schedule: optax.Schedule, numbers: Numbers, workload: Workload) -> optax.GradientTransformation:
    """Muon inside EMA-Nesterov, which looks ahead in proportion to the rate: at the end of a run, not at all."""

    def beta(count: Array) -> Array:
        return numbers["ahead"] * schedule(count) / numbers["learning_rate"]

    return jt.ema_nesterov(ready_made(jt.muon)(schedule, numbers, workload), beta, gamma=numbers["gamma"])


@functools.cache
def routes_by_head(workload: Workload) -> Routes:
    """By use, every head of attention as a matrix of its own."""
    params = jax.eval_shape(workload.init, jax.random.key(0))
    batch = jax.eval_shape(workload.draw, workload.data(), jax.random.key(0))
    return jt.routing.from_function(workload.loss, params, batch, split="heads")


def by_head(schedule: optax.Schedule, numbers: Numbers, workload: Workload) -> optax.GradientTransformation:
    """Muon that orthogonalizes attention head by head."""
    return jt.muon(
        schedule,
        beta=numbers["momentum"],
        weight_decay=numbers["weight_decay"],
        orthogonalizer=QUINTICS,
        rest=adamw_by_role(schedule, numbers),
        routing=routes_by_head(workload),
    )


_ADAMW: Final = {"learning_rate": 1e-2, **DEFAULTS}
_MUON: Final = {"learning_rate": 10**-1.5, **DEFAULTS}
#: Embeddings start higher, the middle of what the experiment's prototypes gained from: its neighbors are 1 and 10.
_ROLES: Final = (multiple("embedding", 10**0.5), multiple("head"))


def _entry(name: str, build: Build, numbers: Mapping[str, float], *more: Axis) -> Entrant:
    """A rule with the numbers that are tuned: rate, momentum, and those given."""
    return Entrant(Rule(name, build, numbers), (rate(numbers["learning_rate"]), momentum(numbers["momentum"]), *more))


_muon: Final = ready_made(jt.muon)
_equal: Final = muon_with(
    before=lambda axes: [jt.equalize_norms("outputs", axes=axes)],
    after=lambda axes: [jt.normalize_frobenius(axes=axes)],
)

#: By name, in the order in which they run: another rule is another line.
ENTRANTS: Final[dict[str, Entrant]] = {
    each.rule.name: each
    for each in (
        _entry("Muon", _muon, _MUON),
        _entry("AdamW", adamw, _ADAMW),
        _entry("AdamW, rates by role", adamw, _ADAMW, *_ROLES),
        _entry("Muon, rates by role", _muon, _MUON, *_ROLES),
        _entry("MuonEq and Muon+", _equal, _MUON),
        _entry("NorMuon, longer side", ready_made(jt.normuon, along="longer"), _MUON),
        _entry("MuonH", muonh, {**_MUON, "turn": 2.0}, multiple("turn", 2.0)),
        _entry("MuonEq and Muon+, rates by role", _equal, _MUON, *_ROLES),
        _entry("Muon, EMA-Nesterov", looking_ahead, {**_MUON, "ahead": 0.5, "gamma": 0.9}, momentum(0.9, "gamma")),
        _entry("NorMuon, outputs", ready_made(jt.normuon, along="outputs"), _MUON),
        _entry("Muon, heads apart", by_head, _MUON),
    )
}
