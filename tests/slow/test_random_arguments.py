"""Random bad arguments: refused by name, or harmless; and the check itself can fail."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import optax

from tests.random_arguments import Call, calls, fault_of, faults


def test_random_bad_arguments_are_refused_by_name_or_do_no_harm() -> None:
    assert faults(100, seed=2) == []


def test_every_valid_call_is_valid() -> None:
    for call in calls():
        call.function(**call.arguments)


def test_harm_is_seen() -> None:
    def broken(rate: Any, unnamed: Any = 1) -> optax.GradientTransformation:
        if rate == "x":
            raise TypeError("deep inside")
        if unnamed is None:
            raise ValueError("something is wrong")
        return optax.scale(jnp.nan if rate == 0 else rate)

    call = Call("broken", broken, {"rate": 1.0})
    assert fault_of(call, "rate", 2) is None
    assert fault_of(call, "rate", "x") == "TypeError: deep inside"
    assert fault_of(call, "rate", 0) == "an update that is not finite"
    assert fault_of(call, "unnamed", None) == "does not name 'unnamed': something is wrong"
