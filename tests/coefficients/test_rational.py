"""Odd rational functions: the best ones, their images, and coefficients made of them."""

from __future__ import annotations

import numpy as np
import pytest

from jaxopt_tour.coefficients.rational import Rational, RationalCoefficients, best, image, value, zolotarev


@pytest.mark.parametrize("inverses", [1, 2, 3, 5])
@pytest.mark.parametrize("low", [1e-4, 1e-3, 1e-2, 0.1, 0.3])
@pytest.mark.parametrize("high", [1.0, 1.7])
def test_the_best_equioscillates(low: float, high: float, inverses: int) -> None:
    """The mark of a best approximation: the error reaches +E and -E in turn, 2 inverses + 2 times."""
    low *= high
    function = best(low, high, inverses)
    s = np.geomspace(low, high, 400_001)
    error = value(function, s) - 1
    touches = np.flatnonzero(np.abs(error) > np.abs(error).max() * (1 - 1e-4))
    if np.abs(error).max() > 1e-9:  # below, its peaks are rounding
        assert 1 + np.count_nonzero(np.diff(np.sign(error[touches]))) == 2 * inverses + 2


def test_one_inverse_is_the_halley_iteration() -> None:
    """The dynamically weighted one, `s (a + b s^2) / (1 + c s^2)`, up to its scale (Nakatsukasa, Bai & Gygi 2010)."""
    for low in (1e-3, 0.05, 0.6):
        d = (4 * (1 - low**2) / low**4) ** (1 / 3)
        a = np.sqrt(1 + d) + 0.5 * np.sqrt(8 - 4 * d + 8 * (2 - low**2) / (low**2 * np.sqrt(1 + d)))
        b = (a - 1) ** 2 / 4
        c = a + b - 1
        s = np.geomspace(low, 1, 1_001)
        halley = s * (a + b * s**2) / (1 + c * s**2)  # reaches 1 and no more
        ours = value(best(low, 1.0, 1), s)
        np.testing.assert_allclose(ours / ours.max(), halley, rtol=1e-8)


def test_steps_compose_to_the_best_of_their_degree() -> None:
    """Two of degree 3 are the best of degree 9, which takes four inverses in one step."""
    two, one = zolotarev(2, 1e-2), zolotarev(1, 1e-2, inverses=4)
    s = np.geomspace(1e-2, 1, 1_001)
    np.testing.assert_allclose(two.map_singular_values(s), one.map_singular_values(s), rtol=1e-9)


@pytest.mark.parametrize("function", [best(1e-3, 1.0, 2), Rational(0.5, (0.1, -0.2), (0.01, 0.3))])
@pytest.mark.parametrize(("low", "high"), [(1e-4, 1.0), (0.2, 0.21), (0.5, 3.0)])
def test_image_is_that_of_a_grid(function: Rational, low: float, high: float) -> None:
    values = value(function, np.linspace(low, high, 400_001))
    np.testing.assert_allclose(image(function, low, high), (values.min(), values.max()), atol=1e-7)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: zolotarev(0), "steps"),
        (lambda: zolotarev(2, 1.0), "lower_bound"),
        (lambda: zolotarev(2, 1e-3, "nuclear"), "prescale"),
        (lambda: zolotarev(inverses=0), "inverses"),
        (lambda: zolotarev(1, 1e-4, inverses=3), "shifts >= 1e-05.*more steps of fewer inverses"),
        (lambda: zolotarev(1, 1e-300), "lower_bound"),
        (lambda: RationalCoefficients("mine", ()), "functions"),
        (lambda: RationalCoefficients("mine", (Rational(1.0, (0.1,), ()),)), "functions"),
        (lambda: RationalCoefficients("mine", (Rational(1.0, (float("nan"),), (0.1,)),)), "functions must be finite"),
        (
            lambda: RationalCoefficients("mine", (*zolotarev().functions, *zolotarev(1, 1e-2, inverses=2).functions)),
            "as many",
        ),
        (lambda: RationalCoefficients("mine", zolotarev().functions, polynomial=zolotarev()), "polynomial"),
        (lambda: zolotarev().worst_error(0.0), "lower_bound"),
    ],
)
def test_wrong_arguments_are_named(make: object, named: str) -> None:
    # A value of a wrong type is stopped by the type checks that the test run puts around the library, before ours.
    with pytest.raises((ValueError, TypeError), match=named):
        make()  # type: ignore[operator]
