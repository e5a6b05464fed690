"""The measures of singular values against cases known by hand."""

from __future__ import annotations

import numpy as np

from jaxopt_tour.tour.laboratory.singular import effective_rank, overlap, stable_rank, svd_entropy, top_share


def test_equal_values_have_full_rank_and_one_value_has_rank_one():
    for n in (2, 7):
        ones, single = np.full(n, 0.3), np.eye(n)[0] * 5
        np.testing.assert_allclose([effective_rank(ones), stable_rank(ones), top_share(ones)], [n, n, 1 / n])
        np.testing.assert_allclose([effective_rank(single), stable_rank(single), top_share(single)], [1, 1, 1])
        np.testing.assert_allclose([svd_entropy(ones), svd_entropy(single)], [1, 0], atol=1e-12)


def test_two_values_by_hand():
    s = np.array([3.0, 1.0])  # p = 3/4, 1/4; q = 9/10, 1/10
    np.testing.assert_allclose(effective_rank(s), 4 / 27**0.25)
    np.testing.assert_allclose(stable_rank(s), 10 / 9)
    np.testing.assert_allclose(svd_entropy(s), -(0.9 * np.log2(0.9) + 0.1 * np.log2(0.1)))


def test_no_measure_depends_on_the_scale():
    s = np.sort(np.random.default_rng(0).exponential(size=6))[::-1]
    for measure in (effective_rank, stable_rank, top_share, svd_entropy):
        for scale in (1e-30, 1e30):
            np.testing.assert_allclose(measure(scale * s), measure(s))


def test_a_matrix_of_zeros_has_no_directions():
    for measure in (effective_rank, stable_rank, top_share, svd_entropy):
        assert np.isnan(measure(np.zeros(3))) and np.isnan(measure(np.array([np.nan, np.nan])))


def test_overlap_is_one_within_a_subspace_zero_across_and_k_over_n_at_random():
    rng = np.random.default_rng(1)
    q = np.linalg.qr(rng.standard_normal((12, 12)))[0]
    turned = q[:, :3] @ np.linalg.qr(rng.standard_normal((3, 3)))[0]
    np.testing.assert_allclose(overlap(q[:, :3], turned), 1)
    np.testing.assert_allclose(overlap(q[:, :3], q[:, 3:6]), 0, atol=1e-12)
    angle = 0.4
    tilted = np.cos(angle) * q[:, :1] + np.sin(angle) * q[:, 1:2]
    np.testing.assert_allclose(overlap(q[:, :1], tilted), np.cos(angle) ** 2)
    random = [overlap(q[:, :3], np.linalg.qr(rng.standard_normal((12, 3)))[0]) for _ in range(2000)]
    np.testing.assert_allclose(np.mean(random), 3 / 12, atol=5 * np.std(random) / 2000**0.5)
