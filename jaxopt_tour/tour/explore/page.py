"""The page to play with: one HTML file with every landscape, every rule, and the questions that they answer.

Python brings the data (formulas, boxes, minima, rates, coefficients, equations) and escapes it; the scripts beside this
file compute and draw. `rules.js` and `landscapes.js` are the library's rules and functions once more, and a test
runs them against the library.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import string
from collections.abc import Iterator
from html import escape
from typing import Any, Final

import numpy as np

import jaxopt_tour as jt
from jaxopt_tour.problems.landscape import Landscape
from jaxopt_tour.problems.landscapes import LANDSCAPES, make_landscape
from jaxopt_tour.tour.explore import weight
from jaxopt_tour.tour.explore.mathml import mathml
from jaxopt_tour.tour.explore.optimizers import GENERATED, PUBLISHED, RULES, SETTINGS, Rule, make_coefficients
from jaxopt_tour.tour.explore.questions import QUESTIONS, Question
from jaxopt_tour.tour.explore.settings import read_settings
from jaxopt_tour.tour.explore.story import STORY
from jaxopt_tour.tour.pages import embedded, link_to, resource, write_page
from jaxopt_tour.tour.palette import LINES, style_sheet
from jaxopt_tour.tour.presets import SOURCE

TITLE: Final = "From SGD to Muon, step by step"
LEAD: Final = (
    "Optimizers run on this page by the same rules as in the library. Follow the eight steps, or change anything: the "
    "equation shows which term acts."
)
#: In the order in which they are read; later ones call earlier ones.
SCRIPTS: Final = (
    "matrices.js",
    "rules.js",
    "landscapes.js",
    "draw.js",
    "state.js",
    "map.js",
    "charts.js",
    "terms.js",
    "panel.js",
    "play.js",
    "python.js",
    "hash.js",
    "schulz.js",
    "weight.js",
    "guide.js",
    "questions.js",
    "start.js",
)
#: The post's settings under the names of the page, rates apart.
SOURCE_SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "sgd": {},
    "momentum": {"beta": 0.9},
    "nesterov": {"beta": 0.9},
    "adagrad": {"eps": 1e-8},
    "rmsprop": {"beta": 0.9, "eps": 1e-8},
    "rmsprop-centered": {"beta": 0.9, "eps": 1e-8},
    "adam": {"b1": 0.9, "b2": 0.999, "eps": 1e-8},
    "adamw": {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.01},
    "muon": {"beta": 0.95, "weight_decay": 0.01, "coefficients": "keller_jordan", "steps": 5},
}


def write_explore(path: str | os.PathLike[str], report: str | None = None) -> pathlib.Path:
    """Write the page in one move.

    Args:
        path: the HTML file; its folder is made where it is missing.
        report: address of the race's report, relative to this page; None: no link to it.

    Returns:
        The path.
    """
    return write_page(render(report), path)


def render(report: str | None = None) -> str:
    """The page as text: a whole HTML document.

    Args:
        report: address of the race's report, relative to this page; None: no link to it.
    """
    return string.Template(resource(__package__, "page.html")).substitute(
        title=TITLE,
        style=style_sheet() + resource("jaxopt_tour.tour.report", "page.css") + resource(__package__, "page.css"),
        script="\n".join(resource(__package__, name) for name in SCRIPTS),
        lead=escape(LEAD),
        report=link_to(report, "See the same optimizers race on real data"),
        landscapes=_options({name: make_landscape(name).title for name in LANDSCAPES}),
        coefficients=_options({name: name.replace("_", " ") for name in (*GENERATED, *PUBLISHED)}),
        dots="".join(_dot(number, step.title) for number, step in enumerate(STORY) if number),
        norms=_options({name: title for name, (title, *_) in weight.NORMS.items()}),
        normkey=", ".join(
            f'<i class="named hue-{hue}">{escape(weight.SHORT[name])}</i>' for name, (_, hue, _) in weight.NORMS.items()
        ),
        templates="".join(_templates()),
        optimizers="".join(_optimizer(name, rule) for name, rule in RULES.items()),
        questions="".join(_question(number, question) for number, question in enumerate(QUESTIONS)),
        about=f"jaxopt-tour {escape(jt.__version__)}",
        data=embedded(_data()),
    )


def _options(titles: dict[str, str]) -> str:
    return "".join(f'<option value="{escape(name)}">{escape(title)}</option>' for name, title in titles.items())


def _optimizer(name: str, rule: Rule) -> str:
    hue, dash = LINES[name]
    swatch = (
        f'<svg class="swatch hue-{hue}" width="26" height="10" aria-hidden="true">'
        f'<line x1="1" y1="5" x2="25" y2="5" stroke-dasharray="{dash}"/></svg>'
    )
    title = escape(rule.title)
    return (
        f'<div class="one hue-{hue}" data-name="{name}"><input type="checkbox" aria-label="Show {title}">'
        f'<button type="button" aria-pressed="false" title="Settings and equation of {title}">{swatch}{title}</button>'
        f"</div>"
    )


def _dot(number: int, title: str) -> str:
    title = escape(title)
    return (
        f'<button type="button" data-step="{number}" title="{title}" aria-label="{number}: {title}">{number}</button>'
    )


def _templates() -> Iterator[str]:
    """Equations and formulas, for the scripts to clone. A line that needs switches names them."""
    for name, rule in RULES.items():
        lines = []
        for line in rule.equation:
            condition, found, equation = line.rpartition("? ")
            when = f' data-when="{escape(condition)}"' if found else ""
            lines.append(f"<div{when}>{mathml(equation)}</div>")
        yield f'<template id="equation-{name}">{"".join(lines)}</template>'
    for name in LANDSCAPES:
        # A line breaks between formulas, not inside of one.
        parts = (mathml(part) for part in make_landscape(name).formula.split(",  "))
        yield f'<template id="formula-{name}">{", ".join(parts)}</template>'


def _question(number: int, question: Question) -> str:
    """A question with its options in a fixed mixed order; the reply appears below the option that is chosen."""
    turned = number % len(question.options)
    options = "".join(
        f'<li><button type="button" data-right="{str(reply == question.options[0][1]).lower()}">{escape(text)}</button>'
        f"<p hidden>{escape(reply)}</p></li>"
        for text, reply in (*question.options[turned:], *question.options[:turned])
    )
    return (
        f'<li class="question"><h3>{escape(question.text)}</h3><ul>{options}</ul>'
        f'<p class="after" aria-live="polite"></p>'
        f'<p><button type="button" class="again" hidden>Try again</button> '
        f'<button type="button" data-show="{escape(question.show)}">Show me</button></p></li>'
    )


def _data() -> dict[str, Any]:
    """What the scripts work on."""
    return {
        "landscapes": [_landscape(make_landscape(name)) for name in LANDSCAPES],
        "optimizers": [
            {
                "name": name,
                "title": rule.title,
                "call": rule.call,
                "arguments": rule.arguments,
                "hue": LINES[name][0],
                "dash": LINES[name][1],
                "settings": rule.settings,
                "note": rule.note,
                "shown": rule.shown,
                "decoupled": "weight_decay" in rule.settings,
            }
            for name, rule in RULES.items()
        ],
        "settings": {
            name: {
                "label": one.label,
                "scale": one.scale,
                "low": one.low,
                "high": one.high,
                "off": one.off,
                "on": one.on,
            }
            for name, one in SETTINGS.items()
        },
        "coefficients": {name: _coefficients(name) for name in (*GENERATED, *PUBLISHED)},
        "weight": weight.data(),
        "story": [dataclasses.asdict(step) for step in STORY],
        "preset": {
            "landscape": SOURCE.landscape,
            "start": SOURCE.start,
            "steps": SOURCE.steps,
            "settings": {name: {"rate": SOURCE.rates[name], **own} for name, own in SOURCE_SETTINGS.items()},
        },
    }


def _landscape(landscape: Landscape) -> dict[str, Any]:
    known = read_settings()[landscape.name]
    plane = landscape.plane
    found = {
        "name": landscape.name,
        "title": landscape.title,
        "formula": landscape.formula,
        "about": landscape.about,
        "source": landscape.source,
        "start": landscape.start,
        "box": landscape.box,
        "plane": {name: getattr(plane, name).ravel().tolist() for name in ("origin", "first", "second")},
        "points": known["points"],
        "rates": known["rates"],
    }
    if len(landscape.shape) == 2:
        found["gram"] = np.asarray(landscape.gram).ravel().tolist()
    return found


def _coefficients(name: str) -> dict[str, Any]:
    """The polynomials for one to eight steps, or those of a published table, which has a fixed number of them."""
    by_steps = [make_coefficients(name, steps) for steps in ((8,) if name in PUBLISHED else range(1, 9))]
    fixed = len(by_steps[0].polynomials) if name in PUBLISHED else None
    return {
        "prescale": by_steps[0].prescale,
        "fixed": fixed,
        "steps": [coefficients.polynomials for coefficients in by_steps],
    }
