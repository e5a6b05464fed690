"""Routing by use: the role of each parameter is read from a traced function, which is never run.

A parameter that is contracted with an activation is a matrix; its contracted axes are fan-in, its free axes fan-out. A
parameter that is looked up is an embedding, and one that is added or multiplied elementwise is a vector.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax

from jaxopt_tour._trees import named_leaves
from jaxopt_tour._types import Tree
from jaxopt_tour.routing.by_use import classify, lineage
from jaxopt_tour.routing.by_use.interpreter import Value, Walker
from jaxopt_tour.routing.by_use.primitives import apply
from jaxopt_tour.routing.route import Routes

__all__ = ["from_function"]


def from_function(
    fn: Any, /, *params_and_inputs: Any, split: classify.Split | None = None, **example_kwargs: Any
) -> Routes:
    """Route every parameter of a function by how the function uses it.

    The function is traced to its jaxpr and never run, so arguments of any size may be ``jax.ShapeDtypeStruct`` in place
    of arrays. There are three ways to call it::

        from_function(fn, params, *example_inputs)         # fn(params, *inputs) -> outputs or loss
        from_function(nnx_model, *example_inputs)          # parameters are its nnx.Param
        from_function(linen_model, variables, *example_inputs)

    ``fn(nnx_model, *inputs)``, as in ``nnx.value_and_grad``, works as the first does.

    | use | role |
    |---|---|
    | contracted with an activation (``dot_general``, convolution) | "matrix" |
    | contracted last before the outputs, also if there is no other contraction | "head" |
    | rows looked up by the inputs, by index or one-hot product | "embedding" |
    | looked up and contracted | "tied" |
    | added or multiplied elementwise, or contracted with fan-in or fan-out 1 | "vector" |
    | a single number | "scalar" |
    | added along axes that are no layer's output, or joined to the activations as learned tokens | "position" |
    | a convolution with one input channel per group | "depthwise" |
    | anything else, or no use | "not understood" |

    Axes of scans, of indexing and of batched contractions are the batch. In a product of parameters (``W + B @ A``)
    each factor is a matrix. ``x[t, d] w[e, d, f]`` is one matrix with fan-out (e, f), unless ``e`` is a batch of the
    next layer, is summed over separately, or is indexed element by element.

    Where two activations meet one parameter, as in soft merging of experts, only the first contraction is recognized;
    give :class:`MatrixAxes` for such parameters.

    Args:
        fn: a function of (params, inputs), a Flax ``nnx.Module`` or a linen ``Module``.
        *params_and_inputs: the parameter tree (for nnx: none, for linen: the variables), then example inputs, pytrees.
        split: which matrices are split into matrices of their own.

            * None: none; ``Route.pieces`` and the routing table show how they could be;
            * ``"fused"``: the parts of a projection whose results are cut, also where parts alternate head by head:
              query, key and value, gate and up, the chunks of adaptive layer norm;
            * ``"heads"``: the heads of attention, in query, key, value and output, and in a projection that fuses them;
            * ``"all"``: by heads where there are heads, into parts otherwise.
        **example_kwargs: keyword arguments of the function. Arrays are inputs; everything else (``train=True``, also
            among the inputs) is passed unchanged.

    Returns:
        :class:`Routes` by path name, to print or to pass to ``muon(..., routing=...)``.

    Raises:
        ValueError: ``fn`` is not callable, there are no parameters or no inputs, or two parameters have one path name.
    """
    if not callable(fn):
        raise ValueError(f"fn must be a function (params, *inputs), a Flax nnx.Module or linen Module, got {fn!r}")
    call, params, constants, inputs = _as_function(fn, params_and_inputs)
    leaves = _named_arrays(params)
    if not leaves:
        raise ValueError(f"params must hold at least one array, got {params!r}")
    dynamic, rebuild = _split_arrays((inputs, example_kwargs))
    if not dynamic:
        raise ValueError(
            "example inputs are missing: pass at least one array or jax.ShapeDtypeStruct after the parameters, which "
            "show where parameters meet activations"
        )

    def traced(params: Tree, constants: Any, dynamic: list[Any]) -> Any:
        inputs, kwargs = rebuild(dynamic)
        return [leaf for leaf in jax.tree.leaves(call(params, constants, *inputs, **kwargs)) if hasattr(leaf, "dtype")]

    arguments = [jax.tree.map(_abstract, tree) for tree in (params, constants, dynamic)]
    jaxpr = jax.make_jaxpr(traced)(*arguments)

    walker = Walker(apply)
    values = [Value(origins=(lineage.whole(i, tuple(leaf.shape)),)) for i, leaf in enumerate(leaves.values())]
    values += [Value() for _ in jax.tree.leaves(arguments[1])]
    values += [Value(active=True) for _ in dynamic]
    outputs = walker.run(jaxpr, values)
    last = classify.heads(walker.record, frozenset().union(*(value.reach for value in outputs)))
    return Routes(
        {name: classify.route(leaf, i, walker.record, last, split) for i, (name, leaf) in enumerate(leaves.items())}
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
    """Whether the value is an instance of a Flax class; recognized without importing Flax."""
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


def _named_arrays(params: Tree) -> dict[str, Any]:
    """Arrays by path name, in the order in which they are traced."""
    leaves = named_leaves(params)
    for name, leaf in leaves.items():
        if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
            raise ValueError(f"params must hold arrays or jax.ShapeDtypeStruct, got {leaf!r} at {name!r}")
    return leaves


def _abstract(leaf: Any) -> Any:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _split_arrays(tree: Tree) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """The arrays of a tree, and a function that rebuilds the tree with others in their place."""
    leaves, structure = jax.tree.flatten(tree)
    places = [i for i, leaf in enumerate(leaves) if hasattr(leaf, "shape") and hasattr(leaf, "dtype")]

    def rebuild(arrays: list[Any]) -> Any:
        filled = list(leaves)
        for place, array in zip(places, arrays, strict=True):
            filled[place] = array
        return jax.tree.unflatten(structure, filled)

    return [leaves[place] for place in places], rebuild
