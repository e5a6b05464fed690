"""Does another run give the same results? A share of the cells is computed again and compared, number by number."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxopt_tour.tour.laboratory.cells import Cells, Key, as_written
from jaxopt_tour.tour.laboratory.experiment import Experiment


@dataclass(frozen=True)
class Rerun:
    """A cell and its second run.

    Attributes:
        key: of the cell.
        numbers: how many were compared.
        difference: the largest one of two numbers, relative to the larger; infinite where one of them diverged, or
            where the two values have not the same shape.
    """

    key: Key
    numbers: int
    difference: float


class Again(Cells):
    """Cells that are there, of which a share is computed once more beside them; nothing is written.

    Args:
        path: the results.
        experiment: its name.
        share: of the cells, 0 to 1, chosen by a hash of their keys; timings are never chosen.
        quick: whether they are those of `--quick`.
        listener: is told of every cell that is compared.

    Attributes:
        compared: what was found.
    """

    def __init__(
        self,
        path: Path,
        experiment: str,
        share: float,
        *,
        quick: bool = False,
        listener: Callable[[str], None] = lambda text: None,
    ) -> None:
        super().__init__(path, experiment, quick=quick, read_only=True)
        self.share, self.compared = share, list[Rerun]()
        self._tell, self._seen = listener, set[str]()

    def get(self, key: Key, compute: Callable[[], Any]) -> Any:
        """The value that is there; of the share, compared with a second one.

        Raises:
            ValueError: the cell is not there.
        """
        value, text = super().get(key, compute), json.dumps(key)
        if text not in self._seen and self._chosen(key, text):
            found = list(_differences(value, as_written(compute())))
            self.compared.append(Rerun(key, len(found), max(found, default=0.0)))
            self._tell(f"{self.compared[-1].difference:.1e} {text}")
        self._seen.add(text)
        return value

    def _chosen(self, key: Key, text: str) -> bool:
        drawn = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32
        return key.get("what") != "costs" and drawn < self.share


def _differences(one: Any, other: Any) -> Iterator[float]:
    """Of every pair of numbers in two values of one shape."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for name in one:
            yield from _differences(one[name], other[name])
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for pair in zip(one, other, strict=True):
            yield from _differences(*pair)
    elif one == other:
        yield 0.0
    elif all(isinstance(each, int | float) and not isinstance(each, bool) for each in (one, other)):
        yield abs(one - other) / max(abs(one), abs(other))
    else:
        yield math.inf


def again(
    experiment: Experiment,
    results: Path,
    share: float,
    *,
    quick: bool = False,
    listener: Callable[[str], None] = lambda text: None,
) -> list[Rerun]:
    """Compute a share of an experiment's cells once more.

    Args:
        experiment: which.
        results: its file.
        share: of the cells, 0 to 1.
        quick: whether the file is that of a quick run.
        listener: is told of every cell.

    Returns:
        What was compared, in the order of the run.

    Raises:
        ValueError: `share` is not in (0, 1], or the results are not whole.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1, got {share}")
    cells = Again(results, experiment.name, share, quick=quick, listener=listener)
    experiment.run(cells)
    return cells.compared
