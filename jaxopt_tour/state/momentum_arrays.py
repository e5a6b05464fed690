"""Replace the momenta in the state of any optimizer, wherever they are in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from jaxopt_tour._trees import map_with_names, rebox, unbox
from jaxopt_tour._types import Tree
from jaxopt_tour.state.moments import AVERAGE, FIELDS, RESIDUAL, SUM

#: What is a momentum: one array of the parameter's shape, into which gradients are added.
_MOMENTA: Final = (AVERAGE, SUM, RESIDUAL)


def map_momenta(function: Callable[[str, Tree], Tree], state: Any, place: str = "") -> Any:
    """Return the state with `function(place, tree)` for every tree of momenta, known by its class and field.

    Args:
        function: From the names that lead to the tree, such as `"inner_states/matrix/0/mu"`, and the tree.
        state: Of any optimizer, wrapped or not.
        place: Names that lead to it.
    """

    def below(name: str, child: Any) -> Any:
        return map_momenta(function, child, f"{place}/{name}" if place else name)

    if isinstance(state, tuple) and hasattr(state, "_fields"):
        kinds = FIELDS.get(type(state).__name__, {})
        children = [(name, getattr(state, name)) for name in state._fields]
        return type(state)(
            *(
                function(f"{place}/{name}" if place else name, child)
                if kinds.get(name) in _MOMENTA
                else below(name, child)
                for name, child in children
            )
        )
    if isinstance(state, (tuple, list)):
        return type(state)(below(str(i), child) for i, child in enumerate(state))
    if type(state) is dict:
        return {key: below(str(key), child) for key, child in state.items()}
    return state


def map_arrays(function: Callable[..., Any], tree: Tree, *others: Tree) -> Tree:
    """Apply `function(name, array, *arrays)` to every array of a tree; boxes stay, and so do holes."""
    return map_with_names(
        lambda name, leaf, *rest: rebox(leaf, function(name, unbox(leaf), *map(unbox, rest))), tree, *others
    )
