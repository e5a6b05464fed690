"""One step of a monitored Muon."""

from __future__ import annotations

from typing import Any

import jax
import optax
import pytest

import jaxopt_tour as jt
from tests.contenders import make_gradients
from tests.state.monitored_model import model, short_muon


@pytest.fixture(scope="module")
def step() -> tuple[Any, Any, Any]:
    """Gradients, updates and the state of one step of Muon."""
    params, g = model(), make_gradients(model(), 3)
    tx = optax.apply_if_finite(jt.monitored(short_muon()), 3)
    return g, *jax.jit(lambda g, p: tx.update(g, tx.init(p), p))(g, params)


@pytest.fixture(scope="module")
def healthy(step: tuple[Any, Any, Any]) -> dict[str, float]:
    """Metrics about which there is nothing to say."""
    measured = jt.metrics(step[2]) | {"measured_at": 51.0}
    return {
        key: 0.02 if key.startswith(("polar_error/", "polar_error_by")) else value for key, value in measured.items()
    }
