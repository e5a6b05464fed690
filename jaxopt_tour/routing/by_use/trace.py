"""Routing by use: a function is traced, not run, and each parameter goes where its use says.

Contracted with something that depends on the inputs: a matrix, whose contracting axes are fan-in and whose free axes
are fan-out. Looked up: an embedding. Added or multiplied elementwise: a vector. See :func:`from_function`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax

from jaxopt_tour._trees import is_box, path_name, unbox
from jaxopt_tour._types import Tree
from jaxopt_tour.routing.by_use import classify, lineage
from jaxopt_tour.routing.by_use.interpreter import Value, Walker
from jaxopt_tour.routing.by_use.primitives import apply
from jaxopt_tour.routing.route import Routes

__all__ = ["from_function"]


def from_function(fn: Any, /, *params_and_inputs: Any, split_fused: bool = False, **example_kwargs: Any) -> Routes:
    """Route every parameter of a function by how the function uses it.

    The function is traced to its jaxpr and never run: arguments may be arrays or ``jax.ShapeDtypeStruct``, of any
    size. Three ways to call it::

        from_function(fn, params, *example_inputs)         # fn(params, *inputs) -> outputs or loss
        from_function(nnx_model, *example_inputs)          # parameters are its nnx.Param
        from_function(linen_model, variables, *example_inputs)

    ``fn(nnx_model, *inputs)``, as in ``nnx.value_and_grad``, works as the first does.

    | use | kind, label |
    |---|---|
    | contracted with an activation (``dot_general``, convolution) | "matrix", muon |
    | the last such contraction before the outputs, also if it is the only one | "head", adamw |
    | rows looked up by the inputs, by index or one-hot product | "embedding", adamw |
    | looked up and contracted | "tied", adamw |
    | added or multiplied elementwise | "vector" or "scalar", adamw |
    | added along axes that are no layer's output, or joined to the activations as a learned token | "position", adamw |
    | a convolution with one input channel a group | "depthwise", adamw |
    | anything else, or nothing | "unknown", adamw, and why |

    Axes of scans, of indexing and of batched contractions are the batch. Products of parameters (``W + B @ A``) are
    matrices each. ``x[t, d] w[e, d, f]`` is one matrix with fan-out (e, f), unless what follows keeps ``e`` apart: a
    next layer that has ``e`` as its batch, a sum over ``e`` alone, or an index for each of its elements.
    A bilinear form in which two activations meet one parameter, such as soft merging of experts, is seen as its
    first contraction alone: give axes for it.

    Args:
        fn: a function of (params, inputs), a Flax ``nnx.Module`` or a linen ``Module``.
        *params_and_inputs: the parameter tree (for nnx: none, for linen: the variables), then example inputs, pytrees.
        split_fused: a matrix whose fan-out is afterwards cut into pieces (fused query, key and value) is returned as
            these pieces, ``MatrixAxes(..., split=sizes)``. By default it is one matrix, as it is used.
        **example_kwargs: keyword arguments of the function. Arrays are inputs; everything else (``train=True``, also
            among the inputs) is passed as it is.

    Returns:
        A :class:`Routes`, path name -> route, to look at or to pass to ``muon(..., routing=...)``.

    Raises:
        ValueError: ``fn`` is not callable, there are no parameters, or no inputs.
    """
    if not callable(fn):
        raise ValueError(f"fn must be a function (params, *inputs), a Flax nnx.Module or linen Module, got {fn!r}")
    call, params, constants, inputs = _as_function(fn, params_and_inputs)
    names, leaves = _named(params)
    if not leaves:
        raise ValueError(f"params must hold at least one array, got {params!r}")
    dynamic, rebuild = _arrays_apart((inputs, example_kwargs))
    if not dynamic:
        raise ValueError(
            "example inputs are missing: pass at least one array or jax.ShapeDtypeStruct after the parameters. What "
            "a parameter is shows where it meets something that depends on the inputs"
        )

    def traced(params: Tree, constants: Any, dynamic: list[Any]) -> Any:
        inputs, kwargs = rebuild(dynamic)
        return [leaf for leaf in jax.tree.leaves(call(params, constants, *inputs, **kwargs)) if hasattr(leaf, "dtype")]

    arguments = [jax.tree.map(_abstract, tree) for tree in (params, constants, dynamic)]
    jaxpr = jax.make_jaxpr(traced)(*arguments)

    walker = Walker(apply)
    values = [Value(origins=(lineage.whole(i, tuple(leaf.shape)),)) for i, leaf in enumerate(leaves)]
    values += [Value() for _ in jax.tree.leaves(arguments[1])]
    values += [Value(active=True) for _ in dynamic]
    outputs = walker.run(jaxpr, values)
    last = classify.heads(walker.record, frozenset().union(*(value.reach for value in outputs)))
    return Routes(
        {
            name: classify.route(leaf, i, walker.record, last, split_fused)
            for i, (name, leaf) in enumerate(zip(names, leaves, strict=True))
        }
    )


def _as_function(fn: Any, arguments: tuple[Any, ...]) -> tuple[Callable[..., Any], Tree, Any, tuple[Any, ...]]:
    """``call(params, constants, *inputs)``, and the parameters, constants and inputs."""
    if _is_instance(fn, "flax.nnx.", "Module"):
        return _nnx_function(lambda model, *inputs, **kwargs: model(*inputs, **kwargs), fn, arguments)
    if not arguments:
        raise ValueError("params are missing: from_function(fn, params, *example_inputs)")
    params, *inputs = arguments
    if _is_instance(fn, "flax.linen.", "Module"):
        return _linen_function(fn, params, tuple(inputs))
    if _is_instance(params, "flax.nnx.", "Module"):
        return _nnx_function(fn, params, tuple(inputs))
    return lambda params, constants, *inputs, **kwargs: fn(params, *inputs, **kwargs), params, (), tuple(inputs)


def _is_instance(value: Any, package: str, name: str) -> bool:
    """Whether a Flax class stands among the bases; Flax itself is not imported for this."""
    return any(base.__name__ == name and base.__module__.startswith(package) for base in type(value).__mro__)


def _nnx_function(
    fn: Callable[..., Any], model: Any, inputs: tuple[Any, ...]
) -> tuple[Callable[..., Any], Tree, Any, tuple[Any, ...]]:
    nnx: Any = sys.modules["flax.nnx"]  # loaded, since the model is one of its modules
    graph, params, constants = nnx.split(model, nnx.Param, ...)

    def call(params: Tree, constants: Any, *inputs: Any, **kwargs: Any) -> Any:
        return fn(nnx.merge(graph, params, constants), *inputs, **kwargs)

    return call, params, constants, inputs


def _linen_function(
    module: Any, variables: Any, inputs: tuple[Any, ...]
) -> tuple[Callable[..., Any], Tree, Any, tuple[Any, ...]]:
    if not isinstance(variables, Mapping):
        raise ValueError(f"variables of a linen Module must be a mapping, got {variables!r}")
    full = isinstance(variables.get("params"), Mapping)
    params = variables["params"] if full else variables
    constants = {name: value for name, value in variables.items() if full and name != "params"}

    def call(params: Tree, constants: Any, *inputs: Any, **kwargs: Any) -> Any:
        key = jax.random.key(0)
        kwargs = {"rngs": {"params": key, "dropout": key}, "mutable": list(constants) or False, **kwargs}
        output = module.apply({"params": params, **constants}, *inputs, **kwargs)
        return output if kwargs["mutable"] is False else output[0]

    return call, params, constants, inputs


def _named(params: Tree) -> tuple[list[str], list[Any]]:
    """Path names and arrays, in the order in which they are traced."""
    pairs = [
        (path_name(path), unbox(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(params, is_leaf=is_box)
        if jax.tree.leaves(leaf)
    ]
    for name, leaf in pairs:
        if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
            raise ValueError(f"params must hold arrays or jax.ShapeDtypeStruct, got {leaf!r} at {name!r}")
    return [name for name, _ in pairs], [leaf for _, leaf in pairs]


def _abstract(leaf: Any) -> Any:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _arrays_apart(tree: Tree) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """The arrays of a tree, and the function that puts others in their place; the rest stays as it is."""
    leaves, structure = jax.tree.flatten(tree)
    places = [i for i, leaf in enumerate(leaves) if hasattr(leaf, "shape") and hasattr(leaf, "dtype")]

    def rebuild(arrays: list[Any]) -> Any:
        filled = list(leaves)
        for place, array in zip(places, arrays, strict=True):
            filled[place] = array
        return jax.tree.unflatten(structure, filled)

    return [leaves[place] for place in places], rebuild
