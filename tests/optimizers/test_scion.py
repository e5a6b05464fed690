"""Scion against the authors' rule in NumPy, and its laws."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_tour as jt
from tests.agreement import follow
from tests.matrix_references import scion_by_hand, scion_lmo_by_hand

STEPS = 20
RATE = 2.0**-6
#: Keller Jordan's five steps with his eps, as in the authors' code.
KELLER_JORDAN = jt.Orthogonalizer("keller_jordan", eps=1e-7)
MODEL = {
    "embed": {"embedding": (11, 6)},
    "blocks": {"0": {"up": {"kernel": (6, 9), "bias": (9,)}, "norm": {"scale": (6,)}}},
    "lm_head": {"kernel": (6, 11)},
}


def is_shape(node: Any) -> bool:
    return isinstance(node, tuple)


def drawn(seed: int, *steps: int, model: Any = MODEL) -> Any:
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda shape: rng.normal(size=(*steps, *shape)), model, is_leaf=is_shape)


def transposed(x: Any) -> Any:
    """A kernel (in, out) in PyTorch's layout (out, in), and back; a vector as it is."""
    return x if x.ndim == 1 else np.swapaxes(x, -1, -2)


#: By role: the norm of the authors' code, and whether their weight is our parameter transposed.
THEIRS = {
    "embed": ("ColNorm", True, 50.0),
    "up": ("Spectral", True, 50.0),
    "vector": ("BiasRMS", False, 50.0),
    "head": ("Sign", True, 3000.0),
}


def theirs(
    kind: str,
    theta: np.ndarray,
    gradients: np.ndarray,
    scale: float | None = None,
    norm: str | None = None,
    **options: Any,
) -> np.ndarray:
    default, swap, radius = THEIRS[kind]
    if swap:
        theta, gradients = theta.T, gradients.swapaxes(-1, -2)
    normalized = options.pop("normalized", True)
    lmo = scion_lmo_by_hand(norm or default, normalized)
    path = scion_by_hand(theta, gradients, RATE, lmo=lmo, scale=radius if scale is None else scale, **options)
    return path.swapaxes(-1, -2) if swap else path


@pytest.mark.parametrize("constrained", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_agrees_with_the_authors_step_by_step(constrained: bool, x64: None) -> None:
    theta, gradients = drawn(0), drawn(1, STEPS)
    tx = jt.scion(RATE, constrained=constrained, orthogonalizer=KELLER_JORDAN)
    ours = follow(tx, theta, gradients)
    block, block_gradients, ours_of_block = (tree["blocks"]["0"] for tree in (theta, gradients, ours))
    for kind, x, g, path in (
        ("embed", theta["embed"]["embedding"], gradients["embed"]["embedding"], ours["embed"]["embedding"]),
        ("up", block["up"]["kernel"], block_gradients["up"]["kernel"], ours_of_block["up"]["kernel"]),
        ("vector", block["up"]["bias"], block_gradients["up"]["bias"], ours_of_block["up"]["bias"]),
        ("vector", block["norm"]["scale"], block_gradients["norm"]["scale"], ours_of_block["norm"]["scale"]),
        ("head", theta["lm_head"]["kernel"], gradients["lm_head"]["kernel"], ours["lm_head"]["kernel"]),
    ):
        expected = theirs(kind, x, g, unconstrained=not constrained)
        # float64 and radii up to 3000.
        np.testing.assert_allclose(path, expected, rtol=1e-9, atol=1e-9, err_msg=kind)


def test_norms_radii_and_momentum_are_those_that_were_asked_for(x64: None) -> None:
    """The authors' full-sign variant for the input, RowNorm for the output, an MLP's radii, and a short memory."""
    theta, gradients = drawn(0), drawn(1, STEPS)
    tx = jt.scion(
        RATE,
        radius={"matrix": 1.0, "head": 2.0**10, "embedding": 3.0, "vector": 0.5},
        norms={"embedding": "linf", "head": "rms_to_linf"},
        beta=0.5,
        orthogonalizer=KELLER_JORDAN,
    )
    ours = follow(tx, theta, gradients)
    x, g = theta["embed"]["embedding"], gradients["embed"]["embedding"]
    expected = theirs("embed", x, g, 3.0, "Sign", normalized=False, momentum=0.5)
    np.testing.assert_allclose(ours["embed"]["embedding"], expected, rtol=1e-9)
    x, g = theta["lm_head"]["kernel"], gradients["lm_head"]["kernel"]
    np.testing.assert_allclose(
        ours["lm_head"]["kernel"], theirs("head", x, g, 2.0**10, "RowNorm", momentum=0.5), rtol=1e-9
    )
    block, block_gradients, ours_of_block = (tree["blocks"]["0"] for tree in (theta, gradients, ours))
    expected = theirs("up", block["up"]["kernel"], block_gradients["up"]["kernel"], 1.0, momentum=0.5)
    np.testing.assert_allclose(ours_of_block["up"]["kernel"], expected, rtol=1e-9)
    expected = theirs("vector", block["up"]["bias"], block_gradients["up"]["bias"], 0.5, momentum=0.5)
    np.testing.assert_allclose(ours_of_block["up"]["bias"], expected, rtol=1e-9)


@pytest.mark.parametrize("route", ["tied", jt.Route("tied", jt.MatrixAxes(1, 0), "by hand")])
def test_a_tied_table_is_divided_by_the_width_and_not_by_the_vocabulary(route: Any, x64: None) -> None:
    model = {"wte": {"embedding": (11, 6)}}
    theta, gradients = drawn(0, model=model), drawn(1, STEPS, model=model)
    ours = follow(jt.scion(RATE, routing={"wte/embedding": route}), theta, gradients)["wte"]["embedding"]
    # In PyTorch too the weight of a tied head is (vocabulary, width) = (out, in).
    expected = scion_by_hand(
        theta["wte"]["embedding"], gradients["wte"]["embedding"], RATE, lmo=scion_lmo_by_hand("Sign"), scale=3000.0
    )
    np.testing.assert_allclose(ours, expected, rtol=1e-9)


def test_parameters_in_the_ball_stay_there() -> None:
    radius, rate = 2.0, 0.25
    theta = jax.tree.map(lambda x: np.float32(0.01 * x), drawn(0))
    gradients = jax.tree.map(np.float32, drawn(1, 30))
    paths = follow(jt.scion(rate, radius=radius, orthogonalizer="exact", beta=0.0), theta, gradients)
    kernel = np.asarray(paths["blocks"]["0"]["up"]["kernel"])
    gains = np.sqrt(6 / 9) * np.linalg.svd(kernel, compute_uv=False)[:, 0]
    rows = np.sqrt(np.mean(np.square(paths["embed"]["embedding"]), axis=-1))
    entries = 6 * np.abs(np.asarray(paths["lm_head"]["kernel"])).max((1, 2))
    scales = np.sqrt(np.mean(np.square(paths["blocks"]["0"]["norm"]["scale"]), axis=-1))
    for norms in (gains, rows, entries, scales):
        assert norms.max() <= radius * (1 + 1e-5)
        assert norms.max() > 0.5 * radius  # it moved


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"radius": -1.0}, "radius must be a number >= 0"),
        ({"radius": {"matrix": "large"}}, r"radius\['matrix'\] must be a number"),
        ({"radius": {"matrx": 1.0}}, "radius must have keys among.*did you mean 'matrix'"),
        ({"norms": {"head": "sign"}}, r"norms\['head'\] must be one of"),
        ({"norms": {"hed": "linf"}}, "norms must have keys among.*did you mean 'head'"),
    ],
)
def test_a_wrong_argument_is_named(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        jt.scion(0.1, **arguments)


def test_a_vector_with_a_norm_of_matrices_is_named() -> None:
    params = {"blocks": {"0": {"up": {"kernel": jnp.ones((4, 6)), "bias": jnp.ones(6)}}}}
    tx = jt.scion(0.1, norms={"other": "row"})
    with pytest.raises(ValueError, match=r"'blocks/0/up/bias'.*no matrix"):
        tx.update(params, tx.init(params), params)
