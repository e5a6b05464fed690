"""Muon against the paper in NumPy, against Optax in its own parametrization, and its laws."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxopt_tour as jt
from jaxopt_tour.coefficients.by_name import keller_jordan
from tests.agreement import STEPS, follow
from tests.references import adam_by_hand, muon_by_hand, newton_schulz_by_hand, polar_by_hand

SHAPES = [(5, 5), (3, 8), (9, 4)]
OPTAX_ROUTING = lambda path, leaf: "muon" if leaf.ndim == 2 else "adamw"  # noqa: E731


def problem(shape: tuple[int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape), rng.normal(size=(STEPS, *shape)) * 10.0 ** rng.uniform(-2, 1, size=(STEPS, 1, 1))


@pytest.mark.parametrize(
    ("shape", "shape_factor", "nesterov", "bias_correction"),
    [  # every value of every switch, wide, tall and square
        ((5, 5), "original", True, False),
        ((3, 8), "original", True, True),
        ((9, 4), "match_rms_adamw", True, False),
        ((3, 8), "spectral", False, False),
        ((9, 4), "spectral", False, True),
        ((3, 8), None, True, False),
    ],
)
def test_agrees_with_the_paper(
    shape: tuple[int, int], shape_factor: str | None, nesterov: bool, bias_correction: bool, x64: None
) -> None:
    theta, gradients = problem(shape)
    tx = jt.muon(
        0.02,
        0.1,
        coefficients="keller_jordan",
        eps=1e-7,
        shape_factor=shape_factor,
        nesterov=nesterov,
        bias_correction=bias_correction,
        routing="muon",
    )
    expected = muon_by_hand(
        theta,
        gradients,
        0.02,
        lam=0.1,
        shape_factor=shape_factor,
        nesterov=nesterov,
        bias_correction=bias_correction,
    )
    # float64: five steps of small products, fifty times over; parameters of size one.
    np.testing.assert_allclose(follow(tx, theta, gradients), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_exact_muon_agrees_with_the_polar_factor(shape: tuple[int, int], x64: None) -> None:
    theta, gradients = problem(shape)
    tx = jt.muon(0.02, 0.0, coefficients="exact", routing="muon")
    expected = muon_by_hand(theta, gradients, 0.02, orthogonalize=polar_by_hand, shape_factor="match_rms_adamw")
    np.testing.assert_allclose(follow(tx, theta, gradients), expected, rtol=1e-9, atol=1e-9)


def test_the_rest_goes_to_adamw(x64: None) -> None:
    rng = np.random.default_rng(1)
    theta = {"dense": {"kernel": rng.normal(size=(4, 6)), "bias": rng.normal(size=6)}, "wte": rng.normal(size=(7, 4))}
    gradients = jax.tree.map(lambda leaf: rng.normal(size=(STEPS, *leaf.shape)), theta)
    tx = jt.muon(0.02, 0.1, coefficients="keller_jordan", eps=1e-7, adamw_learning_rate=1e-3, adamw_weight_decay=0.3)
    ours = follow(tx, theta, gradients)
    np.testing.assert_allclose(
        ours["dense"]["kernel"],
        muon_by_hand(
            theta["dense"]["kernel"], gradients["dense"]["kernel"], 0.02, lam=0.1, shape_factor="match_rms_adamw"
        ),
        rtol=1e-9,
    )
    for leaf, g, path in (
        (theta["wte"], gradients["wte"], ours["wte"]),
        (theta["dense"]["bias"], gradients["dense"]["bias"], ours["dense"]["bias"]),
    ):
        expected = adam_by_hand(leaf, g, 1e-3, b1=0.9, b2=0.95, eps=1e-8, decoupled=0.3)
        np.testing.assert_allclose(path, expected, rtol=1e-9, atol=1e-12)


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
        0.1,
        coefficients="keller_jordan",
        shape_factor="original" if consistent_rms is None else "match_rms_adamw",
        eps=1e-8,
        nesterov=nesterov,
        bias_correction=True,
        adamw_b2=0.999,
        adamw_weight_decay=0.05,
        adamw_nesterov=nesterov,
        routing=OPTAX_ROUTING,
    )
    expected = follow(peer, theta, gradients)
    for name, path in follow(ours, theta, gradients).items():
        # Optax keeps its coefficients and schedules in float32 at places: 1e-7 of a rate of 0.02, fifty times.
        np.testing.assert_allclose(path, expected[name], atol=1e-7, err_msg=name)


def test_without_bias_correction_the_update_is_keller_jordans(x64: None) -> None:
    """His update of one matrix, in its own words, on the first gradients of a run."""
    theta, gradients = problem((6, 10))
    momentum = np.zeros_like(theta)
    tx = jt.scale_by_muon(coefficients="keller_jordan", eps=1e-7)
    state = tx.init(jnp.asarray(theta))
    for g in gradients[:10]:
        momentum = momentum + 0.05 * (g - momentum)  # momentum.lerp_(grad, 1 - beta)
        update = g + 0.95 * (momentum - g)  # grad.lerp_(momentum, beta)
        expected = newton_schulz_by_hand(update, keller_jordan().polynomials, eps=1e-7)
        ours, state = tx.update(jnp.asarray(g), state)
        np.testing.assert_allclose(ours, expected, atol=1e-10)


# Few shapes in the laws: each costs a compilation, and the law is about values.
@given(shape=st.sampled_from(SHAPES), seed=st.integers(0, 999))
def test_orthogonal_equivariance(shape: tuple[int, int], seed: int) -> None:
    """Rotating inputs and outputs of a layer rotates Muon's update; AdamW's has no such law."""
    rng = np.random.default_rng(seed)
    g = rng.normal(size=shape).astype(np.float32)
    u, v = (np.linalg.qr(rng.normal(size=(k, k)))[0].astype(np.float32) for k in shape)
    plain, turned = (first_update(jt.muon(1.0, 0.0, routing="muon"), x) for x in (g, u @ g @ v))
    # The spectrum of a Gaussian matrix this small can hold a singular value of 1e-3, whose image is steep: rounding of
    # 1e-7 grows by at most 5^5.
    np.testing.assert_allclose(turned, u @ plain @ v, atol=5e-3)


@given(seed=st.integers(0, 999), exponent=st.integers(-60, 60))
def test_loss_scale_invariance(seed: int, exponent: int) -> None:
    g = np.random.default_rng(seed).normal(size=(4, 6)).astype(np.float32)
    tx = jt.muon(1.0, 0.0, routing="muon")
    np.testing.assert_array_equal(first_update(tx, g), first_update(tx, np.ldexp(g, exponent)))


@given(shape=st.sampled_from([*SHAPES, (1, 4)]), seed=st.integers(0, 999))
def test_the_update_goes_downhill(shape: tuple[int, int], seed: int) -> None:
    """``<update, gradient> < 0`` at the first step: minus the nuclear norm, nearly."""
    g = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    assert np.sum(first_update(jt.muon(1.0, 0.0, routing="muon"), g) * g) < 0


def first_update(tx: optax.GradientTransformation, g: np.ndarray) -> np.ndarray:
    theta = jnp.zeros_like(g)
    return np.asarray(tx.update(jnp.asarray(g), tx.init(theta), theta)[0])


def test_root_mean_square_of_the_update_is_that_of_the_docstring() -> None:
    """0.2 eta at full rank under match_rms_adamw; the default schedule is within five percent of orthogonal."""
    g = np.random.default_rng(3).normal(size=(32, 96)).astype(np.float32)
    u = first_update(jt.muon(1e-2, 0.0, routing="muon"), g)
    np.testing.assert_allclose(np.sqrt(np.mean(u**2)), 0.2e-2, rtol=0.05)


@pytest.mark.parametrize("stacking", ["auto", "by_shape", "apart"])
def test_stacking_changes_nothing(stacking: str) -> None:
    rng = np.random.default_rng(4)
    shapes = {"a": (6, 9), "b": (9, 6), "c": (6, 9), "d": (4, 4), "e": (2, 3, 6, 9)}
    g = {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
    axes = {"e": jt.MatrixAxes(2, 3)}
    tx = jt.orthogonalize_via_newton_schulz(stacking=stacking, axes=axes)
    together, _ = tx.update(g, tx.init(g))
    for name, leaf in g.items():
        # Products of a stack may be summed in another order: float32.
        np.testing.assert_allclose(together[name], jt.orthogonalize(leaf), atol=1e-5)


def test_views_of_any_rank_are_orthogonalized_as_their_matrices() -> None:
    rng = np.random.default_rng(5)
    conv, query, fused = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((3, 3, 4, 8), (8, 2, 6), (6, 12)))
    g = {"conv": conv, "query": query, "fused": fused}
    axes = {
        "conv": jt.MatrixAxes((0, 1, 2), 3),
        "query": jt.MatrixAxes(0, (1, 2)),
        "fused": jt.MatrixAxes(0, 1, split=(4, 8)),
    }
    tx = optax.chain(jt.orthogonalize_via_newton_schulz(axes=axes), jt.scale_by_matrix_shape("spectral", axes=axes))
    u, _ = tx.update(g, tx.init(g))
    np.testing.assert_allclose(
        u["conv"].reshape(36, 8), np.sqrt(8 / 36) * jt.orthogonalize(conv.reshape(36, 8)), atol=1e-5
    )
    np.testing.assert_allclose(
        u["query"].reshape(8, 12), np.sqrt(12 / 8) * jt.orthogonalize(query.reshape(8, 12)), atol=1e-5
    )
    pieces = [np.sqrt(4 / 6) * jt.orthogonalize(fused[:, :4]), np.sqrt(8 / 6) * jt.orthogonalize(fused[:, 4:])]
    np.testing.assert_allclose(u["fused"], np.concatenate(pieces, axis=1), atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"learning_rate": "fast"}, "learning_rate"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"beta": 1.0}, "beta"),
        ({"mu_dtype": "int8"}, "mu_dtype"),
        ({"schedule": "kellerjordan"}, "keller_jordan"),
        ({"shape_factor": "moonshot"}, "match_rms_adamw"),
        ({"method": "fast"}, "method"),
        ({"stacking": "yes"}, "stacking"),
        ({"dtype": "int8"}, "dtype"),
        ({"adamw_b2": 1.0}, "adamw_b2"),
        ({"adamw_eps": -1.0}, "adamw_eps"),
        ({"adamw_learning_rate": -1.0}, "adamw_learning_rate"),
        ({"adamw_weight_decay": -1.0}, "adamw_weight_decay"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        jt.muon(**({"learning_rate": 1e-3} | arguments))


def test_parameters_that_are_no_matrices_are_named() -> None:
    tx = jt.scale_by_muon()
    g = {"norm": {"scale": jnp.ones(4)}}
    with pytest.raises(ValueError, match=r"'norm/scale'.*no matrix"):
        tx.update(g, tx.init(g))
    with pytest.raises(ValueError, match=r"'norm/scale'.*cannot be"):
        jt.muon(1e-3, routing="muon").init(g)
    with pytest.raises(ValueError, match=r"'norm/scale'.*axis 1"):
        jt.scale_by_matrix_shape(axes=jt.MatrixAxes(0, 1)).init(g)
