"""An 8×8 weight to watch: steepest descent under four norms, on all of it or on each of two heads.

The problem is linear regression, `f(W) = 1/2 tr((W - W*) Q (W - W*)^T)` with `y = W x` and `Q = E[x x^T]`, from W = 0.
The script computes the same runs as `run` does with the library, and a test compares them.
"""

from __future__ import annotations

from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxopt_tour as jt
from jaxopt_tour._types import Array
from jaxopt_tour.tour.rollout import rollout, sweep

SIZE: Final = 8
HEADS: Final = 2
STEPS: Final = 40
#: Norm of the step -> what the page calls it, its hue, and its rate for the whole weight and for two heads: of those
#: an eighth of a decade apart, the one with the lowest loss after 40 steps (`best_rate`).
NORMS: Final[dict[str, tuple[str, str, tuple[float, float]]]] = {
    "spectral": ("spectral: largest singular value (Muon)", "vermillion", (0.237, 0.562)),
    "l2": ("Frobenius: root of the sum of squares (SGD)", "gray", (7.5, 2.37)),
    "linf": ("largest entry (sign descent)", "violet", (0.1, 0.1)),
    "column": ("longest column, one an input", "green", (0.316, 0.237)),
}
#: In legends and sentences.
SHORT: Final = {"spectral": "spectral", "l2": "Frobenius", "linf": "sign", "column": "columns"}
RATES: Final = 10.0 ** (np.arange(-20, 9) / 8)


def _orthogonal(seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(SIZE, SIZE)))[0]


def _problem() -> tuple[np.ndarray, np.ndarray]:
    """W* and Q, rounded as the page has them: Q of condition number 100, and a second head with smaller weights."""
    target = np.random.default_rng(5).normal(size=(SIZE, SIZE))
    target[SIZE // HEADS :] *= 0.25
    v = _orthogonal(6)
    gram = v @ np.diag(10.0 ** np.linspace(0, -2, SIZE)) @ v.T
    return np.round(target, 3), np.round((gram + gram.T) / 2, 4)


TARGET, GRAM = _problem()


class Weight:
    """The problem as `rollout` takes it."""

    def init(self, start: Any = None) -> Array:
        """W = 0, whatever the start."""
        return jnp.zeros((SIZE, SIZE), jnp.result_type(float))

    def loss(self, params: Array, key: Array) -> Array:
        """f(W)."""
        error = params - jnp.asarray(TARGET, params.dtype)
        return 0.5 * jnp.vdot(error @ jnp.asarray(GRAM, params.dtype), error)


def optimizer(norm: Any, heads: bool, rate: float) -> optax.GradientTransformation:
    """Steepest descent under a norm, at a rate that falls linearly to zero; rows are outputs, in two heads or one."""
    axes = jt.MatrixAxes(2, 1, factors={0: (SIZE // HEADS,)}) if heads else jt.MatrixAxes(1, 0)
    direction = jt.scale_by_dual_norm(norm, orthogonalizer=jt.coefficients.polar_express(5), axes=axes)

    def falling(count: Any) -> Array:
        return rate * (1 - jnp.asarray(count, jnp.result_type(float)) / STEPS)

    return optax.chain(direction, optax.scale_by_learning_rate(falling))


def run(norm: str, heads: bool) -> Array:
    """(41, 8, 8): the weight before every step and after the last, at the page's rate."""
    return rollout(optimizer(norm, heads, NORMS[norm][2][heads]), Weight(), STEPS, record=()).params


def best_rate(norm: str, heads: bool) -> float:
    """The rate of `RATES` with the lowest loss after the last step."""
    runs = sweep(lambda rate: optimizer(norm, heads, rate), Weight(), STEPS, learning_rates=RATES, record=())
    return float(f"{RATES[int(np.nanargmin(jax.device_get(runs.loss)[:, -1]))]:.3g}")


def data() -> dict[str, Any]:
    """What the script of the page works on."""
    return {
        "target": TARGET.ravel().tolist(),
        "gram": GRAM.ravel().tolist(),
        "steps": STEPS,
        "heads": HEADS,
        "norms": {name: {"hue": hue, "rates": rates, "short": SHORT[name]} for name, (_, hue, rates) in NORMS.items()},
    }
