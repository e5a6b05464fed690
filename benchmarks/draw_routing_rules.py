"""Draw the patterns that routing by use looks for: the figures of docs/routing-rules.md.

python benchmarks/draw_routing_rules.py [--out docs/figures] [--suffix .svg]

A panel shows every array as a row of boxes, one for each axis. The boxes of a parameter have the color of their side.
tests/routing/test_rules_page.py compares the drawn sides with the routes of the page's examples.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any, Literal

import matplotlib
from _common import ROOT
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

#: The side of an axis. "free" is an axis of an activation, "none" one of a parameter that is no matrix, "rows" one that
#: is looked up, and "both" one that holds fan-in and fan-out.
Side = Literal["in", "out", "batch", "free", "none", "rows", "both"]
# Blue and orange of Okabe and Ito's palette and a light green: distinct for every kind of color blindness, and in gray.
FILL = {"in": "#0072B2", "out": "#E69F00", "batch": "#CDEADF", "free": "white", "none": "#E4E4E4", "rows": "white"}
WORD = {"in": "in", "out": "out", "batch": "batch", "free": "", "none": "", "rows": "rows", "both": "in, out"}
BOX, GAP, GRAY = 0.24, 0.09, "0.3"
WIDTH, HEIGHT = 2.92, 1.2
LETTER, WORDS = 9.5, 8


@dataclasses.dataclass(frozen=True)
class Array:
    """An array: its name and its axes, such as ``"i:in o:out"``; a letter without a side belongs to an activation."""

    name: str
    axes: str
    #: Width of a box, by letter, where it is not that of one letter.
    widths: tuple[tuple[str, float], ...] = ()

    def boxes(self) -> list[tuple[str, Side]]:
        """Letter and side of every axis."""
        pairs = (axis.partition(":") for axis in self.axes.split())
        return [(letter.replace("_", " "), side or "free") for letter, _, side in pairs]  # type: ignore[misc]

    def width(self, letter: str, side: Side) -> float:
        """Width of a box; that of a batch has room for the word under it."""
        return dict(self.widths).get(letter, 0.34 if side == "batch" else BOX)


@dataclasses.dataclass(frozen=True)
class Bar:
    """A parameter whose fan-out is drawn as parts in a row, by their labels; parts of one label have one shade."""

    name: str
    parts: Sequence[str]
    before: str = "i:in"
    after: str = ""
    side: Side = "out"
    size: float = 0.24


Item = Array | Bar | str  # a string is a sign between arrays


@dataclasses.dataclass(frozen=True)
class Panel:
    """One pattern.

    Args:
        title: its name, as on the page.
        formula: how the page writes it.
        role: the role of its parameters.
        row: the drawing: arrays and signs in a row.
        links: pairs of boxes that a line connects, each (item, axis).
        parameters: their names in the page's example.
        note: a line under the drawing.
    """

    title: str
    formula: str
    role: str
    row: Sequence[Item]
    links: Sequence[tuple[tuple[int, int], tuple[int, int]]] = ()
    parameters: Sequence[str] = ("w",)
    note: str = ""


def x_to(parameter: Array, result: str, over: int) -> dict[str, Any]:
    """The drawing of x[t, i], of a parameter whose axis ``over`` meets i, and of the result."""
    row = [Array("x", "t i"), parameter, "→", Array("y", result)]
    return {"row": row, "links": [((0, 1), (1, over))]}


W = "w"
PRODUCTS = (
    Panel(
        "Dense",
        "x[t, i] w[i, o] -> y[t, o]",
        "matrix",
        **x_to(Array(W, "i:in o:out"), "t o", 0),
        note="what x meets is fan-in",
    ),
    Panel(
        "Several axes",
        "x[t, i] w[i, h, d] -> y[t, h, d]",
        "matrix",
        **x_to(Array(W, "i:in h:out d:out"), "t h d", 0),
        note="one matrix: fan-out is h × d",
    ),
    Panel(
        "Scan over layers",
        "x[t, i] w[l, i, o] -> x[t, o], for each l",
        "matrix",
        **x_to(Array(W, "l:batch i:in o:out"), "t o", 1),
        note="one matrix for each layer l",
    ),
    Panel(
        "Convolution",
        "x[t + k, i] w[k, i, o] -> y[t, o]",
        "matrix",
        row=[Array("x", "t+k i", (("t+k", 0.4),)), Array(W, "k:in i:in o:out"), "→", Array("y", "t o")],
        links=[((0, 0), (1, 0)), ((0, 1), (1, 1))],
        note="fan-in is window × channels",
    ),
    Panel(
        "Depthwise",
        "x[t + k, i] w[k, 1, i] -> y[t, i]",
        "depthwise",
        row=[Array("x", "t+k i", (("t+k", 0.4),)), Array(W, "k:none 1:none i:none"), "→", Array("y", "t i")],
        links=[((0, 0), (1, 0)), ((0, 1), (1, 2))],
        note="each channel alone: no matrix",
    ),
    Panel(
        "Low rank",
        "x[t, i] (a[i, r] b[r, o]) -> y[t, o]",
        "matrix",
        row=[Array("x", "t i"), Array("a", "i:in r:out"), Array("b", "r:in o:out"), "→", Array("y", "t o")],
        links=[((0, 1), (1, 0)), ((1, 1), (2, 0))],
        parameters=("a", "b"),
        note="two matrices, x meets a first",
    ),
)
EXPERTS = (
    Panel(
        "Ragged product",
        "x[t, i] w[e(t), i, o] -> y[t, o]",
        "matrix",
        **x_to(Array(W, "e:batch i:in o:out"), "t o", 1),
        note="each row t meets one expert e",
    ),
    Panel(
        "Kernel",
        "kernel(x[t, i], w[e, i, o]) -> y[t, o]",
        "matrix",
        **x_to(Array(W, "e:batch i:in o:out"), "t o", 1),
        note="read from shapes: i, o fit one way",
    ),
    Panel(
        "One-hot dispatch",
        "x[e, t, i] w[e, i, o] -> y[e, t, o]",
        "matrix",
        row=[Array("x", "e t i"), Array(W, "e:batch i:in o:out"), "→", Array("y", "e t o")],
        links=[((0, 2), (1, 1)), ((0, 0), (1, 0))],
        note="e is in x, w and y: a batch",
    ),
    Panel(
        "Every expert, every token",
        "x[t, i] w[e, i, o] -> y[t, e, o], and g[t, e] y[t, e, o] -> z[t, o]",
        "matrix",
        **x_to(Array(W, "e:batch i:in o:out"), "t e o", 1),
        note="e is summed on its own later",
    ),
)
TABLES = (
    Panel(
        "Lookup",
        "w[n(t), i] -> y[t, i]",
        "embedding",
        row=[Array("ids", "t"), Array(W, "n:rows i:none"), "→", Array("y", "t i")],
        links=[((0, 0), (1, 0))],
        note="the inputs choose rows",
    ),
    Panel(
        "One-hot product",
        "onehot[t, n] w[n, i] -> y[t, i]",
        "embedding",
        row=[Array("one-hot", "t n"), Array(W, "n:rows i:none"), "→", Array("y", "t i")],
        links=[((0, 1), (1, 0))],
        note="a lookup, written as a product",
    ),
    Panel(
        "Tied embedding",
        "w[n(t), i] -> y[t, i], and y[t, i] w[n, i] -> logits[t, n]",
        "tied",
        row=[Array("ids", "t"), Array(W, "n:out i:in"), Array("y", "i t"), "→", Array("logits", "t n")],
        links=[((0, 0), (1, 0)), ((1, 1), (2, 0))],
        note="looked up, and contracted",
    ),
    Panel(
        "Head",
        "y[t, i] w[i, n] -> outputs[t, n]",
        "head",
        row=[Array("y", "t i"), Array(W, "i:in n:out"), "→", Array("outputs", "t n")],
        links=[((0, 1), (1, 0))],
        note="the last product before the outputs",
    ),
)
ELEMENTWISE = (
    Panel(
        "Bias",
        "x[t, o] + b[o] -> y[t, o]",
        "vector",
        row=[Array("x", "t o"), "+", Array("b", "o:none"), "→", Array("y", "t o")],
        parameters=("b",),
        note="added along one axis",
    ),
    Panel(
        "Scale",
        "x[t, o] * s[o] -> y[t, o]",
        "vector",
        row=[Array("x", "t o"), "×", Array("s", "o:none"), "→", Array("y", "t o")],
        parameters=("s",),
        note="multiplied elementwise",
    ),
    Panel(
        "Position",
        "x[t, i] + p[t, i] -> y[t, i]",
        "position",
        row=[Array("x", "t i"), "+", Array("p", "t:none i:none"), "→", Array("y", "t i")],
        parameters=("p",),
        note="t is no layer's fan-out",
    ),
    Panel(
        "Learned tokens",
        "concatenate(c[m, i], x[t, i]) -> y[m + t, i]",
        "position",
        row=[Array("c", "m:none i:none"), "and", Array("x", "t i"), "→", Array("y", "m+t i", (("m+t", 0.46),))],
        parameters=("c",),
        note="joined to the activations",
    ),
)
SHADES = ("#E69F00", "#F4C766", "#FBE6BD")
PIECES = (
    Panel(
        "Heads of query and key",
        "q[t, h, d] k[s, h, d] -> scores[h, t, s]",
        "matrix",
        row=[Bar("q, k", ["h0", "h1", "h2", "h3"]), "→", Array("scores", "h t s")],
        parameters=("q", "k"),
        note="h is a batch in the scores",
    ),
    Panel(
        "Heads of the output",
        "y[t, h, d] w[h, d, o] -> z[t, o]",
        "matrix",
        row=[Array("y", "t h d"), Bar(W, ["h0", "h1", "h2", "h3"], "", "o:out", "in", 0.225), "→", Array("z", "t o")],
        note="h as in attention's result",
    ),
    Panel(
        "Fused query, key, value",
        "x[t, i] w[i, (3 o)] -> y; q, k, v = split(y, 3)",
        "matrix",
        row=[Array("x", "t i"), Bar(W, ["q", "k", "v"], size=0.42)],
        note="slices of y cover all of fan-out",
    ),
    Panel(
        "Gate and up",
        "x[t, i] w[i, (2 o)] -> y; gate, up = split(y, 2)",
        "matrix",
        row=[Array("x", "t i"), Bar(W, ["gate", "up"], size=0.52)],
        note="two parts, in order",
    ),
    Panel(
        "Interleaved parts",
        "x[t, i] w[i, (h 3 d)] -> y; q, k, v = y[:, :, 0], y[:, :, 1], y[:, :, 2]",
        "matrix",
        row=[Array("x", "t i"), Bar(W, ["q", "k", "v"] * 2, size=0.22), "…"],
        note="slices repeat every 3 d",
    ),
    Panel(
        "Adaptive layer norm",
        "c[i] w[i, (3 o)] -> y; shift, scale, gate = split(y, 3)",
        "matrix",
        row=[Array("c", "i"), Bar(W, ["shift", "scale", "gate"], size=0.5)],
        note="c: the conditioning",
    ),
)
NOT = "not understood"
NOT_UNDERSTOOD = (
    Panel(
        "One axis, two sides",
        "x[t, i] reshape(w[(i o)], [i, o]) -> y[t, o]",
        NOT,
        row=[Array("x", "t i"), Array(W, "(i_o):both", (("(i o)", 0.62),)), "→", Array("y", "t o")],
        note="which part is which is lost",
    ),
    Panel(
        "Reshape across axes",
        "reshape(w[16, 96], [24, 64])",
        NOT,
        row=[
            Array(W, "16:none 96:none", (("16", 0.3), ("96", 0.66))),
            "→",
            Array("", "24:none 64:none", (("24", 0.4), ("64", 0.52))),
        ],
        note="rows of 64 cut through rows of 96",
    ),
    Panel(
        "Two ways in one model",
        "x[t, i] w[i, j, o] -> y[t, j, o], and x[t, i, j] w[i, j, o] -> z[t, o]",
        NOT,
        row=[Array("once", "i:in j:out o:out"), "≠", Array("elsewhere", "i:in j:in o:out")],
        note="j is fan-out, then fan-in",
    ),
    Panel(
        "Kernel with two readings",
        "kernel(x[t, 64], w[64, 64, 32]) -> y[t, 32]",
        NOT,
        row=[
            Array("either", "64:batch 64:in 32:out", (("64", 0.3), ("32", 0.3))),
            "?",
            Array("or", "64:in 64:batch 32:out", (("64", 0.3), ("32", 0.3))),
        ],
        note="experts = fan-in: both fit",
    ),
    Panel(
        "Product by hand",
        "x[t, i, 1] * w[i, o], summed over i",
        NOT,
        row=[Array("x", "t i 1"), "×", Array(W, "i:none o:none"), "→", Array("", "t i o")],
        note="× and sum, no contraction",
    ),
    Panel(
        "Operation without a rule",
        "x[t, i] cumsum(w)[i, o] -> y[t, o]",
        NOT,
        row=[Array(W, "i:none o:none"), "→", "cumsum", "→", Array("", "?:none ?:none")],
        note="axes are lost after it",
    ),
    Panel(
        "Only a sum",
        "x[t, i] * sum(w[a, b] ** 2)",
        NOT,
        row=[Array("x", "t i"), "×", "sum", Array(W, "a:none b:none")],
        note="no entry of w meets x",
    ),
    Panel(
        "Factors used elementwise",
        "x[t, i] + a[t, r] b[r, i]",
        NOT,
        row=[Array("x", "t i"), "+", Array("a", "t:none r:none"), Array("b", "r:none i:none")],
        links=[((2, 1), (3, 0))],
        parameters=("a", "b"),
        note="a, b meet no activation in a product",
    ),
)
FIGURES = {
    "routing_products": PRODUCTS,
    "routing_experts": EXPERTS,
    "routing_tables": TABLES,
    "routing_elementwise": ELEMENTWISE,
    "routing_pieces": PIECES,
    "routing_not_understood": NOT_UNDERSTOOD,
}


def draw_box(at: Axes, x: float, y: float, width: float, letter: str, side: Side) -> None:
    """One axis: a box with its letter, and its side in words under a parameter's."""
    edge = {"free": "0.55", "rows": "black"}.get(side, "black")
    style = (0, (2.5, 1.5)) if side == "rows" else "solid"
    if side == "both":
        for part, fill in enumerate(("in", "out")):
            at.add_patch(Rectangle((x + part * width / 2, y), width / 2, BOX, facecolor=FILL[fill], edgecolor="none"))
        at.add_patch(Rectangle((x, y), width, BOX, facecolor="none", edgecolor=edge, linewidth=0.9))
        letter = ""
    else:
        patch = Rectangle((x, y), width, BOX, facecolor=FILL[side], edgecolor=edge, linewidth=0.9, linestyle=style)
        at.add_patch(patch)
    color = "white" if side == "in" else "black"
    at.text(x + width / 2, y + BOX / 2 - 0.006, letter, ha="center", va="center", size=LETTER, color=color)
    if side == "both":
        at.text(x + width / 4, y + BOX / 2 - 0.006, "i", ha="center", va="center", size=LETTER, color="white")
        at.text(x + 3 * width / 4, y + BOX / 2 - 0.006, "o", ha="center", va="center", size=LETTER)


def draw_words(at: Axes, spans: Sequence[tuple[float, float, Side]], y: float) -> None:
    """The sides under the boxes of an array; neighbors of one side share a word."""
    merged: list[list] = []
    for x, width, side in spans:
        if merged and merged[-1][2] == side:
            merged[-1][1] = x + width - merged[-1][0]
        else:
            merged.append([x, width, side])
    for x, width, side in merged:
        at.text(x + width / 2, y - 0.035, WORD[side], ha="center", va="top", size=WORDS, color="black")


def measure(item: Item) -> float:
    if isinstance(item, str):
        return 0.2 if len(item) == 1 else 0.075 * len(item)
    if isinstance(item, Bar):
        boxes = len(item.before.split()) + len(item.after.split())
        return boxes * BOX + item.size * len(item.parts)
    return sum(item.width(letter, side) for letter, side in item.boxes())


def draw_item(at: Axes, item: Item, x: float, y: float) -> list[float]:
    """Draw an array or a sign; the centers of its boxes."""
    if isinstance(item, str):
        at.text(x + measure(item) / 2, y + BOX / 2 - 0.006, item, ha="center", va="center", size=LETTER + 1)
        return []
    boxes: list[tuple[str, Side, float, str]] = []
    if isinstance(item, Array):
        boxes = [(letter, side, item.width(letter, side), "") for letter, side in item.boxes()]
    else:
        boxes += [(letter, side, BOX, "") for letter, side in Array("", item.before).boxes()]
        labels = list(dict.fromkeys(item.parts))
        shades = SHADES if item.side == "out" and len(labels) <= 3 else ()
        for part in item.parts:
            boxes.append((part, item.side, item.size, shades[labels.index(part)] if shades else ""))
        boxes += [(letter, side, BOX, "") for letter, side in Array("", item.after).boxes()]
    centers, spans, start = [], [], x
    for letter, side, width, shade in boxes:
        draw_box(at, x, y, width, letter if not shade else "", side)
        if shade:
            at.add_patch(Rectangle((x, y), width, BOX, facecolor=shade, edgecolor="black", linewidth=0.9))
            at.text(x + width / 2, y + BOX / 2 - 0.006, letter, ha="center", va="center", size=LETTER - 0.5)
        centers.append(x + width / 2)
        spans.append((x, width, side))
        x += width
    at.text((start + x) / 2, y + BOX + 0.13, item.name, ha="center", va="bottom", size=WORDS, color=GRAY)
    draw_words(at, spans, y)
    return centers


def draw_link(at: Axes, ends: tuple[float, float], y: float, height: float) -> None:
    """A line from box to box, over the boxes between."""
    at.plot([ends[0], ends[0], ends[1], ends[1]], [y, y + height, y + height, y], color="black", linewidth=1.1)


def draw_panel(at: Axes, panel: Panel) -> None:
    at.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
    at.set_axis_off()
    top = HEIGHT - 0.07
    at.text(0.06, top, panel.title, ha="left", va="top", size=LETTER + 0.5, weight="bold")
    if panel.role != NOT:
        at.text(WIDTH - 0.12, top, panel.role, ha="right", va="top", size=LETTER - 0.5, color=GRAY)
    centers: dict[int, list[float]] = {}
    x, y = 0.06, HEIGHT - 0.76
    for index, item in enumerate(panel.row):
        centers[index] = draw_item(at, item, x, y)
        x += measure(item) + GAP
    for place, ((left, axis), (right, other)) in enumerate(panel.links):
        crosses = place > 0 and panel.links[0][1][0] > left  # over the line before
        draw_link(at, (centers[left][axis], centers[right][other]), y + BOX, 0.1 if crosses else 0.05)
    at.text(0.06, 0.06, panel.note, ha="left", va="bottom", size=WORDS, style="italic")


def draw(panels: Sequence[Panel]) -> Figure:
    columns = 2
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(columns * WIDTH, rows * HEIGHT))
    for index, panel in enumerate(panels):
        row, column = divmod(index, columns)
        at = figure.add_axes((column / columns, 1 - (row + 1) / rows, 1 / columns, 1 / rows))
        draw_panel(at, panel)
        if row:
            at.plot([0.06, WIDTH - 0.12], [HEIGHT, HEIGHT], color="0.8", linewidth=0.8)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "docs" / "figures")
    parser.add_argument("--suffix", choices=(".svg", ".png"), default=".svg")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, panels in FIGURES.items():
        # Without a date and with fixed names the same panels give the same file.
        with matplotlib.rc_context({"svg.hashsalt": name}):
            path = arguments.out / (name + arguments.suffix)
            metadata = {"Date": None} if path.suffix == ".svg" else None
            draw(panels).savefig(path, dpi=150, facecolor="white", metadata=metadata)
        print(f"written to {path}")


if __name__ == "__main__":
    main()
