"""Every landscape: its formula, its stationary points found and classified, its plane, its noise."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_tour.problems.landscapes import LANDSCAPES, make_landscape, quadratic, styblinski_tang
from jaxopt_tour.problems.stationary import minima, stationary_points


def by_hand(name: str, x: float, y: float) -> float:
    """The formulas once more, in plain Python."""
    e, pi, cos, exp = np.e, np.pi, np.cos, np.exp
    u, v = (x + y) / np.sqrt(2), (y - x) / np.sqrt(2)
    return {
        "styblinski-tang": (x**4 - 16 * x**2 + 5 * x) / 2 + (y**4 - 16 * y**2 + 5 * y) / 2,
        "rosenbrock": (1 - x) ** 2 + 100 * (y - x * x) ** 2,
        "beale": (1.5 - x + x * y) ** 2 + (2.25 - x + x * y * y) ** 2 + (2.625 - x + x * y * y * y) ** 2,
        "himmelblau": (x * x + y - 11) ** 2 + (x + y * y - 7) ** 2,
        "rastrigin": 20 + x * x - 10 * cos(2 * pi * x) + y * y - 10 * cos(2 * pi * y),
        "ackley": 20 + e - 20 * exp(-0.2 * np.sqrt((x * x + y * y) / 2))
        - exp((cos(2 * pi * x) + cos(2 * pi * y)) / 2),
        "ravine": (u * u / 10 + 10 * v * v) / 2,
        "saddle": x * x / 2 + y**4 / 4 - y * y / 2,
        "quadratic": (5 * x * x + y * y / 5) / 2,
        "matrix-regression": (4 * x * x + 0.16 * y * y) / 2,
        "matrix-steep": (4 * x * x + 0.04 * y * y) / 2,
        "rank-deficient": x * x / 2,
    }[name]  # fmt: skip


#: How many (global minima, other minima, saddles, maxima) lie in the box; counts known from the literature or by hand.
KNOWN = {
    "styblinski-tang": (1, 3, 4, 1),
    "rosenbrock": (1, 0, 0, 0),
    "beale": (1, 0, 2, 0),
    "himmelblau": (4, 0, 4, 1),
    "rastrigin": (1, 120, 220, 100),
    "ackley": (1, 120, 220, 100),
    "ravine": (1, 0, 0, 0),
    "saddle": (2, 0, 1, 0),
    "quadratic": (1, 0, 0, 0),
    "matrix-regression": (1, 0, 0, 0),
    "matrix-steep": (1, 0, 0, 0),
}


@pytest.mark.parametrize("name", LANDSCAPES)
def test_is_its_formula(name):
    landscape = make_landscape(name)
    for x, y in ((0.3, -0.7), (-1.9, 1.1), landscape.start):
        value = landscape.fn(landscape.init((x, y)))
        # float32 keeps seven digits of the largest term, about 1e3 here
        np.testing.assert_allclose(value, by_hand(name, x, y), rtol=2e-5, atol=2e-5)


def test_muon_sees_a_matrix_where_the_landscape_is_one():
    assert make_landscape("matrix-regression").shape == make_landscape("rank-deficient").shape == (2, 2)
    assert all(make_landscape(name).shape == (2,) for name in list(LANDSCAPES)[:9])


class TestStationaryPoints:
    @pytest.mark.parametrize("name", KNOWN)
    def test_all_are_found(self, name):
        kinds = [point.kind for point in stationary_points(make_landscape(name))]
        assert tuple(map(kinds.count, ("global minimum", "local minimum", "saddle", "maximum"))) == KNOWN[name]
        assert len(kinds) == sum(KNOWN[name])

    @pytest.mark.parametrize("name", LANDSCAPES)
    def test_have_no_gradient_and_the_curvature_of_their_kind(self, name, x64):
        landscape = make_landscape(name)
        points = [point for point in stationary_points(landscape) if len(point.eigenvalues)]
        params = jnp.asarray(np.stack([point.params for point in points])) if points else jnp.zeros((0, 2))
        gradients = jax.jit(jax.vmap(jax.grad(landscape.fn)))(params)
        assert np.max(np.abs(gradients), initial=0) < 1e-8  # what Newton's method leaves at curvatures up to 1,000
        hessians = np.asarray(jax.jit(jax.vmap(jax.hessian(landscape.fn)))(params)).reshape(len(points), -1)
        for point, hessian in zip(points, hessians, strict=True):
            size = point.params.size
            eigenvalues = np.linalg.eigvalsh(hessian.reshape(size, size))
            np.testing.assert_allclose(point.eigenvalues, eigenvalues, atol=1e-9 * np.max(np.abs(eigenvalues)))
            signs = {"saddle": {-1, 1}, "maximum": {-1}, "valley": {0, 1}}.get(point.kind, {1})
            assert set(np.sign(np.where(np.abs(eigenvalues) < 1e-9, 0, eigenvalues))) == signs
            np.testing.assert_allclose(point.value, landscape.fn(jnp.asarray(point.params)), atol=1e-12)

    @pytest.mark.parametrize("name", ["styblinski-tang", "himmelblau", "ackley", "rastrigin"])
    def test_no_minimum_of_a_fine_grid_is_missed(self, name):
        landscape = make_landscape(name)
        (low, high), _ = landscape.box
        side = np.linspace(low, high, 401)
        x, y = np.meshgrid(side, side, indexing="ij")
        values = landscape.values(x, y).astype(np.float64)
        inner = values[1:-1, 1:-1]
        neighbors = [
            values[1 + i : 400 + i, 1 + j : 400 + j] for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j
        ]  # fmt: skip
        lowest = np.all([inner < each for each in neighbors], axis=0)
        places = np.stack([x[1:-1, 1:-1][lowest], y[1:-1, 1:-1][lowest]], axis=-1)
        found = np.stack([point.params for point in minima(landscape)])
        spacing = side[1] - side[0]
        distances = np.abs(places[:, None] - found[None]).max(-1)
        # A diagonal valley can put the grid's lowest point two cells away from the true one.
        assert np.all(distances.min(axis=1) < 2.5 * spacing) and len(places) >= len(found) - 1

    def test_ackleys_kink_is_its_global_minimum(self):
        lowest = stationary_points(make_landscape("ackley"))[0]
        assert lowest.kind == "global minimum" and lowest.value == pytest.approx(0, abs=1e-12)
        assert not lowest.eigenvalues.size
        assert np.all(jax.grad(make_landscape("ackley").fn)(jnp.zeros(2)) == 0)

    def test_styblinski_tang_has_two_to_the_d_minima(self):
        found = minima(styblinski_tang(4))
        assert len(found) == 16 and [point.kind for point in found].count("global minimum") == 1
        # Surjanovic & Bingham give -39.16599 d at -2.903534.
        assert found[0].value == pytest.approx(-39.16599 * 4, rel=1e-5)
        np.testing.assert_allclose(found[0].params, -2.903534, atol=1e-6)

    def test_too_many_are_refused(self):
        with pytest.raises(ValueError, match=r"3\^12 stationary points"):
            stationary_points(styblinski_tang(12))

    def test_a_valley_is_listed_once_where_it_is_nearest_to_the_start(self):
        landscape = make_landscape("rank-deficient")
        (valley,) = stationary_points(landscape)
        assert valley.kind == "valley"
        np.testing.assert_allclose(landscape.plane.coordinates(valley.params), [0, landscape.start[1]], atol=1e-9)


class TestPlane:
    @pytest.mark.parametrize("name", LANDSCAPES)
    def test_coordinates_and_params_are_inverse(self, name):
        plane = make_landscape(name).plane
        at = np.random.default_rng(0).normal(size=(5, 2))
        np.testing.assert_allclose(plane.coordinates(plane.params(at[:, 0], at[:, 1])), at, atol=1e-12)

    def test_coordinates_of_a_matrix_are_the_singular_values_of_the_error(self):
        landscape = make_landscape("matrix-regression")
        error = landscape.plane.params(3.0, 2.0) - landscape.plane.origin
        np.testing.assert_allclose(np.linalg.svd(error, compute_uv=False), [3, 2], rtol=1e-12)

    def test_more_coordinates_are_drawn_over_the_first_two(self):
        landscape = styblinski_tang(3)
        assert landscape.init().shape == (3,) and landscape.values(np.zeros((4, 5)), np.zeros((4, 5))).shape == (4, 5)


class TestNoise:
    def test_is_in_the_gradient_alone_and_has_its_size(self):
        landscape = make_landscape("quadratic").with_noise(0.5)
        x = landscape.init()
        keys = jax.random.split(jax.random.key(0), 4_000)
        values, gradients = jax.vmap(lambda key: jax.value_and_grad(landscape.loss)(x, key))(keys)
        assert np.all(values == landscape.fn(x))
        errors = np.asarray(gradients - jax.grad(landscape.fn)(x))
        # 8,000 draws know a deviation to 0.8 % and a mean to 0.8 % of it
        np.testing.assert_allclose(errors.std(), 0.5, rtol=0.04)
        np.testing.assert_allclose(errors.mean(), 0, atol=0.03)

    def test_without_it_the_key_does_nothing(self):
        landscape = make_landscape("saddle")
        x = landscape.init()
        assert np.all(jax.grad(landscape.loss)(x, jax.random.key(0)) == jax.grad(landscape.fn)(x))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_landscape("valley"), "landscape must be one of 'styblinski-tang', .*; got 'valley'"),
        (lambda: quadratic(0.5), "condition_number must be a number >= 1, got 0.5"),
        (lambda: styblinski_tang(1), "dimensions must be an integer >= 2, got 1"),
        (lambda: make_landscape("saddle").with_noise(-1), "noise must be a number >= 0, got -1"),
    ],
)
def test_a_wrong_argument_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
