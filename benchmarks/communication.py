"""What one update of Muon sends between eight devices, and its temporary memory, next to optax.contrib.muon.

python benchmarks/communication.py [--trees gpt2-small gpt2-small-scanned] [--rounds 5]

Bytes are what one device sends in one update, read from the compiled program: an all-to-all or an all-gather of B bytes
(of its result) among N devices sends `B (N - 1) / N`, an all-reduce twice that, a reduce-scatter that of its operand;
a collective in a loop counts once per round. The floor is two passes of every matrix over the wire. With `--rounds`
updates are timed as well, on virtual devices that share one machine. Writes benchmarks/results/communication.json and
says whether the targets are met.
"""

from __future__ import annotations

import os

# Before anything imports JAX.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import argparse
import math
import re
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import optax
from _common import ROOT, alternate, compare, table, write
from compiled import computations
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from optimizer_step import whole_update
from peers import optax_muon
from trees import few_large, filled, gpt2_small, gpt2_small_scanned

import jaxopt_tour as jt

Tree = Any
DEVICES = 8
PEER, OURS = "optax.contrib.muon", "ours"

BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8}
COLLECTIVE = re.compile(
    r"= (?P<type>.*?) (?P<kind>all-to-all|all-gather|all-reduce|reduce-scatter|collective-permute)(?:-start)?\("
)


def matrix_spec(shape: tuple[int, ...], rows: Any, columns: Any) -> P:
    """The last two dimensions over these axes; a bias or a scale is not sharded."""
    return P(*([None] * (len(shape) - 2)), rows, columns) if len(shape) > 1 else P()


FEW = "few large"
TREES = {FEW: few_large, "gpt2-small": gpt2_small, "gpt2-small-scanned": gpt2_small_scanned}

#: The mesh, the axes that shard the rows and the columns of a kernel, and the axes that share the work.
LAYOUTS: dict[str, tuple[dict[str, int], Any, Any, tuple[str, ...]]] = {
    "fsdp rows": ({"fsdp": 8}, "fsdp", None, ("fsdp",)),
    "fsdp columns": ({"fsdp": 8}, None, "fsdp", ("fsdp",)),
    "fsdp x tp": ({"fsdp": 4, "tp": 2}, "fsdp", "tp", ("fsdp", "tp")),
    "hybrid": ({"data": 2, "fsdp": 4}, "fsdp", None, ("fsdp",)),
}


def placed(tree: Tree, mesh: Any, rows: Any, columns: Any) -> Tree:
    """The tree on the mesh: kernels as given, an embedding over its width, the rest on every device."""

    def put(path: Any, leaf: Any) -> Any:
        name = path[-1].key
        spec = P()
        if name == "kernel":
            spec = matrix_spec(leaf.shape, rows, columns)
        elif name == "embedding":
            spec = P(None, rows or columns)
        return jax.device_put(leaf, NamedSharding(mesh, spec))

    return jax.tree_util.tree_map_with_path(put, tree)


def compiled_step(tx: optax.GradientTransformation, params: Tree, gradients: Tree) -> tuple[Any, Tree]:
    """One whole update, compiled, and the state it starts from. State keeps the parameters' layout."""
    tx = jt.sharded_state(tx)
    state = tx.init(params)
    layout = jax.tree.map(lambda leaf: leaf.sharding, (params, state))
    return jax.jit(whole_update(tx), out_shardings=layout).lower(params, state, gradients).compile(), state


# --- reading a compiled program --------------------------------------------------------------------------------------


def size_of(text: str) -> int:
    """Bytes of a type such as `f32[8,96]{1,0}` or a tuple of such."""
    return sum(
        BYTES[dtype] * math.prod(int(length) for length in shape.split(",") if length)
        for dtype, shape in re.findall(r"(\w+)\[([\d,]*)\]", text)
        if dtype in BYTES
    )


def group_size(line: str) -> int:
    """Devices that take part in one collective."""
    if found := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return len(found[1].split(","))
    if found := re.search(r"replica_groups=\[(\d+),(\d+)\]", line):
        return int(found[2])
    return DEVICES


def sent_bytes(kind: str, result: int, devices: int) -> float:
    """What one device sends, from the size of its result."""
    share = (devices - 1) / devices
    factor = {"all-reduce": 2 * share, "reduce-scatter": devices * share, "collective-permute": 1.0}
    return result * factor.get(kind, share)


def collectives(text: str) -> dict[str, Any]:
    """Collectives of one run of a program: counts and bytes by kind, and how many are in a loop's body.

    A loop whose number of rounds is not in the program counts as one round; none of those here has a collective.
    """
    bodies = computations(text)
    counts: Counter[str] = Counter()
    sent: Counter[str] = Counter()
    in_loops = 0

    def walk(name: str, rounds: int, looped: bool) -> None:
        nonlocal in_loops
        for line in bodies.get(name, ()):
            if found := COLLECTIVE.search(line):
                kind = found["kind"]
                result = size_of(found["type"])
                if "-start(" in line:
                    result //= 2  # the type is a pair of operand and result
                counts[kind] += rounds
                sent[kind] += rounds * sent_bytes(kind, result, group_size(line))
                in_loops += looped
            trips = re.search(r'known_trip_count":\{"n":"(\d+)"', line)
            for callee, is_body in re.findall(
                r"(?:to_apply|calls|true_computation|false_computation)=%?([\w.\-]+)()", line
            ):
                walk(callee, rounds, looped or bool(is_body))
            for callee in re.findall(r"body=%?([\w.\-]+)", line):
                walk(callee, rounds * (int(trips[1]) if trips else 1), True)

    walk("ENTRY", 1, False)
    return {"counts": dict(counts), "bytes": {kind: round(value) for kind, value in sent.items()}, "in_loops": in_loops}


# --- floors and targets ----------------------------------------------------------------------------------------------


def matrix_bytes(params: Tree) -> tuple[int, int, bool]:
    """Bytes of all matrices, bytes of the largest iteration, and whether the devices divide all counts."""
    routes = jt.routing.routes_by_name(params)
    total, held, counts = 0, 0, Counter[tuple[int, ...]]()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        route = routes["/".join(str(key.key) for key in path)]
        if route.label == "matrix":
            for count, m, n in route.axes.matrix_shapes(leaf.shape):
                counts[tuple(sorted((m, n)))] += count
                total += count * m * n * leaf.dtype.itemsize
                # Its input, its output and five matrices of the size of its Gram matrix.
                held = max(held, (2 * m * n + 5 * min(m, n) ** 2) * leaf.dtype.itemsize)
    return total, held, all(count % DEVICES == 0 for count in counts.values())


def measure(name: str, tree: Tree, layout: str, peer: bool, wire_dtype: str | None = None) -> tuple[dict, dict]:
    """One tree in one layout: what the compiled programs say, and functions that run them."""
    sizes, rows, columns, mesh_axes = LAYOUTS[layout]
    mesh = jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))
    params, gradients = (placed(filled(tree, seed, 0.02), mesh, rows, columns) for seed in (0, 1))
    total, held, divides = matrix_bytes(tree)
    shards = math.prod(sizes[axis] for axis in mesh_axes)
    floor = 2 * (shards - 1) / shards**2 * total
    found: dict[str, Any] = {"tree": name, "layout": layout, "wire_dtype": wire_dtype or "float32"}
    found |= {
        "floor_bytes": floor,
        "divides": divides,
        "share_bytes": total / shards,
        "iteration_bytes": held,
        "contenders": {},
    }
    contenders = {OURS: jt.muon(1e-3, weight_decay=0.1, mesh=jt.OnMesh(mesh_axes, wire_dtype=wire_dtype))}
    if peer:
        contenders[PEER] = optax_muon(tree)
    runs: dict[str, Callable[[], Any]] = {}
    for label, tx in contenders.items():
        step, state = compiled_step(tx, params, gradients)
        told = collectives(step.as_text())
        sent = sum(told["bytes"].values())
        memory = step.memory_analysis().temp_size_in_bytes
        found["contenders"][label] = told | {
            "sent_bytes": sent,
            "by_floor": sent / floor,
            "temporary_bytes": memory,
            "temporary_shares": memory / (total / shards),
        }
        runs[label] = lambda step=step, state=state: step(params, state, gradients)
    return found, runs


def row(found: dict[str, Any]) -> str:
    """A line or two for people."""
    lines = [f"{found['tree']}, {found['layout']}, {found['wire_dtype']}: floor {found['floor_bytes'] / 1e6:.1f} MB"]
    for label, told in found["contenders"].items():
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(told["counts"].items()))
        lines.append(
            f"  {label:<19} {told['sent_bytes'] / 1e6:7.1f} MB, {told['by_floor']:.2f} x the floor; {kinds or 'none'}; "
            f"{told['in_loops']} in loops; temporary memory {told['temporary_bytes'] / 2**20:.0f} MiB, "
            f"{told['temporary_shares']:.2f} shares"
        )
    return "\n".join(lines)


def targets(results: list[dict[str, Any]]) -> list[tuple[str, bool]]:
    """The targets of our program, and whether it meets them."""
    ours = [(found, found["contenders"][OURS]) for found in results]
    checks = [("no collective inside a loop", all(told["in_loops"] == 0 for _, told in ours))]
    for divides, bound in ((True, 1.15), (False, 1.5)):
        rows = [
            told["by_floor"]
            for found, told in ours
            if found["divides"] == divides and found["wire_dtype"] == "float32" and found["tree"] != FEW
        ]
        if rows:
            how = "divide" if divides else "do not divide"
            checks.append(
                (f"bytes {max(rows):.3f} x the floor, at most {bound}, where counts {how}", max(rows) <= bound)
            )
    # Two matrices occupy two of eight devices: four times the floor, since every device's row is as long.
    if few := [told["by_floor"] for found, told in ours if found["tree"] == FEW and found["wire_dtype"] == "float32"]:
        checks.append((f"few large matrices: {max(few):.2f} x the floor, at most 4", max(few) <= 4 * (1 + 1e-9)))
    if times := [found["seconds"] for found in results if "seconds" in found and found["tree"] != FEW]:
        ratios = [next(line["ratio"] for line in lines if line["name"] == PEER) for lines in times]
        checks.append((f"{min(ratios):.2f} x the speed of {PEER}, at least 2", min(ratios) >= 2))
    worst = 0.0
    for found, told in ours:
        # What a device sends to others in one exchange is (N - 1) / N of its buffer, padding and all.
        buffer = found["share_bytes"] * told["by_floor"]
        worst = max(worst, told["temporary_bytes"] / (2 * max(buffer, found["share_bytes"]) + found["iteration_bytes"]))
    checks.append((f"temporary memory {worst:.2f} x two shares and one iteration's, at most 1.1", worst <= 1.1))
    return checks


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=0, help="timed rounds; 0: no times")
    trees = ["gpt2-small", "gpt2-small-scanned", FEW]
    parser.add_argument("--trees", nargs="+", default=trees, choices=list(TREES))
    parser.add_argument("--layouts", nargs="+", default=list(LAYOUTS), choices=list(LAYOUTS))
    parser.add_argument("--quick", action="store_true", help="the same trees, small: two layers of width 64")
    parser.add_argument("--no-peer", action="store_true", help="our program alone, not timed")
    parser.add_argument("--no-write", action="store_true", help="print only")
    args = parser.parse_args(arguments)
    small = {"gpt2-small": gpt2_small(2, 64), "gpt2-small-scanned": gpt2_small_scanned(2, 64), FEW: few_large(512)}
    results = []
    for name in args.trees:
        tree = small[name] if args.quick else TREES[name]()
        for layout in args.layouts:
            timed = layout == args.layouts[0]
            found, runs = measure(name, tree, layout, peer=timed and not args.no_peer)
            print(row(found), flush=True)
            if timed and args.rounds and not args.no_peer:
                lines = compare(alternate(runs, args.rounds), OURS)
                found["seconds"] = lines
                print(table(lines), flush=True)
            results.append(found)
            if timed:
                found, _ = measure(name, tree, layout, peer=False, wire_dtype="bfloat16")
                print(row(found), flush=True)
                results.append(found)
    checks = targets(results)
    for text, passed in checks:
        print(f"{'met   ' if passed else 'MISSED'}  {text}")
    if not args.no_write:
        settings = {"rounds": args.rounds, "devices": DEVICES, "quick": args.quick}
        path = write("communication", {"rows": results, "targets": checks}, settings)
        print(f"written to {path.relative_to(ROOT)}")
    return 0 if all(passed for _, passed in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
