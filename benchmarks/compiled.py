"""Reading the text of a compiled program. Imports nothing, so that it may come before JAX's settings."""

from __future__ import annotations

import re


def computations(text: str) -> dict[str, list[str]]:
    """The instructions of every computation of a compiled program, by name; those of the entry under "ENTRY"."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if head := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            lines = found.setdefault("ENTRY" if head[1] else head[2], [])
        else:
            lines.append(line)
    return found
