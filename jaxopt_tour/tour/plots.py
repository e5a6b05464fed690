"""Pictures of trajectories: over the landscape, against the step, and of what orthogonalizing does.

Every function draws into the Axes it is given and returns them; runs come as `{optimizer: Trajectory}`. An optimizer
has the line of `palette` in all of them.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

try:
    from matplotlib.animation import FuncAnimation, PillowWriter
    from matplotlib.axes import Axes
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure
except ModuleNotFoundError as error:  # pragma: no cover
    raise ImportError("pictures need matplotlib, which comes with: pip install 'jaxopt-tour[tour]'") from error

from jaxopt_tour.coefficients import (
    CoefficientsLike,
    Exact,
    PolynomialCoefficients,
    RationalCoefficients,
    as_coefficients,
)
from jaxopt_tour.problems.landscape import Landscape
from jaxopt_tour.problems.stationary import minima, stationary_points
from jaxopt_tour.tour import measures
from jaxopt_tour.tour.palette import HUES, lines_of
from jaxopt_tour.tour.rollout import Trajectory

Runs = Mapping[str, Trajectory]

#: Low ground is dark, high ground light: lines in full colors stand out from both.
GROUND: Final = LinearSegmentedColormap.from_list("ground", ["#8ea3ba", "#b3c2d1", "#d3dce5", "#eaeff4", "#fafbfc"])
_SOFT: Final = "0.35"
#: What separates the quantities of one optimizer, whose color they share.
_QUANTITIES: Final = {"gradient": (0, (1, 1.6)), "momentum": (0, (5, 2)), "update": "-"}


def line(name: str) -> dict[str, Any]:
    """Color and dashes of an optimizer, as keyword arguments of `Axes.plot`."""
    hue, dashes = lines_of([name])[name]
    pattern = tuple(float(part) / 1.6 for part in dashes.split())
    return {"color": HUES[hue][0], "linestyle": (0, pattern) if pattern else "-"}


# --- over the landscape -----------------------------------------------------------------------------------------------


def _grid(landscape: Landscape, points: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    (x_low, x_high), (y_low, y_high) = landscape.box
    x, y = np.meshgrid(np.linspace(x_low, x_high, points), np.linspace(y_low, y_high, points))
    return x, y, landscape.values(x, y)


def _heights(values: np.ndarray) -> np.ndarray:
    """0 to 1, by the share of the box that lies lower: every level has ground to show, the lowest the finest steps."""
    ranks = np.searchsorted(np.sort(values.ravel()), values) / values.size
    return ranks**0.6


def contours(ax: Axes, landscape: Landscape, levels: int = 14, points: int = 241) -> Axes:
    """The landscape as contour lines over its box; levels are shares of its ground, not of its height."""
    x, y, values = _grid(landscape, points)
    heights = _heights(values)
    ax.contourf(x, y, heights, levels=levels, cmap=GROUND)
    ax.contour(x, y, heights, levels=levels, colors="white", linewidths=0.5)
    ax.set(xlim=landscape.box[0], ylim=landscape.box[1], title=landscape.title)
    matrix = len(landscape.shape) == 2
    ax.set(xlabel="first singular direction" if matrix else "x", ylabel="second" if matrix else "y")
    return ax


def mark_minima(ax: Axes, landscape: Landscape) -> Axes:
    """A star on every global minimum, a ring on every other, a small cross on every saddle (where they are few)."""
    points = stationary_points(landscape)
    several = len(points) > 30
    styles: dict[str, dict[str, Any]] = {
        "global minimum": {"marker": "*", "s": 150, "facecolor": "#ffd75e", "edgecolor": "black", "linewidth": 0.9},
        "local minimum": {"marker": "o", "s": 12 if several else 42, "facecolor": "none", "edgecolor": "0.25"},
        "saddle": {"marker": "x", "s": 22, "color": "0.45", "linewidth": 0.9},
    }
    for kind, style in styles.items():
        places = [landscape.plane.coordinates(point.params) for point in points if point.kind == kind]
        if places and not (several and kind == "saddle"):
            ax.scatter(*np.transpose(places), label=kind, zorder=3, **style)
    valley = [point for point in points if point.kind == "valley"]
    if valley:
        x, y = landscape.plane.coordinates(valley[0].params)
        flat = np.asarray(landscape.values([x, x + 1.0], [y + 1.0, y]))  # along which axis does it lie?
        along = ax.axvline if flat[0] < flat[1] else ax.axhline
        along(x if flat[0] < flat[1] else y, color="#d7a400", linewidth=2.5, label="valley of minima", zorder=2)
    return ax


def trajectories(ax: Axes, landscape: Landscape, runs: Runs, until: int | None = None) -> Axes:
    """The path of every run, a dot at its end; what leaves the box is cut off at its edge.

    Args:
        ax: where to draw.
        landscape: whose plane the paths are drawn on.
        runs: by optimizer.
        until: draw only the first steps; None: all.
    """
    for name, run in runs.items():
        path = _path(landscape, run, until)
        ax.plot(*path.T, label=name, linewidth=1.9, zorder=4, **line(name))
        ax.scatter(
            path[-1, 0], path[-1, 1], s=30, color=line(name)["color"], edgecolor="white", linewidth=0.8, zorder=5
        )
    if runs:
        x, y = _path(landscape, next(iter(runs.values())), 0)[0]
        ax.scatter(x, y, s=34, facecolor="white", edgecolor="black", linewidth=1.2, zorder=6, label="start")
    return ax


def landscape_figure(landscape: Landscape, runs: Runs, size: tuple[float, float] = (7.6, 5.4)) -> Figure:
    """Contours, minima and paths with one legend beside them."""
    figure = Figure(figsize=size, layout="constrained")
    ax = figure.subplots()
    trajectories(mark_minima(contours(ax, landscape), landscape), landscape, runs)
    ax.set_aspect("equal")
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return figure


def surface(ax: Any, landscape: Landscape, runs: Runs | None = None, points: int = 90) -> Any:
    """The landscape as a surface, and paths on it; `ax` from `figure.add_subplot(projection="3d")`."""
    x, y, values = _grid(landscape, points)
    lowest = _lowest(landscape, values)
    colors = GROUND(_heights(values))
    ax.plot_surface(x, y, values, facecolors=colors, rcount=points, ccount=points, linewidth=0, shade=False)
    (x_low, x_high), (y_low, y_high) = landscape.box
    for name, run in (runs or {}).items():
        path = _path(landscape, run)
        inside = np.all((path >= [x_low, y_low]) & (path <= [x_high, y_high]), axis=-1)
        height = np.where(inside, landscape.values(*path.T) + 0.01 * (np.max(values) - lowest), np.nan)
        ax.plot(*path.T, height, label=name, linewidth=2, zorder=10, **line(name))
    ax.set(xlabel="x", ylabel="y", zlabel="f", title=landscape.title)
    ax.view_init(elev=38, azim=-122)
    return ax


def animate(
    path: str | os.PathLike[str],
    landscape: Landscape,
    runs: Runs,
    *,
    frames: int = 60,
    frames_per_second: int = 15,
    size: tuple[float, float] = (5.2, 4.6),
) -> pathlib.Path:
    """Write the runs as an animated GIF, the same step of every run in each frame.

    Args:
        path: the file.
        landscape: whose plane the paths are drawn on.
        runs: by optimizer, of one length.
        frames: how many; the steps between them grow, because most happens at the beginning.
        frames_per_second: speed.
        size: of the picture, in inches at 100 dots an inch.

    Returns:
        The path.

    Raises:
        ValueError: no runs, or runs of different lengths.
    """
    lengths = {run.update.shape[0] for run in runs.values()}
    if len(lengths) != 1:
        raise ValueError(f"runs must be one or more trajectories of one length, got lengths {sorted(lengths)}")
    steps = lengths.pop()
    at = np.unique(np.round(steps * np.linspace(0, 1, frames) ** 2).astype(int))
    figure = Figure(figsize=size, layout="constrained")
    ax = figure.subplots()
    mark_minima(contours(ax, landscape, points=121), landscape)
    paths = {name: _path(landscape, run) for name, run in runs.items()}
    drawn = {
        name: (
            ax.plot([], [], linewidth=1.9, zorder=4, label=name, **line(name))[0],
            ax.plot([], [], "o", color=line(name)["color"], markeredgecolor="white", zorder=5)[0],
        )
        for name in runs
    }
    counter = ax.text(0.02, 0.02, "", transform=ax.transAxes, color="0.2")
    ax.legend(loc="upper left", fontsize=7, framealpha=0.85)

    def draw(step: int) -> list[Any]:
        for name, (trail, head) in drawn.items():
            trail.set_data(*paths[name][: step + 1].T)
            head.set_data(*paths[name][step : step + 1].T)
        counter.set_text(f"step {step}")
        return [artist for pair in drawn.values() for artist in pair] + [counter]

    path = pathlib.Path(path)
    FuncAnimation(figure, draw, frames=[int(step) for step in at], blit=False).save(
        path, writer=PillowWriter(fps=frames_per_second), dpi=100
    )
    return path


def _path(landscape: Landscape, run: Trajectory, until: int | None = None) -> np.ndarray:
    """(steps + 1, 2); NaN from where a run left the range of numbers."""
    params = np.asarray(run.params, np.float64)[: None if until is None else until + 1]
    path = landscape.plane.coordinates(np.where(np.isfinite(params), params, np.nan))
    return np.where(np.abs(path) < 1e6, path, np.nan)


def _lowest(landscape: Landscape, values: np.ndarray) -> float:
    found = minima(landscape)
    return min(found[0].value if found else np.inf, float(np.min(values)))


# --- against the step -------------------------------------------------------------------------------------------------


def losses(ax: Axes, landscape: Landscape, runs: Runs) -> Axes:
    """How far every run is above the lowest value there is, on a logarithmic scale."""
    found = minima(landscape)
    lowest = found[0].value if found else min(float(np.nanmin(run.loss)) for run in runs.values())
    for name, run in runs.items():
        above = np.asarray(measures.gap(run, lowest), np.float64)
        # float32 keeps seven digits of the loss: below that a gap is rounding.
        floor = 1e-7 * max(1.0, abs(lowest))
        ax.plot(np.where(np.isfinite(above), np.maximum(above, floor), np.nan), label=name, **line(name))
    ax.set(yscale="log", xlabel="step", ylabel="f − lowest value")
    return _clean(ax)


def effective_rates(ax: Axes, name: str, run: Trajectory) -> Axes:
    """The rate of every coordinate at every step: what SGD would need to make the same step."""
    rates = np.asarray(measures.effective_learning_rate(run)).reshape(run.update.shape[0], -1)
    for index, rate in enumerate(rates.T):
        style = {**line(name), "linestyle": ["-", (0, (4, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2))][index % 4]}
        ax.plot(np.arange(1, len(rate) + 1), rate, label=f"coordinate {index + 1}", **style)
    ax.set(yscale="log", xlabel="step", ylabel="|update| / |gradient|", title=f"effective learning rate, {name}")
    ax.legend(frameon=False)
    return _clean(ax)


def state_over_time(ax: Axes, name: str, run: Trajectory, coordinate: int = 0) -> Axes:
    """Gradient, momentum m, root of the second moment √v, and the update, of one coordinate."""

    def column(values: Any) -> np.ndarray:
        return np.asarray(values).reshape(np.shape(values)[0], -1)[:, coordinate]

    steps = np.arange(1, run.update.shape[0] + 1)
    ax.plot(steps, column(run.gradient)[:-1], color="0.6", linewidth=1, label="gradient g")
    if "m" in run.state:
        ax.plot(steps, column(run.state["m"]), color=HUES["blue"][0], linestyle=(0, (5, 2)), label="momentum m")
    if "v" in run.state:
        root = np.sqrt(column(run.state["v"]))
        ax.plot(steps, root, color=HUES["ochre"][0], linestyle=(0, (1, 1.5)), linewidth=2, label="√v")
    ax.set(xlabel="step", ylabel="gradient and state", title=f"{name}, coordinate {coordinate + 1}")
    twin = ax.twinx()
    twin.plot(steps, column(run.update), color=line(name)["color"], label="update (right)")
    twin.set_ylabel("update")
    twin.spines["top"].set_visible(False)
    handles, labels = (left + right for left, right in zip(*(
        each.get_legend_handles_labels() for each in (ax, twin)
    ), strict=True))  # fmt: skip
    ax.legend(handles, labels, frameon=False, fontsize=8)
    ax.spines["top"].set_visible(False)
    return ax


def angles_over_time(ax: Axes, runs: Runs) -> Axes:
    """Between every step and steepest descent (full line), and between it and the step before (thin line)."""
    for name, run in runs.items():
        measured = {key: np.asarray(values) for key, values in measures.angles(run).items()}
        steps = np.arange(1, run.update.shape[0] + 1)
        ax.plot(steps, measured["gradient"], label=f"{name}: to −g", **line(name))
        ax.plot(steps, measured["previous"], label=f"{name}: to the last step", linewidth=0.8, alpha=0.7, **line(name))
    ax.axhline(90, color=_SOFT, linewidth=0.7, linestyle=(0, (4, 3)))
    ax.set(xlabel="step", ylabel="degrees", ylim=(0, 180), yticks=(0, 45, 90, 135, 180))
    ax.legend(frameon=False, fontsize=8)
    return _clean(ax)


def singular_values_over_time(ax: Axes, name: str, run: Trajectory) -> Axes:
    """Singular values of gradient, momentum and update at every step, each kind in its own dashes."""
    for kind, values in measures.singular_values(run).items():
        steps = np.arange(1, run.update.shape[0] + 1)
        style: dict[str, Any] = {
            "color": line(name)["color"] if kind == "update" else _SOFT,
            "linestyle": _QUANTITIES[kind],
        }
        positive = np.where(np.asarray(values) > 0, np.asarray(values), np.nan)
        for index, value in enumerate(positive.T):
            ax.plot(steps, value, linewidth=1.4, label=kind if index == 0 else None, **style)
    ax.set(yscale="log", xlabel="step", ylabel="singular value", title=name)
    ax.legend(frameon=False)
    return _clean(ax)


# --- Newton-Schulz ----------------------------------------------------------------------------------------------------


def newton_schulz_map(ax: Axes, coefficients: CoefficientsLike = "polar_express") -> Axes:
    """What the steps of an orthogonalization make of a singular value; the last one in full color.

    Raises:
        ValueError: the coefficients are `"exact"`, which has no steps.
    """
    known = as_coefficients(coefficients)
    if isinstance(known, Exact):
        raise ValueError("coefficients must have steps, and 'exact' has none")
    s = np.geomspace(1e-3, 1, 800)
    values = s
    ax.axhline(1, color=_SOFT, linewidth=0.8, linestyle=(0, (4, 3)))
    ax.plot(s, s, color="0.75", label="before")
    each: Sequence[PolynomialCoefficients | RationalCoefficients]
    if isinstance(known, RationalCoefficients):
        each = [RationalCoefficients(known.name, (function,)) for function in known.functions]
    else:
        each = [PolynomialCoefficients(known.name, (polynomial,)) for polynomial in known.polynomials]
    for step, one in enumerate(each, 1):
        values = one.map_singular_values(values)
        last = step == known.steps
        style: dict[str, Any] = {"color": HUES["vermillion"][0] if last else _SOFT, "linewidth": 2.2 if last else 1.0}
        alpha = 1.0 if last else 0.25 + 0.6 * step / known.steps
        ax.plot(s, values, label=f"after {step}", alpha=alpha, **style)
    ax.set(xscale="log", xlim=(1e-3, 1), ylim=(0, 1.7), title=f"{known.name}, {known.steps} steps")
    ax.set(xlabel="singular value, divided by the prescaling norm", ylabel="what it becomes")
    ax.legend(frameon=False, fontsize=8)
    return _clean(ax)


def _clean(ax: Axes) -> Axes:
    ax.spines[["top", "right"]].set_visible(False)
    return ax
