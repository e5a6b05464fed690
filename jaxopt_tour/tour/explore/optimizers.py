"""What the page says of every optimizer: its equation in terms that can be highlighted, and what can be dragged.

The page's rules (`rules.js`) and the library's (`Rule.make`) take the same settings, and a test runs one against the
other. In an equation `{term:text}` marks what the page can point at.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Final

import optax

import jaxopt_tour as jt
from jaxopt_tour.tour.presets import muon_on_everything


@dataclasses.dataclass(frozen=True)
class Setting:
    """Something that can be dragged.

    Attributes:
        label: its symbol and name.
        scale: how a slider's place becomes a value: `log` 10^p; `decay-rate` 1 - 10^-p; `zero-log` 10^p, and 0
            at the lowest place; `integer` the place itself.
        low: lowest place.
        high: highest place.
    """

    label: str
    scale: str
    low: float
    high: float


SETTINGS: Final[dict[str, Setting]] = {
    "rate": Setting("η  learning rate", "log", -4, 1),
    "beta": Setting("β  decay rate", "decay-rate", 0, 3),
    "b1": Setting("β₁  decay rate of m", "decay-rate", 0, 3),
    "b2": Setting("β₂  decay rate of v", "decay-rate", 0, 4),
    "eps": Setting("ε  in the divisor", "log", -12, 1),
    "l2": Setting("λ  L2", "zero-log", -4, 0),
    "weight_decay": Setting("λ  weight decay", "zero-log", -4, 0),
    "steps": Setting("Newton-Schulz steps", "integer", 1, 8),
}

#: Coefficients whose number of steps can be dragged.
COEFFICIENTS: Final[dict[str, Callable[[int], jt.coefficients.PolynomialCoefficients]]] = {
    "polar_express": jt.coefficients.polar_express,
    "keller_jordan": jt.coefficients.keller_jordan,
    "cubic": jt.coefficients.cubic,
}


@dataclasses.dataclass(frozen=True)
class Rule:
    """An optimizer of the page.

    Attributes:
        title: what a person calls it.
        settings: name -> default; the rate's depends on the landscape.
        equation: its lines.
        note: what to notice, in a sentence.
        make: the library's optimizer with these settings.
        shown: whether the page opens with it.
    """

    title: str
    settings: dict[str, Any]
    equation: tuple[str, ...]
    note: str
    make: Callable[..., optax.GradientTransformation]
    shown: bool = False


_COUPLED = "g ← ∇f(θ) {decay:+ λ θ}"

RULES: Final[dict[str, Rule]] = {
    "sgd": Rule(
        "SGD",
        {"l2": 0.0},
        (_COUPLED, "θ ← θ − η {gradient:g}"),
        "The step is the gradient: long where it is steep, short where it is flat.",
        lambda rate, l2: jt.sgd(rate, l2=l2),
        shown=True,
    ),
    "momentum": Rule(
        "Momentum",
        {"beta": 0.9, "l2": 0.0},
        (_COUPLED, "m ← {momentum:β m} + {gradient:g}", "θ ← θ − η m"),
        "Gradients add up: to 1/(1 − β) of one where they agree, to nothing where they alternate.",
        lambda rate, beta, l2: jt.momentum(rate, beta=beta, l2=l2),
        shown=True,
    ),
    "nesterov": Rule(
        "Nesterov",
        {"beta": 0.9, "l2": 0.0},
        (_COUPLED, "m ← {momentum:β m} + {gradient:g}", "θ ← θ − η (g + {momentum:β m})"),
        "Momentum that counts the newest gradient once more: it brakes one step earlier.",
        lambda rate, beta, l2: jt.nesterov(rate, beta=beta, l2=l2),
    ),
    "adagrad": Rule(
        "AdaGrad",
        {"eps": 1e-10, "l2": 0.0},
        (_COUPLED, "r ← r + g²", "θ ← θ − η g / ({scale:√r} + {eps:ε})"),
        "Every coordinate is divided by all its gradients so far, so its rate only falls.",
        lambda rate, eps, l2: jt.adagrad(rate, eps=eps, l2=l2),
    ),
    "adadelta": Rule(
        "AdaDelta",
        {"beta": 0.9, "eps": 1e-6, "l2": 0.0},
        (
            _COUPLED,
            "s ← β s + (1 − β) g²",
            "u = g {delta:√(d + ε)} / {scale:√(s + ε)}",
            "d ← β d + (1 − β) u²",
            "θ ← θ − η u",
        ),
        "Steps take their size from past steps: they grow from √ε on, slowly.",
        lambda rate, beta, eps, l2: jt.adadelta(rate, beta=beta, eps=eps, l2=l2),
    ),
    "rmsprop": Rule(
        "RMSProp",
        {"beta": 0.9, "eps": 1e-8, "l2": 0.0},
        (_COUPLED, "s ← β s + (1 − β) g²", "θ ← θ − η g / ({scale:√s} + {eps:ε})"),
        "AdaGrad that forgets. Near a minimum its step does not shrink with the gradient.",
        lambda rate, beta, eps, l2: jt.rmsprop(rate, beta=beta, eps=eps, l2=l2),
    ),
    "rmsprop-centered": Rule(
        "RMSProp, centered",
        {"beta": 0.9, "eps": 1e-8, "l2": 0.0},
        (
            _COUPLED,
            "m ← β m + (1 − β) g",
            "s ← β s + (1 − β) g²",
            "θ ← θ − η g / ({scale:√(s − m²)} + {eps:ε})",
        ),
        "Divides by the deviation of the gradient: the steadier it is, the longer the step.",
        lambda rate, beta, eps, l2: jt.rmsprop(rate, beta=beta, eps=eps, centered=True, l2=l2),
    ),
    "signsgd": Rule(
        "signSGD",
        {"weight_decay": 0.0},
        ("θ ← θ {decay:− η λ θ} − η {sign:sign(g)}",),
        "Every coordinate moves by η, whatever its gradient.",
        lambda rate, weight_decay: jt.signsgd(rate, weight_decay=weight_decay),
    ),
    "signum": Rule(
        "Signum",
        {"beta": 0.9, "weight_decay": 0.0},
        ("m ← {momentum:β m} + (1 − β) g", "θ ← θ {decay:− η λ θ} − η {sign:sign(m)}"),
        "The sign of the momentum: it keeps its direction until the average turns.",
        lambda rate, beta, weight_decay: jt.signum(rate, beta=beta, weight_decay=weight_decay),
    ),
    "adam": Rule(
        "Adam",
        {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "l2": 0.0},
        (
            _COUPLED,
            "m ← {momentum:β₁ m} + (1 − β₁) g",
            "v ← β₂ v + (1 − β₂) g²",
            "m̂ = m / {bias:(1 − β₁ᵗ)},   v̂ = v / {bias:(1 − β₂ᵗ)}",
            "θ ← θ − η {momentum:m̂} / ({scale:√v̂} + {eps:ε})",
        ),
        "Momentum over the root of the squares: steps of about η. L2 goes through m and v like any gradient.",
        lambda rate, b1, b2, eps, l2: jt.adam(rate, b1, b2, eps, l2=l2),
        shown=True,
    ),
    "adamw": Rule(
        "AdamW",
        {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.01},
        (
            "m ← {momentum:β₁ m} + (1 − β₁) g",
            "v ← β₂ v + (1 − β₂) g²",
            "m̂ = m / {bias:(1 − β₁ᵗ)},   v̂ = v / {bias:(1 − β₂ᵗ)}",
            "θ ← θ {decay:− η λ θ} − η {momentum:m̂} / ({scale:√v̂} + {eps:ε})",
        ),
        "Adam with the decay outside of m and v: every weight shrinks at the same pace.",
        lambda rate, b1, b2, eps, weight_decay: jt.adamw(rate, b1, b2, eps, weight_decay=weight_decay),
        shown=True,
    ),
    "muon": Rule(
        "Muon",
        {"beta": 0.95, "weight_decay": 0.0, "coefficients": "polar_express", "steps": 5},
        (
            "m ← {momentum:β m} + (1 − β) g",
            "u = {momentum:β m} + (1 − β) g",
            "O = {orthogonal:NewtonSchulz(u)}",
            "θ ← θ {decay:− η λ θ} − η 0.2 √max(rows, columns) {orthogonal:O}",
        ),
        "Makes every singular value of the step one. Two numbers are a 2×1 matrix with one singular value, its length: "
        "there every step is equally long. On a 2×2 weight both directions get the same step.",
        lambda rate, beta, weight_decay, coefficients, steps: muon_on_everything(
            rate, weight_decay, beta=beta, orthogonalizer=COEFFICIENTS[coefficients](steps)
        ),
        shown=True,
    ),
}
