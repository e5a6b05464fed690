"""Who races: every optimizer of the tour by name, and which of them run on which task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import optax

import jaxopt_tour as jt

# Every momentum is 0.9, and Adam's squares are averaged with 0.95, because the runs are short: a few hundred steps.
# Muon takes the quintics that are its default on GPUs and TPUs, so that a race means the same everywhere.
#: Optimizer by name, as a function of its learning-rate schedule. One optimizer with other settings is one more line.
OPTIMIZERS: dict[str, Callable[[optax.Schedule], optax.GradientTransformation]] = {
    "sgd": lambda rate: jt.sgd(rate),
    "momentum": lambda rate: jt.momentum(rate, beta=0.9),
    "nesterov": lambda rate: jt.nesterov(rate, beta=0.9),
    "adagrad": lambda rate: jt.adagrad(rate),
    "adadelta": lambda rate: jt.adadelta(rate),
    "rmsprop": lambda rate: jt.rmsprop(rate, beta=0.9),
    "rmsprop-centered": lambda rate: jt.rmsprop(rate, beta=0.9, centered=True),
    "signsgd": lambda rate: jt.signsgd(rate),
    "signum": lambda rate: jt.signum(rate, beta=0.9),
    "adam": lambda rate: jt.adam(rate, b1=0.9, b2=0.95),
    "adamw": lambda rate: jt.adamw(rate, b1=0.9, b2=0.95, weight_decay=0.1),
    "muon": lambda rate: jt.muon(rate, weight_decay=0.1, beta=0.9, orthogonalizer="polar_express"),
}


@dataclass(frozen=True)
class Contender:
    """An optimizer in a race.

    Attributes:
        name: what tables and `--optimizers` call it.
        optimizer: its key in `OPTIMIZERS`.
        share_of_steps: the part of the race's steps that it gets; its own schedule ends there.
    """

    name: str
    optimizer: str
    share_of_steps: float = 1.0

    def steps(self, of: int) -> int:
        """How many steps it runs in a race of that many."""
        return max(1, round(self.share_of_steps * of))


#: Contenders by task, in the order in which they run.
CONTENDERS: dict[str, tuple[Contender, ...]] = {
    "cnn": tuple(Contender(name, name) for name in OPTIMIZERS),
    "gpt": (
        Contender("sgd-momentum", "momentum"),
        Contender("adam", "adam"),
        Contender("adamw", "adamw"),
        Contender("muon", "muon"),
        Contender("muon-0.7", "muon", share_of_steps=0.7),
    ),
}


def contenders(task: str, names: tuple[str, ...] | None = None) -> tuple[Contender, ...]:
    """The contenders of a task, or those of them that are named, in the table's order.

    Raises:
        ValueError: a name is no contender of any task; the message lists those there are.
    """
    check_names(names)
    return tuple(contender for contender in CONTENDERS[task] if names is None or contender.name in names)


def check_names(names: tuple[str, ...] | None) -> None:
    """Raise unless every name is a contender of some task."""
    known = list(dict.fromkeys(contender.name for group in CONTENDERS.values() for contender in group))
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise ValueError(f"optimizers must be among {', '.join(known)}; got {', '.join(unknown)}")
