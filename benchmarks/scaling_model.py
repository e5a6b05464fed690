"""Estimate the cost of Muon per step on large models and meshes: the plan's bytes and operations at given rates.

python benchmarks/scaling_model.py [--link 50e9] [--rate 200e12] [--tokens 4e6] [--platform gpu]

The plan is the one that a real mesh would follow (jaxopt_tour.mesh.plan), so its bytes are first compared with those
that benchmarks/communication.py read from compiled programs (benchmarks/results/communication.json); the script fails
where they differ. Writes the tables of docs/mesh.md.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from typing import Any, NamedTuple

import jax
from _common import RESULTS, ROOT
from accuracy import put
from trees import TREES, few_large

import jaxopt_tour as jt
from jaxopt_tour.mesh.assignment import Assignment, Layout
from jaxopt_tour.mesh.plan import plan_matrices
from jaxopt_tour.orthogonalization.plan import PLATFORMS, Platform

DOCUMENT = ROOT / "docs" / "mesh.md"


class Model(NamedTuple):
    """The matrices of a decoder, (count, fan-in, fan-out) each, and the share of their entries that a token uses."""

    name: str
    matrices: tuple[tuple[int, int, int], ...]
    active: float


def dense(name: str, layers: int, width: int, hidden: int, key_value: int) -> Model:
    """Attention with grouped keys and values, and a gated feed-forward layer."""
    attention = ((2 * layers, width, width), (2 * layers, width, key_value))
    return Model(name, (*attention, (2 * layers, width, hidden), (layers, hidden, width)), 1.0)


def experts(
    name: str, layers: int, width: int, hidden: int, number: int, used: int, heads: int, key_value: int
) -> Model:
    """The same with its feed-forward layer replaced by experts, of which a token uses a few."""
    attention = ((layers, width, heads), (2 * layers, width, key_value), (layers, heads, width))
    expert = ((2 * layers * number, width, hidden), (layers * number, hidden, width))
    sizes = [sum(count * m * n for count, m, n in part) for part in (attention, expert)]
    return Model(name, attention + expert, (sizes[0] + sizes[1] * used / number) / sum(sizes))


MODELS = (
    dense("7 B dense", 32, 4096, 11008, 4096),
    dense("70 B dense", 80, 8192, 28672, 1024),
    experts("235 B, 128 experts, 8 used", 94, 4096, 1536, 128, 8, 8192, 512),
)
MESHES = (64, 1024)

ROWS: Layout = ((), ("fsdp",), ())
#: As in benchmarks/communication.py.
MEASURED: dict[str, tuple[dict[str, int], Layout, tuple[str, ...]]] = {
    "fsdp rows": ({"fsdp": 8}, ROWS, ("fsdp",)),
    "fsdp columns": ({"fsdp": 8}, ((), (), ("fsdp",)), ("fsdp",)),
    "fsdp x tp": ({"fsdp": 4, "tp": 2}, ((), ("fsdp",), ("tp",)), ("fsdp", "tp")),
    "hybrid": ({"data": 2, "fsdp": 4}, ROWS, ("fsdp",)),
}


def assignments(
    matrices: Any, sizes: dict[str, int], layout: Layout, mesh_axes: tuple[str, ...], platform: Platform
) -> list[Assignment]:
    """Every matrix sharded alike, or along its columns alone where devices do not divide its rows."""
    names = [str(number) for number in range(len(matrices))]

    def fitting(m: int, n: int) -> Layout:
        devices = math.prod(sizes[axis] for axis in layout[1])
        if m % devices == 0:
            return layout
        assert n % devices == 0
        return (), (), layout[1]

    plan = plan_matrices(
        jt.Orthogonalizer(),
        platform,
        dict(zip(names, matrices, strict=True)),
        dict.fromkeys(names, "float32"),
        dict.fromkeys(names, jt.MatrixAxes(1, 2)),
        layouts={name: fitting(m, n) for name, (_, m, n) in zip(names, matrices, strict=True)},
        sizes=sizes,
        mesh_axes=mesh_axes,
    )
    return [exchange.assignment for exchange in plan.exchanges]


def check(measured: dict[str, Any]) -> list[str]:
    """One line per measured program: bytes of the plan, and of the compiled program.

    Raises:
        ValueError: they differ by more than a thousandth.
    """
    lines = ["| tree | layout | plan, MB | compiled, MB |", "|---|---|---|---|"]
    for row in measured["results"]["rows"]:
        if row["wire_dtype"] != "float32":
            continue
        tree = (TREES | {"few large": few_large})[row["tree"]]()
        routes = jt.routing.routes_by_name(tree)
        matrices = []
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            route = routes["/".join(str(key.key) for key in path)]
            if route.label == "matrix":
                matrices += route.axes.matrix_shapes(leaf.shape)
        planned = 4 * sum(one.wire_elements for one in assignments(matrices, *MEASURED[row["layout"]], "cpu"))
        found = row["contenders"]["ours"]["sent_bytes"]
        lines.append(f"| {row['tree']} | {row['layout']} | {planned / 1e6:.2f} | {found / 1e6:.2f} |")
        if not math.isclose(planned, found, rel_tol=1e-3):
            raise ValueError(f"{row['tree']}, {row['layout']}: planned {planned:.0f} bytes, compiled {found:.0f}")
    return lines


def estimates(link: float, rate: float, tokens: float, platform: Platform) -> list[str]:
    """The table of large models: time on the wire and in products, and the batch from which backward takes longer."""
    lines = [
        "| model | devices | sent, MB | by floor | balance | wire, ms | products, ms | backward, ms | hidden from |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for model in MODELS:
        parameters = sum(count * m * n for count, m, n in model.matrices)
        for devices in MESHES:
            (assignment,) = assignments(model.matrices, {"fsdp": devices}, ROWS, ("fsdp",), platform)
            sent = 2 * assignment.wire_elements  # bfloat16 on the wire
            floor = 2 * 2 * (devices - 1) / devices**2 * parameters
            wire, products = sent / link, max(assignment.work) / rate
            # Four operations a token and an active parameter: the gradients of activations and of weights.
            a_token = 4 * parameters * model.active / devices / rate
            lines.append(
                f"| {model.name} | {devices:,} | {sent / 1e6:,.0f} | {sent / floor:.2f} | {assignment.balance:.2f} | "
                f"{1e3 * wire:.1f} | {1e3 * products:.1f} | {1e3 * tokens * a_token:,.0f} | "
                f"{(wire + products) / a_token / 1e6:.2f} M tokens |"
            )
    return lines


def measured(document: dict[str, Any]) -> list[str]:
    """Bytes, collectives and memory of the compiled programs, from the results of benchmarks/communication.py."""
    lines = [
        "| model | layout | program | sent per device, MB | by floor | collectives | temporary memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in document["results"]["rows"]:
        for name, told in row["contenders"].items():
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(told["counts"].items()))
            travels = f", {row['wire_dtype']} on the wire" if row["wire_dtype"] != "float32" else ""
            lines.append(
                f"| {row['tree']} | {row['layout']}{travels} | {name} | {told['sent_bytes'] / 1e6:,.1f} | "
                f"{told['by_floor']:.2f} | {kinds} | {told['temporary_bytes'] / 2**20:,.0f} MiB |"
            )
    return lines


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--link", type=float, default=50e9, help="bytes a second that one device sends")
    parser.add_argument("--rate", type=float, default=200e12, help="operations a second of one device, in products")
    parser.add_argument("--tokens", type=float, default=4e6, help="tokens a step, over all devices")
    parser.add_argument("--platform", default="gpu", choices=PLATFORMS, help="whose plan")
    parser.add_argument("--no-write", action="store_true", help="print only")
    args = parser.parse_args(arguments)
    results = RESULTS / "communication.json"
    if not results.exists():
        print(
            "There is no benchmarks/results/communication.json: run benchmarks/communication.py first.", file=sys.stderr
        )
        return 1
    document = json.loads(results.read_text(encoding="utf-8"))
    tables = {
        "communication": "\n".join(measured(document)),
        "bytes": "\n".join(check(document)),
        "scaling": "\n".join(estimates(args.link, args.rate, args.tokens, args.platform)),
    }
    print("\n\n".join(tables.values()))
    if not args.no_write:
        put(DOCUMENT, tables)
    return 0


if __name__ == "__main__":
    sys.exit(main())
