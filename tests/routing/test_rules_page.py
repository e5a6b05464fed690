"""docs/routing-rules.md prints what the library says, and its figures color the axes as the library does."""

from __future__ import annotations

import html
import importlib
import itertools
import pathlib
import re
import sys
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jaxopt_tour as jt
from jaxopt_tour.routing.by_use import user_rules
from jaxopt_tour.routing.by_use.trace import from_function
from tests.routing import zoo

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "routing-rules.md").read_text(encoding="utf-8")
EXAMPLE = re.compile(r"```python\n(.*?)```\n\n```\n(.*?)```\n", re.S)
PATTERN = re.compile(
    r"<details>\n<summary><b>(.*?)</b>: <code>(.*?)</code></summary>\n(.*?)</details>", re.S
)  # title, formula, text
EXAMPLES = EXAMPLE.findall(PAGE)
PATTERNS = {title: (html.unescape(formula), text) for title, formula, text in PATTERN.findall(PAGE)}


def drawing() -> ModuleType:
    sys.path.insert(0, str(ROOT / "benchmarks"))  # the scripts import each other by name
    try:
        return importlib.import_module("draw_routing_rules")
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


DRAWING = drawing()
PANELS = {panel.title: panel for panels in DRAWING.FIGURES.values() for panel in panels}


@pytest.fixture(autouse=True)
def rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_rules, "_FUNCTIONS", {})


def run(code: str, names: dict[str, Any] | None = None) -> dict[str, Any]:
    names = {} if names is None else dict(names)
    exec(compile(code, "docs/routing-rules.md", "exec"), names)
    return names


def test_every_snippet_is_an_example_with_its_table():
    assert len(EXAMPLES) == PAGE.count("```python\n") > 0


@pytest.mark.parametrize("index", range(len(EXAMPLES)))
def test_an_example_prints_its_table(index, capsys):
    names = run(EXAMPLES[0][0])
    if index:
        capsys.readouterr()
        run(EXAMPLES[index][0], names)
    assert capsys.readouterr().out == EXAMPLES[index][1]


def test_every_pattern_is_drawn_and_written_alike():
    assert {title: formula for title, (formula, _) in PATTERNS.items()} == {
        title: panel.formula for title, panel in PANELS.items()
    }


def test_every_figure_is_drawn_by_the_script_and_shown():
    shown = re.findall(r"!\[.+?\]\(figures/(\w+)\.svg\)", PAGE)
    assert shown == list(DRAWING.FIGURES)
    assert all((ROOT / "docs" / "figures" / f"{name}.svg").exists() for name in shown)


@pytest.mark.parametrize("title", PANELS)
def test_a_drawing_shows_the_route_of_its_example(title, monkeypatch):
    """The role, and the side of every axis before the parameter is split."""
    panel, calls = PANELS[title], []

    def recorded(fn, params, *inputs, split=None):
        routes = from_function(fn, params, *inputs)
        calls.append((params, routes))
        return routes

    names = run(EXAMPLES[0][0])
    monkeypatch.setattr(jt.routing, "from_function", recorded)
    (example,) = EXAMPLE.findall(PATTERNS[title][1])
    run(example[0], names)
    ((params, routes),) = calls
    for name in panel.parameters:
        route = routes[name]
        assert route.role == panel.role
        for item in panel.row:
            if isinstance(item, DRAWING.Bar) and name in item.name.split(", "):
                assert [*merged(drawn_sides(item))] == [*merged(sides(route.axes, params[name].shape))]
                assert route.pieces
                parts = len(dict.fromkeys(item.parts))
                assert any(re.search(rf"^{parts} (interleaved )?(parts|heads)", piece.what) for piece in route.pieces)
            elif isinstance(item, DRAWING.Array) and item.name == name:
                drawn = drawn_sides(item)
                if set(drawn) <= {"none", "rows", "both"}:
                    assert route.axes is None
                else:
                    assert drawn == sides(route.axes, params[name].shape)


def drawn_sides(item: Any) -> list[str]:
    if isinstance(item, DRAWING.Array):
        return [side for _, side in item.boxes()]
    before, after = (drawn_sides(DRAWING.Array("", axes)) for axes in (item.before, item.after))
    return [*before, item.side, *after]


def sides(axes: jt.MatrixAxes, shape: tuple[int, ...]) -> list[str]:
    by_axis = {**dict.fromkeys(axes.fan_in, "in"), **dict.fromkeys(axes.fan_out, "out")}
    return [by_axis.get(axis, "batch") for axis in range(len(shape))]


def merged(sides: list[str]) -> list[str]:
    return [side for side, _ in itertools.groupby(sides)]


def test_panels_fit_into_their_figure():
    for panel in PANELS.values():
        width = sum(DRAWING.measure(item) + DRAWING.GAP for item in panel.row)
        assert width <= DRAWING.WIDTH, panel.title


def test_the_batch_of_an_example_decides_what_learned_latents_are():
    def model(p, x):
        q = jnp.broadcast_to(p["latents"], (x.shape[0], 8, 64)) @ p["w"]
        scores = jax.nn.softmax(jnp.einsum("bli,bti->blt", q, x))
        return scores @ x @ p["head"]

    params = {"latents": zoo.floats(8, 64), "w": zoo.floats(64, 64), "head": zoo.floats(64, 10)}
    assert from_function(model, params, zoo.floats(2, 16, 64))["latents"].role == "position"
    assert from_function(model, params, zoo.floats(1, 16, 64))["latents"].role == "matrix"


def test_experts_that_are_averaged_before_use_are_one_matrix():
    def model(p, x):
        gates = jax.nn.softmax(x.mean(0) @ p["router"])
        return jnp.tanh(x @ jnp.einsum("e,eio->io", gates, p["w"])) @ p["head"]

    params = {"router": zoo.floats(64, 4), "w": zoo.floats(4, 64, 32), "head": zoo.floats(32, 10)}
    assert from_function(model, params, zoo.floats(16, 64))["w"].axes == jt.MatrixAxes(0, (1, 2))


@pytest.mark.parametrize(("first", "expected"), [(False, "embedding"), (True, "matrix")])
def test_a_low_rank_table_is_looked_up_before_or_after_its_product(first, expected):
    def model(p, ids):
        return jnp.tanh(p["a"][ids] @ p["b"] if first else (p["a"] @ p["b"])[ids]) @ p["head"]

    params = {"a": zoo.floats(100, 4), "b": zoo.floats(4, 64), "head": zoo.floats(64, 10)}
    assert from_function(model, params, zoo.tokens(16))["b"].role == expected
