"""Published forms of Muon, each one call. PyTorch's own numbers are in tests/test_against_torch.py."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_tour as jt
from jaxopt_tour.coefficients import PolynomialCoefficients, keller_jordan
from jaxopt_tour.coefficients.odd_polynomials import scaled
from tests.agreement import STEPS, follow
from tests.matrix_references import muon_by_hand, newton_schulz_by_hand
from tests.published_muons import moonshot_muon_by_hand, nanochat_muon_by_hand, six_step_muon_by_hand

SHAPES = [(5, 5), (3, 8), (9, 4)]
LEARNING_RATE, DECAY = 0.02, 0.1

#: Its prescale is 1.01 times the Frobenius norm, and 1e-6: the first polynomial takes the factor.
NANOCHAT = jt.Orthogonalizer(
    PolynomialCoefficients(
        "nanochat",
        (
            scaled((8.156554524902461, -22.48329292557795, 15.878769915207462), stretch=1.01),
            (4.042929935166739, -2.808917465908714, 0.5000178451051316),
            (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
            (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
            (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
        ),
        prescale="frobenius",
    ),
    eps=1e-6 / 1.01,
)

PUBLISHED = {
    "keller_jordan": (
        jt.muon(
            LEARNING_RATE,
            weight_decay=DECAY,
            orthogonalizer=jt.Orthogonalizer("keller_jordan", eps=1e-7),
            shape_factor="original",
            rest=jt.adamw(1e-3, b2=0.95, eps=1e-10, weight_decay=DECAY),
        ),
        lambda theta, g: muon_by_hand(theta, g, LEARNING_RATE, lam=DECAY),
    ),
    "torch": (
        jt.muon(LEARNING_RATE, weight_decay=DECAY, orthogonalizer="keller_jordan", shape_factor="original"),
        lambda theta, g: muon_by_hand(theta, g, LEARNING_RATE, lam=DECAY, guard="max"),
    ),
    "nanochat": (
        jt.muon(LEARNING_RATE, weight_decay=0.0, orthogonalizer=NANOCHAT, shape_factor="original"),
        lambda theta, g: nanochat_muon_by_hand(theta, g, LEARNING_RATE),
    ),
    # Its decay is multiplied by the shape factor, unlike everybody else's: another order of the chain.
    "nanochat, with its decay": (
        optax.chain(
            jt.scale_by_muon(orthogonalizer=NANOCHAT),
            jt.add_decayed_weights(DECAY, cautious=True),
            jt.scale_by_matrix_shape("original"),
            optax.scale_by_learning_rate(LEARNING_RATE),
        ),
        lambda theta, g: nanochat_muon_by_hand(theta, g, LEARNING_RATE, lam=DECAY),
    ),
    "six Modula steps": (
        jt.muon(LEARNING_RATE, weight_decay=0.0, orthogonalizer="modula", shape_factor=None, nesterov=False),
        lambda theta, g: six_step_muon_by_hand(theta, g, LEARNING_RATE),
    ),
    "moonshot": (
        jt.muon(LEARNING_RATE, weight_decay=DECAY, orthogonalizer=jt.Orthogonalizer("keller_jordan", eps=1e-7)),
        lambda theta, g: moonshot_muon_by_hand(theta, g, LEARNING_RATE, lam=DECAY),
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_parametrization_is_one_call(name: str, x64: None) -> None:
    tx, by_hand = PUBLISHED[name]
    rng = np.random.default_rng(7)
    theta = {str(shape): {"up": rng.normal(size=shape)} for shape in SHAPES}
    # A momentum summed up and one averaged differ by a factor, which eps sees: sizes at which 1e-7 is nothing.
    gradients = jax.tree.map(lambda leaf: rng.normal(size=(STEPS, *leaf.shape)) * 1e3, theta)
    for shape, ours in follow(tx, theta, gradients).items():
        expected = by_hand(theta[shape]["up"], gradients[shape]["up"])
        # float64; eps is 1e-10 of the norm in a sum and 1e-8 in an average.
        np.testing.assert_allclose(ours["up"], expected, rtol=1e-7, atol=1e-7, err_msg=shape)


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("consistent_rms", [None, 0.2])
def test_agrees_with_optax_in_its_own_parametrization(nesterov: bool, consistent_rms: float | None, x64: None) -> None:
    rng = np.random.default_rng(2)
    theta = {"w": rng.normal(size=(6, 4)), "v": rng.normal(size=(3, 7)), "b": rng.normal(size=4)}
    gradients = jax.tree.map(lambda leaf: rng.normal(size=(STEPS, *leaf.shape)), theta)
    peer = optax.contrib.muon(
        0.02, weight_decay=0.1, adam_weight_decay=0.05, nesterov=nesterov, consistent_rms=consistent_rms
    )
    ours = jt.muon(
        0.02,
        weight_decay=0.1,
        nesterov=nesterov,
        bias_correction=True,
        orthogonalizer=jt.Orthogonalizer("keller_jordan", eps=1e-8),
        shape_factor="original" if consistent_rms is None else "match_rms_adamw",
        rest=jt.adamw(0.02, b2=0.999, weight_decay=0.05, nesterov=nesterov),
        routing=lambda path, leaf: "matrix" if leaf.ndim == 2 else "other",
    )
    expected = follow(peer, theta, gradients)
    for name, path in follow(ours, theta, gradients).items():
        # Optax keeps its coefficients and schedules in float32 at places: 1e-7 of a rate of 0.02, fifty times.
        np.testing.assert_allclose(path, expected[name], atol=1e-7, err_msg=name)


def test_without_bias_correction_the_update_is_keller_jordans(x64: None) -> None:
    """His update of one matrix, in its own words, on the first gradients of a run."""
    rng = np.random.default_rng(0)
    theta, gradients = (
        rng.normal(size=(6, 10)),
        rng.normal(size=(10, 6, 10)) * 10.0 ** rng.uniform(-2, 1, size=(10, 1, 1)),
    )
    momentum = np.zeros_like(theta)
    tx = jt.scale_by_muon(orthogonalizer=jt.Orthogonalizer("keller_jordan", eps=1e-7))
    state = tx.init(jnp.asarray(theta))
    for g in gradients:
        momentum = momentum + 0.05 * (g - momentum)  # momentum.lerp_(grad, 1 - beta)
        update = g + 0.95 * (momentum - g)  # grad.lerp_(momentum, beta)
        expected = newton_schulz_by_hand(update, keller_jordan().polynomials, eps=1e-7)
        ours, state = tx.update(jnp.asarray(g), state)
        np.testing.assert_allclose(ours, expected, atol=1e-10)


# Few shapes in the laws: each costs a compilation, and the law is about values.
