"""The page to play with in a browser: its strip, its controls and its manners."""

from __future__ import annotations

import base64
import json
import pathlib
import unicodedata

import numpy as np
import pytest

from chromium import BROWSER, MISSING, Browser
from jaxopt_tour.problems.landscapes import LANDSCAPES
from jaxopt_tour.tour.explore.optimizers import RULES
from jaxopt_tour.tour.explore.questions import QUESTIONS
from jaxopt_tour.tour.explore.story import STORY


def set_control(tab: Browser, name: str, value: object, kind: str) -> None:
    tab.evaluate(
        f"(() => {{ const node = document.getElementById({json.dumps(name)}); node.value = {json.dumps(str(value))};"
        f" node.dispatchEvent(new Event({json.dumps(kind)}, {{bubbles: true}})); }})()"
    )


def click(tab: Browser, selector: str) -> None:
    tab.evaluate(f"document.querySelector({json.dumps(selector)}).click()")


def inside(tab: Browser, name: str, right: float, down: float) -> tuple[float, float]:
    """A place in an element, as shares of its width and height, once it is in sight."""
    node = f"document.getElementById({json.dumps(name)})"
    tab.evaluate(f"{node}.scrollIntoView({{block: 'center', behavior: 'instant'}})")  # also ends a scroll on its way
    tab.settle()
    left, top, width, height = tab.evaluate(
        f"(() => {{ const box = {node}.getBoundingClientRect(); return [box.x, box.y, box.width, box.height]; }})()"
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
        "(() => { tour.play(false); const v = tour.view; v.landscape = 'styblinski-tang'; v.steps = 300;"
        " v.chosen = 'adam'; document.getElementById('quantity').value = 'rates';"
        " v.shown = new Set(['sgd', 'momentum', 'adam', 'adamw', 'muon']); tour.settle('tuned'); tour.refresh(); })()"
    )
    return tab


class TestStrip:
    def test_the_page_opens_early_in_the_story_of_the_matrix_and_plays(self, tab):
        reopened = tab.evaluate(
            "new Promise((done) => { tour.goTo(0); setTimeout(() => done([tour.view.playing, tour.view.t]), 300); })"
        )
        assert reopened[0] and STORY[0].bench["at"] <= reopened[1] < 20
        assert tab.evaluate("document.getElementById('guide-title').textContent") == STORY[0].title

    def test_muon_has_the_lowest_loss_of_the_opening(self, tab):
        losses = tab.evaluate(
            "(() => { tour.goTo(0); tour.play(false);"
            " return Object.fromEntries([...tour.runs()].map(([name, run]) => [name, run.loss])); })()"
        )
        assert set(losses) == {"sgd", "adamw", "muon"}
        for step in (20, 50):  # well before the end and at it
            assert losses["muon"][step] < 0.3 * min(losses["sgd"][step], losses["adamw"][step])

    def test_next_back_and_keys_go_through_all_steps_and_each_sets_what_it_talks_about(self, tab):
        tab.evaluate("tour.goTo(0)")
        for number, step in enumerate(STORY):
            assert tab.evaluate("[tour.guide.at, document.getElementById('guide-text').textContent]") == [
                number,
                step.text,
            ]
            place = tab.evaluate("document.getElementById('guide').nextElementSibling.className")
            assert place.split()[0] == step.place
            if step.bench:
                shown = tab.evaluate("[tour.view.landscape, tour.view.steps, [...tour.view.shown], tour.view.chosen]")
                assert shown == [step.bench[key] for key in ("landscape", "steps", "shown", "chosen")]
                for name, values in step.bench.get("values", {}).items():
                    assert values.items() <= tab.evaluate(f"tour.view.values[{json.dumps(name)}]").items()
            current = tab.evaluate("document.querySelector('#guide-dots [aria-current]')?.dataset.step ?? '0'")
            assert int(current) == number
            if number % 2:
                click(tab, "#guide-next")
            else:
                tab.evaluate("document.activeElement.blur()")
                tab.press("ArrowRight", 39)
        assert tab.evaluate("tour.guide.at") == 0  # from the end to the beginning
        assert tab.evaluate("document.getElementById('guide-back').disabled")
        click(tab, '#guide-dots [data-step="4"]')
        click(tab, "#guide-back")
        tab.evaluate("document.activeElement.blur()")
        tab.press("ArrowLeft", 37)
        assert tab.evaluate("tour.guide.at") == 2

    def test_with_reduced_motion_a_step_shows_its_picture_at_rest(self, tab):
        tab.prefer(reduced_motion="reduce")
        assert tab.evaluate("(tour.goTo(0), [tour.view.playing, tour.view.t])") == [False, STORY[0].bench["still"]]
        tab.prefer()

    def test_what_the_steps_say_happens(self, tab):
        bench = "(() => { tour.goTo(%d); tour.play(false); return %s; })()"
        # The valley: 0.36 swings and 0.41 diverges, since the curvature along x is 5.
        assert tab.evaluate(bench % (1, "tour.runs().get('sgd').x.map(([x]) => Math.sign(x))"))[:4] == [-1, 1, -1, 1]
        assert (
            tab.evaluate(bench % (1, "(tour.view.values.sgd.rate = 0.41, tour.refresh(), tour.runs().get('sgd'))"))[
                "loss"
            ][-1]
            > 10
        )
        lower = "[...tour.runs()].map(([name, run]) => run.loss.at(-1))"
        sgd, momentum = tab.evaluate(bench % (2, lower))
        assert momentum < 0.1 * sgd
        # Without bias correction the first step is 1 / rho(1) = sqrt(10) times as long.
        adam, adamw = tab.evaluate(bench % (4, "['adam', 'adamw'].map((name) => tour.runs().get(name).update[0][0])"))
        assert adamw / adam == pytest.approx(10**0.5, rel=1e-6)


class TestAddress:
    def test_a_reload_brings_back_what_was_chosen(self, fresh):
        set_control(fresh, "landscape", "ravine", "change")
        set_control(fresh, "length", "100", "change")
        set_control(fresh, "schedule", "linear", "change")
        click(fresh, '.one[data-name="muon"] button')
        set_control(fresh, "set-beta", "0.5", "input")
        set_control(fresh, "set-coefficients", "modula", "change")
        set_control(fresh, "schulz-a", "2.5", "input")
        set_control(fresh, "time", "17", "input")
        kept = "JSON.stringify([tour.runs().get('muon').x, tour.view, [...tour.view.shown], tour.guide.at])"
        before = fresh.evaluate(kept)
        # After the pause in which the page waits for further changes.
        fresh.evaluate("new Promise((done) => setTimeout(() => done(1), 300))")
        address = fresh.evaluate("location.hash")
        assert "landscape=ravine" in address
        fresh.evaluate(f"(tour.goTo(3), tour.play(false), history.replaceState(null, '', {json.dumps(address)}))")
        assert fresh.evaluate("tour.recall()")
        after = fresh.evaluate(kept)
        (path, view, shown, at), was = json.loads(after), json.loads(before)
        np.testing.assert_allclose(path, was[0], rtol=1e-4)  # numbers of the address have six digits
        assert shown == was[2] and at == was[3]
        assert {key: view[key] for key in ("landscape", "steps", "schedule", "t", "chosen", "start")} == {
            key: was[1][key] for key in ("landscape", "steps", "schedule", "t", "chosen", "start")
        }

    @pytest.mark.parametrize(
        "address",
        [
            "#landscape=nowhere",
            "#landscape=ravine&steps=7&t=NaN&start=x y&shown=nobody&chosen=&of.adam=rate=-1 b1=2 eps= zeros=1&guide=99",
            "#%3Cscript%3E",
        ],
    )
    def test_a_broken_address_is_no_error(self, fresh, address):
        fresh.evaluate(f"history.replaceState(null, '', {json.dumps(address)})")
        fresh.evaluate("tour.recall()")
        assert fresh.evaluate("tour.view.values.adam.rate > 0 && tour.runs().size > 0")
        fresh.evaluate("history.replaceState(null, '', location.pathname)")


class TestControls:
    @pytest.mark.parametrize(
        ("name", "value", "kind"),
        [
            *(("landscape", name, "change") for name in list(LANDSCAPES)[1:]),
            ("preset", "source", "change"),
            ("length", "100", "change"),
            ("schedule", "linear", "change"),
            ("time", "7", "input"),
            ("quantity", "state", "change"),
            ("quantity", "angles", "change"),
            ("quantity", "spectrum", "change"),
            ("quantity", "rho", "change"),
            ("set-rate", "-1.5", "input"),
            ("set-b1", "0.4", "input"),
            ("set-b2", "1", "input"),
            ("set-eps", "0", "input"),
            ("set-l2", "-0.3", "input"),
            ("matrix", "power", "change"),
            ("matrix", "deficient", "change"),
            ("matrix", "run", "change"),
            ("coefficients", "keller_jordan", "change"),
            ("coefficients", "turbo", "change"),
            ("schulz-a", "2", "input"),
            ("schulz-b", "-3", "input"),
            ("schulz-c", "1", "input"),
            ("schulz-steps", "3", "input"),
            ("weight-norm", "column", "change"),
            ("weight-at", "9", "input"),
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
        # MathML shows symbols as letters of mathematical italics.
        assert "θ←θ" in "".join(unicodedata.normalize("NFKC", equation).split()) and "{" not in equation
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

    @pytest.mark.parametrize("name", ["bias_correction", "initial_moments", "nesterov"])
    def test_a_switch_changes_the_run_and_the_equation(self, fresh, name):
        state = "JSON.stringify([tour.runs().get('adam').x, document.getElementById('equation').innerText])"
        path, equation = json.loads(fresh.evaluate(state))
        click(fresh, f"#set-{name}")
        other_path, other_equation = json.loads(fresh.evaluate(state))
        assert path != other_path and equation != other_equation
        click(fresh, f"#set-{name}")
        assert json.loads(fresh.evaluate(state)) == [path, equation]

    def test_every_option_is_answered_and_can_be_tried_again(self, fresh):
        replies = fresh.evaluate(
            """[...document.querySelectorAll('.question')].map((question) => {
              const buttons = [...question.querySelectorAll('ul button')];
              const seen = buttons.map((button) => { button.click(); return [button.className,
                button.nextElementSibling.hidden, question.querySelector('.after').textContent]; });
              question.querySelector('.again').click();
              return [seen, buttons.map((button) => button.className + button.nextElementSibling.hidden)]; })"""
        )
        assert len(replies) == len(QUESTIONS) == 10
        for seen, again in replies:
            assert sorted(each[0] for each in seen) == ["right", "wrong", "wrong"]
            assert not any(hidden for _, hidden, _ in seen) and again == ["true"] * 3
            assert all((after == "Right.") == (name == "right") for name, _, after in seen)
        assert fresh.evaluate("document.getElementById('score').textContent").startswith("10 of 10 answered")

    def test_the_map_can_be_saved(self, fresh):
        name, picture = fresh.evaluate(
            "(() => { const old = HTMLAnchorElement.prototype.click, seen = [];"
            " HTMLAnchorElement.prototype.click = function () { seen.push(this.download, this.href); };"
            " document.getElementById('png').click(); HTMLAnchorElement.prototype.click = old; return seen; })()"
        )
        assert name == "styblinski-tang-step-300.png"
        png = base64.b64decode(picture.removeprefix("data:image/png;base64,"))
        assert png[:8] == b"\x89PNG\r\n\x1a\n" and len(png) > 10_000

    @pytest.mark.parametrize("optimizer", ["adamw", "muon"])
    def test_copied_python_gives_the_run_of_the_page(self, tab, optimizer, capsys):
        tab.evaluate(f"(tour.goTo(0), tour.play(false), tour.view.chosen = {json.dumps(optimizer)}, tour.refresh())")
        exec(tab.evaluate("tour.asPython()"), {})
        loss = tab.evaluate(f"tour.runs().get({json.dumps(optimizer)}).loss.at(-1)")
        # The page computes in float64, the program in float32.
        assert float(capsys.readouterr().out) == pytest.approx(loss, rel=2e-2)

    @pytest.mark.parametrize("show", [question.show for question in QUESTIONS])
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
        assert all(labels) and len(labels) == 14
        assert labels[0].startswith("Map of Styblinski-Tang, start at 4.1, 4.5, step 300.")
        assert "Adam ends at" in labels[1]


def test_the_browser_has_the_pages_path(tmp_path):
    # Without a browser the tests above are skipped, and say what to install.
    assert BROWSER is None or pathlib.Path(BROWSER).exists()
    assert "chromium" in MISSING
