"""Axes of experts, and of layers that only a bias shows."""

from __future__ import annotations

from collections.abc import Mapping

from jaxopt_tour.routing.by_name.leaves import Leaf, sibling_bias
from jaxopt_tour.routing.by_name.words import ATTENTIONS, EXPERTS, INTO_HEADS, OUT_OF_HEADS, ROUTERS, words


def batch_axes(leaf: Leaf, leaves: Mapping[str, Leaf]) -> tuple[int, str]:
    """The number of leading axes that are a batch, and the reason.

    Experts are the first axis of a parameter with three axes or more, if a router has as many outputs, or if the path
    says expert and no attention or shared expert is below that word.
    """
    count, reasons = 0, []
    if len(leaf.shape) >= 3 and (_has_router(leaf, leaves) or _is_beside_an_expert(leaf, leaves)):
        reasons.append(f"{leaf.shape[0]} experts")
        count += 1
    bias = sibling_bias(leaf, leaves)
    if not count and bias and len(leaf.shape) == len(bias) + 1 > 2 and leaf.shape[1:] != bias:
        layers, outputs = bias[0], bias[1:]
        if leaf.shape[0] == layers and leaf.shape[-len(outputs) :] == outputs:
            count, reasons = 1, [f"{layers} layers, because its bias has shape {list(bias)}"]
    return count, ", ".join(reasons)


def _is_beside_an_expert(leaf: Leaf, leaves: Mapping[str, Leaf]) -> bool:
    """Whether the path says expert, or that of a parameter of the same shape in the module beside it.

    Example: Grok's `moe/linear_v/w` (8, 64, 512) is beside `moe/linear/w`, so its v is not the value of attention.
    """
    above = leaf.parts[:-2]
    return any(
        other.shape == leaf.shape and other.parts[:-2] == above and other.last == leaf.last and _is_named_expert(other)
        for other in leaves.values()
    )


def _is_named_expert(leaf: Leaf) -> bool:
    said = [depth for depth, part in enumerate(leaf.parts) if words(part) & EXPERTS]
    if not said:
        return False
    below = set().union(*(words(part) for part in leaf.parts[said[0] :]))
    # "wo" and "out" are also what an expert's second matrix is called.
    others = ATTENTIONS | INTO_HEADS | (OUT_OF_HEADS - {"wo", "out"}) | {"shared", "router"}
    return not below & others


def _has_router(leaf: Leaf, leaves: Mapping[str, Leaf]) -> bool:
    """Whether the parameter's module, or the module around it, has a router with one output per expert."""
    modules = ["/".join(leaf.parts[:depth]) for depth in (len(leaf.parts) - 1, len(leaf.parts) - 2) if depth >= 0]
    return any(
        ROUTERS & set(other.name[len(prefix) :].lower().split("/")) and other.shape[-1:] == leaf.shape[:1]
        for prefix in modules
        for other in leaves.values()
        if other.name.startswith(prefix) and len(other.shape) == 2
    )
