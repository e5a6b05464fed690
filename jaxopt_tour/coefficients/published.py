"""Published tables of coefficients, with their sources."""

from __future__ import annotations

from jaxopt_tour.coefficients.polynomial import PolynomialCoefficients, check_steps


def cubic(steps: int = 10) -> PolynomialCoefficients:
    """The classical iteration `1.5 s - 0.5 s^3`; converges for every s in (0, sqrt 3), slowly for small s.

    Source: Björck & Bowie, An iterative algorithm for computing the best estimate of an orthogonal matrix, 1971.
    """
    return PolynomialCoefficients(
        "cubic", ((1.5, -0.5, 0.0),) * check_steps(steps), "frobenius", "Björck & Bowie 1971, doi:10.1137/0708036"
    )


def keller_jordan(steps: int = 5) -> PolynomialCoefficients:
    """The original Muon's polynomial: steepest at zero, singular values end in about [0.7, 1.2], never at 1.

    Source: Jordan et al., Muon, 2024, https://kellerjordan.github.io/posts/muon/
    """
    return PolynomialCoefficients(
        "keller_jordan",
        ((3.4445, -4.7750, 2.0315),) * check_steps(steps),
        "frobenius",
        "Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/",
    )


def you() -> PolynomialCoefficients:
    """Five polynomials found by Jiacheng You's search; Optax calls them `dion`.

    Source: J. You, https://gist.github.com/YouJiacheng/393c90cbdc23b09d5688815ba382288b
    """
    return PolynomialCoefficients(
        "you",
        (
            (4.0848, -6.8946, 2.9270),
            (3.9505, -6.3029, 2.6377),
            (3.7418, -5.5913, 2.3037),
            (2.8769, -3.1427, 1.2046),
            (2.8366, -3.0525, 1.2012),
        ),
        "frobenius",
        "You 2024, https://gist.github.com/YouJiacheng/393c90cbdc23b09d5688815ba382288b",
    )


def modula() -> PolynomialCoefficients:
    """The six polynomials of Modula (F. L. Cesista, J. You and K. Jordan), in 1024ths.

    Source: https://docs.modula.systems/algorithms/newton-schulz/
    """
    numerators = (
        (3955, -8306, 5008),
        (3735, -6681, 3463),
        (3799, -6499, 3211),
        (4019, -6385, 2906),
        (2677, -3029, 1162),
        (2172, -1833, 682),
    )
    return PolynomialCoefficients(
        "modula",
        tuple((a / 1024, b / 1024, c / 1024) for a, b, c in numerators),
        "frobenius",
        "Modula, https://docs.modula.systems/algorithms/newton-schulz/",
    )


def turbo() -> PolynomialCoefficients:
    """Four polynomials made for the AOL prescale.

    Source: Boissin et al., Turbo-Muon, 2025, https://arxiv.org/abs/2512.04632
    """
    return PolynomialCoefficients(
        "turbo",
        (
            (4.6051, -9.6552, 5.6769),
            (4.7505, -6.0861, 2.1790),
            (2.7763, -2.3190, 0.5523),
            (2.4231, -2.2861, 0.8193),
        ),
        "aol",
        "Boissin et al. 2025, https://arxiv.org/abs/2512.04632",
    )
