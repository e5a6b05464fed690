"""Whether a matrix is a hidden one or may compute the outputs, where its name does not say.

A head that goes to Muon is a silent error; a hidden matrix that goes to AdamW is not. So a matrix with two axes
counts as hidden only if something says so: a name, a width of the model, or another matrix that takes its outputs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from jaxopt_tour.routing.by_name.leaves import Leaf, lookup_role, vector_reason
from jaxopt_tour.routing.by_name.words import (
    ATTENTIONS,
    EXPERTS,
    FUSED,
    HEADS,
    INTO_HEADS,
    OUT_OF_HEADS,
    ROOT_HEADS,
    ROUTERS,
    word_set,
    words,
)

#: Names of the matrices of attention that stand for other matrices elsewhere.
_OF_ATTENTION: Final = word_set("value v out o proj")
#: Names of matrices between hidden layers.
_HIDDEN: Final = (INTO_HEADS | OUT_OF_HEADS | FUSED.keys() | ROUTERS | EXPERTS) - _OF_ATTENTION | word_set(
    "up down wq wkv upproj downproj gateproj wi inproj xproj dtproj lora loraa lorab ih hh weightih weighthh lstm "
    "lstmcell gru grucell optimizedlstmcell rnn cell recurrent intermediate adaln mlp"
)
#: Modules that Flax and Haiku number by themselves: two networks in one module share one sequence of numbers.
_NUMBERED_BY_THE_FRAMEWORK: Final = re.compile(r"Dense_\d+|linear(_\d+)?")

#: `layers_3`, `block3` and `3`, but not a model's name such as `vjepa2`.
_NUMBERED: Final = re.compile(r"(^|_)\d+$|^(layers?|blocks?|stages?|h|groups?)\d+$", re.IGNORECASE)


def may_be_output(leaf: Leaf, fan_in: int, fan_out: int, leaves: Mapping[str, Leaf], widths: frozenset[int]) -> bool:
    """Whether nothing says that a matrix with two axes is hidden.

    A hidden matrix has a name that says so or is scanned with other layers; or it is in a numbered block and keeps to
    the model's widths; or another matrix beside it takes its outputs.

    Example: in an actor-critic, `Dense_2/kernel` (64, 4) is the actor's head and `Dense_3/kernel` (4, 64) the
    critic's first layer. That `Dense_3` takes 4 inputs says nothing, because `Dense_0` takes as many.
    """
    if leaf.layers or _is_named_hidden(leaf, leaves) or _ends_attention(leaf, fan_out, leaves):
        return False
    if _is_in_block(leaf, fan_out, leaves) and (fan_out in widths or (fan_in in widths and fan_out % fan_in == 0)):
        return False
    siblings = _siblings(leaf, leaves)
    first = _fan_in(min([leaf, *siblings], key=lambda other: _natural(other.name)), leaf, fan_in)
    if fan_out == first and _is_in_block_with_norm(leaf, leaves):
        return False
    if fan_out == first and _NUMBERED_BY_THE_FRAMEWORK.fullmatch(leaf.module):
        return True
    if "out" in leaf.module:  # pi0's action_out_proj gives as many as its action_in_proj takes
        its_input = leaf.module.replace("out", "in")
        if any(other.module == its_input and _fan_in(other, leaf, fan_in) == fan_out for other in siblings):
            return True
    later = (other for other in siblings if _natural(other.name) > _natural(leaf.name) or words(other.module) & HEADS)
    return not any(
        _fan_in(other, leaf, fan_in) == fan_out and (fan_in != fan_out or _follows(other, leaf)) for other in later
    )


def _is_named_hidden(leaf: Leaf, leaves: Mapping[str, Leaf]) -> bool:
    # Flax names the matrices of its cells, so a Dense_0 inside of a user's cell may be a decoder's head. Haiku does
    # not: an LSTM's matrix is "lstm/linear".
    near = leaf.parts[-2:] if re.fullmatch(r"Dense_\d+", leaf.module) else leaf.parts[-3:]
    in_path = {word for part in near for word in words(part) if word not in OUT_OF_HEADS or _is_whole(word, part)}
    if in_path & (_HIDDEN - {"mlp"}) or "mlp" in words(leaf.module):
        return True
    parent = leaf.name[: leaf.name.rfind(leaf.module)] if leaf.module else ""
    if all(f"{parent}w{number}/{leaf.last}" in leaves for number in (1, 2, 3)):
        return True  # the three matrices of a gated layer
    return bool(in_path & _OF_ATTENTION) and _has_query(parent, leaves)


def _is_whole(word: str, part: str) -> bool:
    """Whether attention's output is all that a name says, or attention is in it: `action_out_proj` is a head's."""
    return bool(words(part) & ATTENTIONS) or word == re.sub(r"[^a-z]", "", part.lower())


def _ends_attention(leaf: Leaf, fan_out: int, leaves: Mapping[str, Leaf]) -> bool:
    """Whether a `linear` beside a query ends Haiku's attention inside a model of tokens: it is as wide as they are.

    Without tokens it may be the head: Jumanji's actor for travelling salesmen ends with its attention.
    """
    if leaf.module != "linear" or not _has_query(leaf.name[: leaf.name.rfind(leaf.module)], leaves):
        return False
    return _is_width_of_tokens(fan_out, leaves)


def _is_width_of_tokens(size: int, leaves: Mapping[str, Leaf]) -> bool:
    tables = (leaf.shape for leaf in leaves.values() if lookup_role(leaf) == "embedding")
    return any(len(shape) == 2 and shape[-1] == size for shape in tables)


def _has_query(parent: str, leaves: Mapping[str, Leaf]) -> bool:
    modules = {name[len(parent) :].split("/")[0] for name in leaves if name.startswith(parent)}
    return any(words(module) & {"query", "q", "qkv", "qproj", "toq"} for module in modules)


def _follows(other: Leaf, leaf: Leaf) -> bool:
    """Whether the names say that one module comes after the other: one name with two numbers, or a head's.

    Square matrices need it, since what takes their outputs may as well take their inputs: CLIP's `text_projection`
    and `visual_projection` are parallel.
    """
    stems = [re.sub(r"_?\d+$", "", module) for module in (other.module, leaf.module)]
    return stems[0] == stems[1] or bool(words(other.module) & (HEADS | ROOT_HEADS))


def _is_in_block(leaf: Leaf, fan_out: int, leaves: Mapping[str, Leaf]) -> bool:
    """Whether a module of the path is numbered: outside of all blocks a head may be as wide as the model.

    A number that the framework gave the parameter's own module counts in a model of tokens alone, whose head has their
    number: Octo's `reverse_network/Dense_1` is the last of a decoder.
    """
    by_framework = _NUMBERED_BY_THE_FRAMEWORK.fullmatch(leaf.module) and not _is_width_of_tokens(fan_out, leaves)
    return any(_NUMBERED.search(part) for part in leaf.parts[: -2 if by_framework else -1])


def _is_in_block_with_norm(leaf: Leaf, leaves: Mapping[str, Leaf]) -> bool:
    """Whether a module around the parameter's is numbered and has a norm, as blocks with a residual stream have."""
    return any(
        len(other.shape) == 1 and other.last == "scale" and name.startswith("/".join(leaf.parts[:depth]) + "/")
        for depth in range(1, len(leaf.parts) - 2)
        if _NUMBERED.search(leaf.parts[depth - 1])
        for name, other in leaves.items()
    )


def _siblings(leaf: Leaf, leaves: Mapping[str, Leaf]) -> list[Leaf]:
    """Matrices of the modules beside that of a parameter."""
    above, kinds = _above(leaf), (leaf.last, "lora_a")
    matrices = (other for other in leaves.values() if other.last in kinds and len(other.shape) >= 2)
    return [
        other
        for other in matrices
        if other.name != leaf.name and _above(other) == above and not vector_reason(other, leaves)
    ]


def _above(leaf: Leaf) -> list[str]:
    """The path above a parameter's module: `["mlp"]` of `mlp/layers/0/kernel`, without numbers at its end."""
    above = leaf.parts[:-1]
    while above and above[-1].isdigit():
        above = above[:-1]
    return above[:-1]


def _fan_in(other: Leaf, leaf: Leaf, fan_in: int) -> int:
    """The fan-in of a parameter: another one is stored in the order of this one."""
    if other is leaf:
        return fan_in
    return other.shape[0] if leaf.shape[0] == fan_in and leaf.last != "weight" else other.shape[-1]


def _natural(name: str) -> list[tuple[int, str]]:
    """A sort key in which `layers_10` comes after `layers_9`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
