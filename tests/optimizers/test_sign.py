from __future__ import annotations

import numpy as np
import pytest

from agreement import assert_agrees, follow, replay
from jaxopt_tour.optimizers.sign import signsgd, signum
from references import signsgd_by_hand, signum_by_hand


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_signsgd_agrees_with_the_reference(x64, weight_decay):
    assert_agrees(signsgd(0.02, weight_decay=weight_decay), signsgd_by_hand, eta=0.02, lam=weight_decay)


@pytest.mark.parametrize("form", ["sum", "ema"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_signum_agrees_with_the_reference(x64, form, weight_decay):
    tx = signum(0.02, beta=0.8, form=form, weight_decay=weight_decay)
    assert_agrees(tx, signum_by_hand, eta=0.02, beta=0.8, lam=weight_decay)


def test_every_step_has_the_length_of_the_rate_or_is_zero(x64):
    theta, gradients = replay()
    path = follow(signsgd(0.5), theta, gradients)
    for name in theta:
        steps = np.diff(np.concatenate([theta[name][None], path[name]]), axis=0)
        np.testing.assert_allclose(steps, -0.5 * np.sign(gradients[name]), atol=1e-12)
