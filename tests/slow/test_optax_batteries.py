"""Optax's own tests of its optimizers, read from the installed wheel and run on ours.

`optax/_src/alias_test.py` and `optax/contrib/_common_test.py` each hold one table of optimizers, one function that
looks an optimizer up by its name, and one class whose methods are expanded over the table when the class is made. So:
run the module up to that class, put our table and our look-up in place of theirs, then make the class. The tests
themselves stay exactly as Optax ships them.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import inspect
import pathlib
import types
import unittest
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import jaxopt_tour as jt
from tests.contenders import CONTENDERS, FAST, Contender

pytest.importorskip("absl.testing.parameterized", reason="Optax's test batteries are absl tests")


def make_battery(module: str, class_name: str, **replacements: Any) -> type[unittest.TestCase]:
    """The test class of a test module in the wheel, made over `replacements` of the module's names."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        pytest.skip(f"the installed optax ships without {module}", allow_module_level=True)
    body = ast.parse(pathlib.Path(spec.origin).read_text(), spec.origin).body
    # scikit-learn serves the tests of L-BFGS alone, which are in another class.
    body = [
        node for node in body if not (isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("sklearn."))
    ]
    position = next(i for i, node in enumerate(body) if isinstance(node, ast.ClassDef) and node.name == class_name)
    namespace: dict[str, Any] = {"__name__": __name__, "__file__": spec.origin}
    exec(compile(ast.Module(body[:position], []), spec.origin, "exec"), namespace)
    missing = set(replacements) - set(namespace)
    assert not missing, f"{module} has no {missing}: see what its table is called now"
    namespace.update(replacements)
    exec(compile(ast.Module([body[position]], []), spec.origin, "exec"), namespace)
    return namespace[class_name]


# Their parameters have no names: by name sends matrices to AdamW, and the tests of Muon are those beside it.
pytestmark = pytest.mark.not_understood

#: Our name -> Optax's, where its tests treat an optimizer apart by its name: they ask for no more of signSGD at a
#: constant rate, ours or theirs, than to solve the parabola.
OPTAX_NAMES = {"signsgd": "sign_sgd"}
CONTENDER_OF = {OPTAX_NAMES.get(contender.name, contender.name): contender for contender in CONTENDERS}


def look_up(name: str) -> Callable[..., optax.GradientTransformation]:
    """The optimizer of a row of the table, dressed for the batteries."""
    contender = CONTENDER_OF[name]

    @functools.wraps(contender.factory)
    def factory(*args: Any, **kwargs: Any) -> optax.GradientTransformationExtraArgs:
        tx = contender.factory(*args, **kwargs)

        def init(params: Any) -> Any:
            if any(map(jnp.iscomplexobj, jax.tree.leaves(params))):
                if not contender.complex_parameters:
                    raise unittest.SkipTest(f"{name} is not defined for complex parameters")
                # Rosenbrock's function: curvatures of 0.2 and 1,800 at the minimum.
                if contender.factory is jt.sgd and params.shape == (2,):
                    raise unittest.SkipTest("without momentum no stable rate gets there within 10,000 steps")
            return tx.init(params)

        return tx._replace(init=init)

    # The batteries ask whether the rate's annotation *is* optax.ScalarOrSchedule; ours are strings until evaluated.
    factory.__signature__ = inspect.signature(contender.factory, eval_str=True)  # type: ignore[attr-defined]
    return factory


def row(contender: Contender, rate: optax.ScalarOrSchedule | None = None) -> dict[str, Any]:
    """A row of Optax's tables."""
    rate = contender.learning_rate if rate is None else rate
    name = OPTAX_NAMES.get(contender.name, contender.name)
    return {"opt_name": name, "opt_kwargs": {"learning_rate": rate, **contender.arguments}}


# Optax's wrappers around one of ours, as its own table has them around optax.sgd.
WRAPPED = (
    ("sgd", 1e-1, "mechanize", {"weight_decay": 0.0}),
    ("adamw", 1.0, "mechanize", {"weight_decay": 0.0}),
    ("sgd", 1e-2, "schedule_free", {"learning_rate": 1e-2}),
    ("sgd", 1e-3, "reduce_on_plateau", {}),
)

# test_explicit_dtype asks for optax.sgd(0.1, momentum=...) and for the name of its momentum in the state.
ALIAS = types.SimpleNamespace(
    sgd=lambda rate, momentum, accumulator_dtype: jt.momentum(rate, beta=momentum, mu_dtype=accumulator_dtype)
)

# One row for each public optimizer; variants have references of their own. AdamW takes the nameless matrices, so Muon
# stands for all that treat matrices alone in another way.
CHOSEN = [
    contender
    for contender in CONTENDERS
    if not contender.arguments
    and contender.factory not in (jt.normuon, jt.muonh, jt.adamh, jt.shampoo, jt.soap, jt.soap_muon)
]

# What is asked of states, dtypes and wrappers, the contract asks of every optimizer too: one row a kind of state.
FEW = [contender for contender in CHOSEN if contender.name in FAST]


def alias_battery(rows: Sequence[Contender], *, solves: bool) -> type[unittest.TestCase]:
    """The first battery's tests that an optimizer solves its problems, or all of its others."""
    battery = make_battery(
        "optax._src.alias_test",
        "AliasTest",
        _OPTIMIZERS_UNDER_TEST=tuple(row(contender) for contender in rows),
        _get_opt=lambda self, name: look_up(name),
        alias=ALIAS,
    )
    for name in [name for name in dir(battery) if name.startswith("test")]:
        if name.startswith("test_optimization") != solves:
            delattr(battery, name)
    return battery


SolvesBattery = alias_battery(CHOSEN, solves=True)
AliasBattery = alias_battery(FEW, solves=False)

# Half of the second battery's tests are the first's again. What it adds is matrices, 30,000 steps, and Optax's
# wrappers.
UNWRAPPED = {"wrapper_name": None, "wrapper_kwargs": None}
WRAPPED_ROWS = [
    {"opt_name": name, "opt_kwargs": {"learning_rate": rate}, "wrapper_name": wrapper, "wrapper_kwargs": arguments}
    for name, rate, wrapper, arguments in WRAPPED
]


def at_rest_after_30_000_steps(contender: Contender) -> optax.ScalarOrSchedule:
    """Its rate; where its steps do not shrink by themselves the rate falls over the last third."""
    if contender.steps_shrink:
        return contender.learning_rate
    return optax.exponential_decay(contender.learning_rate, 10_000, 1e-3, transition_begin=20_000)


ContribBattery = make_battery(
    "optax.contrib._common_test",
    "ContribTest",
    _MAIN_OPTIMIZERS_UNDER_TEST=tuple([row(contender) | UNWRAPPED for contender in FEW] + WRAPPED_ROWS),
    _ALL_OPTIMIZERS_UNDER_TEST=tuple(
        [row(contender, at_rest_after_30_000_steps(contender)) | UNWRAPPED for contender in FEW] + WRAPPED_ROWS
    ),
    _get_opt_factory=look_up,
)
