"""Groups: whatever is processed together, every matrix comes out as it would alone."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_tour.coefficients import RationalCoefficients, zolotarev
from jaxopt_tour.mesh.run import orthogonalize_parameters
from jaxopt_tour.orthogonalization import plan, run
from jaxopt_tour.orthogonalization.orthogonalizer import Orthogonalizer
from jaxopt_tour.routing.axes import MatrixAxes

#: Shapes and axes that share a short side of 6: wide, tall, square, batched, a split, a convolution; others; nothing.
LEAVES: dict[str, tuple[tuple[int, ...], MatrixAxes]] = {
    "wide": ((6, 14), MatrixAxes(0, 1)),
    "tall": ((14, 6), MatrixAxes(0, 1)),
    "square": ((6, 6), MatrixAxes(0, 1)),
    "turned": ((6, 14), MatrixAxes(1, 0)),
    "scanned": ((3, 6, 20), MatrixAxes(1, 2)),
    "scanned, tall": ((2, 20, 6), MatrixAxes(1, 2)),
    "fused": ((6, 32), MatrixAxes(0, 1, split=(14, 12, 6))),
    "convolution": ((2, 2, 3, 5), MatrixAxes((0, 1, 2), 3)),
    "one row": ((1, 9), MatrixAxes(0, 1)),
    "one entry": ((1, 1), MatrixAxes(0, 1)),
    "empty": ((0, 4), MatrixAxes(0, 1)),
    "no batch": ((0, 4, 5), MatrixAxes(1, 2)),
    "zeros": ((6, 14), MatrixAxes(0, 1)),
}
AXES = {name: axes for name, (_, axes) in LEAVES.items()}


def leaves(dtype: str = "float64") -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    # Sizes far apart: a scale that leaked from one matrix to another would show.
    arrays = {name: 10.0 ** rng.integers(-12, 12) * rng.normal(size=shape) for name, (shape, _) in LEAVES.items()}
    return {name: jnp.asarray(0.0 * x if name == "zeros" else x, dtype) for name, x in arrays.items()}


def one_by_one(tree: dict[str, jax.Array], *arguments: Any, **options: Any) -> dict[str, np.ndarray]:
    """Every matrix alone."""
    orthogonalizer = Orthogonalizer(*arguments, **options)
    results = {}
    for name, leaf in tree.items():
        pieces = [
            np.stack([np.asarray(orthogonalizer(matrix)) for matrix in piece]) if len(piece) else piece
            for piece in AXES[name].to_matrices(leaf)
        ]
        results[name] = np.asarray(AXES[name].from_matrices([jnp.asarray(piece) for piece in pieces], leaf.shape))
    return results


@pytest.mark.parametrize(
    ("grouping", "form", "at_once"),
    [
        ("by_shape", "standard", 1),
        ("by_shape", "gram", 2),
        ("by_shape", "auto", 100),
        ("none", "gram", 2),
        ("auto", "standard", 2),
        ("auto", "auto", 2),
    ],
)
@pytest.mark.slow
def test_every_matrix_comes_out_as_alone(
    grouping: str, form: str, at_once: int, monkeypatch: pytest.MonkeyPatch, x64: None
) -> None:
    monkeypatch.setattr(run, "at_once", lambda *_: at_once)
    monkeypatch.setattr(plan, "SEPARATE_ROWS", range(6, 7))
    tree = leaves()
    # Under jit: what a compiled program of the same value and shapes may hold was made with other numbers.
    orthogonalizer = Orthogonalizer("polar_express", form=form, grouping=grouping)
    found = jax.jit(lambda tree: orthogonalize_parameters(orthogonalizer, tree, AXES))(tree)
    alone = one_by_one(tree, "polar_express", form=form)
    for name in tree:
        # float64 rounding, lifted at most 8 times a step on the way from the smallest singular values.
        np.testing.assert_allclose(found[name], alone[name], atol=1e-9, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("coefficients", [zolotarev(), zolotarev(1, 1e-2, "aol", inverses=2)], ids=["steps", "aol"])
def test_inverses_share_the_stack_of_gram_matrices(coefficients: RationalCoefficients, x64: None) -> None:
    tree = {name: leaf for name, leaf in leaves().items() if "scanned" in name or name in ("wide", "tall", "fused")}
    found = orthogonalize_parameters(Orthogonalizer(coefficients, eps=1e-7), tree, AXES)
    alone = one_by_one(tree, coefficients, eps=1e-7)
    for name in tree:
        np.testing.assert_allclose(found[name], alone[name], atol=1e-9, err_msg=name)  # conditions of 1e5


@pytest.mark.parametrize("coefficients", ["cans", "turbo", "keller_jordan", "exact"])
def test_every_prescale_survives_the_stack_of_gram_matrices(coefficients: str, x64: None) -> None:
    tree = {name: leaf for name, leaf in leaves().items() if "scanned" in name or name in ("wide", "tall", "fused")}
    orthogonalizer = Orthogonalizer(coefficients, form="auto" if coefficients == "exact" else "gram", eps=1e-7)
    found = orthogonalize_parameters(orthogonalizer, tree, AXES)
    alone = one_by_one(tree, coefficients, form="auto" if coefficients == "exact" else "standard", eps=1e-7)
    for name in tree:
        np.testing.assert_allclose(found[name], alone[name], atol=1e-9, err_msg=name)  # as above


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "work"), [("float16", None), ("bfloat16", "float16"), ("bfloat16", "bfloat16")])
def test_half_precision_keeps_its_dtype(dtype: str, work: str | None) -> None:
    tree = {
        name: jnp.asarray(leaf / jnp.maximum(jnp.abs(leaf).max(), 1e-30), dtype)
        for name, leaf in leaves("float32").items()
        if leaf.size
    }
    found = orthogonalize_parameters(Orthogonalizer("polar_express", dtype=work), tree, AXES)
    wide = {name: leaf.astype("float32") for name, leaf in tree.items()}
    reference = orthogonalize_parameters(Orthogonalizer("exact"), wide, AXES)
    for name in ("wide", "tall", "scanned", "convolution"):
        assert found[name].dtype == jnp.dtype(dtype)
        # The coefficients' own .02 at these condition numbers, and the rounding of eight bits over five steps.
        np.testing.assert_allclose(np.asarray(found[name], np.float64), reference[name], atol=0.06)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("coefficients", "form"), [("polar_express", "standard"), ("polar_express", "gram"), ("cubic", "gram")]
)
def test_a_loop_over_steps_makes_the_same_steps(
    coefficients: str, form: str, monkeypatch: pytest.MonkeyPatch, x64: None
) -> None:
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 7, 16)))
    orthogonalizer = Orthogonalizer(coefficients, form=form)

    def value_and_gradient() -> tuple[jax.Array, jax.Array]:
        @jax.jit
        @functools.partial(jax.grad, has_aux=True)
        def gradient(x: jax.Array) -> tuple[jax.Array, jax.Array]:
            o = orthogonalizer(x)
            return jnp.sum(o[..., ::2] ** 3), o

        of_x, o = gradient(x)
        return o, of_x

    unrolled, unrolled_gradient = value_and_gradient()
    monkeypatch.setattr(plan, "LOOP_FROM", 1)
    looped, looped_gradient = value_and_gradient()
    np.testing.assert_allclose(looped, unrolled, atol=1e-12)
    np.testing.assert_allclose(looped_gradient, unrolled_gradient, atol=1e-9)  # entries up to 10


def test_a_stack_holds_one_iteration_whatever_the_number_of_layers() -> None:
    orthogonalizer = Orthogonalizer("polar_express", form="gram", grouping="by_shape")

    def products(layers: int) -> int:
        tree = {str(i): jnp.zeros((6, 14) if i % 2 else (14, 6)) for i in range(layers)}
        axes = dict.fromkeys(tree, MatrixAxes(0, 1))
        program = jax.jit(lambda tree: orthogonalize_parameters(orthogonalizer, tree, axes)).trace(tree)
        return program.lower(lowering_platforms=("cpu",)).as_text().count("dot_general")

    # Beyond X X^T and Q X of the matrix itself, another layer adds nothing.
    assert products(8) - products(4) == 8


@pytest.mark.slow
@pytest.mark.parametrize("form", ["standard", "gram"])
def test_a_large_group_is_cut_into_stacks_of_one_length(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "STACK_COUNT", 4)
    rng = np.random.default_rng(0)

    def loops(layers: int, grouping: str = "auto") -> int:
        orthogonalizer = Orthogonalizer("polar_express", form=form, grouping=grouping)
        tree = {str(i): jnp.asarray(rng.normal(size=(6, 14)), "float32") for i in range(layers)}
        axes = dict.fromkeys(tree, MatrixAxes(0, 1))
        together = jax.jit(lambda tree: orthogonalize_parameters(orthogonalizer, tree, axes))
        found = together(tree)
        for name, leaf in tree.items():
            # The rounding of float32, lifted with small singular values.
            np.testing.assert_allclose(found[name], orthogonalizer(leaf), atol=1e-5, err_msg=name)
        return together.lower(tree).as_text().count("stablehlo.while")

    # Of three, then of four; no length from two to four divides eleven.
    assert [loops(9), loops(12), loops(11), loops(12, "by_shape")] == [3, 3, 1, 1]


@pytest.mark.slow
def test_coefficients_of_a_high_degree_share_the_stack_of_gram_matrices(x64: None) -> None:
    tree = {name: leaf for name, leaf in leaves().items() if "scanned" in name or name in ("wide", "tall", "fused")}
    found = orthogonalize_parameters(Orthogonalizer("fast", form="gram"), tree, AXES)
    alone = one_by_one(tree, "fast", form="standard")
    for name in tree:
        np.testing.assert_allclose(found[name], alone[name], atol=1e-8, err_msg=name)  # slopes of a hundred
