"""What the body of a blocked kernel does with one operand: which dimensions it contracts with activations.

A body sees blocks of its operands, and a block has the dimensions of its operand without those that are squeezed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxopt_tour.routing.by_use import lineage as ln
from jaxopt_tour.routing.by_use.interpreter import CONSTANT, Ref, UnsupportedKernelError, Value, Walker

Dims = tuple[int, ...]


def contracted_dims(walker: Walker, eqn: Any, values: Sequence[Value], operand: int) -> tuple[Dims, Dims] | None:
    """The dimensions of an operand that the body contracts with activations, and those that it leaves free.

    None where the body cannot be followed, or where it does anything else with the operand.

    Example: rows (4096, 512) in blocks of (128, 128) and experts (8, 512, 256) in blocks of (None, 128, 128), which the
    body multiplies: dimension 1 of the experts is contracted, dimension 2 is free.
    """
    refs = _references(eqn, values, operand)
    if refs is None:
        return None
    body = walker.fresh()
    try:
        body.run(eqn.params["jaxpr"], refs)
    except UnsupportedKernelError:
        return None
    readings = set()
    for use in body.record.uses.values():
        if use.op != "contract" or use.sides.get("?"):
            return None
        sides = [{atom.axis for atom in use.sides.get(side, ())} for side in ("in", "out")]
        readings.add((tuple(sorted(sides[0])), tuple(sorted(sides[1]))))
    return readings.pop() if len(readings) == 1 else None


def _references(eqn: Any, values: Sequence[Value], operand: int) -> list[Value] | None:
    """The references of the body: blocks of the operand that is followed, of activations and of constants."""
    mapping, body = eqn.params.get("grid_mapping"), eqn.params.get("jaxpr")
    blocks = getattr(mapping, "block_mappings", None)
    skipped = getattr(mapping, "num_dynamic_grid_bounds", None)
    prefetched = getattr(mapping, "num_index_operands", None)
    if blocks is None or skipped is None or prefetched is None or operand - skipped < prefetched:
        return None
    refs: list[Value] = []
    for place in range(skipped, len(values)):
        value = CONSTANT
        if place == operand:
            block = blocks[place - skipped - prefetched].block_shape
            shape, seen = tuple(eqn.invars[place].aval.shape), body.invars[place - skipped].aval.shape
            kept = [dim for dim, size in enumerate(block) if not _is_squeezed(size)]
            if len(block) != len(shape) or len(kept) != len(seen):
                return None
            whole = ln.squeeze(ln.whole(0, shape), set(range(len(shape))) - set(kept))
            value = Value(origins=(ln.resized(whole, seen),))
        elif values[place].active:
            value = Value(active=True)
        refs.append(Ref(cell=[value]))
    return refs + [Ref() for _ in body.invars[len(refs) :]]


def _is_squeezed(size: Any) -> bool:
    return size is None or type(size).__name__ == "Squeezed"
