"""Every way in which a program can hold arrays on a mesh gives the numbers of one device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxopt_tour as jt
from tests.mesh.meshes import (
    AXES,
    GRADS,
    KERNELS,
    PARAMS,
    ROUNDING,
    SHORT,
    Tree,
    collectives_in_loops,
    error,
    has_layout_of,
    mesh_of,
    muon,
    on_rows,
    one_device,
    orthogonalize,
    part_of,
    placer,
    routing,
    specs,
    step_of,
    train,
)

KINDS = pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=lambda kind: kind.name)


@pytest.fixture(scope="module")
def expected() -> Tree:
    return orthogonalize(KERNELS)


# --- shard_map -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check_vma", [False, True], ids=["", "checked types"])
def test_inside_shard_map(check_vma: bool) -> None:
    params = part_of(PARAMS)
    layouts = specs(params, on_rows)
    tx = muon(mesh=jt.OnMesh("fsdp", layouts=layouts))
    state = tx.init(params)
    layout_of_state = optax.tree.map_params(
        tx,
        lambda part, spec: spec,
        state,
        layouts,
        transform_non_params=lambda _: P(),
        is_leaf=lambda node: node == optax.MaskedNode(),
    )
    step = jax.jit(
        jax.shard_map(
            step_of(tx),
            mesh=mesh_of(),
            in_specs=(layouts, layout_of_state, layouts),
            out_specs=(layouts, layout_of_state),
            check_vma=check_vma,
        )
    )
    for grads in GRADS:
        params, state = step(params, state, part_of(grads))
    assert error(params, part_of(one_device())) < ROUNDING


@pytest.mark.parametrize("inverses", [None, 2], ids=["a step after the other", "partial fractions"])
def test_inverses_on_every_kind_of_mesh(inverses: int | None) -> None:
    options = {} if inverses is None else {"inverses": inverses}
    coefficients = jt.coefficients.zolotarev(1, 2e-3, **options)
    alone, layouts = orthogonalize(KERNELS, orthogonalizer=coefficients), specs(KERNELS, on_rows)
    results = [
        jax.jit(lambda grads: orthogonalize(grads, "fsdp", coefficients))(placer(mesh_of(kind), on_rows)(KERNELS))
        for kind in (AxisType.Auto, AxisType.Explicit)
    ]
    inside = lambda grads: orthogonalize(grads, jt.OnMesh("fsdp", layouts), coefficients)  # noqa: E731
    results.append(jax.jit(jax.shard_map(inside, mesh=mesh_of(), in_specs=(layouts,), out_specs=layouts))(KERNELS))
    # Rounding times the condition of R + c I, 1 / 6e-5, where sums of X X^T come in another order: 1e-3 and room.
    assert max(error(result, alone) for result in results) < 2e-3


# --- outside jit -----------------------------------------------------------------------------------------------------


@KINDS
def test_eager_calls_compile_once(kind: AxisType, expected: Tree) -> None:
    sharded = placer(mesh_of(kind), on_rows)(KERNELS)
    tx = jt.orthogonalize_via_newton_schulz(SHORT, axes=AXES, mesh="fsdp")
    updates, state = tx.update(sharded, tx.init(sharded))
    assert error(updates, expected) < ROUNDING
    assert has_layout_of(updates, sharded)
    with jax.no_tracing():
        again, _ = tx.update(sharded, state)
    assert error(again, updates) == 0


def test_eager_with_an_array_for_eps() -> None:
    eps = jt.Orthogonalizer(SHORT, eps=jnp.float32(3.0))
    sharded = placer(mesh_of(), on_rows)(KERNELS)
    assert error(orthogonalize(sharded, "fsdp", eps), orthogonalize(KERNELS, orthogonalizer=eps)) < ROUNDING


@KINDS
def test_arrays_of_numpy_are_on_no_mesh(kind: AxisType, expected: Tree) -> None:
    with jax.set_mesh(mesh_of(kind)):
        assert error(orthogonalize(KERNELS), expected) < ROUNDING
        assert error(orthogonalize(KERNELS, "fsdp"), expected) < ROUNDING
        assert error(jax.jit(lambda grads: orthogonalize(grads, "fsdp"))(KERNELS), expected) < ROUNDING


def test_one_device_needs_no_mesh(expected: Tree) -> None:
    assert error(jax.jit(lambda grads: orthogonalize(grads, "fsdp"))(KERNELS), expected) < ROUNDING


@pytest.mark.parametrize("tree", [{}, {"a/kernel": np.zeros((8, 0), np.float32)}], ids=["no leaf", "no entry"])
def test_nothing_to_do(tree: Tree) -> None:
    sharded = placer(mesh_of(), lambda name: P("fsdp"))(tree)
    for call in (orthogonalize, jax.jit(orthogonalize, static_argnums=1)):
        assert jax.tree.map(jnp.shape, call(sharded, "fsdp")) == jax.tree.map(jnp.shape, tree)


# --- no axes named ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["muon", "shampoo", "soap"])
def test_explicit_axes_need_not_be_named(name: str) -> None:
    """Auto axes leave the products to the partitioner; on Explicit ones JAX would refuse them."""
    small = {"a": {"kernel": PARAMS["b"]["kernel"][:8, :16]}}
    tx = {
        "muon": lambda: jt.muon(0.02, orthogonalizer=SHORT, routing=routing),
        "shampoo": lambda: jt.shampoo(0.02, routing=routing),
        "soap": lambda: jt.soap(0.02, routing=routing),
    }[name]()
    update = jax.jit(tx.update)
    expected, _ = update(small, tx.init(small), small)
    for kind, call in ((AxisType.Auto, update), (AxisType.Explicit, update), (AxisType.Explicit, tx.update)):
        here = placer(mesh_of(kind), on_rows)(small)
        updates, _ = call(here, jt.sharded_state(tx).init(here), here)
        assert error(updates, expected) < ROUNDING, kind
        assert has_layout_of(updates, here), kind


@KINDS
def test_no_decomposition_of_soap_communicates(kind: AxisType) -> None:
    params = {
        name: {"kernel": PARAMS["b"]["kernel"][:16, columns]}
        for name, columns in {"a": slice(32), "b": slice(32, 64)}.items()
    }
    tx = jt.soap(0.02, update_every=1, weight_decay=0.0, rest=jt.sgd(0.02), routing=routing)
    here = placer(mesh_of(kind), on_rows)(params)
    states = jt.sharded_state(tx).init(here), tx.init(params)
    assert has_layout_of(states[0].inner_states["matrix"][0].nu, here)
    update = jax.jit(tx.update)
    assert collectives_in_loops(update.lower(here, states[0], here).compile().as_text()) == 0
    for _ in range(3):
        pairs = [
            update(jax.tree.map(jnp.sin, tree), state, tree) for tree, state in zip((here, params), states, strict=True)
        ]
        (updates, expected), states = zip(*pairs, strict=True)
    # Entries of size 1 in the bases, some of them quotients of numbers that are small beside the gradient.
    assert error(updates, expected) < 0.01 * 0.02


# --- transformations of JAX and Optax --------------------------------------------------------------------------------


def loss(mesh: Any) -> Callable[[Tree, Any], Any]:
    def of(grads: Tree, scale: Any) -> Any:
        updates = orthogonalize(jax.tree.map(lambda leaf: leaf + scale * jnp.sin(leaf), grads), mesh)
        return sum(jnp.sum(jnp.cos(leaf)) for leaf in jax.tree.leaves(updates))

    return of


@KINDS
@pytest.mark.parametrize("transform", [jax.grad, lambda of: jax.vmap(of, in_axes=(None, 0))], ids=["grad", "vmap"])
def test_derivatives_and_batches_are_those_of_one_device(kind: AxisType, transform: Any) -> None:
    scale = jnp.asarray(0.1) if transform is jax.grad else jnp.asarray([0.1, 0.2])
    expected = jax.jit(transform(loss(None)))(KERNELS, scale)
    result = jax.jit(transform(loss("fsdp")))(placer(mesh_of(kind), on_rows)(KERNELS), scale)
    # Derivatives multiply rounding by the slope of the polynomials at small singular values.
    largest = error(expected, jax.tree.map(jnp.zeros_like, expected))
    assert error(result, expected) < 1e-3 * largest


def test_injected_hyperparameters() -> None:
    def made(learning_rate: Any, eps: Any) -> optax.GradientTransformation:
        orthogonalizer = jt.Orthogonalizer(SHORT, eps=eps)
        options: dict[str, Any] = {"mesh": "fsdp", "routing": routing, "rest": jt.sgd(0.02)}
        return jt.muon(learning_rate, weight_decay=0.1, orthogonalizer=orthogonalizer, **options)

    run = train(optax.inject_hyperparams(made)(0.02, 0.3), placer(mesh_of(), on_rows), part=True)
    plain = train(muon(jt.Orthogonalizer(SHORT, eps=0.3)), part=True)
    assert error(run.params, plain.params) < ROUNDING


# --- fused projections -----------------------------------------------------------------------------------------------

FUSED = {
    # No shard boundary is a boundary of the split.
    "rows": ((16, 96), jt.MatrixAxes(0, 1, split=(64, 16, 16)), P("fsdp", None)),
    "columns": ((16, 96), jt.MatrixAxes(0, 1, split=(64, 16, 16)), P(None, "fsdp")),
    # Fan-out is two axes. Columns arrive in the order of devices, and are split in that of the parameter.
    "minor axis": ((16, 6, 16), jt.MatrixAxes(0, (1, 2), split=(64, 16, 16)), P(None, None, "fsdp")),
}


@KINDS
@pytest.mark.parametrize("where", FUSED)
def test_fused_projections_are_split_where_the_parameter_is(kind: AxisType, where: str) -> None:
    shape, view, spec = FUSED[where]
    fused = {"qkv": {"kernel": np.random.default_rng(9).standard_normal(shape).astype(np.float32)}}
    tx = optax.chain(
        jt.orthogonalize_via_newton_schulz(SHORT, axes=view, mesh="fsdp"), jt.scale_by_matrix_shape(None, axes=view)
    )
    sharded = placer(mesh_of(kind), lambda name: spec)(fused)
    result = jax.jit(lambda grads: tx.update(grads, tx.init(grads))[0])(sharded)
    assert error(result, orthogonalize(fused, axes=view)) < ROUNDING


def test_devices_need_not_divide_what_a_program_computes() -> None:
    """The partitioner fills the last shard up; what it fills in is not part of the matrix."""
    uneven = np.random.default_rng(3).standard_normal((30, 32)).astype(np.float32)

    def shifted(x: Any) -> Tree:
        x = jax.lax.with_sharding_constraint(x, NamedSharding(mesh_of(), P("fsdp", None)))
        return orthogonalize({"x": jnp.cos(x) + 2}, "fsdp", axes=jt.MatrixAxes(0, 1))

    expected = orthogonalize({"x": np.cos(uneven) + 2}, axes=jt.MatrixAxes(0, 1))
    assert error(jax.jit(shifted)(uneven), expected) < ROUNDING
