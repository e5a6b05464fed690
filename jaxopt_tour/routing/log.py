"""One line in the log for every optimizer: what its parameters are."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Final

from jaxopt_tour.routing.route import Route
from jaxopt_tour.routing.totals import totals

LOGGER: Final = logging.getLogger("jaxopt_tour")
#: From this share of elements on, matrices that are not understood are worth a warning.
_SHARE: Final = 0.02
_WAY_OUT: Final = "route by use, routing=jt.routing.from_function(model, example_input), or give MatrixAxes"


def log_routes(routes: Mapping[str, Route], shapes: Mapping[str, tuple[int, ...]], logged: set[str]) -> None:
    """Log the totals at level INFO, and matrices that are not understood at level WARNING.

    Args:
        routes: of all parameters.
        shapes: of all parameters.
        logged: messages that were logged before and are not repeated; the new ones are added.
    """
    # A label that was given, such as "frozen", is an answer.
    unknown = {name: shapes[name] for name, route in routes.items() if route.role == route.label == "not understood"}
    matrices = {name: math.prod(s) for name, s in unknown.items() if sum(size > 1 for size in s) > 1}
    every = max(sum(math.prod(shape) for shape in shapes.values()), 1)
    share = sum(matrices.values()) / every
    _once(logging.INFO, totals(routes, shapes) + (": route by use" if unknown else ""), logged)
    if share > _SHARE:
        largest = sorted(matrices, key=lambda name: -matrices[name])
        shown = ", ".join(f"{name!r} ({routes[name].reason})" for name in largest[:3])
        more = f", and {len(largest) - 3} more" if len(largest) > 3 else ""
        message = (
            f"{len(largest)} matrices with {100 * share:.1f} % of the elements are not understood and go to the "
            f"optimizer for the rest: {shown}{more}. {_WAY_OUT[0].upper()}{_WAY_OUT[1:]}"
        )
        _once(logging.WARNING, message, logged)


def _once(level: int, message: str, logged: set[str]) -> None:
    if message not in logged:
        logged.add(message)
        LOGGER.log(level, message)
