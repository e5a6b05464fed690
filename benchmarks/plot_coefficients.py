"""Plot the map of singular values for all coefficients, over the singular values of recorded momentum.

python benchmarks/plot_coefficients.py [--out docs/figures/singular_value_maps.svg]
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Sequence

import matplotlib
import numpy as np
from _common import ROOT
from accuracy import COEFFICIENTS, PRESCALE_NAMES, QUINTICS, ZOLOTAREV, degree
from accuracy_cases import Case, recorded

from jaxopt_tour.coefficients import PolynomialCoefficients, RationalCoefficients
from jaxopt_tour.coefficients import odd_polynomials as odd

OUT = ROOT / "docs" / "figures" / "singular_value_maps.svg"
# Blue and vermilion of Okabe and Ito's palette differ for every kind of color blindness, and in gray.
LINE, DEFAULT, SHADE = "#0072B2", "#D55E00", "#C9C9C9"


def prescaled(one: Case, prescale: str) -> np.ndarray:
    """The singular values that step one sees."""
    if prescale == "aol":
        x = one.matrix.astype(np.float64)
        x = x.T if x.shape[0] > x.shape[1] else x
        x = x / np.sqrt(np.abs(x @ x.T).sum(axis=1, keepdims=True))
        return np.linalg.svd(x, compute_uv=False)[: len(one.s)]
    power = {"frobenius": 2, "schatten4": 4, "schatten8": 8}[prescale]
    return one.s / np.sum(one.s**power) ** (1 / power)


def draw(
    cases: Sequence[Case], by_name: dict[str, PolynomialCoefficients | RationalCoefficients]
) -> matplotlib.figure.Figure:
    from matplotlib.figure import Figure

    low = 1e-4
    s = np.geomspace(low, 1, 2_000)
    bins = np.geomspace(low, 1, 49)
    columns = 3
    rows = -(-len(by_name) // columns)
    figure = Figure(figsize=(9.6, 0.55 + 2.15 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for panel, (name, coefficients) in zip(panels.flat, by_name.items(), strict=False):
        # Every matrix counts the same, whatever its rank.
        values = [np.maximum(prescaled(one, coefficients.prescale), low) for one in cases]
        weights = [np.full(len(each), 1 / len(each)) for each in values]
        share, _ = np.histogram(np.concatenate(values), bins, weights=np.concatenate(weights) / len(cases))
        panel.stairs(9 * share, bins, fill=True, color=SHADE, zorder=1)  # 9: a good height, the same in all panels
        panel.axhline(1, color="0.35", linewidth=0.8, linestyle=(0, (4, 3)), zorder=2)
        color = DEFAULT if name in (ZOLOTAREV, QUINTICS) else LINE
        panel.plot(s, coefficients.map_singular_values(s), color=color, linewidth=1.8, zorder=3)
        title = name + {ZOLOTAREV: " (default, CPU)", QUINTICS: " (default, GPU and TPU)"}.get(name, "")
        size = 9.5 if len(title) < 30 else 7.2
        panel.text(0.03, 0.95, title, transform=panel.transAxes, va="top", weight="bold", color=color, size=size)
        if isinstance(coefficients, RationalCoefficients):
            degrees = f"{degree(coefficients)}, rational"
        else:
            degrees = " and ".join(str(one) for one in sorted({odd.degree(p) for p in coefficients.polynomials}))
        steps = f"{coefficients.steps} step" + ("s" if coefficients.steps > 1 else "")
        about = f"{steps}, degree {degrees}, {PRESCALE_NAMES[coefficients.prescale]}"
        panel.text(0.03, 0.845, about, transform=panel.transAxes, va="top", color="0.25", size=8.5)
        panel.set(xscale="log", xlim=(low, 1), ylim=(0, 1.7), yticks=(0, 0.5, 1))
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8.5)
    for panel in panels.flat[len(by_name) :]:
        panel.set_axis_off()
    figure.supxlabel("singular value, divided by the prescaling norm", size=10)
    figure.supylabel("what it becomes", size=10)
    figure.suptitle(
        "What the iteration makes of a singular value, by coefficients. Gray: the singular values of recorded momentum",
        size=10.5,
    )
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=OUT)
    arguments = parser.parse_args()
    by_name = {name: coefficients for name, (coefficients, _) in COEFFICIENTS.items()}
    # Without a date and with fixed names the same numbers give the same file.
    with matplotlib.rc_context({"svg.hashsalt": "coefficients", "font.size": 9.5}):
        figure = draw(list(recorded().values()), by_name)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"Date": None} if arguments.out.suffix == ".svg" else None
        figure.savefig(arguments.out, dpi=150, facecolor="white", metadata=metadata)
    print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
