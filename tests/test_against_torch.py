"""Agreement with torch.optim on one linear regression. `golden/make_torch_golden.py` says what is in the arrays."""

from __future__ import annotations

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_tour as jt

GOLDEN = np.load(pathlib.Path(__file__).with_name("golden") / "torch.npz", allow_pickle=False)
RATE = 0.02
STEPS = (1, 20, 200)

# Our call for each of torch's; where a default differs it is written out.
ELEMENTWISE = {
    "sgd": jt.sgd(RATE),
    "sgd_weight_decay": jt.sgd(RATE, l2=0.1),
    "momentum": jt.momentum(RATE, beta=0.9),
    "momentum_weight_decay": jt.momentum(RATE, beta=0.9, l2=0.1),
    "nesterov": jt.nesterov(RATE, beta=0.9),
    "adagrad": jt.adagrad(RATE),
    "adadelta": jt.adadelta(RATE),
    "rmsprop": jt.rmsprop(RATE, beta=0.99),
    "rmsprop_centered": jt.rmsprop(RATE, beta=0.99, centered=True),
    "rmsprop_momentum": jt.rmsprop(RATE, beta=0.99, momentum=0.9),
    "rmsprop_slow": jt.rmsprop(0.002, beta=0.99),
    "rmsprop_centered_slow": jt.rmsprop(0.002, beta=0.99, centered=True),
    "adam": jt.adam(RATE),
    "adam_weight_decay": jt.adam(RATE, l2=0.1),
    "adamw": jt.adamw(RATE, weight_decay=0.1),
}


def train(tx: optax.GradientTransformation, dtype: str) -> dict[int, np.ndarray]:
    """Every fourth row of W, (out, in) as PyTorch has it, after each of `STEPS`."""
    x, y = (jnp.asarray(GOLDEN[name], dtype) for name in ("x", "y"))

    def step(carry, _):
        weight, state = carry
        gradient = jax.grad(lambda w: jnp.mean((x @ w.T - y) ** 2))(weight)
        updates, state = tx.update(gradient, state, weight)
        weight = optax.apply_updates(weight, updates)
        return (weight, state), weight[::4]

    weight = jnp.asarray(GOLDEN["W"], dtype)
    _, weights = jax.jit(lambda carry: jax.lax.scan(step, carry, length=max(STEPS)))((weight, tx.init(weight)))
    assert weights.dtype == dtype
    return {t: np.asarray(weights[t - 1]) for t in STEPS}


# At a rate of 0.02 plain and centered RMSProp come to oscillate: moving W by 1e-14 at the start moves it by 0.1 after
# 200 steps (measured), whoever runs it. They are compared over 20 steps, and over all 200 at a tenth of the rate.
CHAOTIC = {"rmsprop", "rmsprop_centered"}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_rules_agree_in_float64(name, x64):
    # Measured: 5e-15 at most. The order of summation may differ on other machines, and Adam-like rules divide by a
    # small sqrt(v), so 1e-10 leaves room; a change of any constant in its tenth digit would show.
    for t, weight in train(ELEMENTWISE[name], "float64").items():
        if not (name in CHAOTIC and t == 200):
            np.testing.assert_allclose(weight, GOLDEN[f"{name}/{t}"], rtol=0, atol=1e-10, err_msg=f"after {t} steps")


# torch keeps W as (out, in). Its iteration is Keller Jordan's, its momentum an average without bias correction.


def muon(**arguments):
    dtype = arguments.pop("dtype", None)
    return jt.muon(
        RATE,
        beta=0.95,
        orthogonalizer=jt.Orthogonalizer("keller_jordan", dtype=dtype),
        routing=jt.MatrixAxes(fan_in=1, fan_out=0),
        **arguments,
    )


MUON = {
    "muon_original": {"shape_factor": "original", "weight_decay": 0.1},
    "muon_match_rms_adamw": {"shape_factor": "match_rms_adamw", "weight_decay": 0.1},
    "muon_without_nesterov": {"shape_factor": "original", "weight_decay": 0.0, "nesterov": False},
}


# 16 samples give gradients of rank 16, so 16 of the 32 singular values that Newton-Schulz sees are rounding errors,
# which five steps of slope 3.44 lift by a factor of 485. The tolerances are those errors, lifted, times the length of a
# step.


@pytest.mark.parametrize("name", MUON)
def test_muon_agrees_in_float64(name, x64):
    # Measured: 2e-15 after one step, 3e-14 after 200.
    for t, weight in train(muon(**MUON[name]), "float64").items():
        np.testing.assert_allclose(
            weight, GOLDEN[f"{name}/float64/{t}"], rtol=0, atol=1e-11, err_msg=f"after {t} steps"
        )


@pytest.mark.parametrize("name", MUON)
def test_muon_agrees_in_float32(name):
    # 485 x 6e-8 of a step of 0.03 are 1e-6; measured: 1.4e-6 after one step, 5e-6 and 2e-5 after 20 and 200.
    for t, weight in train(muon(**MUON[name]), "float32").items():
        atol = {1: 5e-6, 20: 2e-5, 200: 1e-4}[t]
        np.testing.assert_allclose(weight, GOLDEN[f"{name}/float32/{t}"], rtol=0, atol=atol, err_msg=f"after {t} steps")


@pytest.mark.parametrize("name", MUON)
def test_muon_agrees_in_bfloat16(name):
    # bfloat16 is good for 1 part in 256, and the rounding errors that it lifts are its own: a step of either side has a
    # random part of 2.5 % of the rate (root mean square, PyTorch's against its own float64), so the two differ by
    # 3.5 %, and after 20 steps by something between 20^(1/2) and 20 times that. Measured: 3.3 % and 25 %.
    weights = train(muon(dtype="bfloat16", **MUON[name]), "float32")
    for t, tolerance in ((1, 0.04), (20, 0.35)):
        difference = np.sqrt(np.mean((weights[t] - GOLDEN[f"{name}/bfloat16/{t}"]) ** 2)) / RATE
        assert difference < tolerance, f"{difference} of the rate after {t} steps"
