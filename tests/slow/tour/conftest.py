"""The fixtures of tiny_tasks, and one browser with the page to play with, for every test of the tour."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chromium import BROWSER, MISSING, Browser, browser
from jaxopt_tour.tour.explore.page import write_explore
from tiny_tasks import tiny, tiny_race, tiny_tasks

__all__ = ["tab", "tiny", "tiny_race", "tiny_tasks"]


@pytest.fixture(scope="package")
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
