"""Compute arrays of a program a second time, inside a branch, instead of writing them to memory for it.

A branch reads arrays from memory. An update that a measurement reads would be written there in every step, measured or
not, where XLA otherwise adds it to the weights as it is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import jax

from jaxopt_tour._types import Tree
from jaxopt_tour.routing.by_use.primitives import BINARY, UNARY

#: Operations that XLA fuses with what reads their results; each costs less than writing a result and reading it.
_FUSED: Final = (
    UNARY
    | BINARY
    | {"neg", "real", "conj", "convert_element_type", "reduce_precision", "copy", "copy_p", "stop_gradient", "iota"}
    | {"broadcast_in_dim", "reshape", "squeeze", "expand_dims", "transpose", "rev", "slice", "pad", "concatenate"}
    | {"split"}
)
#: Calls of a jaxpr whose operations XLA sees as if they were not in a function.
_CALLS: Final = frozenset(("jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call"))


class Recomputed(NamedTuple):
    """A program of which one part can be computed again."""

    kept: Tree
    fused: Tree
    again: Callable[[], tuple[Tree, Tree]]  # what `fused` is, and the extras; without derivatives


def with_recomputation(function: Callable[..., tuple[Tree, Tree, Tree]], *args: Tree) -> Recomputed:
    """Evaluate a traced function so that a branch can compute some of its results again.

    `again` starts from arrays that are in memory anyhow: arguments, `kept` results, and results of products,
    reductions, loops and other operations that XLA does not fuse. Of AdamW it computes the update from the new
    moments and the weights; of Muon from the orthogonalized momentum and the weights. Outside of `jit` every result is
    in memory, and nothing is computed again.

    Args:
        function: Returns three trees: results that are kept, such as a new state; results that XLA fuses with what
            reads them, such as updates; and extras, which under `jit` are computed in `again` alone.
        *args: Trees of arrays.

    Returns:
        The first two trees, and `again`, to be called in a branch.
    """
    leaves = jax.tree.leaves(args)
    if not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        kept, fused, extras = function(*args)
        return Recomputed(kept, fused, lambda: (fused, extras))
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    jaxpr = closed.jaxpr
    kept_count, fused_count, _ = (len(jax.tree.leaves(tree)) for tree in shapes)
    results, wanted = jaxpr.outvars[: kept_count + fused_count], jaxpr.outvars[kept_count:]
    again, operands = _back_to_memory(jaxpr, wanted, results[:kept_count])
    main = jaxpr.replace(eqns=_equations_for(jaxpr, [*results, *operands]), outvars=[*results, *operands])
    values = jax.core.eval_jaxpr(main, closed.consts, *leaves)
    inputs = jax.lax.stop_gradient(values[len(results) :])
    tail = jaxpr.replace(constvars=[], invars=operands, outvars=wanted, eqns=again, effects=set())
    kept, fused, _ = (jax.tree.structure(tree) for tree in shapes)
    return Recomputed(
        jax.tree.unflatten(kept, values[:kept_count]),
        jax.tree.unflatten(fused, values[kept_count : len(results)]),
        lambda: jax.tree.unflatten(jax.tree.structure(shapes[1:]), jax.core.eval_jaxpr(tail, [], *inputs)),
    )


def _back_to_memory(jaxpr: Any, wanted: Sequence[Any], kept: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """The equations that compute some variables from what is in memory, and the variables that they start from."""
    producers = {var: eqn for eqn in jaxpr.eqns for var in eqn.outvars}
    in_memory = set(_variables(kept))
    operands: dict[Any, None] = {}
    chosen: set[int] = set()
    pending = _variables(wanted)
    seen = set(pending)
    while pending:
        var = pending.pop()
        eqn = producers.get(var)
        if eqn is None or var in in_memory or var.aval.size == 1 or not _is_fused(eqn):
            operands[var] = None
            continue
        chosen.add(id(eqn))
        before = set(_variables(eqn.invars)) - seen
        seen |= before
        pending += before
    return [eqn for eqn in jaxpr.eqns if id(eqn) in chosen], list(operands)


def _equations_for(jaxpr: Any, results: Sequence[Any]) -> list[Any]:
    """The equations that some variables need, and those with effects."""
    needed = set(_variables(results))
    equations = []
    for eqn in reversed(jaxpr.eqns):
        if eqn.effects or not needed.isdisjoint(eqn.outvars):
            needed |= set(_variables(eqn.invars))
            equations.append(eqn)
    return equations[::-1]


def _variables(atoms: Sequence[Any]) -> list[Any]:
    """The variables among the operands of an equation, without the constants that are written into it."""
    return [atom for atom in atoms if not hasattr(atom, "val")]


def _is_fused(eqn: Any) -> bool:
    """Whether an equation is elementwise, or moves elements, or calls equations that are."""
    if eqn.effects:
        return False
    if eqn.primitive.name in _CALLS:
        inner = eqn.params.get("jaxpr") or eqn.params.get("call_jaxpr")
        return inner is not None and all(_is_fused(x) for x in getattr(inner, "jaxpr", inner).eqns)
    return eqn.primitive.name in _FUSED
