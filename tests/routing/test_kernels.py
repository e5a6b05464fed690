"""Kernels are matrices where their body or their shapes say so, and never by a guess."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

import jaxopt_tour as jt
from jaxopt_tour.routing.axes import MatrixAxes
from jaxopt_tour.routing.by_use import user_rules
from jaxopt_tour.routing.by_use.trace import from_function
from tests.routing import zoo

EXPERTS = ("matrix", MatrixAxes(1, 2))


def found(fn: Any, params: Any, *inputs: Any) -> dict[str, Any]:
    return {path: (route.role, route.axes) for path, route in from_function(fn, params, *inputs).items()}


def foreign(*operands: Any, shape: tuple[int, ...]) -> Any:
    return jax.ffi.ffi_call("a_kernel_of_mine", jax.ShapeDtypeStruct(shape, jnp.float32))(*operands)


def grouped(x: Any, w: Any, groups: Any, *, tile: int = 4, transposed: bool = False) -> Any:
    """A grouped product as megablox writes it: the expert of every tile of rows is prefetched."""
    outer = w.shape[1 if transposed else 2]

    def kernel(groups: Any, x: Any, w: Any, y: Any) -> None:
        y[...] = x[...] @ (w[0].T if transposed else w[0])

    grid = pl.GridSpec(
        grid=(x.shape[0] // tile,),
        in_specs=[
            pl.BlockSpec(groups.shape, lambda i: (0,)),
            pl.BlockSpec((tile, x.shape[1]), lambda i: (i, 0)),
            pl.BlockSpec((1, *w.shape[1:]), lambda i: (i % w.shape[0], 0, 0)),
        ],
        out_specs=pl.BlockSpec((tile, outer), lambda i: (i, 0)),
    )
    out = jax.ShapeDtypeStruct((x.shape[0], outer), x.dtype)
    return pl.pallas_call(kernel, out_shape=out, grid_spec=grid, interpret=True)(groups, x, w)


@pytest.mark.parametrize("product", [jax.lax.ragged_dot, grouped, jax.jit(grouped)])
def test_a_grouped_product_is_a_matrix_per_expert(product: Any) -> None:
    def fn(params: Any, x: Any, groups: Any) -> Any:
        hidden = jax.nn.silu(product(x, params["gate"], groups)) * product(x, params["up"], groups)
        return product(hidden, params["down"], groups) @ params["head"]

    params = {
        "gate": zoo.floats(3, 8, 16), "up": zoo.floats(3, 8, 16), "down": zoo.floats(3, 16, 8), "head": zoo.floats(8, 5)
    }  # fmt: skip
    assert found(fn, params, zoo.floats(12, 8), zoo.tokens(3)) == {
        "gate": EXPERTS, "up": EXPERTS, "down": EXPERTS, "head": ("head", MatrixAxes(0, 1))
    }  # fmt: skip


def test_a_grouped_product_of_transposed_matrices_contracts_their_last_axis() -> None:
    def fn(params: Any, x: Any, groups: Any) -> Any:
        return jnp.tanh(grouped(x, params["up"], groups, transposed=True)) @ params["head"]

    params = {"up": zoo.floats(3, 16, 8), "head": zoo.floats(16, 5)}
    assert found(fn, params, zoo.floats(12, 8), zoo.tokens(3))["up"] == ("matrix", MatrixAxes(2, 1))


def test_layers_of_experts_are_a_batch() -> None:
    def fn(params: Any, x: Any, groups: Any) -> Any:
        def layer(x: Any, w: Any) -> tuple[Any, None]:
            return x + jnp.tanh(grouped(x, w, groups)), None

        return jax.lax.scan(layer, x, params["layers"])[0] @ params["head"]

    params = {"layers": zoo.floats(5, 3, 8, 8), "head": zoo.floats(8, 4)}
    assert found(fn, params, zoo.floats(12, 8), zoo.tokens(3))["layers"] == ("matrix", MatrixAxes(2, 3))


def test_a_kernel_on_whole_operands_is_read_by_its_body() -> None:
    """The shapes, (8, 8) everywhere, would allow several readings."""

    def kernel(x: Any, w: Any, scale: Any, y: Any) -> None:
        @pl.when(pl.program_id(0) == 0)
        def _() -> None:
            y[...] = jnp.zeros_like(y)

        y[...] += scale[...] * (x[...] @ w[pl.program_id(0), :, :])

    def fn(params: Any, x: Any) -> Any:
        out = jax.ShapeDtypeStruct(x.shape, x.dtype)
        x = pl.pallas_call(kernel, out_shape=out, grid=(8,), interpret=True)(x, params["w"], params["scale"])
        return jnp.tanh(x) @ params["head"]

    params = {"w": zoo.floats(8, 8, 8), "scale": zoo.floats(8), "head": zoo.floats(8, 3)}
    assert found(fn, params, zoo.floats(8, 8)) == {
        "w": EXPERTS, "scale": ("vector", None), "head": ("head", MatrixAxes(0, 1))
    }  # fmt: skip


@custom_partitioning
def partitioned(x: Any, w: Any) -> Any:
    return x @ w


partitioned.def_partition(
    partition=lambda *_: None, infer_sharding_from_operands=lambda *_: None, sharding_rule="i j, j k -> i k"
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def with_derivative(x: Any, w: Any, transposed: bool) -> Any:
    return grouped(x, w, jnp.zeros(3, jnp.int32), transposed=transposed)


with_derivative.defvjp(lambda x, w, t: (with_derivative(x, w, t), (x, w)), lambda t, saved, g: saved)


@pytest.mark.parametrize(
    ("call", "shape", "expected"),
    [
        (partitioned, (8, 16), ("matrix", MatrixAxes(0, 1))),
        (lambda x, w: with_derivative(x, w, False), (3, 8, 16), EXPERTS),
        (lambda x, w: foreign(x, w, shape=(12, 16)), (8, 16), ("matrix", MatrixAxes(0, 1))),
        (lambda x, w: foreign(x, w, shape=(12, 16)), (16, 8), ("matrix", MatrixAxes(1, 0))),
        (lambda x, w: foreign(x, w, shape=(12, 16)), (3, 8, 16), EXPERTS),
        (lambda x, w: foreign(x, w, shape=(12, 4, 4)).reshape(12, 16), (8, 4, 4), ("matrix", MatrixAxes(0, (1, 2)))),
        (lambda x, w: foreign(x, w, shape=(12, 16)), (8, 8, 16), ("not understood", None)),
        (lambda x, w: foreign(x, w, shape=(12, 16)), (5, 7), ("not understood", None)),
        (lambda x, w: jnp.tile(foreign(x, w, shape=(12, 8)), 2), (1, 8), ("vector", None)),
        (lambda x, w: jnp.tile(foreign(x, w, shape=(12, 8)), 2), (12, 12), ("not understood", None)),
    ],
    ids=["partitioned", "custom_vjp", "in out", "out in", "experts", "heads", "ambiguous", "foreign", "scale", "time"],
)
def test_calls_of_foreign_code_are_read_by_their_shapes(call: Any, shape: tuple[int, ...], expected: Any) -> None:
    def fn(params: Any, x: Any) -> Any:
        return jnp.tanh(call(x, params["w"])) @ params["head"]

    routes = from_function(fn, {"w": zoo.floats(*shape), "head": zoo.floats(16, 3)}, zoo.floats(12, 8))
    assert (routes["w"].role, routes["w"].axes) == expected
    assert "has no rule" not in routes["w"].reason


def test_a_table_read_by_a_kernel_is_an_embedding() -> None:
    def fn(params: Any, tokens: Any) -> Any:
        return foreign(tokens, params["table"], shape=(2, 5, 8)) @ params["head"]

    params = {"table": zoo.floats(20, 8), "head": zoo.floats(8, 20)}
    assert found(fn, params, zoo.tokens(2, 5))["table"] == ("embedding", None)


def test_a_bias_of_experts_is_no_matrix() -> None:
    def fn(params: Any, x: Any) -> Any:
        return jnp.tanh(foreign(x, params["w"], params["b"], shape=(12, 16))) @ params["head"]

    params = {"w": zoo.floats(3, 8, 16), "b": zoo.floats(8, 16), "head": zoo.floats(16, 3)}
    routes = found(fn, params, zoo.floats(12, 8))
    assert routes["w"] == EXPERTS and routes["b"] == ("not understood", None)


@pytest.mark.parametrize("experts", [4, 8], ids=["one expert a device", "two experts a device"])
@pytest.mark.parametrize("product", [jax.lax.ragged_dot, grouped], ids=["ragged_dot", "pallas"])
def test_a_sharded_mixture_of_experts(product: Any, experts: int) -> None:
    """Experts and tokens over four devices, features over two: every collective between the shards."""
    mesh = AbstractMesh((4, 2), ("expert", "model"))

    def layer(params: Any, x: Any, groups: Any) -> Any:
        x = jax.lax.all_gather(x, "model", axis=1, tiled=True)  # (6, 8)
        gates = jax.lax.psum(x[:, :4] @ params["router"], "model")
        x = jax.lax.all_to_all(x.reshape(4, -1, 8), "expert", 0, 0, tiled=True).reshape(-1, 8)
        x = jax.lax.ppermute(x, "expert", [(i, (i + 1) % 4) for i in range(4)])
        w = jax.lax.all_gather(params["up"], "model", axis=1, tiled=True)
        h = jax.nn.silu(product(x, w, groups))
        y = product(h, params["down"], groups)
        y = jax.lax.all_to_all(y.reshape(4, -1, 8), "expert", 0, 0, tiled=True).reshape(-1, 8) * gates.sum()
        return jax.lax.psum_scatter(y, "model", scatter_dimension=1, tiled=True)

    def fn(params: Any, x: Any, groups: Any) -> Any:
        layers = {name: params[name] for name in ("router", "up", "down")}
        specs = {"router": P("model"), "up": P("expert", "model"), "down": P("expert")}
        y = jax.shard_map(
            layer, mesh=mesh, in_specs=(specs, P("expert", "model"), P("expert")), out_specs=P("expert", "model"),
            check_vma=False,
        )(layers, x, groups)  # fmt: skip
        return (x + y) @ params["head"]

    params = {
        "router": zoo.floats(8, 6), "up": zoo.floats(experts, 8, 16), "down": zoo.floats(experts, 16, 8),
        "head": zoo.floats(8, 5),
    }  # fmt: skip
    dense = MatrixAxes(0, 1)
    assert found(fn, params, zoo.floats(48, 8), zoo.tokens(experts)) == {
        "router": ("matrix", dense), "up": EXPERTS, "down": EXPERTS, "head": ("head", dense)
    }  # fmt: skip


def test_a_shard_of_one_element_is_still_fan_in() -> None:
    mesh = AbstractMesh((8,), ("model",))

    def fn(params: Any, x: Any) -> Any:
        product = jax.shard_map(
            lambda x, w: jax.lax.psum(x @ w, "model"), mesh=mesh, in_specs=(P(None, "model"), P("model")), out_specs=P()
        )
        return jnp.tanh(product(x, params["w"])) @ params["head"]

    params = {"w": zoo.floats(8, 16), "head": zoo.floats(16, 3)}
    assert found(fn, params, zoo.floats(4, 8))["w"] == ("matrix", MatrixAxes(0, 1))


@pytest.fixture
def rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_rules, "_FUNCTIONS", {})


@pytest.mark.usefixtures("rules")
def test_a_registered_function_stands_for_a_kernel() -> None:
    def fn(params: Any, x: Any) -> Any:
        return foreign(x, params["w"], shape=(12, 16)) @ params["head"]

    params = {"w": zoo.floats(8, 8, 16), "head": zoo.floats(16, 3)}
    assert found(fn, params, zoo.floats(12, 8))["w"] == ("not understood", None)

    @jt.routing.register_kernel("a_kernel_of_mine")
    def _(x: Any, w: Any) -> Any:
        return jax.lax.ragged_dot(x, w, jnp.full(8, 2))

    assert found(fn, params, zoo.floats(12, 8))["w"] == EXPERTS


@pytest.mark.usefixtures("rules")
def test_a_registered_function_may_call_what_it_stands_for() -> None:
    @jax.jit
    def my_product(x: Any, w: Any) -> Any:
        return x @ w

    jt.routing.register_kernel("my_product")(my_product)
    params = {"w": zoo.floats(8, 16), "head": zoo.floats(16, 3)}
    assert found(lambda p, x: my_product(x, p["w"]) @ p["head"], params, zoo.floats(12, 8))["w"][0] == "matrix"


@pytest.mark.usefixtures("rules")
@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x, "a_kernel_of_mine.*does not take its operands"),
        (lambda x, w: x, "a_kernel_of_mine.*returns results of shapes"),
    ],
)
def test_a_registered_function_with_other_operands_or_results_raises(function: Any, message: str) -> None:
    jt.routing.register_kernel("a_kernel_of_mine")(function)
    with pytest.raises(ValueError, match=message):
        from_function(lambda p, x: foreign(x, p, shape=(12, 16)), zoo.floats(8, 16), zoo.floats(12, 8))


def test_a_kernel_needs_a_name() -> None:
    with pytest.raises(ValueError, match="name must be"):
        jt.routing.register_kernel("")
