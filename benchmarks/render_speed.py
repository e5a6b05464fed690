"""The tables of docs/speed.md, from the committed results and nothing else.

python benchmarks/render_speed.py

Reads optimizer_step.json, compile_time.json, orthogonalize.json and roofline.json in benchmarks/results.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from _common import RESULTS, ROOT

Json = dict[str, Any]
PAGE = ROOT / "docs" / "speed.md"


def read(name: str) -> Json:
    """One committed results file."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def speed(row: Json) -> str:
    """How many times faster, with quartiles."""
    low, high = row["ratio_quartiles"]
    return f"{row['speedup']:.2f} [{1 / high:.2f}, {1 / low:.2f}]"


def step_table(steps: Json, compiling: Json) -> str:
    """The whole update on every tree."""
    rows = []
    phases = list(next(iter(compiling["results"].values())))
    for tree, lines in steps["results"].items():
        built = {phase: {line["name"]: line["ratio"] for line in compiling["results"][tree][phase]} for phase in phases}
        for line in lines:
            rows.append(
                [
                    tree,
                    line["name"],
                    speed(line),
                    f"{line['speedup_to_rolled']:.2f}",
                    *(f"{built[phase][line['name']]:.2f}" if line["name"] in built[phase] else "" for phase in phases),
                    f"{line['temporary_bytes'] / 2**20:,.0f} MiB",
                ]
            )
    return markdown(
        ["tree", "optimizer", "speed", "to not unrolled", *(f"{phase} time" for phase in phases), "temporary memory"],
        rows,
    )


def orthogonalize_table(results: Json) -> str:
    """Orthogonalization alone at every size."""
    rows = [
        [shape, line["name"], speed(line), f"{line['speedup_to_rolled']:.2f}", f"{line['polar_error']:.3f}"]
        for shape, lines in results["results"].items()
        for line in lines
    ]
    return markdown(["matrices", "", "speed", "to not unrolled", "polar error"], rows)


def roofline_table(roofline: Json) -> str:
    """Operations, rates and shares."""
    rows = [
        [
            name,
            f"{line['operations'] / 1e12:.3f}",
            f"{line['rate'] / 1e9:.0f} GFLOP/s",
            f"{line['share_of_large_product']:.0%}",
            f"{line['share_of_own_products']:.0%}",
        ]
        for name, line in roofline["results"].items()
        if isinstance(line, dict)
    ]
    return markdown(["update", "TFLOP", "rate", "of one large product's", "its products alone, of the time"], rows)


def machine_line(steps: Json, compiling: Json, orthogonalize: Json, roofline: Json) -> str:
    """What it ran on, and how often."""
    machine, versions = steps["machine"], steps["versions"]
    rounds = [one["settings"]["rounds"] for one in (steps, compiling, orthogonalize, roofline)]
    return (
        f"On {machine['processor']}, {machine['cores']} cores, jax {versions['jax']}, optax {versions['optax']}. "
        f"Rounds: {rounds[0]} of a whole update,\n{rounds[1]} of compilation, {rounds[2]} of orthogonalization alone, "
        f"{rounds[3]} of the machine's own rate. It is a shared virtual machine:\ncompare ratios, not times."
    )


def main() -> None:
    steps, compiling, alone, roofline = map(read, ("optimizer_step", "compile_time", "orthogonalize", "roofline"))
    blocks = {
        "machine": machine_line(steps, compiling, alone, roofline),
        "step": step_table(steps, compiling),
        "orthogonalize": orthogonalize_table(alone),
        "roofline": roofline_table(roofline),
    }
    text = PAGE.read_text(encoding="utf-8")
    for name, block in blocks.items():
        pattern = rf"(<!-- {name}: [^\n]*-->\n).*?(<!-- end -->)"
        text, count = re.subn(pattern, lambda found, block=block: f"{found[1]}{block}\n{found[2]}", text, flags=re.S)
        if count != 1:
            raise SystemExit(f"docs/speed.md has {count} places for {name}, not one")
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
