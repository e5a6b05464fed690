"""The page to play with as a file: what it loads, and that its data are the library's."""

from __future__ import annotations

import json

import numpy as np
import pytest

from jaxopt_tour.problems.landscapes import LANDSCAPES, make_landscape
from jaxopt_tour.tour.explore import settings
from jaxopt_tour.tour.explore.mathml import mathml
from jaxopt_tour.tour.explore.optimizers import RULES, SETTINGS
from jaxopt_tour.tour.explore.page import SOURCE_SETTINGS, render, write_explore
from jaxopt_tour.tour.explore.questions import QUESTIONS
from jaxopt_tour.tour.explore.story import STORY
from jaxopt_tour.tour.palette import LINES
from jaxopt_tour.tour.presets import SOURCE
from jaxopt_tour.tour.rollout import rollout
from pages import Page


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(render("report.html"))


@pytest.fixture(scope="module")
def data(page) -> dict:
    return json.loads(page.raw["application/json"])


class TestFile:
    def test_is_one_small_file(self, tmp_path):
        path = write_explore(tmp_path / "new" / "tour.html")
        assert path.stat().st_size < 1_000_000 / 4  # under 1 MB, with room
        assert [each.name for each in path.parent.iterdir()] == ["tour.html"]

    def test_loads_nothing_from_outside(self, page):
        assert not any({"src", "srcset", "action", "data"} & set(attributes) for _, attributes in page.elements)
        assert [value["href"] for _, value in page.elements if "href" in value] == ["report.html"]
        assert not any(tag in ("link", "img", "iframe", "object", "base") for tag, _ in page.elements)
        assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
        assert "url(" not in page.raw["style"] and "@import" not in page.raw["style"]
        forbidden = ("fetch(", "XMLHttpRequest", "import(", "innerHTML", "eval(", "WebSocket", "localStorage")
        assert not any(name in page.raw["script"] for name in forbidden)
        (policy,) = (value["content"] for _, value in page.elements if value.get("http-equiv"))
        assert policy.startswith("default-src 'none';")

    def test_links_the_report_only_where_there_is_one(self):
        assert not any("href" in attributes for _, attributes in Page(render()).elements)

    def test_everything_that_can_be_used_has_a_name(self, page):
        labels = {value.get("for") for tag, value in page.elements if tag == "label"}
        text = render()
        for tag, value in page.elements:
            if tag in ("select", "input", "canvas") and "aria-label" not in value:
                marked = f'id="{value.get("id")}"'
                inside = any(marked in part.split("</label>")[0] for part in text.split("<label")[1:])
                # Pictures are named by the script, with what they show.
                assert value.get("id") in labels or inside or tag == "canvas", value
        assert all(value.get("role") for tag, value in page.elements if tag == "canvas")
        assert all(value.get("scope") == "col" for tag, value in page.elements if tag == "th")


class TestEquations:
    def test_notation_becomes_mathml(self):
        assert mathml("m̂ = m / {bias:(1 − β₁ᵗ)}") == (
            '<math displaystyle="true"><mover accent="true"><mi>m</mi><mo stretchy="false">^</mo></mover><mo>=</mo>'
            '<mfrac><mi>m</mi><mrow class="term" data-term="bias"><mn>1</mn><mo>−</mo>'
            "<msubsup><mi>β</mi><mn>1</mn><mi>t</mi></msubsup></mrow></mfrac></math>"
        )
        assert "<msqrt><mi>d</mi><mo>+</mo><mi>ε</mi></msqrt>" in mathml("√(d + ε)").replace("<mrow>", "").replace(
            "</mrow>", ""
        )

    @pytest.mark.parametrize("text", ["(m", "{bias:m", "/ m", "(m]"])
    def test_a_broken_equation_is_refused(self, text):
        with pytest.raises(ValueError, match="equation"):
            mathml(text)

    def test_a_line_waits_for_switches_of_its_rule(self):
        for rule in RULES.values():
            for line in rule.equation:
                condition, found, _ = line.rpartition("? ")
                for switch in condition.split() if found else ():
                    assert switch.removeprefix("!") in rule.settings, line


class TestData:
    def test_has_every_landscape_and_every_rule(self, data):
        assert [each["name"] for each in data["landscapes"]] == list(LANDSCAPES)
        assert [each["name"] for each in data["optimizers"]] == list(RULES)
        assert [(each["hue"], each["dash"]) for each in data["optimizers"]] == [LINES[name] for name in RULES]

    def test_settings_are_within_their_sliders(self):
        place = {
            "log": np.log10,
            "decay-rate": lambda value: -np.log10(1 - value),
            "zero-log": lambda value: np.log10(value) if value else -np.inf,
            "integer": float,
        }
        for rule in RULES.values():
            for name, value in rule.settings.items():
                if name == "coefficients":
                    continue
                one = SETTINGS[name]
                if one.scale == "switch":
                    assert value in (one.off, one.on) and one.off != one.on
                else:
                    at = place[one.scale](value)
                    assert at <= one.high and (at >= one.low or (one.scale == "zero-log" and value == 0)), name
        for known in settings.read_settings().values():
            assert all(-4 <= np.log10(rate) <= 1.001 for rate in known["rates"].values())

    def test_a_term_of_an_equation_is_one_the_page_explains(self, page):
        import re

        explained = set(re.findall(r"^  (\w+)(?:\(run, k\) \{|: \(run, k\) =>)", page.raw["script"], re.M))
        used = {value["data-term"] for _, value in page.elements if "data-term" in value}
        assert used and used <= explained

    def test_what_a_question_shows_exists(self, page):
        for show in (question.show for question in QUESTIONS):
            assert f'"{show}": ' in page.raw["script"] or f"  {show}: " in page.raw["script"]

    @pytest.mark.parametrize("name", LANDSCAPES)
    def test_points_are_those_that_the_library_computes(self, name):
        stored, computed = settings.read_settings()[name]["points"], settings.points_of(make_landscape(name))
        assert sorted(each[3] for each in stored) == sorted(each[3] for each in computed)
        places = [np.array(sorted(each[:3] for each in points)) for points in (stored, computed)]
        np.testing.assert_allclose(*places, atol=2e-5)  # they are stored with five digits

    def test_a_rate_is_the_one_that_the_search_finds(self):
        stored = settings.read_settings()["himmelblau"]["rates"]
        for name in ("sgd", "adam"):
            assert stored[name] == pytest.approx(settings.tuned_rate(make_landscape("himmelblau"), name))

    def test_rates_of_the_opening_are_those_that_the_search_finds(self):
        bench = STORY[0].bench
        for name, values in bench["values"].items():
            others = {key: value for key, value in values.items() if key != "rate"}
            found = settings.opening_rate(make_landscape(bench["landscape"]), name, bench["steps"], **others)
            assert values["rate"] == pytest.approx(found)

    def test_the_sources_settings_are_the_presets(self):
        # Built under the page's names, the optimizers take the preset's steps.
        landscape = make_landscape(SOURCE.landscape)
        assert list(SOURCE_SETTINGS) == list(SOURCE.optimizers)
        for name, own in SOURCE_SETTINGS.items():
            made = RULES[name].make(SOURCE.rates[name], **{**RULES[name].settings, **own})
            ours, theirs = (rollout(tx, landscape, 40).params for tx in (made, SOURCE.make(name)))
            np.testing.assert_allclose(ours, theirs, atol=2e-4 if name == "muon" else 1e-6)  # Muon: eps 1e-7, not 0
