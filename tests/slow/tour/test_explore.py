"""The page to play with in a browser: its rules, its controls and its manners."""

from __future__ import annotations

import functools
import itertools
import json
import pathlib
from collections.abc import Iterator

import jax
import numpy as np
import pytest

from chromium import BROWSER, MISSING, Browser, browser
from jaxopt_tour.problems.landscapes import LANDSCAPES, make_landscape
from jaxopt_tour.tour.explore.optimizers import COEFFICIENTS, RULES
from jaxopt_tour.tour.explore.page import write_explore
from jaxopt_tour.tour.explore.questions import QUESTIONS
from jaxopt_tour.tour.rollout import rollout


@pytest.fixture(scope="module")
def tab(tmp_path_factory) -> Iterator[Browser]:
    if BROWSER is None:
        pytest.skip(MISSING)
    folder = tmp_path_factory.mktemp("browser")
    path = write_explore(folder / "tour.html", "report.html")
    with browser(folder / "profile") as one:
        one.resize(1200, 900)
        one.open(path)
        one.settle()
        yield one
        assert one.messages == []
        assert set(one.requests) == {path.as_uri()}


def set_control(tab: Browser, name: str, value: object, kind: str) -> None:
    tab.evaluate(
        f"(() => {{ const node = document.getElementById({json.dumps(name)}); node.value = {json.dumps(str(value))};"
        f" node.dispatchEvent(new Event({json.dumps(kind)}, {{bubbles: true}})); }})()"
    )


def click(tab: Browser, selector: str) -> None:
    tab.evaluate(f"document.querySelector({json.dumps(selector)}).click()")


def inside(tab: Browser, name: str, right: float, down: float) -> tuple[float, float]:
    """A place in an element, as shares of its width and height, once it is in sight."""
    left, top, width, height = tab.evaluate(
        f"(() => {{ const node = document.getElementById({json.dumps(name)}); node.scrollIntoView({{block: 'center'}});"
        " const box = node.getBoundingClientRect(); return [box.x, box.y, box.width, box.height]; })()"
    )
    return left + right * width, top + down * height


PIXELS = "[...document.querySelectorAll('canvas')].map((canvas) => canvas.toDataURL()).join(' ')"


def everything(tab: Browser) -> str:
    """What a reader sees: all text, all pictures, all values."""
    tab.settle()
    values = "[...document.querySelectorAll('select, input')].map((each) => each.value + each.checked).join(' ')"
    return "\n".join(tab.evaluate(each) for each in ("document.body.innerText", values, PIXELS))


@pytest.fixture
def fresh(tab: Browser) -> Browser:
    tab.evaluate(
        "(() => { const v = tour.view; v.landscape = 'styblinski-tang'; v.steps = 300; v.chosen = 'adam';"
        " v.shown = new Set(['sgd', 'momentum', 'adam', 'adamw', 'muon']); tour.settle('tuned'); tour.refresh(); })()"
    )
    return tab


class TestRulesOfThePage:
    @pytest.mark.parametrize("name", LANDSCAPES)
    def test_landscapes_are_the_librarys(self, tab, name):
        landscape = make_landscape(name)
        at = np.random.default_rng(1).uniform(*np.transpose(landscape.box), size=(20, 2))
        found = tab.evaluate(
            f"(() => {{ const one = tour.landscapes.get({json.dumps(name)}); return {json.dumps(at.tolist())}"
            ".map((at) => { const p = one.params(at); return [one.f(p), one.gradient(p), one.coordinates(p)]; }); })()"
        )
        for place, (value, gradient, coordinates) in zip(at, found, strict=True):
            x = landscape.init(place)
            # The library's are in float32: seven digits of the largest term of a sum.
            size = 1 + abs(float(landscape.fn(x)))
            np.testing.assert_allclose(value, landscape.fn(x), rtol=1e-4, atol=1e-5 * size)
            expected = np.asarray(jax.grad(landscape.fn)(x)).ravel()
            np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-4 * (1 + np.abs(expected).max()))
            np.testing.assert_allclose(coordinates, place, atol=1e-9)

    @pytest.mark.parametrize("name", RULES)
    def test_rules_are_the_librarys(self, tab, name):
        # Rates at which runs are smooth: where a rule is chaotic, two right programs part.
        rates = {"adadelta": 1.0, "sgd": 0.003, "momentum": 0.001, "nesterov": 0.001}
        beta = 0.95 if name in ("adadelta", "rmsprop", "rmsprop-centered") else 0.8
        other = {"l2": 0.05, "weight_decay": 0.05, "beta": beta, "b1": 0.8, "b2": 0.95, "eps": 1e-3}
        for problem, changes in itertools.product(("styblinski-tang", "matrix-regression", "himmelblau"), ({}, other)):
            landscape = make_landscape(problem)
            values = {key: changes.get(key, value) for key, value in RULES[name].settings.items()}
            rate = rates.get(name, 0.02)
            library = np.asarray(rollout(RULES[name].make(rate, **values), landscape, 60).params).reshape(61, -1)
            chosen = {"rate": rate, **values}
            if name == "muon":
                coefficients = COEFFICIENTS[values["coefficients"]](values["steps"])
                chosen |= {"polynomials": coefficients.polynomials, "prescale": coefficients.prescale}
            found = tab.evaluate(
                f"tour.Rules.run({json.dumps(name)}, tour.landscapes.get({json.dumps(problem)}),"
                f" {json.dumps(landscape.start)}, {json.dumps(chosen)}, 60).x"
            )
            # float32 against float64: 60 roundings of parameters near 4, each 2.4e-7, and of the gradients that they
            # pass through; RMSProp centered divides by a difference of nearly equal squares.
            atol = 5e-3 if name == "rmsprop-centered" else 2e-4
            np.testing.assert_allclose(found, library, atol=atol, err_msg=f"{problem} {changes}")

    @pytest.mark.parametrize(("coefficients", "steps"), [("polar_express", 5), ("keller_jordan", 3), ("cubic", 8)])
    def test_newton_schulz_is_the_librarys(self, tab, coefficients, steps):
        import jaxopt_tour as jt

        made = COEFFICIENTS[coefficients](steps)
        for shape in ((2, 2), (2, 1), (3, 5)):
            x = np.random.default_rng(0).normal(size=shape)
            call = functools.partial(json.dumps, separators=(",", ":"))
            found = tab.evaluate(
                f"tour.Rules.orthogonalize({call(x.ravel().tolist())}, {call(shape)}, {call(made.polynomials)},"
                f" {call(made.prescale)})"
            )
            np.testing.assert_allclose(
                np.reshape(found, shape), jt.orthogonalize(jax.numpy.asarray(x), made), atol=2e-5
            )

    def test_singular_values_shown_are_those_of_the_matrix_shown(self, tab):
        found = tab.evaluate("tour.schulzSteps().found.map((each) => [each.x, each.values])")
        assert len(found) == 6
        for x, values in found:
            np.testing.assert_allclose(
                np.linalg.svd(np.reshape(x, (8, 8)), compute_uv=False), np.sort(values)[::-1], atol=1e-9
            )
        assert max(found[0][1]) / min(found[0][1]) == pytest.approx(128)
        assert max(abs(np.array(found[-1][1]) - 1)) < 0.02  # flat


class TestControls:
    @pytest.mark.parametrize(
        ("name", "value", "kind"),
        [
            *(("landscape", name, "change") for name in list(LANDSCAPES)[1:]),
            ("preset", "source", "change"),
            ("length", "100", "change"),
            ("time", "7", "input"),
            ("quantity", "state", "change"),
            ("quantity", "angles", "change"),
            ("quantity", "spectrum", "change"),
            ("set-rate", "-1.5", "input"),
            ("set-b1", "0.4", "input"),
            ("set-b2", "1", "input"),
            ("set-eps", "0", "input"),
            ("set-l2", "-0.3", "input"),
            ("matrix", "power", "change"),
            ("matrix", "deficient", "change"),
            ("matrix", "run", "change"),
            ("coefficients", "keller_jordan", "change"),
            ("schulz-steps", "3", "input"),
            ("schulz-at", "2", "input"),
        ],
    )
    def test_every_control_does_something(self, fresh, name, value, kind):
        before = everything(fresh)
        old = fresh.evaluate(f"document.getElementById({json.dumps(name)}).value")
        set_control(fresh, name, value, kind)
        assert everything(fresh) != before
        set_control(fresh, name, old, kind)

    @pytest.mark.parametrize("name", RULES)
    def test_every_optimizer_can_be_shown_and_chosen(self, fresh, name):
        click(fresh, f'.one[data-name="{name}"] button')
        assert fresh.evaluate("document.getElementById('chosen').textContent") == RULES[name].title
        assert fresh.evaluate(f"tour.view.shown.has({json.dumps(name)})")
        equation = fresh.evaluate("document.getElementById('equation').innerText")
        assert "θ ← θ" in equation.replace("\n", " ") and "{" not in equation
        assert fresh.evaluate("document.querySelectorAll('.term.most').length") >= 1
        before = everything(fresh)
        click(fresh, f'.one[data-name="{name}"] input')
        assert not fresh.evaluate(f"tour.view.shown.has({json.dumps(name)})") and everything(fresh) != before

    @pytest.mark.parametrize("name", ["set-beta", "set-weight_decay", "set-steps", "set-coefficients"])
    def test_muons_settings(self, fresh, name):
        set_control(fresh, "landscape", "matrix-regression", "change")
        click(fresh, '.one[data-name="muon"] button')
        before = json.dumps(fresh.evaluate("tour.runs().get('muon').x"))
        value = {"set-beta": "0.3", "set-weight_decay": "-0.5", "set-steps": "1", "set-coefficients": "cubic"}[name]
        set_control(fresh, name, value, "change" if name == "set-coefficients" else "input")
        assert json.dumps(fresh.evaluate("tour.runs().get('muon').x")) != before
        assert fresh.evaluate("document.getElementById('preset').value") == "own"
        click(fresh, "#reset")
        assert json.dumps(fresh.evaluate("tour.runs().get('muon').x")) == before

    @pytest.mark.parametrize("show", [show for _, _, show in QUESTIONS if show])
    def test_every_question_can_be_looked_at(self, fresh, show):
        before = everything(fresh)
        click(fresh, f'[data-show="{show}"]')
        assert everything(fresh) != before

    def test_adam_is_adamw_without_decay(self, fresh):
        click(fresh, '[data-show="adam-from-adamw"]')
        assert fresh.evaluate(
            "JSON.stringify(tour.runs().get('adam').x) === JSON.stringify(tour.runs().get('adamw').x)"
        )
        click(fresh, '[data-show="adam-adamw"]')
        assert fresh.evaluate(
            "JSON.stringify(tour.runs().get('adam').x) !== JSON.stringify(tour.runs().get('adamw').x)"
        )

    def test_a_click_chooses_the_start_and_a_pointer_finds_its_step(self, fresh):
        fresh.point(*inside(fresh, "map", 0.25, 0.5), click=True)
        np.testing.assert_allclose(fresh.evaluate("tour.view.start"), [-2.5, 0], atol=0.05)
        # Over the start, every path is at step 0; the charts and the table follow.
        x, y = inside(fresh, "map", 0.25, 0.5)
        fresh.point(x + 1, y)
        assert fresh.evaluate("tour.view.hover") == 0
        assert fresh.evaluate("document.getElementById('step').textContent") == "step 0"
        fresh.point(*inside(fresh, "loss", 0.5, 0.5))
        assert 120 < fresh.evaluate("tour.view.hover") < 180
        fresh.point(*inside(fresh, "detail", 0.5, 0.5), click=True)
        assert 120 < fresh.evaluate("tour.view.t") < 180
        fresh.point(1, 1)
        assert fresh.evaluate("tour.view.hover") is None

    def test_keys_move_the_start_and_start_the_time(self, fresh):
        fresh.evaluate("document.getElementById('map').focus()")
        fresh.press("ArrowLeft", 37)
        np.testing.assert_allclose(fresh.evaluate("tour.view.start"), [3.9, 4.5], atol=1e-9)
        assert "Start at 3.9" in fresh.evaluate("document.getElementById('live').textContent")
        fresh.evaluate("document.activeElement.blur()")
        fresh.press(" ", 32)
        assert (
            fresh.evaluate("tour.view.playing")
            and fresh.evaluate("document.getElementById('play').textContent") == "Pause"
        )
        fresh.press(" ", 32)
        assert not fresh.evaluate("tour.view.playing")

    def test_time_can_be_played_stopped_and_stepped(self, fresh):
        set_control(fresh, "time", 10, "input")
        click(fresh, "#forward")
        assert fresh.evaluate("tour.view.t") == 11
        click(fresh, "#back")
        click(fresh, "#back")
        assert fresh.evaluate("tour.view.t") == 9
        set_control(fresh, "speed", "4", "change")
        click(fresh, "#play")
        fresh.evaluate("new Promise((done) => setTimeout(() => done(1), 600))")
        assert fresh.evaluate("tour.view.t") > 9
        click(fresh, "#play")
        stopped = fresh.evaluate("tour.view.t")
        fresh.evaluate("new Promise((done) => setTimeout(() => done(1), 150))")
        assert fresh.evaluate("tour.view.t") == stopped

    def test_newton_schulz_runs(self, fresh):
        set_control(fresh, "schulz-at", 0, "input")
        click(fresh, "#schulz-play")
        fresh.evaluate("new Promise((done) => setTimeout(() => done(1), 1300))")
        assert int(fresh.evaluate("document.getElementById('schulz-at').value")) >= 1
        click(fresh, "#schulz-play")
        assert fresh.evaluate("document.getElementById('schulz-play').getAttribute('aria-pressed')") == "false"


class TestManners:
    def test_a_diverging_run_says_so(self, fresh):
        set_control(fresh, "landscape", "rosenbrock", "change")
        click(fresh, '.one[data-name="sgd"] button')
        set_control(fresh, "set-rate", "0", "input")
        assert "diverged" in fresh.evaluate("document.getElementById('now').innerText")

    @pytest.mark.parametrize("width", [360, 390, 768, 1600])
    def test_fits_every_width(self, fresh, width):
        fresh.resize(width, 800, mobile=width < 700)
        fresh.settle()
        for name in ("adam", "muon", "adadelta"):
            click(fresh, f'.one[data-name="{name}"] button')
            fresh.settle()
            assert fresh.evaluate("document.documentElement.scrollWidth") <= width
        fresh.resize(1200, 900)

    def test_is_drawn_anew_in_the_dark(self, fresh):
        light = fresh.evaluate(PIXELS) if not fresh.settle() else ""
        fresh.prefer(color_scheme="dark")
        fresh.settle()
        assert fresh.evaluate(PIXELS) != light
        fresh.prefer(color_scheme="light")

    def test_with_reduced_motion_time_jumps(self, fresh):
        fresh.prefer(reduced_motion="reduce")
        count = fresh.evaluate(
            """new Promise((done) => {
              let frames = 0, last = tour.view.t = 0;
              document.getElementById('play').click();
              const look = () => { if (tour.view.t !== last) { frames++; last = tour.view.t; } };
              const timer = setInterval(look, 5);
              setTimeout(() => { clearInterval(timer); document.getElementById('play').click(); done(frames); }, 1000);
            })"""
        )
        fresh.prefer()
        assert count <= 5  # four pictures a second

    def test_pictures_say_what_they_show(self, fresh):
        labels = fresh.evaluate(
            "[...document.querySelectorAll('canvas')].map((each) => each.getAttribute('aria-label'))"
        )
        assert all(labels) and len(labels) == 7
        assert labels[0].startswith("Map of Styblinski-Tang, start at 4.1, 4.5, step 300.")
        assert "Adam ends at" in labels[1]


def test_the_browser_has_the_pages_path(tmp_path):
    # Without a browser the tests above are skipped, and say what to install.
    assert BROWSER is None or pathlib.Path(BROWSER).exists()
    assert "chromium" in MISSING
