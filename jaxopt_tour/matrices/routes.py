"""Where a parameter goes, and why: what every way of routing returns."""

from __future__ import annotations

import dataclasses

from jaxopt_tour._checks import check_choice
from jaxopt_tour.matrices.axes import MatrixAxes

KINDS = ("matrix", "embedding", "tied", "head", "vector", "scalar", "depthwise", "position", "chosen", "unknown")


@dataclasses.dataclass(frozen=True)
class Route:
    """The route of one parameter.

    Args:
        label: the transformation it goes to: "muon" for (a batch of) matrices, "adamw" for everything else, or a label
            of the user's own, see :func:`jaxopt_tour.optimizers.multi_transform.multi_transform`.
        axes: which axes are fan-in and fan-out; required by "muon", information otherwise.
        kind: what the parameter is: "matrix", "embedding", "tied" (embedding and head in one), "head", "vector",
            "scalar", "depthwise", "position", "chosen" (by the user) or "unknown".
        reason: in plain words, what the decision rests on.

    Raises:
        ValueError: an empty label, an unknown kind, or "muon" without axes.
    """

    label: str
    axes: MatrixAxes | None
    kind: str
    reason: str

    def __post_init__(self) -> None:
        if not isinstance(self.label, str) or not self.label:
            raise ValueError(
                f"label must be the name of a transformation such as 'muon' or 'adamw', got {self.label!r}"
            )
        check_choice("kind", self.kind, KINDS)
        if self.axes is not None and not isinstance(self.axes, MatrixAxes):
            raise ValueError(f"axes must be a MatrixAxes or None, got {self.axes!r}")
        if self.label == "muon" and self.axes is None:
            raise ValueError('label "muon" needs axes: a MatrixAxes that says which axes are fan-in and fan-out')


class Routes(dict[str, Route]):
    """Routes by the path name of the parameter, such as ``"blocks/0/attention/kernel"``."""
