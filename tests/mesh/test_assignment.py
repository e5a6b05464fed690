"""The plan by which matrices are shared out, and the packing of blocks into what is sent; meshes themselves are in
optimizers/test_muon_on_a_mesh.py, which has eight devices.
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxopt_tour.coefficients.by_name import polar_express
from jaxopt_tour.mesh.assignment import Deal, deals
from jaxopt_tour.mesh.exchange import pack, unpack, whole_and_blocks
from jaxopt_tour.mesh.layouts import check_mesh_axes, whole_shapes
from jaxopt_tour.mesh.partitioner import costs
from jaxopt_tour.orthogonalization.newton_schulz import Orthogonalization
from jaxopt_tour.routing.axes import MatrixAxes

pytestmark = pytest.mark.usefixtures("compile_fast")

SHAPES = [(8, 16), (16, 8), (8, 8), (8, 32)]


def cost(m: int, n: int) -> float:
    return float(m * m * n + m**3)


def fsdp(counts: dict[tuple[int, int], int], devices: int) -> Deal:
    """Stacks of matrices, all spread over their rows."""
    names = {f"{m}x{n}": (count, m, n) for (m, n), count in counts.items()}
    (deal,) = deals(
        names,
        dict.fromkeys(names, "float32"),
        dict.fromkeys(names, MatrixAxes(1, 2)),
        dict.fromkeys(names, ((), ("fsdp",), ())),
        {"fsdp": devices},
        ("fsdp",),
        cost,
    )
    return deal


counts_of_shapes = st.dictionaries(st.sampled_from(SHAPES), st.integers(1, 30), min_size=1)


@given(counts=counts_of_shapes, devices=st.sampled_from([2, 4, 8]))
def test_every_matrix_is_dealt_out_once(counts: dict[tuple[int, int], int], devices: int) -> None:
    deal = fsdp(counts, devices)
    for k, kind in enumerate(deal.kinds):
        owned = []
        for d in range(devices):
            owned += range(d * deal.even[k], (d + 1) * deal.even[k])
            owned += range(deal.extra_start[d, k], deal.extra_start[d, k] + deal.extra[d, k])
        total = sum(piece.local for piece in deal.pieces if piece.kind == kind)
        assert sorted(owned) == list(range(total))


@given(counts=counts_of_shapes, devices=st.sampled_from([2, 4, 8]))
def test_no_two_matrices_share_a_place(counts: dict[tuple[int, int], int], devices: int) -> None:
    deal = fsdp(counts, devices)
    for d in range(devices):
        taken = np.zeros(deal.length, int)
        for k, table in enumerate(deal.offsets):
            for start in table[d, : deal.even[k] + deal.extra[d, k]]:
                taken[start : start + deal.block_size(k)] += 1
        assert taken.max() <= 1
        assert taken.sum() == (deal.even + deal.extra[d]) @ [deal.block_size(k) for k in range(len(deal.kinds))]


@given(counts=counts_of_shapes, devices=st.sampled_from([2, 4, 8]))
def test_no_device_has_a_matrix_more_than_it_must(counts: dict[tuple[int, int], int], devices: int) -> None:
    """Dealing to the least loaded leaves the most loaded at most one matrix above the mean."""
    work = fsdp(counts, devices).work
    assert work.max() - work.mean() <= max(cost(*sorted(shape)) for shape in counts)


@settings(max_examples=20)  # every length of a slice compiles
@given(counts=counts_of_shapes, devices=st.sampled_from([2, 4]))
def test_unpacking_is_the_inverse_of_packing(counts: dict[tuple[int, int], int], devices: int) -> None:
    deal = fsdp(counts, devices)
    rng = np.random.default_rng(0)
    stacks = []
    for kind in deal.kinds:
        total = sum(piece.local for piece in deal.pieces if piece.kind == kind)
        stacks.append(rng.standard_normal((total, *deal.block(kind))).astype(np.float32))
    cuts = [sorted({0, 1, len(stack) // 2, len(stack)}) for stack in stacks]
    pieces = [
        [jnp.asarray(stack[first:last]) for first, last in itertools.pairwise(cut)]
        for stack, cut in zip(stacks, cuts, strict=True)
    ]
    packed = pack(pieces, deal)
    assert packed.shape == (devices, deal.length)
    back = unpack(packed, deal, [[len(piece) for piece in own] for own in pieces])
    jax.tree.map(np.testing.assert_array_equal, pieces, back)
    # What stands at a matrix's place in the row of its owner is its block.
    for k, table in enumerate(deal.offsets):
        for d in range(devices):
            numbers = [*range(d * deal.even[k], (d + 1) * deal.even[k])]
            numbers += range(deal.extra_start[d, k], deal.extra_start[d, k] + deal.extra[d, k])
            for number, start in zip(numbers, table[d], strict=False):
                np.testing.assert_array_equal(packed[d, start : start + deal.block_size(k)], stacks[k][number].ravel())


@pytest.mark.parametrize(
    ("counts", "bound"),
    [
        ({(8, 16): 16, (8, 8): 8}, 1.0),  # counts divide
        ({(8, 8): 12, (8, 24): 12, (8, 32): 24}, 1.15),  # each shape alone would pad by 1.33
        ({(8, 8): 13, (8, 24): 11, (8, 32): 27}, 1.5),
    ],
)
def test_bytes_stay_near_the_floor(counts: dict[tuple[int, int], int], bound: float) -> None:
    deal = fsdp(counts, 8)
    floor = 2 * 7 / 64 * sum(count * m * n for (m, n), count in counts.items())
    assert floor * (1 - 1e-9) <= deal.wire_elements() <= bound * floor * (1 + 1e-9)
    assert deal.padding == pytest.approx(deal.wire_elements() / floor)


def test_blocks_of_both_sides_come_together() -> None:
    layout = {"w": (("fsdp",), ("tp",))}
    sizes = {"fsdp": 2, "tp": 4}
    (deal,) = deals({"w": (4, 8)}, {"w": "float32"}, {"w": MatrixAxes(0, 1)}, layout, sizes, ("tp", "fsdp"), cost)
    whole = np.arange(32.0).reshape(4, 8)
    # In the order of the mesh's axes, as an all-to-all delivers them.
    blocks = [whole[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].ravel() for i in range(2) for j in range(4)]
    together, apart = whole_and_blocks(deal.kinds[0], deal)
    np.testing.assert_array_equal(together(jnp.asarray(blocks)), whole)
    np.testing.assert_array_equal(apart(jnp.asarray(whole)), blocks)


def test_what_travels_together() -> None:
    """A parameter whose experts are spread shares the other axis alone; a split fan-out that is cut stays whole."""
    shapes = {"dense": (8, 16), "experts": (4, 8, 16), "fused": (8, 24), "copies": (8, 8)}
    columns = ((), ("fsdp",))
    layouts = {"dense": columns, "experts": (("ep",), ("fsdp",), ()), "fused": columns, "copies": ((), ())}
    views = {name: MatrixAxes(-2, -1) for name in shapes} | {"fused": MatrixAxes(0, 1, split=(8, 8, 8))}
    found = deals(shapes, dict.fromkeys(shapes, "float32"), views, layouts, {"ep": 2, "fsdp": 2}, ("ep", "fsdp"), cost)
    by_leaf = {piece.leaf: (deal.bundle, piece) for deal in found for piece in deal.pieces}
    assert (by_leaf["dense"][0].exchange, by_leaf["dense"][0].replicas) == (("fsdp",), ("ep",))
    assert (by_leaf["experts"][0].exchange, by_leaf["experts"][0].replicas) == (("fsdp",), ())
    assert by_leaf["experts"][1].local == 2
    assert by_leaf["fused"][1].kind.split == (8, 8, 8)
    assert (by_leaf["copies"][0].exchange, by_leaf["copies"][0].replicas) == ((), ("ep", "fsdp"))


@pytest.mark.parametrize("wrong", [(), ("a", 1), 3, ("a", "a")])
def test_wrong_mesh_axes_are_named(wrong: object) -> None:
    with pytest.raises(ValueError, match="mesh_axes"):
        check_mesh_axes(wrong)


def test_mesh_axes_by_one_name_or_several() -> None:
    assert check_mesh_axes(None) is None
    assert check_mesh_axes("fsdp") == ("fsdp",)
    assert check_mesh_axes(["data", "fsdp"]) == ("data", "fsdp")


def test_without_a_mesh_leaves_are_whole() -> None:
    assert whole_shapes({"a": jnp.ones((2, 3))}, None) == {"a": (2, 3)}


def test_costs_are_those_of_the_schedule_that_runs() -> None:
    """In half precision another stands in for fast."""
    fast, four = (Orthogonalization.of(one, dtype="float16") for one in ("fast", polar_express(4, 1e-2)))
    for shape in ((64, 64), (64, 256)):
        assert costs(fast)[0](*shape) == costs(four)[0](*shape)
    assert costs(Orthogonalization.of("fast", dtype="float32"))[0](64, 256) < costs(four)[0](64, 256)
