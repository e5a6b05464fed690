"""The guided strip of the page: an opening and eight steps, each of which sets what it talks about.

A bench names a landscape, the rules that run, the settings that differ from the defaults, the chart that is open, the
step at which it starts to play (`at`) and the one that readers see who asked for less motion (`still`).
"""

from __future__ import annotations

import dataclasses
from typing import Any, Final

#: Settings of the opening. Averages are short, as the run is. The rates give the lowest mean of the logarithm of the
#: loss over 50 steps in which the rate falls linearly to zero (`settings.opening_rate`).
OPENING: Final[dict[str, dict[str, float]]] = {
    "sgd": {"rate": 0.1},
    "adamw": {"rate": 0.422, "b1": 0.5, "b2": 0.95, "weight_decay": 0.0},
    "muon": {"rate": 0.75, "beta": 0.5},
}


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of the strip.

    Attributes:
        title: a few words; the button that leads here shows them.
        text: what to see, in a sentence or two.
        place: the section that the strip stands above: `bench`, `weight` or `schulz`.
        bench: what the bench is set to; None leaves it as it is.
        weight: what the view of the 8×8 weight is set to.
        schulz: what the view of Newton-Schulz is set to.
    """

    title: str
    text: str
    place: str = "bench"
    bench: dict[str, Any] | None = None
    weight: dict[str, Any] | None = None
    schulz: dict[str, Any] | None = None


_MATRIX: Final = {
    "landscape": "matrix-steep",
    "steps": 50,
    "schedule": "linear",
    "shown": ["sgd", "adamw", "muon"],
    "chosen": "muon",
    "values": OPENING,
    "quantity": "spectrum",
    "at": 2,
    "still": 14,
}

STORY: Final[tuple[Step, ...]] = (
    Step(
        "Why Muon wins on a matrix",
        "Three optimizers train one 2×2 weight, each at its best rate. The loss is a hundred times as steep along x as "
        "along y: SGD stalls on the floor of the valley, AdamW creeps along it, and Muon walks to the star.",
        bench=_MATRIX,
    ),
    Step(
        "The valley",
        "SGD steps against the gradient. This valley is 25 times as steep along x as along y: a rate that y needs "
        "makes x swing from wall to wall. Drag η to 0.41 and the run diverges.",
        bench={
            "landscape": "quadratic",
            "steps": 50,
            "shown": ["sgd"],
            "chosen": "sgd",
            "values": {"sgd": {"rate": 0.36}},
            "quantity": "state",
            "still": 12,
        },
    ),
    Step(
        "Momentum",
        "Momentum adds up past gradients. Those across the valley alternate and cancel; those along it agree and grow "
        "to 1/(1 − β) = 10 times one gradient. Both rules here have the same rate.",
        bench={
            "landscape": "ravine",
            "steps": 100,
            "shown": ["sgd", "momentum"],
            "chosen": "momentum",
            "values": {"sgd": {"rate": 0.03}, "momentum": {"rate": 0.03}},
            "quantity": "state",
            "still": 30,
        },
    ),
    Step(
        "Scale",
        "Adaptive rules divide each coordinate by the root of its squared gradients. RMSProp therefore moves x and y "
        "at one pace, although their gradients start out ten times apart in size.",
        bench={
            "landscape": "quadratic",
            "steps": 100,
            "shown": ["sgd", "rmsprop"],
            "chosen": "rmsprop",
            "values": {"sgd": {"rate": 0.1}, "rmsprop": {"rate": 0.075}},
            "quantity": "rates",
            "still": 15,
        },
    ),
    Step(
        "Bias correction",
        "Adam's averages start at zero, so early ones are too small, and v more so than m. Here AdamW runs without the "
        "correction ρ(t): its first step is 1/ρ(1) = 3.2 times Adam's. Tick the box to restore it.",
        bench={
            "landscape": "himmelblau",
            "steps": 50,
            "shown": ["adam", "adamw"],
            "chosen": "adamw",
            "values": {
                "adam": {"rate": 0.2},
                "adamw": {"rate": 0.2, "weight_decay": 0.0, "bias_correction": False},
            },
            "quantity": "rho",
            "still": 5,
        },
    ),
    Step(
        "The matrix",
        "A weight is a matrix, and its steep and flat directions are singular directions, not entries. Adam's rates "
        "belong to entries and cannot tell them apart. Muon gives both singular values of its step one size.",
        bench={**_MATRIX, "shown": ["adamw", "muon"], "at": 0, "still": 10},
    ),
    Step(
        "Norms",
        "A step goes as far down as its length allows, so the rule depends on how length is measured. The largest "
        "entry gives the sign of the gradient; the largest singular value gives Muon. Choose a norm below.",
        place="weight",
        weight={"norm": "spectral", "heads": False},
    ),
    Step(
        "Newton-Schulz",
        "Muon needs the gradient's singular vectors without its singular values. Five steps of an odd polynomial, only "
        "matrix products, bring all of them near one. Drag a, b and c to make your own.",
        place="schulz",
        schulz={"matrix": "steep", "coefficients": "polar_express", "steps": 5, "at": 0},
    ),
    Step(
        "Your turn",
        "Click a start, choose a landscape, drag a setting. Can you find a rate at which SGD beats Muon here? Then "
        "try the quadratic, whose steep direction is a coordinate: does AdamW win there?",
        bench={**_MATRIX, "shown": ["sgd", "momentum", "adamw", "muon"], "quantity": "rates", "at": 0},
    ),
)
