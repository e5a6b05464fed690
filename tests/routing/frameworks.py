"""Stand-ins for frameworks that are not installed, with the structure that `from_function` recognizes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class EquinoxModule:
    """A dataclass that is a pytree of all its fields, as `eqx.Module`: functions, None and strings are leaves."""

    def __init_subclass__(cls) -> None:
        dataclasses.dataclass(cls)
        names = [field.name for field in dataclasses.fields(cls)]

        def flatten(module: Any) -> tuple[list[tuple[Any, Any]], None]:
            return [(jax.tree_util.GetAttrKey(name), getattr(module, name)) for name in names], None

        def unflatten(_: None, children: Any) -> Any:
            module = object.__new__(cls)
            for name, child in zip(names, children, strict=True):
                object.__setattr__(module, name, child)
            return module

        jax.tree_util.register_pytree_with_keys(cls, flatten, unflatten)


class Linear(EquinoxModule):
    weight: Any  # (out, in)
    bias: Any

    def __call__(self, x: Any) -> Any:
        y = self.weight @ x
        return y if self.bias is None else y + self.bias


class EquinoxModel(EquinoxModule):
    embedding: Any
    layers: list[Any]
    activation: Callable[[Any], Any]
    mode: str
    depth: int
    steps: Any  # an integer array
    head: Linear

    def __call__(self, tokens: Any) -> Any:
        assert self.mode == "mean" and self.depth == 2
        x = self.embedding[tokens].mean(0) * self.steps
        for layer in self.layers:
            x = self.activation(layer(x))
        return self.head(x)


def equinox_model(array: Callable[..., Any] = jnp.zeros) -> EquinoxModel:
    return EquinoxModel(
        embedding=array((20, 8)),
        layers=[Linear(array((16, 8)), array((16,))), Linear(array((12, 16)), None)],
        activation=jnp.tanh,
        mode="mean",
        depth=2,
        steps=jnp.arange(1),
        head=Linear(array((5, 12)), array((5,))),
    )


class KerasVariable:
    def __init__(self, path: str, shape: tuple[int, ...]) -> None:
        self.path, self.shape, self.dtype = path, shape, "float32"
        self.value = jnp.zeros(shape)


class KerasModel:
    """A model whose state is in variables, with a function of their values."""

    def __init__(self, built: bool = True) -> None:
        shapes = {"dense/kernel": (8, 16), "dense/bias": (16,), "out/kernel": (16, 3)}
        self.trainable_variables = [KerasVariable(*item) for item in shapes.items()] if built else []
        self.non_trainable_variables = [KerasVariable("norm/mean", (16,))]

    def stateless_call(self, trainable: Any, non_trainable: Any, x: Any, training: bool = False) -> Any:
        kernel, bias, out = trainable
        x = jnp.tanh(x @ kernel + bias) - non_trainable[0]
        return x @ out, [non_trainable[0] * 0.9 if training else non_trainable[0]]

    def __call__(self, x: Any) -> Any:
        raise AssertionError("a Keras model is not called with its own state")


@functools.partial(jax.tree_util.register_dataclass, data_fields=["data_array"], meta_fields=["named_axes"])
@dataclasses.dataclass
class PenzaiArray:
    """An array whose axes have names, as `pz.nx.NamedArray`."""

    data_array: Any
    named_axes: Any


class Transformed(NamedTuple):
    """Haiku's pair of functions."""

    init: Callable[..., Any]
    apply: Callable[..., Any]


def haiku_pair(with_key: bool, with_state: bool) -> Transformed:
    def forward(params: Any, x: Any) -> Any:
        return jnp.tanh(x @ params["mlp/~/linear_0"]["w"]) @ params["mlp/~/linear_1"]["w"]

    def apply_all(params: Any, state: Any, rng: Any, x: Any) -> Any:
        assert rng is not None
        return forward(params, x) + state["offset"], state

    def apply_key(params: Any, rng: Any, x: Any) -> Any:
        return forward(params, x) + jax.random.normal(rng, (3,))

    def apply_plain(params: Any, x: Any) -> Any:
        return forward(params, x)

    return Transformed(lambda key, x: None, apply_all if with_state else apply_key if with_key else apply_plain)
