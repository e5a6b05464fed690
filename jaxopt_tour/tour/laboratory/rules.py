"""The optimizers of the laboratory as rules: the same ones in every experiment, with the numbers that are tuned."""

from __future__ import annotations

from typing import Final

import jaxopt_tour as jt
from jaxopt_tour.tour.laboratory.protocol import Entrant
from jaxopt_tour.tour.laboratory.runs import Rule
from jaxopt_tour.tour.laboratory.tuning import momentum, rate

#: Decay rates start at 0.9 for everyone; Adam's squares are averaged with 0.95, because the runs are short.
SGD_MOMENTUM: Final = Rule(
    "sgd-momentum",
    lambda schedule, numbers, workload: jt.momentum(schedule, beta=numbers["momentum"], form="ema"),
    {"learning_rate": 1.0, "momentum": 0.9},
)
ADAM: Final = Rule(
    "adam",
    lambda schedule, numbers, workload: jt.adam(schedule, b1=numbers["momentum"], b2=0.95),
    {"learning_rate": 3e-3, "momentum": 0.9},
)
ADAMW: Final = Rule(
    "adamw",
    lambda schedule, numbers, workload: jt.adamw(
        schedule, b1=numbers["momentum"], b2=0.95, weight_decay=numbers["weight_decay"]
    ),
    {"learning_rate": 3e-3, "momentum": 0.9, "weight_decay": 0.1},
)
#: The laboratory's Muon takes the five quintics that are the default on GPUs and TPUs, wherever it runs.
QUINTICS: Final = "polar_express"
MUON: Final = Rule(
    "muon",
    lambda schedule, numbers, workload: jt.muon(
        schedule,
        beta=numbers["momentum"],
        weight_decay=numbers["weight_decay"],
        orthogonalizer=QUINTICS,
        routing=workload.routing,
    ),
    {"learning_rate": 1e-2, "momentum": 0.9, "weight_decay": 0.1},
)


def entrant(rule: Rule) -> Entrant:
    """A rule with rate and momentum tuned, from its defaults on."""
    return Entrant(rule, (rate(rule.defaults["learning_rate"]), momentum(rule.defaults["momentum"])))


def rate_alone(rule: Rule) -> Entrant:
    """A rule with its rate tuned, from its default on."""
    return Entrant(rule, (rate(rule.defaults["learning_rate"]),))


#: By name, in the order of the tour.
RULES: Final = {rule.name: rule for rule in (SGD_MOMENTUM, ADAM, ADAMW, MUON)}
