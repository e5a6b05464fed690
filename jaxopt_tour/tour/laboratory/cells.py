"""The results of an experiment: cells, each what one setting came to, written as soon as it is known.

`results.json`:

```text
{"format": 1, "experiment": name, "created": ISO time, "machine": {...}, "versions": {...},
 "revisions": [git revisions that contributed], "quick": bool,
 "cells": [{"key": {...}, "value": ...}]}
```

A cell that is there is not computed again: an experiment that was cut off goes on where it was. Numbers have seven
digits, as float32 has; one that is not finite is null.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jaxopt_tour.tour.results import FORMAT, machine, read_results, revision, versions, without_nonfinite, write_json

Key = dict[str, Any]


class Cells:
    """The cells of one experiment, in memory and in a file.

    Args:
        path: the file; None: memory alone.
        experiment: its name.
        quick: whether these are the few small cells of `--quick`.
        listener: is told what happens, one line at a time.
        read_only: the cells that are there, from whatever machine and versions; none is computed or written.

    Raises:
        ValueError: the file is no results file, or that of another experiment or another setting of `--quick`.
    """

    def __init__(
        self,
        path: Path | None,
        experiment: str,
        *,
        quick: bool = False,
        listener: Callable[[str], None] = lambda text: None,
        read_only: bool = False,
    ) -> None:
        self.path, self.quick, self.read_only, self._listener = path, quick, read_only, listener
        self.content: dict[str, Any] = {
            "format": FORMAT,
            "experiment": experiment,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "versions": versions(),
            "revisions": [],
            "quick": quick,
            "cells": [],
        }
        earlier = None if path is None else read_results(path)
        if path is not None and earlier is not None:
            for part, expected in (("experiment", experiment), ("quick", quick)):
                if earlier.get(part) != expected:
                    raise ValueError(
                        f"{path} has {part} = {earlier.get(part)!r}, not {expected!r}: choose another folder"
                    )
            if read_only or all(earlier[part] == self.content[part] for part in ("machine", "versions")):
                self.content = earlier
            else:
                kept = path.with_name(f"results-{earlier['created'].replace(':', '')}.json")
                path.rename(kept)
                listener(f"The earlier results come from another machine or other versions: kept as {kept.name}.")
        self._revision = revision()  # of the code that is loaded now, whatever the checkout becomes meanwhile
        self._found = {_text(cell["key"]): cell["value"] for cell in self.content["cells"]}

    def get(self, key: Key, compute: Callable[[], Any]) -> Any:
        """The value of a cell, computed and written down where it is not there yet.

        Args:
            key: all that decides the value, as JSON.
            compute: () -> the value, as JSON.

        Raises:
            ValueError: it is not there, and these are for reading alone.
        """
        text = _text(key)
        if text not in self._found:
            if self.read_only:
                raise ValueError(f"{self.path} has no cell {text}: run the experiment to its end first")
            value = as_written(compute())
            self._found[text] = value
            self.content["cells"].append({"key": key, "value": value})
            if self.path is not None:
                if self._revision is not None and self._revision not in self.content["revisions"]:
                    self.content["revisions"].append(self._revision)
                write_json(self.path, self.content)
            self._listener(text)
        return self._found[text]

    def select(self, **wanted: Any) -> Iterator[tuple[Key, Any]]:
        """Keys and values of the cells whose keys have these parts."""
        for cell in self.content["cells"]:
            if all(cell["key"].get(name) == value for name, value in wanted.items()):
                yield cell["key"], cell["value"]

    def value(self, **wanted: Any) -> Any:
        """The value of the one cell whose key has these parts.

        Raises:
            ValueError: there is none, or more than one.
        """
        found = [value for _, value in self.select(**wanted)]
        if len(found) != 1:
            raise ValueError(f"{self.path} has {len(found)} cells with {_text(wanted)}")
        return found[0]


def as_written(value: Any) -> Any:
    """A value as it is in the file: JSON, numbers to seven digits, null for one that is not finite."""
    return _rounded(without_nonfinite(json.loads(json.dumps(value))))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.7g}") if isinstance(value, float) else value


def _text(key: Key) -> str:
    return ", ".join(f"{name} {json.dumps(value)}" for name, value in key.items())
