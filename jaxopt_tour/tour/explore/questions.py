"""Ten questions about the rules, with a reply to every option; all can be looked at on the page."""

from __future__ import annotations

import dataclasses
from typing import Final


@dataclasses.dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        text: the question.
        options: what can be chosen, and the reply to it; the first is right, and the page mixes them.
        show: what the page shows for it: a key of `shows` in `questions.js`.
    """

    text: str
    options: tuple[tuple[str, str], ...]
    show: str


QUESTIONS: Final[tuple[Question, ...]] = (
    Question(
        "The loss has no L2 term. Do Adam and AdamW differ?",
        (
            (
                "Yes, as long as AdamW's weight decay is not zero",
                "AdamW multiplies every weight by 1 − η λ at each step, whatever the loss is.",
            ),
            ("No, both minimize the same loss", "The loss is the same, but AdamW's decay is part of the rule."),
            (
                "Only in the first steps",
                "That would be bias correction, and both have it. The decay acts at every step.",
            ),
        ),
        "adam-adamw",
    ),
    Question(
        "How do you get Adam from AdamW?",
        (
            ("Set its weight decay to zero", "Nothing else differs: the two paths coincide step by step."),
            ("Set β₁ to zero", "That removes the momentum from both and leaves AdamW's decay."),
            ("Add an L2 term to the loss", "That adds λ θ to the gradient; AdamW's own decay would still act."),
        ),
        "adam-from-adamw",
    ),
    Question(
        "Is Adam with an L2 term in the loss the same as AdamW?",
        (
            (
                "No: Adam divides the term by √v̂",
                "λ θ goes through m and v, so weights with large gradients hardly decay. AdamW's decay stays outside.",
            ),
            (
                "Yes, L2 and weight decay are two names",
                "For SGD they are the same. Adam rescales whatever is in the gradient.",
            ),
            ("Yes, if λ is small", "The division by √v̂ does not depend on the size of λ."),
        ),
        "l2-adamw",
    ),
    Question(
        "With the settings of the post, only momentum leaves the first valley. Why?",
        (
            (
                "It arrives with the speed of all past gradients",
                "The speed carries it up the other side. On four valleys that is luck: it says little about networks.",
            ),
            ("It has the highest learning rate", "SGD has the same rate, 0.02, and stays in the first valley."),
            ("It knows where the deepest valley is", "Every rule sees the gradient at one point and nothing else."),
        ),
        "escape",
    ),
    Question(
        "Two numbers are optimized, not a matrix. What is Muon then?",
        (
            (
                "The momentum, normalized to one length",
                "Two numbers are a 2×1 matrix. Its one singular value is its length, which becomes one.",
            ),
            (
                "SGD with momentum",
                "The direction is that of the momentum, but the length no longer depends on the gradient.",
            ),
            ("Sign descent", "That makes every entry equally large. Muon keeps the direction of a vector."),
        ),
        "muon-vector",
    ),
    Question(
        "What does Muon do for a matrix that a rate for each entry cannot?",
        (
            (
                "It gives every singular direction a step of the same size",
                "Steep and flat directions are mixtures of entries, so no rate for each entry tells them apart.",
            ),
            ("It finds the Hessian", "Muon sees only gradients. The step is equalized, not the curvature measured."),
            ("It takes longer steps", "The rate decides the length. Muon decides how it is shared among directions."),
        ),
        "muon-matrix",
    ),
    Question(
        "When does one rate per coordinate help most?",
        (
            (
                "When the steep and the flat direction are coordinates",
                "As on the quadratic. In the ravine both coordinates have like gradients: nothing can be told apart.",
            ),
            (
                "When the valley runs along the diagonal",
                "Then both coordinates have gradients of like size, and like rates.",
            ),
            ("When all curvatures are equal", "Then one rate for everything is enough: SGD goes straight down."),
        ),
        "turned",
    ),
    Question(
        "Adam without bias correction, β₁ = 0.9 and β₂ = 0.999: how long is its first step?",
        (
            ("3.2 η", "m is a tenth of g and √v is 0.032 |g|: their ratio is (1 − β₁)/√(1 − β₂) = 3.2."),
            ("0.1 η", "m is a tenth of the gradient, but √v is smaller still."),
            ("η", "That is the first step with the correction."),
        ),
        "bias",
    ),
    Question(
        "Why do RMSProp, signSGD and Muon never come to rest at a constant rate?",
        (
            (
                "Their steps do not shrink with the gradient",
                "They swing about the minimum. A rate that falls to zero, as in training, lets them settle.",
            ),
            ("Their rate is too high", "A lower rate makes the swing smaller; it does not end it."),
            ("The gradient has noise", "There is no noise on this page."),
        ),
        "restless",
    ),
    Question(
        "What does Newton-Schulz make of a singular value that is zero?",
        (
            (
                "It stays zero",
                "The polynomials are odd. A gradient of rank one gives a step of rank one; small values are enlarged.",
            ),
            ("One, like all others", "p(0) = 0 for an odd polynomial, after any number of steps."),
            (
                "Rounding error decides",
                "The iteration multiplies by the matrix itself; in exact arithmetic zero stays zero.",
            ),
        ),
        "zero",
    ),
)
