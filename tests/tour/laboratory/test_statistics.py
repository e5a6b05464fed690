"""Intervals: against the exact bootstrap of few values, their coverage, and what pairing is for."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from jaxopt_tour.tour.laboratory.statistics import in_words, mean, mean_difference, ratio, signed


def test_the_mean_of_three_values_against_all_27_resamples():
    values = [1.0, 2.0, 6.0]
    means = [np.mean(each) for each in itertools.product(values, repeat=3)]
    found = mean(values)
    low, high = np.percentile(np.repeat(means, 1000), [2.5, 97.5])
    assert found.value == pytest.approx(3)
    assert (found.low, found.high) == pytest.approx((low, high))


def test_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(200):
        found = mean(rng.normal(size=20))
        inside += found.low <= 0 <= found.high
    # 95 % less what 20 values cost a percentile bootstrap (about 2 %), and three deviations of 200 draws (5 %).
    assert inside / 200 > 0.87


def test_pairing_removes_what_the_seeds_share():
    shared = np.random.default_rng(2).normal(size=30)
    first, second = shared + 0.1, shared
    found = mean_difference(first, second)
    assert found == pytest.approx((0.1, 0.1, 0.1))
    assert mean(first).low < mean(second).high  # unpaired, nothing would be shown


def test_ratio_is_of_geometric_means():
    assert ratio([4, 16], [2, 2]).value == pytest.approx(4)
    assert ratio([3, 3], [2, 2]) == pytest.approx((1.5, 1.5, 1.5))


def test_the_same_values_give_the_same_interval():
    values = np.random.default_rng(3).normal(size=8)
    assert mean(values) == mean(list(values))


@pytest.mark.parametrize(("first", "second"), [([], []), ([1.0], [1.0, 2.0])])
def test_what_cannot_be_paired_is_refused(first, second):
    with pytest.raises(ValueError, match="same number of values"):
        mean_difference(first, second)


def test_words():
    found = mean_difference([1.0, 1.0], [0.5, 0.5])
    assert in_words(found) == "0.50 [0.50, 0.50]"
    assert signed(found) == "+0.500 [+0.500, +0.500]"
