"""Run the snippets of a page, one program a section: ``python -m tests.documents docs/frameworks.md [TITLE ...]``.

The blocks of a section follow each other in one program. What a page says before its first section comes before each.
"""

from __future__ import annotations

import contextlib
import io
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]


def programs(page: str) -> dict[str, str]:
    """The program of every section that has Python, by the section's title."""
    preface, *sections = re.split(r"^## ", (ROOT / page).read_text(), flags=re.M)
    programs = {text.partition("\n")[0]: _blocks(text) for text in sections}
    return {title: _blocks(preface) + code for title, code in programs.items() if code}


def _blocks(text: str) -> str:
    return "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.M | re.S))


def run(page: str, title: str) -> None:
    """Execute one section's program.

    Raises:
        ModuleNotFoundError: a package that it imports is not installed.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(programs(page)[title], f"{page}, {title}", "exec"), {"__name__": "__main__"})


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
