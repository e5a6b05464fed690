"""Routes as JSON text. A document has the name and version of its format, and one object for each parameter."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from jaxopt_tour.routing.axes import MatrixAxes

FORMAT: Final = "jaxopt_tour.routes"
#: Raised when a field is added, removed or changes its meaning.
VERSION: Final = 1

#: The fields of a route, all of which a document has.
_FIELDS: Final = ("role", "axes", "reason", "label", "pieces", "uses", "order")
_PIECE_FIELDS: Final = ("kind", "axes", "what")
_AXES_FIELDS: Final = ("fan_in", "fan_out", "split", "factors")


def axes_to_data(axes: MatrixAxes | None) -> dict[str, Any] | None:
    """Axes as dictionaries and lists; `factors` as pairs, because JSON has no integer keys."""
    if axes is None:
        return None
    return {
        "fan_in": list(axes.fan_in),
        "fan_out": list(axes.fan_out),
        "split": None if axes.split is None else list(axes.split),
        "factors": [[axis, list(sizes)] for axis, sizes in axes.factors],
    }


def to_text(routes: Mapping[str, Mapping[str, Any]]) -> str:
    """The document, with one line for each parameter."""
    head = f'"format": {json.dumps(FORMAT)}, "version": {VERSION}'
    lines = [f"    {json.dumps(name)}: {json.dumps(route)}" for name, route in routes.items()]
    return f'{{\n  {head},\n  "routes": {{\n' + ",\n".join(lines) + "\n  }\n}\n"


def from_text(text: str | bytes) -> dict[str, dict[str, Any]]:
    """The fields of every route: axes as `MatrixAxes`, lists as tuples.

    Raises:
        ValueError: the text is no JSON, not of this format or version, or has a field that is missing, unknown or of a
            wrong type. The message names the parameter.
    """
    try:
        document = json.loads(text, object_pairs_hook=_without_repeats)
    except (TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"text must be what Routes.to_json returns, and is no JSON: {error}") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f'text must be what Routes.to_json returns, with "format": "{FORMAT}"')
    version = document.get("version")
    if version != VERSION or isinstance(version, bool):
        raise ValueError(f"text has version {version!r} of its format; this version of jaxopt_tour reads {VERSION}")
    routes = document.get("routes")
    if not isinstance(routes, dict):
        raise ValueError(f'text must have "routes", an object by path name, got {routes!r}')
    return {name: _route(f"route of {name!r}", data) for name, data in routes.items()}


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"text has the key {next(name for name in names if names.count(name) > 1)!r} twice")
    return data


def _route(where: str, data: Any) -> dict[str, Any]:
    _check_fields(where, data, _FIELDS)
    for field in ("role", "reason", "label"):
        _check_text(f"{where}: {field}", data[field])
    pieces = _list(f"{where}: pieces", data["pieces"])
    for use in _list(f"{where}: uses", data["uses"]):
        _check_text(f"{where}: uses", use)
    return {
        **data,
        "axes": _axes(where, data["axes"]),
        "pieces": tuple(_piece(f"{where}: pieces", piece) for piece in pieces),
        "uses": tuple(data["uses"]),
        "order": _integers(f"{where}: order", data["order"]),
    }


def _piece(where: str, data: Any) -> dict[str, Any]:
    _check_fields(where, data, _PIECE_FIELDS)
    if data["kind"] not in ("heads", "fused"):
        raise ValueError(f"{where}: kind must be 'heads' or 'fused', got {data['kind']!r}")
    _check_text(f"{where}: what", data["what"])
    return {**data, "axes": _axes(where, data["axes"])}


def _axes(where: str, data: Any) -> MatrixAxes | None:
    if data is None:
        return None
    where = f"{where}: axes"
    _check_fields(where, data, _AXES_FIELDS)
    factors = {}
    for pair in _list(f"{where}: factors", data["factors"]):
        if not isinstance(pair, list) or len(pair) != 2 or not _is_integer(pair[0]):
            raise ValueError(f"{where}: factors must be pairs of an axis and its inner sizes, got {pair!r}")
        factors[pair[0]] = _integers(f"{where}: factors", pair[1])
    try:
        return MatrixAxes(
            _integers(f"{where}: fan_in", data["fan_in"]),
            _integers(f"{where}: fan_out", data["fan_out"]),
            None if data["split"] is None else _integers(f"{where}: split", data["split"]),
            factors=factors,
        )
    except ValueError as error:
        raise ValueError(str(error) if str(error).startswith(where) else f"{where}: {error}") from None


def _check_fields(where: str, data: Any, fields: Sequence[str]) -> None:
    if not isinstance(data, dict):
        raise ValueError(f"{where} must be an object with {', '.join(fields)}, got {data!r}")
    for field in fields:
        if field not in data:
            raise ValueError(f"{where} has no {field!r}; its fields are {', '.join(fields)}")
    for field in data:
        if field not in fields:
            raise ValueError(f"{where} has an unknown field {field!r}; its fields are {', '.join(fields)}")


def _check_text(where: str, value: Any) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{where} must be text, got {value!r}")


def _list(where: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{where} must be a list, got {value!r}")
    return value


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _integers(where: str, value: Any) -> tuple[int, ...]:
    if not all(map(_is_integer, _list(where, value))):
        raise ValueError(f"{where} must be a list of integers, got {value!r}")
    return tuple(value)
