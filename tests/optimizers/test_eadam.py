from __future__ import annotations

import numpy as np
import pytest

from agreement import assert_agrees, follow, replay
from jaxopt_tour.optimizers.adam import adamw
from jaxopt_tour.optimizers.eadam import eadam, scale_by_eadam
from references import eadam_by_hand


@pytest.mark.parametrize("eps", [1e-8, 1e-3])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_agrees_with_the_reference(x64, eps, weight_decay):
    tx = eadam(0.02, 0.8, 0.95, eps, weight_decay=weight_decay)
    assert_agrees(tx, eadam_by_hand, eta=0.02, b1=0.8, b2=0.95, eps=eps, lam=weight_decay)


def test_is_adam_with_a_larger_eps_root(x64):
    theta, gradients = replay()
    eps, b2 = 1e-4, 0.95
    ours = follow(eadam(0.02, b2=b2, eps=eps), theta, gradients)
    same = follow(adamw(0.02, b2=b2, eps=eps, eps_root=eps / (1 - b2), weight_decay=0.0), theta, gradients)
    for name in theta:
        np.testing.assert_allclose(ours[name], same[name], rtol=1e-10, atol=1e-10)  # rounding of float64 over 50 steps


@pytest.mark.parametrize(("name", "value"), [("b1", 1.0), ("b2", 2.0), ("eps", -1.0)])
def test_wrong_arguments_are_named(name, value):
    with pytest.raises(ValueError, match=name):
        scale_by_eadam(**{name: value})
