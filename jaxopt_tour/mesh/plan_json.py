"""Plans as JSON data: every value with the name of its type."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from jaxopt_tour.coefficients import Exact, PolynomialCoefficients, RationalCoefficients
from jaxopt_tour.coefficients.rational import Rational
from jaxopt_tour.mesh.assignment import Assignment, Axes, Member, ShardedGroup
from jaxopt_tour.mesh.plan import Exchange, MatrixPlan
from jaxopt_tour.orthogonalization.plan import Group, Iteration, Key, Matrices

_TYPES: Final = {
    kind.__name__: kind
    for kind in (
        Assignment,
        Axes,
        Exact,
        Exchange,
        Group,
        Iteration,
        Key,
        Matrices,
        MatrixPlan,
        Member,
        PolynomialCoefficients,
        Rational,
        RationalCoefficients,
        ShardedGroup,
    )
}


def encode(value: Any) -> Any:
    """Numbers, strings, lists and dictionaries in place of the values of a plan."""
    name = type(value).__name__
    if name in _TYPES and isinstance(value, tuple):
        return {"type": name, **{field: encode(getattr(value, field)) for field in value._fields}}  # type: ignore[attr-defined]
    if name in _TYPES:
        return {"type": name, **{field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)}}
    return [encode(entry) for entry in value] if isinstance(value, tuple) else value


def decode(data: Any) -> Any:
    """The inverse of `encode`.

    Raises:
        ValueError: a type that no plan has.
    """
    if isinstance(data, list):
        return tuple(decode(entry) for entry in data)
    if not isinstance(data, dict):
        return data
    if data.get("type") not in _TYPES:
        raise ValueError(f"type {data.get('type')!r}")
    return _TYPES[data["type"]](**{name: decode(entry) for name, entry in data.items() if name != "type"})
