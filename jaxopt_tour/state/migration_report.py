"""What a migration kept, what it made of the rest, and why."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Final, Literal

from jaxopt_tour.routing.text import as_html, columns, folded

Outcome = Literal["kept", "converted", "estimated", "new", "dropped"]
OUTCOMES: Final[tuple[Outcome, ...]] = ("kept", "converted", "estimated", "new", "dropped")


@dataclasses.dataclass(frozen=True)
class Line:
    """What became of one moment.

    Args:
        parameter: path name of the parameter; of the value in the state, if it belongs to no parameter.
        moment: the field of the new state, or of the old one if it was dropped.
        outcome: what was done.

            * `"kept"`: the array of the old state, perhaps in another dtype;
            * `"converted"`: the same moment in another form;
            * `"estimated"`: a second moment that the old state lacks, from its first moment or from other parameters;
            * `"new"`: what `init` makes;
            * `"dropped"`: in the old state, and of no use to the new optimizer.
        why: where it comes from, or why it could not be kept.
    """

    parameter: str
    moment: str
    outcome: Outcome
    why: str


@dataclasses.dataclass(frozen=True)
class MigrationReport:
    """What became of every moment: `print` shows a table, `lines` holds the same as data.

    Layers that are alike share a line. The last line has the totals.
    """

    lines: tuple[Line, ...]

    @property
    def is_complete(self) -> bool:
        """Whether every moment of the new state comes from the old one."""
        return not any(line.outcome in ("new", "estimated") for line in self.lines)

    @property
    def totals(self) -> str:
        """How many moments had each outcome: `"kept 12, converted 2, dropped 4"`."""
        counts = Counter(line.outcome for line in self.lines)
        return ", ".join(f"{outcome} {counts[outcome]}" for outcome in OUTCOMES if counts[outcome]) or "no moments"

    def __str__(self) -> str:
        return f"{columns(self._rows())}\n{self.totals}" if self.lines else self.totals

    def _repr_html_(self) -> str:
        return as_html(self._rows(), self.totals)

    def _rows(self) -> list[list[str]]:
        cells = [[line.parameter, line.moment, line.outcome, line.why] for line in self.lines]
        kept = folded((row[0], tuple(row[1:])) for row in cells)
        return [["parameter", "moment", "outcome", "why"], *([path, *cells[first][1:]] for path, first in kept)]
