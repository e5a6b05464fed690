"""Sentences about metrics: each names what it is about and the way out, and there is none for a healthy step."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_tour as jt
from jaxopt_tour.orthogonalization.plan import plan_iteration
from jaxopt_tour.state.measure import polar_error
from jaxopt_tour.state.polar_bound import bounds_by_platform
from tests.contenders import make_gradients, make_params
from tests.state.monitored_model import DOWN, SHORT, UP


def sentences(tx: Any, params: Any, gradients: Any, **arguments: Any) -> str:
    state = tx.init(params)
    _, state = jax.jit(tx.update)(gradients, state, params)
    return "\n".join(jt.diagnose(jt.metrics(state), **arguments))


def test_a_healthy_step_gets_no_sentence(healthy: dict[str, float]):
    assert jt.diagnose(healthy) == []
    assert jt.diagnose(jt.metrics(jt.monitored(jt.adamw(1e-3)).init(make_params()))) == []  # nothing is measured yet


def test_vanishing_updates_are_named_with_the_way_out_and_the_way_out_helps():
    params = {"norm": {"scale": jnp.ones(8, jnp.bfloat16)}}
    found = sentences(jt.monitored(jt.sgd(1e-3)), params, params)
    assert "'norm/scale' vanishes in rounding: 100%" in found and "with_master_weights" in found
    assert sentences(jt.with_master_weights(jt.monitored(jt.sgd(1e-3))), params, params) == ""
    assert sentences(jt.with_stochastic_rounding(jt.monitored(jt.sgd(1e-3)), 0), params, params) == ""


def test_a_dead_layer_is_named(healthy: dict[str, float]):
    params = make_params()
    g = make_gradients(params) | {"gain": jnp.zeros([])}
    assert "The gradient of 'gain' is zero." in sentences(jt.monitored(jt.sgd(1e-3)), params, g)
    none = {key: 0.0 if key.startswith("gradient_norm/") else value for key, value in healthy.items()}
    assert jt.diagnose(none) == ["All gradients are zero."]


def test_a_large_polar_error_is_named_and_the_bound_is_an_argument(healthy: dict[str, float]):
    flawed = healthy | {"polar_error_bound": 0.4, f"polar_error/{UP}": 0.6, f"polar_error/{DOWN}": 0.5}
    (sentence,) = jt.diagnose(flawed)
    assert f"'{UP}', '{DOWN}' has unequal singular values: polar error 0.60" in sentence
    assert jt.diagnose(flawed, polar_error=1.0) == []
    assert jt.diagnose(healthy, polar_error=0.0) != []


def bound_of(orthogonalizer: Any, platform: str = "cpu", m: int = 64) -> float:
    use = jt.Orthogonalizer(orthogonalizer)
    return bounds_by_platform([(use, m, 2 * m, jnp.dtype("float32"))])[platform]


@pytest.mark.parametrize("orthogonalizer", ["auto", "keller_jordan", "exact"])
def test_the_bound_is_what_coefficients_and_a_quarter_of_missing_directions_leave(orthogonalizer: str):
    use = jt.Orthogonalizer(orthogonalizer)
    e = (
        0.0
        if orthogonalizer == "exact"
        else plan_iteration(use, 64, 128, "float32", "cpu").coefficients.worst_error(0.01)
    )
    # The most unequal singular values within e of 1: half at either end; and a quarter of zeros.
    s = np.concatenate([np.full(24, 1 - e), np.full(24, 1 + e), np.zeros(16)])
    left = float(polar_error(jnp.asarray(np.diag(s), jnp.float32)[None])[0])
    assert 0.9 * bound_of(orthogonalizer) < left <= bound_of(orthogonalizer) + 1e-6


def test_the_bound_is_that_of_the_platform_and_larger_in_half_precision():
    assert bound_of("keller_jordan", "tpu") > bound_of("keller_jordan") > bound_of("auto") > bound_of("exact")
    assert bound_of("fast", "cpu", 256) > bound_of("fast", "gpu", 256)  # inverses leave more than quintics do


def test_without_an_argument_the_bound_is_that_of_the_plan(healthy: dict[str, float]):
    of_plan = healthy["polar_error_bound"]
    assert of_plan == pytest.approx(bound_of(SHORT, m=4))
    above, below = ({f"polar_error/{UP}": of_plan + step} for step in (0.01, -0.01))
    assert jt.diagnose(healthy | below) == []
    (sentence,) = jt.diagnose(healthy | above)
    assert f"above the {of_plan:.2f} that its plan explains" in sentence
    unknown = {key: value for key, value in healthy.items() if key != "polar_error_bound"}
    assert jt.diagnose(unknown | {f"polar_error/{UP}": 0.31}) != []  # of another maker's transformation


def test_a_part_that_moves_five_times_as_far_is_named_once_the_start_is_over(healthy: dict[str, float]):
    far = healthy | {"update_rms_by_role/embedding": 10 * healthy["update_rms_by_role/matrix"]}
    (sentence,) = jt.diagnose(far)
    assert "role 'embedding' move 10.0 times as far" in sentence
    assert jt.diagnose(far | {"measured_at": 1.0}) == []
    assert jt.diagnose({key: value for key, value in far.items() if "polar_error" not in key}) == []  # no Muon


def test_numbers_that_are_not_finite_are_named():
    params = make_params()
    g = make_gradients(params)
    g["gain"] = jnp.asarray(jnp.inf)
    found = sentences(jt.monitored(jt.sgd(0.1)), params, g)
    assert "not finite: 'update_rms/gain'" in found


def test_a_batch_of_metrics_is_refused():
    with pytest.raises(ValueError, match="a number for 'update_rms/w'"):
        jt.diagnose({"update_rms/w": np.ones(2)})
    with pytest.raises(ValueError, match="polar_error must be a number"):
        jt.diagnose({}, polar_error=-1)
