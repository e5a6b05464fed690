"""The snippets of the pages on frameworks and on recipes do what the pages say."""

from __future__ import annotations

import re

import pytest

from tests import documents

FRAMEWORKS, RECIPES = "docs/frameworks.md", "docs/recipes.md"
#: Not in requirements/dev.txt: too large for a test environment. Run by hand with `python -m tests.documents`.
BY_HAND = {"Keras", "Penzai", "Levanter"}


def sections(page: str) -> list[str]:
    return [title for title in documents.programs(page) if title not in BY_HAND]


@pytest.mark.slow
@pytest.mark.parametrize("title", sections(FRAMEWORKS))
def test_a_framework_trains_as_the_page_says(title: str) -> None:
    for package in ("equinox", "haiku"):
        if title.lower() == package:
            pytest.importorskip(package, reason="in requirements/dev.txt")
    documents.run(FRAMEWORKS, title)


@pytest.mark.slow
@pytest.mark.parametrize("title", sections(RECIPES))
def test_a_recipe_keeps_the_law_that_it_states(title: str) -> None:
    documents.run(RECIPES, title)


@pytest.mark.parametrize("title", sections(RECIPES))
def test_a_recipe_is_short_and_states_a_law(title: str) -> None:
    text = (documents.ROOT / RECIPES).read_text()
    section = text.partition(f"## {title}\n")[2].partition("\n## ")[0]
    code = "".join(re.findall(r"^```python\n(.*?)^```", section, re.M | re.S))
    assert re.search(r"Law:\s", section) and "assert " in code
    assert len(code.splitlines()) <= 25


def test_the_page_has_a_section_for_every_framework_of_its_table() -> None:
    text = (documents.ROOT / FRAMEWORKS).read_text()
    listed = {name for name, anchor in re.findall(r"^\| \[([^\]]+)\]\(#([\w-]+)\)", text, re.M)}
    titled = set(re.findall(r"^## (.+)", text, re.M)) - {"What goes wrong", "Loops of others"}
    assert {name.lower() for name in listed} == {title.lower() for title in titled}
