"""Muon on eight devices: the numbers of one device on every layout, and no collective inside the iteration."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import jaxopt_tour as jt
from tests.mesh.meshes import (
    PARAMS,
    ROUNDING,
    Run,
    by_expert,
    collectives,
    collectives_in_loops,
    digest,
    error,
    has_layout_of,
    mesh_of,
    muon,
    on_both,
    on_columns,
    on_rows,
    one_device,
    part_of,
    placer,
    train,
)


class Layout(NamedTuple):
    sizes: dict[str, int]  # of the mesh
    spec: Callable[[str], P]
    axes: tuple[str, ...]  # share the work
    collectives: dict[str, int]  # of one update
    explicit: bool = False  # run with Explicit axes too; the others differ from these in numbers or names alone


THERE_AND_BACK = {"all-to-all": 2}
LAYOUTS = {
    "1 device": Layout({"fsdp": 1}, on_rows, ("fsdp",), {}),
    "2 devices": Layout({"fsdp": 2}, on_rows, ("fsdp",), THERE_AND_BACK),
    "4 devices": Layout({"fsdp": 4}, on_rows, ("fsdp",), THERE_AND_BACK),
    "fsdp rows": Layout({"fsdp": 8}, on_rows, ("fsdp",), THERE_AND_BACK, explicit=True),
    "fsdp columns": Layout({"fsdp": 8}, on_columns, ("fsdp",), THERE_AND_BACK, explicit=True),
    "tp": Layout({"tp": 8}, functools.partial(on_columns, axis="tp"), ("tp",), THERE_AND_BACK),
    "fsdp and tp": Layout({"fsdp": 4, "tp": 2}, on_both, ("fsdp", "tp"), THERE_AND_BACK, explicit=True),
    "hybrid": Layout({"data": 2, "fsdp": 4}, on_rows, ("fsdp",), THERE_AND_BACK, explicit=True),
    "hybrid, shared by all": Layout(
        {"data": 2, "fsdp": 4}, on_rows, ("data", "fsdp"), THERE_AND_BACK | {"all-gather": 1}, explicit=True
    ),
    "replicated, shared by all": Layout({"data": 8}, lambda name: P(), ("data",), {"all-gather": 1}),
    # Experts share fsdp alone, everything else both axes: two exchanges.
    "scanned and experts": Layout(
        {"expert": 4, "fsdp": 2}, by_expert, ("expert", "fsdp"), {"all-to-all": 4, "all-gather": 1}, explicit=True
    ),
    "not all axes share": Layout(
        {"fsdp": 4, "tp": 2}, on_both, ("fsdp",), THERE_AND_BACK | {"all-gather": 1}, explicit=True
    ),
}
CASES = [(name, AxisType.Auto) for name in LAYOUTS]
CASES += [(name, AxisType.Explicit) for name, layout in LAYOUTS.items() if layout.explicit]


@functools.cache  # two tests compare layouts with one of them
def trained(name: str, kind: AxisType) -> Run:
    layout = LAYOUTS[name]
    mesh = mesh_of(kind, **layout.sizes)
    # The arrays carry the mesh; some have it in context as well.
    with jax.set_mesh(mesh) if "fsdp" in name else contextlib.nullcontext():
        return train(jt.sharded_state(muon(mesh=layout.axes)), placer(mesh, layout.spec))


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}, {case[1].name}")
def case(request: pytest.FixtureRequest) -> tuple[str, AxisType]:
    return request.param


@pytest.fixture(scope="module")
def layout(case: tuple[str, AxisType]) -> Layout:
    return LAYOUTS[case[0]]


@pytest.fixture(scope="module")
def run(case: tuple[str, AxisType]) -> Run:
    return trained(*case)


def test_the_numbers_are_those_of_one_device(run: Run) -> None:
    assert error(run.params, one_device()) < ROUNDING


def test_two_runs_give_the_same_bits(run: Run) -> None:
    first, second = run.digests
    assert first == second


def test_every_layout_gives_the_same_bits(run: Run, layout: Layout) -> None:
    """Each device iterates on whole matrices. One device has another program, equal up to rounding."""
    if layout.collectives:
        assert digest(run.params) == digest(trained("fsdp rows", AxisType.Auto).params)


def test_momentum_is_sharded_like_the_parameters(run: Run, case: tuple[str, AxisType], layout: Layout) -> None:
    params = placer(mesh_of(case[1], **layout.sizes), layout.spec)(PARAMS)
    assert has_layout_of(optax.tree.get(run.state.inner_states["matrix"], "mu"), params)


def test_no_collective_is_inside_a_loop(run: Run) -> None:
    assert collectives_in_loops(run.program) == 0


def test_collectives_are_those_of_the_exchanges_alone(run: Run, layout: Layout) -> None:
    assert collectives(run.program) == layout.collectives


def test_half_precision_on_the_wire_halves_the_bytes() -> None:
    tx = muon(mesh=jt.OnMesh("fsdp", wire_dtype="bfloat16"))
    run = train(tx, placer(mesh_of(), on_rows), part=True)
    # Two roundings to eight bits, of the momentum and of an update with entries below one: 2^-9 of the largest each;
    # small singular values of the momentum move more.
    assert 0 < error(run.params, part_of(one_device())) < 0.05
    sent: list[Any] = re.findall(r"= \(?(\w+)\[.*? all-to-all\(", run.program)
    assert sent == ["u16", "u16"]  # bfloat16's bits
