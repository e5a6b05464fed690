"""Routing by use: the role of each parameter is read from a traced function, which is never run.

A parameter that is contracted with an activation is a matrix; its contracted axes are fan-in, its free axes fan-out. A
parameter that is looked up is an embedding, and one that is added or multiplied elementwise is a vector.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from jaxopt_tour._checks import check_choice
from jaxopt_tour._trees import is_array, named_leaves
from jaxopt_tour._types import Tree
from jaxopt_tour.routing.by_use import classify, lineage
from jaxopt_tour.routing.by_use.interpreter import Value, Walker
from jaxopt_tour.routing.by_use.models import as_traced
from jaxopt_tour.routing.by_use.primitives import apply
from jaxopt_tour.routing.route import Routes

__all__ = ["from_function"]


def from_function(
    fn: Any, /, *params_and_inputs: Any, split: classify.Split | None = None, **example_kwargs: Any
) -> Routes:
    """Route every parameter of a function by how the function uses it.

    The function is traced to its jaxpr and never run, so arguments of any size may be `jax.ShapeDtypeStruct` in place
    of arrays. The ways to call it:

    ```text
    from_function(fn, params, *example_inputs)         # fn(params, *inputs) -> outputs or loss
    from_function(nnx_model, *example_inputs)          # parameters are its nnx.Param
    from_function(linen_model, variables, *example_inputs)
    from_function(equinox_model, *example_inputs)      # parameters are its floating arrays
    from_function(keras_model, *example_inputs)        # a list, in the order of trainable_variables
    from_function(haiku_pair, params, *example_inputs) # with state: params, state, *example_inputs
    ```

    `fn(model, *inputs)`, as in `nnx.value_and_grad` and `eqx.filter_value_and_grad`, works as the first does: of
    any tree, floating arrays are parameters, and other leaves (functions, None, strings, integers) stay as they are.

    | use | role |
    |---|---|
    | contracted with an activation (`dot_general`, convolution) | "matrix" |
    | contracted last before the outputs, also if there is no other contraction | "head" |
    | rows looked up by the inputs, by index or one-hot product | "embedding" |
    | looked up and contracted | "tied" |
    | added or multiplied elementwise, or contracted with fan-in or fan-out 1 | "vector" |
    | a single number | "scalar" |
    | added along axes that are no layer's output, or joined to the activations as learned tokens | "position" |
    | a convolution with one input channel per group | "depthwise" |
    | anything else, or no use | "not understood" |

    Axes of scans, of indexing and of batched contractions are the batch. In a product of parameters (`W + B @ A`)
    each factor is a matrix. `x[t, d] w[e, d, f]` is one matrix with fan-out (e, f), unless `e` is a batch of the
    next layer, is summed over separately, or is indexed element by element.

    Kernels are understood by their body where it works on whole operands, otherwise by the shapes of operands and
    results: activations (T, in) with (E, in, out) giving (T, out) are E matrices. Where several readings are possible
    the parameter is "not understood"; `register_kernel` says what such a kernel computes.

    Where two activations meet one parameter, as in soft merging of experts, only the first contraction is recognized;
    give `MatrixAxes` for such parameters.

    Args:
        fn: a function of (params, inputs), or a model of one of these frameworks.
        *params_and_inputs: the parameter tree (none for nnx, Equinox and Keras), then example inputs, pytrees.
        split: which matrices are split into matrices of their own.

            * None: none; `Route.pieces` and the routing table show how they could be;
            * `"fused"`: the parts of a projection whose results are cut, also where parts alternate head by head:
              query, key and value, gate and up, the chunks of adaptive layer norm;
            * `"heads"`: the heads of attention, in query, key, value and output, and in a projection that fuses them;
            * `"all"`: by heads where there are heads, into parts otherwise.
        **example_kwargs: keyword arguments of the function. Arrays are inputs; everything else (`train=True`, also
            among the inputs) is passed unchanged.

    Returns:
        `Routes` by path name, to print or to pass to `muon(..., routing=...)`.

    Raises:
        ValueError: `fn` is neither function nor model or does not take the inputs, `split` is not one of these,
            there are no parameters or no inputs, or two parameters have one path name.
    """
    check_choice("split", split, (None, "heads", "fused", "all"))
    call, params, constants, inputs = as_traced(fn, params_and_inputs, example_kwargs)
    leaves = named_leaves(params)
    if not leaves:
        raise ValueError(f"params must hold at least one floating array, got {params_and_inputs[:1] or fn!r}")
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
    uses = classify.by_parameter(walker.record)
    return Routes(
        {
            name: classify.route(leaf, uses.get(i, {}), walker.record, last, split)
            for i, (name, leaf) in enumerate(leaves.items())
        }
    )


def _abstract(leaf: Any) -> Any:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _split_arrays(tree: Tree) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """The arrays of a tree, and a function that rebuilds the tree with others in their place."""
    leaves, structure = jax.tree.flatten(tree)
    places = [i for i, leaf in enumerate(leaves) if is_array(leaf)]

    def rebuild(arrays: list[Any]) -> Any:
        filled = list(leaves)
        for place, array in zip(places, arrays, strict=True):
            filled[place] = array
        return jax.tree.unflatten(structure, filled)

    return [leaves[place] for place in places], rebuild
