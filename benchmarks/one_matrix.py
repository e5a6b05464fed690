"""Draw why Muon wins on a matrix, and when it does not: one quadratic, along the coordinates and in rotated axes.

python benchmarks/one_matrix.py

Reads the tuned settings and the steps to the target from experiments/results/matrix-problems/results.json, runs each of
them once more for its curve, and writes docs/figures/one_matrix.png. Takes seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import optax
from _common import ROOT

from jaxopt_tour.problems.regression import matrix_quadratic
from jaxopt_tour.tour.experiments.matrix_problems_runs import ADAMW_UNDECAYED, MUON_UNDECAYED, SGD
from jaxopt_tour.tour.laboratory.budgets import mean_steps, steps_to
from jaxopt_tour.tour.laboratory.cells import Cells
from jaxopt_tour.tour.laboratory.runs import Rule, keys_of, rate_at

RULES = {"SGD with momentum": SGD, "AdamW": ADAMW_UNDECAYED, "Muon": MUON_UNDECAYED}
#: Okabe and Ito's colors, as in the report (https://jfly.uni-koeln.de/color/).
COLORS = {"SGD with momentum": "#009e73", "AdamW": "#0072b2", "Muon": "#d55e00"}
#: Where a curve's label stands, in the units of the axes.
LABELS = {"SGD with momentum": (45, 3.6), "AdamW": (3.0, 4e-4), "Muon": (14, 4e-4)}
ROTATED_ADAMW = (75, 4e-4)
EXPONENT, TARGET = 2.0, 1e-3
Readings = Sequence[dict[str, Any]]


def readings_of(cells: Cells, rule: Rule, aligned: bool) -> Readings:
    """The tuned runs of a rule. Those of SGD and Muon do not change with the axes and were tuned in rotated ones."""
    workload = matrix_quadratic(EXPONENT, aligned=aligned and rule is ADAMW_UNDECAYED)
    return cells.value(what="budget", workload=workload.name, rule=rule.name)


def steps_of(readings: Readings) -> float:
    """Steps to the target: the geometric mean over the seeds."""
    seeds = range(len(readings[0]["final"]))
    steps = mean_steps([steps_to(readings, seed, TARGET) for seed in seeds])
    assert steps is not None, "a seed does not reach the target"
    return steps


def curve(rule: Rule, readings: Readings, aligned: bool) -> np.ndarray:
    """Loss after every step, as a share of its mean at the start, of the shortest run that reaches the target."""
    reading = next(reading for reading in readings if max(reading["final"]) <= TARGET)
    workload, steps = matrix_quadratic(EXPONENT, aligned=aligned), reading["steps"]
    numbers = {**rule.defaults, **reading["numbers"]}
    tx = rule.build(lambda count: rate_at(count, steps, numbers), numbers, workload)
    data = jax.tree.map(jnp.asarray, workload.data())

    def step(carry: Any, _: None) -> tuple[Any, jax.Array]:
        params, state = carry
        updates, state = tx.update(jax.grad(workload.loss)(params, data), state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), workload.measure(params, data)

    params = workload.init(keys_of(jnp.asarray(0))[0])
    _, losses = jax.jit(lambda carry: jax.lax.scan(step, carry, length=steps))((params, tx.init(params)))
    return np.asarray([workload.measure(params, data), *losses])


def main() -> None:
    path = ROOT / "experiments" / "results" / "matrix-problems" / "results.json"
    cells = Cells(path, "matrix-problems", read_only=True)
    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    figure, panels = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True, layout="constrained")
    for panel, aligned in zip(panels, (True, False), strict=True):
        steps = {}
        for name, rule in RULES.items():
            readings = readings_of(cells, rule, aligned)
            steps[name] = steps_of(readings)
            losses = curve(rule, readings, aligned)
            losses = losses[: 1 + np.argmax(losses <= TARGET)]
            panel.plot(1 + np.arange(len(losses)), losses, color=COLORS[name], linewidth=1.2 if rule is SGD else 2.2)
            place = LABELS[name] if aligned or name != "AdamW" else ROTATED_ADAMW
            panel.text(*place, f"{name}: {steps[name]:.0f} steps", color=COLORS[name], ha="center")
        ratio = steps["AdamW"] / steps["Muon"]
        print(f"{'along the coordinates' if aligned else 'rotated'}: {steps}; AdamW / Muon {ratio:.2f}")
        where = "Q diagonal" if aligned else "Q rotated, same eigenvalues"
        panel.set_title(f"{where}:\nAdamW needs {ratio:.1f} times Muon's steps", loc="left", fontsize=11)
        panel.axhline(TARGET, color="#888888", linewidth=0.8, linestyle=":")
        panel.set(xscale="log", yscale="log", xlabel="step", xlim=(1, 200), ylim=(3e-4, 8))
        panel.set_xticks([1, 2, 5, 10, 20, 50, 100], [1, 2, 5, 10, 20, 50, 100])
        panel.minorticks_off()
        data = matrix_quadratic(EXPONENT, aligned=aligned).data()
        hessian = (data["root"].T @ data["root"])[:16, :16]
        inset = panel.inset_axes((0.02, 0.14, 0.16, 0.3))
        extent = math.sqrt(np.abs(hessian).max())
        inset.imshow(np.sign(hessian) * np.sqrt(np.abs(hessian)), cmap="RdBu_r", vmin=-extent, vmax=extent)
        inset.set_xticks([])
        inset.set_yticks([])
        inset.set_title("Q (16 of 64 rows)", fontsize=8)
    panels[0].set_ylabel("loss (share of its value at the start)")
    path = ROOT / "docs" / "figures" / "one_matrix.png"
    figure.savefig(path, dpi=130, facecolor="white")
    print(f"written to {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
