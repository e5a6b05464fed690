"""Routing by name and shape: the role of a parameter from the parameter tree alone.

Covers the conventions of Flax (nnx and linen), Haiku, Equinox and plain dictionaries. Where names and shapes are
ambiguous, the role is "not understood" and the reason says why. Routing by use
(:mod:`jaxopt_tour.routing.by_use.trace`) does not depend on names.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Callable
from typing import Final, Literal

import jax.numpy as jnp

from jaxopt_tour._trees import named_leaves
from jaxopt_tour._types import Tree
from jaxopt_tour.routing.axes import MatrixAxes
from jaxopt_tour.routing.route import Role, Route, Routes


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_VECTORS: Final = _set(
    "b bias beta gamma g scale offset alpha temperature ls1 ls2 gain shift mean var norm ln rms layernorm "
    "batchnorm groupnorm rmsnorm bn gn"
)
_NORMS: Final = _set("norm ln rms layernorm batchnorm groupnorm rmsnorm bn gn layernorms norms")
_EMBEDDINGS: Final = _set("embed embedding embeddings embedder emb wte vocab tok token tokens")
_POSITIONS: Final = _set("pos position positions positional wpe cls latents registers")
_HEADS: Final = _set("head lmhead classifier logits unembed unembedding readout predictions score")
_ROOT_HEADS: Final = _set("output outputs out fcout final")
_ATTENTIONS: Final = _set("multi attention attn")
_EXPERTS: Final = _set("expert experts moe")
_STACKS: Final = _set("scan scanned stack stacked repeat repeated layers blocks")
_INTO_HEADS: Final = _set("query key value q k v qproj kproj vproj wq wk wv toq tok tov")
_OUT_OF_HEADS: Final = _set("out o outproj oproj wo toout proj attnout")
_FUSED: Final = {"qkv": 3, "cattn": 3, "inproj": 3, "wqkv": 3, "kv": 2, "gateup": 2, "wi": 2}
_CONVOLUTIONS: Final = _set("conv convolution conv1d conv2d conv3d patchify")
_DEPTHWISE: Final = _set("depthwise dw dwconv")
_PLAIN_STEMS: Final = _set("dense linear lin fc layers layer w weight weights kernel proj")


@dataclasses.dataclass(frozen=True)
class ByName:
    """Routing by name and shape, with its options; ``ByName()`` is the default of ``muon``.

    Args:
        split_heads: whether every attention head of a query, key, value or output kernel is a separate matrix. By
            default all heads are one matrix: the fan-out of (in, heads, head_dim) is heads times head_dim.
        split_fused: whether the parts of a fused projection (``qkv``, ``gate_up``) are separate matrices.
    """

    split_heads: bool = False
    split_fused: bool = False

    def routes(self, params: Tree) -> Routes:
        """Return the route of every parameter of a tree."""
        leaves = {name: _Leaf(name, tuple(leaf.shape), leaf.dtype) for name, leaf in named_leaves(params).items()}
        scanned = _scanned_prefixes(leaves)
        context = _Context(self, leaves, scanned, _heads(leaves), _many_one_channel_convolutions(leaves))
        return Routes({name: _route(leaf, context) for name, leaf in leaves.items()})


def routes_by_name(params: Tree) -> Routes:
    """Return the route of every parameter by its name and shape: ``ByName().routes(params)``."""
    return ByName().routes(params)


@dataclasses.dataclass(frozen=True)
class _Leaf:
    name: str
    shape: tuple[int, ...]
    dtype: jnp.dtype

    @property
    def parts(self) -> list[str]:
        return [part for part in self.name.split("/") if part]

    @property
    def last(self) -> str:
        return self.parts[-1].lower() if self.parts else ""

    @property
    def module(self) -> str:
        """The name of the parameter's module, skipping list indices: "blocks" for ``blocks/0/kernel``."""
        modules = [part for part in self.parts[:-1] if not part.isdigit()]
        return modules[-1] if modules else ""

    @property
    def telling_name(self) -> str:
        """The module's name if the parameter is called ``kernel``, ``weight`` or ``w``; else the parameter's."""
        return self.module if self.last in ("kernel", "weight", "w") and self.module else self.last


@dataclasses.dataclass(frozen=True)
class _Context:
    options: ByName
    leaves: dict[str, _Leaf]
    scanned: dict[str, int]  # prefix of a scanned stack -> number of layers
    heads: dict[str, str]  # path of a head's kernel -> why
    many_one_channel: bool


def _words(name: str) -> set[str]:
    """``"QKVProj_0"`` -> {"qkv", "proj", "qkvproj"}; camel case, underscores and numbers separate words."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    words = [word for word in re.split(r"[^A-Za-z]+", spaced.lower()) if word]
    joined = "".join(words)
    return {*words, joined, *("".join(pair) for pair in itertools.pairwise(words)), name.lower()}


def _route(leaf: _Leaf, context: _Context) -> Route:
    """Apply the rules in order; the first that matches decides."""
    shape, rank = leaf.shape, len(leaf.shape)
    if rank == 0:
        return Route("scalar", None, "a scalar")
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return Route("not understood", None, f"{leaf.dtype} entries: only real matrices are orthogonalized")
    if rank == 1:
        return Route("vector", None, "one axis")
    vector = _vector_reason(leaf, context.leaves)
    if vector:
        return Route("vector", None, vector)
    role = _lookup_role(leaf)
    if role:
        return Route(role, None, f"named {_short_path(leaf)}: {role}")
    if leaf.name in context.heads:
        return Route("head", None, context.heads[leaf.name])
    batch, batch_reason = _batch_axes(leaf, context)
    axes, matrix_role, reason = _matrix_axes(leaf, batch, context)
    reason = ", ".join(part for part in (reason, batch_reason) if part)
    if axes is None:
        return Route(matrix_role, None, reason)
    _, fan_in, fan_out = axes.matrix_shapes(shape)[0]
    if 0 in shape or min(fan_in, fan_out) == 1:
        return Route("vector", None, f"{fan_in} x {fan_out}: a vector, {reason}")
    return Route("matrix", axes, reason)


def _short_path(leaf: _Leaf) -> str:
    return "/".join(leaf.parts[-2:])


def _vector_reason(leaf: _Leaf, leaves: dict[str, _Leaf]) -> str | None:
    """The reason why a parameter is a vector, also one with an axis of scanned layers; None if it is none."""
    if leaf.last == "kernel":
        return None
    words = _words(leaf.last)
    if len(re.sub(r"[^a-z]", "", leaf.last)) > 1:  # "b" and "b1" are biases; the b of "lora_b" is not
        words = {word for word in words if len(word) > 1}
    if words & _VECTORS and not _is_low_rank_factor(leaf, leaves):
        return f"named {leaf.last}: a vector for each of {leaf.shape[0]}"
    if _words(leaf.module) & _NORMS:
        return f"inside {leaf.module}: a vector for each of {leaf.shape[0]}"
    return None


def _is_low_rank_factor(leaf: _Leaf, leaves: dict[str, _Leaf]) -> bool:
    """Whether ``b`` is a factor and no bias: its module also has an ``a`` with which it shares an inner dimension."""
    other = leaves.get(leaf.name[: -len(leaf.last)] + "a") if leaf.last == "b" else None
    if other is None or len(other.shape) != len(leaf.shape) or len(leaf.shape) < 2:
        return False
    return other.shape[-1] == leaf.shape[-2] or leaf.shape[-1] == other.shape[-2]


def _lookup_role(leaf: _Leaf) -> Literal["embedding", "position"] | None:
    """``"embedding"`` or ``"position"`` if the name says so. A kernel is contracted, never looked up."""
    if leaf.last == "kernel" or "lora" in _words(leaf.last):
        return None
    words = _words(leaf.last) | _words(leaf.module)
    if words & _POSITIONS:
        return "position"
    if leaf.last in ("embedding", "embeddings"):
        return "embedding"
    telling = words if leaf.last in ("weight", "w", "table") else _words(leaf.last)
    return "embedding" if telling & _EMBEDDINGS else None


def _heads(leaves: dict[str, _Leaf]) -> dict[str, str]:
    """The kernels that compute the outputs: by their name, else the last of a sequence of numbered dense layers."""
    kernels = {
        name: leaf
        for name, leaf in leaves.items()
        if len(leaf.shape) >= 2 and _vector_reason(leaf, leaves) is None and _lookup_role(leaf) is None
    }
    # "heads" and "multi_head_attention" are no heads; "out" is one only at the root, and if there is no other head.
    heads = _heads_below(kernels, lambda part, depth: bool(_words(part) & _HEADS) and not _words(part) & _ATTENTIONS)
    heads = heads or _heads_below(kernels, lambda part, depth: depth == 0 and bool(_words(part) & _ROOT_HEADS))
    if heads:
        return heads
    sequences: dict[tuple[str, str], list[tuple[int, _Leaf]]] = {}
    for leaf in kernels.values():
        place = _place_in_sequence(leaf)
        if place and len(leaf.shape) == 2:
            sequences.setdefault(place[0], []).append((place[1], leaf))
    if len(sequences) == 1:
        (layers,) = sequences.values()
        number, last = max(layers, key=lambda layer: layer[0])
        if len(layers) > 1 or len(kernels) > 1:
            heads[last.name] = f"the last dense layer at the root (number {number}) is the head"
    return heads


def _heads_below(kernels: dict[str, _Leaf], is_head: Callable[[str, int], bool]) -> dict[str, str]:
    """The last kernel below every part of a path that names a head."""
    below: dict[str, list[_Leaf]] = {}
    for leaf in kernels.values():
        parts = leaf.parts[1:] if leaf.parts[:1] == ["params"] else leaf.parts
        for depth, part in enumerate(parts):
            if is_head(part, depth) and len(parts) - depth <= 3:
                below.setdefault("/".join(parts[: depth + 1]), []).append(leaf)
                break
    last = {prefix: max(members, key=lambda leaf: _natural(leaf.name)) for prefix, members in below.items()}
    return {leaf.name: f"named {prefix}: the head" for prefix, leaf in last.items()}


def _place_in_sequence(leaf: _Leaf) -> tuple[tuple[str, str], int] | None:
    """Sequence and number of a layer: (("dense", "kernel"), 2) for ``Dense_2/kernel``, (("w", ""), 2) for ``w2``."""
    parts = leaf.parts[1:] if leaf.parts[:1] == ["params"] else leaf.parts
    if len(parts) == 3 and parts[1].isdigit():
        stem, number, last = parts[0], parts[1], parts[2]
    elif len(parts) in (1, 2) and (match := re.fullmatch(r"(.*?)_?(\d+)", parts[0])):
        stem, number, last = match[1], match[2], parts[1] if len(parts) == 2 else ""
    else:
        return None
    return ((stem.lower(), last), int(number)) if stem.lower() in _PLAIN_STEMS else None


def _natural(name: str) -> list[tuple[int, str]]:
    """A sort key in which ``layers_10`` comes after ``layers_9``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _scanned_prefixes(leaves: dict[str, _Leaf]) -> dict[str, int]:
    """Modules whose parameters have a leading axis of layers, and its size.

    All parameters in the module share their first dimension. In addition, the module has a name such as ``layers`` or
    ``scan`` and no numbered submodules, or a ``scale`` in it has two axes.
    """
    below: dict[str, list[_Leaf]] = {}
    for leaf in leaves.values():
        for depth in range(1, len(leaf.parts)):
            below.setdefault("/".join(leaf.parts[:depth]), []).append(leaf)
    scanned: dict[str, int] = {}
    for prefix, members in below.items():
        if any(prefix.startswith(outer + "/") for outer in scanned):
            continue
        if any(len(leaf.shape) < 2 for leaf in members) or len({leaf.shape[0] for leaf in members}) != 1:
            continue
        depth = len(prefix.split("/"))
        numbered = any(part.isdigit() for leaf in members for part in leaf.parts[depth : depth + 1])
        named_stack = bool(_words(prefix.split("/")[-1]) & _STACKS) and not numbered
        scanned_norm = any(leaf.last == "scale" and len(leaf.shape) == 2 for leaf in members)
        if named_stack or scanned_norm:
            scanned[prefix] = members[0].shape[0]
    return scanned


def _many_one_channel_convolutions(leaves: dict[str, _Leaf]) -> bool:
    """Whether several convolutions have one input channel and so are depthwise; a single one reads gray images."""
    unnamed = [leaf for leaf in leaves.values() if leaf.last == "kernel" and not _words(leaf.module) & _DEPTHWISE]
    return sum(len(leaf.shape) == 4 and leaf.shape[2] == 1 for leaf in unnamed) > 1


def _batch_axes(leaf: _Leaf, context: _Context) -> tuple[int, str]:
    """The number of leading axes that are layers or experts, and the reason."""
    count, reasons = 0, []
    for prefix, layers in context.scanned.items():
        if leaf.name.startswith(prefix + "/"):
            count += 1
            reasons.append(f"{layers} layers scanned under {prefix}")
    named_expert = any(_words(part) & _EXPERTS for part in leaf.parts)
    if len(leaf.shape) - count >= 3 and (named_expert or _has_router(leaf, leaf.shape[count], context)):
        reasons.append(f"{leaf.shape[count]} experts")
        count += 1
    bias = _sibling_bias(leaf, context)
    if not count and bias and len(leaf.shape) == len(bias) + 1 > 2 and leaf.shape[1:] != bias:
        layers, outputs = bias[0], bias[1:]
        if leaf.shape[0] == layers and leaf.shape[-len(outputs) :] == outputs:
            count, reasons = 1, [f"{layers} layers, because its bias has shape {list(bias)}"]
    return count, ", ".join(reasons)


def _has_router(leaf: _Leaf, experts: int, context: _Context) -> bool:
    """Whether the parameter's module, or the module around it, has a ``router`` with one output per expert."""
    modules = ["/".join(leaf.parts[:depth]) for depth in (len(leaf.parts) - 1, len(leaf.parts) - 2) if depth >= 0]
    return any(
        "router" in other.name[len(prefix) :].lower().split("/") and other.shape[-1:] == (experts,)
        for prefix in modules
        for other in context.leaves.values()
        if other.name.startswith(prefix) and len(other.shape) >= 2
    )


def _sibling_bias(leaf: _Leaf, context: _Context) -> tuple[int, ...] | None:
    stem = leaf.name.rsplit("/", 1)[0] + "/" if "/" in leaf.name else ""
    for last in ("bias", "b"):
        if stem + last in context.leaves:
            return context.leaves[stem + last].shape
    return None


def _matrix_axes(leaf: _Leaf, batch: int, context: _Context) -> tuple[MatrixAxes | None, Role, str]:
    """Axes, role and reason of a parameter whose leading ``batch`` axes are layers or experts."""
    shape, rank = leaf.shape, len(leaf.shape) - batch
    axis = tuple(range(batch, len(shape)))
    words = _words(leaf.telling_name)
    bias = _sibling_bias(leaf, context)
    if rank < 2:
        return None, "vector", f"one axis of {shape[-1]}"
    fused = next((parts for name, parts in _FUSED.items() if name in words), None)
    if rank == 2:
        if context.options.split_fused and fused and shape[-1] % fused == 0:
            split = (shape[-1] // fused,) * fused
            axes = MatrixAxes(axis[0], axis[1], split=split)
            return axes, "matrix", f"{leaf.telling_name}: {fused} fused projections"
        if leaf.last == "weight" and not (bias and bias[-1] == shape[-1] != shape[-2]):
            return MatrixAxes(axis[1], axis[0]), "matrix", "named weight: (out, in)"
        return MatrixAxes(axis[0], axis[1]), "matrix", f"named {_short_path(leaf)}: (in, out)"
    if fused and shape[axis[1]] == fused:  # (in, 3, heads, head_dim)
        out = axis[2:] if context.options.split_fused else axis[1:]
        return MatrixAxes(axis[0], out), "matrix", f"{leaf.telling_name}: {fused} fused projections of attention"
    unbatched_bias = bias[batch:] if bias else None
    if rank == 3 and words & _INTO_HEADS and len(unbatched_bias or (0, 0)) == 2:
        out = axis[2:] if context.options.split_heads else axis[1:]
        return MatrixAxes(axis[0], out), "matrix", f"{leaf.telling_name}: (in, heads, head_dim)"
    if rank == 3 and words & _OUT_OF_HEADS and len(unbatched_bias or (0,)) == 1:
        into = axis[1:2] if context.options.split_heads else axis[:2]
        return MatrixAxes(into, axis[2]), "matrix", f"{leaf.telling_name}: (heads, head_dim, out)"
    if words & _DEPTHWISE or (rank == 4 and shape[axis[2]] == 1 and context.many_one_channel):
        return None, "depthwise", f"depthwise convolution: {shape[-1]} filters of {math.prod(shape[batch:-1])}"
    if unbatched_bias and len(unbatched_bias) < rank and shape[-len(unbatched_bias) :] == unbatched_bias:
        cut = rank - len(unbatched_bias)
        return MatrixAxes(axis[:cut], axis[cut:]), "matrix", f"fan-out {list(unbatched_bias)}, the shape of its bias"
    if words & _CONVOLUTIONS or (leaf.last == "kernel" and rank in (4, 5)):
        return MatrixAxes(axis[:-1], axis[-1]), "matrix", "a convolution: (window, in, out)"
    reason = f"{rank} axes, and no name that says which are fan-in and fan-out: give axes, or route by use"
    return None, "not understood", reason


#: A user's routing function: path name and leaf -> label, axes, route, or None for the default.
RoutingFunction = Callable[..., "str | MatrixAxes | Route | None"]
