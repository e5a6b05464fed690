"""What a parameter is, and why: what every way of routing returns."""

from __future__ import annotations

import dataclasses
from typing import Final, Literal

from jaxopt_tour._checks import check_choice
from jaxopt_tour.routing.axes import MatrixAxes

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
class Route:
    """The route of one parameter.

    Args:
        role: what the parameter is: a (batch of) ``"matrix"`` between hidden layers, ``"embedding"``, ``"tied"``
            (embedding and head in one), ``"head"``, ``"vector"``, ``"scalar"``, ``"depthwise"``, ``"position"`` or
            ``"not understood"``.
        axes: which axes are fan-in and fan-out; required of a matrix, information otherwise.
        reason: in plain words, what the decision rests on.
        label: the transformation that the parameter goes to, see :func:`jaxopt_tour.multi_transform`. None: its role.

    Raises:
        ValueError: an empty label, an unknown role, or a matrix without axes.
    """

    role: Role
    axes: MatrixAxes | None
    reason: str
    label: str = None  # type: ignore[assignment]  # set below

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


class Routes(dict[str, Route]):
    """Routes by the path name of the parameter, such as ``"blocks/0/attention/kernel"``."""
