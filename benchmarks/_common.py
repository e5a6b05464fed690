"""What every benchmark shares: paired alternating rounds, medians and quartiles, and a JSON file with the machine.

A contender is a function of no arguments. Contenders are timed in turn, round after round and in reversed order every
other round, so that a machine that slows down slows all of them; what is compared is the ratio within a round, and its
median and quartiles are what is reported.

    seconds = alternate({"optax": step_of_optax, "ours": step_of_ours}, rounds=20)
    rows = compare(seconds, baseline="optax")
    print(table(rows))
    write("orthogonalize", rows, settings={"shape": [12, 768, 3072]})
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("jax", "jaxlib", "optax", "flax", "numpy")


def _processor() -> str:
    """The processor's name; platform.processor() is empty on most Linux systems."""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def machine() -> dict[str, Any]:
    """The processor, the cores that this process may use, and the accelerator where there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found: dict[str, Any] = {"processor": _processor(), "cores": cores, "system": platform.system()}
    import jax  # A benchmark of imports asks for the machine after it has measured.

    device = jax.devices()[0]
    return found | {"device": f"{len(jax.devices())} x {device.device_kind}", "backend": device.platform}


def versions() -> dict[str, str]:
    """Python and the packages that a result depends on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def revision() -> str | None:
    """The commit of this checkout, with "+" where it has been changed since; None outside a repository."""
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()


def seconds_of(contender: Callable[[], Any]) -> float:
    """The seconds of one call, until its arrays are there."""
    import jax

    start = time.perf_counter()
    jax.block_until_ready(contender())
    return time.perf_counter() - start


def alternate(
    contenders: Mapping[str, Callable[[], Any]],
    rounds: int,
    warmup: int = 1,
    measure: Callable[[Callable[[], Any]], float] = seconds_of,
) -> dict[str, list[float]]:
    """Seconds of every contender in every round.

    Args:
        contenders: functions of no arguments by name.
        rounds: how often each is timed.
        warmup: rounds before them that are thrown away: compilation, caches.
        measure: what turns a contender into seconds; by default one call, waiting for its arrays.
    """
    names = list(contenders)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for index in range(-warmup, rounds):
        for name in names if index % 2 else reversed(names):
            elapsed = measure(contenders[name])
            if index >= 0:
                seconds[name].append(elapsed)
    return seconds


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The lower quartile, the median and the upper quartile."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def compare(seconds: Mapping[str, Sequence[float]], baseline: str) -> list[dict[str, Any]]:
    """One row a contender: its median and quartiles in seconds, and those of its ratio to the baseline, round by round.

    A ratio above 1 is slower than the baseline.
    """
    rows = []
    for name, values in seconds.items():
        low, middle, high = quartiles(values)
        ratio_low, ratio, ratio_high = quartiles([a / b for a, b in zip(values, seconds[baseline], strict=True)])
        rows.append(
            {
                "name": name,
                "rounds": len(values),
                "seconds": middle,
                "seconds_quartiles": [low, high],
                "ratio": ratio,
                "ratio_quartiles": [ratio_low, ratio_high],
            }
        )
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of `compare` as text."""
    width = max(len("contender"), *(len(row["name"]) for row in rows))
    lines = [f"{'contender':<{width}}  {'median':>12}  {'quartiles':>23}  {'ratio':>6}  quartiles"]
    for row in rows:
        low, high = (f"{1e3 * value:.3f}" for value in row["seconds_quartiles"])
        ratio_low, ratio_high = row["ratio_quartiles"]
        lines.append(
            f"{row['name']:<{width}}  {1e3 * row['seconds']:>9.3f} ms  {low + ' to ' + high + ' ms':>23}"
            f"  {row['ratio']:>6.3f}  {ratio_low:.3f} to {ratio_high:.3f}"
        )
    return "\n".join(lines)


def document(results: Any, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Results with what they were measured on: machine, versions, revision and settings."""
    return {
        "format": 1,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "revision": revision(),
        "settings": dict(settings or {}),
        "results": results,
    }


def write(name: str, results: Any, settings: Mapping[str, Any] | None = None) -> pathlib.Path:
    """Write `benchmarks/results/NAME.json` in one move: the results, and what they were measured on.

    Args:
        name: the file's name, without its ending.
        results: anything that JSON holds; no number may be infinite or NaN.
        settings: what was chosen: shapes, rounds, seeds.
    """
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    with tempfile.NamedTemporaryFile("w", dir=RESULTS, prefix=f".{name}.", delete=False, encoding="utf-8") as file:
        json.dump(document(results, settings), file, indent=2, allow_nan=False)
        file.write("\n")
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)
    return path
