"""Every path of the iteration against the obvious one in NumPy, and the laws an orthogonalization holds."""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxopt_tour.coefficients import (
    BY_NAME,
    PRESCALES,
    PolynomialCoefficients,
    RationalCoefficients,
    as_coefficients,
    cans,
    keller_jordan,
    polar_express,
    zolotarev,
)
from jaxopt_tour.coefficients.operations import operations
from jaxopt_tour.orthogonalization import plan
from jaxopt_tour.orthogonalization.orthogonalizer import Orthogonalizer, orthogonalize
from jaxopt_tour.orthogonalization.plan import INVERSES_FROM, Key, Matrices, plan_groups, plan_iteration
from jaxopt_tour.orthogonalization.run import iterate, run_groups

NAMES = [name for name in BY_NAME if name != "exact"]
POLYNOMIALS = {name: value for name in BY_NAME if isinstance(value := as_coefficients(name), PolynomialCoefficients)}
POLYNOMIALS["degree 17"] = polar_express(2, 1e-2, degree=17)
RATIONALS = {
    "2 steps": zolotarev(),
    "2 inverses": zolotarev(1, 2e-3, inverses=2),
    "3 steps": zolotarev(3, 1e-2),
    "2 steps of 2 inverses": zolotarev(2, 1e-2, "frobenius", inverses=2),
}
SHAPES = [(5, 5), (3, 8), (9, 4), (1, 6), (6, 1), (1, 1), (24, 96)]


def by_hand(x: np.ndarray, coefficients: PolynomialCoefficients | RationalCoefficients, eps: float = 0.0) -> np.ndarray:
    """Scale by the norm of the singular values, then apply the functions one after the other."""
    if x.shape[0] > x.shape[1]:
        return by_hand(x.T, coefficients, eps).T
    if coefficients.prescale == "aol":
        x = x / (np.sqrt(np.abs(x @ x.T).sum(axis=1, keepdims=True)) + eps)
    else:
        p = {"frobenius": 2, "schatten4": 4, "schatten8": 8}[coefficients.prescale]
        x = x / ((np.linalg.svd(x, compute_uv=False) ** p).sum() ** (1 / p) + eps)
    if isinstance(coefficients, RationalCoefficients):
        for constant, weights, shifts in coefficients.functions:
            gram, identity = x @ x.T, np.eye(len(x))
            inverses = [np.linalg.inv(gram + shift * identity) for shift in shifts]
            x = (constant * identity + sum(a * w for a, w in zip(weights, inverses, strict=True))) @ x
        return x
    for polynomial in coefficients.polynomials:
        gram = x @ x.T
        x = sum(c * np.linalg.matrix_power(gram, k) for k, c in enumerate(polynomial)) @ x
    return x


@pytest.mark.parametrize("form", ["standard", "gram"])
@pytest.mark.parametrize(
    ("name", "prescale"),
    # Every prescale for a quintic, two for a cubic; every other value with one of them.
    sorted(
        {
            *(("polar_express", prescale) for prescale in PRESCALES),
            ("cubic", "frobenius"),
            *((name, "schatten8") for name in POLYNOMIALS),
        }
    ),
)
def test_both_forms_agree_with_the_iteration_by_hand(name: str, prescale: str, form: str, x64: None) -> None:
    rng = np.random.default_rng(0)
    coefficients = dataclasses.replace(POLYNOMIALS[name], prescale=prescale)
    # Every shape for a quintic, a cubic and coefficients of degree 17; the others differ from them in numbers alone.
    shapes = SHAPES if name in ("polar_express", "cans", "degree 17") else [(3, 8), (9, 4)]
    for shape, eps in [*((shape, 0.0) for shape in shapes), ((3, 8), 1e-4)]:
        x = 1e-2 * rng.normal(size=shape)
        ours = Orthogonalizer(coefficients, form=form, eps=eps)(jnp.asarray(x))
        # float64, at most ten steps of products of at most 96 terms: 1e-12 and room for a steep polynomial. The powers
        # that the one by hand sums have coefficients up to 3e5 in degree 17.
        np.testing.assert_allclose(ours, by_hand(x, coefficients, eps), atol=1e-9 if coefficients.degree > 5 else 1e-10)


@pytest.mark.parametrize(
    ("name", "prescale"),
    [
        *((name, "schatten4") for name in RATIONALS),
        ("2 steps", "frobenius"),
        ("2 steps", "aol"),
        ("2 steps", "schatten8"),
    ],
)
@pytest.mark.slow
def test_inverses_agree_with_the_iteration_by_hand(name: str, prescale: str, x64: None) -> None:
    rng = np.random.default_rng(0)
    coefficients = dataclasses.replace(RATIONALS[name], prescale=prescale)
    # Also a matrix of several blocks, the last of them not full.
    for shape, eps in [((5, 5), 0.0), ((9, 4), 0.0), ((1, 6), 0.0), ((150, 170), 0.0), ((3, 8), 1e-4)]:
        x = 1e-2 * rng.normal(size=shape)
        # float64, at a condition of R + c I of up to 1e5.
        np.testing.assert_allclose(
            Orthogonalizer(coefficients, eps=eps)(jnp.asarray(x)), by_hand(x, coefficients, eps), atol=1e-9
        )


def test_inverses_in_float32_on_whatever_comes() -> None:
    """Singular and graded Gram matrices included: R + c I stays positive definite, and little is added to the error."""
    rng = np.random.default_rng(9)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape)

    m, n = 130, 150
    cases = {
        "ones": np.ones((m, n)),
        "rank one": normal(m, 1) @ normal(1, n),
        "rank one and a little": normal(m, 1) @ normal(1, n) + 1e-4 * normal(m, n),
        "repeated rows": np.repeat(normal(m // 5, n), 5, axis=0),
        "graded rows": normal(m, n) * np.geomspace(1, 1e-12, m)[:, None],
        "graded columns": normal(m, n) * np.geomspace(1, 1e-12, n),
        "zero rows": normal(m, n) * (np.arange(m) % 3 == 0)[:, None],
        "heavy tails": normal(m, n) ** 9,
        "one entry": np.eye(m, n) * (np.arange(n) == 3),
        "huge": 1e30 * normal(m, n),
        "tiny": 1e-30 * normal(m, n),
    }
    for_default_and_fast = {name: RATIONALS[name] for name in ("2 steps", "2 inverses")}
    for case, x in cases.items():
        x = x.astype(np.float32)
        for name, coefficients in for_default_and_fast.items():
            ours = np.asarray(orthogonalize(jnp.asarray(x), coefficients), np.float64)
            expected = by_hand(x.astype(np.float64), coefficients)
            # A condition of 1e5 and the digits of float32.
            assert np.linalg.norm(ours - expected) < 0.06 * np.linalg.norm(expected), (case, name)
    assert not np.asarray(orthogonalize(jnp.zeros((m, n)), zolotarev())).any()


def test_the_default_is_what_it_says_on_either_side_of_the_bound() -> None:
    rng = np.random.default_rng(10)
    for m, coefficients in ((INVERSES_FROM, zolotarev()), (INVERSES_FROM - 1, polar_express())):
        x = jnp.asarray(rng.normal(size=(m, m + 2)), jnp.float32)
        np.testing.assert_array_equal(orthogonalize(x), orthogonalize(x, coefficients))


@pytest.mark.parametrize("form", ["standard", "gram"])
@pytest.mark.parametrize("degree", [(9,), (9, 9), (5, 9, 17), (9, 17, 17), (17, 5, 9)])
def test_steps_of_every_degree_agree_with_the_iteration_by_hand(degree: tuple[int, ...], form: str, x64: None) -> None:
    coefficients = polar_express(len(degree), 1e-2, degree=degree)
    for shape in ((5, 5), (9, 4), (24, 96)):
        x = np.random.default_rng(5).normal(size=(2, *shape))
        ours = Orthogonalizer(coefficients, form=form)(jnp.asarray(x))
        np.testing.assert_allclose(ours, [by_hand(matrix, coefficients) for matrix in x], atol=1e-9)  # as above


@pytest.mark.parametrize(
    ("coefficients", "form"),
    [
        *itertools.product((polar_express(), POLYNOMIALS["degree 17"]), ("standard", "gram")),
        *((polar_express(2, 1e-2, degree=9), form) for form in ("standard", "gram")),
        *((coefficients, "gram") for coefficients in RATIONALS.values()),
    ],
)
def test_gradients_agree_with_finite_differences(
    coefficients: PolynomialCoefficients | RationalCoefficients, form: str, x64: None
) -> None:
    rng = np.random.default_rng(1)
    x, weights, direction = rng.normal(size=(3, 2, 3, 5))

    @jax.jit
    @jax.value_and_grad
    def loss(x: jax.Array) -> jax.Array:
        return jnp.sum(Orthogonalizer(coefficients, form=form)(x) * weights)

    step = 1e-6
    difference = (loss(x + step * direction)[0] - loss(x - step * direction)[0]) / (2 * step)
    # Central differences at 1e-6 in float64: truncation 1e-12, rounding 1e-10, times derivatives of size 1e2.
    np.testing.assert_allclose(np.sum(loss(x)[1] * direction), difference, rtol=1e-6)
    assert np.isfinite(loss(np.zeros((2, 3, 5)))[1]).all()


@pytest.mark.parametrize("form", ["standard", "gram"])
def test_a_batch_is_its_matrices_one_by_one(form: str) -> None:
    x = np.random.default_rng(2).normal(size=(2, 3, 8, 20)).astype(np.float32)
    orthogonalizer = Orthogonalizer(form=form)
    together = orthogonalizer(jnp.asarray(x))
    apart = np.stack([[orthogonalizer(jnp.asarray(m)) for m in row] for row in x])
    np.testing.assert_allclose(together, apart, atol=2e-6)  # float32: the batched product may sum in another order


# Few shapes: each costs a compilation, and the laws are about values.
@given(
    shape=st.sampled_from([(5, 5), (3, 8)]),
    seed=st.integers(0, 2**16),
    exponent=st.integers(-90, 90),
    name=st.sampled_from(NAMES),
)
def test_laws(shape: tuple[int, int], seed: int, exponent: int, name: str) -> None:
    """Scale invariance (exact for powers of two), wide/tall symmetry and orthogonal equivariance."""
    rng = np.random.default_rng(seed)
    m, n = shape
    x = rng.normal(size=shape).astype(np.float32)
    coefficients = as_coefficients(name)
    o = np.asarray(orthogonalize(jnp.asarray(x), coefficients))
    np.testing.assert_array_equal(orthogonalize(jnp.asarray(np.ldexp(x, exponent)), coefficients), o)
    # Sums in another order; that rounding, 1e-7, grows by a few hundred on the way from small singular values.
    np.testing.assert_allclose(orthogonalize(jnp.asarray(x.T), coefficients), o.T, atol=1e-4)
    if coefficients.prescale != "aol":  # type: ignore[union-attr] # AOL scales rows, which are not invariant
        u, v = (np.linalg.qr(rng.normal(size=(k, k)))[0].astype(np.float32) for k in (m, n))
        turned = orthogonalize(jnp.asarray(u @ x @ v), coefficients)
        # Rounding of the turned input, 1e-7, grows by the steepest step at zero, at most 5^5 for tiny singular values.
        np.testing.assert_allclose(turned, u @ o @ v, atol=2e-3)


@pytest.mark.parametrize("form", ["standard", "gram"])
@pytest.mark.parametrize("size", [0.0, 1e-38, 1e-30, 1e30, 3e38])
def test_any_size_of_gradient_is_finite(size: float, form: str) -> None:
    x = jnp.full((3, 4), size, jnp.float32)
    o = Orthogonalizer(form=form)(x)
    # float32 flushes 1e-38 to zero; every other matrix here is rank one and ends with one singular value near 1.
    expected = 0.0 if size < 1e-37 else 1.0
    np.testing.assert_allclose(jnp.linalg.norm(o), expected, atol=0.02)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    # Polar error against the exact factor at 64 x 128: float32 shows the coefficients' own error, 0.006 at this
    # spectrum; float16 keeps 11 bits and bfloat16 8, and each step doubles the rounding of the one before.
    [("float32", 0.01), ("float16", 0.03), ("bfloat16", 0.06)],
)
@pytest.mark.parametrize("shape", [(64, 128), (128, 64)])
def test_half_precision_iterations_stay_near_the_polar_factor(
    dtype: str, tolerance: float, shape: tuple[int, int]
) -> None:
    x = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    o = Orthogonalizer(dtype=dtype)(jnp.asarray(x))
    assert o.dtype == jnp.float32
    exact = np.asarray(orthogonalize(jnp.asarray(x), "exact"))
    assert np.linalg.norm(o - exact) / np.linalg.norm(exact) < tolerance


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "tolerance"), [((64, 128), 1e-4), ((128, 128), 1e-3)])
def test_float32_is_enough_for_degree_17(shape: tuple[int, int], tolerance: float) -> None:
    """What float32 adds to the polar error; in the Gram form more with every step."""
    x = np.random.default_rng(6).normal(size=shape).astype(np.float32)
    for coefficients in (POLYNOMIALS["degree 17"], polar_express(3, 3e-3, degree=(9, 17, 17))):
        expected = by_hand(x.astype(np.float64), coefficients)
        for form in ("standard", "gram"):
            ours = Orthogonalizer(coefficients, form=form, dtype="float32")(jnp.asarray(x))
            error = np.linalg.norm(ours - expected)
            assert error / np.linalg.norm(expected) < tolerance, (coefficients.steps, form)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_dtype_of_the_result_is_that_of_the_input(dtype: str) -> None:
    x = jnp.asarray(np.random.default_rng(4).normal(size=(4, 6)), dtype)
    assert orthogonalize(x).dtype == x.dtype
    assert orthogonalize(x, "exact").dtype == x.dtype


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 4, 5), (2, 0, 5)])
def test_empty_matrices_pass(shape: tuple[int, ...]) -> None:
    assert orthogonalize(jnp.zeros(shape)).shape == shape


@pytest.mark.parametrize("form", ["standard", "gram"])
def test_steps_of_degree_9_in_a_loop_are_those_without(form: str, monkeypatch: pytest.MonkeyPatch, x64: None) -> None:
    x = jnp.asarray(np.random.default_rng(8).normal(size=(2, 6, 9)))
    orthogonalizer = Orthogonalizer(polar_express(4, 1e-2, degree=9), form=form)
    unrolled = jax.jit(lambda x: orthogonalizer(x))(x)
    monkeypatch.setattr(plan, "LOOP_FROM", 1)
    in_a_loop = jax.jit(lambda x: orthogonalizer(x))
    assert "while" in in_a_loop.lower(x).as_text()
    np.testing.assert_allclose(in_a_loop(x), unrolled, atol=1e-11)  # float64; XLA may order sums otherwise


@pytest.mark.parametrize("form", ["standard", "gram"])
def test_operations_are_those_of_the_products_in_the_traced_program(form: str) -> None:
    """The model against the dot_generals in the jaxpr, for one matrix and for a group of one."""
    mixed = polar_express(3, 1e-2, degree=(5, 9, 17))
    short = POLYNOMIALS["degree 17"]
    m, n = 8, 32
    x, key = jnp.zeros((m, n)), Key("x", 0)
    for coefficients in (keller_jordan(4), keller_jordan(5), cans(6), polar_express(), short, mixed):
        orthogonalizer = Orthogonalizer(coefficients, form=form)
        iteration = plan_iteration(orthogonalizer, m, n, "float32", "cpu")
        groups = plan_groups(orthogonalizer, {key: Matrices(1, m, n, "float32")}, "cpu")
        for run in (
            lambda x, iteration=iteration: iterate(x, iteration, 0.0),
            lambda x, groups=groups: run_groups(groups, {key: x[None]}, 0.0)[key],
        ):
            counted = 0
            for equation in jax.make_jaxpr(run)(x).jaxpr.eqns:
                for inner in _flatten(equation):
                    if inner.primitive.name == "dot_general":
                        ((left, _), _) = inner.params["dimension_numbers"]
                        contracted = inner.invars[0].aval.shape[left[0]]
                        counted += 2 * contracted * int(np.prod(inner.outvars[0].aval.shape))
            assert counted == operations(coefficients, m, n, form) == iteration.operations(m, n), coefficients.name


def _flatten(equation: object) -> list:
    inner = [equation]
    for value in equation.params.values():  # type: ignore[attr-defined]
        jaxpr = getattr(value, "jaxpr", None)
        if jaxpr is not None:
            inner += [leaf for sub in getattr(jaxpr, "eqns", []) for leaf in _flatten(sub)]
    return inner


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_takes_the_polynomials_given_for_it(dtype: str) -> None:
    x = jnp.asarray(np.random.default_rng(7).normal(size=(8, 20)), jnp.float32)
    in_half = Orthogonalizer(polar_express(4, 1e-2), dtype=dtype)
    np.testing.assert_array_equal(Orthogonalizer("fast", dtype=dtype)(x), in_half(x))
