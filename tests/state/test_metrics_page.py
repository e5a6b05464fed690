"""The page of a run's metrics shows what is in the file, escapes it, and loads nothing."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("typer")

from typer.testing import CliRunner

from jaxopt_tour import cli
from jaxopt_tour.tour.metrics_page import MOST_LINES, read_metrics, render

ROWS = [
    {
        "measured_at": float(step),
        "update_rms/blocks/0/up/kernel": 1e-3 / step,
        "update_rms/<script>alert(1)</script>": 1e-5,
        "update_rms_by_role/matrix": 1e-3 / step,
        "gradient_norm/blocks/0/up/kernel": 0.0,
        "vanished/blocks/0/up/kernel": 0.25 * (step > 1),
        "polar_error/blocks/0/up/kernel": float("nan"),
        "loss": 2.0,
    }
    for step in (1, 51, 101)
]


class Parser(HTMLParser):
    """Tags, and whether they are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict]] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "line", "circle", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_loads_nothing():
    parser = Parser()
    parser.feed(render(ROWS))
    assert not parser.open
    tags = {tag for tag, _ in parser.seen}
    assert not tags & {"script", "link", "img", "iframe"}
    assert not any(
        key in ("src", "href") or key.startswith("on") for _, attributes in parser.seen for key in attributes
    )


def test_every_metric_with_numbers_has_a_line_for_each_parameter():
    text = render(ROWS)
    assert [f"<h2>{title}" in text for title in ("Update, root mean square", "Gradient norm", "Polar error")] == [
        True, True, False,
    ]  # fmt: skip
    titles = re.findall(r"<title>([^<]*): ([^<]*)</title>", text)
    assert ("blocks/0/up/kernel", "9.901e-06") in titles and ("matrix", "9.901e-06") in titles
    assert "&lt;script&gt;alert(1)" in text
    assert text.count("<polyline") == len(titles) == 5
    assert "blocks/0/up/kernel&#x27; is zero" in text or "All gradients are zero." in text


def test_many_parameters_are_cut_and_the_page_says_so():
    row = {"step": 1} | {f"update_rms/layer{i}": 1.0 + i for i in range(MOST_LINES + 5)}
    text = render([row])
    assert "the 5 smallest are not drawn" in text and text.count("<polyline") == MOST_LINES
    assert "layer4:" not in text and "layer5:" in text


def call(*arguments: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(cli.app, [str(each) for each in arguments], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exit_code == code, result.output
    return result.output


def test_the_command_draws_a_file_of_json_lines(tmp_path: Path):
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert str(tmp_path / "metrics.html") in call("metrics", file, "--out", tmp_path)
    assert (tmp_path / "metrics.html").read_text() == render(read_metrics(file), "Metrics of metrics.jsonl")


@pytest.mark.parametrize(
    ("text", "message"), [("", "has no metrics"), ("{}\n", "line 1"), ('{"step": 1}\nnot json\n', "line 2")]
)
def test_a_wrong_file_is_answered_with_the_line(tmp_path: Path, text: str, message: str):
    file = tmp_path / "metrics.jsonl"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_metrics(file)
    assert message in call("metrics", file, code=2)
