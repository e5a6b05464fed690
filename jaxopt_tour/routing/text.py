"""Routes as text: repeated layers in one line, columns, HTML."""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Hashable, Iterable, Sequence

#: The number of a layer: a name that is a number, or ends in one.
_NUMBER = re.compile(r"(?<=[/_])\d+(?=/)|^\d+(?=/)")


def folded(rows: Iterable[tuple[str, Hashable]]) -> list[tuple[str, int]]:
    """Rows of path and content, with rows of one content that differ in the number of the layer as one.

    Returns:
        The paths, such as `"blocks/0-11/attn/kernel"`, and for each the place of its first row.
    """
    groups: dict[tuple[str, str, Hashable], tuple[int, list[int]]] = {}
    for place, (path, content) in enumerate(rows):
        match = _NUMBER.search(path)
        key = (path, "", content) if match is None else (path[: match.start()], path[match.end() :], content)
        _, numbers = groups.setdefault(key, (place, []))
        numbers += [] if match is None else [int(match.group())]
    return [(before + _numbers(numbers) + after, first) for (before, after, _), (first, numbers) in groups.items()]


def _numbers(numbers: Sequence[int]) -> str:
    """`0-11`, or `0,2,4` with gaps."""
    runs = itertools.groupby(enumerate(sorted(numbers)), key=lambda pair: pair[1] - pair[0])
    ends = [(run[0][1], run[-1][1]) for run in (list(run) for _, run in runs)]
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in ends)


def columns(lines: Sequence[Sequence[str]]) -> str:
    """Lines in columns under the first line, the titles."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    text.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in text)


def as_html(lines: Sequence[Sequence[str]], end: str) -> str:
    """The same as an HTML table, with a last paragraph."""

    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(row(line, "td") for line in lines[1:])
    return f"<table><thead>{row(lines[0], 'th')}</thead><tbody>{body}</tbody></table><p>{html.escape(end)}</p>"
