"""The orthogonalizer as a value: frozen, comparable, callable under every transformation, strict about arguments."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_tour as jt
from jaxopt_tour.coefficients import as_coefficients, polar_express, zolotarev
from jaxopt_tour.orthogonalization.orthogonalizer import as_orthogonalizer


def matrices(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def test_it_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        jt.Orthogonalizer().dtype = "bfloat16"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (jt.Orthogonalizer(), jt.Orthogonalizer("auto")),
        (jt.Orthogonalizer("polar_express", steps=8), jt.Orthogonalizer(polar_express(8))),
        (jt.Orthogonalizer(dtype="bfloat16"), jt.Orthogonalizer(dtype=jnp.bfloat16)),
        (jt.Orthogonalizer([(1.5, -0.5, 0.0)] * 3), jt.Orthogonalizer(((1.5, -0.5, 0.0),) * 3)),
        (as_orthogonalizer("fast"), jt.Orthogonalizer("fast")),
    ],
    ids=["default", "steps", "dtype", "sequence", "name"],
)
def test_equal_values_are_equal_and_hash_alike(one: jt.Orthogonalizer, other: jt.Orthogonalizer) -> None:
    assert one == other and hash(one) == hash(other)


def test_every_option_makes_another_value() -> None:
    values = {
        jt.Orthogonalizer(),
        jt.Orthogonalizer("polar_express"),
        jt.Orthogonalizer("polar_express", steps=8),
        jt.Orthogonalizer(form="gram"),
        jt.Orthogonalizer(dtype="float32"),
        jt.Orthogonalizer(eps=1e-7),
        jt.Orthogonalizer(symmetric="blocks"),
        jt.Orthogonalizer(grouping="none"),
    }
    assert len(values) == 8


def test_a_value_passes_through_and_a_copy_is_checked() -> None:
    orthogonalizer = jt.Orthogonalizer("cubic")
    assert as_orthogonalizer(orthogonalizer) is orthogonalizer
    assert dataclasses.replace(orthogonalizer, form="gram") == jt.Orthogonalizer("cubic", form="gram")
    with pytest.raises(ValueError, match="form"):
        dataclasses.replace(orthogonalizer, form="fast")


@pytest.mark.parametrize(
    ("name", "steps", "expected"),
    [
        ("polar_express", 8, 8),
        ("polar_express", None, 5),
        ("keller_jordan", 3, 3),
        ("cubic", 12, 12),
        ("cans", 4, 4),
        ("zolotarev", 3, 3),
        ("modula", 6, 6),
        ("modula", None, 6),
        ("turbo", 4, 4),
        ("you", 5, 5),
    ],
)
def test_steps_are_those_of_the_coefficients(name: str, steps: int | None, expected: int) -> None:
    assert jt.Orthogonalizer(name, steps=steps).value.steps == expected  # type: ignore[union-attr]


@pytest.mark.parametrize("coefficients", ["modula", polar_express(8), ((1.5, -0.5, 0.0),) * 3, "auto", "fast", "exact"])
def test_coefficients_that_are_chosen_with_their_steps_are_not_cut_short(coefficients: Any) -> None:
    with pytest.raises(
        ValueError, match=r"steps must be None for coefficients '(modula|polar_express|custom|auto|fast|exact)'"
    ):
        jt.Orthogonalizer(coefficients, steps=5)


X = matrices(2, 5, 9)


@pytest.mark.parametrize("name", ["auto", "keller_jordan", "zolotarev", "exact"])
def test_calls_agree_eagerly_and_under_jit_and_vmap(name: str) -> None:
    orthogonalizer = jt.Orthogonalizer(name)
    eager = orthogonalizer(X)
    assert eager.shape == X.shape and eager.dtype == X.dtype
    # Programs of one meaning may sum in another order: float32, lifted by the slopes at small singular values.
    np.testing.assert_allclose(jax.jit(lambda x: orthogonalizer(x))(X), eager, atol=2e-5)
    np.testing.assert_allclose(jax.vmap(orthogonalizer)(X), eager, atol=2e-5)
    np.testing.assert_allclose(jax.jit(jax.vmap(orthogonalizer))(X), eager, atol=2e-5)
    np.testing.assert_array_equal(jt.orthogonalize(X, orthogonalizer), eager)
    np.testing.assert_array_equal(jt.orthogonalize(X, name), eager)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["auto", "keller_jordan", "zolotarev", "exact"])
def test_gradients_are_those_of_finite_differences(name: str, x64: None) -> None:
    orthogonalizer = jt.Orthogonalizer(name)
    x, direction, weights = (jnp.asarray(a) for a in np.random.default_rng(1).normal(size=(3, 3, 5)))

    def loss(x: jax.Array) -> jax.Array:
        return jnp.sum(orthogonalizer(x) * weights)

    step = 1e-6
    difference = (loss(x + step * direction) - loss(x - step * direction)) / (2 * step)
    # Central differences at 1e-6 in float64, derivatives of size 1e2.
    np.testing.assert_allclose(jnp.sum(jax.grad(loss)(x) * direction), difference, rtol=1e-6)
    np.testing.assert_allclose(jnp.sum(jax.jit(jax.grad(loss))(x) * direction), difference, rtol=1e-6)


def test_a_value_is_a_static_argument() -> None:
    traces = []

    def run(orthogonalizer: jt.Orthogonalizer, x: jax.Array) -> jax.Array:
        traces.append(orthogonalizer)
        return orthogonalizer(x)

    compiled = jax.jit(run, static_argnums=0)
    for _ in range(2):
        compiled(jt.Orthogonalizer("polar_express", steps=4), X)
    assert len(traces) == 1


@pytest.mark.slow
def test_eps_may_be_an_array_and_has_a_derivative(x64: None) -> None:
    x = jnp.asarray(X, jnp.float64)

    def entries(eps: Any) -> jax.Array:
        return jnp.sum(jt.Orthogonalizer("polar_express", eps=eps)(x) ** 2)

    # Two programs of float64.
    np.testing.assert_allclose(entries(jnp.asarray(0.1)), entries(0.1), rtol=1e-9)
    difference = (entries(0.1 + 1e-6) - entries(0.1 - 1e-6)) / 2e-6
    np.testing.assert_allclose(jax.jit(jax.grad(entries))(0.1), difference, rtol=1e-5)
    many = jax.vmap(entries)(jnp.array([0.0, 0.1]))
    np.testing.assert_allclose(many, [entries(0.0), entries(0.1)], rtol=1e-9)


def test_eps_makes_small_matrices_smaller() -> None:
    o = jt.Orthogonalizer(eps=1e-3)(1e-9 * X)
    assert 0 < np.linalg.norm(o) < 0.1 * np.linalg.norm(jt.orthogonalize(X))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"coefficients": "newton"}, r"coefficients must be one of .*'keller_jordan'.*got 'newton'"),
        ({"coefficients": 5}, "coefficients"),
        ({"coefficients": None}, "coefficients"),
        ({"coefficients": []}, "polynomials"),
        ({"coefficients": [(1.0, 2.0)]}, "polynomials"),
        ({"coefficients": "polar_express", "steps": 0}, "steps must be an integer >= 1"),
        ({"coefficients": "polar_express", "steps": 2.5}, "steps"),
        ({"coefficients": "polar_express", "steps": True}, "steps"),
        ({"coefficients": "modula", "steps": 5}, r"steps must be None for coefficients 'modula', which have 6 steps"),
        ({"form": "fast"}, r"form must be one of 'auto', 'standard', 'gram'"),
        ({"coefficients": "zolotarev", "form": "standard"}, r"form must be 'auto' or 'gram'"),
        ({"dtype": "int32"}, "dtype must be"),
        ({"dtype": "float31"}, "dtype must be"),
        ({"dtype": jnp.zeros(2)}, "dtype must be"),
        (
            {"coefficients": zolotarev(), "dtype": "bfloat16"},
            r"dtype must be float32 or float64 .* inverses .*bfloat16",
        ),
        ({"coefficients": polar_express(2, degree=9), "dtype": "float16"}, r"dtype must be .* degree 9 .*float16"),
        ({"eps": -1.0}, "eps must be a number >= 0"),
        ({"eps": float("nan")}, "eps"),
        ({"eps": "small"}, "eps"),
        ({"symmetric": "half"}, r"symmetric must be one of 'auto', 'plain', 'blocks'"),
        ({"symmetric": "kernel"}, "symmetric"),
        ({"grouping": "apart"}, r"grouping must be one of 'auto', 'by_shape', 'none'"),
    ],
    ids=str,
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any], named: str) -> None:
    # A value of a wrong type is stopped by the type checks that the test run puts around the library, before ours.
    with pytest.raises((ValueError, TypeError), match=named):
        jt.Orthogonalizer(**arguments)


def test_options_are_given_by_name() -> None:
    with pytest.raises(TypeError, match="positional"):
        jt.Orthogonalizer("polar_express", 5)  # type: ignore[misc]


def plain_call(x: Any, orthogonalizer: jt.Orthogonalizer | None = None) -> Any:
    """A user's call, without the type checks that the test run puts around it."""
    call = inspect.unwrap(jt.Orthogonalizer.__call__)
    return call(orthogonalizer or jt.Orthogonalizer(), x)


@pytest.mark.parametrize(
    "x",
    [jnp.zeros(3), jnp.zeros(()), jnp.zeros((2, 3), jnp.complex64), jnp.zeros((2, 3), jnp.int32), [[1.0]], None],
    ids=["vector", "scalar", "complex", "integer", "list", "None"],
)
def test_what_is_no_matrix_is_named(x: Any) -> None:
    with pytest.raises(ValueError, match="x must be real floating matrices"):
        plain_call(x)


def test_numpy_arrays_are_matrices() -> None:
    np.testing.assert_array_equal(plain_call(np.asarray(X)), jt.orthogonalize(X))


@pytest.mark.parametrize("orthogonalizer", [5, None, {"steps": 5}], ids=str)
def test_what_is_no_orthogonalizer_is_named(orthogonalizer: Any) -> None:
    with pytest.raises(ValueError, match=r"coefficients must be a name \('auto', .*'keller_jordan'"):
        inspect.unwrap(as_coefficients)(orthogonalizer)
    with pytest.raises((ValueError, TypeError), match="orthogonalizer"):
        as_orthogonalizer(orthogonalizer)
    with pytest.raises(ValueError, match=r"orthogonalizer: coefficients must be one of .*'keller_jordan'"):
        as_orthogonalizer("newton")


def test_inject_hyperparams_says_what_to_do_with_a_callable_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    """Optax takes every callable argument for a schedule, and calls it."""
    monkeypatch.setattr(jt.Orthogonalizer, "__call__", inspect.unwrap(jt.Orthogonalizer.__call__))
    params = {"up": X[0]}
    orthogonalizer = jt.Orthogonalizer("keller_jordan")
    with pytest.raises(ValueError, match=r"optax.inject_hyperparams.*list 'orthogonalizer' in static_args"):
        optax.inject_hyperparams(jt.muon)(learning_rate=1e-2, orthogonalizer=orthogonalizer).init(params)
    static = optax.inject_hyperparams(jt.muon, static_args=("orthogonalizer",))
    tx = static(learning_rate=1e-2, orthogonalizer=orthogonalizer)
    plain = jt.muon(1e-2, orthogonalizer=orthogonalizer)
    injected, _ = tx.update(params, tx.init(params), params)
    expected, _ = plain.update(params, plain.init(params), params)
    # Injected numbers are float32 arrays: 1 - 0.95 is off by 1e-6 of itself.
    np.testing.assert_allclose(injected["up"], expected["up"], rtol=1e-4, atol=1e-7)
