"""The cases of test_inside_on_a_mesh.py, in a process with eight virtual devices; prints one line of JSON a case."""

from __future__ import annotations

import pathlib
import re
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from meshes import digest, error, make_mesh, placer, report

import jaxopt_tour as jt
from jaxopt_tour.matrices import sharding, shares

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "benchmarks"))
from communication import collectives

# One of its shape, and a long side that eight do not divide; a tall one; one more than there are devices; experts. Of
# these the plan splits what is named in test_inside_on_a_mesh.py.
SHAPES = {"one": (16, 124), "tall": (128, 16), "stack": (9, 16, 128), "moe": (4, 16, 128)}
AXES = {name: jt.MatrixAxes(-2, -1) for name in SHAPES}
RNG = np.random.default_rng(0)
GRADS = {name: RNG.standard_normal(shape, np.float32) for name, shape in SHAPES.items()}
GRADS["one"] *= 1e-30
GRADS["tall"] *= 1e30
GRADS["stack"][:, :, :16] = 0  # all that one device gets
FEW = {name: GRADS[name] for name in ("one", "tall", "stack")}
OPTIONS: dict[str, Any] = {"eps": 0.3, "symmetric": "blocks"}


def rows(name: str) -> P:
    return P(*([None] * (len(SHAPES[name]) - 2)), "fsdp", None)


def columns(name: str) -> P:
    return rows(name) if name == "one" else P(*([None] * (len(SHAPES[name]) - 1)), "fsdp")


def both(name: str) -> P:
    return P(*([None] * (len(SHAPES[name]) - 2)), "fsdp", "tp")


def experts(name: str) -> P:
    return P("expert", None, "fsdp") if name == "moe" else rows(name)


plans: list[Any] = []


def recording(*arguments: Any) -> Any:
    plans.append(shares.deals(*arguments))
    return plans[-1]


sharding.deals = recording


def transformation(**arguments: Any) -> Any:
    return jt.orthogonalize_via_newton_schulz(axes=AXES, **arguments)


def updated(tx: Any) -> Callable[[Any], Any]:
    return lambda grads: tx.update(grads, tx.init(grads))[0]


ALL = jax.jit(updated(transformation()))(GRADS)
PLAIN = {name: ALL[name] for name in FEW}
WITH_OPTIONS = jax.jit(updated(transformation(**OPTIONS)))(FEW)


def case(
    name: str,
    sizes: dict[str, int],
    kind: AxisType,
    spec: Callable[[str], P],
    mesh_axes: tuple[str, ...],
    shared: bool,
    expected: Any,
    **arguments: Any,
) -> None:
    # Tiny matrices never pay; so the wire and a collective's start are counted as little, or as nothing.
    shares.BYTE, shares.COLLECTIVE = (0.001 if shared else 1000), 0
    place = placer(make_mesh(sizes, kind), spec)
    tx = transformation(mesh_axes=mesh_axes, **arguments)
    grads = place({key: GRADS[key] for key in expected})
    step = jax.jit(updated(tx)).lower(grads).compile()
    first, second = step(grads), step(grads)
    text = step.as_text()
    told = collectives(text)
    itemsize = 2 if arguments.get("wire_dtype") else 4
    inside: Counter[str] = Counter()
    for deal in plans[-1]:
        for piece in deal.inside.pieces:
            inside[piece.leaf] += piece.local
    report(
        name,
        error=error(first, expected),
        repeatable=digest(first) == digest(second),
        layout_kept=all(first[key].sharding.is_equivalent_to(grads[key].sharding, grads[key].ndim) for key in grads),
        inside=inside,
        shared=any(deal.inside.factors is not None for deal in plans[-1]),
        collectives=sum(told["counts"].values()),
        planned_collectives=sum(deal.collectives() for deal in plans[-1]),
        in_loops=told["in_loops"],
        sent=sum(told["bytes"].values()),
        planned=sum(itemsize * deal.wire_elements() + 4 * deal.sum_elements() for deal in plans[-1]),
        travels_as=sorted(set(re.findall(r"= \(?(\w+)\[.*? all-to-all\(", text))),
        sums_in=sorted(set(re.findall(r"= \(?(\w+)\[.*? all-reduce\(", text))),
    )


AUTO, EXPLICIT = AxisType.Auto, AxisType.Explicit
FSDP = ("fsdp",)
case("1 device", {"fsdp": 1}, EXPLICIT, rows, FSDP, False, PLAIN)
case("2 devices", {"fsdp": 2}, AUTO, rows, FSDP, False, PLAIN)
case("4 devices", {"fsdp": 4}, AUTO, rows, FSDP, True, PLAIN)
case("rows", {"fsdp": 8}, AUTO, rows, FSDP, False, PLAIN)
case("columns", {"fsdp": 8}, EXPLICIT, columns, FSDP, True, WITH_OPTIONS, **OPTIONS)
case("both", {"fsdp": 4, "tp": 2}, AUTO, both, ("fsdp", "tp"), True, PLAIN)
case("hybrid", {"data": 2, "fsdp": 4}, EXPLICIT, rows, ("data", "fsdp"), False, WITH_OPTIONS, **OPTIONS)
case("experts", {"expert": 4, "fsdp": 2}, AUTO, experts, ("expert", "fsdp"), True, ALL)
case("wire", {"fsdp": 8}, AUTO, rows, FSDP, False, PLAIN, wire_dtype="bfloat16")

shares.BYTE = 1000
for checked in (False, True):
    specs = {name: columns(name) for name in FEW}
    tx = transformation(mesh_axes="fsdp", layouts=specs)
    mesh = make_mesh({"fsdp": 8}, AUTO)
    spread = jax.shard_map(updated(tx), mesh=mesh, in_specs=(specs,), out_specs=specs, check_vma=checked)
    found = jax.jit(spread)(FEW)
    inside = sum(piece.local for deal in plans[-1] for piece in deal.inside.pieces)
    report("shard_map, checked types" if checked else "shard_map", error=error(found, PLAIN), inside=inside)
