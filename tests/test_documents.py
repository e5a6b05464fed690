"""Every snippet of README and docs runs and prints what is shown, every link leads somewhere."""

from __future__ import annotations

import pathlib
import re

import pytest

from tests import documents

ROOT = documents.ROOT
PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]
FRAMEWORKS, RECIPES = "docs/frameworks.md", "docs/recipes.md"
#: Pages that are one program each, from the first snippet to the last.
IN_ORDER = ("docs/state.md", "docs/monitoring.md", "docs/half-precision.md")
#: Snippets of docs/maxtext.md need MaxText. Those of docs/routing-rules.md have a test of their own.
ELSEWHERE = (FRAMEWORKS, RECIPES, *IN_ORDER, "docs/maxtext.md", "docs/routing-rules.md")
#: Not in requirements/dev.txt: too large for a test environment. Run by hand with `python -m tests.documents`.
BY_HAND = {"Keras", "Penzai", "Levanter"}

SNIPPETS = {
    f"{page}, snippet {number}": snippet
    for page in PAGES
    if page not in ELSEWHERE
    for number, snippet in enumerate(documents.snippets(documents.read(page)), 1)
}


def test_every_snippet_is_found():
    for page in PAGES:
        text = documents.read(page)
        assert len(documents.snippets(text)) == len(re.findall(r"^```python$", text, re.M)), page
        assert "```\n```\n" not in text, f"{page} shows an empty output"


@pytest.mark.parametrize("name", SNIPPETS)
def test_a_snippet_runs_alone(name: str):
    snippet = SNIPPETS[name]
    printed = documents.execute(snippet.code, name, documents.new_names())
    if snippet.shown:
        assert printed.strip() == snippet.shown.strip()


@pytest.mark.slow
@pytest.mark.not_understood  # docs/half-precision.md has vectors without names
@pytest.mark.filterwarnings("ignore:Sharding info not provided")  # Orbax, for a checkpoint restored where it was saved
@pytest.mark.parametrize("page", IN_ORDER)
def test_a_page_runs_from_its_first_snippet_to_its_last(
    page: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    names = documents.new_names()
    printed = []
    for number, snippet in enumerate(documents.snippets(documents.read(page)), 1):
        printed.append(documents.execute(snippet.code, f"{page}, snippet {number}", names))
        if snippet.shown:
            assert printed[-1].rstrip() == snippet.shown.rstrip()
    if page == "docs/half-precision.md":
        assert "".join(printed).startswith('1.0\n["The update of')
    if page == "docs/monitoring.md":
        assert len(list(names["folder"].glob("events.out.tfevents.*"))) == 1


def sections(page: str) -> list[str]:
    return [
        title for title, text in documents.sections(page).items() if documents.snippets(text) and title not in BY_HAND
    ]


@pytest.mark.slow
@pytest.mark.parametrize("title", sections(FRAMEWORKS))
def test_a_framework_trains_as_the_page_says(title: str):
    for package in ("equinox", "haiku"):
        if title.lower() == package:
            pytest.importorskip(package, reason="in requirements/dev.txt")
    documents.run_section(FRAMEWORKS, title)


@pytest.mark.slow
@pytest.mark.parametrize("title", sections(RECIPES))
def test_a_recipe_keeps_the_law_that_it_states(title: str):
    documents.run_section(RECIPES, title)


@pytest.mark.parametrize("title", sections(RECIPES))
def test_a_recipe_is_short_and_states_a_law(title: str):
    text = documents.sections(RECIPES)[title]
    code = "".join(snippet.code for snippet in documents.snippets(text))
    assert re.search(r"Law:\s", text) and "assert " in code
    assert len(code.splitlines()) <= 25


def test_the_page_of_frameworks_has_a_section_for_every_one_of_its_table():
    listed = {name for name, _ in re.findall(r"^\| \[([^\]]+)\]\(#([\w-]+)\)", documents.read(FRAMEWORKS), re.M)}
    titled = set(documents.sections(FRAMEWORKS)) - {"What goes wrong", "Loops of others"}
    assert {name.lower() for name in listed} == {title.lower() for title in titled}


def test_the_readme_shows_the_table_of_gemma_2_that_was_printed_where_maxtext_is():
    (table,) = re.findall(r"```\n(parameter [^`]*self_attention_local[^`]*)```", documents.read("docs/maxtext.md"))
    assert table in documents.read("README.md")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", documents.read(page)):
        assert ((ROOT / page).parent / target).exists(), target
