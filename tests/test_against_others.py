"""Agreement with PyTorch libraries on one linear regression. `golden/make_after_muon_golden.py` says which.

The code of the authors of Muown, Dion2 and MuSGD is in `golden/make_authors_golden.py`.

SOAP meets others on given gradients: see `golden/make_soap_golden.py`.
"""

from __future__ import annotations

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_tour as jt
from tests import documents

FOLDER = pathlib.Path(__file__).with_name("golden")
PROBLEM = np.load(FOLDER / "torch.npz", allow_pickle=False)
GOLDEN = np.load(FOLDER / "after_muon.npz", allow_pickle=False)
AUTHORS = np.load(FOLDER / "authors.npz", allow_pickle=False)
SOAP = np.load(FOLDER / "soap.npz", allow_pickle=False)
RATE = 0.02
STEPS = (1, 20, 50)
AXES = jt.MatrixAxes(fan_in=1, fan_out=0)  # PyTorch's weights are (out, in)
KELLER_JORDAN = jt.Orthogonalizer("keller_jordan", eps=1e-7)

OURS = {
    "lion": jt.lion(RATE, weight_decay=0.1),
    "normuon": jt.normuon(
        RATE,
        weight_decay=0.1,
        along="outputs",
        orthogonalizer=KELLER_JORDAN,
        shape_factor="original",
        routing=AXES,
    ),
    "normuon_paper": optax.chain(
        jt.scale_by_muon(orthogonalizer=KELLER_JORDAN, axes=AXES),
        jt.scale_by_normuon(along="outputs", axes=AXES),
        jt.normalize_frobenius(axes=AXES),
        jt.scale_by_matrix_shape("match_rms_adamw", axes=AXES),
        jt.add_decayed_weights(0.1),
        optax.scale_by_learning_rate(RATE),
    ),
    "hyperball": optax.chain(
        jt.scale_by_rmsprop(beta=0.95, eps=1e-8, bias_correction=True), jt.hyperball(RATE, axes=AXES)
    ),
}
# Measured after 50 steps: 1e-15; 4e-8 and 9e-8, since eps is added to another norm there too; 8e-6, float32's.
TOLERANCES = {"lion": 1e-12, "normuon": 1e-6, "normuon_paper": 1e-6, "hyperball": 5e-5}


def regression(tx: optax.GradientTransformationExtraArgs, transposed: bool = False) -> jax.Array:
    """The rows kept of the weight after every step; with `transposed` the optimizer sees a kernel (in, out)."""
    x, y, weight = (jnp.asarray(PROBLEM[key]) for key in ("x", "y", "W"))

    def step(carry, _):
        weight, state = carry
        gradient = jax.grad(lambda w: jnp.mean((x @ (w if transposed else w.T) - y) ** 2))(weight)
        updates, state = tx.update(gradient, state, weight)
        weight = optax.apply_updates(weight, updates)
        return (weight, state), (weight.T if transposed else weight)[::4]

    weight = weight.T if transposed else weight
    return jax.jit(lambda carry: jax.lax.scan(step, carry, length=max(STEPS))[1])((weight, tx.init(weight)))


@pytest.mark.parametrize("name", OURS)
def test_walks_the_path_of_another_library(name: str, x64: None) -> None:
    path = regression(OURS[name])
    for t in STEPS:
        np.testing.assert_allclose(path[t - 1], GOLDEN[f"{name}/{t}"], rtol=0, atol=TOLERANCES[name], err_msg=str(t))


@pytest.mark.slow
def test_muown_walks_the_path_of_its_authors(x64: None) -> None:
    path = regression(jt.muown(RATE, orthogonalizer="exact", routing=AXES))
    for t in STEPS:
        # Measured: 2e-15 after 50 steps.
        np.testing.assert_allclose(path[t - 1], AUTHORS[f"muown/{t}"], rtol=0, atol=1e-11, err_msg=str(t))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dion2", "dion2_wide"])
def test_dion2_walks_the_path_of_its_authors(name: str, x64: None) -> None:
    tx = jt.dion2(RATE, weight_decay=0, decay=0.9375, orthogonalizer="exact", shape_factor="spectral", routing=AXES)
    path = regression(tx, transposed=name == "dion2_wide")
    for t in STEPS:
        # Measured after 50 steps: 1e-8. Its learning rate is a float32.
        np.testing.assert_allclose(path[t - 1], AUTHORS[f"{name}/{t}"], rtol=0, atol=1e-6, err_msg=str(t))


@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_musgd_of_the_recipes_walks_the_path_of_its_authors(decay: float, x64: None) -> None:
    (snippet,) = documents.snippets(documents.sections("docs/recipes.md")["Muon and SGD at once"])
    names = {"jt": jt, "optax": optax}
    documents.execute(snippet.code.partition("only_sgd =")[0], "recipes", names)
    path = regression(names["musgd"](RATE, l2=decay, routing=AXES))
    name = "musgd_decay" if decay else "musgd"
    for t in STEPS:
        # Measured after 50 steps: 2e-15, and 1e-4 with decay, for which it takes the weights after Muon's step.
        tolerance = 5e-4 if decay else 1e-11
        np.testing.assert_allclose(path[t - 1], AUTHORS[f"{name}/{t}"], rtol=0, atol=tolerance, err_msg=str(t))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["authors", "authors_one_sided", "pytorch_optimizer"])
def test_soap_makes_the_steps_of_other_libraries(name: str, x64: None) -> None:
    one_sided = name == "authors_one_sided"
    gradients = jnp.asarray(SOAP["wide" if one_sided else "square"])
    tx = optax.chain(
        jt.scale_by_soap(0.9, 0.95, update_every=3, max_size=7 if one_sided else None, first_update="zero", axes=AXES),
        optax.scale(-RATE),
    )
    steps = jax.jit(lambda gs: jax.lax.scan(lambda state, g: tx.update(g, state)[::-1], tx.init(gs[0]), gs)[1])
    path = np.cumsum(steps(gradients), axis=0)
    for t in (2, 20, 50):
        # Measured: 5e-8, all of it from the second step. They add eps before they correct the second moment.
        np.testing.assert_allclose(path[t - 1], SOAP[f"{name}/{t}"], rtol=0, atol=2e-7, err_msg=str(t))
