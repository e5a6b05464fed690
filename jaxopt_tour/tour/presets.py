"""The optimizers of the tour on a landscape: their settings, and those of the post whose pictures the tour retells.

The post is J. Larkin, Understanding Muon, 2025, https://johnlarkin1.github.io/2025/understanding-muon: SGD, momentum,
AdaGrad, RMSProp (and centered), Adam, AdamW and Muon on the Styblinski-Tang function, 1,200 steps from (4.1, 4.5).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Final

import jax
import jax.numpy as jnp
import optax

import jaxopt_tour as jt
from jaxopt_tour._checks import check_choice
from jaxopt_tour._types import ScalarOrSchedule, Tree
from jaxopt_tour.orthogonalization.orthogonalizer import OrthogonalizerLike

MakeOptimizer = Callable[[ScalarOrSchedule], optax.GradientTransformation]


def as_columns(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Let `inner` see every vector of d entries as a matrix of shape (d, 1); other parameters as they are.

    So Muon can run on a vector. The one singular value of a column is its length, so orthogonalizing makes a unit
    vector of it: every update has the same length (the learning rate times the shape factor), however small the
    gradient. Such a run steps at constant speed along its momentum and never settles at a constant rate.
    """
    extra = optax.with_extra_args_support(inner)

    def columns(tree: Tree) -> Tree:
        return jax.tree.map(lambda leaf: leaf[:, None] if jnp.ndim(leaf) == 1 else leaf, tree)

    def update(updates: Tree, state: Any, params: Tree | None = None, **arguments: Any) -> tuple[Tree, Any]:
        new, state = extra.update(columns(updates), state, None if params is None else columns(params), **arguments)
        return jax.tree.map(lambda leaf, like: leaf.reshape(jnp.shape(like)), new, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: extra.init(columns(params)), update)


def muon_on_everything(
    learning_rate: ScalarOrSchedule,
    weight_decay: ScalarOrSchedule = 0.0,
    *,
    beta: float = 0.95,
    nesterov: bool = True,
    orthogonalizer: OrthogonalizerLike = "polar_express",
) -> optax.GradientTransformation:
    """Muon's own chain with nothing routed elsewhere: vectors are columns (`as_columns`), matrices themselves.

    Its updates have the root mean square that `muon` gives them, 0.2 of the rate at full rank.

    Args:
        learning_rate: eta.
        weight_decay: lambda, decoupled.
        beta: decay of the momentum.
        nesterov: look ahead by one step.
        orthogonalizer: an `Orthogonalizer`, or coefficients by name or value.
    """
    muon = jt.scale_by_muon(beta, nesterov=nesterov, orthogonalizer=orthogonalizer, axes=_AXES)
    return _on_everything(learning_rate, weight_decay, muon)


def normuon_on_everything(
    learning_rate: ScalarOrSchedule,
    weight_decay: ScalarOrSchedule = 0.0,
    *,
    beta: float = 0.95,
    b2: float = 0.95,
    nesterov: bool = True,
    orthogonalizer: OrthogonalizerLike = "polar_express",
) -> optax.GradientTransformation:
    """NorMuon's own chain with nothing routed elsewhere, as `muon_on_everything`.

    Args:
        learning_rate: eta.
        weight_decay: lambda, decoupled.
        beta: decay of the momentum.
        b2: decay of the mean squares of each unit.
        nesterov: look ahead by one step.
        orthogonalizer: an `Orthogonalizer`, or coefficients by name or value.
    """
    muon = jt.scale_by_muon(beta, nesterov=nesterov, orthogonalizer=orthogonalizer, axes=_AXES)
    return _on_everything(learning_rate, weight_decay, muon, jt.scale_by_normuon(b2, axes=_AXES))


def shampoo_on_everything(
    learning_rate: ScalarOrSchedule,
    weight_decay: ScalarOrSchedule = 0.0,
    *,
    beta: float = 0.95,
    b2: float = 0.95,
    eps: float = 1e-6,
    nesterov: bool = True,
    bias_correction: bool = True,
) -> optax.GradientTransformation:
    """Shampoo's own chain with nothing routed elsewhere, as `muon_on_everything`.

    Args:
        learning_rate: eta.
        weight_decay: lambda, decoupled.
        beta: decay of the momentum.
        b2: decay of the products of rows and of columns.
        eps: ridge, relative to the trace.
        nesterov: look ahead by one step.
        bias_correction: whether to correct the products for their start at zero.
    """
    momentum = jt.scale_by_momentum(beta, form="ema", nesterov=nesterov)
    shampoo = jt.scale_by_shampoo(b2, eps=eps, bias_correction=bias_correction, axes=_AXES)
    return _on_everything(learning_rate, weight_decay, momentum, shampoo)


_AXES: Final = jt.MatrixAxes(fan_in=0, fan_out=1)


def _on_everything(
    learning_rate: ScalarOrSchedule, weight_decay: ScalarOrSchedule, *rules: optax.GradientTransformation
) -> optax.GradientTransformation:
    """A chain of rules for matrices on all parameters, with Muon's shape factor and decay."""
    return as_columns(
        optax.chain(
            *rules,
            jt.scale_by_matrix_shape("match_rms_adamw", axes=_AXES),
            jt.add_decayed_weights(weight_decay),
            optax.scale_by_learning_rate(learning_rate),
        )
    )


#: Optimizer by name, as a function of its learning rate, each with the library's defaults. The order is the tour's.
OPTIMIZERS: Final[dict[str, MakeOptimizer]] = {
    "sgd": lambda rate: jt.sgd(rate),
    "momentum": lambda rate: jt.momentum(rate),
    "nesterov": lambda rate: jt.nesterov(rate),
    "adagrad": lambda rate: jt.adagrad(rate),
    "adadelta": lambda rate: jt.adadelta(rate),
    "rmsprop": lambda rate: jt.rmsprop(rate),
    "rmsprop-centered": lambda rate: jt.rmsprop(rate, centered=True),
    "signsgd": lambda rate: jt.signsgd(rate),
    "signum": lambda rate: jt.signum(rate),
    "adam": lambda rate: jt.adam(rate),
    "adamw": lambda rate: jt.adamw(rate, weight_decay=0.01),
    "muon": lambda rate: muon_on_everything(rate),
}


@dataclasses.dataclass(frozen=True)
class Preset:
    """A landscape, a start, a number of steps, and optimizers with their rates.

    Attributes:
        landscape: its name.
        start: coordinates on its plane.
        steps: of every run.
        optimizers: by name, as functions of the rate.
        rates: the rate of each.
    """

    landscape: str
    start: tuple[float, float]
    steps: int
    optimizers: dict[str, MakeOptimizer]
    rates: dict[str, float]

    def make(self, name: str) -> optax.GradientTransformation:
        """The optimizer of that name at its rate.

        Raises:
            ValueError: there is none; the message lists those there are.
        """
        check_choice("optimizer", name, self.optimizers)
        return self.optimizers[name](self.rates[name])


#: The post's orthogonalization.
KELLER_JORDAN: Final = jt.Orthogonalizer("keller_jordan", eps=1e-7)

#: The post's settings, with Nesterov's momentum, which it mentions, at those of its momentum. It decays AdamW's
#: weights after the step where this library, as PyTorch, decays them before: a difference of eta^2 lambda u a step.
SOURCE: Final = Preset(
    landscape="styblinski-tang",
    start=(4.1, 4.5),
    steps=1200,
    optimizers={
        "sgd": lambda rate: jt.sgd(rate),
        "momentum": lambda rate: jt.momentum(rate, beta=0.9),
        "nesterov": lambda rate: jt.nesterov(rate, beta=0.9),
        "adagrad": lambda rate: jt.adagrad(rate, eps=1e-8),
        "rmsprop": lambda rate: jt.rmsprop(rate, beta=0.9, eps=1e-8),
        "rmsprop-centered": lambda rate: jt.rmsprop(rate, beta=0.9, eps=1e-8, centered=True),
        "adam": lambda rate: jt.adam(rate, b1=0.9, b2=0.999, eps=1e-8),
        "adamw": lambda rate: jt.adamw(rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.01),
        "muon": lambda rate: muon_on_everything(rate, 0.01, beta=0.95, orthogonalizer=KELLER_JORDAN),
    },
    rates={
        "sgd": 0.02,
        "momentum": 0.02,
        "nesterov": 0.02,
        "adagrad": 0.4,
        "rmsprop": 0.01,
        "rmsprop-centered": 0.01,
        "adam": 0.01,
        "adamw": 0.01,
        "muon": 0.01,
    },
)
