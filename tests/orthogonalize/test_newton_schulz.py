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
from jax import export

from jaxopt_tour.orthogonalize import newton_schulz
from jaxopt_tour.orthogonalize.newton_schulz import INVERSES_FROM, Orthogonalization, cheaper_method, flops, orthogonalize
from jaxopt_tour.coefficients.by_name import (
    PRESCALES,
    BY_NAME,
    RationalCoefficients,
    PolynomialCoefficients,
    as_coefficients,
    auto,
    cans,
    fast,
    keller_jordan,
    polar_express,
    zolotarev,
)

SCHEDULE_NAMES = [name for name in BY_NAME if name != "exact"]
POLYNOMIALS = {name: made for name in BY_NAME if isinstance(made := as_coefficients(name), PolynomialCoefficients)}
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


@pytest.mark.parametrize("method", ["standard", "gram"])
@pytest.mark.parametrize("prescale", PRESCALES)
@pytest.mark.parametrize("name", POLYNOMIALS)
def test_both_forms_agree_with_the_iteration_by_hand(name: str, prescale: str, method: str, x64: None) -> None:
    rng = np.random.default_rng(0)
    coefficients = dataclasses.replace(POLYNOMIALS[name], prescale=prescale)
    # Every shape for a quintic, a cubic and coefficients of degree 17; the others differ from them in numbers alone.
    shapes = SHAPES if name in ("polar_express", "cans", "degree 17") else [(3, 8), (9, 4)]
    for shape, eps in [*((shape, 0.0) for shape in shapes), ((3, 8), 1e-4)]:
        x = 1e-2 * rng.normal(size=shape)
        ours = orthogonalize(jnp.asarray(x), coefficients, method=method, eps=eps)
        # float64, at most ten steps of products of at most 96 terms: 1e-12 and room for a steep polynomial. The powers
        # that the one by hand sums have coefficients up to 3e5 in degree 17.
        np.testing.assert_allclose(ours, by_hand(x, coefficients, eps), atol=1e-9 if coefficients.degree > 5 else 1e-10)


@pytest.mark.parametrize(
    ("name", "prescale"), [*itertools.product(RATIONALS, ["schatten4"]), *itertools.product(["2 steps"], PRESCALES)]
)
def test_inverses_agree_with_the_iteration_by_hand(name: str, prescale: str, x64: None) -> None:
    rng = np.random.default_rng(0)
    coefficients = dataclasses.replace(RATIONALS[name], prescale=prescale)
    # Also a matrix of several blocks, the last of them not full.
    for shape, eps in [((5, 5), 0.0), ((9, 4), 0.0), ((1, 6), 0.0), ((150, 170), 0.0), ((3, 8), 1e-4)]:
        x = 1e-2 * rng.normal(size=shape)
        # float64, at a condition of R + c I of up to 1e5.
        np.testing.assert_allclose(
            orthogonalize(jnp.asarray(x), coefficients, eps=eps), by_hand(x, coefficients, eps), atol=1e-9
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
    coefficients = {name: RATIONALS[name] for name in ("2 steps", "2 inverses")}  # what the default and fast are
    run = {name: jax.jit(lambda x, s=coefficients: orthogonalize(x, s)) for name, coefficients in coefficients.items()}
    for case, x in cases.items():
        x = x.astype(np.float32)
        for name, coefficients in coefficients.items():
            ours = np.asarray(run[name](jnp.asarray(x)), np.float64)
            expected = by_hand(x.astype(np.float64), coefficients)
            # A condition of 1e5 and the digits of float32.
            assert np.linalg.norm(ours - expected) < 0.06 * np.linalg.norm(expected), (case, name)
    assert not np.asarray(orthogonalize(jnp.zeros((m, n)), zolotarev())).any()


def test_where_inverses_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """On CPU, in full precision, from so many rows on, in the Gram form; else the polynomials that stand in."""
    m, coefficients = INVERSES_FROM, auto()
    assert isinstance(coefficients, RationalCoefficients)
    operation = Orthogonalization.of("auto")
    assert operation.coefficients_for(m, jnp.float32) is coefficients
    assert operation.coefficients_for(m, jnp.float64) is coefficients
    assert operation.form((m, m), jnp.float32) == "gram"
    quintics = polar_express()
    assert operation.coefficients_for(m - 1, jnp.float32) == quintics
    assert operation.coefficients_for(m, jnp.bfloat16) == quintics
    assert Orthogonalization.of("auto", method="standard").coefficients_for(m, jnp.float32) == quintics
    assert Orthogonalization.of(zolotarev()).coefficients_for(2, jnp.float32) == zolotarev()
    short = Orthogonalization.of("fast")
    assert short.coefficients_for(m - 1, jnp.float32) == fast().polynomial
    assert short.coefficients_for(m, jnp.float16) == polar_express(4, 1e-2)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert operation.coefficients_for(m, jnp.float32) == quintics
    assert operation.work_dtype(jnp.float32) == jnp.float16
    assert Orthogonalization.of(zolotarev()).work_dtype(jnp.bfloat16) == jnp.float32


def test_the_default_is_what_it_says_on_either_side_of_the_bound() -> None:
    rng = np.random.default_rng(10)
    for m, coefficients in ((INVERSES_FROM, zolotarev()), (INVERSES_FROM - 1, polar_express())):
        x = jnp.asarray(rng.normal(size=(m, m + 2)), jnp.float32)
        np.testing.assert_array_equal(orthogonalize(x), orthogonalize(x, coefficients))


def test_inverses_lower_for_every_platform() -> None:
    run = jax.jit(jax.vmap(lambda x: orthogonalize(x, "zolotarev")))
    exported = export.export(run, platforms=["cpu", "cuda", "tpu"])(jnp.zeros((2, 70, 80)))
    assert exported.platforms == ("cpu", "cuda", "tpu")


def test_inverses_refuse_what_they_cannot_do() -> None:
    with pytest.raises(ValueError, match=r"dtype must be float32 or float64 .* inverses alone, got bfloat16"):
        Orthogonalization.of(zolotarev(), dtype="bfloat16")
    with pytest.raises(ValueError, match=r"method must be 'auto' or 'gram'"):
        Orthogonalization.of("zolotarev", method="standard")


@pytest.mark.parametrize("method", ["standard", "gram"])
@pytest.mark.parametrize("degree", [(9,), (9, 9), (5, 9, 17), (9, 17, 17), (17, 5, 9)])
def test_steps_of_every_degree_agree_with_the_iteration_by_hand(
    degree: tuple[int, ...], method: str, x64: None
) -> None:
    coefficients = polar_express(len(degree), 1e-2, degree=degree)
    for shape in ((5, 5), (9, 4), (24, 96)):
        x = np.random.default_rng(5).normal(size=(2, *shape))
        ours = orthogonalize(jnp.asarray(x), coefficients, method=method)
        np.testing.assert_allclose(ours, [by_hand(matrix, coefficients) for matrix in x], atol=1e-9)  # as above


@pytest.mark.parametrize(
    ("coefficients", "method"),
    [
        *itertools.product((polar_express(), POLYNOMIALS["degree 17"]), ("standard", "gram")),
        *((polar_express(2, 1e-2, degree=9), method) for method in ("standard", "gram")),
        *((coefficients, "gram") for coefficients in RATIONALS.values()),
    ],
)
def test_gradients_agree_with_finite_differences(coefficients: PolynomialCoefficients | RationalCoefficients, method: str, x64: None) -> None:
    rng = np.random.default_rng(1)
    x, weights, direction = rng.normal(size=(3, 2, 3, 5))

    def loss(x: np.ndarray | jax.Array) -> jax.Array:
        return jnp.sum(orthogonalize(jnp.asarray(x), coefficients, method=method) * weights)

    step = 1e-6
    difference = (loss(x + step * direction) - loss(x - step * direction)) / (2 * step)
    # Central differences at 1e-6 in float64: truncation 1e-12, rounding 1e-10, times derivatives of size 1e2.
    np.testing.assert_allclose(jnp.sum(jax.grad(loss)(jnp.asarray(x)) * direction), difference, rtol=1e-6)
    assert np.isfinite(jax.grad(loss)(jnp.zeros((2, 3, 5)))).all()


@pytest.mark.parametrize("method", ["standard", "gram"])
def test_a_batch_is_its_matrices_one_by_one(method: str) -> None:
    x = np.random.default_rng(2).normal(size=(2, 3, 8, 20)).astype(np.float32)
    together = orthogonalize(jnp.asarray(x), method=method)
    apart = np.stack([[orthogonalize(jnp.asarray(m), method=method) for m in row] for row in x])
    np.testing.assert_allclose(together, apart, atol=2e-6)  # float32: the batched product may sum in another order


# Few shapes: each costs a compilation, and the laws are about values.
@given(
    shape=st.sampled_from(SHAPES[:4]),
    seed=st.integers(0, 2**16),
    exponent=st.integers(-90, 90),
    name=st.sampled_from(SCHEDULE_NAMES),
)
def test_laws(shape: tuple[int, int], seed: int, exponent: int, name: str) -> None:
    """Scale invariance (exact for powers of two), wide/tall symmetry and orthogonal equivariance."""
    rng = np.random.default_rng(seed)
    m, n = shape
    x = rng.normal(size=shape).astype(np.float32)
    coefficients = as_coefficients(name)
    o = np.asarray(orthogonalize(jnp.asarray(x), coefficients))
    np.testing.assert_array_equal(orthogonalize(jnp.asarray(np.ldexp(x, exponent)), coefficients), o)
    if m != n:  # a square matrix is not transposed, and rounds differently
        np.testing.assert_array_equal(orthogonalize(jnp.asarray(x.T), coefficients), o.T)
    if coefficients.prescale != "aol":  # type: ignore[union-attr] # AOL scales rows, which are not invariant
        u, v = (np.linalg.qr(rng.normal(size=(k, k)))[0].astype(np.float32) for k in (m, n))
        turned = orthogonalize(jnp.asarray(u @ x @ v), coefficients)
        # Rounding of the turned input, 1e-7, grows by the steepest step at zero, at most 5^5 for tiny singular values.
        np.testing.assert_allclose(turned, u @ o @ v, atol=2e-3)


@pytest.mark.parametrize("method", ["standard", "gram"])
@pytest.mark.parametrize("size", [0.0, 1e-38, 1e-30, 1e30, 3e38])
def test_any_size_of_gradient_is_finite(size: float, method: str) -> None:
    x = jnp.full((3, 4), size, jnp.float32)
    o = orthogonalize(x, method=method)
    # float32 flushes 1e-38 to zero; every other matrix here is rank one and ends with one singular value near 1.
    expected = 0.0 if size < 1e-37 else 1.0
    np.testing.assert_allclose(jnp.linalg.norm(o), expected, atol=0.02)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    # Polar error against the exact factor at 64 x 128: float32 shows the coefficients's own error (0.006 at this spectrum);
    # float16 keeps 11 bits and bfloat16 8, and each step doubles the rounding of the one before.
    [("float32", 0.01), ("float16", 0.03), ("bfloat16", 0.06)],
)
@pytest.mark.parametrize("shape", [(64, 128), (128, 64)])
def test_half_precision_iterations_stay_near_the_polar_factor(
    dtype: str, tolerance: float, shape: tuple[int, int]
) -> None:
    x = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    o = orthogonalize(jnp.asarray(x), dtype=dtype)
    assert o.dtype == jnp.float32
    exact = np.asarray(orthogonalize(jnp.asarray(x), "exact"))
    assert np.linalg.norm(o - exact) / np.linalg.norm(exact) < tolerance


@pytest.mark.parametrize(("shape", "tolerance"), [((64, 128), 1e-4), ((128, 128), 1e-3)])
def test_float32_is_enough_for_degree_17(shape: tuple[int, int], tolerance: float) -> None:
    """What float32 adds to the polar error; in the Gram form more with every step."""
    x = np.random.default_rng(6).normal(size=shape).astype(np.float32)
    for coefficients in (POLYNOMIALS["degree 17"], polar_express(3, 3e-3, degree=(9, 17, 17))):
        expected = by_hand(x.astype(np.float64), coefficients)
        for method in ("standard", "gram"):
            ours = orthogonalize(jnp.asarray(x), coefficients, method=method, dtype="float32")
            error = np.linalg.norm(ours - expected)
            assert error / np.linalg.norm(expected) < tolerance, (coefficients.steps, method)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_takes_the_stand_in_or_refuses(dtype: str) -> None:
    x = jnp.asarray(np.random.default_rng(7).normal(size=(8, 20)), jnp.float32)
    stand_in = polar_express(4, 1e-2)
    np.testing.assert_array_equal(orthogonalize(x, "fast", dtype=dtype), orthogonalize(x, stand_in, dtype=dtype))
    alone = polar_express(2, 1e-2, degree=9)
    for call in (lambda: orthogonalize(x, alone, dtype=dtype), lambda: Orthogonalization.of(alone, dtype=dtype)):
        with pytest.raises(ValueError, match=rf"dtype must be float32 or float64 .* degree 9 .* {dtype}"):
            call()


@pytest.mark.parametrize("backend", ["gpu", "tpu"])
def test_a_coefficients_for_full_precision_runs_in_it_on_every_backend(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    alone = Orthogonalization.of(polar_express(2, 1e-2, degree=(9, 17)))
    assert alone.work_dtype(jnp.float32) == alone.work_dtype(jnp.bfloat16) == jnp.float32
    assert Orthogonalization.of("fast").work_dtype(jnp.float32) != jnp.float32


@pytest.mark.parametrize("method", ["standard", "gram"])
def test_steps_of_degree_9_in_a_loop_are_those_without(method: str, monkeypatch: pytest.MonkeyPatch, x64: None) -> None:
    x = jnp.asarray(np.random.default_rng(8).normal(size=(2, 6, 9)))
    run = jax.jit(lambda x: orthogonalize(x, polar_express(4, 1e-2, degree=9), method=method))
    apart = run(x)
    monkeypatch.setattr(newton_schulz, "LOOP_FROM", 1)
    jax.clear_caches()
    assert "while" in run.lower(x).as_text()
    np.testing.assert_allclose(run(x), apart, atol=1e-11)  # float64; XLA may order sums otherwise


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_dtype_of_the_result_is_that_of_the_input(dtype: str) -> None:
    x = jnp.asarray(np.random.default_rng(4).normal(size=(4, 6)), dtype)
    assert orthogonalize(x).dtype == x.dtype
    assert orthogonalize(x, "exact").dtype == x.dtype


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 4, 5), (2, 0, 5)])
def test_empty_matrices_pass(shape: tuple[int, ...]) -> None:
    assert orthogonalize(jnp.zeros(shape)).shape == shape


def test_flops_are_those_of_the_products_in_the_traced_program() -> None:
    """The model against the dot_generals in the jaxpr."""
    mixed = polar_express(3, 1e-2, degree=(5, 9, 17))
    short = POLYNOMIALS["degree 17"]
    for coefficients in (keller_jordan(4), keller_jordan(5), cans(6), polar_express(), short, mixed):
        for method in ("standard", "gram"):
            m, n = 8, 32
            jaxpr = jax.make_jaxpr(lambda x, s=coefficients, f=method: orthogonalize(x, s, method=f))(jnp.zeros((m, n)))
            counted = 0
            for equation in jaxpr.jaxpr.eqns:
                for inner in _flatten(equation):
                    if inner.primitive.name == "dot_general":
                        ((left, _), _) = inner.params["dimension_numbers"]
                        contracted = inner.invars[0].aval.shape[left[0]]
                        counted += 2 * contracted * int(np.prod(inner.outvars[0].aval.shape))
            assert counted == flops(coefficients, m, n, method), (coefficients.name, method)


def _flatten(equation: object) -> list:
    inner = [equation]
    for value in equation.params.values():  # type: ignore[attr-defined]
        jaxpr = getattr(value, "jaxpr", None)
        if jaxpr is not None:
            inner += [leaf for sub in getattr(jaxpr, "eqns", []) for leaf in _flatten(sub)]
    return inner


def test_the_gram_form_is_chosen_for_wide_matrices_and_never_in_bfloat16() -> None:
    coefficients = keller_jordan()
    assert cheaper_method(coefficients, 768, 768, jnp.float32) == "standard"
    assert cheaper_method(coefficients, 768, 3072, jnp.float32) == "gram"
    assert cheaper_method(coefficients, 768, 3072, jnp.bfloat16) == "standard"
    assert cheaper_method(keller_jordan(5), 768, 3072, jnp.float16) == "gram"
    assert cheaper_method(keller_jordan(6), 768, 3072, jnp.float16) == "standard"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"coefficients": "unknown"}, "coefficients"),
        ({"method": "fast"}, "method"),
        ({"eps": -1.0}, "eps"),
        ({"dtype": "int32"}, "dtype"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict, named: str) -> None:
    # The checks of a user's call, without the type checks that the test run puts around it.
    call = getattr(orthogonalize, "__wrapped__", orthogonalize)
    with pytest.raises(ValueError, match=named):
        call(jnp.zeros((2, 3)), **arguments)
    with pytest.raises(ValueError, match="real floating"):
        call(jnp.zeros((2, 3), jnp.complex64))
    with pytest.raises(ValueError, match="matrices"):
        call(jnp.zeros((3,)))


def test_the_default_dtype_is_the_backends(monkeypatch: pytest.MonkeyPatch, x64: None) -> None:
    for backend, expected in {"cpu": "float32", "gpu": "float16", "tpu": "bfloat16"}.items():
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        operation = Orthogonalization.of("polar_express")
        assert operation.work_dtype(jnp.float32) == operation.work_dtype(jnp.bfloat16) == jnp.dtype(expected)
        assert operation.work_dtype(jnp.float64) == jnp.float64
        assert Orthogonalization.of("polar_express", dtype="float32").work_dtype(jnp.bfloat16) == jnp.float32
        x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 20)), jnp.float32)
        o = orthogonalize(x)
        assert o.dtype == jnp.float32
        # The coefficients's .01 at this condition number; eight bits over five steps.
        np.testing.assert_allclose(o, orthogonalize(x, "exact"), atol=0.05)
