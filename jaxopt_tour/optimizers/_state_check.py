"""The check that a state belongs to the optimizer that is given it, made when `update` is traced.

A restored state may hold `None`, `optax.MaskedNode` or an array of another shape where a momentum is expected. Without
this check the next update raises a broadcasting error that names no parameter. Only structure, shapes and dtypes are
compared, so a compiled step is the same with and without it. The outermost transformation checks the whole state; those
inside it do not check their parts again.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_tour._trees import is_box, is_hole, named_leaves, path_name, unbox
from jaxopt_tour._types import Tree

#: What a field of a state is called in an error message.
_WORDS: Final = {
    "mu": "momentum",
    "trace": "momentum",
    "nu": "second moment",
    "nu_with_eps": "second moment",
    "unit_nu": "second moment of units",
    "sum_of_squares": "sum of squares",
    "left": "preconditioner",
    "right": "preconditioner",
    "left_sum": "preconditioner",
    "right_sum": "preconditioner",
    "residual": "accumulated gradient",
    "radius": "norm",
    "output_norm": "norm of outputs",
    "direction_norm": "length of directions",
    "master": "float32 copy",
    "left_basis": "basis",
    "right_basis": "basis",
}
_SHOWN: Final = 3
_MISSING: Final = object()

#: Whether a transformation around the present one has checked the state.
_IS_CHECKED: contextvars.ContextVar[bool] = contextvars.ContextVar("_IS_CHECKED", default=False)


def with_state_check(tx: optax.GradientTransformation) -> Any:
    """Return `tx` whose `update` runs inside `checked_state`."""
    accepted: set[Any] = set()

    def update(updates: Tree, state: Any, params: Tree | None = None, **extra_args: Any) -> tuple[Tree, Any]:
        with checked_state(tx.init, state, updates, params, accepted):
            return tx.update(updates, state, params, **extra_args)

    return tx._replace(update=update)


def checked_chain(*transforms: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Return `optax.chain(*transforms)` whose `update` runs inside `checked_state`."""
    return with_state_check(optax.chain(*transforms))


@contextlib.contextmanager
def checked_state(init: Any, state: Any, updates: Tree, params: Tree | None, accepted: set[Any]) -> Iterator[None]:
    """Check the state as `_is_own_state` does, unless that has been done for a state around it."""
    token = None
    if not _IS_CHECKED.get() and _is_own_state(init, state, updates, params, accepted):
        token = _IS_CHECKED.set(True)
    try:
        yield
    finally:
        if token is not None:
            _IS_CHECKED.reset(token)


def _is_own_state(init: Any, state: Any, updates: Tree, params: Tree | None, accepted: set[Any]) -> bool:
    """Raise unless `state` has the classes, parameters and shapes of `init(params)`; False if that cannot be known.

    Dtypes are compared as well, where `params` are given: a narrower accumulator would lose what the wider one keeps.

    Args:
        init: The function that makes a state; it is only traced.
        state: The state to check.
        updates: The gradients. They stand for the parameters if there are none; a parameter without a gradient may then
            have moments.
        params: The parameters, or None.
        accepted: Structures that passed before. Structures that pass now are added, so that code that is not compiled
            traces `init` once.

    Raises:
        ValueError: The state is of another routing, another tree or another optimizer, or was restored incompletely.
            The message names the parameter, what was found, and the way out.
    """
    likes = updates if params is None else params
    signature = _signature((likes, state, params is None))
    if signature is not None and signature in accepted:
        return True
    try:
        expected = jax.eval_shape(init, jax.tree.map(_abstract, likes))
    except (TypeError, IndexError):
        return False  # an `init` of other makers that needs values: there is nothing to compare with
    arrays = _other_arrays(expected, state, named_leaves(likes), strict=params is not None)
    problems = [*_other_classes(expected, state, ())[:1], *arrays]
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise ValueError(
            f"the state is not one of this optimizer for these parameters: {'; '.join(problems[:_SHOWN])}{more}. It "
            "belongs to another routing, another tree or another optimizer, or was restored incompletely. "
            "jt.migrate_state(state, tx, params) keeps every moment whose meaning is the same"
        )
    if signature is not None:
        if len(accepted) >= 32:
            accepted.clear()
        accepted.add(signature)
    return True


def _signature(tree: Tree) -> Any:
    """What two trees that pass the same checks have in common; None if it cannot be a key."""
    leaves, treedef = jax.tree.flatten(tree)
    signature = treedef, tuple((np.shape(leaf), str(getattr(leaf, "dtype", ""))) for leaf in leaves)
    try:
        hash(signature)
    except TypeError:
        return None
    return signature


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(np.shape(leaf), jnp.result_type(leaf))


def _is_state_class(node: Any) -> bool:
    return isinstance(node, tuple) and hasattr(node, "_fields") and bool(node._fields)


def _is_chain(node: Any) -> bool:
    """Whether this is the state of `optax.chain`, and no tuple of parameters."""
    return all(isinstance(entry, tuple) for entry in node)


def _described(node: Any) -> str:
    if type(node) in (tuple, list):
        return f"{len(node)} chained transformations"
    fields = f"({', '.join(node._fields)})" if _is_state_class(node) else ""
    return f"{type(node).__name__}{fields}"


def _other_classes(expected: Any, found: Any, path: tuple[str, ...]) -> list[str]:
    """Where another NamedTuple, or another number of transformations, is in the state."""
    where = f"the state{' at ' if path else ''}{'/'.join(path)}"
    if _is_state_class(expected):
        if type(found).__name__ != type(expected).__name__ or expected._fields != getattr(found, "_fields", None):
            return [f"{where} is {_described(found)}, expected {_described(expected)}"]
        children = [(name, getattr(expected, name), getattr(found, name)) for name in expected._fields]
    elif type(expected) is tuple and _is_chain(expected):
        if not isinstance(found, (tuple, list)) or _is_state_class(found) or len(found) != len(expected):
            return [f"{where} is {_described(found)}, expected {_described(expected)}"]
        children = [(str(i), *pair) for i, pair in enumerate(zip(expected, found, strict=True))]
    elif isinstance(expected, dict) and isinstance(found, dict):
        children = [(str(key), node, found[key]) for key, node in expected.items() if key in found]
    else:
        return []
    return [problem for name, *pair in children for problem in _other_classes(pair[0], pair[1], (*path, name))]


def _by_path(tree: Tree) -> dict[str, Any]:
    """Leaves by path name; None and holes are leaves as well."""
    pairs = jax.tree_util.tree_leaves_with_path(
        tree, is_leaf=lambda node: node is None or is_box(node) or is_hole(node)
    )
    return {path_name(path): unbox(leaf) for path, leaf in pairs}


def _is_absent(leaf: Any) -> bool:
    return leaf is _MISSING or leaf is None or is_hole(leaf)


def _other_arrays(expected: Any, state: Any, parameters: dict[str, Any], strict: bool) -> list[str]:
    """Which arrays of the state are missing, superfluous, or of another shape or dtype."""
    wanted_by_path, found_by_path = _by_path(expected), _by_path(state)
    problems = []
    for path, wanted in wanted_by_path.items():
        found = found_by_path.get(path, _MISSING)
        what = _what(path, parameters)
        if _is_absent(wanted):
            if strict and not _is_absent(found):
                problems.append(f"{what} is there, and this optimizer has none")
        elif _is_absent(found):
            as_what = "missing" if found is _MISSING else "None" if found is None else "MaskedNode, a hole"
            problems.append(f"{what} is {as_what}, expected an array of shape {tuple(wanted.shape)}")
        elif np.shape(found) != tuple(wanted.shape):
            problems.append(f"{what} has shape {np.shape(found)}, expected {tuple(wanted.shape)}")
        elif strict and wanted.ndim and _loses(jnp.result_type(found), wanted.dtype):
            problems.append(f"{what} has dtype {jnp.result_type(found)}, expected {wanted.dtype}")
    if strict:
        extra = [path for path, leaf in found_by_path.items() if path not in wanted_by_path and not _is_absent(leaf)]
        problems += [f"{_what(path, parameters)} is there, and no parameter for it" for path in extra]
    return problems


def _what(path: str, parameters: dict[str, Any]) -> str:
    """`"momentum of 'up/kernel' (inner_states/matrix/0/mu)"`, or the path alone if it leads to no parameter."""
    names = path.split("/")
    for start in range(len(names) + 1):
        name = "/".join(names[start:])
        if name in parameters and start:
            field = names[start - 1]
            return f"{_WORDS.get(field, field)} of {name!r} ({'/'.join(names[:start])})"
    return f"{path!r}"


def _loses(found: Any, wanted: Any) -> bool:
    """Whether values of dtype `wanted` do not all exist in dtype `found`."""
    return jnp.promote_types(found, wanted) != found
