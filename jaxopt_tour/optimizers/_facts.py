"""What transformations tell about parameters at `init`: their routes, and which of them are orthogonalized.

A tool that wraps an optimizer cannot see into it. It calls `init` inside `listening` and reads the facts.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterable, Iterator, Mapping

from jaxopt_tour.routing import Route


@dataclasses.dataclass
class Facts:
    """What has been told.

    Attributes:
        routes: by path name.
        orthogonalized: path names of parameters whose updates are orthogonalized.
    """

    routes: dict[str, Route] = dataclasses.field(default_factory=dict)
    orthogonalized: set[str] = dataclasses.field(default_factory=set)


_LISTENER: contextvars.ContextVar[Facts | None] = contextvars.ContextVar("_LISTENER", default=None)


@contextlib.contextmanager
def listening() -> Iterator[Facts]:
    """Collect what transformations tell while they are initialized inside this context."""
    facts = Facts()
    token = _LISTENER.set(facts)
    try:
        yield facts
    finally:
        _LISTENER.reset(token)


def tell_routes(routes: Mapping[str, Route]) -> None:
    """Tell the routes of parameters."""
    if (facts := _LISTENER.get()) is not None:
        facts.routes.update(routes)


def tell_orthogonalized(names: Iterable[str]) -> None:
    """Tell which parameters have orthogonalized updates."""
    if (facts := _LISTENER.get()) is not None:
        facts.orthogonalized.update(names)
