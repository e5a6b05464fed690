"""Dion2 against NumPy, and its laws: what is not chosen waits undiminished, and choosing all is Muon."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_tour as jt
from tests.agreement import STEPS, follow
from tests.matrix_references import dion2_by_hand

MATRIX = jt.MatrixAxes(0, 1)
VIEWS = {
    "tall": ((9, 4), MATRIX),
    "wide": ((3, 8), MATRIX),
    "a stack": ((2, 6, 5), jt.MatrixAxes(1, 2)),
    "fused": ((6, 9), jt.MatrixAxes(0, 1, split=(5, 4))),
}
AXES = {name: view for name, (_, view) in VIEWS.items()}


def drawn(seed: int, *leading: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(*leading, *shape)) for name, (shape, _) in VIEWS.items()}


def matrices(tree: Any, steps: int) -> list[np.ndarray]:
    """Every matrix of a tree with leading axes of steps."""
    parts = [[view.to_matrices(np.asarray(tree[name])[t]) for t in range(steps)] for name, (_, view) in VIEWS.items()]
    return [
        np.stack([step[k][i] for step in of_leaf])
        for of_leaf in parts
        for k in range(len(of_leaf[0]))
        for i in range(len(of_leaf[0][k]))
    ]


@pytest.mark.slow
def test_agrees_with_the_paper_for_every_matrix_of_a_tree(x64: None) -> None:
    params, gradients = drawn(0), drawn(1, STEPS)
    tx = jt.dion2(0.02, weight_decay=0.1, fraction=0.4, decay=0.9, orthogonalizer="exact", routing=AXES)
    path = jax.jit(lambda p, g: follow(tx, p, g))(params, gradients)
    starts = matrices(jax.tree.map(lambda x: x[None], params), 1)
    for theta, gs, ours in zip(starts, matrices(gradients, STEPS), matrices(path, STEPS), strict=True):
        expected = dion2_by_hand(theta[0], gs, 0.02, fraction=0.4, decay=0.9, lam=0.1)
        # float64: parameters of size one, fifty steps.
        np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-9)


def test_choosing_all_rows_is_muon_without_nesterov() -> None:
    gradients = jnp.float32(drawn(1, 4)["tall"])
    theta = jnp.zeros((9, 4))

    @jax.jit
    def paths(gradients: Any) -> Any:
        options = {"orthogonalizer": "keller_jordan", "routing": MATRIX}
        return (
            follow(jt.dion2(0.1, fraction=1.0, **options), theta, gradients),
            follow(jt.muon(0.1, nesterov=False, **options), theta, gradients),
        )

    dion2, muon = paths(gradients)
    # The same up to the order of rows in sums.
    np.testing.assert_allclose(dion2, muon, rtol=1e-4, atol=1e-5)


def test_chosen_rows_are_orthogonal_and_decay_and_the_others_wait() -> None:
    gradients = jnp.float32(drawn(1, 6)["tall"])
    tx = jt.scale_by_dion2(0.5, decay=0.5, orthogonalizer="exact", axes=MATRIX)

    def step(state: Any, g: Any) -> Any:
        u, new_state = tx.update(g, state)
        return new_state, (state.residual, u, new_state.residual)

    before, updates, after = jax.jit(lambda gs: jax.lax.scan(step, tx.init(gs[0]), gs)[1])(gradients)
    for m, u, left in zip(before + gradients, updates, after, strict=True):
        sums = np.abs(m).sum(axis=0)
        chosen = sums >= np.sort(sums)[-2]  # two of four outputs, the shorter side
        np.testing.assert_array_equal(u[:, ~chosen], 0)
        np.testing.assert_allclose(u[:, chosen].T @ u[:, chosen], np.eye(2), atol=1e-3)
        np.testing.assert_array_equal(left[:, ~chosen], m[:, ~chosen])
        np.testing.assert_allclose(left[:, chosen], 0.5 * m[:, chosen], rtol=1e-6)
    assert (np.abs(updates).sum(axis=(0, 1)) > 0).all()  # each had its turn


def test_the_iteration_gets_the_chosen_rows_alone() -> None:
    """Its products are those of a matrix of a quarter of the rows."""
    tx = jt.scale_by_dion2(0.25, orthogonalizer=jt.Orthogonalizer("keller_jordan", form="standard"), axes=MATRIX)
    params = {"wide": jax.ShapeDtypeStruct((64, 256), jnp.float32)}
    program = str(jax.make_jaxpr(lambda g: tx.update(g, tx.init(g))[0])(params))
    products = [line for line in program.splitlines() if "dot_general" in line]
    assert products and not any("64,64]" in line or "256,256]" in line for line in products)


def test_wrong_calls_are_named() -> None:
    for arguments, named in (
        ({"fraction": 0.0}, "fraction"),
        ({"fraction": 1.5}, "fraction"),
        ({"decay": 1.0}, "decay"),
    ):
        with pytest.raises(ValueError, match=named):
            jt.scale_by_dion2(**arguments)
    with pytest.raises(ValueError, match=r"layouts.*shard_map"):
        jt.scale_by_dion2(mesh=jt.OnMesh("fsdp", layouts={}))
    tx = jt.scale_by_dion2(axes=MATRIX)
    with pytest.raises(ValueError, match="'bias'"):
        tx.init({"bias": jnp.ones(3)})
