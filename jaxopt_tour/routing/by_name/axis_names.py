"""What the names of a parameter's axes say, where a framework stores them: the first evidence of routing by name.

Flax boxes carry names (linen `Partitioned`, nnx metadata), Haliax and Penzai name every axis of every array. Nothing
of these packages is imported: attributes are read. A name counts only if it is in a list below, because the axes of a
mesh (`"fsdp"`, `"tp"`) are stored in the same place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import jax

from jaxopt_tour._trees import by_unique_name, is_box, path_name
from jaxopt_tour._types import Tree
from jaxopt_tour.routing.axes import MatrixAxes
from jaxopt_tour.routing.by_name.words import CONVOLUTIONS, EMBEDDINGS, INTO_HEADS, ROUTERS, word_set, words
from jaxopt_tour.routing.route import Route

Names = tuple[str | None, ...]

EXPERT_AXES: Final = word_set("expert experts exp")
BATCH: Final = word_set("layers layer encoder_layers decoder_layers stack stacked block blocks scan") | EXPERT_AXES
VOCABULARY: Final = word_set("vocab vocabulary vocab_size")
POSITIONS: Final = word_set("position positions pos abspos_buckets relpos_buckets")
WIDTH: Final = word_set("embed embedding embed_dim embed_moe")
INSIDE: Final = word_set(
    "mlp mlp_dim mlp_moe neurons joined_kv heads head q_heads kv_heads kv_head kv head_dim head_size kv_head_dim "
    "projection query_heads q_heads_per_group qkv"
)


def axis_names(params: Tree) -> dict[str, Names]:
    """The names of the axes of every parameter that has them, by path name."""

    def is_named(node: Any) -> bool:
        return is_box(node) or _names_of(node) is not None

    named: list[tuple[str, Names]] = []
    for path, node in jax.tree_util.tree_leaves_with_path(params, is_leaf=is_named):
        names = _names_of(node)
        if names is None:
            continue
        inside = [()] if is_box(node) else [inner for inner, _ in jax.tree_util.tree_leaves_with_path(node)]
        named += [(path_name((*path, *inner)), names) for inner in inside]
    return by_unique_name(named)


def _names_of(node: Any) -> Names | None:
    """The names of the axes of one parameter: a Flax box, or an array with named axes."""
    if is_box(node):
        metadata = node.get_metadata() if hasattr(node, "get_metadata") else {}
        stored = (getattr(node, "names", None), *(metadata.get(key) for key in _FLAX_KEYS))
        return next((tuple(map(_text, names)) for names in stored if isinstance(names, tuple | list) and names), None)
    axes = getattr(node, "axes", None)
    if hasattr(node, "array") and isinstance(axes, tuple) and axes and all(hasattr(axis, "name") for axis in axes):
        return tuple(_text(axis.name) for axis in axes)
    sizes = getattr(node, "named_axes", None)
    # Another transformation's parameter has no shape: optax.MaskedNode is in the array's place.
    shape = getattr(getattr(node, "data_array", None), "shape", ())
    if isinstance(sizes, Mapping) and sizes and len(sizes) == len(shape):
        return tuple(map(_text, sizes))
    return None


#: Where nnx keeps names of axes, by version of Flax.
_FLAX_KEYS: Final = ("out_sharding", "sharding", "sharding_names")


def _text(name: Any) -> str | None:
    return name if isinstance(name, str) else None


def trusted_width(names: Mapping[str, Names], shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """The one size of the axes called embed; None if they have several, as where "embed_moe" stands for experts."""
    pairs = (pair for path, given in names.items() for pair in zip(given, shapes.get(path, ()), strict=False))
    sizes = {size for name, size in pairs if name in WIDTH}
    return sizes.pop() if len(sizes) == 1 else None


def axes_from_names(names: Names, into_width: bool | None) -> MatrixAxes | None:
    """The matrix that names describe: one axis is the model's width, the others are inside of the layer, or a batch.

    Args:
        names: a name an axis.
        into_width: whether the layer computes the model's width; None if nothing says.

    Example: `("layers", "heads", "head_size", "embed")` is `MatrixAxes((1, 2), 3)` if the layer computes "embed".
    """
    if into_width is None or any(name not in BATCH | WIDTH | INSIDE for name in names):
        return None
    width = [axis for axis, name in enumerate(names) if name in WIDTH]
    inside = [axis for axis, name in enumerate(names) if name in INSIDE]
    if len(width) != 1 or not inside:
        return None
    return MatrixAxes(inside, width) if into_width else MatrixAxes(width, inside)


def named_role(names: Names) -> str | None:
    """`"vocabulary"`, `"position"` or `"vector"` if the names of the axes say so."""
    if set(names) & VOCABULARY:
        return "vocabulary"
    rest = [name for name in names if name not in BATCH]
    if set(names) & POSITIONS and len(rest) <= 2:  # of a convolution, "position" is the window
        return "position"
    return "vector" if len(rest) <= 1 and None not in names else None


def into_width(path: str, names: Mapping[str, Names]) -> bool | None:
    """Whether a layer computes the model's width ("down", "out") or takes it ("up", "query"); None if nothing says.

    Flax and Penzai store fan-in first. Haliax stores either order, so there the bias or the layer's name has to say.
    """
    if not path.endswith("/0"):
        first = next((name for name in names[path] if name in WIDTH | INSIDE), None)
        return None if first is None else first not in WIDTH
    module = path.removesuffix("/0").rsplit("/", 1)[0]
    bias = names.get(f"{module}/bias/0")
    if bias is not None:
        return bool(set(bias) & WIDTH)
    gated = _of_gated_layer(module, names)
    if gated is not None:
        return gated
    said = words(module.rsplit("/", 1)[-1])
    takes, computes = bool(said & _TAKES), bool(said & _COMPUTES)
    return computes if takes != computes else None


def _router_axes(path: str, names: Names) -> MatrixAxes | None:
    """A router computes one output an expert, so its axis of experts is no batch."""
    module = path.removesuffix("/0").split("/")[-2:-1]
    width = [axis for axis, name in enumerate(names) if name in WIDTH]
    experts = [axis for axis, name in enumerate(names) if name in EXPERT_AXES]
    rest = [name for name in names if name not in BATCH | WIDTH]
    if len(width) != 1 or len(experts) != 1 or rest or not module or module[0].lower() not in ROUTERS:
        return None
    return MatrixAxes(width, experts)


def _convolution_axes(path: str, names: Mapping[str, Names]) -> MatrixAxes | None:
    """A convolution of Haliax: its bias names the fan-out, and an axis called position is the window."""
    module, ending = path.removesuffix("/weight/0"), path.endswith("/weight/0")
    own, bias = names[path], names.get(f"{module}/bias/0")
    if not ending or bias is None or not words(module.rsplit("/", 1)[-1]) & CONVOLUTIONS:
        return None
    fan_out = [axis for axis, name in enumerate(own) if name in bias]
    fan_in = [axis for axis in range(len(own)) if axis not in fan_out]
    if len(fan_out) != len(bias) or len(own) < 3 or len(set(own)) < len(own) or not set(own) & POSITIONS:
        return None
    return MatrixAxes(fan_in, fan_out)


def _of_gated_layer(module: str, names: Mapping[str, Names]) -> bool | None:
    """Whether a matrix of w1, w2 and w3 is the one that computes the width: two take it, so the odd order is that one.

    Example: Mixtral's w1 and w3 are (experts, embed, mlp) and w2 is (experts, mlp, embed), or the other way round.
    """
    parent, _, own = module.rpartition("/")
    matrices = {last: names.get(f"{parent}/{last}/weight/0") for last in ("w1", "w2", "w3")}
    orders = {last: tuple(name in WIDTH for name in given) for last, given in matrices.items() if given}
    if own not in orders or len(orders) < 3 or len(set(orders.values())) != 2:
        return None
    return list(orders.values()).count(orders[own]) == 1


_TAKES: Final = INTO_HEADS | word_set("up gate upproj gateproj cfc cattn wi")
_COMPUTES: Final = word_set("down downproj out o outproj oproj wo cproj")


def route_from_names(path: str, shape: tuple[int, ...], names: Mapping[str, Names], width: int | None) -> Route | None:
    """The route of a parameter by the names of its axes; None if they do not say."""
    of_axes = names.get(path)
    if of_axes is None or len(of_axes) != len(shape):
        return None
    reason = f"axes named {', '.join(map(str, of_axes))}"
    axes = _router_axes(path, of_axes) or _convolution_axes(path, names)
    if axes is not None:
        return Route("matrix", axes, reason)
    role = named_role(of_axes)
    if role == "vocabulary":
        lookup = any(words(part) & EMBEDDINGS for part in path.split("/"))
        return Route("embedding" if lookup else "head", None, reason)
    if role is not None:
        return Route("vector" if role == "vector" else "position", None, reason)
    axes = axes_from_names(of_axes, into_width(path, names))
    if axes is None or width is None or width not in (shape[axis] for axis in axes.fan_in + axes.fan_out):
        return None
    return Route("matrix", axes, reason)
