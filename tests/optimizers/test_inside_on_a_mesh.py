"""Matrices split inside, over eight virtual devices: the numbers of one device, and the bytes of the plan.

The cases run in one process of their own, ``inside_on_a_mesh.py``.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.optimizers.meshes import cases_of

#: Gram matrices are summed in another order: float32.
ROUNDING = 2e-5

THE_REST = {"one": 1, "stack": 1, "tall": 1}
#: What the plan splits, of a wide matrix, a tall one and nine more.
INSIDE = {
    "1 device": {},
    # Three are left over: two of them go round.
    "2 devices": {"tall": 1},
    "4 devices": THE_REST,
    "rows": THE_REST,
    "columns": THE_REST,
    "both": THE_REST,
    "hybrid": THE_REST,
    "experts": THE_REST | {"moe": 1},
    "wire": THE_REST,
}
#: Where each factor is computed on one device and gathered, not on all.
SHARED = ("4 devices", "columns", "both", "experts")


@pytest.fixture(scope="module")
def cases() -> dict[str, dict[str, Any]]:
    return cases_of("inside_on_a_mesh.py")


@pytest.mark.parametrize("case", INSIDE)
class TestLayouts:
    def test_splits_what_the_plan_says(self, cases: dict[str, Any], case: str) -> None:
        assert cases[case]["inside"] == INSIDE[case]
        assert cases[case]["shared"] == (case in SHARED)

    def test_the_numbers_are_those_of_one_device(self, cases: dict[str, Any], case: str) -> None:
        # bfloat16 on the wire: two roundings to eight bits, of the largest entries of matrix and update.
        assert cases[case]["error"] < (0.01 if case == "wire" else ROUNDING)

    def test_two_runs_agree_bit_for_bit(self, cases: dict[str, Any], case: str) -> None:
        assert cases[case]["repeatable"]

    def test_results_lie_where_the_matrices_lie(self, cases: dict[str, Any], case: str) -> None:
        assert cases[case]["layout_kept"]

    def test_no_collective_inside_the_iteration(self, cases: dict[str, Any], case: str) -> None:
        assert cases[case]["in_loops"] == 0

    def test_collectives_and_bytes_are_those_of_the_plan(self, cases: dict[str, Any], case: str) -> None:
        found = cases[case]
        assert found["sent"] == found["planned"]
        # Of two bundles XLA may join the sums.
        assert found["planned_collectives"] - (case == "experts") <= found["collectives"]
        assert found["collectives"] <= found["planned_collectives"]


def test_matrices_travel_in_the_wires_dtype_and_sums_are_taken_in_full(cases: dict[str, Any]) -> None:
    assert cases["wire"]["travels_as"] == ["u16"]  # bfloat16's bits
    assert cases["wire"]["sums_in"] == ["f32"]


@pytest.mark.parametrize("case", ["shard_map", "shard_map, checked types"])
def test_inside_shard_map(cases: dict[str, Any], case: str) -> None:
    assert cases[case]["inside"] == 3
    assert cases[case]["error"] < ROUNDING
