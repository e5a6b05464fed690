"""What transformations report about parameters at `init`: their routes, and which of them are orthogonalized.

A wrapper cannot look into the transformation that it wraps. It calls `init` inside `collect_report` instead.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterable, Iterator, Mapping

from jaxopt_tour.routing import Route


@dataclasses.dataclass
class InitReport:
    """What was reported.

    Attributes:
        routes: by path name.
        orthogonalized: path names of parameters whose updates are orthogonalized.
    """

    routes: dict[str, Route] = dataclasses.field(default_factory=dict)
    orthogonalized: set[str] = dataclasses.field(default_factory=set)


_REPORT: contextvars.ContextVar[InitReport | None] = contextvars.ContextVar("_REPORT", default=None)


@contextlib.contextmanager
def collect_report() -> Iterator[InitReport]:
    """Collect what transformations report while they are initialized inside this context."""
    report = InitReport()
    token = _REPORT.set(report)
    try:
        yield report
    finally:
        _REPORT.reset(token)


def report_routes(routes: Mapping[str, Route]) -> None:
    """Report the routes of parameters."""
    if (report := _REPORT.get()) is not None:
        report.routes.update(routes)


def report_orthogonalized(names: Iterable[str]) -> None:
    """Report which parameters have orthogonalized updates."""
    if (report := _REPORT.get()) is not None:
        report.orthogonalized.update(names)
