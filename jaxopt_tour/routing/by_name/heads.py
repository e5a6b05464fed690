"""Which kernels compute the outputs: by their names, else by their place at the end of a sequence of layers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from jaxopt_tour.routing.by_name.leaves import Leaf, lookup_role, vector_reason
from jaxopt_tour.routing.by_name.words import ATTENTIONS, CONVOLUTIONS, HEADS, PLAIN_STEMS, ROOT_HEADS, words


def heads_of(leaves: Mapping[str, Leaf]) -> dict[str, str]:
    """The paths of heads, and why each is one."""
    kernels = {
        name: leaf
        for name, leaf in leaves.items()
        if len(leaf.shape) >= 2 and vector_reason(leaf, leaves) is None and lookup_role(leaf) is None
    }
    # "heads" and "multi_head_attention" are no heads; "out" is one only at the root, and if there is no other head.
    heads = _below(kernels, lambda part, depth: bool(words(part) & HEADS) and not words(part) & ATTENTIONS)
    heads = heads or _below(kernels, lambda part, depth: depth == 0 and bool(words(part) & ROOT_HEADS))
    return heads or _last_in_sequence(kernels)


def _below(kernels: Mapping[str, Leaf], is_head: Callable[[str, int], bool]) -> dict[str, str]:
    """The last kernel below every part of a path that names a head."""
    below: dict[str, list[Leaf]] = {}
    for leaf in kernels.values():
        parts = _without_collection(leaf)
        for depth, part in enumerate(parts):
            if is_head(part, depth) and len(parts) - depth <= 3:
                below.setdefault("/".join(parts[: depth + 1]), []).append(leaf)
                break
    last = {prefix: max(members, key=lambda leaf: _natural(leaf.name)) for prefix, members in below.items()}
    return {leaf.name: f"named {prefix}: the head" for prefix, leaf in last.items()}


def _last_in_sequence(kernels: Mapping[str, Leaf]) -> dict[str, str]:
    """The last of the numbered dense layers at the root, and those whose outputs no numbered layer takes.

    An actor and a critic are two such layers. A convolution to a few channels at the end of a U-Net is one, too.
    """
    sequences: dict[tuple[str, str], list[tuple[int, Leaf]]] = {}
    convolutions: list[tuple[int, Leaf]] = []
    for leaf in kernels.values():
        place = _place_in_sequence(leaf)
        if place and len(leaf.shape) == 2:
            sequences.setdefault(place[0], []).append((place[1], leaf))
        parts = _without_collection(leaf)
        if len(parts) == 2 and len(leaf.shape) >= 3 and words(parts[0]) & CONVOLUTIONS:
            numbers = re.findall(r"\d+", parts[0])
            convolutions.append((int(numbers[-1]) if numbers else 0, leaf))
    heads: dict[str, str] = {}
    if len(convolutions) > 1:
        _, last = max(convolutions, key=lambda layer: layer[0])
        if last.shape[-1] <= 4 and last.shape[-1] < last.shape[-2]:
            heads[last.name] = f"the last convolution at the root, to {last.shape[-1]} channels, may be the head"
    if len(sequences) == 1:
        (layers,) = sequences.values()
        number, last = max(layers, key=lambda layer: layer[0])
        if len(layers) > 1 or len(kernels) > 1:
            heads[last.name] = f"the last dense layer at the root (number {number}) is the head"
        taken = {leaf.shape[0] for _, leaf in layers}
        for _, leaf in layers:
            if leaf.last == "kernel" and leaf.shape[-1] not in taken and leaf.name not in heads:
                heads[leaf.name] = f"no numbered dense layer takes its {leaf.shape[-1]} outputs: it may be a head"
    return heads


def _without_collection(leaf: Leaf) -> list[str]:
    return leaf.parts[1:] if leaf.parts[:1] == ["params"] else leaf.parts


def _place_in_sequence(leaf: Leaf) -> tuple[tuple[str, str], int] | None:
    """Sequence and number of a layer: (("dense", "kernel"), 2) for `Dense_2/kernel`, (("w", ""), 2) for `w2`."""
    parts = _without_collection(leaf)
    if len(parts) == 3 and parts[1].isdigit():
        stem, number, last = parts[0], parts[1], parts[2]
    elif len(parts) in (1, 2) and (match := re.fullmatch(r"(.*?)_?(\d+)", parts[0])):
        stem, number, last = match[1], match[2], parts[1] if len(parts) == 2 else ""
    else:
        return None
    return ((stem.lower(), last), int(number)) if stem.lower() in PLAIN_STEMS else None


def _natural(name: str) -> list[tuple[int, str]]:
    """A sort key in which `layers_10` comes after `layers_9`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
