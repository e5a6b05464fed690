"""The ways to give a model to `from_function`: what is called, what its parameters are, what is constant.

Frameworks are recognized by their classes' names or by their methods, and are never imported.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxopt_tour._checks import check_call
from jaxopt_tour._trees import is_array
from jaxopt_tour._types import Tree

_WAYS = "from_function(fn, params, *inputs), or from_function(model, *inputs)"


class Traced(NamedTuple):
    """What is traced: `call(params, constants, *inputs, **kwargs)`, and its arguments."""

    call: Callable[..., Any]
    params: Tree
    constants: Any
    inputs: tuple[Any, ...]


def is_module(value: Any, package: str, name: str = "Module") -> bool:
    """Whether the value is an instance of a framework's class; recognized without an import."""
    return any(base.__name__ == name and base.__module__.startswith(package) for base in type(value).__mro__)


def is_model(value: Any) -> bool:
    """Whether the value is a model, not a function or a tree of plain containers."""
    if is_module(value, "flax.nnx.") or is_module(value, "flax.linen.") or _is_pair(value) or _is_keras(value):
        return True
    return _is_callable_tree(value)


def _is_callable_tree(value: Any) -> bool:
    """Whether this is a module that is a pytree, as Equinox's are."""
    is_function = isinstance(value, (type, jax.tree_util.Partial))
    return callable(value) and not is_function and not jax.tree_util.all_leaves([value])


def as_traced(fn: Any, arguments: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Traced:
    """What to trace, from the arguments of `from_function`."""
    if is_module(fn, "flax.nnx."):
        return _nnx(lambda model, *inputs, **kwargs: model(*inputs, **kwargs), fn, arguments)
    if _is_keras(fn):
        return _keras(fn, arguments)
    is_linen, is_pair = is_module(fn, "flax.linen."), _is_pair(fn)
    if not callable(fn) and not is_pair:
        if jax.tree.leaves(fn) and not isinstance(fn, str):
            raise ValueError(f"fn must be a function, got parameters ({type(fn).__name__}): {_WAYS}")
        raise ValueError(f"fn must be a function (params, *inputs) or a model, got {fn!r}")
    if not is_linen and _is_callable_tree(fn):
        if arguments or kwargs:
            check_call("fn", fn, arguments, kwargs)
        return _split(lambda model, *inputs, **kwargs: model(*inputs, **kwargs), fn, arguments)
    if not arguments:
        what = "variables are missing: from_function(module, variables, *inputs)" if is_linen else ""
        raise ValueError(what or "params are missing: from_function(fn, params, *example_inputs)")
    params, *rest = arguments
    inputs = tuple(rest)
    if is_linen:
        return _linen(fn, params, inputs)
    if is_pair:
        return _pair(fn, params, inputs)
    if is_module(params, "flax.linen."):
        raise ValueError(f"params must be parameters, got the linen module {type(params).__name__}: {_WAYS}")
    if inputs or kwargs:  # otherwise they are missing, which is said elsewhere
        check_call("fn", fn, arguments, kwargs)
    if is_module(params, "flax.nnx."):
        return _nnx(fn, params, inputs)
    return _split(fn, params, inputs)


def _split(fn: Callable[..., Any], tree: Tree, inputs: tuple[Any, ...]) -> Traced:
    """A function of a tree, or an Equinox module: floating arrays are parameters, all other leaves are constant."""
    structure: Any  # its methods are unknown to type checkers
    leaves, structure = jax.tree.flatten(tree, is_leaf=lambda node: node is None)

    def is_parameter(leaf: Any) -> bool:
        return is_array(leaf) and jax.numpy.issubdtype(leaf.dtype, np.inexact)

    def is_constant(leaf: Any) -> bool:
        return is_array(leaf) and not is_parameter(leaf)

    if all(map(is_parameter, leaves)):
        return Traced(lambda params, constants, *x, **kwargs: fn(params, *x, **kwargs), tree, (), inputs)
    params = structure.unflatten([leaf if is_parameter(leaf) else None for leaf in leaves])
    constants = [leaf for leaf in leaves if is_constant(leaf)]

    def call(params: Tree, constants: Sequence[Any], *inputs: Any, **kwargs: Any) -> Any:
        given, arrays = iter(jax.tree.leaves(params)), iter(constants)
        filled = [next(given) if is_parameter(x) else next(arrays) if is_constant(x) else x for x in leaves]
        return fn(structure.unflatten(filled), *inputs, **kwargs)

    return Traced(call, params, constants, inputs)


def _nnx(fn: Callable[..., Any], model: Any, inputs: tuple[Any, ...]) -> Traced:
    nnx: Any = sys.modules["flax.nnx"]  # loaded, since the model is one of its modules
    graph, params, constants = nnx.split(model, nnx.Param, ...)

    def call(params: Tree, constants: Any, *inputs: Any, **kwargs: Any) -> Any:
        return fn(nnx.merge(graph, params, constants), *inputs, **kwargs)

    return Traced(call, params, constants, inputs)


def _linen(module: Any, variables: Any, inputs: tuple[Any, ...]) -> Traced:
    if not isinstance(variables, Mapping):
        raise ValueError(
            f"variables of a linen Module must be a mapping, got {type(variables).__name__}: "
            "from_function(module, variables, *inputs)"
        )
    full = isinstance(variables.get("params"), Mapping)
    params = variables["params"] if full else variables
    constants = {name: value for name, value in variables.items() if full and name != "params"}

    def call(params: Tree, constants: Any, *inputs: Any, **kwargs: Any) -> Any:
        key = jax.random.key(0)
        kwargs = {"rngs": {"params": key, "dropout": key}, "mutable": list(constants) or False, **kwargs}
        output = module.apply({"params": params, **constants}, *inputs, **kwargs)
        return output if kwargs["mutable"] is False else output[0]

    return Traced(call, params, constants, inputs)


def _is_keras(value: Any) -> bool:
    return hasattr(value, "stateless_call") and hasattr(value, "trainable_variables") and not isinstance(value, type)


def _keras(model: Any, inputs: tuple[Any, ...]) -> Traced:
    """A Keras model: its trainable variables, as the list of arrays that its stateless functions take."""

    def arrays(variables: Sequence[Any]) -> list[Any]:
        return [jax.ShapeDtypeStruct(tuple(v.shape), jax.numpy.dtype(str(v.dtype))) for v in variables]

    def call(params: Tree, constants: Any, *inputs: Any, **kwargs: Any) -> Any:
        return model.stateless_call(params, constants, *inputs, **kwargs)[0]

    if not model.trainable_variables:
        raise ValueError("the Keras model has no variables yet: call model.build(input_shape) first")
    return Traced(call, arrays(model.trainable_variables), arrays(model.non_trainable_variables), inputs)


def _is_pair(value: Any) -> bool:
    """Whether this is Haiku's pair of functions `(init, apply)`."""
    return isinstance(value, tuple) and len(value) == 2 and all(map(callable, value))


def _pair(pair: Any, params: Tree, inputs: tuple[Any, ...]) -> Traced:
    """A Haiku pair: `apply(params, [state,] [rng,] *inputs)`."""
    apply = pair[1]
    names = list(inspect.signature(apply).parameters)
    has_state, has_key = "state" in names[:2], "rng" in names[:3]
    if has_state and not inputs:
        raise ValueError("state is missing: from_function(pair, params, state, *example_inputs)")
    state, inputs = (inputs[0], inputs[1:]) if has_state else ((), inputs)
    traced = _split(lambda params, state, *x, **kwargs: _applied(apply, params, state, x, kwargs), params, (state,))

    def _applied(apply: Any, params: Tree, state: Any, x: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        before = (*((state,) if has_state else ()), *((jax.random.key(0),) if has_key else ()))
        output = apply(params, *before, *x, **kwargs)
        return output[0] if has_state else output

    def call(params: Tree, constants: Any, *inputs: Any, **kwargs: Any) -> Any:
        own, state = constants
        return traced.call(params, own, state, *inputs, **kwargs)

    return Traced(call, traced.params, (traced.constants, state), inputs)
