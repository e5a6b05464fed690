"""The quick run's structure, and the polar error against the singular values in NumPy."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_tour as jt
from jaxopt_tour.coefficients import PolynomialCoefficients
from jaxopt_tour.tour.experiments.newton_schulz import EXACT, VARIANTS, polar_error, settings
from jaxopt_tour.tour.laboratory.experiment import find, perform


def test_a_quick_run_writes_its_results_and_a_second_computes_nothing(tmp_path: Path) -> None:
    summary = perform(find("newton-schulz"), tmp_path, quick=True)
    text = summary.read_text(encoding="utf-8")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    for setting in settings(quick=True):
        for variant in setting.variants:
            assert f"\n| {variant} |" in text
            assert f"\n| {setting.workload.name}, {variant} |" in text  # its trials
    assert "the exact factor" in text.split("**Answer.**")[1]
    before = (tmp_path / "results.json").read_bytes()
    heard: list[str] = []
    perform(find("newton-schulz"), tmp_path, quick=True, listener=heard.append)
    assert heard == []
    assert (tmp_path / "results.json").read_bytes() == before


def test_all_numbers_of_steps_are_among_the_variants_and_the_exact_one_is_first() -> None:
    values = [variant.value for variant in VARIANTS.values()]
    steps = {value.steps for value in values if isinstance(value, PolynomialCoefficients)}
    assert steps == set(range(1, 11))
    for setting in settings(quick=False):
        assert setting.variants[0] == EXACT
        assert set(setting.variants) <= {*VARIANTS, "adamw"}
        assert setting.steps % setting.looks == 0


@pytest.mark.parametrize("steps", [1, 5])
def test_the_polar_error_is_the_distance_of_the_singular_values_from_one(steps: int) -> None:
    rng = np.random.default_rng(0)
    u, _ = np.linalg.qr(rng.standard_normal((6, 6)))
    v, _ = np.linalg.qr(rng.standard_normal((9, 6)))
    values = np.geomspace(1, 0.01, 6)
    coefficients = jt.coefficients.polar_express(steps)
    found = jt.orthogonalize(jnp.float32(u * values @ v.T), coefficients)
    after = coefficients.map_singular_values(values / np.sum(values**8) ** 0.125)
    expected = np.sqrt(np.mean((after - 1) ** 2))
    # Single precision through five quintics; the error itself is about 0.1.
    assert float(polar_error(found, jnp.float32(u @ v.T))) == pytest.approx(expected, rel=1e-3)
