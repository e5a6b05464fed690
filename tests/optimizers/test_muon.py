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
from tests.agreement import STEPS, follow
from tests.matrix_references import (
    muon_by_hand,
    polar_by_hand,
)
from tests.references import adam_by_hand

SHAPES = [(5, 5), (3, 8), (9, 4)]
KELLER_JORDAN = jt.Orthogonalizer("keller_jordan", eps=1e-7)


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
        weight_decay=0.1,
        orthogonalizer=KELLER_JORDAN,
        shape_factor=shape_factor,
        nesterov=nesterov,
        bias_correction=bias_correction,
        routing="matrix",
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
    tx = jt.muon(0.02, weight_decay=0.0, orthogonalizer="exact", routing="matrix")
    expected = muon_by_hand(theta, gradients, 0.02, orthogonalize=polar_by_hand, shape_factor="match_rms_adamw")
    np.testing.assert_allclose(follow(tx, theta, gradients), expected, rtol=1e-9, atol=1e-9)


# What the parameters that are not Muon's get.

MODEL = {
    "up": {"kernel": (4, 6), "bias": (6,)},
    "wte": {"embedding": (7, 4)},
    "lm_head": {"kernel": (4, 7)},
}


def model_problem() -> tuple[dict[str, Any], dict[str, Any]]:
    rng = np.random.default_rng(1)
    is_shape = lambda node: isinstance(node, tuple)  # noqa: E731
    theta = jax.tree.map(lambda shape: rng.normal(size=shape), MODEL, is_leaf=is_shape)
    return theta, jax.tree.map(lambda leaf: rng.normal(size=(STEPS, *leaf.shape)), theta)


def test_by_default_the_rest_goes_to_adamw_at_the_same_rate_and_decay(x64: None) -> None:
    theta, gradients = model_problem()
    tx = jt.muon(0.02, weight_decay=0.1, orthogonalizer=KELLER_JORDAN)
    ours = follow(tx, theta, gradients)
    np.testing.assert_allclose(
        ours["up"]["kernel"],
        muon_by_hand(theta["up"]["kernel"], gradients["up"]["kernel"], 0.02, lam=0.1, shape_factor="match_rms_adamw"),
        rtol=1e-9,
    )
    for outer, inner in (("wte", "embedding"), ("lm_head", "kernel"), ("up", "bias")):
        expected = adam_by_hand(
            theta[outer][inner], gradients[outer][inner], 0.02, b1=0.9, b2=0.95, eps=1e-8, decoupled=0.1
        )
        np.testing.assert_allclose(ours[outer][inner], expected, rtol=1e-9, atol=1e-12)


def test_the_rest_may_be_one_transformation(x64: None) -> None:
    theta, gradients = model_problem()
    tx = jt.muon(0.02, weight_decay=0.1, orthogonalizer=KELLER_JORDAN, rest=jt.adamw(1e-3, b2=0.95, weight_decay=0.3))
    ours = follow(tx, theta, gradients)
    by_default = follow(jt.muon(0.02, weight_decay=0.1, orthogonalizer=KELLER_JORDAN), theta, gradients)
    np.testing.assert_array_equal(ours["up"]["kernel"], by_default["up"]["kernel"])
    for outer, inner in (("wte", "embedding"), ("lm_head", "kernel"), ("up", "bias")):
        expected = adam_by_hand(
            theta[outer][inner], gradients[outer][inner], 1e-3, b1=0.9, b2=0.95, eps=1e-8, decoupled=0.3
        )
        np.testing.assert_allclose(ours[outer][inner], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("optimizer", [jt.muon, jt.shampoo])
def test_the_rest_may_be_given_by_role(optimizer: Any) -> None:
    params = jax.tree.map(jnp.asarray, model_problem()[0])
    roles = {"wte": "embedding", "lm_head": "head", "up": "vector"}

    def first_updates(rest: Any) -> Any:
        tx = optimizer(0.02, weight_decay=0.0, rest=rest)
        return jax.jit(lambda params: tx.update(params, tx.init(params), params)[0])(params)

    rates = {"embedding": 1.0, "head": 2.0, "other": 3.0}
    updates = first_updates({role: optax.sgd(rate) for role, rate in rates.items()})
    by_default = first_updates(None)
    np.testing.assert_array_equal(updates["up"]["kernel"], by_default["up"]["kernel"])
    for outer, inner in (("wte", "embedding"), ("lm_head", "kernel"), ("up", "bias")):
        rate = rates.get(roles[outer], rates["other"])
        np.testing.assert_allclose(updates[outer][inner], -rate * params[outer][inner], rtol=1e-6)
    # Without "other", roles that are not named go to AdamW.
    some = first_updates({"head": optax.sgd(2.0)})
    np.testing.assert_allclose(some["lm_head"]["kernel"], -2 * params["lm_head"]["kernel"], rtol=1e-6)
    for outer, inner in (("wte", "embedding"), ("up", "bias")):
        np.testing.assert_array_equal(some[outer][inner], by_default[outer][inner])


@pytest.mark.parametrize("optimizer", [jt.muon, jt.shampoo])
@pytest.mark.parametrize(
    ("rest", "named"),
    [
        ({"heads": jt.adamw(1e-3)}, r"rest must have keys among .*'embedding'.*'head'.*'other'.*got 'heads'"),
        ({"matrix": jt.adamw(1e-3)}, r"rest must have keys among .*got 'matrix'"),
        ({"head": 1e-3}, r"rest must be None, an optax.GradientTransformation, or one by role; got 0.001 for 'head'"),
        ({"head": None}, r"rest must be .*got None for 'head'"),
        (3, "rest must be None"),
        ("adamw", "rest must be None"),
        (jt.adamw, "rest must be None"),
    ],
    ids=["role", "matrix", "number by role", "None by role", "number", "name", "function"],
)
def test_a_wrong_rest_is_named(optimizer: Any, rest: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        optimizer(1e-3, rest=rest)


def test_what_is_frozen_stays() -> None:
    params = jax.tree.map(jnp.asarray, model_problem()[0])
    tx = jt.muon(0.02, weight_decay=0.1, routing={"up/kernel": "frozen", "wte": "frozen"})
    updates, _ = tx.update(params, tx.init(params), params)
    assert not np.any(updates["up"]["kernel"]) and not np.any(updates["wte"]["embedding"])
    assert np.any(updates["up"]["bias"]) and np.any(updates["lm_head"]["kernel"])


@pytest.mark.parametrize("optimizer", [jt.muon, jt.shampoo])
def test_everything_after_the_rate_is_given_by_name(optimizer: Any) -> None:
    with pytest.raises(TypeError, match="positional"):
        optimizer(3e-4, 0.9)


@pytest.mark.parametrize("optimizer", [jt.muon, jt.shampoo])
def test_a_mask_says_what_decays(optimizer: Any) -> None:
    params = jax.tree.map(jnp.asarray, model_problem()[0])
    zeros = jax.tree.map(jnp.zeros_like, params)
    mask = {"up": {"kernel": True, "bias": False}, "wte": False, "lm_head": True}
    for tree_or_function in (mask, lambda _: mask):
        tx = optimizer(0.5, weight_decay=0.1, mask=tree_or_function)
        updates, _ = jax.jit(tx.update)(zeros, tx.init(params), params)
        for outer, inner, decays in (
            ("up", "kernel", True),
            ("up", "bias", False),
            ("wte", "embedding", False),
            ("lm_head", "kernel", True),
        ):
            expected = -0.05 * params[outer][inner] if decays else zeros[outer][inner]
            np.testing.assert_allclose(updates[outer][inner], expected, rtol=1e-6, err_msg=f"{outer}/{inner}")


@given(shape=st.sampled_from(SHAPES), seed=st.integers(0, 999))
def test_orthogonal_equivariance(shape: tuple[int, int], seed: int) -> None:
    """Rotating inputs and outputs of a layer rotates Muon's update; AdamW's has no such law."""
    rng = np.random.default_rng(seed)
    g = rng.normal(size=shape).astype(np.float32)
    u, v = (np.linalg.qr(rng.normal(size=(k, k)))[0].astype(np.float32) for k in shape)
    plain, turned = (first_update(jt.muon(1.0, weight_decay=0.0, routing="matrix"), x) for x in (g, u @ g @ v))
    # The spectrum of a Gaussian matrix this small can hold a singular value of 1e-3, whose image is steep: rounding of
    # 1e-7 grows by at most 5^5.
    np.testing.assert_allclose(turned, u @ plain @ v, atol=5e-3)


@given(seed=st.integers(0, 999), exponent=st.integers(-60, 60))
def test_loss_scale_invariance(seed: int, exponent: int) -> None:
    g = np.random.default_rng(seed).normal(size=(4, 6)).astype(np.float32)
    tx = jt.muon(1.0, weight_decay=0.0, routing="matrix")
    np.testing.assert_array_equal(first_update(tx, g), first_update(tx, np.ldexp(g, exponent)))


@given(shape=st.sampled_from([*SHAPES, (1, 4)]), seed=st.integers(0, 999))
def test_the_update_goes_downhill(shape: tuple[int, int], seed: int) -> None:
    """`<update, gradient> < 0` at the first step: minus the nuclear norm, nearly."""
    g = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    assert np.sum(first_update(jt.muon(1.0, weight_decay=0.0, routing="matrix"), g) * g) < 0


def first_update(tx: optax.GradientTransformation, g: np.ndarray) -> np.ndarray:
    theta = jnp.zeros_like(g)
    return np.asarray(tx.update(jnp.asarray(g), tx.init(theta), theta)[0])


def test_root_mean_square_of_the_update_is_that_of_the_docstring() -> None:
    """0.2 eta at full rank under match_rms_adamw; the default coefficients are within five percent of orthogonal."""
    g = np.random.default_rng(3).normal(size=(32, 96)).astype(np.float32)
    u = first_update(jt.muon(1e-2, weight_decay=0.0, routing="matrix"), g)
    np.testing.assert_allclose(np.sqrt(np.mean(u**2)), 0.2e-2, rtol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("grouping", ["auto", "by_shape", "none"])
def test_grouping_changes_nothing(grouping: str) -> None:
    rng = np.random.default_rng(4)
    shapes = {"a": (6, 9), "b": (9, 6), "c": (6, 9), "d": (4, 4), "e": (2, 3, 6, 9)}
    g = {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
    axes = {"e": jt.MatrixAxes(2, 3)}
    tx = jt.orthogonalize_via_newton_schulz(jt.Orthogonalizer(grouping=grouping), axes=axes)
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
        ({"orthogonalizer": "kellerjordan"}, "orthogonalizer.*keller_jordan"),
        ({"shape_factor": "moonshot"}, "match_rms_adamw"),
        ({"nesterov": "yes"}, "nesterov"),
        ({"bias_correction": 3}, "bias_correction"),
        ({"cautious": "yes"}, "cautious"),
        ({"mask": True}, "mask"),
        ({"rest": jt.adamw}, "rest"),
        ({"mesh": ()}, "mesh"),
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
        jt.muon(1e-3, routing="matrix").init(g)
    with pytest.raises(ValueError, match=r"'norm/scale'.*axis 1"):
        jt.scale_by_matrix_shape(axes=jt.MatrixAxes(0, 1)).init(g)
