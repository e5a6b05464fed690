"""Pictures show what they are given: the paths, the minima, the numbers; and one color an optimizer."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.colors import to_hex
from matplotlib.figure import Figure

import jaxopt_tour as jt
from jaxopt_tour.problems.landscapes import make_landscape
from jaxopt_tour.tour import plots
from jaxopt_tour.tour.measures import angles, singular_values
from jaxopt_tour.tour.palette import HUES, LINES
from jaxopt_tour.tour.presets import OPTIMIZERS, SOURCE
from jaxopt_tour.tour.rollout import rollout


@pytest.fixture(scope="module")
def runs():
    landscape = make_landscape("styblinski-tang")
    return {name: rollout(SOURCE.make(name), landscape, 60) for name in ("sgd", "momentum", "adam", "muon")}


@pytest.fixture
def ax():
    return Figure().subplots()


def labels(ax):
    return ax.get_legend_handles_labels()[1]


def line_by_label(ax, label):
    (found,) = (each for each in ax.lines if each.get_label() == label)
    return found


class TestLines:
    @pytest.mark.parametrize("name", OPTIMIZERS)
    def test_color_is_the_palettes(self, name):
        assert plots.line(name)["color"] == HUES[LINES[name][0]][0]

    def test_no_two_optimizers_of_the_tour_look_alike(self):
        looks = {str(plots.line(name)) for name in OPTIMIZERS}
        assert len(looks) == len(OPTIMIZERS)

    def test_hues_stand_out_from_paper_and_from_the_dark(self):
        def luminance(color):
            channels = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
            linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
            return linear @ [0.2126, 0.7152, 0.0722]

        for light, dark in HUES.values():
            # 3:1 is what WCAG 2.1 asks of graphics (1.4.11).
            assert 1.05 / (luminance(light) + 0.05) > 3
            assert (luminance(dark) + 0.05) / (luminance("#14171b") + 0.05) > 3


class TestOverTheLandscape:
    def test_paths_are_the_runs_and_ends_are_marked(self, ax, runs):
        landscape = make_landscape("styblinski-tang")
        plots.trajectories(ax, landscape, runs)
        for name, run in runs.items():
            drawn = line_by_label(ax, name)
            np.testing.assert_allclose(drawn.get_xydata(), run.params, rtol=1e-6)
            assert to_hex(drawn.get_color()) == plots.line(name)["color"]

    def test_minima_are_marked_by_kind(self, ax):
        plots.mark_minima(ax, make_landscape("styblinski-tang"))
        counts = {each.get_label(): len(each.get_offsets()) for each in ax.collections}
        assert counts == {"global minimum": 1, "local minimum": 3, "saddle": 4}

    def test_many_minima_leave_the_saddles_out(self, ax):
        plots.mark_minima(ax, make_landscape("rastrigin"))
        counts = {each.get_label(): len(each.get_offsets()) for each in ax.collections}
        assert counts == {"global minimum": 1, "local minimum": 120}

    def test_a_valley_is_a_line(self, ax):
        plots.mark_minima(ax, make_landscape("rank-deficient"))
        assert labels(ax) == ["valley of minima"]
        np.testing.assert_allclose(ax.lines[0].get_xdata(), 0, atol=1e-9)

    def test_a_matrix_run_is_drawn_on_its_plane(self, ax):
        landscape = make_landscape("matrix-regression")
        run = rollout(jt.adam(0.1), landscape, 10)
        plots.trajectories(plots.contours(ax, landscape), landscape, {"adam": run})
        np.testing.assert_allclose(line_by_label(ax, "adam").get_xydata()[0], landscape.start, rtol=1e-5)
        assert ax.get_xlabel() == "first singular direction"

    def test_a_run_that_blew_up_is_cut_off(self, ax):
        landscape = make_landscape("rosenbrock")
        plots.trajectories(ax, landscape, {"sgd": rollout(jt.sgd(1.0), landscape, 30)})
        data = line_by_label(ax, "sgd").get_xydata()
        assert np.isnan(data[-1]).all() and np.nanmax(np.abs(data)) < 1e6

    def test_the_whole_figure_and_the_surface_are_drawn(self, runs, tmp_path):
        landscape = make_landscape("styblinski-tang")
        plots.landscape_figure(landscape, runs).savefig(tmp_path / "contours.png")
        figure = Figure()
        ax = plots.surface(figure.add_subplot(projection="3d"), landscape, runs, points=20)
        assert labels(ax) == list(runs)
        figure.savefig(tmp_path / "surface.png")
        assert all((tmp_path / name).stat().st_size > 10_000 for name in ("contours.png", "surface.png"))

    def test_an_animation_has_its_frames(self, runs, tmp_path):
        from PIL import Image

        path = plots.animate(tmp_path / "runs.gif", make_landscape("styblinski-tang"), runs, frames=5, size=(3, 3))
        with Image.open(path) as image:
            assert image.n_frames == 5 and image.size == (300, 300)
            first = np.asarray(image.convert("RGB"))
            image.seek(4)
            assert np.any(first != np.asarray(image.convert("RGB")))

    def test_an_animation_of_nothing_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match=r"one or more trajectories of one length, got lengths \[\]"):
            plots.animate(tmp_path / "x.gif", make_landscape("saddle"), {})


class TestAgainstTheStep:
    def test_losses_are_above_the_lowest_value(self, ax, runs):
        plots.losses(ax, make_landscape("styblinski-tang"), runs)
        drawn = line_by_label(ax, "sgd").get_ydata()
        np.testing.assert_allclose(drawn, np.asarray(runs["sgd"].loss) + 78.332331, rtol=1e-4)
        assert ax.get_yscale() == "log" and labels(ax) == list(runs)

    def test_effective_rates_of_sgd_are_its_rate(self, ax, runs):
        plots.effective_rates(ax, "sgd", runs["sgd"])
        assert len(ax.lines) == 2
        drawn = np.array([each.get_ydata() for each in ax.lines])
        # The update is read off float32 parameters near 3: where it shrinks to 1e-5 it has two digits left.
        np.testing.assert_allclose(drawn[:, :10], 0.02, rtol=1e-3)

    def test_state_has_a_line_for_all_there_is(self, ax, runs):
        plots.state_over_time(ax, "adam", runs["adam"], coordinate=1)
        assert labels(ax) == ["gradient g", "momentum m", "√v"]
        np.testing.assert_allclose(line_by_label(ax, "momentum m").get_ydata(), runs["adam"].state["m"][:, 1])
        plots.state_over_time(other := Figure().subplots(), "sgd", runs["sgd"])
        assert labels(other) == ["gradient g"]

    def test_angles(self, ax, runs):
        plots.angles_over_time(ax, {"adam": runs["adam"]})
        np.testing.assert_allclose(line_by_label(ax, "adam: to −g").get_ydata(), angles(runs["adam"])["gradient"])

    def test_singular_values(self, ax):
        run = rollout(jt.muon(0.1, routing=lambda path, leaf: "matrix"), make_landscape("matrix-regression"), 8)
        plots.singular_values_over_time(ax, "muon", run)
        assert labels(ax) == ["gradient", "momentum", "update"] and len(ax.lines) == 6
        np.testing.assert_allclose(line_by_label(ax, "update").get_ydata(), singular_values(run)["update"][:, 0])


class TestNewtonSchulz:
    @pytest.mark.parametrize("name", ["polar_express", "keller_jordan", "cubic", "zolotarev"])
    def test_ends_with_the_map_of_all_steps(self, ax, name):
        plots.newton_schulz_map(ax, name)
        coefficients = jt.coefficients.as_coefficients(name)
        last = line_by_label(ax, f"after {coefficients.steps}")
        np.testing.assert_allclose(last.get_ydata(), coefficients.map_singular_values(last.get_xdata()), rtol=1e-12)

    def test_exact_has_no_steps(self, ax):
        with pytest.raises(ValueError, match="'exact' has none"):
            plots.newton_schulz_map(ax, "exact")
