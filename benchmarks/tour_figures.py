"""Draw the README's pictures of the tour: paths on a landscape, and the page to play with.

python benchmarks/tour_figures.py [--out docs/figures] [--animation FILE.gif]
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import tempfile

from _common import ROOT

from jaxopt_tour.problems.landscapes import make_landscape
from jaxopt_tour.tour import plots
from jaxopt_tour.tour.explore.page import write_explore
from jaxopt_tour.tour.presets import SOURCE
from jaxopt_tour.tour.rollout import rollout


def landscape_picture(path: pathlib.Path) -> pathlib.Path:
    landscape = make_landscape(SOURCE.landscape)
    runs = {name: rollout(SOURCE.make(name), landscape, SOURCE.steps, start=SOURCE.start) for name in SOURCE.optimizers}
    figure = plots.landscape_figure(landscape, runs)
    figure.axes[0].set_title(f"Styblinski-Tang, {SOURCE.steps:,} steps from {SOURCE.start}")
    figure.savefig(path, dpi=110, facecolor="white")
    return path


def page_picture(path: pathlib.Path) -> pathlib.Path:
    sys.path.insert(0, str(ROOT / "tests" / "slow"))
    from chromium import browser

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        page = write_explore(pathlib.Path(folder) / "tour.html")
        with browser(pathlib.Path(folder) / "profile") as tab:
            tab.resize(1240, 960)
            tab.open(page)
            tab.evaluate("tour.play(false); tour.view.t = 14; tour.refresh(); scrollTo(0, 0)")
            return tab.picture(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "docs" / "figures")
    parser.add_argument("--animation", type=pathlib.Path, help="also write the runs of the landscape as a GIF")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    print(f"written to {landscape_picture(arguments.out / 'landscape.png')}")
    print(f"written to {page_picture(arguments.out / 'explore.png')}")
    if arguments.animation:
        landscape = make_landscape(SOURCE.landscape)
        runs = {name: rollout(SOURCE.make(name), landscape, 300, start=SOURCE.start) for name in SOURCE.optimizers}
        print(f"written to {plots.animate(arguments.animation, landscape, runs)}")


if __name__ == "__main__":
    main()
