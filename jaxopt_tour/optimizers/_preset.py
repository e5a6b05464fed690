"""An optimizer made of groups by role, which prints what each group is set to: what presets are made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optax

from jaxopt_tour._checks import check_rate
from jaxopt_tour._types import ScalarOrSchedule
from jaxopt_tour.coefficients import PolynomialCoefficients
from jaxopt_tour.mesh.on_mesh import MeshLike
from jaxopt_tour.optimizers._numerics import hyperparameter, scale_by_learning_rate
from jaxopt_tour.optimizers.adam import adamw
from jaxopt_tour.optimizers.multi_transform import multi_transform
from jaxopt_tour.optimizers.muon import scale_by_muon
from jaxopt_tour.optimizers.orthogonalize import scale_by_matrix_shape
from jaxopt_tour.optimizers.weight_decay import add_decayed_weights
from jaxopt_tour.orthogonalization.orthogonalizer import Orthogonalizer
from jaxopt_tour.routing import MatrixAxes, Routing
from jaxopt_tour.routing.text import columns

Axes = Mapping[str, MatrixAxes]


@dataclasses.dataclass(frozen=True)
class Group:
    """What serves one or several roles, and how it prints."""

    roles: tuple[str, ...]
    rule: str
    rate: float  # in multiples of the learning rate
    settings: Mapping[str, Any]
    make: Callable[[Axes], optax.GradientTransformation]


class Preset(optax.GradientTransformationExtraArgs):
    """An optimizer as an Optax transformation that prints its settings by role.

    Attributes:
        title: The source and its revision.
    """

    title: str
    _groups: Sequence[Group]
    _learning_rate: ScalarOrSchedule

    def __str__(self) -> str:
        names = list(dict.fromkeys(name for group in self._groups for name in group.settings))
        rows = [["role", "rule", "rate", *(name.replace("_", " ") for name in names)]]
        for group in self._groups:
            settings = [_text(group.settings.get(name, "")) for name in names]
            rows.append([", ".join(group.roles), group.rule, self._rate(group.rate), *settings])
        return f"{self.title}\n\n{columns(rows)}"

    def _rate(self, multiple: float) -> str:
        if isinstance(self._learning_rate, (int, float)):
            return f"{multiple * self._learning_rate:.6g}"
        return "learning_rate" if multiple == 1 else f"{multiple:.6g} learning_rate"


def _text(value: Any) -> str:
    return "schedule" if callable(value) else str(value)


def make_preset(title: str, learning_rate: ScalarOrSchedule, groups: Sequence[Group], routing: Routing) -> Preset:
    """Send each role to its group."""
    transforms: dict[str, Any] = {role: group.make for group in groups for role in group.roles}
    tx = multi_transform({**transforms, "frozen": optax.set_to_zero()}, routing, log=True)
    preset = Preset(tx.init, tx.update)
    preset.title, preset._groups, preset._learning_rate = title, groups, learning_rate
    return preset


def times(learning_rate: ScalarOrSchedule, multiple: float) -> ScalarOrSchedule:
    """Return a multiple of a rate, which may be a schedule."""
    if callable(learning_rate):
        schedule = learning_rate
        return lambda count: multiple * schedule(count)
    return multiple * hyperparameter(learning_rate)


def adamw_group(roles: tuple[str, ...], learning_rate: ScalarOrSchedule, multiple: float, **settings: Any) -> Group:
    """AdamW for some roles at a multiple of the rate; the settings are arguments of `adamw`."""
    check_rate("learning_rate", learning_rate)
    tx = adamw(times(learning_rate, multiple), **settings)
    return Group(roles, "AdamW", multiple, settings, lambda axes: tx)


def muon_group(
    learning_rate: ScalarOrSchedule, orthogonalizer: Orthogonalizer, mesh: MeshLike | None, **settings: Any
) -> Group:
    """Muon with decoupled decay that no shape factor multiplies."""
    check_rate("weight_decay", settings["weight_decay"])

    def matrices(axes: Axes) -> optax.GradientTransformation:
        return optax.chain(
            scale_by_muon(
                settings["beta"], nesterov=settings["nesterov"], orthogonalizer=orthogonalizer, axes=axes, mesh=mesh
            ),
            scale_by_matrix_shape(settings["shape_factor"], axes=axes, mesh=mesh),
            add_decayed_weights(settings["weight_decay"]),
            scale_by_learning_rate(learning_rate),
        )

    coefficients = orthogonalizer.value
    assert isinstance(coefficients, PolynomialCoefficients)
    rule = f"Muon, {coefficients.name} x {coefficients.steps}"
    return Group(("matrix",), rule, 1.0, settings, matrices)
