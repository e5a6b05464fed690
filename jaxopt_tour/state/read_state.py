"""Find the moments in a state, whatever wraps them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from jaxopt_tour._trees import is_box, is_hole, path_name, unbox
from jaxopt_tour.state.moments import (
    BY_FIELDS,
    FIELDS,
    FROM_PARAMETERS,
    OF_FIELD,
    ROTATED_SQUARES,
    SCALED,
    SQUARES,
    SQUARES_WITH_EPS,
    SUM_OF_SQUARES,
    TREND,
    Holder,
    Moment,
    SavedMoments,
    Value,
)

_SECOND = (SQUARES, SQUARES_WITH_EPS, SUM_OF_SQUARES, ROTATED_SQUARES)
#: What keeps its meaning wherever it is in a chain.
_NEVER_SCALED = (*_SECOND, *FROM_PARAMETERS, TREND)


def read_state(state: Any, parameters: Collection[str]) -> SavedMoments:
    """Return the moments and other values of a state.

    Classes are known by their names, so that nothing of Optax is imported for them, and by their fields where a
    checkpoint was restored as dictionaries and lists.

    Args:
        state: of any optimizer, wrapped or not.
        parameters: path names of the parameters.
    """
    reader = _Reader(frozenset(parameters))
    reader.walk(state, (), "", (), scaled=False)
    return SavedMoments(tuple(reader.holders), tuple(reader.values))


class _Reader:
    def __init__(self, parameters: frozenset[str]) -> None:
        self._parameters = parameters
        self._of = ""  # before the kinds, inside a field whose moments are of something else than the parameters
        self.holders: list[Holder] = []
        self.values: list[Value] = []

    def walk(self, node: Any, path: tuple[str, ...], owner: str, place: tuple[str, ...], scaled: bool) -> bool:
        """Read a part of the state.

        Args:
            node: the part.
            path: names that lead to it.
            owner: class of the NamedTuple around it.
            place: names that lead to it from there.
            scaled: whether an earlier transformation of the chain has divided the gradients by a second moment.

        Returns:
            Whether a later transformation of the chain receives such gradients.
        """
        node = unbox(node)
        if node is None or is_hole(node):
            return scaled
        children = _children(node)
        if children is None:
            self.values.append(Value(owner, path, place, node))
            return scaled
        kind = _class_name(node, dict(children))
        if kind == "Int8MomentumState":  # `migrate_state` has multiplied its momenta by their scales
            return self._read_int8(dict(children), path, scaled)
        if kind in FIELDS:
            return self._read_holder(kind, dict(children), path, scaled)
        if _is_sequence(node):
            for name, child in children:
                scaled = self.walk(child, (*path, name), owner, (*place, name), scaled)
            return scaled
        for name, child in children:  # the branches of a wrapper: none follows another
            self.walk(child, (*path, name), kind or owner, (name,) if kind else (*place, name), scaled)
        return scaled

    def _read_int8(self, fields: Mapping[str, Any], path: tuple[str, ...], scaled: bool) -> bool:
        known = len(self.holders)
        scaled = self.walk(fields["inner_state"], (*path, "inner_state"), "Int8MomentumState", ("inner_state",), scaled)
        for holder in self.holders[known:]:
            for moment in holder.moments:
                if np.dtype(moment.array.dtype) == np.int8:
                    raise ValueError(
                        f"the momentum of {moment.parameter!r} is int8 in a state that was restored without its "
                        "classes: restore it with a target, tx.init(params) of its optimizer"
                    )
        return scaled

    def _read_holder(self, name: str, fields: Mapping[str, Any], path: tuple[str, ...], scaled: bool) -> bool:
        count = fields.get("count")
        moments: list[Moment] = []
        second = False
        for field, child in fields.items():
            if field in FIELDS[name]:
                kind = FIELDS[name][field]
                kind = f"{SCALED}{kind}" if scaled and kind not in _NEVER_SCALED else kind
                second = second or kind in _SECOND
                moments += self._read_field(
                    f"{self._of}{kind}", child, (*path, field), None if count is None else unbox(count)
                )
            elif field != "count":
                around, self._of = self._of, self._of + OF_FIELD.get(name, {}).get(field, "")
                self.walk(child, (*path, field), name, (field,), scaled)
                self._of = around
        self.holders.append(Holder(name, None if count is None else (*path, "count"), tuple(moments)))
        return scaled or (second and bool(moments))

    def _read_field(self, kind: str, tree: Any, place: tuple[str, ...], count: Any) -> Iterable[Moment]:
        for keys, leaf in jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda node: is_box(node) or is_hole(node)):
            array, name = unbox(leaf), path_name(keys)
            if is_hole(array):
                continue
            # A box that was restored as a dictionary has one more name.
            short = name.removesuffix("/value").removesuffix("/raw_value")
            parameter = name if name in self._parameters or short not in self._parameters else short
            path = (*place, *(path_name((key,)) for key in keys))
            yield Moment(kind, parameter, array, place, path, count)


def _children(node: Any) -> list[tuple[str, Any]] | None:
    """What a container has, by name; None for an array or a number."""
    if isinstance(node, tuple) and hasattr(node, "_fields"):
        return [(name, getattr(node, name)) for name in node._fields]
    if isinstance(node, Mapping):
        return [(str(key), child) for key, child in node.items()]
    if isinstance(node, (tuple, list)):
        return [(str(i), child) for i, child in enumerate(node)]
    if hasattr(node, "shape") or np.isscalar(node):
        return None
    pairs = jax.tree_util.tree_leaves_with_path(node, is_leaf=lambda child: child is not node)
    return None if any(not path for path, _ in pairs) else [(path_name(path), child) for path, child in pairs]


def _class_name(node: Any, fields: Mapping[str, Any]) -> str:
    """The class of a NamedTuple, or the one that a dictionary was; empty for other containers."""
    if isinstance(node, tuple) and hasattr(node, "_fields"):
        return type(node).__name__
    return BY_FIELDS.get(frozenset(fields), "")


def _is_sequence(node: Any) -> bool:
    """Whether this is the state of a chain; some formats store it as a dictionary of numbers."""
    if isinstance(node, Mapping):
        return all(str(key).isdigit() for key in node)
    return isinstance(node, (tuple, list)) and not hasattr(node, "_fields")
