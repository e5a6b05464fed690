"""docs/state.md runs as it stands: every snippet after those before it, in an empty folder."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import pytest

PAGE = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "state.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```\n(?:\n```\n(.*?)```\n)?", PAGE, re.S)


def test_every_snippet_is_found():
    assert len(SNIPPETS) == PAGE.count("```python\n") > 5
    assert "```\n```\n" not in PAGE, "an output is shown that is empty"


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:Sharding info not provided"
)  # the snippet restores to the devices of the checkpoint
def test_every_snippet_runs_and_prints_what_is_shown(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    pytest.importorskip("orbax.checkpoint", reason="Orbax is an optional dependency")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    for code, shown in SNIPPETS:
        capsys.readouterr()
        exec(compile(code, "docs/state.md", "exec"), names)
        printed = capsys.readouterr().out
        if shown:
            assert printed.rstrip() == shown.rstrip()
