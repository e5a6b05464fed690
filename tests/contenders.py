"""The one table of the public optimizers. A new optimizer gets a row here; every shared test then runs on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_tour as jt
from jaxopt_tour.optimizers._numerics import scale_by_learning_rate


@dataclasses.dataclass(frozen=True)
class Contender:
    """One way of calling one public optimizer.

    Attributes:
        name: what the test is called.
        factory: the public optimizer.
        learning_rate: a rate at which it reaches the minimum of Rosenbrock's function within 10,000 steps.
        arguments: what is passed besides the rate.
        complex_parameters: whether it is defined for complex parameters (Muon sends them to AdamW).
        square_state: whether it keeps, beside arrays of the parameters' shapes, square ones for their rows and columns:
            preconditioners can have no other shape.
        reduced_state: whether it keeps numbers for rows, columns or whole matrices, with length 1 along the other axes.
        steps_shrink: whether its steps become small near a minimum at a constant rate. Where they do not, as those of
            a sign, or even grow, as AdaDelta's, the rate must fall for the optimizer to come to rest.
        proportional_to_rate: whether a step is the rate times something that does not depend on it.
    """

    name: str
    factory: Callable[..., optax.GradientTransformation]
    learning_rate: float
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    complex_parameters: bool = True
    square_state: bool = False
    reduced_state: bool = False
    steps_shrink: bool = True
    proportional_to_rate: bool = True

    def __call__(self, learning_rate: optax.ScalarOrSchedule | None = None) -> optax.GradientTransformation:
        """The optimizer, at its own rate unless told otherwise."""
        return self.factory(self.learning_rate if learning_rate is None else learning_rate, **self.arguments)


def hand_over(learning_rate: optax.ScalarOrSchedule, weight: optax.ScalarOrSchedule = 0.5) -> Any:
    """Between Adam and momentum, of which Adam's rate is a hundred times momentum's."""
    calm = optax.chain(jt.scale_by_momentum(), optax.scale(0.01))
    return optax.chain(jt.interpolate(jt.scale_by_adam(), calm, weight), scale_by_learning_rate(learning_rate))


def there_and_back(learning_rate: optax.ScalarOrSchedule) -> Any:
    """From Adam to momentum and back to Adam within six steps."""
    return hand_over(learning_rate, lambda count: jnp.clip(jnp.minimum(count / 2, 3 - count / 2), 0, 1))


#: One step of the iteration, and little around the matrices: the time of these rows is the compiler's.
LITTLE = {"orthogonalizer": ((3.4445, -4.7750, 2.0315),), "rest": jt.sgd(1e-2)}

CONTENDERS = (
    Contender("sgd", jt.sgd, 1.5e-3),
    Contender("sgd_l2", jt.sgd, 1.5e-3, {"l2": 1e-4}),
    Contender("momentum", jt.momentum, 1e-3),
    Contender("momentum_ema", jt.momentum, 1e-2, {"form": "ema", "l2": 1e-4}),
    Contender("nesterov", jt.nesterov, 5e-4),
    Contender("nesterov_ema", jt.nesterov, 5e-3, {"form": "ema"}),
    Contender("adagrad", jt.adagrad, 1.0),
    Contender("adadelta", jt.adadelta, 0.1, complex_parameters=False, steps_shrink=False),
    Contender("rmsprop", jt.rmsprop, 5e-3),
    Contender("rmsprop_centered", jt.rmsprop, 5e-3, {"centered": True}),
    Contender("rmsprop_momentum", jt.rmsprop, 5e-3, {"momentum": 0.9, "nesterov": True, "eps_in_sqrt": True}),
    Contender("signsgd", jt.signsgd, 1e-2, complex_parameters=False, steps_shrink=False),
    Contender("signum", jt.signum, 1e-2, complex_parameters=False, steps_shrink=False),
    Contender("adam", jt.adam, 1e-1),
    Contender("adam_l2", jt.adam, 1e-1, {"l2": 1e-4}),
    Contender("adam_first_gradient", jt.adam, 1e-1, {"initial_moments": "first_gradient", "bias_correction": False}),
    Contender("adam_nesterov", jt.adam, 1e-2, {"nesterov": True}),
    Contender("adamw", jt.adamw, 1e-1),
    Contender("adamw_cautious", jt.adamw, 1e-1, {"cautious": True}),
    Contender("laprop", jt.laprop, 1e-2),
    Contender("eadam", jt.eadam, 1e-1),
    Contender("lion", jt.lion, 1e-2, complex_parameters=False, steps_shrink=False),
    Contender("adamh", jt.adamh, 1e-2, reduced_state=True, proportional_to_rate=False),
    Contender("muon", jt.muon, 1e-2),
    Contender("muon_keller_jordan", jt.muon, 1e-2, {"orthogonalizer": "keller_jordan", "shape_factor": "original"}),
    Contender("normuon", jt.normuon, 1e-2, reduced_state=True),
    Contender("muonh", jt.muonh, 1e-2, reduced_state=True, proportional_to_rate=False),
    Contender("muown", jt.muown, 3e-2, LITTLE, reduced_state=True, proportional_to_rate=False),
    Contender("dion2", jt.dion2, 1e-2, LITTLE),
    # A ball that the minimum lies in: the default radii are for large models and small rates.
    Contender("scion", jt.scion, 5e-3, {"radius": 2.0}, complex_parameters=False, steps_shrink=False),
    Contender("shampoo", jt.shampoo, 1e-2, square_state=True),
    # Roots that are kept are compared too: at rank one only the ridge lifts them out of float32's rounding.
    Contender("shampoo_stale_sums", jt.shampoo, 1e-2, {"b2": None, "update_every": 2, "eps": 1e-2}, square_state=True),
    Contender("soap", jt.soap, 1e-2, square_state=True),
    Contender("soap_muon", jt.soap_muon, 1e-2, square_state=True),
    Contender("interpolate", hand_over, 1e-1),
    Contender("interpolate_schedule", there_and_back, 1e-1),
)

#: The kinds of state that there are: none, one moment, two, a routed tree. The other rows are slow.
FAST = ("sgd", "momentum", "adamw", "muon")

every_optimizer = pytest.mark.parametrize(
    "contender",
    [pytest.param(row, id=row.name, marks=() if row.name in FAST else pytest.mark.slow) for row in CONTENDERS],
)
_FIRST = {row.factory: row for row in reversed(CONTENDERS)}
#: For promises that an option of an optimizer cannot break: one row an optimizer.
every_factory = pytest.mark.parametrize(
    "contender",
    [
        pytest.param(row, id=row.name, marks=() if row.name in FAST else pytest.mark.slow)
        for row in CONTENDERS
        if row is _FIRST[row.factory] and row.factory not in (jt.adamh, jt.muown, jt.dion2)  # of parts of other rows
    ],
)
#: For promises about what wraps or holds an optimizer: the kinds of state, and Shampoo's of other shapes.
every_kind_of_state = pytest.mark.parametrize(
    "contender",
    [
        pytest.param(row, id=row.name, marks=() if row.name in FAST else pytest.mark.slow)
        for row in CONTENDERS
        if row.name in (*FAST, "shampoo")
    ],
)


def make_params(dtype: Any = jnp.float32) -> dict[str, Any]:
    """A matrix, a vector and a scalar, none of whose entries is zero."""
    rng = np.random.default_rng(0)
    return {
        "up": {"kernel": jnp.asarray(rng.standard_normal((4, 6)), dtype), "bias": jnp.asarray(np.ones(6), dtype)},
        "gain": jnp.asarray(1.5, dtype),
    }


def make_gradients(params: Any, seed: int = 1) -> Any:
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape), p.dtype), params)
