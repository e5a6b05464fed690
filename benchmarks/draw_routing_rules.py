"""Draw the patterns that routing by use looks for: the figures of docs/routing-rules.md.

python benchmarks/draw_routing_rules.py [--out docs/figures] [--suffix .svg]

A panel shows every array as a row of boxes, one for each axis. The boxes of a parameter have the color of their side.
The patterns are in routing_patterns.py.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Sequence

import matplotlib
from _common import ROOT
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from routing_patterns import BOX, FIGURES, NOT, Array, Bar, Item, Panel, Side

# Blue and orange of Okabe and Ito's palette and a light green: distinct for every kind of color blindness, and in gray.
FILL = {"in": "#0072B2", "out": "#E69F00", "batch": "#CDEADF", "free": "white", "none": "#E4E4E4", "rows": "white"}
WORD = {"in": "in", "out": "out", "batch": "batch", "free": "", "none": "", "rows": "rows", "both": "in, out"}
GAP, GRAY = 0.09, "0.3"
WIDTH, HEIGHT = 2.92, 1.2
LETTER, WORDS = 9.5, 8
#: Shades of the parts of a fan-out.
SHADES = ("#E69F00", "#F4C766", "#FBE6BD")


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
