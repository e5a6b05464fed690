"""Laws of the assignment of matrices to devices, and of packing their blocks into what is sent."""

from __future__ import annotations

import dataclasses
import itertools
import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxopt_tour.mesh.assignment import Assignment, assign
from jaxopt_tour.mesh.exchange import _column_orders, _whole_and_blocks, pack, unpack
from jaxopt_tour.routing.axes import MatrixAxes

SHAPES = [(8, 16), (16, 8), (8, 8), (8, 32)]


def cost(m: int, n: int) -> float:
    return float(m * m * n + m**3)


def fsdp(counts: dict[tuple[int, int], int], devices: int) -> Assignment:
    """Stacks of matrices, all sharded over their rows."""
    shapes = {f"{m}x{n}": (count, m, n) for (m, n), count in counts.items()}
    _, (assignment,) = assign(
        shapes,
        dict.fromkeys(shapes, "float32"),
        dict.fromkeys(shapes, MatrixAxes(1, 2)),
        dict.fromkeys(shapes, ((), ("fsdp",), ())),
        {"fsdp": devices},
        ("fsdp",),
        cost,
    )
    return assignment


def totals(assignment: Assignment) -> list[int]:
    """Matrices of every group."""
    return [sum(member.local for member in assignment.members if member.group == group) for group in assignment.groups]


def numbers(assignment: Assignment, device: int, group: int) -> list[int]:
    """The matrices of a group that a device works on."""
    return [i for k, first, last in assignment.runs[device] if k == group for i in range(first, last)]


counts_of_shapes = st.dictionaries(st.sampled_from(SHAPES), st.integers(1, 30), min_size=1)
few_devices = st.sampled_from([2, 4, 8])


@given(counts=counts_of_shapes, devices=few_devices)
def test_every_matrix_is_assigned_once(counts: dict[tuple[int, int], int], devices: int) -> None:
    assignment = fsdp(counts, devices)
    for k, total in enumerate(totals(assignment)):
        assigned = [number for d in range(devices) for number in numbers(assignment, d, k)]
        assert sorted(assigned) == list(range(total))


@given(counts=counts_of_shapes, devices=few_devices)
def test_no_two_matrices_share_a_place(counts: dict[tuple[int, int], int], devices: int) -> None:
    assignment = fsdp(counts, devices)
    for d in range(devices):
        used = np.zeros(assignment.length, int)
        for k, table in enumerate(assignment.offsets):
            for start in table[d, : len(numbers(assignment, d, k))]:
                used[start : start + assignment.block_sizes[k]] += 1
        assert used.max() <= 1
        assert used.sum() == sum(len(numbers(assignment, d, k)) * size for k, size in enumerate(assignment.block_sizes))


@given(counts=counts_of_shapes, devices=few_devices)
def test_no_device_has_more_than_one_matrix_above_the_mean(counts: dict[tuple[int, int], int], devices: int) -> None:
    assignment = fsdp(counts, devices)
    mean, largest = np.mean(assignment.work), max(assignment.work)
    assert largest - mean <= max(cost(*sorted(shape)) for shape in counts)
    assert assignment.balance == pytest.approx(mean / largest)
    assert sum(assignment.work) == pytest.approx(sum(n * cost(*sorted(shape)) for shape, n in counts.items()))


@settings(max_examples=10)  # every length of a row compiles
@given(counts=counts_of_shapes, devices=st.sampled_from([2, 4]))
def test_unpacking_is_the_inverse_of_packing(counts: dict[tuple[int, int], int], devices: int) -> None:
    assignment = fsdp(counts, devices)
    rng = np.random.default_rng(0)
    stacks = [
        rng.standard_normal((total, *assignment.block(group))).astype(np.float32)
        for total, group in zip(totals(assignment), assignment.groups, strict=True)
    ]
    cuts = [sorted({0, 1, len(stack) // 2, len(stack)}) for stack in stacks]
    batches = [
        [stack[first:last] for first, last in itertools.pairwise(cut)]  # NumPy's, whose slices do not compile
        for stack, cut in zip(stacks, cuts, strict=True)
    ]
    packed = np.asarray(pack(batches, assignment))
    assert packed.shape == (devices, assignment.length)
    unpacked = unpack(packed, assignment, [[len(batch) for batch in of_group] for of_group in batches])
    jax.tree.map(np.testing.assert_array_equal, batches, unpacked)
    # At the place of a matrix, in the row of the device that works on it, is its block.
    for k, (table, size) in enumerate(zip(assignment.offsets, assignment.block_sizes, strict=True)):
        for d in range(devices):
            for number, start in zip(numbers(assignment, d, k), table[d], strict=False):
                np.testing.assert_array_equal(packed[d, start : start + size], stacks[k][number].ravel())


@pytest.mark.parametrize(
    ("counts", "bound"),
    [
        ({(8, 16): 16, (8, 8): 8}, 1.0),  # counts divide
        ({(8, 8): 12, (8, 24): 12, (8, 32): 24}, 1.06),  # GPT-2 small; each shape alone would pad by 1.33
        ({(8, 8): 13, (8, 24): 11, (8, 32): 27}, 1.5),
    ],
)
def test_bytes_are_near_the_floor(counts: dict[tuple[int, int], int], bound: float) -> None:
    assignment = fsdp(counts, 8)
    floor = 2 * 7 / 64 * sum(count * m * n for (m, n), count in counts.items())
    assert floor * (1 - 1e-9) <= assignment.wire_elements <= bound * floor * (1 + 1e-9)
    assert assignment.padding == pytest.approx(assignment.wire_elements / floor)


def test_it_is_plain_data() -> None:
    assignment = fsdp({(8, 16): 13, (8, 8): 5}, 4)
    assert json.loads(json.dumps(dataclasses.asdict(assignment)))["even"] == list(assignment.even)
    again = fsdp({(8, 16): 13, (8, 8): 5}, 4)
    assert assignment == again and hash(assignment) == hash(again)


def test_tables_are_computed_once() -> None:
    assignment = fsdp({(8, 16): 13, (8, 8): 5}, 4)
    assert assignment.offsets is assignment.offsets
    assert assignment.runs is assignment.runs


def test_many_devices_take_no_time() -> None:
    start = time.process_time()
    assignment = fsdp({(256, 1024): 500, (1024, 256): 300, (256, 256): 1000}, 256)
    assert len(assignment.offsets) == len(assignment.groups) and assignment.length
    assert time.process_time() - start < 2


def test_blocks_of_rows_and_columns_make_the_matrix() -> None:
    layout = {"w": (("fsdp",), ("tp",))}
    sizes = {"fsdp": 2, "tp": 4}
    _, (assignment,) = assign(
        {"w": (4, 8)}, {"w": "float32"}, {"w": MatrixAxes(0, 1)}, layout, sizes, ("tp", "fsdp"), cost
    )
    whole = np.arange(32.0).reshape(4, 8)
    # In the order of the mesh axes, as an all-to-all delivers them.
    blocks = [whole[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].ravel() for i in range(2) for j in range(4)]
    together, into_blocks = _whole_and_blocks(assignment.groups[0], assignment)
    np.testing.assert_array_equal(together(jnp.asarray(blocks)), whole)
    np.testing.assert_array_equal(into_blocks(jnp.asarray(whole)), blocks)


def test_what_shares_an_exchange() -> None:
    """A parameter whose experts are sharded shares the other axis alone; a sharded split fan-out is split late."""
    shapes = {"dense": (8, 16), "experts": (4, 8, 16), "fused": (8, 24), "replicated": (8, 8), "whole": (4, 8, 8)}
    columns = ((), ("fsdp",))
    layouts = {
        "dense": columns,
        "experts": (("ep",), ("fsdp",), ()),
        "fused": columns,
        "replicated": ((), ()),
        "whole": (("ep", "fsdp"), (), ()),
    }
    views = {name: MatrixAxes(-2, -1) for name in shapes} | {"fused": MatrixAxes(0, 1, split=(8, 8, 8))}
    sizes = {"ep": 2, "fsdp": 2}
    local, assignments = assign(shapes, dict.fromkeys(shapes, "float32"), views, layouts, sizes, ("ep", "fsdp"), cost)
    by_name = {member.key.name: (one.axes, member) for one in assignments for member in one.members}
    assert by_name["dense"][0][:2] == (("fsdp",), ("ep",))
    assert by_name["experts"][0][:2] == (("fsdp",), ())
    assert by_name["experts"][1].local == 2
    assert by_name["fused"][1].group.split == (8, 8, 8)
    assert by_name["replicated"][0][:2] == ((), ("ep", "fsdp"))
    assert [(key.name, count) for key, count, *_ in local] == [("whole", 1)]


def test_a_late_split_puts_columns_in_the_order_of_the_parameter() -> None:
    view, sizes = MatrixAxes(0, (1, 2), split=(64, 16, 16)), {"a": 2, "b": 4}
    layouts = {"qkv": ((), ("a",), ("b",))}
    _, (assignment,) = assign({"qkv": (16, 6, 16)}, {"qkv": "float32"}, {"qkv": view}, layouts, sizes, ("a", "b"), cost)
    columns = np.arange(96).reshape(2, 3, 4, 4)  # heads by a, head dimension by b
    arrival = columns.transpose(0, 2, 1, 3).ravel()  # device by device
    into_order, back = _column_orders(assignment.groups[0])
    np.testing.assert_array_equal(arrival[into_order], np.arange(96))
    np.testing.assert_array_equal(np.arange(96)[back], arrival)
