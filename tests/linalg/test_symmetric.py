"""Symmetric products by every method: the naive product, exact symmetry and derivatives."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from jaxopt_tour.linalg.symmetric import METHODS, symmetric_product
from jaxopt_tour.orthogonalization.orthogonalizer import Orthogonalizer

SHAPES = [(1, 1), (1, 4), (2, 3), (7, 5), (8, 8), (33, 20), (3, 2, 6, 9)]
EMPTY = [(0, 3), (3, 0), (0, 4, 5), (2, 0, 5)]


def naive(left: Any, right: Any) -> np.ndarray:
    left, right = np.asarray(left, np.float64), np.asarray(right, np.float64)
    return np.einsum("...ik,...jk->...ij", left, right)


def commuting_pair(shape: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two polynomials of one symmetric matrix of unit norm."""
    a = np.random.default_rng(seed).normal(size=shape)
    a = a + a.swapaxes(-1, -2)
    a /= np.linalg.norm(a, axis=(-2, -1), keepdims=True)
    return a, 0.3 * a - 2.0 * a @ a


@pytest.mark.parametrize("blocks", [1, 2, 3, 5])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_method_is_the_naive_product(shape: tuple[int, ...], method: str, blocks: int, x64: None) -> None:
    product = functools.partial(symmetric_product, method=method, blocks=blocks)
    x = np.random.default_rng(0).normal(size=shape)
    # float64 sums of at most 20 products of size 1.
    gram = product(jnp.asarray(x), jnp.asarray(x))
    np.testing.assert_allclose(gram, naive(x, x), atol=1e-12)
    a, b = commuting_pair((*shape[:-1], shape[-2]))
    for right_symmetric in (False, True):
        both = product(jnp.asarray(a), jnp.asarray(b), right_symmetric=right_symmetric)
        np.testing.assert_allclose(both, naive(a, b), atol=1e-12)
    if method == "blocks":
        # Outside the diagonal's blocks, which are computed whole, one triangle mirrors the other.
        rows = np.arange(shape[-2])
        block = np.searchsorted([i * shape[-2] // blocks for i in range(1, blocks + 1)], rows, side="right")
        mirrored = block[:, None] != block[None, :]
        np.testing.assert_array_equal(gram[..., mirrored], gram.mT[..., mirrored])
        np.testing.assert_array_equal(both[..., mirrored], both.mT[..., mirrored])


@pytest.mark.parametrize("wide_result", [False, True])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_narrow_dtypes_are_summed_in_float32(dtype: str, method: str, wide_result: bool) -> None:
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 33, 200)), dtype)
    p = symmetric_product(x, x, method=method, wide_result=wide_result)
    assert p.dtype == (jnp.float32 if wide_result else x.dtype)
    # Entries of size up to 300: sums of 200 terms in float32, then one rounding to the result's dtype.
    np.testing.assert_allclose(np.asarray(p, np.float64), naive(x, x), rtol=float(jnp.finfo(p.dtype).eps), atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", EMPTY)
def test_empty_matrices(shape: tuple[int, ...], method: str) -> None:
    x = jnp.zeros(shape, jnp.bfloat16)
    p = symmetric_product(x, x, method=method)
    np.testing.assert_array_equal(p, np.zeros((*shape[:-1], shape[-2])))


@pytest.mark.parametrize("right_symmetric", [False, True])
def test_derivatives_are_those_of_the_plain_product(right_symmetric: bool, x64: None) -> None:
    rng = np.random.default_rng(2)
    left, right, left_dot, right_dot = (jnp.asarray(rng.normal(size=(2, 5, 5))) for _ in range(4))
    weights = jnp.asarray(rng.normal(size=(2, 5, 5)))  # not symmetric: every entry of the cotangent counts

    def loss(method: str, left: jax.Array, right: jax.Array) -> jax.Array:
        p = symmetric_product(left, right, method=method, right_symmetric=right_symmetric)
        return jnp.sum(p * weights)

    plain, blocks = (functools.partial(loss, method) for method in ("plain", "blocks"))
    gradients = [jax.grad(f, argnums=(0, 1))(left, right) for f in (plain, blocks)]
    np.testing.assert_allclose(gradients[1][0], gradients[0][0], atol=1e-12)
    np.testing.assert_allclose(gradients[1][1], gradients[0][1], atol=1e-12)
    forward = [jax.jvp(f, (left, right), (left_dot, right_dot))[1] for f in (plain, blocks)]
    np.testing.assert_allclose(forward[1], forward[0], atol=1e-11)  # a sum of 50 such products
    # Second derivatives of a nonlinear loss at a Gram matrix, where values agree as well.
    x = left[0]
    hessians = [
        jax.hessian(lambda x, m=method: jnp.sum(jnp.sin(symmetric_product(x, x, method=m)) * weights[0]))(x)
        for method in ("plain", "blocks")
    ]
    np.testing.assert_allclose(hessians[1], hessians[0], atol=1e-11)


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_by_vmap_is_a_batch(method: str) -> None:
    x, y = np.random.default_rng(3).normal(size=(2, 3, 4, 6, 5)).astype(np.float32)
    product = functools.partial(symmetric_product, method=method)
    batch = product(jnp.asarray(x), jnp.asarray(y))
    np.testing.assert_allclose(jax.vmap(jax.vmap(product))(x, y), batch, atol=1e-5)  # float32, sums in another order
    one_right = jax.jit(jax.vmap(product, in_axes=(0, None)))(x, y[0])
    np.testing.assert_allclose(one_right, product(jnp.asarray(x), jnp.broadcast_to(y[0], x.shape)), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["standard", "gram"])
def test_the_iteration_by_blocks_is_the_plain_one(form: str, x64: None) -> None:
    x = jnp.asarray(np.random.default_rng(4).normal(size=(2, 9, 14)))
    plain, blocks = (Orthogonalizer(form=form, symmetric=symmetric) for symmetric in ("plain", "blocks"))
    # Ten float64 products; the polynomials multiply an error by at most 10 a step.
    np.testing.assert_allclose(blocks(x), plain(x), atol=1e-10)
    gradients = [jax.grad(lambda x, run=run: jnp.sum(run(x)[..., ::2] ** 3))(x) for run in (plain, blocks)]
    np.testing.assert_allclose(gradients[1], gradients[0], atol=1e-9)


def test_blocks_are_one_product_a_row_of_blocks() -> None:
    def products(method: str, **arguments: Any) -> int:
        run = jax.jit(lambda x: symmetric_product(x, x, method=method, **arguments))
        return run.lower(jnp.zeros((8, 4))).as_text().count("dot_general")

    assert products("plain") == 1
    assert products("blocks") == 3
    assert products("blocks", blocks=2) == 2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", METHODS)
def test_one_program_lowers_for_every_platform(dtype: str, method: str) -> None:
    run = jax.jit(lambda x: symmetric_product(x, x, method=method, right_symmetric=True))
    exported = export.export(run, platforms=["cpu", "cuda", "tpu"])(jax.ShapeDtypeStruct((2, 8, 8), dtype))
    x = jnp.asarray(commuting_pair((2, 8, 8))[0], dtype)
    np.testing.assert_array_equal(exported.call(x), run(x))


@pytest.mark.parametrize(
    ("arguments", "named"), [({"method": "half"}, "method"), ({"method": "auto"}, "method"), ({"blocks": 0}, "blocks")]
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], named: str) -> None:
    call = getattr(symmetric_product, "__wrapped__", symmetric_product)
    with pytest.raises(ValueError, match=named):
        call(jnp.zeros((2, 3)), jnp.zeros((2, 3)), **arguments)
