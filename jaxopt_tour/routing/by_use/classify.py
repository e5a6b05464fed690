"""The route of a parameter from its uses: its role, which axes are fan-in and fan-out, and the reason."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np

from jaxopt_tour.routing.axes import MatrixAxes
from jaxopt_tour.routing.by_use.interpreter import Record, Use, varying_dims
from jaxopt_tour.routing.by_use.lineage import Atom, Part
from jaxopt_tour.routing.by_use.pieces import choose
from jaxopt_tour.routing.by_use.pieces import find as find_pieces
from jaxopt_tour.routing.route import Role, Route

Axes = tuple[int, ...]
Split = Literal["heads", "fused", "all"]


def heads(record: Record, outputs: frozenset[int]) -> frozenset[int]:
    """The last contractions before the outputs.

    Of the contractions that reach the outputs with no other in between, these feed none of the others. In a residual
    network every block reaches the outputs, and the blocks before the last one feed it.
    """
    feeds: dict[int, set[int]] = {}
    for start in outputs:
        seen: set[int] = set()
        waiting = list(record.inputs.get(start, ()))
        while waiting:
            node = waiting.pop()
            if node not in seen:
                seen.add(node)
                waiting.extend(record.inputs.get(node, ()))
        feeds[start] = seen
    return frozenset(
        node
        for node in outputs
        if not any(node in feeds[other] and other not in feeds[node] for other in outputs if other != node)
    )


def by_parameter(record: Record) -> dict[int, dict[tuple[Any, ...], Use]]:
    """The uses of every parameter, in the order of the program."""
    uses: dict[int, dict[tuple[Any, ...], Use]] = {}
    for place in sorted(record.uses, key=lambda place: place[0]):
        use = record.uses[place]
        uses.setdefault(use.lineage.param, {})[place] = use
    return uses


def _word(use: Use) -> str:
    """An operation that a parameter meets, such as `"dot_general over axis 0"`."""
    name = use.lineage.opaque or use.primitive
    axes = sorted({atom.axis for atom in use.sides.get("in", ())}) if use.op == "contract" else []
    return f"{name} over {_numbered(tuple(axes))}" if axes else name


def route(
    leaf: Any, met: dict[tuple[Any, ...], Use], record: Record, last: frozenset[int], split: Split | None
) -> Route:
    """The route of a parameter that meets these uses."""
    uses = list(met.values())
    words = tuple(dict.fromkeys(_word(use) for use in uses))
    place = next(iter(met))[0] if met else ()
    result = _route(leaf, uses, record, last, split)
    result = dataclasses.replace(result, uses=words, order=(not met, *place))
    if not np.issubdtype(leaf.dtype, np.complexfloating):
        return result
    role: Role = "not understood" if result.role == "matrix" else result.role  # only real matrices are orthogonalized
    return dataclasses.replace(
        result, role=role, axes=None, reason=f"complex entries; {result.reason}", label=role, pieces=()
    )


def _route(leaf: Any, uses: Sequence[Use], record: Record, last: frozenset[int], split: Split | None) -> Route:
    shape = tuple(leaf.shape)
    if not uses:
        return Route("not understood", None, "not used by the function")
    summed = [use for use in uses if any(how == "sum" and atom.size > 1 for how, atom in use.lineage.removed)]
    unsummed = [use for use in uses if use not in summed]
    if not unsummed:
        return Route("not understood", None, f"only sums over it are used, in {_names(uses)}")
    by_op = {op: [use for use in unsummed if use.op == op] for op in {use.op for use in unsummed}}
    contractions, gathers = by_op.get("contract", []), by_op.get("gather", [])
    if not shape and "not understood" not in by_op:
        return Route("scalar", None, "a single number")
    if contractions:
        also = f"; also used by {_names(by_op['not understood'])}" if "not understood" in by_op else ""
        # Looked up by the inputs, then contracted: the matrix of an expert.
        is_expert = any(how == "gather" for use in contractions for how, _ in use.lineage.removed)
        return _contracted(shape, contractions, [] if is_expert else gathers, record, last, split, also)
    if gathers:
        use = gathers[0]
        return Route("embedding", None, f"rows looked up by the inputs ({use.primitive})")
    if "not understood" in by_op:
        reasons = ", ".join(dict.fromkeys(_why_not_understood(use) for use in by_op["not understood"]))
        return Route("not understood", None, reasons)
    return _elementwise(unsummed)


def _why_not_understood(use: Use) -> str:
    operation = use.lineage.opaque or use.primitive
    if operation == "reshape":
        return "a reshape to dimensions that cut across its axes"
    return f"used by {operation}, {use.note or 'which has no rule'}"


def _names(uses: Iterable[Use]) -> str:
    return ", ".join(dict.fromkeys(use.lineage.opaque or use.primitive for use in uses))


def _elementwise(uses: Sequence[Use]) -> Route:
    """Biases, scales, positions and learned inputs."""
    outer = next((use for use in uses if use.outer), None)
    if outer is not None:
        reason = f"{outer.primitive} with an activation that is constant along one of its axes: an outer product"
        return Route("not understood", None, reason)
    if any(use.lineage.hidden for use in uses):
        return Route("not understood", None, "a factor of a product of parameters that is used elementwise")
    layers = _layers(uses[0])
    for use in uses:
        if use.op in ("add", "data") and not use.matched and len(list(varying_dims(use.lineage))) > 1:
            how = "added to activations" if use.op == "add" else f"a learned input ({use.primitive})"
            return Route("position", None, f"{how} along several axes{layers}")
    verbs = {"add": "added to", "scale": "multiplied with", "data": "joined to"}
    how = " and ".join(dict.fromkeys(verbs[use.op] for use in uses))
    return Route("vector", None, f"{how} activations elementwise ({_names(uses)}){layers}")


def _layers(use: Use) -> str:
    counts = {"scan": "scanned layers", "index": "slices taken one by one", "gather": "slices chosen by the inputs"}
    words = [
        f"{use.lineage.shape[atom.axis]} {counts[how]}"
        for how, atom in use.lineage.removed
        if how in counts and atom.stride == 1
    ]
    return "".join(f", {word}" for word in words)


def _contracted(
    shape: tuple[int, ...], uses: Sequence[Use], gathers: Sequence[Use], record: Record, last: frozenset[int],
    split: Split | None, also: str,
) -> Route:  # fmt: skip
    views = []
    for use in uses:
        stacked = record.stacked.get(use.place, frozenset()) | _indexed(record.cuts.get(use.place, frozenset()), shape)
        views.append(_view(use, shape, stacked))
    problem = next((view for view in views if isinstance(view, str)), None)
    good = [view for view in views if not isinstance(view, str)]
    layers, over = _layers(uses[0]), ""
    axes: MatrixAxes | None = None
    if good:
        fan_in, fan_out, groups = good[0]
        sizes = " x ".join(str(shape[axis]) for axis in fan_in)
        over = f"contracted over {_numbered(fan_in)} ({sizes}) in " if fan_in else ""
        if fan_in and fan_out:
            axes = MatrixAxes(fan_in, fan_out, groups)
    reason = over + _names(uses) + layers + also
    if gathers:
        return Route("tied", axes, f"rows looked up by the inputs ({gathers[0].primitive}), and {reason}")
    if all(use.depthwise for use in uses):
        return Route("depthwise", None, "a convolution with one input channel a group")
    if problem is not None:
        return Route("not understood", None, problem + also)
    # A parameter that is summed over in no contraction only scales another one, as in weight normalization.
    if axes is None or min(math.prod(shape[a] for a in axes.fan_in), math.prod(shape[a] for a in axes.fan_out)) == 1:
        role: Role = "head" if axes is not None and _is_head(uses, last) else "vector"
        what = (
            "a matrix with one side of size one"
            if role == "vector"
            else "the last contraction, with one side of size one"
        )
        if axes is None:
            what = "contracted, without both a fan-in and a fan-out"
        return Route(role, axes, f"{what}: {reason}" if over else f"{what}, in {reason}")
    swapped = [view for view in good[1:] if view[:2] == (axes.fan_out, axes.fan_in)]
    conflicting = [
        view for view in good[1:] if view[:2] not in ((axes.fan_in, axes.fan_out), (axes.fan_out, axes.fan_in))
    ]
    if conflicting:
        reason = f"contracted in two ways: over {_numbered(axes.fan_in)}, and over {_numbered(conflicting[0][0])}"
        return Route("not understood", None, reason)
    if swapped:
        reason += ", and transposed elsewhere"
    if _is_head(uses, last):
        several = f", one of {len(last)} contractions" if len(last) > 1 else ", the last contraction"
        return Route("head", axes, reason + several + " before the outputs")
    pieces = find_pieces(uses, axes, shape, record)
    chosen = choose(pieces, split)
    if chosen is not None and chosen.axes is not None:
        axes, reason = chosen.axes, f"{reason}, split into {chosen.what}"
    return Route("matrix", axes, reason, pieces=pieces)


def _indexed(cuts: frozenset[Part], shape: tuple[int, ...]) -> frozenset[int]:
    """Axes of which every element is sliced out separately."""
    single = [(axis, low) for axis, low, high, _ in cuts if high == low + 1]
    return frozenset(a for a, size in enumerate(shape) if all((a, i) in single for i in range(size)))


def _numbered(axes: Axes) -> str:
    """`"axis 0"` or `"axes 0, 1"`."""
    return f"{'axis' if len(axes) == 1 else 'axes'} {', '.join(map(str, axes))}"


def _is_head(uses: Sequence[Use], last: frozenset[int]) -> bool:
    """Whether it is used in a last contraction and is no layer of a stack."""
    return any(use.node in last and not any(how in ("scan", "index") for how, _ in use.lineage.removed) for use in uses)


def _view(use: Use, shape: tuple[int, ...], stacked: frozenset[int]) -> tuple[Axes, Axes, Axes | None] | str:
    """Fan-in axes, fan-out axes and the sizes of groups of fan-out; or the reason why there are none."""
    if use.sides.get("?"):
        return "a factor of a product of parameters whose fan-in and fan-out are undecided"
    sides: dict[int, dict[str, list[Atom]]] = {axis: {} for axis in range(len(shape))}
    for side, atoms in use.sides.items():
        for atom in atoms:
            if atom.size > 1 or shape[atom.axis] == 1 or atom.axis in use.lineage.sharded:
                sides[atom.axis].setdefault(side, []).append(atom)
    for how, atom in use.lineage.removed:
        if how != "unit":
            sides[atom.axis].setdefault(how, []).append(atom)
    fan_in, fan_out, groups = [], [], 1
    for axis, by_side in sides.items():
        if set(by_side) == {"in"}:
            fan_in.append(axis)
        elif set(by_side) == {"out"}:
            fan_out.append(axis)
        elif "out" in by_side and "in" not in by_side and _fan_out_is_innermost(by_side):
            fan_out.append(axis)
            if "batch" in by_side:
                groups = math.prod(atom.size for atom in by_side["batch"])
        elif "in" in by_side or "out" in by_side:
            both = "fan-in and fan-out" if {"in", "out"} <= set(by_side) else "the batch and a side of the matrix"
            return f"axis {axis} ({shape[axis]}) holds both {both}: give it as separate axes"
    first_in = min(fan_in, default=0)
    # y[t, e, f] = sum_d x[t, d] w[e, d, f], and e is a batch of the next layer: experts, not one wide matrix.
    fan_out = [axis for axis in fan_out if not (axis in stacked and axis < first_in) or len(fan_out) == 1]
    if groups > 1:
        total = math.prod(shape[axis] for axis in fan_out)
        return tuple(fan_in), tuple(fan_out), (total // groups,) * groups
    return tuple(fan_in), tuple(fan_out), None


def _fan_out_is_innermost(by_side: dict[str, list[Atom]]) -> bool:
    """Whether the atoms of an axis that are fan-out vary faster than all others."""
    inner = max(atom.stride * atom.size for atom in by_side["out"])
    return all(atom.stride >= inner for side, atoms in by_side.items() if side != "out" for atom in atoms)
