"""How long `import jaxopt_tour` takes against `import optax`: fresh interpreters in turn, the ratio's median.

python benchmarks/import_time.py [--rounds 15] [--limit 1.2]

Prints a table, writes benchmarks/results/import_time.json, and fails where the median ratio is above the limit.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from _common import ROOT, alternate, compare, table, write

# The interpreter's own start is not an import: the child times the statement and prints the seconds.
CHILD = "import time; start = time.perf_counter(); import {module}; print(time.perf_counter() - start)"


def import_seconds(module: str) -> float:
    """Seconds of importing `module` in a fresh interpreter, which has the bytecode of earlier ones as a user's has."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [
        sys.executable,
        "-P",
        "-c",
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); " + CHILD.format(module=module),
    ]
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="imports of each package (default %(default)s)")
    parser.add_argument("--limit", type=float, default=1.2, help="largest ratio that passes (default %(default)s)")
    parser.add_argument("--no-write", action="store_true", help="print only")
    arguments = parser.parse_args()
    modules = ("optax", "jaxopt_tour")
    seconds = alternate(
        {module: lambda module=module: import_seconds(module) for module in modules},
        rounds=arguments.rounds,
        measure=lambda contender: contender(),
    )
    rows = compare(seconds, baseline="optax")
    print(table(rows))
    ratio = rows[-1]["ratio"]
    print(f"import jaxopt_tour takes {ratio:.2f} x the time of import optax (limit {arguments.limit:g})")
    if not arguments.no_write:
        print(f"written to {write('import_time', rows, {'rounds': arguments.rounds}).relative_to(ROOT)}")
    if ratio > arguments.limit:
        sys.exit(1)


if __name__ == "__main__":
    main()
