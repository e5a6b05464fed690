"""What singular values `s_1 >= s_2 >= ...` say: how many directions a matrix has, and whether subspaces agree.

A matrix of zeros has no directions: every measure of it is NaN, as of one with NaN in it.
"""

from __future__ import annotations

import numpy as np


def effective_rank(s: np.ndarray) -> float:
    """`exp(-sum_i p_i log p_i)` with `p_i = s_i / sum_j s_j`: n for n equal values, 1 for a single one.

    Source: Roy & Vetterli, The effective rank, EUSIPCO 2007, https://ieeexplore.ieee.org/document/7098875
    """
    p = _relative(s)
    p /= p.sum()
    return float(np.exp(-np.sum(p * np.log(p, out=np.zeros_like(p), where=p > 0))))


def stable_rank(s: np.ndarray) -> float:
    """`|X|_F^2 / |X|_2^2 = sum_i s_i^2 / s_1^2`.

    Source: Rudelson & Vershynin 2007, https://arxiv.org/abs/math/0503442 (there: numerical rank)
    """
    return float(np.sum(np.square(_relative(s))))


def top_share(s: np.ndarray) -> float:
    """`s_1 / sum_i s_i`: the largest singular value's share of all of them."""
    return float(1 / np.sum(_relative(s)))


def svd_entropy(s: np.ndarray) -> float:
    """`-sum_i q_i log q_i / log n` with `q_i = s_i^2 / sum_j s_j^2`: 1 for n equal values, 0 for a single one.

    Source: Liu et al., Muon is Scalable for LLM Training, 2025, section 3.4, https://arxiv.org/abs/2502.16982, who
    report it to be higher for weights trained with Muon than with AdamW.
    """
    q = np.square(_relative(s))
    q /= q.sum()
    return float(-np.sum(q * np.log(q, out=np.zeros_like(q), where=q > 0)) / np.log(len(s)))


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """The mean of the squared cosines of the principal angles of two subspaces, `|A^T B|_F^2 / k`.

    `A` and `B` are (n, k) with orthonormal columns. Two subspaces drawn at random have `k / n` on average.

    Source: Bjorck & Golub 1973, https://doi.org/10.1090/S0025-5718-1973-0348991-3 (principal angles)
    """
    return float(np.sum(np.square(first.T @ second)) / first.shape[1])


def _relative(s: np.ndarray) -> np.ndarray:
    """The singular values as parts of the largest."""
    s = np.asarray(s, np.float64)
    return s / s.max() if s.max() > 0 else np.full_like(s, np.nan)
