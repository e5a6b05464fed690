"""The benchmarks of the mesh run, their checks can fail, and docs/mesh.md has their numbers."""

from __future__ import annotations

import copy
import json
import os
import pathlib
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model() -> ModuleType:
    sys.path.insert(0, str(ROOT / "benchmarks"))  # the scripts import each other by name
    try:
        import scaling_model
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    return scaling_model


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    return json.loads((ROOT / "benchmarks/results/communication.json").read_text(encoding="utf-8"))


def test_communication_runs_and_checks_its_targets() -> None:
    # In a separate process, which has eight devices.
    script = [sys.executable, "benchmarks/communication.py", "--quick", "--no-peer", "--no-write"]
    chosen = ["--trees", "few large", "--layouts", "fsdp rows"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*script, *chosen], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert "met     no collective inside a loop" in done.stdout
    assert "met     few large matrices: 4.00 x the floor" in done.stdout


def test_planned_bytes_are_those_of_the_compiled_programs(model: ModuleType, measured: dict[str, Any]) -> None:
    in_full = [row for row in measured["results"]["rows"] if row["wire_dtype"] == "float32"]
    assert len(model.check(measured)) == 2 + len(in_full)
    other = copy.deepcopy(measured)
    other["results"]["rows"][0]["contenders"]["ours"]["sent_bytes"] *= 1.01
    with pytest.raises(ValueError, match="planned"):
        model.check(other)


def test_more_devices_take_no_longer(model: ModuleType) -> None:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in model.estimates(50e9, 200e12, 4e6, "gpu")[2:]]
    assert len(rows) == len(model.MODELS) * len(model.MESHES)
    for few, many in zip(rows[::2], rows[1::2], strict=True):
        assert few[0] == many[0]
        assert all(float(many[i].replace(",", "")) < float(few[i].replace(",", "")) for i in (2, 5, 6, 7))


def test_the_document_has_the_measured_numbers(model: ModuleType, measured: dict[str, Any]) -> None:
    document = (ROOT / "docs/mesh.md").read_text(encoding="utf-8")
    first = measured["results"]["rows"][0]["contenders"]
    ours, peer = first["ours"], first["optax.contrib.muon"]
    prose = " ".join(document.split())
    assert f"sends {ours['sent_bytes'] / 1e6:.0f} MB per update, {ours['by_floor']:.2f} times the floor" in prose
    assert f"{peer['sent_bytes'] / 1e6:,.0f} MB." in prose
    for table in (model.measured(measured), model.estimates(50e9, 200e12, 4e6, "gpu")):
        assert "\n".join(table) in document


def test_bytes_are_within_six_per_cent_of_the_floor(measured: dict[str, Any]) -> None:
    rows = [row for row in measured["results"]["rows"] if row["tree"].startswith("gpt2")]
    assert rows and all(row["contenders"]["ours"]["by_floor"] <= 1.06 for row in rows)
