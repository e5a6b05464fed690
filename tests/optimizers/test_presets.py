"""Every preset walks the path of its source's rule and numbers, written down again here, for every parameter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_tour as jt
from tests.agreement import follow
from tests.matrix_references import (
    hyperball_by_hand,
    muon_by_hand,
    newton_schulz_by_hand,
)
from tests.published_muons import whole_nanochat_muon_by_hand
from tests.references import adam_by_hand

STEPS = 4
SHAPES = {
    "embed": {"embedding": (11, 6)},
    "blocks": {"0": {"up": {"kernel": (6, 9), "bias": (9,)}, "down": {"kernel": (9, 6)}, "norm": {"scale": (6,)}}},
    "lm_head": {"kernel": (6, 11)},
}
MATRICES = ("blocks/0/up/kernel", "blocks/0/down/kernel")
VECTORS = ("blocks/0/up/bias", "blocks/0/norm/scale")
KELLER_JORDAN = ((3.4445, -4.7750, 2.0315),) * 5
EXPRESS = (
    (8.2051, -22.9019, 16.4607),
    (4.0664, -2.8612, 0.5184),
    (3.9096, -2.8234, 0.5250),
    (3.2856, -2.4153, 0.4853),
    (2.2779, -1.6198, 0.3985),
    (1.8726, -1.2307, 0.3585),
    (1.8564, -1.2132, 0.3568),
    *((1.8750, -1.2500, 0.3750),) * 9,
)

Reference = Callable[[np.ndarray, np.ndarray], np.ndarray]


def drawn(seed: int, *steps: int) -> Any:
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: rng.normal(size=(*steps, *shape)), SHAPES, is_leaf=lambda node: isinstance(node, tuple)
    )


def named(tree: Any) -> dict[str, np.ndarray]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def adamw(lr: float, b1: float, b2: float, eps: float, decay: float) -> Reference:
    return lambda theta, g: adam_by_hand(theta, g, lr, b1, b2, eps, decoupled=decay)


def muon(lr: float, decay: float, factor: str, coefficients: Any, **options: Any) -> Reference:
    return lambda theta, g: muon_by_hand(
        theta, g, lr, lam=decay, shape_factor=factor, coefficients=coefficients, **options
    )


def nanochat_matrix(theta: np.ndarray, g: np.ndarray) -> np.ndarray:
    path = whole_nanochat_muon_by_hand(theta.T, g.swapaxes(-1, -2), 0.02, momentum=0.95, beta2=0.9, wd=0.28)
    return path.swapaxes(-1, -2)


def clipped(groups: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The gradients of a group, of which those of every step together have norm at most 1."""
    norms = np.sqrt(sum(np.sum(g.reshape(STEPS, -1) ** 2, axis=1) for g in groups.values()))
    return {name: g / np.maximum(norms, 1).reshape(STEPS, *[1] * (g.ndim - 1)) for name, g in groups.items()}


def marin(theta: dict[str, np.ndarray], g: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Levanter's MuonH: momentum as a sum, and three groups that are clipped each for itself."""
    paths = {}
    for name, gradients in clipped({name: g[name] for name in MATRICES}).items():
        m, directions = 0.0, []
        for gradient in gradients:
            m = 0.95 * m + gradient
            directions.append(newton_schulz_by_hand(0.95 * m + gradient, KELLER_JORDAN, 1e-8))
        paths[name] = hyperball_by_hand(theta[name], directions, 0.02)
    (gradients,) = clipped({"head": g["lm_head/kernel"]}).values()
    zero = np.zeros_like(theta["lm_head/kernel"])
    steps = -np.diff(adam_by_hand(zero, gradients, 1.0, 0.9, 0.95, 1e-8), axis=0, prepend=zero[None])
    paths["lm_head/kernel"] = hyperball_by_hand(theta["lm_head/kernel"], steps, 0.02)
    for name, gradients in clipped({name: g[name] for name in (*VECTORS, "embed/embedding")}).items():
        paths[name] = adam_by_hand(theta[name], gradients, 6e-4, 0.9, 0.95, 1e-8)
    return paths


#: At default arguments: matrices, embedding, head, vectors.
ROLES: dict[str, tuple[Reference, Reference, Reference, Reference]] = {
    "nanochat": (
        nanochat_matrix,
        adamw(0.3, 0.8, 0.995, 1e-10, 0.001),
        adamw(0.008, 0.8, 0.96, 1e-10, 0.01),
        adamw(0.5 * 0.01, 0.8, 0.95, 1e-10, 0.05),
    ),
    "modded_nanogpt": (
        muon(0.025, 0.05, "original", ((2, -1.5, 0.5),) * 12, eps=1e-7),
        adamw(0.7, 0.8, 0.95, 1e-10, 0.001),
        adamw(0.004, 0.8, 0.95, 1e-10, 0.001),
        adamw(0.015, 0.8, 0.95, 1e-10, 0.001),
    ),
    "moonlight": (
        muon(1e-3, 0.1, "match_rms_adamw", KELLER_JORDAN, eps=1e-7, form="sum"),
        *(adamw(1e-3, 0.9, 0.95, 1e-8, 0.1),) * 3,
    ),
    "nvidia": (
        muon(3e-4, 0.1, "match_rms_adamw", EXPRESS, eps=1e-15, guard="max", beta=0.9, nesterov=False),
        *(adamw(3e-4, 0.9, 0.95, 1e-8, 0.1),) * 3,
    ),
}


def expected_paths(preset: str, theta: dict[str, np.ndarray], g: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if preset == "marin":
        return marin(theta, g)
    matrix, embedding, head, vector = ROLES[preset]
    rules = {"embed/embedding": embedding, "lm_head/kernel": head}
    rules |= dict.fromkeys(MATRICES, matrix) | dict.fromkeys(VECTORS, vector)
    return {name: rules[name](theta[name], g[name]) for name in theta}


def few_are_fast(*presets: str) -> pytest.MarkDecorator:
    """Compiling several roles takes seconds a preset."""
    fast = ("modded_nanogpt", "moonlight")
    return pytest.mark.parametrize(
        "preset", [pytest.param(name, marks=() if name in fast else pytest.mark.slow) for name in presets]
    )


# Where rows of equal norm differ: eps, which the source adds in other units.
TOLERANCES = {"nanochat": 1e-6, "marin": 1e-6}


@few_are_fast(*ROLES, "marin")
def test_every_parameter_walks_the_path_of_the_source(preset: str, x64: None) -> None:
    theta, gradients = drawn(0), drawn(1, STEPS)
    expected = expected_paths(preset, named(theta), named(gradients))
    make = getattr(jt.presets, preset)
    ours = named(follow(make(lambda count: 0.02) if preset == "marin" else make(), theta, gradients))
    assert set(ours) == set(expected)
    for name, path in ours.items():
        tolerance = TOLERANCES.get(preset, 1e-9)
        np.testing.assert_allclose(path, expected[name], rtol=tolerance, atol=tolerance, err_msg=name)


@few_are_fast(*ROLES)
def test_the_decay_of_every_parameter_is_that_of_the_source(preset: str, x64: None) -> None:
    """The difference that the weights make to one step: rate times decay, of which the path above has little.

    The rate is given as a schedule, which all roles must follow.
    """
    gradients, zeros = drawn(1, 1), jax.tree.map(lambda x: 0 * x, drawn(0))
    # Updates of the sign of the weights, so that cautious decay decays.
    weights = jax.tree.map(lambda g: np.sign(g[0]), gradients)
    rate = {"nanochat": 0.02, "modded_nanogpt": 0.025, "moonlight": 1e-3, "nvidia": 3e-4}[preset]
    tx = getattr(jt.presets, preset)(lambda count: rate + count)
    first = jax.tree.map(lambda g: jnp.asarray(g[0]), gradients)
    update = jax.jit(lambda x: tx.update(first, tx.init(x), x)[0])
    moved, still = (named(update(jax.tree.map(jnp.asarray, x))) for x in (weights, zeros))
    matrix, embedding, head, vector = {
        "nanochat": (0.02 * 0.28, 0.3 * 0.001, 0.008 * 0.01, 0.005 * 0.05),
        "modded_nanogpt": (0.025 * 0.05, 0.7 * 0.001, 0.004 * 0.001, 0.015 * 0.001),
        "moonlight": (1e-4,) * 4,
        "nvidia": (3e-5,) * 4,
    }[preset]
    shares = {"embed/embedding": embedding, "lm_head/kernel": head}
    shares |= dict.fromkeys(MATRICES, matrix) | dict.fromkeys(VECTORS, vector)
    if preset == "nanochat":
        shares["blocks/0/up/kernel"] *= np.sqrt(9 / 6)  # the shape factor multiplies it
    for name, weight in named(weights).items():
        decayed = (still[name] - moved[name]) / weight
        wanted = np.full_like(weight, shares[name])
        if preset == "nanochat" and name in MATRICES:
            wanted *= still[name] * weight < 0  # cautious
            assert wanted.any()
        np.testing.assert_allclose(decayed, wanted, rtol=1e-6, atol=1e-12, err_msg=name)


def one_update(tx: Any, gradients: Any, params: Any) -> Any:
    return jax.jit(lambda g, p: tx.update(g, tx.init(p), p)[0])(gradients, params)


def without_matrices(tree: Any) -> Any:
    """Less to compile."""
    return jax.tree.map(jnp.float32, {"embed": tree["embed"], "norm": tree["blocks"]["0"]["norm"]})


def test_nanochat_scales_embedding_and_head_with_the_width() -> None:
    gradients = without_matrices(drawn(1)) | {"lm_head": {"kernel": jnp.float32(drawn(1)["lm_head"]["kernel"])}}
    zeros = jax.tree.map(jnp.zeros_like, gradients)
    narrow, wide = (named(one_update(jt.presets.nanochat(width=w), gradients, zeros)) for w in (768, 3072))
    for name, u in narrow.items():
        factor = 1.0 if name == "norm/scale" else 0.5
        np.testing.assert_allclose(wide[name], factor * u, rtol=1e-5, err_msg=name)


def test_a_preset_prints_the_rate_of_every_role() -> None:
    lines = str(jt.presets.modded_nanogpt()).splitlines()
    assert "f411b3d" in lines[0]
    rates = {line.split("  ")[0]: line for line in lines[4:]}
    for role, rate, decay in (
        ("matrix", " 0.025 ", " 0.05 "),
        ("embedding", " 0.7 ", " 0.001 "),
        ("head, tied", " 0.004 ", " 0.001 "),
        ("other", " 0.015 ", " 0.001 "),
    ):
        assert rate in rates[role] and decay in rates[role]
    text = str(jt.presets.nanochat(lambda count: 0.02, weight_decay=lambda count: 0.1))
    assert "15 learning_rate" in text and "schedule" in text


def test_a_preset_is_a_transformation_like_any_other() -> None:
    params, gradients = (without_matrices(drawn(seed)) for seed in (0, 1))
    preset = jt.presets.moonlight(1e-3)
    init, update = preset
    assert init is preset.init and update is preset.update
    doubled = one_update(preset, jax.tree.map(lambda g: 2 * g, gradients), params)
    chained = one_update(optax.chain(optax.scale(2.0), preset), gradients, params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), chained, doubled)


@pytest.mark.parametrize("preset", [*ROLES, "marin"])
def test_a_wrong_rate_is_named(preset: str) -> None:
    with pytest.raises(ValueError, match="learning_rate"):
        getattr(jt.presets, preset)(-1.0)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: jt.presets.nanochat(width=0), "width"),
        (lambda: jt.presets.nanochat(beta=1.0), "beta"),
        (lambda: jt.presets.nanochat(weight_decay=-1.0), "weight_decay"),
        (lambda: jt.presets.moonlight(weight_decay=-1.0), "weight_decay"),
        (lambda: jt.presets.marin(max_norm=-1.0), "max_norm"),
        (lambda: jt.presets.nvidia(mesh=()), "mesh"),
    ],
)
def test_a_wrong_argument_is_named(make: Callable[[], Any], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        make()
