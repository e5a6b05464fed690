"""The same path as Optax, for every rule that Optax has, in float64.

Where the definitions differ, the case says what makes them meet.
"""

from __future__ import annotations

import jax
import numpy as np
import optax
import pytest

from agreement import follow, replay
from jaxopt_tour.optimizers.adadelta import adadelta
from jaxopt_tour.optimizers.adagrad import adagrad
from jaxopt_tour.optimizers.adam import adam, adamw
from jaxopt_tour.optimizers.momentum import momentum, nesterov, scale_by_momentum
from jaxopt_tour.optimizers.rmsprop import rmsprop
from jaxopt_tour.optimizers.sgd import sgd
from jaxopt_tour.optimizers.sign import signsgd, signum
from jaxopt_tour.optimizers.weight_decay import add_decayed_weights

RATE = 0.02
SCHEDULE = optax.warmup_cosine_decay_schedule(0.0, RATE, 5, 50)


def matrices_only(params):
    return jax.tree.map(lambda p: p.ndim > 1, params)


def debiased_ema(decay):
    return optax.chain(optax.ema(decay, debias=True), optax.scale(-RATE))


CASES = {
    "sgd": (sgd(RATE), optax.sgd(RATE)),
    "sgd schedule": (sgd(SCHEDULE), optax.sgd(SCHEDULE)),
    "sgd l2": (
        sgd(RATE, l2=0.1, mask=matrices_only),
        optax.chain(optax.add_decayed_weights(0.1, matrices_only), optax.sgd(RATE)),
    ),
    "momentum": (momentum(RATE, beta=0.8), optax.sgd(RATE, 0.8)),
    "nesterov": (nesterov(RATE, beta=0.8), optax.sgd(RATE, 0.8, nesterov=True)),
    "momentum ema": (
        momentum(RATE, beta=0.8, form="ema"),
        optax.chain(optax.ema(0.8, debias=False), optax.scale(-RATE)),
    ),
    "momentum ema corrected": (
        optax.chain(scale_by_momentum(0.8, form="ema", bias_correction=True), optax.scale(-RATE)),
        debiased_ema(0.8),
    ),
    # Optax has eps inside the root and starts the sum at 0.1; without eps and with the same start they are one rule.
    "adagrad": (
        adagrad(RATE, eps=0.0, initial_accumulator=0.1),
        optax.adagrad(RATE, initial_accumulator_value=0.1, eps=0.0),
    ),
    "adagrad from zero": (adagrad(RATE, eps=0.0), optax.adagrad(RATE, initial_accumulator_value=0.0, eps=0.0)),
    "adadelta": (adadelta(0.7, beta=0.8, eps=1e-4), optax.adadelta(0.7, 0.8, 1e-4)),
    "adadelta l2": (
        adadelta(0.7, beta=0.8, eps=1e-4, l2=0.1),
        optax.chain(optax.add_decayed_weights(0.1), optax.adadelta(0.7, 0.8, 1e-4)),
    ),
    # Optax's default is eps_in_sqrt=True; ours is PyTorch's.
    "rmsprop": (rmsprop(RATE, beta=0.8, eps=1e-4), optax.rmsprop(RATE, 0.8, 1e-4, eps_in_sqrt=False)),
    "rmsprop eps in root": (rmsprop(RATE, beta=0.8, eps=1e-4, eps_in_sqrt=True), optax.rmsprop(RATE, 0.8, 1e-4)),
    "rmsprop corrected": (
        rmsprop(RATE, beta=0.8, eps=1e-4, bias_correction=True, initial_scale=0.5),
        optax.rmsprop(RATE, 0.8, 1e-4, bias_correction=True, initial_scale=0.5, eps_in_sqrt=False),
    ),
    "rmsprop centered": (
        rmsprop(RATE, beta=0.8, eps=1e-4, centered=True),
        optax.rmsprop(RATE, 0.8, 1e-4, centered=True, eps_in_sqrt=False),
    ),
    "rmsprop centered corrected": (
        rmsprop(RATE, beta=0.8, eps=1e-4, centered=True, bias_correction=True, initial_scale=0.5, eps_in_sqrt=True),
        optax.rmsprop(RATE, 0.8, 1e-4, centered=True, bias_correction=True, initial_scale=0.5),
    ),
    # Optax's momentum comes after the learning rate; at a constant rate that is the same.
    "rmsprop momentum": (
        rmsprop(RATE, beta=0.8, eps=1e-4, momentum=0.9),
        optax.rmsprop(RATE, 0.8, 1e-4, momentum=0.9, eps_in_sqrt=False),
    ),
    "rmsprop nesterov": (
        rmsprop(RATE, beta=0.8, eps=1e-4, momentum=0.9, nesterov=True),
        optax.rmsprop(RATE, 0.8, 1e-4, momentum=0.9, nesterov=True, eps_in_sqrt=False),
    ),
    "signsgd": (signsgd(RATE), optax.sign_sgd(RATE)),
    "signum": (signum(RATE, beta=0.8), optax.signum(RATE, 0.8)),
    "adam": (adam(RATE), optax.adam(RATE)),
    "adam arguments": (adam(SCHEDULE, 0.8, 0.95, 1e-4, 1e-6), optax.adam(SCHEDULE, 0.8, 0.95, 1e-4, 1e-6)),
    "nadam": (adam(RATE, nesterov=True), optax.nadam(RATE)),
    "adam l2": (
        adam(RATE, l2=0.1, mask=matrices_only),
        optax.chain(optax.add_decayed_weights(0.1, matrices_only), optax.adam(RATE)),
    ),
    "adamw": (adamw(RATE), optax.adamw(RATE)),
    "adamw arguments": (
        adamw(SCHEDULE, 0.8, 0.95, 1e-4, 1e-6, weight_decay=0.1, mask=matrices_only),
        optax.adamw(SCHEDULE, 0.8, 0.95, 1e-4, 1e-6, weight_decay=0.1, mask=matrices_only),
    ),
    "nadamw": (adamw(RATE, nesterov=True), optax.nadamw(RATE)),
    "scheduled decay": (
        optax.chain(add_decayed_weights(SCHEDULE), optax.scale(-1.0)),
        optax.chain(optax.add_decayed_weights(SCHEDULE), optax.scale(-1.0)),
    ),
}


@pytest.mark.every_case
@pytest.mark.parametrize("case", CASES)
def test_walks_the_same_path(x64, case):
    ours, theirs = CASES[case]
    theta, gradients = replay()
    path, expected = follow(ours, theta, gradients), follow(theirs, theta, gradients)
    for name in theta:
        # Rounding of 50 float64 steps. The divisors 1 - b^t are formed differently, which at b = 0.999 costs 1e-13, and
        # 1e-9 with the quick compiler of these tests.
        np.testing.assert_allclose(path[name], expected[name], rtol=1e-8, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("case", ["adam", "adamw", "nadam", "rmsprop", "momentum"])
def test_walks_the_same_path_in_float32(case):
    ours, theirs = CASES[case]
    theta, gradients = jax.tree.map(np.float32, replay())
    path, expected = follow(ours, theta, gradients), follow(theirs, theta, gradients)
    for name in theta:
        # Optax forms 1 - 0.999^t in float32: 1e-5 of each step of 0.02, or of gradient size for momentum.
        np.testing.assert_allclose(path[name], expected[name], rtol=3e-5, atol=3e-5, err_msg=name)
