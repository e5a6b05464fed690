from __future__ import annotations

import jax.numpy as jnp
import pytest

from agreement import assert_agrees
from jaxopt_tour.optimizers.adadelta import adadelta, scale_by_adadelta
from references import adadelta_by_hand


@pytest.mark.parametrize("eps", [1e-6, 1e-2])
@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_agrees_with_the_reference(x64, eps, l2):
    tx = adadelta(0.7, beta=0.8, eps=eps, l2=l2)
    assert_agrees(tx, adadelta_by_hand, eta=0.7, beta=0.8, eps=eps, lam=l2)


def test_the_first_step_has_the_size_that_the_docstring_says():
    g = jnp.array([-50.0, 2.0])
    tx = scale_by_adadelta(beta=0.9, eps=1e-6)
    u, _ = tx.update(g, tx.init(g))
    # eps is also added to (1 - beta) g^2, at 2.5e-6 of it or less.
    assert jnp.allclose(u, jnp.sign(g) * (1e-6 / 0.1) ** 0.5, rtol=1e-5)


@pytest.mark.parametrize(("name", "value"), [("beta", 1.0), ("eps", -1.0)])
def test_wrong_arguments_are_named(name, value):
    with pytest.raises(ValueError, match=name):
        scale_by_adadelta(**{name: value})
