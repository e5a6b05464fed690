"""The file of results: what is in it, where it was measured, and writing it so that it is never half there.

`results.json`:

```text
{"format": 1, "created": ISO time, "machine": {...}, "versions": {...}, "revision": str or null,
 "settings": {...},
 "tasks": {task: {"title", "metric": "accuracy" or null, "parameters", "routing", "batch", "runs": [
     {"optimizer", "seed", "learning_rate", "steps",
      "curve": {"step", "seconds", "train_loss", "validation_loss": [...], "validation_accuracy": [...] or null},
      "final": {"validation_loss", "validation_accuracy"},
      "milliseconds_per_step", "optimizer_share", "state_bytes_per_parameter", "seconds"}]}},
 "claims": [{"name", "text", "holds", "numbers"}]}
```

A number that is not finite (a run that diverged) is null.
"""

from __future__ import annotations

import csv
import datetime
import importlib.metadata
import io
import json
import math
import os
import platform
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import jax

import jaxopt_tour as jt

FORMAT = 1

Results = dict[str, Any]


def new_results(settings: dict[str, Any]) -> Results:
    """Results without tasks, with all that says where they come from."""
    return {
        "format": FORMAT,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "revision": revision(),
        "settings": settings,
        "tasks": {},
        "claims": [],
    }


def machine() -> dict[str, Any]:
    """The processor, its cores that this process may use, and JAX's devices."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "devices": [f"{device.platform} {device.device_kind}" for device in jax.devices()],
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the numbers."""
    found = {"python": platform.python_version(), "jaxopt-tour": jt.__version__}
    for package in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def revision() -> str | None:
    """The git revision of the source, with `+changes` where files differ from it; None outside a checkout."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "HEAD")
        return head + ("+changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def without_nonfinite(value: Any) -> Any:
    """The same JSON value with null for every number that is not finite."""
    if isinstance(value, dict):
        return {key: without_nonfinite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nonfinite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_json(path: Path, value: Any) -> None:
    """Write to a temporary file beside `path` and rename it: a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(without_nonfinite(value), indent=1, allow_nan=False) + "\n"
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner may read
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_results(path: Path) -> Results | None:
    """The results of an earlier race, or None where there are none.

    Raises:
        ValueError: the file is no results file of this version.
    """
    if not path.exists():
        return None
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); remove it to start over") from None
    if not isinstance(results, dict) or results.get("format") != FORMAT:
        raise ValueError(f"{path} is not a results file of format {FORMAT}; remove it to start over")
    return results


def as_csv(results: Results) -> str:
    """Every measurement of every run as a table, a row each, for spreadsheets."""
    measures = ("step", "seconds", "train_loss", "validation_loss", "validation_accuracy")
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("task", "optimizer", "seed", "learning_rate", "steps", *measures))
    for name, task in results["tasks"].items():
        for run in task["runs"]:
            columns = [run["curve"].get(measure) or [None] * len(run["curve"]["step"]) for measure in measures]
            about = (name, run["optimizer"], run["seed"], run["learning_rate"], run["steps"])
            table.writerows((*about, *row) for row in zip(*columns, strict=True))
    return text.getvalue()
