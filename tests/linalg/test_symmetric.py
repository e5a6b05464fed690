"""Symmetric products by every method: the naive product, exact symmetry, derivatives, and where each is chosen."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from jaxopt_tour.linalg import symmetric, symmetric_kernel
from jaxopt_tour.orthogonalize.newton_schulz import orthogonalize
from jaxopt_tour.linalg.symmetric import mirrored, symmetric_product
from jaxopt_tour.linalg.symmetric_kernel import Tiling, triangle_index

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
@pytest.mark.parametrize("method", ["auto", "plain", "blocks", "kernel"])
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


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("method", ["plain", "blocks"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_narrow_dtypes_are_summed_in_float32(dtype: str, method: str, keep: bool) -> None:
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 33, 200)), dtype)
    p = symmetric_product(x, x, method=method, keep=keep)
    assert p.dtype == (jnp.float32 if keep else x.dtype)
    # Entries of size up to 300: sums of 200 terms in float32, then one rounding to the result's dtype.
    np.testing.assert_allclose(np.asarray(p, np.float64), naive(x, x), rtol=float(jnp.finfo(p.dtype).eps), atol=1e-3)


@pytest.mark.parametrize("method", ["auto", "plain", "blocks", "kernel"])
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


@pytest.mark.parametrize("method", ["plain", "blocks"])
def test_a_batch_by_vmap_is_a_batch(method: str) -> None:
    x, y = np.random.default_rng(3).normal(size=(2, 3, 4, 6, 5)).astype(np.float32)
    product = functools.partial(symmetric_product, method=method)
    batch = product(jnp.asarray(x), jnp.asarray(y))
    np.testing.assert_allclose(jax.vmap(jax.vmap(product))(x, y), batch, atol=1e-5)  # float32, sums in another order
    one_right = jax.jit(jax.vmap(product, in_axes=(0, None)))(x, y[0])
    np.testing.assert_allclose(one_right, product(jnp.asarray(x), jnp.broadcast_to(y[0], x.shape)), atol=1e-5)


@pytest.mark.parametrize("method", ["standard", "gram"])
def test_the_iteration_by_blocks_is_the_plain_one(method: str, x64: None) -> None:
    x = jnp.asarray(np.random.default_rng(4).normal(size=(2, 9, 14)))
    run = functools.partial(orthogonalize, method=method)
    # Ten float64 products; the polynomials multiply an error by at most 10 a step.
    np.testing.assert_allclose(run(x, symmetric="blocks"), run(x, symmetric="plain"), atol=1e-10)
    gradients = [jax.grad(lambda x, s=s: jnp.sum(run(x, symmetric=s)[..., ::2] ** 3))(x) for s in ("plain", "blocks")]
    np.testing.assert_allclose(gradients[1], gradients[0], atol=1e-9)


def test_auto_follows_the_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    x = jnp.zeros((8, 4))
    monkeypatch.setattr(symmetric, "BLOCKS_FROM", {})

    def products(**arguments: Any) -> int:
        text = jax.jit(lambda x: symmetric_product(x, x, **arguments)).lower(x).as_text()
        return text.count("dot_general")

    assert products(method="plain") == products(method="kernel") == products() == 1
    assert products(method="blocks") == 3
    x = jnp.zeros((8, 8))
    monkeypatch.setattr(symmetric, "BLOCKS_FROM", {"cpu": 8})
    assert products(right_symmetric=True) == 3
    assert products() == 1
    monkeypatch.setattr(symmetric, "BLOCKS_FROM", {"cpu": 9})
    assert products(right_symmetric=True) == 1
    # Another platform's rule does not concern this one.
    monkeypatch.setattr(symmetric, "BLOCKS_FROM", {"tpu": 8})
    assert products(right_symmetric=True) == 1
    # A GPU that is not there changes nothing.
    monkeypatch.setattr(symmetric, "KERNEL_FROM", {"NVIDIA H100 80GB HBM3": 1})
    assert products() == 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("blocks_from", [{}, {"cpu": 8}, {"cpu": 8, "cuda": 8}])
def test_one_program_lowers_for_every_platform(
    dtype: str, blocks_from: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(symmetric, "BLOCKS_FROM", blocks_from)
    run = jax.jit(lambda x: symmetric_product(x, x, right_symmetric=True))
    exported = export.export(run, platforms=["cpu", "cuda", "tpu"])(jax.ShapeDtypeStruct((2, 8, 8), dtype))
    x = jnp.asarray(commuting_pair((2, 8, 8))[0], dtype)
    np.testing.assert_array_equal(exported.call(x), run(x))


@pytest.mark.parametrize(("arguments", "named"), [({"method": "half"}, "method"), ({"blocks": 0}, "blocks")])
def test_wrong_arguments_are_named(arguments: dict[str, Any], named: str) -> None:
    call = getattr(symmetric_product, "__wrapped__", symmetric_product)
    with pytest.raises(ValueError, match=named):
        call(jnp.zeros((2, 3)), jnp.zeros((2, 3)), **arguments)
    with pytest.raises(ValueError, match="symmetric"):
        getattr(orthogonalize, "__wrapped__", orthogonalize)(jnp.zeros((2, 3)), symmetric="half")


# The kernel. The interpreter of GPU kernels is slow, so that tiles are of 16 or 32 entries and cases few.


def test_triangle_index_visits_every_tile_of_the_triangle_once() -> None:
    for side in range(1, 14):
        visited = [tuple(map(int, triangle_index(i, side))) for i in range(side * (side + 1) // 2)]
        assert sorted(visited) == [(row, column) for row in range(side) for column in range(row + 1)]


def test_tilings_that_do_not_fit_are_refused() -> None:
    for sizes in ({"rows": 64, "columns": 96}, {"rows": 32}, {"rows": 96, "columns": 64, "square": 64}):
        with pytest.raises(ValueError, match="columns must divide"):
            Tiling(**sizes)


SMALL = Tiling(rows=16, columns=16, depth=16, steps=2, square=16, cores=2)
WIDE = Tiling(rows=32, columns=32, depth=16, steps=2, square=16, cores=1)


@pytest.fixture
def interpret() -> Any:
    """Parameters of Pallas' interpreter of GPU kernels, which JAX has from 0.10 on."""
    parameters = pytest.importorskip("jax._src.pallas.mosaic_gpu.interpret.params")
    if symmetric_kernel._pallas() is None:
        pytest.skip("this JAX's Pallas has another interface")
    return parameters.InterpretGPUParams()


@pytest.mark.parametrize(
    ("shape", "dtype", "out_dtype", "tiling"),
    [
        ((64, 16), "bfloat16", "bfloat16", SMALL),  # whole tiles, three of them for two cores
        ((2, 40, 24), "float16", "float32", SMALL),  # padded, a batch
        ((70, 33), "bfloat16", "float32", WIDE),  # several squares a tile, some of them above the diagonal
    ],
)
def test_the_kernel_is_the_naive_product(
    shape: tuple[int, ...], dtype: str, out_dtype: str, tiling: Tiling, interpret: Any
) -> None:
    x = jnp.asarray(np.random.default_rng(6).normal(size=shape), dtype)
    p = symmetric_kernel.symmetric_kernel(x, x, out_dtype, tiling=tiling, interpret=interpret)
    assert p.dtype == out_dtype
    # Sums of at most 33 terms in float32, then one rounding to the result's dtype.
    np.testing.assert_allclose(np.asarray(p, np.float64), naive(x, x), rtol=float(jnp.finfo(out_dtype).eps), atol=2e-5)
    np.testing.assert_array_equal(p, p.mT)


def test_the_kernel_mirrors_a_product_that_rounding_leaves_unsymmetric(interpret: Any) -> None:
    a, b = (jnp.asarray(x, jnp.float16) for x in commuting_pair((48, 48)))
    p = symmetric_kernel.symmetric_kernel(a, b, "float32", tiling=SMALL, interpret=interpret)
    np.testing.assert_array_equal(p, p.mT)
    # Rounding a and b to float16 leaves L R^T unsymmetric by about 48^(1/2) 2^-11 of their entries, of size 0.02.
    np.testing.assert_allclose(p, naive(a, b), atol=2e-5)
    assert np.abs(naive(a, b) - naive(a, b).T).max() > 0


def test_the_kernel_under_vmap_and_grad(interpret: Any) -> None:
    rng = np.random.default_rng(7)
    x = jnp.asarray(rng.normal(size=(2, 20, 10)), jnp.bfloat16)
    weights = jnp.asarray(rng.normal(size=(2, 20, 20)), jnp.float32)
    kernel = functools.partial(
        symmetric_kernel.symmetric_kernel, out_dtype="float32", tiling=SMALL, interpret=interpret
    )

    def loss(product: Any, x: jax.Array) -> jax.Array:
        return jnp.sum(jax.vmap(product)(x) * weights)

    by_kernel = jax.grad(functools.partial(loss, lambda x: mirrored(kernel, False, x, x)))(x)
    plain = jax.grad(functools.partial(loss, lambda x: symmetric_product(x, x, method="plain", keep=True)))(x)
    assert by_kernel.dtype == x.dtype
    # Both round a float32 sum of 20 terms to bfloat16, a term each for left and right.
    np.testing.assert_allclose(
        by_kernel.astype(jnp.float32), plain.astype(jnp.float32), rtol=2 * float(jnp.finfo(x.dtype).eps), atol=0.1
    )


@pytest.mark.parametrize("out_dtype", ["bfloat16", "float32"])
def test_the_kernel_lowers_for_cuda(out_dtype: str) -> None:
    if symmetric_kernel._pallas() is None:
        pytest.skip("this JAX's Pallas has another interface")
    x = jax.ShapeDtypeStruct((2, 512, 320), jnp.bfloat16)
    run = jax.jit(lambda x: symmetric_kernel.symmetric_kernel(x, x, out_dtype))
    allowed = [export.DisabledSafetyCheck.custom_call("mosaic_gpu_v2")]
    exported = export.export(run, platforms=["cuda"], disabled_checks=allowed)(x)
    assert "mosaic_gpu" in exported.mlir_module()


def test_the_kernel_is_chosen_on_a_gpu_that_has_been_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lowering on this machine for a Hopper GPU that is only claimed to be there."""
    if symmetric_kernel._pallas() is None:
        pytest.skip("this JAX's Pallas has another interface")
    monkeypatch.setattr(symmetric_kernel, "_hopper_cores", lambda: 132)
    allowed = [export.DisabledSafetyCheck.custom_call("mosaic_gpu_v2")]

    def kernels(rows: int, dtype: str = "bfloat16", **arguments: Any) -> tuple[int, int]:
        """Kernels in the program for CUDA, and in the one for CPU."""
        x = jax.ShapeDtypeStruct((rows, 64), dtype)
        run = jax.jit(lambda x: symmetric_product(x, x, **arguments))
        texts = (export.export(run, platforms=[p], disabled_checks=allowed)(x).mlir_module() for p in ("cuda", "cpu"))
        cuda, cpu = (text.count("custom_call @mosaic_gpu") for text in texts)
        return cuda, cpu

    assert kernels(256) == (0, 0)
    assert kernels(256, method="kernel") == (1, 0)
    monkeypatch.setattr(symmetric, "KERNEL_FROM", {jax.devices()[0].device_kind: 256})
    assert kernels(256) == (1, 0)
    assert kernels(255) == (0, 0)
    assert kernels(256, "float32") == (0, 0)
