"""The offline page of a race: one HTML file that loads nothing from outside itself.

Python decides what is shown and escapes it; `page.js` draws the curves from the numbers embedded in the page, and
makes the legend, the table's columns and the values under the pointer work.
"""

from __future__ import annotations

import math
import os
import pathlib
import string
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final

from jaxopt_tour.tour.pages import embedded, link_to, resource, write_page
from jaxopt_tour.tour.palette import style_sheet
from jaxopt_tour.tour.report.headline import shown_at_first, standing
from jaxopt_tour.tour.report.series import Series, Spread, series_of

LEAD = (
    "Optimizers from SGD to Muon train the same Flax models on the same real data: same initial parameters, same "
    "batches in the same order, same schedule, each at the learning rate that was tuned for it. Steps are not seconds, "
    "so every curve is drawn against both."
)
MEASURE_NAMES = {
    "validation_loss": "Validation loss",
    "train_loss": "Training loss",
    "validation_accuracy": "Accuracy",
}


def write_report(
    results: Mapping[str, Any],
    path: str | os.PathLike[str],
    tour: str | None = None,
    files: Mapping[str, str] | None = None,
) -> pathlib.Path:
    """Write the page of a race in one move: a killed run leaves the old file or the new one.

    Args:
        results: what the race wrote to `results.json`.
        path: the HTML file; its folder is made where it is missing.
        tour: address of the page to play with, relative to this one; None: no link to it.
        files: addresses of the numbers by their kind, such as {"JSON": "results.json"}; None: no links.

    Returns:
        The path.

    Raises:
        ValueError: `results` is of another format.
    """
    return write_page(render(results, tour, files), path)


def render(results: Mapping[str, Any], tour: str | None = None, files: Mapping[str, str] | None = None) -> str:
    """The page as text.

    Args:
        results: what the race wrote to `results.json`.
        tour: address of the page to play with, relative to this one; None: no link to it.
        files: addresses of the numbers by their kind, such as {"JSON": "results.json"}; None: no links.

    Returns:
        The whole HTML document.

    Raises:
        ValueError: `results` is of another format.
    """
    if results.get("format") != 1:
        raise ValueError(f"results must have format 1, got {results.get('format')!r}")
    tasks = [(name, task, series_of(task["runs"])) for name, task in results["tasks"].items()]
    data = [_data(task, series) for _, task, series in tasks]
    return string.Template(resource(__package__, "page.html")).substitute(
        title="A race from SGD to Muon",
        style=style_sheet() + resource(__package__, "page.css"),
        script=resource(__package__, "page.js"),
        lead=escape(LEAD),
        tour=link_to(tour, "See what each rule does, step by step, on landscapes to play with"),
        facts=_facts(results) + _files(files or {}),
        glance=_glance(tasks),
        tasks="\n".join(_task(index, *task) for index, task in enumerate(tasks)),
        claims=_claims(results.get("claims") or []),
        about=_about(results),
        data=embedded(data),
    )


def _data(task: Mapping[str, Any], series: Sequence[Series]) -> dict[str, Any]:
    """What `page.js` draws for one task."""
    return {
        "title": task["title"],
        "series": [
            {"label": one.label, "hue": one.hue, "dash": one.dash, "diverged": bool(one.diverged), **one.curves()}
            for one in series
        ],
    }


# -- numbers as text ---------------------------------------------------------------------------------------------------


def _number(value: float, digits: int = 4) -> str:
    """A number in about `digits` digits, whole numbers with separators."""
    if value and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}g}"
    if float(value).is_integer():
        return f"{value:,.0f}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    return text


def _short_number(value: float) -> str:
    """The same without zeros at the end: learning rates, settings."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _spread(spread: Spread, text: Any = _number) -> str:
    """The mean, and the range over seeds where there is one."""
    if spread.mean is None:
        return "&ndash;"
    shown = f"<b>{escape(text(spread.mean))}</b>"
    if spread.count > 1:
        shown += f' <span class="range">{escape(text(spread.low))} to {escape(text(spread.high))}</span>'
    return shown


# -- the parts of the page ---------------------------------------------------------------------------------------------


def _facts(results: Mapping[str, Any]) -> str:
    machine, versions = results.get("machine") or {}, results.get("versions") or {}
    cores = machine.get("cores") or machine.get("cpu_count")
    parts = [str(results.get("created", ""))[:16].replace("T", " ")]
    parts += [str(machine[key]) for key in ("processor", "cpu", "device") if machine.get(key)][:2]
    parts += [f"{cores} cores"] if cores else []
    parts += [f"{name} {versions[name]}" for name in ("jax", "flax", "optax") if name in versions]
    return " &middot; ".join(escape(part) for part in parts if part)


def _files(files: Mapping[str, str]) -> str:
    links = ", ".join(f'<a href="{escape(address)}">{escape(kind)}</a>' for kind, address in files.items())
    return f" &middot; all numbers as {links}" if links else ""


def _swatch(one: Series) -> str:
    """The optimizer's line, as drawn."""
    return (
        f'<svg class="swatch hue-{one.hue}" width="26" height="10" aria-hidden="true">'
        f'<line x1="1" y1="5" x2="25" y2="5" stroke-dasharray="{one.dash}"/></svg>'
    )


def _glance(tasks: Sequence[tuple[str, Mapping[str, Any], Sequence[Series]]]) -> str:
    """One sentence a task: which optimizer ended lowest, and which are tied with it."""
    items = []
    for index, (_, task, series) in enumerate(tasks):
        found = standing(series)
        if found is not None:
            first, text = found
            text = f"{_swatch(first)} <b>{escape(first.label)}</b> {escape(text)}"
            items.append(f'<li><a href="#task-{index}">{escape(task["title"])}</a><span>{text}</span></li>')
    return f'<ul class="glance" aria-label="At a glance">{"".join(items)}</ul>' if items else ""


def _task(index: int, name: str, task: Mapping[str, Any], series: Sequence[Series]) -> str:
    measures = ["validation_loss", "train_loss"]
    if task.get("metric") == "accuracy" and any("validation_accuracy" in one.curves() for one in series):
        measures.append("validation_accuracy")
    seeds = sorted({run["seed"] for one in series for run in one.runs})
    facts = [
        f"{task['parameters']:,} parameters",
        str(task.get("batch") or ""),
        f"{max((run['steps'] for one in series for run in one.runs), default=0):,} steps",
        "1 seed" if len(seeds) == 1 else f"mean and range of {len(seeds)} seeds",
    ]
    radios = "".join(
        f'<label><input type="radio" name="measure-{index}" value="{measure}"{" checked" if not position else ""}>'
        f"<span>{MEASURE_NAMES[measure]}</span></label>"
        for position, measure in enumerate(measures)
    )
    chips = "".join(
        f'<label class="chip" data-series="{position}"><input type="checkbox"{" checked" if shown else ""}>'
        f"<span>{_swatch(one)}{escape(one.label)}</span></label>"
        for position, (one, shown) in enumerate(zip(series, shown_at_first(series), strict=True))
    )
    routing = task.get("routing")
    details = (
        f"<details><summary>Routing: which parameter goes to Muon, seen as which matrix</summary>"
        f'<div class="scroll" tabindex="0" role="region" aria-label="Routing table">'
        f"<pre>{escape(str(routing))}</pre></div></details>"
        if routing
        else ""
    )
    return f"""<section class="task" id="task-{index}" data-task="{index}" data-name="{escape(name)}">
<h2>{escape(task["title"])}</h2>
<p class="facts">{" &middot; ".join(escape(fact) for fact in facts if fact)}</p>
<div class="controls">
<fieldset class="measures"><legend class="hidden">What the charts show</legend>{radios}</fieldset>
<fieldset class="legend"><legend class="hidden">Optimizers shown</legend>{chips}
<span class="all-or-none"><button type="button" class="all" data-all>all</button>
<button type="button" class="all" data-none>none</button></span></fieldset>
</div>
<div class="charts">
<figure class="chart" data-x="step"><figcaption></figcaption><div class="plot"></div></figure>
<figure class="chart" data-x="seconds"><figcaption></figcaption><div class="plot"></div></figure>
</div>
{_table(task, series)}
{details}
</section>"""


#: Headers and their explanations.
COLUMNS = {
    "optimizer": "",
    "final validation loss": "cross-entropy in nats at the end of the run",
    "accuracy": "share of the held-out examples that are classified correctly",
    "learning rate": "the peak of the schedule",
    "ms per step": "milliseconds of one whole training step",
    "optimizer's share": "part of the step's time that the optimizer's update takes",
    "state, bytes per parameter": "memory that the optimizer keeps between steps",
    "seconds": "of the whole run",
}


def _table(task: Mapping[str, Any], series: Sequence[Series]) -> str:
    accuracy = task.get("metric") == "accuracy"
    finals = [one.final("validation_loss") for one in series]
    rows = []
    for position, (one, final) in enumerate(zip(series, finals, strict=True)):
        rate = _short_number(one.runs[0]["learning_rate"])
        cells = [f'<th scope="row" data-value="{escape(one.label)}">{_swatch(one)}{escape(one.label)}</th>']
        if one.diverged:
            of = f" ({one.diverged} of {len(one.runs)} seeds)" if len(one.runs) > 1 else ""
            cells.append(f'<td data-value=""><span class="diverged">diverged{of}</span></td>')
        else:
            cells.append(f'<td data-value="{final.mean}">{_dot_plot(one, final, finals)}{_spread(final)}</td>')
        if accuracy:
            cells.append(_cell(one.final("validation_accuracy"), _percent))
        cells.append(f'<td data-value="{one.runs[0]["learning_rate"]}">{rate}</td>')
        cells.append(_cell(one.cost("milliseconds_per_step"), lambda value: _number(value, 3), ranged=False))
        cells.append(_cell(one.cost("optimizer_share"), _percent, ranged=False))
        cells.append(_cell(one.cost("state_bytes_per_parameter"), lambda value: f"{value:.2f}", ranged=False))
        cells.append(_cell(one.cost("seconds"), lambda value: _number(value, 3), ranged=False))
        rows.append(f'<tr data-series="{position}">{"".join(cells)}</tr>')
    heads = "".join(
        f'<th scope="col"{" aria-sort=ascending" if name == "final validation loss" else ""}>'
        f'<button type="button" title="{escape(note)}">{escape(name)}</button></th>'
        for name, note in COLUMNS.items()
        if accuracy or name != "accuracy"
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Results: {escape(task["title"])}">'
        f'<table class="results"><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _cell(spread: Spread, text: Any, ranged: bool = True) -> str:
    if not ranged:
        spread = Spread(spread.mean, spread.mean, spread.mean, 1)
    return f'<td data-value="{"" if spread.mean is None else spread.mean}">{_spread(spread, text)}</td>'


def _dot_plot(one: Series, final: Spread, finals: Iterable[Spread]) -> str:
    """The final loss on an axis that all rows share, logarithmic, with the range over seeds."""
    known = [(low, high) for low, high in ((spread.low, spread.high) for spread in finals) if low and high and low > 0]
    if not known or not final.mean or final.mean <= 0 or not final.low or not final.high:
        return ""
    bottom, top = math.log(min(low for low, _ in known)), math.log(max(high for _, high in known))

    def place(value: float) -> float:
        return 5 + 110 * ((math.log(value) - bottom) / (top - bottom) if top > bottom else 0.5)

    return (
        f'<svg class="dots hue-{one.hue}" width="120" height="14" aria-hidden="true">'
        f'<line class="rule" x1="5" y1="7" x2="115" y2="7"/>'
        f'<line x1="{place(final.low):.1f}" y1="7" x2="{place(final.high):.1f}" y2="7"/>'
        f'<circle cx="{place(final.mean):.1f}" cy="7" r="3.5"/></svg>'
    )


def _claims(claims: Sequence[Mapping[str, Any]]) -> str:
    items = []
    for claim in claims:
        verdict = ("holds", "&#10003; holds") if claim["holds"] else ("fails", "&#10007; does not hold")
        numbers = _definitions(claim.get("numbers") or {})
        items.append(
            f'<li><p><span class="verdict {verdict[0]}">{verdict[1]}</span> {escape(str(claim["text"]))}</p>'
            f"{numbers}</li>"
        )
    return (
        f'<section><h2>What was claimed beforehand</h2><ul class="claims">{"".join(items)}</ul></section>'
        if items
        else ""
    )


def _about(results: Mapping[str, Any]) -> str:
    parts = [
        ("Machine", results.get("machine") or {}),
        ("Versions", {"revision": results.get("revision") or "not a repository", **(results.get("versions") or {})}),
        ("Settings", {"created": results.get("created", ""), **_in_words(results.get("settings") or {})}),
    ]
    return "".join(f"<section><h3>{title}</h3>{_definitions(values)}</section>" for title, values in parts)


#: What a setting of the race means where it is left to the race.
LEFT_OPEN: Final = {
    "optimizers": "all of each task",
    "steps": "each task's own number",
    "seeds": "each task's own number",
}


def _in_words(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a race as a person says them: what was left open by its meaning, seeds by their names."""
    found = {name: LEFT_OPEN.get(name, value) if value is None else value for name, value in settings.items()}
    if isinstance(seeds := settings.get("seeds"), int):
        found["seeds"] = "seed 0" if seeds == 1 else f"{seeds} seeds, 0 to {seeds - 1}"
    if settings.get("quick") is False:
        found.pop("quick")
    return found


def _definitions(values: Mapping[str, Any]) -> str:
    rows = "".join(f"<dt>{escape(_words(name))}</dt><dd>{escape(_value(value))}</dd>" for name, value in values.items())
    return f"<dl>{rows}</dl>" if rows else ""


def _words(name: Any) -> str:
    return str(name).replace("_", " ")


def _value(value: Any) -> str:
    """Anything that JSON holds, as a person writes it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return _short_number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{_words(name)}: {_value(item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_value(item) for item in value)
    return str(value)
