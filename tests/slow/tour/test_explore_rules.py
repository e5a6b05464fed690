"""The page to play with computes what the library computes: landscapes, every rule, every switch, Newton-Schulz."""

from __future__ import annotations

import functools
import json

import jax
import numpy as np
import optax
import pytest

import jaxopt_tour as jt
from chromium import Browser
from jaxopt_tour.problems.landscapes import LANDSCAPES, make_landscape
from jaxopt_tour.tour.explore import weight
from jaxopt_tour.tour.explore.optimizers import GENERATED, PUBLISHED, RULES, SETTINGS, make_coefficients
from jaxopt_tour.tour.rollout import rollout

call = functools.partial(json.dumps, separators=(",", ":"))


@pytest.mark.parametrize("name", LANDSCAPES)
def test_landscapes_are_the_librarys(tab, name, x64):
    landscape = make_landscape(name)
    at = np.random.default_rng(1).uniform(*np.transpose(landscape.box), size=(20, 2))
    found = tab.evaluate(
        f"(() => {{ const one = tour.landscapes.get({json.dumps(name)}); return {json.dumps(at.tolist())}"
        ".map((at) => { const p = one.params(at); return [one.f(p), one.gradient(p), one.coordinates(p)]; }); })()"
    )
    x = jax.numpy.stack([landscape.init(place) for place in at])
    values, gradients = jax.vmap(jax.value_and_grad(landscape.fn))(x)
    scale = 1 + np.abs(gradients).max()
    np.testing.assert_allclose([each[0] for each in found], values, rtol=1e-9, atol=1e-9 * scale)
    np.testing.assert_allclose([each[1] for each in found], gradients.reshape(20, -1), rtol=1e-9, atol=1e-9 * scale)
    np.testing.assert_allclose([each[2] for each in found], at, atol=1e-9)


def runs_of(name: str) -> list[tuple[str, dict, str]]:
    """Problem, settings and schedule: defaults on a vector, other numbers on a matrix, each switch by itself."""
    beta = 0.95 if name in ("adadelta", "rmsprop", "rmsprop-centered") else 0.8
    other = {"l2": 0.05, "weight_decay": 0.05, "beta": beta, "b1": 0.8, "b2": 0.95, "eps": 1e-3, "steps": 3}
    defaults = RULES[name].settings
    switched = [
        {key: one.off if defaults[key] == one.on else one.on}
        for key, one in SETTINGS.items()
        if key in defaults and one.scale == "switch"
    ]
    return [
        ("himmelblau", {}, "constant"),
        ("matrix-regression", {key: value for key, value in other.items() if key in defaults}, "linear"),
        *(("matrix-regression", each, "constant") for each in switched),
    ]


@pytest.mark.parametrize("name", RULES)
def test_rules_and_switches_are_the_librarys(tab, name, x64):
    # Rates at which runs are smooth: where a rule is chaotic, two right programs part.
    rate = {"adadelta": 1.0, "sgd": 0.003, "momentum": 0.001, "nesterov": 0.001}.get(name, 0.02)
    for problem, changes, schedule in runs_of(name):
        landscape = make_landscape(problem)
        values = {**RULES[name].settings, **changes}
        tx = RULES[name].make(optax.linear_schedule(rate, 0.0, 40) if schedule == "linear" else rate, **values)
        library = np.asarray(rollout(tx, landscape, 40, record=()).params).reshape(41, -1)
        chosen = {"rate": rate, "schedule": schedule, **values}
        if "coefficients" in values:
            coefficients = make_coefficients(values["coefficients"], values["steps"])
            chosen |= {"polynomials": coefficients.polynomials, "prescale": coefficients.prescale}
        found = tab.evaluate(
            f"tour.Rules.run({json.dumps(name)}, tour.landscapes.get({json.dumps(problem)}),"
            f" {json.dumps(landscape.start)}, {json.dumps(chosen)}, 40).x"
        )
        # Both in float64. Shampoo's inverse roots and the differences of RMSProp centered enlarge roundings.
        np.testing.assert_allclose(found, library, atol=1e-6, err_msg=f"{problem} {changes} {schedule}")


@pytest.mark.parametrize("name", [*GENERATED, *PUBLISHED])
def test_newton_schulz_is_the_librarys(tab, name, x64):
    made = make_coefficients(name, 5)
    for shape in ((2, 1), (3, 5)) if name == "keller_jordan" else ((3, 5),):
        x = np.random.default_rng(0).normal(size=shape)
        found = tab.evaluate(
            f"tour.Matrices.orthogonalize({call(x.ravel().tolist())}, {call(shape)}, {call(made.polynomials)},"
            f" {call(made.prescale)})"
        )
        np.testing.assert_allclose(np.reshape(found, shape), jt.orthogonalize(jax.numpy.asarray(x), made), atol=1e-9)


def test_a_polynomial_of_ones_own_is_the_librarys(tab, x64):
    values = {**RULES["muon"].settings, "coefficients": (2.0, -1.5, 0.5), "steps": 4}
    landscape = make_landscape("matrix-regression")
    library = rollout(RULES["muon"].make(0.1, **values), landscape, 20, record=()).params
    found = tab.evaluate(
        "(() => { const old = tour.view.polynomial; tour.view.polynomial = [2, -1.5, 0.5];"
        " const one = tour.polynomialsOf('own', 4); tour.view.polynomial = old; return tour.Rules.run('muon',"
        f" tour.landscapes.get('matrix-regression'), {json.dumps(landscape.start)},"
        " {rate: 0.1, beta: 0.95, nesterov: true, weight_decay: 0, ...one}, 20).x; })()"
    )
    np.testing.assert_allclose(np.reshape(found, (21, 2, 2)), library, atol=1e-9)


def test_singular_values_are_numpys(tab):
    for shape in ((8, 8), (4, 8), (5, 2)):
        x = np.random.default_rng(3).normal(size=shape)
        x[0] = x[1]  # a row twice: one singular value is zero where rows are fewer
        found = tab.evaluate(f"tour.Matrices.singularValues({call(x.ravel().tolist())}, {call(shape)})")
        np.testing.assert_allclose(found, np.linalg.svd(x, compute_uv=False), atol=1e-12)


def test_singular_values_shown_are_those_of_the_matrix_shown(tab: Browser):
    # Other tests turn these, and the browser is one for all.
    found = tab.evaluate(
        "(() => { const one = (id) => document.getElementById(id); one('matrix').value = 'steep';"
        " one('coefficients').selectedIndex = 0; one('schulz-steps').value = 5;"
        " return tour.schulzSteps().found.map((each) => [each.x, each.values]); })()"
    )
    assert len(found) == 6
    for x, values in found:
        np.testing.assert_allclose(
            np.linalg.svd(np.reshape(x, (8, 8)), compute_uv=False), np.sort(values)[::-1], atol=1e-9
        )
    assert max(found[0][1]) / min(found[0][1]) == pytest.approx(128)
    assert max(abs(np.array(found[-1][1]) - 1)) < 0.02  # flat


@pytest.mark.parametrize("heads", [False, True])
@pytest.mark.parametrize("norm", weight.NORMS)
def test_steps_of_the_weight_are_the_librarys(tab, norm, heads, x64):
    found = tab.evaluate(f"tour.weightRun({json.dumps(norm)}, {json.dumps(heads)}).w")
    np.testing.assert_allclose(np.reshape(found, (-1, 8, 8)), weight.run(norm, heads), atol=1e-6)


def test_rates_of_the_weight_are_those_that_the_search_finds():
    assert weight.NORMS["spectral"][2][1] == pytest.approx(weight.best_rate("spectral", True))


def test_the_spectral_norm_has_the_lowest_loss_on_the_weight(tab):
    # What the page shows; each norm at its best rate, without momentum and noise.
    for heads in ("false", "true"):
        losses = {norm: tab.evaluate(f"tour.weightRun('{norm}', {heads}).loss.at(-1)") for norm in weight.NORMS}
        assert min(losses, key=losses.__getitem__) == "spectral"
