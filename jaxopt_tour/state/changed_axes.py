"""Find out whether fan-in and fan-out of a parameter are what they were when its state was saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from jaxopt_tour.routing import MatrixAxes, Route

Change = Literal["none", "swapped", "other"]


def change_of_axes(old: MatrixAxes | None, new: MatrixAxes | None, shape: tuple[int, ...]) -> Change:
    """How the matrices of a parameter of this shape differ between two routings.

    Args:
        old: its axes in the old routing; None if it was no matrix.
        new: its axes in the new routing.
        shape: the shape of the parameter.

    Returns:
        `"none"`; `"swapped"` if fan-in and fan-out have changed places and all else is equal; `"other"`.
    """
    if old is None or new is None:
        return "none" if old is new else "other"
    try:
        before, after = (_matrices(axes, shape) for axes in (old, new))
    except ValueError:  # the old axes are those of another shape
        return "other"
    if before == after:
        return "none"
    sizes, (batch, fan_in, fan_out), split = before
    swapped = (sizes, (batch, fan_out, fan_in), split)
    return "swapped" if split is None and swapped == after else "other"


def _matrices(axes: MatrixAxes, shape: tuple[int, ...]) -> Any:
    return axes.factored(shape)[0], axes.dimensions(shape), axes.split


def check_old_routes(old_routes: Any) -> None:
    """Raise ValueError unless these are routes by path name, or None."""
    is_mapping = isinstance(old_routes, Mapping)
    if old_routes is not None and not (is_mapping and all(isinstance(v, Route) for v in old_routes.values())):
        raise ValueError(
            "old_routes must be None or the routes of the old run, such as jt.Routes.from_json(text), "
            f"got {old_routes!r:.80}"
        )
