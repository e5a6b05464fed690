"""Where shapes allow several readings of a kernel, its body decides."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl

from jaxopt_tour.routing.axes import MatrixAxes
from jaxopt_tour.routing.by_use.trace import from_function
from tests.routing import zoo


def grouped(x: Any, w: Any, groups: Any, *, transposed: bool, squeezed: bool) -> Any:
    """A grouped product as megablox writes it: tiles of rows, fan-in and fan-out, and a sum that is kept over tiles."""
    fan_in, fan_out = (w.shape[2], w.shape[1]) if transposed else w.shape[1:]

    def kernel(groups: Any, x: Any, w: Any, y: Any) -> None:
        @pl.when(pl.program_id(2) == 0)
        def _() -> None:
            y[...] = jnp.zeros_like(y)

        block = w[...] if squeezed else w[0]
        y[...] += x[...] @ (block.T if transposed else block)

    block = (4, 2) if transposed else (2, 4)
    grid = pl.GridSpec(
        grid=(x.shape[0] // 4, fan_out // 4, fan_in // 2),
        in_specs=[
            pl.BlockSpec(groups.shape, lambda m, n, k: (0,)),
            pl.BlockSpec((4, 2), lambda m, n, k: (m, k)),
            pl.BlockSpec((None if squeezed else 1, *block), lambda m, n, k: (0, n, k) if transposed else (0, k, n)),
        ],
        out_specs=pl.BlockSpec((4, 4), lambda m, n, k: (m, n)),
    )
    out = jax.ShapeDtypeStruct((x.shape[0], fan_out), x.dtype)
    return pl.pallas_call(kernel, out_shape=out, grid_spec=grid, interpret=True)(groups, x, w)


@pytest.mark.parametrize("squeezed", [True, False], ids=["squeezed", "blocks of one"])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    ("rows", "experts"), [(8, 3), (12, 16), (12, 8), (16, 8)], ids=["rows = fan-in", "experts = fan-out",
    "experts = fan-in", "both"],
)  # fmt: skip
def test_the_body_decides_between_readings(rows: int, experts: int, transposed: bool, squeezed: bool) -> None:
    def fn(params: Any, x: Any, groups: Any) -> Any:
        return jnp.tanh(grouped(x, params["w"], groups, transposed=transposed, squeezed=squeezed)) @ params["head"]

    shape = (experts, 16, 8) if transposed else (experts, 8, 16)
    params = {"w": zoo.floats(*shape), "head": zoo.floats(16, 5)}
    route = from_function(fn, params, zoo.floats(rows, 8), zoo.tokens(experts))["w"]
    assert (route.role, route.axes) == ("matrix", MatrixAxes(2, 1) if transposed else MatrixAxes(1, 2))


def test_a_body_that_uses_an_operand_in_two_ways_decides_nothing() -> None:
    def kernel(x: Any, w: Any, y: Any) -> None:
        y[...] = x[...] @ w[0] + x[...] @ w[0].T

    def fn(params: Any, x: Any) -> Any:
        grid = pl.GridSpec(
            grid=(2,),
            in_specs=[pl.BlockSpec((4, 8), lambda i: (i, 0)), pl.BlockSpec((1, 8, 8), lambda i: (i, 0, 0))],
            out_specs=pl.BlockSpec((4, 8), lambda i: (i, 0)),
        )
        out = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return pl.pallas_call(kernel, out_shape=out, grid_spec=grid, interpret=True)(x, params["w"]) @ params["head"]

    params = {"w": zoo.floats(8, 8, 8), "head": zoo.floats(8, 5)}
    assert from_function(fn, params, zoo.floats(8, 8))["w"].role == "not understood"
