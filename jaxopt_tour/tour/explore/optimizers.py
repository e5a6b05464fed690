"""What the page says of every optimizer: its equation in terms that can be highlighted, and what can be changed.

The page's rules (`rules.js`) and the library's (`Rule.make`) take the same settings, and a test runs one against the
other. In an equation `{term:text}` marks what the page can point at, and a line `on !off? ...` is shown
where the switch `on` is on and `off` is off.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Final

import optax

import jaxopt_tour as jt
from jaxopt_tour._types import ScalarOrSchedule
from jaxopt_tour.coefficients import PolynomialCoefficients
from jaxopt_tour.tour import presets


@dataclasses.dataclass(frozen=True)
class Setting:
    """Something that can be changed.

    Attributes:
        label: its symbol and name.
        scale: how a slider's place becomes a value: `log` 10^p; `decay-rate` 1 - 10^-p; `zero-log` 10^p, and 0
            at the lowest place; `integer` the place itself. `switch`: a box to tick.
        low: lowest place.
        high: highest place.
        off: of a switch, its value when it is off.
        on: of a switch, its value when it is on.
    """

    label: str
    scale: str
    low: float = 0
    high: float = 1
    off: Any = False
    on: Any = True


SETTINGS: Final[dict[str, Setting]] = {
    "rate": Setting("η  learning rate", "log", -4, 1),
    "beta": Setting("β  decay rate", "decay-rate", 0, 3),
    "b1": Setting("β₁  decay rate of m", "decay-rate", 0, 3),
    "b2": Setting("β₂  decay rate of v", "decay-rate", 0, 4),
    "eps": Setting("ε  in the divisor", "log", -12, 1),
    "l2": Setting("λ  L2", "zero-log", -4, 0),
    "weight_decay": Setting("λ  weight decay", "zero-log", -4, 0),
    "steps": Setting("Newton-Schulz steps", "integer", 1, 8),
    "bias_correction": Setting("bias correction", "switch"),
    "initial_moments": Setting("start at the first gradient", "switch", off="zeros", on="first_gradient"),
    "nesterov": Setting("Nesterov", "switch"),
}

#: Coefficients whose number of steps can be dragged, and those published for a fixed number of them.
GENERATED: Final[dict[str, Callable[[int], PolynomialCoefficients]]] = {
    "polar_express": jt.coefficients.polar_express,
    "cans": jt.coefficients.cans,
    "keller_jordan": jt.coefficients.keller_jordan,
    "cubic": jt.coefficients.cubic,
}
PUBLISHED: Final[dict[str, Callable[[], PolynomialCoefficients]]] = {
    "you": jt.coefficients.you,
    "modula": jt.coefficients.modula,
    "turbo": jt.coefficients.turbo,
}


def make_coefficients(name: str, steps: int) -> PolynomialCoefficients:
    """The coefficients of that name; those published for a fixed number of steps have theirs."""
    return PUBLISHED[name]() if name in PUBLISHED else GENERATED[name](steps)


@dataclasses.dataclass(frozen=True)
class Rule:
    """An optimizer of the page.

    Attributes:
        title: what a person calls it.
        call: the library's function, as Python code has it.
        settings: name -> default; the rate's depends on the landscape. Except for `coefficients` and `steps`, which
            are an orthogonalizer, they are arguments of the function.
        equation: its lines.
        note: what to notice, in a sentence.
        arguments: further arguments of the function.
        shown: whether the page opens with it.
    """

    title: str
    call: str
    settings: dict[str, Any]
    equation: tuple[str, ...]
    note: str
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    shown: bool = False

    def make(self, rate: ScalarOrSchedule, **settings: Any) -> optax.GradientTransformation:
        """The library's optimizer with these settings."""
        arguments = {**self.arguments, **settings}
        if "coefficients" in arguments:
            name, steps = arguments.pop("coefficients"), arguments.pop("steps")
            arguments["orthogonalizer"] = make_coefficients(name, steps) if isinstance(name, str) else (name,) * steps
        module, _, function = self.call.rpartition(".")
        return getattr({"jt": jt, "presets": presets}[module], function)(rate, **arguments)


_COUPLED = "g ← ∇f(θ) {decay:+ λ θ}"
_FIRST = "initial_moments? m₀ = g₁,   v₀ = g₁²"
_M = "m ← {momentum:β₁ m} + (1 − β₁) g"
_V = "v ← β₂ v + (1 − β₂) g²"
_M_HAT = (
    "bias_correction !nesterov? m̂ = m / {bias:(1 − β₁ᵗ)}",
    "bias_correction nesterov? m̂ = {momentum:β₁ m} / {bias:(1 − β₁ᵗ⁺¹)} + (1 − β₁) g / {bias:(1 − β₁ᵗ)}",
    "!bias_correction !nesterov? m̂ = m",
    "!bias_correction nesterov? m̂ = {momentum:β₁ m} + (1 − β₁) g",
)
_V_HAT = ("bias_correction? v̂ = v / {bias:(1 − β₂ᵗ)}", "!bias_correction? v̂ = v")
_EMA = "m ← {momentum:β m} + (1 − β) g"
_LOOK = ("nesterov? u = {momentum:β m} + (1 − β) g", "!nesterov? u = m")
_DECAYED = "θ ← θ {decay:− η λ θ} − 0.2 η √(max(rows, columns)) "
_SCHULZ = {"coefficients": "polar_express", "steps": 5}

RULES: Final[dict[str, Rule]] = {
    "sgd": Rule(
        "SGD",
        "jt.sgd",
        {"l2": 0.0},
        (_COUPLED, "θ ← θ − η {gradient:g}"),
        "The step is the gradient: long where it is steep, short where it is flat.",
        shown=True,
    ),
    "momentum": Rule(
        "Momentum",
        "jt.momentum",
        {"beta": 0.9, "l2": 0.0},
        (_COUPLED, "m ← {momentum:β m} + {gradient:g}", "θ ← θ − η m"),
        "Gradients add up: to 1/(1 − β) of one where they agree, to nothing where they alternate.",
    ),
    "nesterov": Rule(
        "Nesterov",
        "jt.nesterov",
        {"beta": 0.9, "l2": 0.0},
        (_COUPLED, "m ← {momentum:β m} + {gradient:g}", "θ ← θ − η (g + {momentum:β m})"),
        "Momentum that counts the newest gradient once more: it brakes one step earlier.",
    ),
    "adagrad": Rule(
        "AdaGrad",
        "jt.adagrad",
        {"eps": 1e-10, "l2": 0.0},
        (_COUPLED, "r ← r + g²", "θ ← θ − η g / ({scale:√r} + {eps:ε})"),
        "Every coordinate is divided by all its gradients so far, so its rate only falls.",
    ),
    "adadelta": Rule(
        "AdaDelta",
        "jt.adadelta",
        {"beta": 0.9, "eps": 1e-6, "l2": 0.0},
        (
            _COUPLED,
            "s ← β s + (1 − β) g²",
            "u = g {delta:√(d + ε)} / {scale:√(s + ε)}",
            "d ← β d + (1 − β) u²",
            "θ ← θ − η u",
        ),
        "Steps take their size from past steps: they grow from √ε on, slowly.",
    ),
    "rmsprop": Rule(
        "RMSProp",
        "jt.rmsprop",
        {"beta": 0.9, "eps": 1e-8, "l2": 0.0},
        (_COUPLED, "s ← β s + (1 − β) g²", "θ ← θ − η g / ({scale:√s} + {eps:ε})"),
        "AdaGrad that forgets. Near a minimum its step does not shrink with the gradient.",
    ),
    "rmsprop-centered": Rule(
        "RMSProp, centered",
        "jt.rmsprop",
        {"beta": 0.9, "eps": 1e-8, "l2": 0.0},
        (
            _COUPLED,
            "m ← β m + (1 − β) g",
            "s ← β s + (1 − β) g²",
            "θ ← θ − η g / ({scale:√(s − m²)} + {eps:ε})",
        ),
        "Divides by the deviation of the gradient: the steadier it is, the longer the step.",
        {"centered": True},
    ),
    "signsgd": Rule(
        "signSGD",
        "jt.signsgd",
        {"weight_decay": 0.0},
        ("θ ← θ {decay:− η λ θ} − η {sign:sign(g)}",),
        "Every coordinate moves by η, whatever its gradient.",
    ),
    "signum": Rule(
        "Signum",
        "jt.signum",
        {"beta": 0.9, "weight_decay": 0.0},
        (_EMA, "θ ← θ {decay:− η λ θ} − η {sign:sign(m)}"),
        "The sign of the momentum: it keeps its direction until the average turns.",
    ),
    "lion": Rule(
        "Lion",
        "jt.lion",
        {"b1": 0.9, "b2": 0.99, "weight_decay": 0.0},
        (
            "u = {sign:sign}({momentum:β₁ m} + (1 − β₁) g)",
            "m ← β₂ m + (1 − β₂) g",
            "θ ← θ {decay:− η λ θ} − η u",
        ),
        "The sign of an average in which the newest gradient counts more than in the momentum that is kept.",
    ),
    "adam": Rule(
        "Adam",
        "jt.adam",
        {
            "b1": 0.9,
            "b2": 0.999,
            "eps": 1e-8,
            "l2": 0.0,
            "bias_correction": True,
            "initial_moments": "zeros",
            "nesterov": False,
        },
        (_COUPLED, _FIRST, _M, _V, *_M_HAT, *_V_HAT, "θ ← θ − η {momentum:m̂} / ({scale:√v̂} + {eps:ε})"),
        "Momentum over the root of the squares: steps of about η. L2 goes through m and v like any gradient.",
    ),
    "adamw": Rule(
        "AdamW",
        "jt.adamw",
        {
            "b1": 0.9,
            "b2": 0.999,
            "eps": 1e-8,
            "weight_decay": 0.01,
            "bias_correction": True,
            "initial_moments": "zeros",
            "nesterov": False,
        },
        (_FIRST, _M, _V, *_M_HAT, *_V_HAT, "θ ← θ {decay:− η λ θ} − η {momentum:m̂} / ({scale:√v̂} + {eps:ε})"),
        "Adam with the decay outside of m and v: every weight shrinks at the same pace.",
        shown=True,
    ),
    "laprop": Rule(
        "LaProp",
        "jt.laprop",
        {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.0, "bias_correction": False},
        (
            _V,
            *_V_HAT,
            "s ← {momentum:β₁ s} + (1 − β₁) g / ({scale:√v̂} + {eps:ε})",
            "bias_correction? θ ← θ {decay:− η λ θ} − η s / {bias:(1 − β₁ᵗ)}",
            "!bias_correction? θ ← θ {decay:− η λ θ} − η s",
        ),
        "Adam in the other order: each gradient is divided by the root at its own step, then averaged.",
    ),
    "eadam": Rule(
        "EAdam",
        "jt.eadam",
        {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.0},
        (
            _M,
            "v ← β₂ v + (1 − β₂) g² + {eps:ε}",
            "m̂ = m / {bias:(1 − β₁ᵗ)}",
            "v̂ = v / {bias:(1 − β₂ᵗ)}",
            "θ ← θ {decay:− η λ θ} − η {momentum:m̂} / ({scale:√v̂} + ε)",
        ),
        "Adam that adds ε to v at every step: at most ε/(1 − β₂) piles up there.",
    ),
    "shampoo": Rule(
        "Shampoo",
        "presets.shampoo_on_everything",
        {"beta": 0.95, "b2": 0.95, "eps": 1e-6, "weight_decay": 0.0, "nesterov": True, "bias_correction": True},
        (
            _EMA,
            *_LOOK,
            "L ← β₂ L + (1 − β₂) u uᵀ,   R ← β₂ R + (1 − β₂) uᵀ u",
            "bias_correction? L̂ = L / {bias:(1 − β₂ᵗ)},   R̂ = R / {bias:(1 − β₂ᵗ)}",
            "!bias_correction? L̂ = L,   R̂ = R",
            "O = {orthogonal:L̂⁻¹ᐟ⁴ u R̂⁻¹ᐟ⁴}",
            _DECAYED + "O",
        ),
        "Divides by roots of averaged row and column products. Without memory, β₂ = 0, it is Muon.",
    ),
    "muon": Rule(
        "Muon",
        "presets.muon_on_everything",
        {"beta": 0.95, "weight_decay": 0.0, "nesterov": True, **_SCHULZ},
        (_EMA, *_LOOK, "O = {orthogonal:NewtonSchulz(u)}", _DECAYED + "{orthogonal:O}"),
        "Brings every singular value of the step near one, so a 2×2 weight moves equally far in both directions. Two "
        "numbers are a 2×1 matrix with one singular value, its length: there every step is equally long.",
        shown=True,
    ),
    "normuon": Rule(
        "NorMuon",
        "presets.normuon_on_everything",
        {"beta": 0.95, "b2": 0.95, "weight_decay": 0.0, "nesterov": True, **_SCHULZ},
        (
            _EMA,
            *_LOOK,
            "O = {orthogonal:NewtonSchulz(u)}",
            "vᵢ ← β₂ vᵢ + (1 − β₂) mean(Oᵢ²)",
            "Ôᵢ = Oᵢ / {units:√vᵢ}",
            _DECAYED + "Ô |O| / |Ô|",
        ),
        "Muon that divides the update of each unit by its running size and keeps the length of the whole.",
    ),
}
