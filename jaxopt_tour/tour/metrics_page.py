"""The offline page of a training run's metrics: one HTML file with a chart a metric, drawn without a script."""

from __future__ import annotations

import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

from jaxopt_tour.state.diagnose import diagnose
from jaxopt_tour.state.measure import ENTRYWISE, MATRIXWISE
from jaxopt_tour.tour.pages import resource, write_page
from jaxopt_tour.tour.palette import SPARE, style_sheet
from jaxopt_tour.tour.report.series import finite

TITLES: Final = {
    "update_rms": "Update, root mean square",
    "update_ratio": "Update / weight",
    "gradient_norm": "Gradient norm",
    "momentum_norm": "Momentum norm",
    "decay_share": "Weight decay's share of the update",
    "vanished": "Share of entries that rounding keeps in place",
    "stable_rank": "Stable rank of the momentum",
    "polar_error": "Polar error of the update",
}
#: Metrics between 0 and 1 or counted from 0; the others span orders of magnitude and get a logarithmic axis.
LINEAR: Final = ("decay_share", "vanished", "stable_rank", "polar_error")
WIDTH, HEIGHT = 560, 280
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 10, 34
#: Lines of parameters in one chart; the page says how many more there are.
MOST_LINES: Final = 60

Lines = dict[str, list[tuple[float, float]]]


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read a file of JSON lines, each a dictionary of `jt.metrics`.

    Raises:
        ValueError: a line is no JSON object, has no step, or the file is empty.
    """
    rows = []
    for number, line in enumerate(pathlib.Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"line {number} of {path} is no JSON: {error}") from None
        if not isinstance(row, dict) or finite(row.get("step", row.get("measured_at"))) is None:
            raise ValueError(f"line {number} of {path} must be an object of jt.metrics, with 'measured_at' or 'step'")
        rows.append(row)
    if not rows:
        raise ValueError(f"{path} has no metrics: write one line json.dumps(jt.metrics(state)) a measurement")
    return rows


def write_metrics(
    rows: Sequence[Mapping[str, Any]], path: str | os.PathLike[str], title: str = "Metrics of a training run"
) -> pathlib.Path:
    """Write the page in one move, and return its path.

    Args:
        rows: dictionaries of `jt.metrics`, with `"measured_at"` or `"step"`.
        path: the HTML file; its folder is made where it is missing.
        title: the heading.
    """
    return write_page(render(rows, title), path)


def render(rows: Sequence[Mapping[str, Any]], title: str = "Metrics of a training run") -> str:
    """The page as text."""
    rows = sorted(rows, key=_step)
    sections = "\n".join(_section(metric, rows) for metric in (*ENTRYWISE, *MATRIXWISE))
    steps = f"{len(rows)} measurements, steps {_step(rows[0]):,.0f} to {_step(rows[-1]):,.0f}"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="referrer" content="no-referrer">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>
{style_sheet()}{resource("jaxopt_tour.tour.report", "page.css")}
</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
<p class="facts">{steps}</p>
{_findings(rows[-1])}
</header>
<main>
{sections}
</main>
</body>
</html>
"""


def _step(row: Mapping[str, Any]) -> float:
    return float(row.get("step", row.get("measured_at")))


def _findings(last: Mapping[str, Any]) -> str:
    """What `jt.diagnose` says about the last measurement."""
    numbers = {key: value for key, value in last.items() if isinstance(value, (int, float))}
    sentences = diagnose(numbers)
    if not sentences:
        return '<p class="lead">Nothing stands out in the last measurement.</p>'
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f'<p class="lead">In the last measurement:</p><ul class="notice">{items}</ul>'


def _lines(rows: Sequence[Mapping[str, Any]], prefix: str) -> Lines:
    """Points (step, value) by what comes after the prefix."""
    lines: Lines = {}
    for row in rows:
        for key, value in row.items():
            number = finite(value)
            if key.startswith(prefix) and number is not None:
                lines.setdefault(key.removeprefix(prefix), []).append((_step(row), number))
    return lines


def _section(metric: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Two charts of one metric: by role, and by parameter; nothing if there are no numbers."""
    by_role, by_parameter = _lines(rows, f"{metric}_by_role/"), _lines(rows, f"{metric}/")
    if not by_role and not by_parameter:
        return ""
    hidden = len(by_parameter) - MOST_LINES
    # The largest at the end first: what is left out is what matters least.
    shown = dict(sorted(by_parameter.items(), key=lambda line: -line[1][-1][1])[:MOST_LINES])
    note = f"; the {hidden} smallest are not drawn" if hidden > 0 else ""
    charts = [
        (by_role, "by role", True),
        (shown, f"by parameter, named where the pointer rests{note}", False),
    ]
    figures = "".join(
        f"<figure><figcaption>{escape(TITLES[metric])} <span>{escape(text)}</span></figcaption>"
        f"{_legend(lines) if named else ''}{_chart(lines, TITLES[metric], metric not in LINEAR)}</figure>"
        for lines, text, named in charts
        if lines
    )
    return f'<section><h2>{escape(TITLES[metric])}</h2><div class="charts">{figures}</div></section>'


def _hue(index: int) -> tuple[str, str]:
    """Hue and dashes of a line: solid ones first."""
    solid_first = SPARE[::-1]
    return solid_first[index % len(solid_first)]


def _legend(lines: Lines) -> str:
    chips = []
    for index, name in enumerate(lines):
        hue, dash = _hue(index)
        swatch = (
            f'<svg class="swatch hue-{hue}" width="26" height="10" aria-hidden="true">'
            f'<line x1="1" y1="5" x2="25" y2="5" stroke-dasharray="{dash}"/></svg>'
        )
        chips.append(f"<span>{swatch}{escape(name.replace('_', ' '))}</span> ")
    return f'<p class="facts">{"".join(chips)}</p>'


def _chart(lines: Lines, title: str, logarithmic: bool) -> str:
    points = [point for line in lines.values() for point in line]
    values = [y for _, y in points if y > 0 or not logarithmic]
    low_x, high_x = min(x for x, _ in points), max(x for x, _ in points)
    if not values:  # all zero on a logarithmic axis
        logarithmic, values = False, [0.0]
    low, high = (min(values), max(values)) if logarithmic else (min(0.0, *values), max(values))
    if logarithmic:
        low, high = 10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high))
        high = high if high > low else 10 * low
    else:
        high = high if high > low else low + 1

    def across(x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * ((x - low_x) / (high_x - low_x) if high_x > low_x else 0.5)

    def up(y: float) -> float:
        share = math.log(max(y, low) / low) / math.log(high / low) if logarithmic else (y - low) / (high - low)
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * share

    parts = []
    for tick in _ticks(low, high, logarithmic):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(tick):.1f}" y2="{up(tick):.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{up(tick) + 4:.1f}" text-anchor="end">{tick:.3g}</text>')
    for x, anchor in ((low_x, "start"), (high_x, "end")):
        parts.append(f'<text x="{across(x):.1f}" y="{HEIGHT - 16}" text-anchor="{anchor}">{x:,.0f}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH) / 2:.0f}" y="{HEIGHT - 2}" text-anchor="middle">step</text>')
    for index, (name, line) in enumerate(lines.items()):
        hue, dash = _hue(index)
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in line)
        dots = "".join(f'<circle class="end" cx="{across(x):.1f}" cy="{up(y):.1f}" r="2"/>' for x, y in line[-1:])
        parts.append(
            f'<g class="hue-{hue}"><title>{escape(name)}: {line[-1][1]:.4g}</title>'
            f'<polyline class="line" stroke-dasharray="{dash}" points="{path}"/>{dots}</g>'
        )
    return (
        f'<div class="plot"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg></div>"
    )


def _ticks(low: float, high: float, logarithmic: bool) -> list[float]:
    if logarithmic:
        first, last = round(math.log10(low)), round(math.log10(high))
        return [10.0**power for power in range(first, last + 1, max(1, (last - first) // 5))]
    step = 10.0 ** math.floor(math.log10(high - low))
    step = next(step * factor for factor in (0.2, 0.5, 1.0, 2.0) if (high - low) / (step * factor) <= 6)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
