"""What the offline pages share: files of a package, JSON inside HTML, links between pages, and writing in one move."""

from __future__ import annotations

import importlib.resources
import json
import os
import pathlib
import tempfile
from html import escape
from typing import Any


def resource(package: str | None, name: str) -> str:
    """The text of a file that lies beside a module; `package` is the module's `__package__`."""
    return importlib.resources.files(package or "").joinpath(name).read_text(encoding="utf-8")


def embedded(data: Any) -> str:
    """JSON that no text in it can break out of: a script element ends at `</`, whatever stands around it."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def link_to(address: str | None, text: str) -> str:
    """A paragraph with a link to another page of the same folder; nothing where there is none."""
    return f'<p class="elsewhere"><a href="{escape(address)}">{escape(text)}</a></p>' if address else ""


def write_page(text: str, path: str | os.PathLike[str]) -> pathlib.Path:
    """Write a page in one move: a killed run leaves the old file or the new one.

    Args:
        text: the HTML document.
        path: the file; its folder is made where it is missing.

    Returns:
        The path.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner may read
        os.replace(temporary, path)
    except BaseException:
        pathlib.Path(temporary).unlink(missing_ok=True)
        raise
    return path
