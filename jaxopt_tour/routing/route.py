"""Routes: the role of a parameter, its axes as a matrix, and the reason."""

from __future__ import annotations

import dataclasses
from typing import Any, Final, Literal

from jaxopt_tour._checks import check_choice
from jaxopt_tour.routing.axes import MatrixAxes
from jaxopt_tour.routing.route_json import axes_to_data, from_text, to_text
from jaxopt_tour.routing.text import as_html, columns, folded

Role = Literal["matrix", "embedding", "tied", "head", "vector", "scalar", "depthwise", "position", "not understood"]
ROLES: Final[tuple[Role, ...]] = (
    "matrix",
    "embedding",
    "tied",
    "head",
    "vector",
    "scalar",
    "depthwise",
    "position",
    "not understood",
)


@dataclasses.dataclass(frozen=True)
class Pieces:
    """How a matrix can be split into matrices of its own: by heads of attention, or by the parts of a fused projection.

    Args:
        kind: `"heads"` or `"fused"`.
        axes: the axes of the split parameter; None if it cannot be split.
        what: the pieces in words, such as `"12 heads of 64"`; or why the parameter is not split.
    """

    kind: Literal["heads", "fused"]
    axes: MatrixAxes | None
    what: str


@dataclasses.dataclass(frozen=True)
class Route:
    """The route of one parameter.

    Args:
        role: what the parameter is.

            * `"matrix"`: a matrix, or a batch of matrices, between hidden layers;
            * `"embedding"`: a table whose rows are looked up;
            * `"head"`: the last matrix before the outputs;
            * `"tied"`: an embedding that is also the head;
            * `"vector"`: a bias, a scale, or a matrix with fan-in or fan-out 1;
            * `"scalar"`: a single number;
            * `"depthwise"`: the kernel of a depthwise convolution;
            * `"position"`: positions, class tokens and other learned inputs;
            * `"not understood"`: anything else, with the cause in `reason`.
        axes: fan-in and fan-out axes. Required for the label `"matrix"`, optional otherwise.
        reason: the evidence for the role, in words.
        label: name of the transformation that updates the parameter, see `multi_transform`. None: the
            role.
        pieces: how a matrix can be split, whether it is or not.
        uses: the operations that the parameter meets, in the order of the function.
        order: the place of the first of them in the function.

    Raises:
        ValueError: the label is empty, the role does not exist, or a parameter labelled `"matrix"` has no axes.
    """

    role: Role
    axes: MatrixAxes | None
    reason: str
    label: str = None  # type: ignore[assignment]  # set below
    pieces: tuple[Pieces, ...] = ()
    uses: tuple[str, ...] = dataclasses.field(default=(), compare=False)
    order: tuple[int, ...] = dataclasses.field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        check_choice("role", self.role, ROLES)
        if self.label is None:
            object.__setattr__(self, "label", self.role)
        if not isinstance(self.label, str) or not self.label:
            raise ValueError(f"label must be the name of a transformation such as 'matrix', got {self.label!r}")
        if self.axes is not None and not isinstance(self.axes, MatrixAxes):
            raise ValueError(f"axes must be a MatrixAxes or None, got {self.axes!r}")
        if self.label == "matrix" and self.axes is None:
            raise ValueError('label "matrix" needs axes: a MatrixAxes that says which axes are fan-in and fan-out')


def _to_data(route: Route) -> dict[str, Any]:
    """A route as dictionaries, lists, text and numbers."""
    return {
        "role": route.role,
        "axes": axes_to_data(route.axes),
        "reason": route.reason,
        "label": route.label,
        "pieces": [
            {"kind": piece.kind, "axes": axes_to_data(piece.axes), "what": piece.what} for piece in route.pieces
        ],
        "uses": list(route.uses),
        "order": [int(place) for place in route.order],
    }


class Routes(dict[str, Route]):
    """Routes by the path name of the parameter, such as `"blocks/0/attention/kernel"`.

    `print` shows them in the order of the function, if they are by use: role, axes, pieces, and the operations that
    each parameter meets.
    """

    def in_order(self) -> list[str]:
        """The path names in the order in which the function uses the parameters; in the tree's order by name."""
        return sorted(self, key=lambda name: self[name].order)

    def to_json(self) -> str:
        """The routes as text, to save beside a checkpoint: everything that `from_json` needs for equal routes.

        Example:
            >>> import jaxopt_tour as jt, jax.numpy as jnp
            >>> routes = jt.routing.resolve(None, {"blocks": {"up": {"kernel": jnp.ones((4, 6)), "bias": jnp.ones(6)}}})
            >>> tx = jt.muon(1e-3, routing=jt.Routes.from_json(routes.to_json()))
        """
        return to_text({name: _to_data(route) for name, route in self.items()})

    @classmethod
    def from_json(cls, text: str | bytes) -> Routes:
        """The routes that `to_json` wrote.

        Args:
            text: the whole document.

        Raises:
            ValueError: the text is no JSON, of another format or version, or a route in it is not a possible one. The
                message names the parameter.
        """
        routes = cls()
        for name, data in from_text(text).items():
            pieces = tuple(Pieces(**piece) for piece in data.pop("pieces"))
            try:
                routes[name] = Route(**data, pieces=pieces)
            except ValueError as error:
                raise ValueError(f"route of {name!r}: {error}") from None
        return routes

    def __str__(self) -> str:
        return columns(self._lines()) if self else "no parameters"

    def _repr_html_(self) -> str:
        return as_html(self._lines(), "")

    def _lines(self) -> list[list[str]]:
        lines = []
        for name in self.in_order():
            route = self[name]
            axes = "" if route.axes is None else str(route.axes).removeprefix("MatrixAxes")
            pieces = "; ".join(entry.what for entry in route.pieces)
            lines.append([name, route.label, axes, pieces, ", ".join(route.uses), route.reason])
        kept = folded((line[0], tuple(line[1:])) for line in lines)
        titles = ["parameter", "to", "axes", "pieces", "meets", "why"]
        shown = [i for i in range(len(titles)) if any(line[i] for line in lines)]
        rows = [titles, *([path, *lines[first][1:]] for path, first in kept)]
        return [[row[i] for i in shown] for row in rows]
