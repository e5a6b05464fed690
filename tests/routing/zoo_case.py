"""How the zoo describes a model: its arguments, and the role and axes of every parameter."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from jaxopt_tour.routing.axes import MatrixAxes
from jaxopt_tour.routing.route import Role

Expected = tuple[Role, MatrixAxes | None]

VECTOR: Expected = ("vector", None)
SCALAR: Expected = ("scalar", None)
EMBEDDING: Expected = ("embedding", None)
POSITION: Expected = ("position", None)
DEPTHWISE: Expected = ("depthwise", None)
NOT_UNDERSTOOD: Expected = ("not understood", None)


def matrix(fan_in: Any, fan_out: Any, split: Any = None) -> Expected:
    return ("matrix", MatrixAxes(fan_in, fan_out, split))


def head(fan_in: Any, fan_out: Any) -> Expected:
    return ("head", MatrixAxes(fan_in, fan_out))


def tied(fan_in: Any, fan_out: Any) -> Expected:
    return ("tied", MatrixAxes(fan_in, fan_out))


DENSE, HEAD = matrix(0, 1), head(0, 1)


@dataclasses.dataclass(frozen=True)
class Case:
    """One model: how to build it, and what its parameters are."""

    name: str
    build: Callable[[], tuple[tuple[Any, ...], dict[str, Any]]]
    expected: dict[str, Expected]
    conventional: bool

    def params(self) -> Any:
        """The parameter tree."""
        arguments, _ = self.build()
        model = next((x for x in arguments[:2] if isinstance(x, nnx.Module)), None)
        if model is not None:
            return nnx.state(model, nnx.Param)
        return arguments[1]["params"] if isinstance(arguments[0], nn.Module) else arguments[1]


CASES: dict[str, Case] = {}


def case(expected: dict[str, Expected], conventional: bool = False) -> Callable[[Any], Any]:
    def register(build: Any) -> Any:
        def build_with_kwargs() -> tuple[tuple[Any, ...], dict[str, Any]]:
            built = build()
            return (built[:-1], built[-1]) if isinstance(built[-1], dict) and len(built) > 2 else (built, {})

        CASES[build.__name__] = Case(build.__name__, build_with_kwargs, expected, conventional)
        return build

    return register


def floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def tokens(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.int32)


def linen(module: nn.Module, *inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
    """The arguments for a linen module, its variables as shapes."""
    key = jax.random.key(0)
    variables = jax.eval_shape(lambda *x: module.init({"params": key, "dropout": key}, *x, **kwargs), *inputs)
    return (module, variables, *inputs)


def abstract(make: Callable[[nnx.Rngs], Any]) -> Any:
    """An nnx model of shapes."""
    return nnx.eval_shape(lambda: make(nnx.Rngs(0)))


def under(prefix: str, expected: dict[str, Expected]) -> dict[str, Expected]:
    return {f"{prefix}/{name}": route for name, route in expected.items()}


def stacked(expected: dict[str, Expected]) -> dict[str, Expected]:
    """The same parameters with a leading axis of layers."""

    def shift(route: Expected) -> Expected:
        role, axes = route
        if axes is None:
            return route
        fan_in, fan_out = (tuple(axis + 1 for axis in side) for side in (axes.fan_in, axes.fan_out))
        return role, MatrixAxes(fan_in, fan_out, axes.split)

    return {name: shift(route) for name, route in expected.items()}
