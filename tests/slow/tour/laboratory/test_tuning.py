"""The search spends its trials, finds what a bowl hides, goes on from an edge, and says where it ended at one."""

from __future__ import annotations

import math

import pytest

from jaxopt_tour.tour.laboratory.tuning import WIDEST, Axis, momentum, rate, search


class Bowl:
    """A loss with its minimum at given places of the two grids; counts what is asked of it."""

    def __init__(self, axes: tuple[Axis, ...], at: tuple[int, ...]) -> None:
        self.axes, self.at, self.asked = axes, at, 0

    def __call__(self, settings):
        self.asked += len(settings)
        return [sum((self.place(axis, each) - at) ** 2 for axis, at in zip(self.axes, self.at, strict=True))
                for each in settings]  # fmt: skip

    @staticmethod
    def place(axis: Axis, numbers: dict[str, float]) -> float:
        """The inverse of `axis.value`."""
        value = numbers[axis.name]
        if axis.of_one_minus:
            return -math.log((1 - value) / (1 - axis.start), axis.factor)
        return math.log(value / axis.start, axis.factor)


AXES = (rate(3e-3), momentum(0.9))


@pytest.mark.parametrize("at", [(0, 0), (1, 1), (-3, 2), (4, -1)])
def test_finds_the_bottom_of_a_bowl_with_exactly_its_trials(at):
    bowl = Bowl(AXES, at)
    tuned = search(bowl, AXES, 24)
    assert tuned.point == at and tuned.interior
    assert tuned.trials == bowl.asked == len(tuned.tried) == 24
    assert tuned.numbers == {axis.name: axis.value(place) for axis, place in zip(AXES, at, strict=True)}


def test_an_edge_widens_the_grid():
    at = (9, 0)  # more than two decades beyond the rates that the search begins with
    assert search(Bowl(AXES, at), AXES, 40).point == at


def test_a_best_point_at_the_edge_of_what_was_tried_costs_more_trials():
    bowl = Bowl(AXES, (4, 3))
    tuned = search(bowl, AXES, 7)
    assert tuned.point == (4, 3) and tuned.interior and 7 < tuned.trials == bowl.asked < 7 + WIDEST


def test_without_more_trials_a_search_ends_at_an_edge_and_says_so():
    bowl = Bowl(AXES, (4, 3))
    tuned = search(bowl, AXES, 7, widest=0)
    assert tuned.trials == bowl.asked == 7 and not tuned.interior


def test_a_valley_across_the_axes_is_followed():
    def valley(settings):  # its floor runs along the diagonal: either number alone only gets worse
        places = [[Bowl.place(axis, each) for axis in AXES] for each in settings]
        return [10 * (rate - decay) ** 2 + (rate + decay - 6) ** 2 / 4 for rate, decay in places]

    tuned = search(valley, AXES, 14)
    assert tuned.point == (3, 3) and tuned.interior


def test_a_slope_without_end_is_told():
    tuned = search(lambda settings: [-math.log(each["learning_rate"]) for each in settings], AXES, 7)
    assert not tuned.interior and tuned.trials == 7 + WIDEST


def test_a_grid_ends_where_it_is_told_to():
    axes = (rate(1.0), Axis("weight_decay", 0.1, 10**0.5, ends=(0.01, 1.0)))
    assert [axes[1].exists(place) for place in (-3, -2, 2, 3)] == [False, True, True, False]
    tuned = search(lambda settings: [each["weight_decay"] + each["learning_rate"] ** 2 for each in settings], axes, 7)
    assert tuned.numbers["weight_decay"] == pytest.approx(0.01)


def test_goes_on_from_where_a_neighboring_search_ended():
    bowl = Bowl(AXES, (2, 1))
    tuned = search(bowl, AXES, 9, start=(1, 1))
    assert tuned.point == (2, 1) and tuned.interior and bowl.asked < 5 + 9  # nothing coarse comes first


def test_runs_that_diverge_are_the_worst_and_never_the_answer():
    def evaluate(settings):
        return [math.nan if each["learning_rate"] > 1e-3 else 1 / each["learning_rate"] for each in settings]

    tuned = search(evaluate, AXES, 14)
    assert tuned.numbers["learning_rate"] <= 1e-3 and math.isfinite(tuned.loss)
    assert any(loss is None for _, loss in tuned.tried)


def test_where_everything_diverges_nothing_is_called_interior():
    tuned = search(lambda settings: [math.inf] * len(settings), AXES, 8)
    assert not tuned.interior and math.isinf(tuned.loss)


def test_grids():
    assert rate(1.0).value(4) == pytest.approx(10)
    decay = momentum(0.9)
    assert [decay.value(place) for place in (-2, -1, 0, 1, 2)] == pytest.approx([0.6, 0.8, 0.9, 0.95, 0.975])
    # 1 - 0.1 * 8 = 0.2; the next place is 0, and the grid ends there.
    assert decay.value(-4) == 0 and decay.exists(-4) and not decay.exists(-5)


@pytest.mark.parametrize(("trials", "start", "least"), [(4, None, 5), (0, (0, 0), 1)])
def test_too_few_trials_are_refused(trials, start, least):
    with pytest.raises(ValueError, match=rf"trials must be at least {least}, got {trials}"):
        search(Bowl(AXES, (0, 0)), AXES, trials, start=start)
