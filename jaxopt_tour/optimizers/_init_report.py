"""What transformations report about parameters at `init`: their routes, and which of them are orthogonalized.

A wrapper cannot look into the transformation that it wraps. It calls `init` inside `collect_report` instead.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterable, Iterator, Mapping

from jaxopt_tour.orthogonalization.orthogonalizer import Orthogonalizer
from jaxopt_tour.routing import Route


@dataclasses.dataclass
class InitReport:
    """What was reported.

    Attributes:
        routes: by path name.
        orthogonalized: by path name of a parameter whose updates are orthogonalized, what does it.
    """

    routes: dict[str, Route] = dataclasses.field(default_factory=dict)
    orthogonalized: dict[str, Orthogonalizer] = dataclasses.field(default_factory=dict)


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


def report_orthogonalized(names: Iterable[str], orthogonalizer: Orthogonalizer) -> None:
    """Report which parameters have orthogonalized updates, and what orthogonalizes them."""
    if (report := _REPORT.get()) is not None:
        report.orthogonalized.update(dict.fromkeys(names, orthogonalizer))
