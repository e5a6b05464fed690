"""The rule of every primitive of a jaxpr: what an operation does to the parameters that are followed through it.

A parameter that enters an operation without a rule is "not understood" from there on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from jaxopt_tour.routing.by_use import contractions, elementwise, kernels, lookups, shape_operations, sharding
from jaxopt_tour.routing.by_use.interpreter import Key, Ref, Value, Walker, without_rule
from jaxopt_tour.routing.by_use.user_rules import jaxpr_of_rule


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# y[i, j] = x[i, j], -x[i, j] or x[n - i, j]: the lineage does not change
_IDENTITIES = _names(
    "neg convert_element_type copy copy_p stop_gradient reduce_precision real conj sharding_constraint mesh_cast "
    "reshard layout_constraint optimization_barrier device_put name pvary pcast pbroadcast psum psum2 psum_invariant "
    "pmax pmin ppermute unreduced_psum preduced rev"
)
UNARY = _names(
    "abs acos acosh asin asinh atan atanh bessel_i0e bessel_i1e cbrt ceil clz cos cosh digamma erf erf_inv erfc exp "
    "exp2 expm1 floor imag integer_pow is_finite lgamma log log1p logistic not population_count round rsqrt sign sin "
    "sinh sqrt square tan tanh"
)
BINARY = _names(
    "add add_any and atan2 clamp complex div eq ge gt le lt max min mul ne nextafter or pow rem select_n "
    "shift_left shift_right_arithmetic shift_right_logical sub xor"
)
_REDUCTIONS = _names("reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or argmax argmin")
_GATHERS = _names("all_gather all_gather_invariant all_gather_reduced")
# Calls of code that JAX does not see.
_KERNELS = _names("ffi_call custom_call tpu_custom_call triton_kernel_call custom_partitioning")
# A one-hot vector stays one-hot; the sum of several is a bag of lookups.
_KEEPS_ONEHOT = _names(
    "convert_element_type reshape broadcast_in_dim squeeze transpose stop_gradient reduce_sum reduce_max copy"
)


_RULES: dict[str, Callable[[Walker, Any, list[Value], Key], list[Value]]] = {
    **dict.fromkeys(BINARY, elementwise.binary),
    **dict.fromkeys(UNARY, elementwise.unary),
    **dict.fromkeys(_REDUCTIONS, elementwise.reduce),
    **dict.fromkeys(_IDENTITIES, elementwise.identity),
    "transpose": shape_operations.transpose,
    "reshape": shape_operations.reshape,
    "broadcast_in_dim": shape_operations.broadcast,
    "tile": shape_operations.tile,
    "squeeze": shape_operations.squeeze,
    "concatenate": shape_operations.concatenate,
    "stack": shape_operations.stack,
    "pad": shape_operations.pad,
    "slice": shape_operations.slice_,
    "split": shape_operations.split,
    "dynamic_slice": lookups.dynamic_slice,
    "gather": lookups.gather,
    "dot_general": contractions.dot_general,
    "ragged_dot_general": kernels.ragged_dot,
    "ragged_dot": kernels.ragged_dot,
    **dict.fromkeys(_GATHERS, sharding.all_gather),
    "reduce_scatter": sharding.reduce_scatter,
    "unreduced_reduce_scatter": sharding.reduce_scatter,
    "all_to_all": sharding.all_to_all,
    "ragged_all_to_all": sharding.ragged_all_to_all,
    "pallas_call": kernels.pallas_call,
    **dict.fromkeys(_KERNELS, kernels.by_shapes),
    "get": kernels.get,
    "swap": kernels.swap,
    "addupdate": kernels.addupdate,
    "conv_general_dilated": contractions.convolution,
}


def apply(walker: Walker, eqn: Any, values: list[Value], key: Key) -> Sequence[Value]:
    """The values of an equation's outputs."""
    name = eqn.primitive.name
    registered = jaxpr_of_rule(eqn, walker.registered)
    if registered is not None:
        rule_name, jaxpr = registered
        walker.registered.add(rule_name)  # a rule may call what it is named after
        outputs = walker.run(jaxpr, values, key)
        walker.registered.discard(rule_name)
        return outputs
    if name == "scan":
        return walker.scan(eqn, values, key)
    if name == "while":
        return walker.loop(eqn, values, key)
    if name == "cond":
        return walker.branches(eqn, values, key)
    if name == "shard_map":
        return sharding.shard_map(walker, eqn, values, key)
    inner = _inner_jaxpr(eqn)
    if inner is not None:
        return walker.run(inner, values, key)
    is_followed = any(value.origins or value.tracks or isinstance(value, Ref) for value in values)
    rule = _RULES.get(name, without_rule) if is_followed else without_rule
    return [_with_flags(name, values, value) for value in rule(walker, eqn, values, key)]


def _inner_jaxpr(eqn: Any) -> Any:
    """The jaxpr that a call (jit, remat, custom derivatives, shard_map, ...) calls with the same arguments."""
    jaxprs = {
        name: value
        for name, value in eqn.params.items()
        if hasattr(getattr(value, "jaxpr", value), "eqns")
        and len(getattr(value, "jaxpr", value).invars) == len(eqn.invars)
        and len(getattr(value, "jaxpr", value).outvars) == len(eqn.outvars)
    }
    if len(jaxprs) > 1:
        jaxprs = {name: jaxprs[name] for name in ("call_jaxpr", "jaxpr", "fun_jaxpr", "callee") if name in jaxprs}
    return next(iter(jaxprs.values()), None)


def _with_flags(name: str, values: Sequence[Value], result: Value) -> Value:
    """The result, marked as one-hot or as a counter where the operation creates or preserves these."""
    if name == "iota":
        return dataclasses.replace(result, counter=True)
    if name == "eq" and any(value.counter for value in values) and any(value.active for value in values):
        return dataclasses.replace(result, onehot=True)
    if name in _KEEPS_ONEHOT and (values[0].onehot or values[0].counter):
        return dataclasses.replace(result, onehot=values[0].onehot, counter=values[0].counter)
    return result
