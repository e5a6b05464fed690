"""The numbers of the page that take a while: minima of every landscape, and a rate for every optimizer on it.

`python -m jaxopt_tour.tour.explore.settings` computes them again and writes `settings.json` beside this file.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import optax

from jaxopt_tour.problems.landscape import Landscape
from jaxopt_tour.problems.landscapes import LANDSCAPES, make_landscape
from jaxopt_tour.problems.stationary import minima, stationary_points
from jaxopt_tour.tour.explore.optimizers import RULES
from jaxopt_tour.tour.measures import gap
from jaxopt_tour.tour.results import write_json
from jaxopt_tour.tour.rollout import Trajectory, sweep

PATH: Final = Path(__file__).with_name("settings.json")
#: Rates that are tried, an eighth of a decade apart, and the length of the run that decides.
RATES: Final = 10.0 ** (np.arange(-32, 9) / 8)
STEPS: Final = 300
#: The longest step that is allowed, as a share of the box's width: a path is to be followed with the eye.
LONGEST_STEP: Final = 0.12
#: The same for the median of a run's steps: rules whose steps do not shrink are to swing about a minimum, not the map.
MEDIAN_STEP: Final = 0.01


def points_of(landscape: Landscape) -> list[list[Any]]:
    """`[x, y, value, kind]` of every stationary point but the maxima, on the landscape's plane."""
    return [
        [*(round(float(at), 5) + 0.0 for at in landscape.plane.coordinates(point.params)), point.value, point.kind]
        for point in stationary_points(landscape)
        if point.kind != "maximum"
    ]


def tuned_rate(landscape: Landscape, name: str, **settings: Any) -> float:
    """The rate whose run is lowest, by the mean over its steps of the logarithm of the height above the minimum.

    Among rates without a step longer than `LONGEST_STEP`, and half of them no longer than `MEDIAN_STEP`: a lucky jump
    into the minimum shows nothing.
    """
    rule = RULES[name]
    make = functools.partial(rule.make, **{**rule.settings, **settings})
    return _best_rate(landscape, sweep(make, landscape, STEPS, learning_rates=RATES), MEDIAN_STEP)


def opening_rate(landscape: Landscape, name: str, steps: int, **settings: Any) -> float:
    """The same for a run of `steps` steps in which the rate falls linearly to zero, without a limit on the median."""
    rule = RULES[name]

    def make(rate: Any) -> optax.GradientTransformation:
        return rule.make(optax.linear_schedule(rate, 0.0, steps), **{**rule.settings, **settings})

    return _best_rate(landscape, sweep(make, landscape, steps, learning_rates=RATES), np.inf)


def _best_rate(landscape: Landscape, runs: Trajectory, longest_median: float) -> float:
    above = np.asarray(gap(runs, minima(landscape)[0].value), np.float64)  # (rates, steps + 1)
    share = np.where(np.isfinite(above), np.clip(above / above[:, :1], 1e-6, 1e6), 1e6)
    lengths = np.sqrt(np.sum(np.asarray(runs.update, np.float64) ** 2, axis=tuple(range(2, runs.update.ndim))))
    (left, right), _ = landscape.box
    lengths = np.nan_to_num(lengths, nan=np.inf) / (right - left)
    allowed = (np.max(lengths, axis=1) <= LONGEST_STEP) & (np.median(lengths, axis=1) <= longest_median)
    score = np.where(allowed, np.mean(np.log(share), axis=1), np.inf)
    return float(f"{RATES[int(np.argmin(score))]:.3g}")


def compute() -> dict[str, Any]:
    """Everything, as it stands in `settings.json`."""
    found = {}
    for name in LANDSCAPES:
        landscape = make_landscape(name)
        rates = {rule: tuned_rate(landscape, rule) for rule in RULES}
        found[name] = {"rates": rates, "points": points_of(landscape)}
    return found


@functools.cache
def read_settings() -> dict[str, Any]:
    """What `settings.json` holds: by landscape, `rates` by optimizer and `points` (`points_of`)."""
    return json.loads(PATH.read_text(encoding="utf-8"))


if __name__ == "__main__":
    write_json(PATH, compute())
    print(f"written to {PATH}")
