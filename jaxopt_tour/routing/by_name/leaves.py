"""A parameter as routing by name sees it: its path, its shape, and what stands beside it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Literal

import jax.numpy as jnp

from jaxopt_tour.routing.by_name.words import EMBEDDINGS, NORMS, POSITIONS, VECTORS, words


@dataclasses.dataclass(frozen=True)
class Leaf:
    """A parameter without its axes of stacked layers.

    Attributes:
        name: its path name.
        shape: its shape without those axes.
        dtype: its dtype.
        axes: where each axis of `shape` stands in the parameter.
        layers: what is known of the axes left out; empty if there are none.
        unclear: why it cannot be said which axes those are; None if it can.
    """

    name: str
    shape: tuple[int, ...]
    dtype: jnp.dtype
    axes: tuple[int, ...]
    layers: str = ""
    unclear: str | None = None

    @property
    def parts(self) -> list[str]:
        """The parts of its path."""
        return [part for part in self.name.split("/") if part]

    @property
    def last(self) -> str:
        """The last part, in small letters."""
        return self.parts[-1].lower() if self.parts else ""

    @property
    def module(self) -> str:
        """The name of the parameter's module, skipping list indices: "blocks" for `blocks/0/kernel`."""
        modules = [part for part in self.parts[:-1] if not part.isdigit()]
        return modules[-1] if modules else ""

    @property
    def telling_name(self) -> str:
        """The module's name if the parameter is called `kernel`, `weight` or `w`; else the parameter's."""
        return self.module if self.last in ("kernel", "weight", "w") and self.module else self.last

    @property
    def short_path(self) -> str:
        """The last two parts of its path."""
        return "/".join(self.parts[-2:])


def sibling_bias(leaf: Leaf, leaves: Mapping[str, Leaf]) -> tuple[int, ...] | None:
    """The shape of the bias in the parameter's module."""
    stem = leaf.name.rsplit("/", 1)[0] + "/" if "/" in leaf.name else ""
    for last in ("bias", "b"):
        if stem + last in leaves:
            return leaves[stem + last].shape
    return None


def vector_reason(leaf: Leaf, leaves: Mapping[str, Leaf]) -> str | None:
    """Why the name says that a parameter is a vector, whatever its number of axes; None if it does not."""
    if leaf.last == "kernel":
        return None
    its_words = words(leaf.last)
    if len(re.sub(r"[^a-z]", "", leaf.last)) > 1:  # "b" and "b1" are biases; the b of "lora_b" is not
        its_words = {word for word in its_words if len(word) > 1}
    if its_words & VECTORS and not _is_low_rank_factor(leaf, leaves):
        return f"named {leaf.last}: a vector for each of {leaf.shape[0]}"
    if words(leaf.module) & NORMS:
        return f"inside {leaf.module}: a vector for each of {leaf.shape[0]}"
    return None


def lookup_role(leaf: Leaf) -> Literal["embedding", "position"] | None:
    """`"embedding"` or `"position"` if the name says so. A kernel is contracted, never looked up."""
    if leaf.last == "kernel" or "lora" in words(leaf.last):
        return None
    either = words(leaf.last) | words(leaf.module)
    if either & POSITIONS:
        return "position"
    if leaf.last in ("embedding", "embeddings"):
        return "embedding"
    telling = either if leaf.last in ("weight", "w", "table") else words(leaf.last)
    return "embedding" if telling & EMBEDDINGS else None


def widths(leaves: Mapping[str, Leaf]) -> frozenset[int]:
    """What embeddings and norms say the sizes of activations between layers are."""
    of_embeddings = {leaf.shape[-1] for leaf in leaves.values() if len(leaf.shape) == 2 and lookup_role(leaf)}
    of_norms = {
        leaf.shape[0]
        for leaf in leaves.values()
        if len(leaf.shape) == 1 and (leaf.last in ("scale", "gamma") or words(leaf.module) & NORMS)
    }
    return frozenset(of_embeddings | of_norms)


def _is_low_rank_factor(leaf: Leaf, leaves: Mapping[str, Leaf]) -> bool:
    """Whether `b` is a factor and no bias: its module also has an `a` with which it shares an inner dimension."""
    other = leaves.get(leaf.name[: -len(leaf.last)] + "a") if leaf.last == "b" else None
    if other is None or len(other.shape) != len(leaf.shape) or len(leaf.shape) < 2:
        return False
    return other.shape[-1] == leaf.shape[-2] or leaf.shape[-1] == other.shape[-2]
