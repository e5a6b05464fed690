"""Run the snippets of a page, one program a section: `python -m tests.documents docs/frameworks.md [TITLE ...]`.

The blocks of a section follow each other in one program, after those that come before the page's first section.
"""

from __future__ import annotations

import contextlib
import functools
import io
import pathlib
import re
import sys
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]


def programs(page: str) -> dict[str, str]:
    """The program of every section that has Python, by the section's title; without the page's preface."""
    _, *sections = re.split(r"^## ", (ROOT / page).read_text(), flags=re.M)
    code = {text.partition("\n")[0]: _blocks(text) for text in sections}
    return {title: program for title, program in code.items() if program}


def _blocks(text: str) -> str:
    return "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.M | re.S))


@functools.cache
def _preface(page: str) -> dict[str, Any]:
    """The names that the blocks before the first section define; its arrays are drawn once for all sections."""
    names: dict[str, Any] = {"__name__": "__main__"}
    code = _blocks(re.split(r"^## ", (ROOT / page).read_text(), flags=re.M)[0])
    exec(compile(code, f"{page}, preface", "exec"), names)
    return names


def run(page: str, title: str) -> None:
    """Execute one section's program.

    Raises:
        ModuleNotFoundError: a package that it imports is not installed.
    """
    program = compile(programs(page)[title], f"{page}, {title}", "exec")
    with contextlib.redirect_stdout(io.StringIO()):
        exec(program, dict(_preface(page)))


def main(page: str, *titles: str) -> int:
    """Run sections of a page, all of them by default, and print which ran."""
    failed = 0
    for title in titles or programs(page):
        try:
            run(page, title)
            print(f"{title}: ran")
        except ModuleNotFoundError as error:
            print(f"{title}: needs {error.name}")
        except Exception as error:
            failed += 1
            print(f"{title}: failed, {type(error).__name__}: {error}")
    return failed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
