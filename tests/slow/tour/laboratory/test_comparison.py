"""Paired differences against NumPy, and words that say no more than their interval."""

from __future__ import annotations

import numpy as np
import pytest

from jaxopt_tour.tour.laboratory.comparison import (
    by_direction,
    difference_in_words,
    direction,
    listed,
    loss_in_words,
    mean_loss,
    paired,
    trials_in_words,
)
from jaxopt_tour.tour.laboratory.statistics import Interval


def test_a_paired_difference_is_that_of_the_seeds():
    first, second = [1.0, 2.5, 3.0], [0.5, 2.5, 1.0]
    found = paired(first, second)
    assert found is not None
    assert found.value == pytest.approx(np.mean(np.subtract(first, second)))
    # The same shift on every seed: every resample has it.
    assert paired([x + 0.25 for x in second], second) == Interval(0.25, 0.25, 0.25)


def test_a_run_that_diverged_leaves_nothing_to_compare():
    assert paired([1.0, None], [1.0, 2.0]) is None
    assert paired([1.0, 2.0], [None, 2.0]) is None
    assert mean_loss([1.0, None]) is None
    assert loss_in_words([1.0, None, None]) == "diverged on 2 of 3"
    assert difference_in_words(None) == "—"


def test_losses_and_differences_in_words():
    assert loss_in_words([0.5, 0.5]) == "0.500 [0.500, 0.500]"
    assert difference_in_words(Interval(0.01, -0.002, 0.03)) == "+0.010 [-0.002, +0.030]"


@pytest.mark.parametrize(
    ("interval", "expected"),
    [((1, 0.5, 2), 1), ((-1, -2, -0.5), -1), ((0.5, -0.1, 1), 0), ((0, 0, 0), 0), ((0.1, 0, 0.2), 0)],
)
def test_a_direction_needs_the_whole_interval(interval, expected):
    assert direction(Interval(*interval)) == expected


def test_names_are_grouped_by_what_is_shown():
    differences = {
        "a": Interval(1, 0.5, 2), "b": Interval(0, -1, 1), "c": Interval(2, 1, 3), "d": None,
        "e": Interval(-1, -2, -0.5),
    }  # fmt: skip
    text = by_direction(differences, "s", digits=1)
    assert text == (
        "more loss than s is shown for a (+1.0 [+0.5, +2.0]) and c (+2.0 [+1.0, +3.0]); "
        "less loss than s is shown for e (-1.0 [-2.0, -0.5]); no difference to s is shown for b (+0.0 [-1.0, +1.0]); "
        "no comparison, because runs diverged, for d"
    )


def test_many_that_show_nothing_are_named_without_their_intervals():
    text = by_direction({name: Interval(0, -1, 1) for name in "abcde"}, "s")
    assert text == "no difference to s is shown for a, b, c, d and e (intervals in the table)"


def test_lists_and_trials_in_words():
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    tried = [({"learning_rate": 0.3, "momentum": 0.9}, None), ({"learning_rate": 0.01, "momentum": 0.95}, 0.5)]
    assert trials_in_words(tried) == "0.01, 0.95: 0.500; 0.3, 0.9: diverged"
