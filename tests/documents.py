"""Run the snippets of pages: `python -m tests.documents docs/frameworks.md [TITLE ...]` runs sections of one.

A page holds programs in one of three ways: each snippet is one; each section is one, after the snippets before the
first section; or the whole page is one. A block without a language that follows a snippet shows what it prints.
"""

from __future__ import annotations

import contextlib
import functools
import io
import pathlib
import re
import sys
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[1]


class Snippet(NamedTuple):
    """Python of a page, and what the page shows of its output."""

    code: str
    shown: str | None


def snippets(text: str) -> list[Snippet]:
    """The snippets of a text, in its order."""
    blocks = re.findall(r"^```python\n(.*?)^```\n?(?:\n^```\n(.*?)^```$)?", text, re.M | re.S)
    return [Snippet(code, shown or None) for code, shown in blocks]


def read(page: str) -> str:
    """The text of a page, by its path from the root."""
    return (ROOT / page).read_text(encoding="utf-8")


def sections(page: str) -> dict[str, str]:
    """The text of every section, by its title; the page's preface is not one."""
    _, *texts = re.split(r"^## ", read(page), flags=re.M)
    return {title: text for title, _, text in (text.partition("\n") for text in texts)}


def execute(code: str, name: str, names: dict[str, Any]) -> str:
    """Execute a snippet in a namespace and return what it prints.

    Raises:
        ModuleNotFoundError: a package that it imports is not installed.
    """
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, name, "exec"), names)
    return printed.getvalue()


def new_names() -> dict[str, Any]:
    """The namespace of a new program."""
    return {"__name__": "__main__"}


@functools.cache
def _preface(page: str) -> dict[str, Any]:
    """The names of the preface; its arrays are drawn once for all sections."""
    names = new_names()
    for snippet in snippets(read(page).partition("\n## ")[0]):
        execute(snippet.code, page, names)
    return names


def run_section(page: str, title: str) -> None:
    """Execute the program of a section."""
    names = dict(_preface(page))
    for snippet in snippets(sections(page)[title]):
        execute(snippet.code, f"{page}, {title}", names)


def main(page: str, *titles: str) -> int:
    """Run sections of a page, all of them by default, and print which ran."""
    failed = 0
    for title in titles or [title for title, text in sections(page).items() if snippets(text)]:
        try:
            run_section(page, title)
            print(f"{title}: ran")
        except ModuleNotFoundError as error:
            print(f"{title}: needs {error.name}")
        except Exception as error:
            failed += 1
            print(f"{title}: failed, {type(error).__name__}: {error}")
    return failed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
