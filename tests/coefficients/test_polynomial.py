"""Polynomial coefficients: published tables, generators, and the arguments that are refused."""

from __future__ import annotations

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_tour.coefficients import (
    BY_NAME,
    Exact,
    PolynomialCoefficients,
    as_coefficients,
    cans,
    cubic,
    fast,
    for_tolerance,
    generated,
    keller_jordan,
    polar_express,
)
from jaxopt_tour.coefficients import odd_polynomials as odd
from jaxopt_tour.coefficients.operations import operations
from jaxopt_tour.orthogonalization.orthogonalizer import Orthogonalizer

# Amsel et al. 2025, the eight steps of the authors' code for [1e-3, 1], before the safety factor.
PUBLISHED_POLAR_EXPRESS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845749493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
    (1.875, -1.25, 0.375),
)


def test_polar_express_generates_the_published_table() -> None:
    generated = polar_express(8, 1e-3, "frobenius", safety=1.0).polynomials
    # The last two steps sit on an interval of width 1e-6 about 1, where the linear system keeps nine digits.
    np.testing.assert_allclose(generated, PUBLISHED_POLAR_EXPRESS, rtol=1e-9)


@pytest.mark.parametrize("steps", [3, 5, 8])
@pytest.mark.parametrize("lower_bound", [1e-1, 1e-2, 1e-3])
def test_polar_express_error_is_the_distance_of_the_last_interval(steps: int, lower_bound: float) -> None:
    """Where no step needed the raised lower end, all of [l, 1] lands in [p(l), 2 - p(l)]."""
    coefficients = polar_express(steps, lower_bound, "frobenius", safety=1.0)
    s = np.linspace(lower_bound, 1, 10_001)
    mapped = coefficients.map_singular_values(s)
    radius = 1 - mapped.min()
    assert mapped.max() <= 1 + radius + 1e-8  # the exchange stops within rounding of the linear system
    assert coefficients.steps == steps


@pytest.mark.parametrize(("degree", "most"), [(5, 7), (9, 4), (17, 3)])  # more steps end within rounding
def test_more_steps_are_never_worse(degree: int, most: int) -> None:
    s = np.linspace(1e-2, 1, 2_001)
    found = [polar_express(steps, 1e-2, safety=1.0, degree=degree) for steps in range(1, most + 1)]
    errors = [np.abs(coefficients.map_singular_values(s) - 1).max() for coefficients in found]
    assert all(later < earlier for earlier, later in itertools.pairwise(errors))


@pytest.mark.parametrize("degree", [5, 9, 17])
def test_the_raised_lower_end_has_the_same_error_in_every_degree(degree: int) -> None:
    end = generated._CUSHION[degree]
    assert 1 - odd.value(odd.best(end, 1.0, degree), end) == pytest.approx(9 / 11, abs=1e-9)


def test_a_higher_degree_reaches_further_with_fewer_products() -> None:
    """The claims of the docstring of polar_express."""
    s = np.geomspace(1e-3, 1, 20_001)
    quintics, further = polar_express(), polar_express(3, 3e-3, degree=(9, 17, 17))
    assert operations(further, 1, 0, "gram") == operations(quintics, 1, 0, "gram") - 3 * 2  # an m^3-product counts 2
    errors = [np.abs(coefficients.map_singular_values(s) - 1) for coefficients in (quintics, further)]
    assert errors[1].max() < errors[0].max() and errors[1].mean() < errors[0].mean()
    short = fast().polynomial
    assert short is not None and short.in_half == polar_express(4, 1e-2)
    assert [operations(coefficients, 1, 0, "gram") // 2 for coefficients in (short, quintics)] == [9, 17]


@pytest.mark.parametrize("degree", [3, 5])
def test_cans_polynomials_equioscillate(degree: int) -> None:
    """The mark of a best approximation: the error reaches +E and -E in turn, (degree + 3) / 2 times."""
    a, b, c = cans(1, 0.1, degree).polynomials[0]
    s = np.linspace(0.1, 1, 200_001)
    error = s * (a + s**2 * (b + c * s**2)) - 1
    extreme = np.abs(error).max()
    touches = np.flatnonzero(np.abs(error) > extreme * (1 - 1e-6))
    signs = np.sign(error[touches])
    assert 1 + np.count_nonzero(np.diff(signs)) == (degree + 3) // 2


def test_cans_of_degree_three_is_the_best_cubic_against_a_grid() -> None:
    a, b, _ = cans(1, 0.1, 3).polynomials[0]
    s = np.linspace(0.1, 1, 2_001)
    best = np.abs(a * s + b * s**3 - 1).max()
    rng = np.random.default_rng(0)
    for _ in range(500):
        other_a, other_b = a + 0.1 * rng.normal(), b + 0.1 * rng.normal()
        assert np.abs(other_a * s + other_b * s**3 - 1).max() >= best - 1e-9


@pytest.mark.parametrize("name", [name for name in BY_NAME if name != "exact"])
def test_all_coefficients_bring_the_upper_spectrum_near_one(name: str) -> None:
    """Singular values from 0.2 of the norm up end in [0.65, 1.25]; Keller Jordan's is the widest at [0.68, 1.2]."""
    coefficients = as_coefficients(name)
    assert not isinstance(coefficients, Exact)
    mapped = coefficients.map_singular_values(np.linspace(0.2, 1, 1_001))
    assert mapped.min() > 0.65 and mapped.max() < 1.25
    assert coefficients.source


def test_steps_belong_to_the_coefficients() -> None:
    assert keller_jordan(3).steps == 3 and keller_jordan().steps == 5
    assert cubic(12).steps == 12


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: as_coefficients("kellerjordan"), "'keller_jordan'"),
        (lambda: as_coefficients(5), "coefficients"),
        (lambda: as_coefficients([(1.0, 2.0)]), "polynomials"),
        (lambda: PolynomialCoefficients("mine", ()), "polynomials"),
        (lambda: PolynomialCoefficients("mine", ((1.0, float("nan"), 0.0),)), "polynomials"),
        (lambda: PolynomialCoefficients("mine", ((1.5, -0.5, 0.0),), "spectral"), "prescale"),
        (lambda: PolynomialCoefficients("mine", ((1.5, -0.5, 0.0, 0.0),)), "polynomials"),
        (lambda: PolynomialCoefficients("mine", ((1.0,) * 6 + (0.0,) * 3,)), "polynomials"),
        (
            lambda: PolynomialCoefficients("mine", ((1.5, -0.5, 0.0),), in_half=polar_express(1, 0.1, degree=9)),
            "in_half",
        ),
        (lambda: PolynomialCoefficients("mine", ((1.5, -0.5, 0.0),), in_half=polar_express()), "in_half.*prescale"),
        (lambda: PolynomialCoefficients("mine", ((1.5, -0.5, 0.0),), in_half=Exact()), "in_half"),
        (
            lambda: PolynomialCoefficients("mine", ((1.5, -0.5, *(0.0,) * 5, 0.1, 1e-3),)),
            "polynomials.*last coefficient",
        ),
        (lambda: polar_express(0), "steps"),
        (lambda: polar_express(2, degree=7), "degree"),
        (lambda: polar_express(2, degree=(9, 9, 9)), "degree"),
        (lambda: polar_express(2, degree=17.0), "degree"),
        (lambda: polar_express(5, 0.0), "lower_bound"),
        (lambda: polar_express(5, 1e-3, "nuclear"), "prescale"),
        (lambda: polar_express(5, 1e-3, safety=0.9), "safety"),
        (lambda: cans(5, 1e-3, degree=4), "degree"),
        (lambda: keller_jordan(2.5), "steps"),
        (lambda: cans(5, 1e-3, safety=2.0), "safety"),
        (lambda: polar_express().worst_error(1.0), "lower_bound"),
        (lambda: for_tolerance(0.0, 1e-3), "polar_error"),
        (lambda: for_tolerance(1.0, 1e-3), "polar_error"),
        (lambda: for_tolerance(float("nan"), 1e-3), "polar_error"),
        (lambda: for_tolerance(0.1, 1.5), "lower_bound"),
        (lambda: for_tolerance(0.1, 1e-3, prescale="aol"), "prescale must be one of .*'schatten8'"),
        (lambda: for_tolerance(0.1, 1e-3, m=8), "together"),
        (lambda: for_tolerance(0.1, 1e-3, m=0, n=8), "m must"),
        (lambda: for_tolerance(1e-3, 1e-12), "within 20 steps"),
        (lambda: for_tolerance(0.5, 1e-300), "within 20 steps"),
    ],
)
def test_wrong_arguments_are_named(make: object, named: str) -> None:
    # A value of a wrong type is stopped by the type checks that the test run puts around the library, before ours.
    with pytest.raises((ValueError, TypeError), match=named):
        make()  # type: ignore[operator]


def test_zeros_beyond_the_degree_are_dropped() -> None:
    padded = PolynomialCoefficients(
        "mine", ((1.5, -0.5, 0.0, 0.0, 0.0), (1.0, 2.0, 3.0, *(0.0,) * 6), (1.0, 0.0, 0.0, 4.0, *(0.0,) * 5))
    )
    assert padded.polynomials == ((1.5, -0.5, 0.0), (1.0, 2.0, 3.0), (1.0, 0.0, 0.0, 4.0, 0.0)) and padded.degree == 9


def test_a_degree_for_every_step_may_come_in_a_list() -> None:
    assert polar_express(2, 1e-2, degree=[9, 17]) == polar_express(2, 1e-2, degree=(9, 17))


@pytest.mark.parametrize("seed", range(20))
def test_polar_express_of_any_degrees_keeps_its_promise(seed: int) -> None:
    """All of [l, 1] ends as near 1 as l does, wherever no step needed the raised lower end."""
    rng = np.random.default_rng(seed)
    degree = tuple(int(one) for one in rng.choice([5, 9, 17], rng.integers(1, 4)))
    low = float(np.exp(rng.uniform(np.log(0.03), np.log(0.95))))
    coefficients = polar_express(len(degree), low, safety=1.0, degree=degree)
    mapped = coefficients.map_singular_values(np.linspace(low, 1, 10_001))
    assert np.abs(mapped - 1).max() <= 1 - mapped[0] + 1e-7  # far below, rounding is all of the error
    assert coefficients.worst_error(low) == pytest.approx(np.abs(mapped - 1).max(), abs=1e-7)


def test_values_pass_through() -> None:
    coefficients = polar_express(4)
    assert as_coefficients(coefficients) is coefficients
    assert isinstance(as_coefficients("exact"), Exact)
    assert as_coefficients([(1.5, -0.5, 0.0)] * 3).steps == 3  # type: ignore[union-attr]
    assert not callable(coefficients), "optax.inject_hyperparams would take it for a schedule"


@pytest.mark.parametrize("name", [name for name in BY_NAME if name != "exact"])
@pytest.mark.parametrize("lower_bound", [0.5, 1e-2, 1e-4])
def test_worst_error_is_the_largest_on_a_grid(name: str, lower_bound: float) -> None:
    coefficients = as_coefficients(name)
    assert not isinstance(coefficients, Exact)
    grid = np.concatenate([np.geomspace(lower_bound, 1, 100_001), np.linspace(lower_bound, 1, 100_001)])
    largest = np.abs(coefficients.map_singular_values(grid) - 1).max()
    assert coefficients.worst_error(lower_bound) == pytest.approx(
        largest, abs=1e-6
    )  # the peaks lie between grid points


TOLERANCES = [(0.3, 0.3), (0.3, 1e-2), (0.05, 1e-3), (1e-2, 1e-1), (1e-3, 1e-4), (1e-6, 1e-2), (0.1, 1e-6)]


@pytest.mark.parametrize("shape", [None, (256, 256), (1024, 256)])
@pytest.mark.parametrize(("polar_error", "lower_bound"), TOLERANCES)
def test_for_tolerance_keeps_its_promise_on_a_grid(
    polar_error: float, lower_bound: float, shape: tuple[int, int] | None
) -> None:
    m, n = shape or (None, None)
    coefficients = for_tolerance(polar_error, lower_bound, m=m, n=n)
    values = coefficients.map_singular_values(np.geomspace(lower_bound, 1, 50_001))
    assert np.abs(values - 1).max() <= polar_error
    assert as_coefficients(coefficients) is coefficients


@pytest.mark.parametrize("prescale", ["frobenius", "schatten4", "schatten8"])
@pytest.mark.parametrize(("polar_error", "lower_bound"), [(0.05, 1e-3), (1e-2, 1e-1)])
@pytest.mark.parametrize("shape", [(24, 24), (64, 16)])
def test_for_tolerance_keeps_its_promise_on_matrices(
    shape: tuple[int, int], polar_error: float, lower_bound: float, prescale: str, x64: None
) -> None:
    """What is known is s_min >= lower_bound s_max; the norm is at most rank^(1/p) s_max."""
    rng = np.random.default_rng(0)
    rank, power = min(shape), {"frobenius": 2, "schatten4": 4, "schatten8": 8}[prescale]
    coefficients = for_tolerance(
        polar_error, lower_bound / rank ** (1 / power), prescale=prescale, m=shape[0], n=shape[1]
    )
    for spectrum in (
        np.geomspace(lower_bound, 1, rank),
        rng.uniform(lower_bound, 1, rank),
        np.where(np.arange(rank) == 0, lower_bound, 1),  # the largest norm
        np.where(np.arange(rank) == 0, 1, lower_bound),
    ):
        u, _, vt = np.linalg.svd(rng.normal(size=shape), full_matrices=False)
        for form in ("standard", "gram"):
            result = np.asarray(Orthogonalizer(coefficients, form=form)(jnp.asarray((u * spectrum) @ vt)))
            assert np.abs(np.linalg.svd(result, compute_uv=False) - 1).max() <= polar_error
            assert np.linalg.norm(result - u @ vt) <= polar_error * np.linalg.norm(u @ vt)


@pytest.mark.parametrize("shape", [(1, 1), (64, 256)])
@pytest.mark.parametrize(("polar_error", "lower_bound"), TOLERANCES)
def test_for_tolerance_is_the_cheapest_candidate(
    polar_error: float, lower_bound: float, shape: tuple[int, int]
) -> None:
    def cost(coefficients: PolynomialCoefficients) -> int:
        return min(operations(coefficients, *shape, form) for form in ("standard", "gram"))

    chosen = cost(for_tolerance(polar_error, lower_bound, m=shape[0], n=shape[1]))
    cheaper = [
        candidate
        for steps in range(1, 21)
        for candidate in (
            polar_express(steps, lower_bound),
            cans(steps, lower_bound, 3, safety=1.02),
            cans(steps, lower_bound, 5, safety=1.02),
        )
        if cost(candidate) < chosen
    ]
    s = np.geomspace(lower_bound, 1, 2_001)
    assert all(np.abs(candidate.map_singular_values(s) - 1).max() > polar_error for candidate in cheaper)


def test_for_tolerance_knows_that_cubic_steps_pay_on_square_matrices() -> None:
    square, wide = for_tolerance(0.1, 1e-3), for_tolerance(0.1, 1e-3, m=256, n=1024)
    assert square.polynomials[0][2] == 0 and wide.polynomials[0][2] != 0


def test_safety_keeps_singular_values_just_above_one_from_changing_sign() -> None:
    assert cans(7, 1e-3).map_singular_values(np.array([1.01])) < 0
    assert abs(cans(7, 1e-3, safety=1.02).map_singular_values(np.array([1.01])) - 1) < 0.3
