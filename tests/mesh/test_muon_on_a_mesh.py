"""Muon over eight virtual devices: the same numbers on every layout, and no collective inside the iteration.

The cases run in one process of their own, ``on_a_mesh.py``, which reports each as a line of JSON; the tests below read
the lines.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.mesh.meshes import cases_of

#: Blocks of a matrix arrive in another order than its rows have, so sums are taken in another order: float32.
ROUNDING = 2e-5

LAYOUTS = (
    "1 device",
    "2 devices",
    "4 devices",
    "fsdp rows",
    "fsdp columns",
    "tp",
    "fsdp and tp",
    "hybrid",
    "hybrid, shared by all",
    "replicated, shared by all",
    "scanned and experts",
    "not all axes share",
)
#: Layouts that are tried with Explicit axes as well; the others differ from one of these in numbers or names alone.
EXPLICIT = (
    "fsdp rows",
    "fsdp columns",
    "fsdp and tp",
    "hybrid",
    "hybrid, shared by all",
    "scanned and experts",
    "not all axes share",
)
CASES = [f"{layout}, Auto" for layout in LAYOUTS] + [f"{layout}, Explicit" for layout in EXPLICIT]


@pytest.fixture(scope="module")
def cases() -> dict[str, dict[str, Any]]:
    return cases_of("on_a_mesh.py", *EXPLICIT)


@pytest.mark.parametrize("case", CASES)
class TestLayouts:
    def test_the_numbers_are_those_of_one_device(self, cases: dict[str, Any], case: str) -> None:
        assert cases[case]["error"] < ROUNDING

    def test_two_runs_agree_bit_for_bit(self, cases: dict[str, Any], case: str) -> None:
        assert cases[case]["repeatable"]

    def test_momentum_lies_where_the_parameters_lie(self, cases: dict[str, Any], case: str) -> None:
        assert cases[case]["momentum_layout_kept"]

    def test_no_collective_inside_the_iteration(self, cases: dict[str, Any], case: str) -> None:
        assert cases[case]["inside_loops"] == 0

    def test_collectives_are_the_two_exchanges_alone(self, cases: dict[str, Any], case: str) -> None:
        found = cases[case]
        assert found["collectives"] == found["expected"]


def test_every_layout_gives_the_same_bits(cases: dict[str, Any]) -> None:
    """A device iterates on whole matrices, one like the other; alone it takes another program, near by rounding."""
    digests = {case: cases[case]["digest"] for case in CASES if not case.startswith("1 device")}
    assert len(set(digests.values())) == 1, digests


@pytest.mark.parametrize("case", ["shard_map", "shard_map, checked types", "eager", "inject_hyperparams", "fused"])
def test_other_ways_in(cases: dict[str, Any], case: str) -> None:
    assert cases[case]["error"] < ROUNDING


@pytest.mark.parametrize("case", ["inverses, steps", "inverses, poles"])
def test_inverses_on_every_kind_of_mesh(cases: dict[str, Any], case: str) -> None:
    errors = {kind: error for kind, error in cases[case].items() if kind != "case"}
    assert list(errors) == ["Auto", "Explicit", "shard_map"]
    # Rounding times the condition of R + c I, 1 / 6e-5, where sums of X X^T come in another order: 1e-3 and room.
    assert max(errors.values()) < 2e-3


@pytest.mark.parametrize("case", ["grad", "vmap"])
def test_derivatives_and_batches_are_those_of_the_plain_program(cases: dict[str, Any], case: str) -> None:
    # Derivatives multiply rounding by the slope of the polynomials at small singular values.
    assert cases[case]["error"] < 1e-3 * cases[case]["largest"]


def test_half_the_bytes_on_the_wire_at_bfloat16s_precision(cases: dict[str, Any]) -> None:
    found = cases["wire"]
    # Two roundings to eight bits, of the momentum and of an update with entries below one: 2^-9 of the largest each;
    # small singular values of the momentum move more.
    assert 0 < found["error"] < 0.05
    assert found["dtypes"] == ["u16"]  # bfloat16's bits


@pytest.mark.parametrize("flax", ["nnx", "linen", "plain"])
def test_state_is_created_spread(cases: dict[str, Any], flax: str) -> None:
    found = cases[f"state, {flax}"]
    assert found["spread"] and found["kept_after_a_step"]


def test_numpys_arrays_lie_nowhere_on_an_explicit_mesh(cases: dict[str, Any]) -> None:
    assert cases["no axes, NumPy"]["error"] < ROUNDING


@pytest.mark.parametrize("name", ["muon", "shampoo"])
def test_explicit_axes_need_not_be_named(cases: dict[str, Any], name: str) -> None:
    for kind in ("Auto", "Explicit", "Explicit, eager"):
        found = cases[f"no axes, {name}, {kind}"]
        assert found["error"] < ROUNDING, kind
        assert found["layout_kept"], kind


def test_wrong_axes_are_named(cases: dict[str, Any]) -> None:
    messages = cases["errors"]
    assert "'model'" in messages["unknown axis, Auto"] and "fsdp" in messages["unknown axis, Auto"]
    assert "'model'" in messages["unknown axis, Explicit"] and "fsdp" in messages["unknown axis, Explicit"]
    assert "'fsdp' twice" in messages["axis twice"]
    assert "layouts" in messages["shard_map without layouts"]
    assert "'a/kernel'" in messages["layout twice"] and "'fsdp' twice" in messages["layout twice"]
    assert "'model'" in messages["layout with an unknown axis"]
    assert "'b/kernel'" in messages["layout missing"]
