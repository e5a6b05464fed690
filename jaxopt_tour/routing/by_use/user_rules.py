"""Rules that a user registers for kernels: a function in JAX that does what the kernel does."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import jax

_FUNCTIONS: dict[str, Callable[..., Any]] = {}


def register_kernel(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register what a kernel computes, for `from_function`: a decorator of a function in plain JAX.

    The function is traced in place of the kernel and never run. It takes the operands of the kernel, in order, and
    returns results of the same shapes; it need not be fast, nor right in its values.

    Example:
        >>> import jax, jaxopt_tour as jt
        >>> @jt.routing.register_kernel("my_grouped_matmul")
        ... def _(x, w, group_sizes):
        ...     return jax.lax.ragged_dot(x, w, group_sizes)

    Args:
        name: name of a primitive (`"ffi_call"`), of the target of a foreign call, or of the function that is jitted,
            has custom derivatives, or is the body of a `pallas_call`. A later registration replaces an earlier one.

    Returns:
        The decorator. It returns the function.

    Raises:
        ValueError: the name is no string, or is empty. At `from_function`: the function does not take the kernel's
            operands, or its results have other shapes.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"name must be the name of a kernel such as 'my_grouped_matmul', got {name!r}")

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        if not callable(function):
            raise ValueError(f"the rule for {name!r} must be a function of the kernel's operands, got {function!r}")
        _FUNCTIONS[name] = function
        return function

    return register


def jaxpr_of_rule(eqn: Any, running: Collection[str]) -> tuple[str, Any] | None:
    """The name and the jaxpr of the function that is registered for an equation; None without one, or if it runs."""
    registered = _FUNCTIONS.keys() - set(running) if _FUNCTIONS else ()
    name = next((name for name in _names(eqn) if name in registered), None) if registered else None
    if name is None:
        return None
    operands = [jax.ShapeDtypeStruct(var.aval.shape, var.aval.dtype) for var in eqn.invars]
    expected = [tuple(var.aval.shape) for var in eqn.outvars]
    try:
        jaxpr = jax.make_jaxpr(_FUNCTIONS[name])(*operands)
    except Exception as error:
        raise ValueError(
            f"the function registered for the kernel {name!r} does not take its operands, of shapes "
            f"{[operand.shape for operand in operands]}: {error}"
        ) from error
    shapes = [tuple(aval.shape) for aval in jaxpr.out_avals]
    if shapes != expected:
        raise ValueError(
            f"the function registered for the kernel {name!r} returns results of shapes {shapes}, the kernel {expected}"
        )
    return name, jaxpr


def _names(eqn: Any) -> list[Any]:
    """The names of an equation: of its primitive, its target, and the functions that it calls."""
    names = [eqn.params.get("name"), eqn.params.get("target_name")]
    for value in eqn.params.values():
        jaxpr = getattr(value, "jaxpr", value)
        if hasattr(jaxpr, "eqns"):
            names.append(getattr(getattr(jaxpr, "debug_info", None), "func_name", None))
    return [name for name in (*names, eqn.primitive.name) if isinstance(name, str)]
