"""The code of the two documents runs as it is printed."""

from __future__ import annotations

import pathlib
import re

import pytest

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.slow
@pytest.mark.not_understood
@pytest.mark.parametrize("page", ["monitoring.md", "half-precision.md"])
def test_the_code_runs(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    snippets = re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.M | re.S)
    assert snippets
    names: dict = {"__name__": "__main__"}
    for index, snippet in enumerate(snippets):
        exec(compile(snippet, f"docs/{page}, snippet {index + 1}", "exec"), names)
    if page == "half-precision.md":
        assert capsys.readouterr().out.startswith('1.0\n["The update of')
    else:
        assert len(list(names["folder"].glob("events.out.tfevents.*"))) == 1


@pytest.mark.parametrize("page", ["monitoring.md", "half-precision.md"])
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", (DOCS / page).read_text(encoding="utf-8")):
        assert (DOCS / target).exists(), target
