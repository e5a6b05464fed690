"""Odd polynomials of singular values: their values, the best ones for an interval, and how few products one takes.

`p(s) = a s + b s^3 + c s^5 + ...` is a tuple of its coefficients. It acts on a matrix as `q(R) X`, `R = X X^T`,
with `q(t) = a + b t + c t^2 + ...`. Products of m x m matrices that q takes, `S = R R` among them:

    degree of p    q                                              products
    3              a I + b R                                      0
    5              a I + b R + c S                                1
    9              a I + b R + c S + S (d R + e S)                2
    17             a product of two sums of V, S, R and I, and    3, with V = Y Y, Y = S + y R + z I
                   another such sum (`factors`)

A step of degree 9 takes one product more than one of degree 5 and a step of degree 17 two, where a further step of
degree 5 would take four in the Gram form. Fewer products than Paterson & Stockmeyer's (1973) by products of sums:
Sastre & Ibáñez, Efficient evaluation of matrix polynomials beyond the Paterson-Stockmeyer method, 2021,
https://www.mdpi.com/2227-7390/9/14/1600, and the works they build on; the factors here are worked out in
`factors`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np

Polynomial = tuple[float, ...]

_Values = TypeVar("_Values", float, np.ndarray)

#: How many coefficients a polynomial may have, and the products that its q takes. A cubic is a quintic whose c is 0.
PRODUCTS: Final = {3: 1, 5: 2, 9: 3}

#: From which width of an interval on its best polynomial is told from the limit of narrow ones: below, both are within
#: 4e-9 of 1, and the linear system that gives the best is nearly singular.
_NARROW: Final = {3: 1e-4, 5: 1e-4, 9: 1e-2, 17: 1e-1}


def shortest(polynomial: Sequence[float]) -> Polynomial:
    """Without the zeros that make it longer than its degree asks for."""
    last = int(np.max(np.flatnonzero(polynomial), initial=0))
    return tuple(polynomial[: min(length for length in PRODUCTS if last < length)])


def products(polynomial: Sequence[float]) -> int:
    """How many products of m x m matrices `q(R)` takes: 0 of degree 3, 1 of degree 5, 2 of 9, and 3 of 17."""
    return 0 if is_cubic(polynomial) else PRODUCTS[len(polynomial)]


def is_cubic(polynomial: Sequence[float]) -> bool:
    """Whether it needs no square of R."""
    return not any(polynomial[2:])


def degree(polynomial: Sequence[float]) -> int:
    """3, 5, 9 or 17."""
    return 3 if is_cubic(polynomial) else 2 * len(polynomial) - 1


def value(polynomial: Sequence[float], s: _Values) -> _Values:
    """`p(s)`."""
    total: Any = 0.0
    for coefficient in reversed(polynomial):
        total = total * s**2 + coefficient
    return s * total


def image(polynomial: Sequence[float], low: float, high: float) -> tuple[float, float]:
    """The least and the largest value on [low, high]; at its ends, or where the derivative is zero."""
    if not any(polynomial):
        return 0.0, 0.0
    roots = np.polynomial.polynomial.polyroots(np.trim_zeros(_derivative(polynomial), "b"))
    s = np.sqrt(roots[(np.abs(roots.imag) <= 1e-9 * np.abs(roots)) & (roots.real > 0)].real)
    values = value(polynomial, np.array([low, high, *s[(s > low) & (s < high)]]))
    return float(values.min()), float(values.max())


def scaled(polynomial: Sequence[float], *, values: float = 1.0, stretch: float = 1.0) -> Polynomial:
    """`values p(s / stretch)`."""
    return tuple(float(values * c / stretch ** (2 * k + 1)) for k, c in enumerate(polynomial))


def best(low: float, high: float, degree: int) -> Polynomial:
    """The odd polynomial of degree 3, 5, 9 or 17 with the smallest largest distance from 1 on [low, high] (Remez)."""
    if (high - low) / high < _NARROW[degree]:
        return scaled(_limit(degree), stretch=(low + high) / 2)
    if degree == 3:
        e = ((low**2 + low * high + high**2) / 3) ** 0.5
        scale = 2 / (2 * e**3 + low**2 * high + low * high**2)
        return 3 * e**2 * scale, -scale, 0.0
    if degree == 5:
        return _best_quintic(low, high)
    return scaled(_exchange(low / high, degree), stretch=high)


def _best_quintic(low: float, high: float) -> Polynomial:
    q, r = (3 * low + high) / 4, (low + 3 * high) / 4
    previous = np.inf
    for _ in range(100):
        # Equioscillation: p(low) = 1 - E, p(q) = 1 + E, p(r) = 1 - E, p(high) = 1 + E.
        points = np.array([low, q, r, high])
        system = np.stack([points, points**3, points**5, [1, -1, 1, -1]], axis=1)
        a, b, c, error = np.linalg.solve(system, np.ones(4))
        if abs(error - previous) <= 1e-15:
            break
        previous = error
        # The inner extrema: roots of p'(s) = a + 3 b s^2 + 5 c s^4.
        root = np.sqrt(9 * b**2 - 20 * a * c)
        q, r = np.sqrt((-3 * b - root) / (10 * c)), np.sqrt((-3 * b + root) / (10 * c))
    return float(a), float(b), float(c)


def _exchange(low: float, degree: int) -> Polynomial:
    """The best on [low, 1] by Remez's exchange; the error's extrema are looked for on a grid."""
    count = (degree + 1) // 2
    # Where the error of a best polynomial of that degree has its extrema, nearly: Chebyshev's points.
    points = (1 + low) / 2 - (1 - low) / 2 * np.cos(np.pi * np.arange(count + 1) / count)
    grid = (1 + low) / 2 - (1 - low) / 2 * np.cos(np.linspace(0, np.pi, 4001))
    signs = (-1.0) ** np.arange(count + 1)
    previous = np.inf
    for _ in range(100):
        system = np.concatenate([points[:, None] ** (2 * np.arange(count) + 1), signs[:, None]], axis=1)
        *coefficients, error = np.linalg.solve(system, np.ones(count + 1))
        if abs(error - previous) <= 1e-13 or abs(error) <= 1e-9:  # closer, its differences are rounding
            break
        previous = error
        distance = value(coefficients, grid) - 1
        stretches = np.split(np.arange(len(grid)), 1 + np.flatnonzero(np.diff(np.sign(distance))))
        largest = [int(stretch[np.argmax(np.abs(distance[stretch]))]) for stretch in stretches]
        if len(largest) != count + 1:  # as many as the polynomial has terms, and one
            raise ValueError(f"no best polynomial of degree {degree} was found for the interval [{low}, 1]")
        inner = [_vertex(grid[i - 1 : i + 2], distance[i - 1 : i + 2]) for i in largest[1:-1]]
        points = np.array([low, *inner, 1.0])
    return tuple(float(c) for c in coefficients)


def _vertex(x: np.ndarray, y: np.ndarray) -> float:
    """Where the parabola through three points has its extremum."""
    (left, middle, right), (below, at, above) = x, y
    first, second = (at - below) / (middle - left), (above - at) / (right - middle)
    return float((left + middle) / 2 + (right - left) / 2 * first / (first - second))


def _limit(degree: int) -> Polynomial:
    """The polynomial with p(1) = 1 and as many derivatives of zero there as its degree allows.

    It is the start of the series of `s / sqrt(1 - (1 - s^2))` in `1 - s^2`.
    """
    terms, series = (degree + 1) // 2, [1.0]
    for k in range(1, terms):
        series.append(series[-1] * (2 * k - 1) / (2 * k))
    total: Any = np.zeros(1)
    for coefficient in reversed(series):
        total = np.polynomial.polynomial.polyadd(np.polynomial.polynomial.polymul(total, [1, -1]), [coefficient])
    return (*(float(c) for c in total), 0.0)[: max(terms, 3)]


def _derivative(polynomial: Sequence[float]) -> np.ndarray:
    """The coefficients of p'(s) in powers of s^2."""
    return np.array([(2 * k + 1) * c for k, c in enumerate(polynomial)])


class Factors(NamedTuple):
    """q of degree 8 by two products: `V = Y Y` and `L N`; every row holds the factors of V, S, R and I.

    `Y = S + y_1 R + y_0 I`, `L = left . (V, S, R, I)`, `N = right . (V, S, R, I)` and
    `q = L N + rest . (V, S, R, I)`.
    """

    y: tuple[float, float]
    left: tuple[float, float, float, float]
    right: tuple[float, float, float, float]
    rest: tuple[float, float, float, float]


@functools.cache
def factors(polynomial: Polynomial) -> Factors:
    """The products that a step of degree 17 is evaluated by.

    In `x = t - center`, with the center that removes x^7, `q / k = x^8 + b6 x^6 + b5 x^5 + ...`, and with V = x^4

        `q / k = (V + u2 x^2 + u1 x) (V + w2 x^2 + w1 x) + g V + r2 x^2 + r1 x + r0`.

    The powers 6 and 5 give u + w; 3 gives (u2 - w2) (u1 - w1), one number for two, and both roots are taken alike; then
    4 gives g, and the rest what is left. Every polynomial with k other than 0 has this form; where k is small beside
    the others the center is far from [0, 1], and rounding takes q (`growth`).
    """
    c = np.asarray(polynomial)
    lead, center = c[8], -c[7] / (8 * c[8])
    shifted = np.zeros(1)
    for coefficient in c[::-1]:
        shifted = np.polynomial.polynomial.polyadd(
            np.polynomial.polynomial.polymul(shifted, [center, 1]), [coefficient]
        )
    b = shifted / lead
    crossed = (b[6] * b[5] / 2 - b[3]) / 2
    two = max(abs(crossed) ** 0.5, 1e-6)
    one = crossed / two
    u, w = (np.array([0, b[5] / 2 + sign * one, b[6] / 2 + sign * two]) for sign in (1, -1))
    g = b[4] - u[2] * w[2]
    rest = np.array([b[0], b[1], b[2] - u[1] * w[1]])

    def in_r(v: float, quadratic: np.ndarray) -> tuple[float, float, float, float]:
        """From powers of x to V, S, R and I: `x = R - center I`, `x^2 = S - 2 center R + center^2 I`."""
        zero, first, second = quadratic
        return (
            float(v),
            float(second),
            float(first - 2 * center * second),
            float(zero - center * first + center**2 * second),
        )

    return Factors(
        y=(float(-2 * center), float(center**2)),
        left=in_r(lead, lead * u),
        right=in_r(1.0, w),
        rest=in_r(lead * g, lead * rest),
    )


def growth(polynomial: Polynomial) -> float:
    """Upper bound on the rounding-error amplification, on [0, 1], of the factored evaluation of nine coefficients."""
    known, r = factors(polynomial), np.linspace(0, 1, 101)
    y = r**2 + known.y[0] * r + known.y[1]
    terms = np.stack([y**2, r**2, r, np.ones_like(r)])
    sizes = [np.abs(weights) @ np.abs(terms) for weights in (known.left, known.right, known.rest)]
    largest = np.max(np.abs(np.polynomial.polynomial.polyval(r, polynomial)))
    return float(np.max(sizes[0] * sizes[1] + sizes[2]) / largest)
