"""Axes of stacked layers, as `scan` over layers makes them: found, and left out."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence

from jaxopt_tour.routing.by_name.leaves import Leaf, vector_reason
from jaxopt_tour.routing.by_name.words import STACKS, words


def without_layers(leaves: Mapping[str, Leaf]) -> dict[str, Leaf]:
    """Leave out the axis that all parameters of a module share, where it is one of layers.

    MaxText's default puts it second: query kernels (64, 3, 4, 16), scales (64, 3). Only where the module is called
    `layers` or the like, or where its vectors have two axes, are layers looked for. Two axes that could both be the
    layers make the module's parameters unclear.

    Layers inside of layers, as in Qwen 3 Next, are left out one after the other, outer ones first.

    Example: `layers/norm/scale` (6, 8) and `layers/query/kernel` (6, 8, 2, 4) become (8,) and (8, 2, 4).
    """
    below: dict[str, list[Leaf]] = {}
    for leaf in leaves.values():
        for depth in range(1, len(leaf.parts)):
            below.setdefault("/".join(leaf.parts[:depth]), []).append(leaf)
    result = dict(leaves)
    done: list[str] = []
    for prefix, originals in below.items():
        nested = any(prefix.startswith(outer + "/") for outer in done)
        if nested and not words(prefix.split("/")[-1]) & STACKS:
            continue
        members = [result[leaf.name] for leaf in originals]
        outside = {size for name, leaf in leaves.items() if not name.startswith(prefix + "/") for size in leaf.shape}
        found = _axis_of_layers(prefix, members, result, outside)
        if found is None:
            continue
        done.append(prefix)
        for leaf in members:
            result[leaf.name] = (
                dataclasses.replace(leaf, unclear=found) if isinstance(found, str) else _without(leaf, found, prefix)
            )
    return result


def _axis_of_layers(
    prefix: str, members: Sequence[Leaf], leaves: Mapping[str, Leaf], outside: Collection[int]
) -> int | str | None:
    """The axis of layers of a module, why it is unclear, or None if there is none."""
    last = prefix.split("/")[-1]
    depth = len(prefix.split("/"))
    numbered = any(part.isdigit() for leaf in members for part in leaf.parts[depth : depth + 1])
    if numbered or re.search(r"\d", last) or any(len(leaf.shape) < 2 for leaf in members):
        return None
    shared = [axis for axis in (0, 1) if len({leaf.shape[axis] for leaf in members}) == 1]
    vectors = [leaf for leaf in members if len(leaf.shape) == 2 and vector_reason(leaf, leaves)]
    named = bool(words(last) & STACKS)
    scales = any(leaf.last in ("scale", "gamma") for leaf in vectors)
    if not shared or not (named or scales):
        return None
    if not vectors and (len({leaf.shape for leaf in members}) == 1 or all(len(leaf.shape) == 2 for leaf in members)):
        return f"{prefix} may hold stacked layers, and no shape says so"
    # The width of a model occurs outside its layers, too; their number seldom does.
    likely = [axis for axis in shared if members[0].shape[axis] not in outside]
    if len(shared) > 1 and outside and len(likely) != 1:
        return f"{prefix} holds stacked layers, and axis 0 or axis 1 may be theirs"
    return (likely if len(shared) > 1 and likely else shared)[0]


def _without(leaf: Leaf, axis: int, prefix: str) -> Leaf:
    return dataclasses.replace(
        leaf,
        shape=(*leaf.shape[:axis], *leaf.shape[axis + 1 :]),
        axes=(*leaf.axes[:axis], *leaf.axes[axis + 1 :]),
        layers=", ".join(filter(None, (leaf.layers, f"{leaf.shape[axis]} layers scanned under {prefix}"))),
    )
