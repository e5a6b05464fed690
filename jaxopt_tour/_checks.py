"""Checks of arguments: each raises a ValueError that names the argument and says what is allowed.

A value that is traced (a hyperparameter injected by `optax.inject_hyperparams`, a vmapped rate) has no number to
check yet and passes; a schedule passes as well.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np


def _as_number(name: str, value: Any, allowed: str) -> float | None:
    """The number to check, or None where `value` is traced and cannot be checked."""
    if isinstance(value, jax.core.Tracer):
        return None
    if isinstance(value, (bool, str)) or np.ndim(value) != 0:
        raise ValueError(f"{name} must be {allowed}, got {value!r}")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be {allowed}, got {value!r}") from None


def check_number(name: str, value: Any, allowed: str, is_allowed: Callable[[float], bool]) -> None:
    """Raise unless `value` is a number for which `is_allowed` is true; `allowed` says it in words."""
    number = _as_number(name, value, allowed)
    if number is not None and not is_allowed(number):
        raise ValueError(f"{name} must be {allowed}, got {value!r}")


def check_nonnegative(name: str, value: Any) -> None:
    """Raise unless `value` is a finite number of at least zero."""
    check_number(name, value, "a number >= 0", lambda number: 0 <= number < np.inf)


def check_decay_rate(name: str, value: Any) -> None:
    """Raise unless `value` is the decay of an exponential average, 0 <= value < 1."""
    check_number(name, value, "a number with 0 <= value < 1", lambda number: 0 <= number < 1)


def check_fraction(name: str, value: Any) -> None:
    """Raise unless `value` is a number from 0 to 1."""
    check_number(name, value, "a number with 0 <= value <= 1", lambda number: 0 <= number <= 1)


def check_integer(name: str, value: Any, least: int, *, or_array: bool = False) -> None:
    """Raise unless `value` is an integer of at least `least`; with `or_array` also one in an array, traced or not."""
    if or_array and isinstance(value, jax.core.Tracer):
        return
    kinds = (int, np.integer, np.ndarray, jax.Array) if or_array else (int, np.integer)
    if isinstance(value, kinds) and not isinstance(value, bool):
        array = np.asarray(value)
        if array.ndim == 0 and np.issubdtype(array.dtype, np.integer) and array >= least:
            return
    raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")


def check_rate(name: str, value: Any) -> None:
    """Raise unless `value` is a finite number of at least zero or a schedule `step -> number`."""
    allowed = "a number >= 0 or a schedule (a function of the step)"
    if callable(value):
        check_call(name, value, (0,), allowed=allowed)
        return
    check_number(name, value, allowed, lambda number: 0 <= number < np.inf)


def check_call(
    name: str, function: Any, arguments: tuple[Any, ...], keywords: Mapping[str, Any] | None = None, *,
    allowed: str | None = None,
) -> None:  # fmt: skip
    """Raise unless `function` can be called with these arguments, as far as its signature tells."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*arguments, **(keywords or {}))
    except TypeError as error:
        called = getattr(function, "__name__", type(function).__name__)
        wanted = f"{name} must be {allowed}" if allowed else f"{name} does not take the arguments that are given"
        raise ValueError(f"{wanted}; {called}{signature} cannot be called with {len(arguments)}: {error}") from None


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    """Raise unless `value` is one of `choices`; the message lists them."""
    choices = tuple(choices)
    if not any(value is choice or (isinstance(value, str) and value == choice) for choice in choices):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}")


def check_transformation(name: str, value: Any) -> None:
    """Raise unless `value` is a gradient transformation."""
    if not (callable(getattr(value, "init", None)) and callable(getattr(value, "update", None))):
        raise ValueError(f"{name} must be an optax.GradientTransformation, got {value!r}")


def check_mapping(name: str, value: Any, of: str) -> None:
    """Raise unless `value` is a mapping; `of` says from what to what."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must be a mapping {of}, got {value!r}")


def check_tree_like(name: str, value: Any, like: Any, is_leaf: Callable[[Any], bool] | None = None) -> None:
    """Raise unless `value` has the structure of the tree `like`."""
    given: Any = jax.tree.structure(value, is_leaf=is_leaf)
    if given != jax.tree.structure(like, is_leaf=is_leaf):
        raise ValueError(f"{name} must be a tree like the one that the state was made for, got {value!r}")


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """The end of an error message, `"; did you mean 'frozen'?"`; empty if no candidate is similar to `name`."""
    closest = difflib.get_close_matches(name, list(candidates), n=1)
    return f"; did you mean {closest[0]!r}?" if closest else ""


def check_flag(name: str, value: Any) -> None:
    """Raise unless `value` is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} must be True or False, got {value!r}")


def check_float_dtype(name: str, value: Any) -> np.dtype | None:
    """The dtype that `value` names, or None; raise unless it is a floating or complex dtype."""
    if value is None:
        return None
    allowed = "None or a floating dtype such as 'float32' or jnp.bfloat16"
    if isinstance(value, (jax.Array, np.ndarray)):
        raise ValueError(
            f"{name} must be {allowed}, got an array. optax.inject_hyperparams takes a dtype class for a schedule: "
            f"pass the dtype by its name, or list {name!r} in static_args."
        )
    try:
        dtype = jax.dtypes.canonicalize_dtype(value)
    except TypeError:
        raise ValueError(f"{name} must be {allowed}, got {value!r}") from None
    if not jax.numpy.issubdtype(dtype, jax.numpy.inexact):
        raise ValueError(f"{name} must be {allowed}, got {value!r}")
    return np.dtype(dtype)
