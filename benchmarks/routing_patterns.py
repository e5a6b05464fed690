"""The patterns that routing by use looks for, as docs/routing-rules.md shows them; draw_routing_rules.py draws them.

tests/routing/test_rules_page.py compares the sides and roles below with the routes of the page's examples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

#: The side of an axis. "free" is an axis of an activation, "none" one of a parameter that is no matrix, "rows" one that
#: is looked up, and "both" one that holds fan-in and fan-out.
Side = Literal["in", "out", "batch", "free", "none", "rows", "both"]
#: Width of the box of one letter, in inches.
BOX = 0.24


@dataclasses.dataclass(frozen=True)
class Array:
    """An array: its name and its axes, such as `"i:in o:out"`; a letter without a side belongs to an activation."""

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
    """The drawing of x[t, i], of a parameter whose axis `over` meets i, and of the result."""
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
        row=[Array("y", "t h d"), Bar(W, ["h0", "h1", "h2", "h3"], "", "o:out", "in", 0.2), "→", Array("z", "t o")],
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
