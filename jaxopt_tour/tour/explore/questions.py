"""Short questions about the rules, with answers; some can be looked at on the page.

Each is (question, answer, what the page shows: a key of `shows` in `schulz.js`, or None).
"""

from __future__ import annotations

from typing import Final

QUESTIONS: Final[tuple[tuple[str, str, str | None], ...]] = (
    (
        "Is AdamW different from Adam when the loss has no L2 term?",
        "Yes, while its weight decay λ is not zero. AdamW shrinks every weight by the factor 1 − η λ at every step, "
        "whatever the loss is. With λ = 0 nothing is left of the difference.",
        "adam-adamw",
    ),
    (
        "How do you get Adam from AdamW?",
        "Set its weight decay to zero. The two paths then coincide, step by step.",
        "adam-from-adamw",
    ),
    (
        "Is Adam with an L2 term in the loss the same as AdamW?",
        "No. The term λ θ of the gradient goes through m and v like every other: it is divided by √v̂, so weights with "
        "large gradients hardly decay. AdamW's decay stays outside. For SGD the two are the same.",
        "l2-adamw",
    ),
    (
        "Why does only momentum leave the first valley?",
        "It arrives with the speed of all its past gradients and runs up the other side. Adam, RMSProp and Muon divide "
        "the size of the gradient out; at these rates their steps are too short to climb. On a function with four "
        "valleys that is luck more than merit: it says little about training networks.",
        "escape",
    ),
    (
        "Why are all of Muon's steps equally long here?",
        "Two numbers are a 2×1 matrix. Its one singular value is its length, and orthogonalizing makes that one. Muon "
        "is made for matrices; on a vector it is the momentum, normalized, and at a constant rate it never settles.",
        "muon-vector",
    ),
    (
        "What does Muon do on a matrix that the others do not?",
        "It sees singular directions. The gradient is large along one and small along the other; every singular value "
        "of the step is made one, so both are learned at the same pace. Adam's rates belong to entries, and no choice "
        "of one rate for each entry does the same when the directions are not the axes.",
        "muon-matrix",
    ),
    (
        "When does one rate per coordinate help?",
        "When steep and flat are coordinates, as on the quadratic. Turn the bowl, as in the ravine, and both "
        "coordinates have the same gradients: there is nothing to tell apart. Momentum does not care how it is turned.",
        "turned",
    ),
    (
        "What is bias correction for?",
        "m and v start at zero, so early averages are too small: m by 1 − β₁ᵗ, v by 1 − β₂ᵗ. Divided out, Adam's first "
        "step is exactly η in every coordinate. Without it, it would be (1 − β₁)/√(1 − β₂) of that: 3.2 η by default.",
        "bias",
    ),
    (
        "Why do some rules never come to rest?",
        "RMSProp, signSGD and Muon take steps whose size does not shrink with the gradient, so at a constant rate they "
        "swing about the minimum. In training, a schedule that lowers the rate to zero lets them settle.",
        "restless",
    ),
    (
        "What becomes of a singular value that is zero?",
        "It stays zero: the polynomials are odd. A gradient of rank one gives a step of rank one, and directions in "
        "which there is nothing to learn are left alone. Small is another matter: it is enlarged as far as the steps "
        "can, noise included.",
        None,
    ),
)
