"""Budgets between the grid's numbers of steps, what a grid that begins or ends too early leaves known, and calls."""

from __future__ import annotations

import math

import pytest

from jaxopt_tour.tour.laboratory.budgets import Compared, compare_steps, steps_in_words, steps_to
from jaxopt_tour.tour.laboratory.statistics import Interval, ratio


def test_steps_are_read_between_the_grid() -> None:
    def readings(*values: float | None) -> list[dict[str, object]]:
        return [{"steps": 10 * 2**place, "final": [value]} for place, value in enumerate(values)]

    # From 0.4 at 10 to 0.1 at 20: half way in the logarithms at 0.2.
    assert steps_to(readings(0.4, 0.1), 0, 0.2) == pytest.approx(10 * math.sqrt(2))
    assert steps_to(readings(0.4, 0.2), 0, 0.2) == pytest.approx(20)
    assert steps_to(readings(0.1), 0, 0.2) == 10
    assert steps_to(readings(0.4, None, 0.1), 0, 0.2) == 40  # nothing to read between, where a run diverged
    assert steps_to(readings(0.4, 0.3, 0.1, 0.5), 0, 0.2) == pytest.approx(20 * 2 ** (math.log(1.5) / math.log(3)))
    assert steps_to(readings(0.4, 0.3), 0, 0.2) is None
    assert steps_to(readings(0.4, -1e-8), 0, 0.2) is not None  # a gap of zero, but for rounding


@pytest.mark.parametrize(
    ("found", "call"),
    [
        (Compared(Interval(1.5, 1.3, 1.7)), 1),
        (Compared(Interval(1.2, 1.05, 1.3)), 0),
        (Compared(Interval(0.7, 0.6, 0.8)), -1),
        (Compared(Interval(0.9, 0.8, 0.95)), 0),
        (Compared(None), 0),
        (Compared(None, 3.0), 1),
        (Compared(None, 0.9), 0),
        (Compared(None, 0.5, above=False), -1),
        (Compared(None, 1.5, above=False), 0),
    ],
)
def test_a_difference_is_called_where_the_whole_interval_is_beyond(found: Compared, call: int) -> None:
    assert found.call == call


def test_a_difference_inside_the_margin_is_small_and_one_of_rounding_is_none() -> None:
    assert Compared(Interval(0.95, 0.93, 0.97)).small
    assert not Compared(Interval(0.7, 0.6, 0.8)).small  # called
    assert not Compared(Interval(0.98, 0.95, 1.01)).small
    assert not Compared(Interval(1.002, 1.001, 1.003)).small


GRID = [10, 20, 40]


def test_what_the_grid_cuts_off_is_a_bound() -> None:
    inside, first, never = [15.0, 30.0], [10.0, 15.0], [None, None]
    assert compare_steps(inside, [30.0, 35.0], GRID) == Compared(ratio(inside, [30.0, 35.0]))
    assert compare_steps(inside, first, GRID) == Compared(None, ratio(inside, first).low)
    assert compare_steps(first, inside, GRID) == Compared(None, ratio(first, inside).high, above=False)
    assert compare_steps(first, first, GRID) == Compared(None)
    assert compare_steps(never, [20.0, 20.0], GRID) == Compared(None, pytest.approx(2.0))
    assert compare_steps([20.0, 20.0], never, GRID) == Compared(None, pytest.approx(0.5), above=False)
    assert compare_steps([None, 20.0], inside, GRID) == Compared(None)  # some arrived, some did not
    words = [steps_in_words(steps, GRID) for steps in (inside, first, never, [None, 20.0])]
    assert words == ["21", "≤ 12.2", "> 40 on 2 of 2", "> 40 on 1 of 2"]
