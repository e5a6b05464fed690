"""Decompositions one after the other are those of the whole batch, under jit, vmap and in the empty cases."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_tour.linalg.decompositions import decompose


@pytest.mark.parametrize("shape", [(4, 3), (5, 4, 3), (2, 3, 4, 3), (0, 4, 3), (2, 0, 3)])
def test_agree_with_numpys(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    found = jax.jit(lambda x: decompose(lambda x: jnp.linalg.svd(x, compute_uv=False), x))(x)
    np.testing.assert_allclose(found, np.linalg.svd(x, compute_uv=False), rtol=1e-5)  # float32


def test_vmap_runs_one_matrix_at_a_time() -> None:
    seen = []

    def function(x: jax.Array) -> jax.Array:
        seen.append(x.shape)
        return jnp.linalg.svd(x, compute_uv=False)

    x = np.random.default_rng(0).normal(size=(5, 2, 4, 3)).astype(np.float32)
    mapped = jax.vmap(lambda x: decompose(function, x))
    np.testing.assert_allclose(jax.jit(mapped)(x), np.linalg.svd(x, compute_uv=False), rtol=1e-5)  # float32
    program = jax.jit(mapped).lower(x).as_text()
    assert "tensor<4x3xf32>" in program and (4, 3) in seen
    # The decomposition that is called is one of a single matrix.
    calls = [line for line in program.splitlines() if "gesdd" in line or "gesvd" in line]
    assert calls and all("5x2x4x3" not in line and "2x4x3" not in line for line in calls)
