"""When the plan splits matrices inside; what devices then do is tested in optimizers/test_inside_on_a_mesh.py."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxopt_tour.linalg.newton_schulz import Orthogonalization
from jaxopt_tour.matrices.axes import MatrixAxes
from jaxopt_tour.matrices.sharding import costs
from jaxopt_tour.matrices.shares import Deal, deals

ROWS, COLUMNS = ((), ("fsdp",), ()), ((), (), ("fsdp",))


def planned(
    counts: dict[tuple[int, int], int],
    devices: int = 8,
    layout: Any = ROWS,
    sizes: dict[str, int] | None = None,
    split: tuple[int, ...] | None = None,
    parts: bool = True,
    **options: Any,
) -> Deal:
    """Stacks of matrices, all spread alike."""
    shapes = {f"{m}x{n}": (count, m, n) for (m, n), count in counts.items()}
    cost, in_parts = costs(Orthogonalization.of(options.pop("schedule", "polar_express"), **options))
    (deal,) = deals(
        shapes,
        dict.fromkeys(shapes, "float32"),
        dict.fromkeys(shapes, MatrixAxes(1, 2, split=split)),
        dict.fromkeys(shapes, layout),
        sizes or {"fsdp": devices},
        ("fsdp",),
        cost,
        in_parts if parts else None,
    )
    return deal


def split_inside(deal: Deal) -> int:
    return sum(piece.local for piece in deal.inside.pieces)


@pytest.mark.parametrize("layout", [ROWS, COLUMNS])
@pytest.mark.parametrize(("count", "inside"), [(1, 1), (8, 0), (9, 1), (16, 0)])
def test_what_does_not_go_round_is_split(layout: Any, count: int, inside: int) -> None:
    deal = planned({(1024, 4096): count}, layout=layout)
    assert split_inside(deal) == inside
    whole = planned({(1024, 4096): count}, layout=layout, parts=False)
    assert deal.work.max() <= whole.work.max()
    assert deal.wire_elements() + deal.sum_elements() <= whole.wire_elements()


def test_one_matrix_by_hand() -> None:
    """Floats and operations of one wide matrix on eight devices, whole and split inside."""
    m, n = 1024, 4096
    whole, deal = (planned({(m, n): 1}, parts=parts) for parts in (False, True))
    factor = whole.work.max() - 4 * m * m * n
    assert whole.wire_elements() == 2 * 7 * m * n / 8  # of the row for each share, seven are padding
    assert whole.balance == pytest.approx(1 / 8)
    assert deal.wire_elements() == 2 * 7 / 8 * m * n / 8  # an eighth of it, turned and turned back
    assert deal.sum_elements() == 2 * 7 / 8 * (m * m + 1)  # the Gram matrix and the largest entry, summed
    assert deal.work == pytest.approx(factor + 4 * m * m * n / 8)
    assert planned({(m, n): 1}, layout=COLUMNS).wire_elements() == 0  # its columns are where they are wanted


@pytest.mark.parametrize(
    ("why", "arguments"),
    [
        ("too small to pay for the start of a collective", {"counts": {(32, 64): 1}}),
        ("square: the standard form returns to X at every step", {"counts": {(1024, 1024): 1}}),
        ("half precision returns to X after two steps", {"counts": {(1024, 4096): 1}, "dtype": "float16"}),
        ("an SVD has no such parts", {"counts": {(1024, 4096): 1}, "schedule": "exact"}),
        ("cut only once it is in one place", {"counts": {(1024, 4096): 1}, "layout": COLUMNS, "split": (2048, 2048)}),
        (
            "an axis that shares no work splits it",
            {
                "counts": {(1024, 4096): 1},
                "sizes": {"fsdp": 4, "tp": 2},
                "layout": ((), ("fsdp",), ("tp",)),
            },
        ),
        ("many go round by themselves", {"counts": {(1024, 4096): 65}}),
        ("one device", {"counts": {(1024, 4096): 1}, "devices": 1}),
    ],
)
def test_stays_whole(why: str, arguments: dict[str, Any]) -> None:
    assert split_inside(planned(**arguments)) == 0, why


@given(
    counts=st.dictionaries(
        st.sampled_from([(512, 2048), (1024, 4096), (1024, 1024), (4096, 1024)]), st.integers(1, 12), min_size=1
    ),
    devices=st.sampled_from([2, 4, 8]),
)
def test_every_matrix_is_planned_once_and_never_slower(counts: dict[tuple[int, int], int], devices: int) -> None:
    deal, whole = planned(counts, devices), planned(counts, devices, parts=False)
    for (m, n), count in counts.items():
        numbers: list[int] = []
        for piece in deal.pieces + deal.inside.pieces:
            if piece.leaf == f"{m}x{n}":
                numbers += range(piece.first, piece.first + piece.local)
        assert sorted(numbers) == list(range(count))
    assert deal.time() <= whole.time()
    if deal.inside.factors is not None:
        assert deal.inside.factors.elements == sum(piece.local * piece.kind.m**2 for piece in deal.inside.pieces)
