"""One line an optimizer, in every picture and on every page: its color and its dashes.

Hues are those of Okabe and Ito, told apart by readers with any color vision (https://jfly.uni-koeln.de/color/),
darkened or lightened for contrast; members of one family share a hue and differ by their dashes. An optimizer has the
same line everywhere, whichever others run beside it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

SOLID, DASHED, DOTTED, MIXED = "", "7 4", "2 3", "8 3 2 3"

#: Hue and dashes (lengths of strokes and gaps, in points) by optimizer.
LINES: Final[dict[str, tuple[str, str]]] = {
    "sgd": ("gray", SOLID),
    "momentum": ("green", SOLID),
    "sgd-momentum": ("green", SOLID),
    "nesterov": ("green", DASHED),
    "adagrad": ("ochre", SOLID),
    "adadelta": ("ochre", DASHED),
    "rmsprop": ("purple", SOLID),
    "rmsprop-centered": ("purple", DASHED),
    "signsgd": ("violet", DOTTED),
    "signum": ("violet", DASHED),
    "lion": ("violet", SOLID),
    "adam": ("sky", DASHED),
    "adamw": ("blue", SOLID),
    "laprop": ("sky", DOTTED),
    "eadam": ("sky", MIXED),
    "muon": ("vermillion", SOLID),
    "muon-0.7": ("vermillion", DASHED),
    "normuon": ("vermillion", MIXED),
    "shampoo": ("vermillion", DOTTED),
}

#: Every hue on white paper, and on a dark screen.
HUES: Final[dict[str, tuple[str, str]]] = {
    "vermillion": ("#d55e00", "#ff7f32"),
    "blue": ("#0072b2", "#3f9de6"),
    "green": ("#00875f", "#1fb88c"),
    "ochre": ("#b47a00", "#e6a317"),
    "purple": ("#b8558c", "#de8fbc"),
    "violet": ("#6a4bbc", "#a48df0"),
    "sky": ("#3391c9", "#7cc9f2"),
    "gray": ("#6f7680", "#9aa3ad"),
}

#: For optimizers that the table does not name, and for one optimizer with several numbers of steps.
SPARE: Final = [(hue, dash) for dash in (MIXED, DOTTED, DASHED, SOLID) for hue in HUES]


def lines_of(optimizers: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Hue and dashes by optimizer; those without a line of their own get one that is free."""
    names = list(dict.fromkeys(optimizers))
    known = {name: LINES[name.replace("_", "-")] for name in names if name.replace("_", "-") in LINES}
    free = [line for line in SPARE if line not in known.values()] + SPARE
    unknown = [name for name in names if name not in known]
    return known | {name: free[index % len(free)] for index, name in enumerate(unknown)}


def style_sheet() -> str:
    """The hues as variables of a style sheet, `--blue` and the like, and a class `hue-blue` that sets `--hue`."""
    light, dark = (
        " ".join(f"--{hue}: {colors[scheme]};" for hue, colors in HUES.items()) for scheme in (0, 1)
    )  # fmt: skip
    classes = "\n".join(f".hue-{hue} {{ --hue: var(--{hue}); }}" for hue in HUES)
    return f":root {{ {light} }}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n{classes}\n"
