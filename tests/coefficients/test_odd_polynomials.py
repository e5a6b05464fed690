"""Odd polynomials: the best ones, their images, and the few products that they are evaluated with."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from jaxopt_tour.coefficients import odd_polynomials as odd


@pytest.mark.parametrize("degree", [3, 5, 9, 17])
@pytest.mark.parametrize("low", [1e-4, 1e-3, 1e-2, 0.1, 0.3, 0.5])
@pytest.mark.parametrize("high", [1.0, 1.7])
def test_the_best_equioscillates(low: float, high: float, degree: int) -> None:
    """The mark of a best approximation: the error reaches +E and -E in turn, (degree + 3) / 2 times."""
    low *= high
    best = odd.best(low, high, degree)
    s = low + (high - low) * (1 - np.cos(np.linspace(0, np.pi, 200_001))) / 2
    error = odd.value(best, s) - 1
    touches = np.flatnonzero(np.abs(error) > np.abs(error).max() * (1 - 1e-4))  # degree 17 about [0.5, 1]: E is 2e-5
    assert 1 + np.count_nonzero(np.diff(np.sign(error[touches]))) == (degree + 3) // 2


def test_the_exchange_ends_where_its_error_is_nearly_rounding() -> None:
    for low in np.random.default_rng(0).uniform(0.7, 0.9, 100):
        s = np.linspace(low, 1, 1_001)
        assert np.abs(odd.value(odd.best(float(low), 1.0, 17), s) - 1).max() < 1e-6


@pytest.mark.parametrize("degree", [3, 5, 9, 17])
def test_narrower_intervals_are_approximated_closer(degree: int) -> None:
    """Down to rounding, across the width at which the limit takes over."""
    errors = []
    for low in (0.3, 0.5, 0.7, 0.85, 0.89, 0.92, 0.98, 0.985, 0.992, 0.9998, 0.99995):
        s = np.linspace(low, 1, 2_001)
        errors.append(np.abs(odd.value(odd.best(low, 1.0, degree), s) - 1).max())
    assert all(later < max(earlier, 2e-9) for earlier, later in itertools.pairwise(errors))


@pytest.mark.parametrize("polynomial", [odd.best(0.1, 1.0, 3), odd.best(0.02, 1.0, 9), odd.best(0.01, 1.0, 17)])
@pytest.mark.parametrize(("low", "high"), [(1e-3, 1.0), (0.2, 0.21), (0.5, 1.02)])
def test_image_is_that_of_a_grid(polynomial: odd.Polynomial, low: float, high: float) -> None:
    values = odd.value(polynomial, np.linspace(low, high, 200_001))
    np.testing.assert_allclose(odd.image(polynomial, low, high), (values.min(), values.max()), atol=1e-7)


def test_the_image_of_nothing_is_zero() -> None:
    assert odd.image((0.0, 0.0, 0.0), 0.1, 1.0) == (0.0, 0.0)


def test_scaled_is_of_a_stretched_argument() -> None:
    polynomial, s = odd.best(0.02, 1.0, 9), np.linspace(0, 1.1, 5)
    scaled = odd.scaled(polynomial, values=1.1, stretch=1.02)
    np.testing.assert_allclose(odd.value(scaled, s), 1.1 * odd.value(polynomial, s / 1.02), rtol=1e-10)


@pytest.mark.parametrize(
    "polynomial",
    [
        odd.best(0.01, 1.0, 17),
        odd.best(0.3, 1.0, 17),
        tuple(np.random.default_rng(0).normal(size=9)),
        (1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -3.0),
    ],
    ids=["wide", "narrow", "random", "sparse"],
)
def test_factors_multiply_to_the_polynomial(polynomial: odd.Polynomial) -> None:
    """V = Y Y, and one product more, whatever the coefficients."""
    known = odd.factors(tuple(float(c) for c in polynomial))
    r = np.linspace(0, 1, 101)
    s = r * r
    v = (s + known.y[0] * r + known.y[1]) ** 2
    terms = np.stack([v, s, r, np.ones_like(r)])
    found = (known.left @ terms) * (known.right @ terms) + known.rest @ terms
    expected = sum(c * r**k for k, c in enumerate(polynomial))
    # Coefficients up to 3e5 in the sum of powers.
    np.testing.assert_allclose(found, expected, atol=1e-9 * np.abs(expected).max())


def test_growth_is_that_of_rounding() -> None:
    """Generated polynomials are safe in float32; where the last coefficient is small, nothing would be left."""
    assert all(odd.growth(odd.best(low, 1.0, 17)) < 1e3 for low in (1e-4, 1e-2, 0.1, 0.5, 0.8))
    assert odd.growth((1.5, -0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.1, 1e-3)) > 1e9
