"""Which axes of a matrix are fan-in and which are fan-out, as far as shapes and names say."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Final

from jaxopt_tour.routing.axes import MatrixAxes
from jaxopt_tour.routing.by_name.leaves import Leaf, sibling_bias, widths
from jaxopt_tour.routing.by_name.words import (
    ATTENTIONS,
    CONVOLUTIONS,
    DEPTHWISE,
    EXPERTS,
    FUSED,
    INTO_HEADS,
    MATRICES,
    OUT_OF_HEADS,
    SHORTCUTS,
    words,
)
from jaxopt_tour.routing.route import Role

#: Axes, role and reason.
Reading = tuple[MatrixAxes | None, Role, str]

#: Fan-in, fan-out and the order of axes of einsum weights, in Gemma and models like it, by name and number of axes.
_EINSUMS: Final[dict[tuple[str, int], tuple[tuple[int, ...], tuple[int, ...], str]]] = {
    ("q_einsum", 3): ((1,), (0, 2), "(heads, in, head_dim)"),
    ("kv_einsum", 4): ((2,), (0, 1, 3), "(2, heads, in, head_dim)"),
    ("qkv_einsum", 4): ((2,), (0, 1, 3), "(3, heads, in, head_dim)"),
    ("attn_vec_einsum", 3): ((0, 1), (2,), "(heads, head_dim, out)"),
}
#: Names under which Equinox and PyTorch store (out, in).
_OUT_FIRST: Final = ("weight", "weight_ih", "weight_hh")
#: What the factors of a projection of low rank are called, such as DeepSeek's "o_a_proj" (groups, in, rank).
_FACTORS: Final = frozenset({"a", "b"})
#: What the last convolution of a decoder is called.
_LAST: Final = frozenset({"convout", "outconv", "finalconv", "convfinal", "final", "lastconv"})
#: `outc` and `imgout`, which is the whole name of a module: a word of a longer one, as in `conv_out_1`, says less.
_OUTPUTS: Final = re.compile(r"out[a-z0-9]*|[a-z0-9]*out[a-z]?\d*")
#: Matrices that multiply entry by entry before they sum.
_DIAGONALS: Final = frozenset({"diag", "diagonal"})
#: Largest window of a convolution that is recognized by its shape alone.
_WINDOW: Final = 31


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What a whole tree says about each of its parameters.

    Attributes:
        leaves: every parameter, without axes of layers.
        widths: sizes of activations between layers, from embeddings and norms.
        many_one_channel: several convolutions have one input channel, so they are depthwise.
        turned: last parts of paths, such as `kernel`, of which some bias contradicts the convention.
        turned_modules: modules and last parts, such as `c_proj/kernel`, of which every bias that decides does.
    """

    leaves: Mapping[str, Leaf]
    widths: frozenset[int]
    many_one_channel: bool
    turned: frozenset[str]
    turned_modules: frozenset[str]


def evidence_of(leaves: Mapping[str, Leaf]) -> Evidence:
    """Collect what a tree says."""
    one_channel = [
        leaf
        for leaf in leaves.values()
        if leaf.last == "kernel" and len(leaf.shape) == 4 and not words(leaf.module) & DEPTHWISE
    ]
    said = {"with": set[Leaf](), "against": set[Leaf]()}
    for leaf in leaves.values():
        if side := _bias_says(leaf, leaves):
            said[side].add(leaf)
    return Evidence(
        leaves,
        widths(leaves),
        many_one_channel=sum(leaf.shape[2] == 1 for leaf in one_channel) > 1,
        turned=frozenset(leaf.last for leaf in said["against"]),
        turned_modules=frozenset(leaf.short_path for leaf in said["against"])
        - frozenset(leaf.short_path for leaf in said["with"]),
    )


def read(leaf: Leaf, batch: int, evidence: Evidence, split_heads: bool, split_fused: bool) -> Reading:
    """Read a parameter whose leading `batch` axes are experts or layers; axes number those of `leaf.shape`."""
    shape = leaf.shape
    axis = tuple(range(batch, len(shape)))
    rank, its_words = len(axis), words(leaf.telling_name)
    bias = sibling_bias(leaf, evidence.leaves)
    outputs = bias[batch:] if bias else None  # of one matrix
    fused = next((parts for name, parts in FUSED.items() if name in its_words), None)
    if rank < 2:
        return None, "vector", f"one axis of {shape[-1]}"
    if rank > 2 and leaf.parts[-2:] == ["weights", "value"]:  # Penzai's "value" is a box, not attention's value
        return _not_understood(f"{leaf.name} has {rank} axes without names")
    if "einsum" in its_words:
        return _einsum(leaf, axis, evidence)
    if batch and leaf.last in _OUT_FIRST and any(words(part) & EXPERTS for part in leaf.parts[:-1]):
        return _not_understood(f"{leaf.short_path}: experts are stored as (in, out) under this name, or as (out, in)")
    if rank == 2:
        return _two_axes(leaf, axis, evidence, fused if split_fused else None)
    if fused and shape[axis[1]] == fused:  # (in, 3, heads, head_dim)
        out = axis[2:] if split_fused else axis[1:]
        return MatrixAxes(axis[0], out), "matrix", f"{leaf.telling_name}: {fused} fused projections of attention"
    if rank == 3 and its_words & INTO_HEADS and len(outputs or (0, 0)) == 2:
        if _is_no_width(shape[axis[0]], evidence):
            return _not_understood(f"{leaf.short_path} begins with {shape[axis[0]]}, which is no width of the model")
        out = axis[2:] if split_heads else axis[1:]
        return MatrixAxes(axis[0], out), "matrix", f"{leaf.telling_name}: (in, heads, head_dim)"
    if rank == 3 and its_words & OUT_OF_HEADS and len(outputs or (0,)) == 1:
        if _is_no_width(shape[axis[2]], evidence):
            return _not_understood(f"{leaf.short_path} ends with {shape[axis[2]]}, which is no width of the model")
        if its_words & _FACTORS:
            return _not_understood(f"{leaf.short_path} is a factor of an output projection, and may have groups")
        into = axis[1:2] if split_heads else axis[:2]
        return MatrixAxes(into, axis[2]), "matrix", f"{leaf.telling_name}: (heads, head_dim, out)"
    return _convolution(leaf, axis, outputs, evidence)


def _not_understood(what: str) -> Reading:
    return None, "not understood", f"{what}: give axes, or route by use"


def _is_no_width(size: int, evidence: Evidence) -> bool:
    return bool(evidence.widths) and size not in evidence.widths


def _einsum(leaf: Leaf, axis: tuple[int, ...], evidence: Evidence) -> Reading:
    if (
        re.sub(r"_\d+$", "", leaf.telling_name.lower()) == "gating_einsum"
        and len(axis) == 3
        and leaf.shape[axis[0]] == 2
    ):
        into = [k for k in axis[1:] if leaf.shape[k] in evidence.widths]  # (2, in, hidden) or (2, hidden, in)
        if len(into) == 1:
            out = tuple(k for k in axis if k not in into)
            return (
                MatrixAxes(tuple(into), out),
                "matrix",
                f"gating_einsum: gate and up from a width of {leaf.shape[into[0]]}",
            )
    name = re.sub(r"_\d+$", "", leaf.telling_name.lower())  # of a second stream: "q_einsum_1"
    known = _EINSUMS.get((name, len(axis)))
    if known is None:
        return _not_understood(f"{leaf.short_path} has {len(axis)} axes, in an order that only its einsum says")
    fan_in, fan_out, order = known
    width = fan_out[0] if len(fan_out) == 1 else fan_in[0]
    if leaf.shape[axis[width]] not in evidence.widths:
        return _not_understood(f"{leaf.short_path}: {leaf.shape[axis[width]]} is no width of the model")
    axes = MatrixAxes(tuple(axis[k] for k in fan_in), tuple(axis[k] for k in fan_out))
    return axes, "matrix", f"{leaf.telling_name}: {order}"


def _two_axes(leaf: Leaf, axis: tuple[int, ...], evidence: Evidence, parts: int | None) -> Reading:
    """A bias decides between (in, out) and (out, in) where the sizes differ; else the convention of the name does."""
    if not _is_called_a_matrix(leaf):
        return _not_understood(f"{leaf.short_path} has two axes, and no name that says it is a matrix")
    if words(leaf.telling_name) & (CONVOLUTIONS | _DIAGONALS):
        return _not_understood(f"{leaf.short_path} has two axes, and a name that says it multiplies channel by channel")
    said = _bias_says(leaf, evidence.leaves)
    named = leaf.last if leaf.last in _OUT_FIRST else leaf.short_path
    why = "its bias says" if said == "against" else f"named {named}:"
    if said is None and leaf.shape[0] == leaf.shape[1] and leaf.short_path in evidence.turned_modules:
        said, why = "against", f"square, as the bias of another {leaf.short_path} says"  # GPT-2's two c_proj
    if said is None and leaf.last in evidence.turned:
        return _not_understood(f"biases of other parameters say that {leaf.last} is stored in another order")
    in_first = (leaf.last not in _OUT_FIRST) is (said != "against")
    if in_first and parts and leaf.shape[-1] % parts == 0:
        axes = MatrixAxes(axis[0], axis[1], split=(leaf.shape[-1] // parts,) * parts)
        return axes, "matrix", f"{leaf.telling_name}: {parts} fused projections"
    if in_first:
        return MatrixAxes(axis[0], axis[1]), "matrix", f"{why} (in, out)"
    return MatrixAxes(axis[1], axis[0]), "matrix", f"{why} (out, in)"


def _is_called_a_matrix(leaf: Leaf) -> bool:
    """Numbers alone are no name, and of a named array (`weight/0`) the axes are not in the path."""
    if leaf.last.isdigit():
        parents = [part for part in leaf.parts[:-1] if not part.isdigit()]
        return bool(parents) and parents[-1].lower() not in ("weight", "bias")
    return leaf.last.startswith("w") or bool(words(leaf.last) & MATRICES)


def _bias_says(leaf: Leaf, leaves: Mapping[str, Leaf]) -> str | None:
    """Whether the bias of a parameter with two axes is "with" or "against" the convention of its name."""
    bias = sibling_bias(leaf, leaves)
    if leaf.last not in ("kernel", "weight", "w") or len(leaf.shape) != 2 or not bias or len(bias) != 1:
        return None
    first, last = leaf.shape
    if first == last or bias[0] not in leaf.shape:
        return None
    return "with" if (bias[0] == last) is (leaf.last != "weight") else "against"


def _convolution(leaf: Leaf, axis: tuple[int, ...], outputs: tuple[int, ...] | None, evidence: Evidence) -> Reading:
    """A convolution, or a dense layer over several axes whose bias says which are its outputs."""
    shape, rank = tuple(leaf.shape[k] for k in axis), len(axis)
    its_words = words(leaf.telling_name)
    if leaf.last == "weight" or _has_weight_norm(leaf, evidence.leaves):
        return _channels_first(leaf, axis, outputs)
    if its_words & _LAST:
        return _not_understood(f"{leaf.short_path} may compute the outputs")
    one_channel = shape[-2] == 1 and (evidence.many_one_channel or rank == 3)
    if its_words & DEPTHWISE or (rank in (3, 4) and one_channel and len(outputs or ()) <= 1):
        filters = f"{shape[-1]} filters of {math.prod(shape[:-1])}"
        return None, "depthwise", f"depthwise convolution: {filters}"
    is_nested = len(leaf.parts) - (leaf.parts[0] == "params") > 2
    if rank == 4 and shape[-2] == 1 and is_nested:  # at the root, it is the first layer, of gray images
        return _not_understood(f"{leaf.short_path}: one input channel, depthwise or of gray images")
    if rank >= 4 and _may_end_decoder(leaf, shape[-1], evidence):
        return _not_understood(f"{leaf.short_path} may compute the outputs: nothing takes {shape[-1]} channels")
    if outputs and len(outputs) < rank and shape[-len(outputs) :] == outputs:
        cut = rank - len(outputs)
        return MatrixAxes(axis[:cut], axis[cut:]), "matrix", f"fan-out {list(outputs)}, the shape of its bias"
    attention = any(words(part) & ATTENTIONS for part in leaf.parts)
    window = leaf.last == "kernel" and rank in (4, 5) and len(set(shape[:-2])) == 1 and shape[0] <= _WINDOW
    if its_words & CONVOLUTIONS or (window and not attention):
        return MatrixAxes(axis[:-1], axis[-1]), "matrix", "a convolution: (window, in, out)"
    return _not_understood(f"{rank} axes, and no name that says which are fan-in and fan-out")


def _may_end_decoder(leaf: Leaf, channels: int, evidence: Evidence) -> bool:
    """Whether a convolution (window, in, out) may compute the outputs: it is called out, or nothing takes its channels.

    Its channels are taken by a norm, by a convolution, or by a dense layer over positions and channels.
    """
    if any(_OUTPUTS.fullmatch(part.lower()) for part in leaf.parts[-3:-1]):
        return True
    others = [other for other in evidence.leaves.values() if other.parts[:-1] != leaf.parts[:-1]]
    return bool(others) and not any(
        channels in other.shape[:-1]
        or (len(other.shape) == 1 and other.last not in ("bias", "b") and other.shape == (channels,))
        or (len(other.shape) == 2 and other.shape[0] > channels and other.shape[0] % channels == 0)
        for other in others
    )


def _has_weight_norm(leaf: Leaf, leaves: Mapping[str, Leaf]) -> bool:
    """Whether it is the direction of a PyTorch weight with weight norm, which has the weight's shape."""
    return leaf.last == "weight_v" and leaf.name.removesuffix("weight_v") + "weight_g" in leaves


def _channels_first(leaf: Leaf, axis: tuple[int, ...], outputs: tuple[int, ...] | None) -> Reading:
    """Equinox and PyTorch store (out, in / groups, *window); the bias of Equinox has the shape (out, 1, 1)."""
    shape = tuple(leaf.shape[k] for k in axis)
    # A block's shortcut is a sequence whose numbers say nothing: "downsample/layers/0/weight".
    is_shortcut = len(shape) == 4 and any(words(part) & SHORTCUTS for part in leaf.parts[-4:])
    named = words(leaf.telling_name) & CONVOLUTIONS or is_shortcut
    its_bias = outputs is not None and outputs[:1] == shape[:1] and set(outputs[1:]) <= {1}
    transposed = any("transpose" in part.lower() or part.lower().startswith("up") for part in leaf.parts)
    is_window = max(shape[2:]) <= min(_WINDOW, shape[0])  # (3, 3, in, out) under this name has large last axes
    if transposed or not (named or its_bias) or not is_window:
        return _not_understood(f"{leaf.short_path}: {len(shape)} axes, and no bias that says which are fan-out")
    if shape[1] == 1:
        return None, "depthwise", f"depthwise convolution: {shape[0]} filters of {math.prod(shape[2:])}"
    return MatrixAxes(axis[1:], axis[0]), "matrix", "a convolution: (out, in, window)"
