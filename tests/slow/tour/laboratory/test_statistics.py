"""Intervals: against SciPy's, their coverage, and what pairing is for."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from jaxopt_tour.tour.laboratory.statistics import in_words, mean, mean_difference, ratio, signed


def test_few_values_have_students_interval():
    values = [1.0, 2.0, 6.0]
    found = mean(values)
    low, high = stats.t.interval(0.95, df=2, loc=3, scale=stats.sem(values))
    assert found == pytest.approx((3, low, high))
    assert mean([4.0]) == (4.0, -np.inf, np.inf)


def test_four_values_of_one_sign_need_not_leave_out_zero():
    assert mean([0.1, 0.2, 0.3, 2.0]).low < 0 < mean([0.9, 1.0, 1.0, 1.1]).low


@pytest.mark.parametrize("n", [10, 16])
def test_many_values_against_the_expanded_percentiles_of_scipy(n):
    values = np.random.default_rng(0).exponential(size=n)
    level = 1 - 2 * stats.norm.cdf(-stats.t.ppf(0.975, n - 1) * np.sqrt(n / (n - 1)))
    found = stats.bootstrap(
        (values,), np.mean, method="percentile", confidence_level=level, rng=np.random.default_rng(5)
    )
    low, high = found.confidence_interval
    assert mean(values) == pytest.approx((values.mean(), low, high), abs=0.03)


@pytest.mark.parametrize("n", [4, 10, 20])
def test_covers_the_truth_as_often_as_it_says(n):
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(400):
        found = mean(rng.normal(size=n))
        inside += found.low <= 0 <= found.high
    assert inside / 400 > 0.95 - 0.033  # three deviations of 400 draws


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


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [([], [], "at least one value"), ([1.0], [1.0, 2.0], "same number of values, got 1")],
)
def test_what_cannot_be_paired_is_refused(first, second, message):
    with pytest.raises(ValueError, match=message):
        mean_difference(first, second)


def test_words():
    found = mean_difference([1.0, 1.0], [0.5, 0.5])
    assert in_words(found) == "0.50 [0.50, 0.50]"
    assert signed(found) == "+0.500 [+0.500, +0.500]"
