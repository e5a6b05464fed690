"""Parts that sum along the axes of a matrix give the numbers of one device however the matrix is sharded."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxopt_tour as jt
from tests.mesh.meshes import ROUNDING, SHORT, error, has_layout_of, mesh_of

SHAPES = {"down": (64, 16), "stack": (3, 16, 32), "qkv": (16, 96), "heads": (16, 64)}
AXES = {
    "down": jt.MatrixAxes(0, 1),
    "stack": jt.MatrixAxes(1, 2),
    "qkv": jt.MatrixAxes(0, 1, split=(64, 16, 16)),
    "heads": jt.MatrixAxes(0, 2, factors={1: (8,)}),
}
ROWS = {name: P(*[None] * (len(shape) - 2), "fsdp", None) for name, shape in SHAPES.items()}
COLUMNS = {name: P(*[None] * (len(shape) - 1), "fsdp") for name, shape in SHAPES.items()}
LAYOUTS = {"rows": ROWS, "columns": COLUMNS}


def drawn(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        name: rng.standard_normal(shape, np.float32) * rng.random(shape[-1:], np.float32)
        for name, shape in SHAPES.items()
    }


def chain(axes: Any = AXES, mesh: Any = None) -> optax.GradientTransformationExtraArgs:
    """All parts at once, since compiling takes the time."""
    directions = optax.chain(
        jt.equalize_norms("outputs", axes=axes, mesh=mesh),
        jt.scale_by_dual_norm("one_to_rms", axes=axes, mesh=mesh),
        jt.scale_by_normuon(0.5, axes=axes, mesh=mesh),
        jt.normalize_frobenius(axes=axes, mesh=mesh),
        jt.hyperball(0.1, axes=axes, mesh=mesh),
    )
    return jt.with_weight_normalization(directions, jt.momentum(0.1), axes=axes, mesh=mesh)


def two_steps(tx: Any, params: Any, gradients: Any, state: Any) -> Any:
    """As a loop, whose state must keep its types: on Explicit axes its layouts are part of them."""

    def step(carry: Any, scale: Any) -> Any:
        params, state = carry
        updates, state = tx.update(jax.tree.map(lambda g: scale * g + g**2, gradients), state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, state), jnp.array([1.0, -0.5]))[0]


@pytest.fixture(scope="module")
def expected() -> Any:
    tx, params = chain(), drawn(0)
    return jax.jit(lambda p, g: two_steps(tx, p, g, tx.init(p)))(params, drawn(1))


@pytest.mark.parametrize(
    ("layout", "kind"),
    [
        ("rows", AxisType.Explicit),
        ("columns", AxisType.Auto),
        pytest.param("rows", AxisType.Auto, marks=pytest.mark.slow),
        pytest.param("columns", AxisType.Explicit, marks=pytest.mark.slow),
    ],
)
def test_a_sharded_matrix_has_the_norms_of_the_whole(layout: str, kind: AxisType, expected: Any) -> None:
    mesh, tx = mesh_of(kind), jt.sharded_state(chain())
    params, gradients = (
        {name: jax.device_put(leaf, NamedSharding(mesh, LAYOUTS[layout][name])) for name, leaf in drawn(seed).items()}
        for seed in (0, 1)
    )
    state = tx.init(params)
    after, new_state = jax.jit(lambda *arguments: two_steps(tx, *arguments))(params, gradients, state)
    assert error(after, expected[0]) < ROUNDING
    assert error(new_state, expected[1]) < ROUNDING
    assert all(after[name].sharding.is_equivalent_to(params[name].sharding, params[name].ndim) for name in SHAPES)


def reduced_layout(layout: Any, shape: tuple[int, ...], numbers: tuple[int, ...]) -> P:
    """The layout of numbers that have length 1 along some axes of a parameter."""
    return P(
        *(
            name if size > 1 and size == whole else None
            for name, size, whole in zip(layout, numbers, shape, strict=True)
        )
    )


@pytest.mark.parametrize(
    ("layout", "check_vma"), [("rows", False), ("columns", True), pytest.param("rows", True, marks=pytest.mark.slow)]
)
def test_inside_shard_map_sums_go_over_all_shards(layout: str, check_vma: bool, expected: Any) -> None:
    names = ("down", "stack", "heads")
    axes = {name: AXES[name] for name in names}
    layouts = {name: LAYOUTS[layout][name] for name in names}
    params, gradients = ({name: drawn(seed)[name] for name in names} for seed in (0, 1))
    alone = chain(axes)
    state = alone.init(params)

    def layout_of_state(numbers: Any, spec: P, parameter: Any) -> P:
        if numbers.ndim == parameter.ndim:
            return reduced_layout((*spec, *[None] * numbers.ndim)[: numbers.ndim], parameter.shape, numbers.shape)
        entries = (*spec, None)  # heads: (16, 8 heads, 8)
        return P(*(name if size > 1 else None for name, size in zip(entries, numbers.shape, strict=True)))

    specs = optax.tree.map_params(
        alone,
        layout_of_state,
        state,
        layouts,
        params,
        transform_non_params=lambda _: P(),
        is_leaf=lambda node: isinstance(node, P),
    )
    tx = chain(axes, jt.OnMesh("fsdp", layouts=layouts))
    step = jax.shard_map(
        lambda *arguments: two_steps(tx, *arguments),
        mesh=mesh_of(),
        in_specs=(layouts, layouts, specs),
        out_specs=(layouts, specs),
        check_vma=check_vma,
    )
    after, _ = jax.jit(step)(params, gradients, state)
    assert error(after, {name: expected[0][name] for name in names}) < ROUNDING


def test_a_vector_inside_shard_map_has_the_norm_of_the_whole() -> None:
    layouts = {"bias": P("fsdp"), "gain": P()}
    gradients = {"bias": jnp.arange(1.0, 65.0), "gain": jnp.float32(-3.0)}
    tx = jt.scale_by_dual_norm("rms", mesh=jt.OnMesh("fsdp", layouts=layouts))
    step = jax.shard_map(lambda g: tx.update(g, tx.init(g))[0], mesh=mesh_of(), in_specs=(layouts,), out_specs=layouts)
    alone = jt.scale_by_dual_norm("rms")
    assert error(jax.jit(step)(gradients), alone.update(gradients, alone.init(gradients))[0]) < ROUNDING


def test_a_fused_parameter_cut_inside_shard_map_is_refused_by_name() -> None:
    layouts = {"qkv": P(None, "fsdp")}
    tx = jt.normalize_frobenius(axes=AXES["qkv"], mesh=jt.OnMesh("fsdp", layouts=layouts))
    step = jax.shard_map(lambda g: tx.update(g, tx.init(g))[0], mesh=mesh_of(), in_specs=(layouts,), out_specs=layouts)
    with pytest.raises(ValueError, match=r"'qkv'.*split"):
        step({"qkv": jnp.ones((16, 96))})


def scion(learning_rate: float, rest: Any, **options: Any) -> optax.GradientTransformationExtraArgs:
    del rest  # all of these parameters are matrices
    return jt.scion(learning_rate, radius=1.0, **options)


@pytest.mark.slow
@pytest.mark.parametrize("make", [jt.normuon, jt.muonh, jt.muown, scion])
def test_a_ready_optimizer_shares_the_work(make: Any) -> None:
    shapes = {name: SHAPES[name] for name in ("down", "stack")}
    params, gradients = ({name: drawn(seed)[name] for name in shapes} for seed in (0, 1))
    options = {"orthogonalizer": SHORT, "routing": {name: AXES[name] for name in shapes}, "rest": jt.sgd(0.1)}
    alone = make(0.05, **options)
    expected = jax.jit(lambda p, g: two_steps(alone, p, g, alone.init(p)))(params, gradients)[0]
    tx = jt.sharded_state(make(0.05, mesh="fsdp", **options))
    placed = [
        {name: jax.device_put(leaf, NamedSharding(mesh_of(), ROWS[name])) for name, leaf in tree.items()}
        for tree in (params, gradients)
    ]
    after, _ = jax.jit(lambda p, g, s: two_steps(tx, p, g, s))(*placed, tx.init(placed[0]))
    assert error(after, expected) < ROUNDING


@pytest.mark.parametrize(
    ("layout", "kind", "mesh_axis"),
    [("rows", AxisType.Explicit, "fsdp"), pytest.param("columns", AxisType.Auto, None, marks=pytest.mark.slow)],
)
def test_dion2_chooses_among_the_rows_of_the_whole(layout: str, kind: AxisType, mesh_axis: str | None) -> None:
    names, mesh = ("down", "stack", "qkv"), mesh_of(kind)
    axes = {name: AXES[name] for name in names}

    def stepped(tx: Any, params: Any, gradients: Any) -> Any:
        return jax.jit(lambda *arguments: two_steps(tx, *arguments))(params, gradients, tx.init(params))

    params, gradients = ({name: drawn(seed)[name] for name in names} for seed in (0, 1))
    expected = stepped(jt.scale_by_dion2(orthogonalizer=SHORT, axes=axes), params, gradients)
    tx = jt.sharded_state(jt.scale_by_dion2(orthogonalizer=SHORT, axes=axes, mesh=mesh_axis))
    placed = [
        {name: jax.device_put(leaf, NamedSharding(mesh, LAYOUTS[layout][name])) for name, leaf in tree.items()}
        for tree in (params, gradients)
    ]
    found = stepped(tx, *placed)
    assert error(found, expected) < ROUNDING
    assert has_layout_of(found[0], placed[0])
    assert has_layout_of(found[1].residual, placed[0])


@pytest.mark.parametrize("kind", [AxisType.Explicit, pytest.param(AxisType.Auto, marks=pytest.mark.slow)])
def test_narrow_momenta_are_sharded_like_wide_ones(kind: AxisType) -> None:
    """Blocks end where shards do, in rows and columns, and random bits are those of one device."""
    mesh, layouts = mesh_of(kind), {"rows": P("fsdp", None), "columns": P(None, "fsdp")}
    params = {name: jnp.float32(np.random.default_rng(i).normal(size=(16, 128))) for i, name in enumerate(layouts)}
    placed = {name: jax.device_put(leaf, NamedSharding(mesh, layouts[name])) for name, leaf in params.items()}
    for wrap in (
        lambda tx: jt.with_int8_momentum(tx, block_size=16, min_size=1),
        lambda tx: jt.with_bfloat16_momentum(tx, 0),
    ):
        tx = wrap(jt.momentum(0.1))
        expected = jax.jit(lambda p, tx=tx: two_steps(tx, p, p, tx.init(p)))(params)
        sharded = jt.sharded_state(tx)
        found = jax.jit(lambda p, s, tx=sharded: two_steps(tx, p, p, s))(placed, sharded.init(placed))
        assert error(found, expected) < ROUNDING
        assert has_layout_of(found[1].inner_state[1].trace, placed)
