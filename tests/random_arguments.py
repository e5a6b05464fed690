"""Random bad arguments for everything public: each is refused by name, or does no harm.

python -m tests.random_arguments [--number 4000] [--seed 0]

A draw takes a valid call of a public function and replaces one argument by a value out of a list of odd ones. It passes
if a `ValueError` names the argument, at the call or at the first update; or if nothing is raised, and an update of a
small tree is finite and has the tree's shapes. Every other exception, and every NaN, is printed as a fault.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import inspect
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

import jaxopt_tour as jt

PARAMS = {"blocks": {"0": {"up": {"kernel": jnp.ones((4, 6))}}}}
#: Of rank four, and every column has a norm.
GRADIENTS = jax.tree.map(lambda leaf: jnp.linspace(-1.0, 1.0, leaf.size).reshape(leaf.shape), PARAMS)


class Odd:
    """An object that is nothing anybody asked for."""


#: Values that some argument somewhere does not take, and that a user may well pass. A function that itself raises is
#: not among them: its error is its author's.
ODD: list[Any] = [
    *(-1, 0, 1, 2, 3.7, -0.5, 1.5, 10**30, 1e-320, float("nan"), float("inf"), -float("inf"), 1j, True, False, None),
    *("", "x", "auto", "bfloat16", "int32", b"x", [], (), {}, set(), [1, 2], (0, 1), {"a": 1}, {"a": "matrix"}, {1: 2}),
    *(Odd(), Odd, Ellipsis, slice(1), lambda: 0.1, lambda a, b: a),
    *(np.ones(2), np.ones((2, 2)), np.array("a"), np.float64(-2.0), np.int64(3), np.array(np.nan), jnp.ones(3)),
    *(jax.ShapeDtypeStruct((2,), jnp.float32), {"blocks": {"0": 1}}, optax.identity()),
]


@dataclasses.dataclass(frozen=True)
class Call:
    """A valid call of a public function, by keyword."""

    name: str
    function: Callable[..., Any]
    arguments: Mapping[str, Any]

    @property
    def names(self) -> list[str]:
        """What may be replaced."""
        return list(inspect.signature(self.function).parameters)


def calls() -> list[Call]:
    """A valid call of every public function that takes arguments."""
    inner = jt.sgd(0.1)
    state = jt.momentum(0.1).init(PARAMS)
    ahead = jt.ema_nesterov(inner)
    averaged = optax.chain(inner, jt.tail_average(0))
    watched = jt.monitored(jt.muon(0.1), every=1)
    _, watched_state = watched.update(GRADIENTS, watched.init(PARAMS), PARAMS)
    required = {
        "learning_rate": 1e-3,
        "norm": "spectral",
        "inner": inner,
        "directions": jt.scale_by_muon(),
        "norms": jt.scale_by_adam(),
        "first": inner,
        "second": inner,
        "weight": 0.5,
        "transforms": {"matrix": inner, "other": inner},
        "start": 2,
        "tx": inner,
        "key": 0,
        "axes": "x",
        "fan_in": 0,
        "fan_out": 1,
        "params_or_model": PARAMS,
        "x": jnp.ones((4, 6)),
        "params": PARAMS,
        "old_state": state,
        "arrays": {"w": {"exp_avg": np.ones(3), "exp_avg_sq": np.ones(3), "step": np.ones(())}},
        "metrics": jt.metrics(watched_state),
        "polar_error": 0.1,
        "lower_bound": 1e-2,
        "coefficients": "fast",
        "steps": 3,
    }
    on_a_mesh = jax.device_put(PARAMS, NamedSharding(jax.make_mesh((1,), ("x",)), PartitionSpec()))
    also = {"plan": {"platform": "cpu"}, "state_shardings": {"params": on_a_mesh}}
    states = {
        "ema_nesterov_params": ahead.init(PARAMS),
        "tail_average_params": averaged.init(PARAMS),
        "metrics": watched_state,
    }
    of_module = {f"presets.{name}": getattr(jt.presets, name) for name in _PRESETS}
    of_module |= {f"coefficients.{name}": getattr(jt.coefficients, name) for name in _COEFFICIENTS}
    public = {name: getattr(jt, name) for name in jt.__all__ if name not in _NOT_CALLED}
    found = []
    for name, function in (public | of_module).items():
        if inspect.ismodule(function):
            continue
        parameters = inspect.signature(function).parameters.values()
        needed = [one.name for one in parameters if one.default is one.empty]
        arguments = {one: states.get(name) if one == "state" else required[one] for one in needed}
        found.append(Call(name, function, arguments | also.get(name, {})))
    return [call for call in found if call.names]


_PRESETS = ("nanochat", "modded_nanogpt", "moonlight", "nvidia", "marin")
_COEFFICIENTS = ("polar_express", "cans", "zolotarev", "for_tolerance", "keller_jordan", "cubic", "as_coefficients")
#: Records that the library makes and a user reads.
_NOT_CALLED = ("Plan", "Migration", "Route", "Routes")


def fault_of(call: Call, argument: str, value: Any) -> str | None:
    """What is wrong with how a bad argument was met; None if it was refused by name or did no harm."""
    try:
        made = call.function(**{**call.arguments, argument: value})
        return None if call.name == "clip_qk" else harm_of(made)  # whose update needs a model's largest logits
    except ValueError as error:
        named = argument in str(error) or (argument.startswith("params") and "parameter '" in str(error))
        return None if named else f"does not name {argument!r}: {str(error)[:160]}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:160]}"


def harm_of(made: Any) -> str | None:
    """What is wrong with what a call returned."""
    if not isinstance(made, optax.GradientTransformation):
        arrays = [leaf for leaf in jax.tree.leaves(made) if isinstance(leaf, jax.Array | float)]
        return None if all(np.isfinite(leaf).all() for leaf in arrays) else "returned a number that is not finite"
    state, update = made.init(PARAMS), jax.jit(made.update)
    for _ in range(2):
        updates, state = update(GRADIENTS, state, PARAMS)
    if jax.tree.map(jnp.shape, updates) != jax.tree.map(jnp.shape, PARAMS):
        return "an update of another shape"
    finite = all(np.isfinite(np.asarray(leaf, np.float32)).all() for leaf in jax.tree.leaves(updates))
    return None if finite else "an update that is not finite"


def draws(number: int, seed: int) -> Iterator[tuple[Call, str, Any]]:
    """Random bad calls; the same ones for the same seed."""
    rng, every = np.random.default_rng(seed), calls()
    for _ in range(number):
        call = every[rng.integers(len(every))]
        yield call, call.names[rng.integers(len(call.names))], ODD[rng.integers(len(ODD))]


def faults(number: int, seed: int) -> list[str]:
    """A line for every bad argument that was not refused by name and did harm."""
    found = []
    for call, argument, value in draws(number, seed):
        fault = fault_of(call, argument, value)
        if fault is not None:
            found.append(f"{call.name}({argument}={value!r}): {fault}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=4_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    jax.config.update("jax_disable_most_optimizations", True)  # nearly all of the time is the compiler's
    logging.getLogger("jaxopt_tour").setLevel(logging.ERROR)
    found = collections.Counter(faults(arguments.number, arguments.seed))
    for line in sorted(found):
        print(line)
    print(f"{arguments.number} bad arguments of {len(calls())} functions: {sum(found.values())} faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
