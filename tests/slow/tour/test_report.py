"""The offline page: what it shows, that nothing in it can break out, and that it loads nothing."""

from __future__ import annotations

import math
import os
import pathlib
import shutil
import subprocess

import pytest

from jaxopt_tour.tour.palette import HUES, LINES, lines_of
from jaxopt_tour.tour.report.headline import shown_at_first, standing
from jaxopt_tour.tour.report.page import render, write_report
from jaxopt_tour.tour.report.series import Spread, series_of
from pages import Page

EVIL = "<script>alert('&')</script>\"></pre><img src=x onerror=alert(1)>${data}$title"


def run(optimizer="adamw", seed=0, steps=20, losses=(2.0, 1.5, 1.0), accuracies=None, **changes):
    every = steps // (len(losses) - 1)
    return {
        "optimizer": optimizer,
        "seed": seed,
        "learning_rate": 1e-3,
        "steps": steps,
        "curve": {
            "step": [every * i for i in range(len(losses))],
            "seconds": [0.5 * i for i in range(len(losses))],
            "train_loss": [None, *losses[1:]],
            "validation_loss": list(losses),
            "validation_accuracy": None if accuracies is None else list(accuracies),
        },
        "final": {"validation_loss": losses[-1], "validation_accuracy": accuracies and accuracies[-1]},
        "milliseconds_per_step": 12.5,
        "optimizer_share": 0.27,
        "state_bytes_per_parameter": 4.1,
        "seconds": 1.0,
        **changes,
    }


def results(runs, claims=(), **task):
    return {
        "format": 1,
        "created": "2026-08-21T10:00:00+00:00",
        "machine": {"processor": "a processor", "cores": 2},
        "versions": {"jax": "0.10.2"},
        "revision": None,
        "settings": {"warmup": 0.05, "seeds": [0, 1], "nested": {"quick": True}},
        "tasks": {
            "gpt": {
                "title": "A task",
                "metric": None,
                "parameters": 1234567,
                "routing": "the routing",
                "batch": "a batch",
                "runs": runs,
                **task,
            }
        },
        "claims": list(claims),
    }


class TestSeries:
    def test_seeds_become_a_mean_and_a_band(self):
        (one,) = series_of([run(seed=0, losses=(2.0, 1.0)), run(seed=1, losses=(4.0, 2.0))])
        curves = one.curves()
        assert curves["validation_loss"] == [3.0, 1.5]
        assert (curves["validation_loss_low"], curves["validation_loss_high"]) == ([2.0, 1.0], [4.0, 2.0])
        assert one.final("validation_loss") == Spread(1.5, 1.0, 2.0, 2)

    def test_one_seed_has_no_band(self):
        (one,) = series_of([run()])
        assert "validation_loss_low" not in one.curves()

    def test_only_steps_that_every_seed_measured_are_drawn(self):
        short = run(seed=1, losses=(4.0, 2.0))
        short["curve"]["step"] = [0, 20]
        (one,) = series_of([run(seed=0, losses=(2.0, 1.5, 1.0)), short])
        assert one.curves()["step"] == [0, 20]
        assert one.curves()["validation_loss"] == [3.0, 1.5]

    def test_a_mean_over_a_diverged_seed_is_no_number(self):
        (one,) = series_of([run(seed=0), run(seed=1, losses=(2.0, math.nan, None))])
        assert one.curves()["validation_loss"] == [2.0, None, None]
        assert one.diverged == 1
        assert one.final("validation_loss").mean is None

    def test_best_stands_first_and_diverged_last(self):
        found = series_of([run("sgd", losses=(2, None)), run("adamw", losses=(2, 1)), run("muon", losses=(2, 0.5))])
        assert [one.label for one in found] == ["muon", "adamw", "sgd"]

    def test_a_shorter_run_of_one_optimizer_is_a_line_of_its_own(self):
        found = series_of([run("muon", steps=20, losses=(2, 1)), run("muon", steps=14, losses=(2, 1.1))])
        assert [one.label for one in found] == ["muon", "muon (14 steps)"]
        assert found[0].hue == found[1].hue and found[0].dash != found[1].dash

    def test_no_two_optimizers_share_a_line(self):
        names = [name for name in LINES if name != "sgd-momentum"]  # momentum by another name
        names += ["soap", "kron", "nadam"]
        assert len(set(lines_of(names).values())) == len(names)

    def test_an_optimizer_keeps_its_line_whoever_runs_beside_it(self):
        assert lines_of(["muon"])["muon"] == lines_of(["lion", "adamw", "muon"])["muon"]

    def test_dashes_and_underscores_are_one(self):
        assert set(lines_of(["rmsprop-centered", "rmsprop_centered"]).values()) == {LINES["rmsprop-centered"]}


class TestHeadline:
    def text(self, **losses):
        """The headline of optimizers with these final losses, a seed each."""
        runs = [
            run(name, seed=seed, losses=(3.0, loss))
            for name, values in losses.items()
            for seed, loss in enumerate(values)
        ]
        found = standing(series_of(runs))
        return None if found is None else f"{found[0].label} {found[1]}"

    def test_one_seed_is_called_one_seed(self):
        assert self.text(muon=[1.0], adamw=[1.1]) == (
            "muon ends lowest, at 1.0000 nats; then adamw at 1.1000. One seed: its noise is not known, so small "
            "differences say nothing."
        )

    def test_a_difference_within_the_noise_of_paired_seeds_is_a_tie(self):
        # Differences 0.1, -0.1, 0.15: their interval reaches zero.
        assert self.text(muon=[1.0, 1.2, 1.0], adamw=[1.1, 1.1, 1.15]) == (
            "muon ends lowest, at 1.0667 nats (1.0000 to 1.2000 over 3 seeds); tied with adamw."
        )

    def test_seeds_that_move_together_are_told_apart(self):
        # Differences 0.10, 0.11, 0.09, with Student's t of two degrees of freedom: 4.303 * 0.01 / sqrt(3) = 0.0248.
        assert self.text(muon=[1.0, 2.0, 3.0], adamw=[1.1, 2.11, 3.09], sgd=[2.0, 1.9, 4.0]) == (
            "muon ends lowest, at 2.0000 nats (1.0000 to 3.0000 over 3 seeds); tied with sgd; adamw ends 0.1000 "
            "[0.0752, 0.1248] higher."
        )

    def test_nothing_is_lowest_where_all_diverged(self):
        assert self.text(sgd=[None]) is None

    def test_a_chart_opens_with_five_lines_adamw_and_sgd_among_them(self):
        names = ["muon", "signum", "adam", "nesterov", "adamw", "rmsprop", "sgd", "adagrad"]
        runs = [run(name, losses=(3.0, 1.0 + 0.1 * place)) for place, name in enumerate(names)]
        shown = [name for name, each in zip(names, shown_at_first(series_of(runs)), strict=True) if each]
        assert shown == ["muon", "signum", "adam", "adamw", "sgd"]
        assert shown_at_first(series_of(runs[:5])) == [True] * 5


class TestPage:
    def test_links_the_numbers_where_they_are(self):
        page = Page(render(results([run()]), files={"JSON": "results.json", "CSV": "results.csv"}))
        assert [value["href"] for tag, value in page.elements if tag == "a"][:2] == ["results.json", "results.csv"]

    def test_settings_are_in_words(self):
        settings = {"tasks": ("cnn",), "optimizers": None, "seeds": 3, "steps": None, "quick": False}
        page = Page(render({**results([run()]), "settings": settings}))
        for text in ("all of each task", "each task's own number", "3 seeds, 0 to 2"):
            assert text in page.text
        assert "none" not in page.text.split("Settings")[1]

    def test_shows_what_was_measured(self):
        runs = [run("muon", losses=(2, 0.71)), run("adamw", losses=(2, 0.82))]
        claims = [
            {"name": "a", "text": "Muon is lower.", "holds": True, "numbers": {"ratio": 0.86}},
            {"name": "b", "text": "Muon is faster.", "holds": False, "numbers": {}},
        ]
        page = Page(render(results(runs, claims)))
        for text in (
            "A task", "1,234,567 parameters", "the routing", "muon ends lowest, at 0.7100", "Muon is lower.", "0.86",
            "✓ holds", "✗ does not hold", "12.5", "27.0 %", "4.10", "a processor", "0.10.2", "not a repository",
            "quick: yes",
        ):  # fmt: skip
            assert text in page.text, text
        assert [one["label"] for one in page.data()[0]["series"]] == ["muon", "adamw"]

    def test_accuracy_is_shown_where_the_task_has_one(self):
        runs = [run(accuracies=(0.1, 0.5, 0.875))]
        with_accuracy = Page(render(results(runs, metric="accuracy")))
        without = Page(render(results([run()])))
        assert "87.5 %" in with_accuracy.text and "Accuracy" in with_accuracy.text
        assert "Accuracy" not in without.text and "validation_accuracy" not in without.data()[0]["series"][0]

    @pytest.mark.parametrize("lost", [None, math.nan, math.inf])
    def test_a_diverged_run_says_so(self, lost):
        page = Page(render(results([run("sgd", losses=(2.0, 3.0, lost)), run("sgd", seed=1), run("adamw")])))
        assert "diverged (1 of 2 seeds)" in page.text
        assert page.data()[0]["series"][1]["diverged"] is True

    def test_when_everything_diverged_there_is_still_a_page(self):
        page = Page(render(results([run(losses=(None, None))])))
        assert "diverged" in page.text and "ends lowest" not in page.text

    def test_no_text_breaks_out(self):
        evil = results([run(EVIL)], [{"name": EVIL, "text": EVIL, "holds": True, "numbers": {EVIL: EVIL}}])
        evil["machine"] = evil["versions"] = evil["settings"] = {EVIL: [EVIL, {EVIL: EVIL}], "cores": EVIL}
        evil["created"] = evil["revision"] = EVIL
        evil["tasks"] = {EVIL: {**evil["tasks"]["gpt"], "title": EVIL, "routing": EVIL, "batch": EVIL}}
        page = Page(render(evil))
        plain = Page(render(results([run()], [{"name": "a", "text": "b", "holds": True, "numbers": {"c": 1}}])))
        assert {tag for tag, _ in page.elements} == {tag for tag, _ in plain.elements}
        assert sum(tag == "script" for tag, _ in page.elements) == 2
        assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
        assert page.data()[0]["title"] == EVIL and page.data()[0]["series"][0]["label"] == EVIL
        assert page.text.count("alert(1)") >= 10

    def test_loads_nothing_from_outside(self):
        page = Page(render(results([run()])))
        assert not any({"src", "srcset", "action", "data"} & set(attributes) for _, attributes in page.elements)
        assert all(attributes["href"].startswith("#") for _, attributes in page.elements if "href" in attributes)
        assert not any(tag in ("link", "img", "iframe", "object", "base") for tag, _ in page.elements)
        assert "url(" not in page.raw["style"] and "@import" not in page.raw["style"]
        script = page.raw["script"]
        assert not any(
            name in script for name in ("fetch(", "XMLHttpRequest", "import(", "innerHTML", "eval(", "WebSocket")
        )
        (policy,) = (value["content"] for tag, value in page.elements if value.get("http-equiv"))
        assert policy.startswith("default-src 'none';")

    def test_links_controls_and_tables_are_labelled(self):
        page = Page(render(results([run(accuracies=(0, 0, 1))], metric="accuracy")))
        identifiers = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
        assert all(value["href"][1:] in identifiers for tag, value in page.elements if tag == "a")
        assert all(value.get("scope") in ("col", "row") for tag, value in page.elements if tag == "th")
        assert all(value.get("aria-label") for _, value in page.elements if value.get("role") == "region")
        assert ("html", {"lang": "en"}) in page.elements

    def test_links_the_tour_where_there_is_one(self):
        page = Page(render(results([run()]), tour='tour.html"><script>'))
        assert next(value["href"] for tag, value in page.elements if tag == "a") == 'tour.html"><script>'
        assert sum(tag == "script" for tag, _ in page.elements) == 2

    def test_every_hue_of_the_palette_is_in_the_style(self):
        style = Page(render(results([run()]))).raw["style"]
        assert all(f"--{hue}: {color};" in style for hue, colors in HUES.items() for color in colors)

    def test_another_format_is_refused(self):
        with pytest.raises(ValueError, match="format 1, got 2"):
            render({**results([run()]), "format": 2})


class TestWriting:
    def test_makes_the_folder_and_leaves_nothing_else_there(self, tmp_path):
        path = write_report(results([run()]), tmp_path / "new" / "report.html")
        assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
        assert os.listdir(path.parent) == ["report.html"]

    def test_a_failure_leaves_the_old_page(self, tmp_path):
        path = write_report(results([run()]), tmp_path / "report.html")
        before = path.read_bytes()
        with pytest.raises(ValueError):
            write_report({"format": 0}, path)
        assert path.read_bytes() == before and os.listdir(tmp_path) == ["report.html"]


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.skipif(BROWSER is None, reason="draws the page in Chromium, where there is one")
def test_a_browser_draws_every_line(tmp_path):
    runs = [run("muon"), run("muon", seed=1), run("adamw"), run("sgd", losses=(2, 3, None))]
    path = write_report(results(runs), tmp_path / "report.html")
    options = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --virtual-time-budget=2000 --dump-dom"
    )
    command = [BROWSER, *options.split(), f"--user-data-dir={tmp_path / 'profile'}", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    page = Page(done.stdout)
    classes = [attributes.get("class") for tag, attributes in page.elements if tag == "path"]
    # Two charts of three optimizers; beside a curve stands its name with a piece of its line.
    assert classes.count("line") == 2 * (3 + 3)
    assert classes.count("band") == 2 and classes.count("cross") == 2
    labels = [attributes["aria-label"] for _, attributes in page.elements if attributes.get("role") == "img"]
    assert [label.partition(".")[0] for label in labels] == [
        "Validation loss against steps",
        "Validation loss against seconds",
    ]
    assert pathlib.Path(path).stat().st_size < 100_000
