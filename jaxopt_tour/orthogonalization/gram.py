"""The Gram form: all steps happen on m x m matrices, and X is read twice:

```text
R = X X^T                                 the Gram matrix of the iterate
Z = b R + c R R                           every step
Q <- Q Z + a Q;   R <- Z (R Z + a R) + a (R Z + a R)
X <- Q X                                  Q: the product of all steps
```

Z is that of a step of degree 5; one of degree 9 or 17 takes one or two products more. Every matrix here commutes with
R, so each is symmetric. Rational functions have the Gram form alone (`rational`).

Source: Dao-AILab, gram-newton-schulz, 2026, https://github.com/Dao-AILab/gram-newton-schulz
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from jaxopt_tour._types import Array, Float
from jaxopt_tour.coefficients import PolynomialCoefficients, RationalCoefficients
from jaxopt_tour.coefficients.odd_polynomials import Polynomial, is_cubic
from jaxopt_tour.linalg.products import product
from jaxopt_tour.linalg.symmetric import Method, symmetric_product
from jaxopt_tour.orthogonalization.plan import Iteration
from jaxopt_tour.orthogonalization.prescale import eps_in_units, prescaled
from jaxopt_tour.orthogonalization.rational import product_of_rational_steps
from jaxopt_tour.orthogonalization.steps import apply, commuting, polynomial_of, repeat, scale_rows, weighted_sum


def gram_form(x: Float[Array, "*batch m n"], iteration: Iteration, eps: Array | float) -> Array:
    """Run the steps on X, whose entries are at most 1; m <= n."""
    coefficients, products = iteration.coefficients, iteration.commuting_product
    gram = symmetric_product(x, x, method=iteration.gram_product, wide_result=True)
    assert isinstance(coefficients, (PolynomialCoefficients, RationalCoefficients))
    start = prescaled(gram, x.dtype, coefficients, eps, products)
    x, late_scale = scale_rows(x, start.row_scale)
    if isinstance(coefficients, RationalCoefficients):
        return apply(product_of_rational_steps(start.gram, coefficients.functions, products), 0.0, x, late_scale)
    gram, square = start.gram, start.square
    edges = (0, *iteration.restarts, coefficients.steps)
    for first, last in itertools.pairwise(edges):
        if first:
            gram, square = symmetric_product(x, x, method=iteration.gram_product), None
        polynomials = coefficients.polynomials[first:last]
        q, identity_part = _product_of_steps(gram, square, polynomials, products, iteration.loop)
        x = apply(q, identity_part, x, late_scale)
        late_scale = None
    return x


def gram_matrix(x: Float[Array, "*batch m n"], iteration: Iteration) -> Array:
    """The Gram matrix of the short side: `X X^T` or, of a tall X, `X^T X`."""
    wide = x if x.shape[-2] <= x.shape[-1] else x.mT
    return symmetric_product(wide, wide, method=iteration.gram_product)


def factor(gram: Float[Array, "*batch m m"], scale: Array, iteration: Iteration, eps: Array | float) -> Array:
    """The Q of `O = Q X` (`X Q`, of a tall X), from the Gram matrix of an X scaled by `scale`; in full precision.

    Gram matrices of one m are worked on in one stack, however long the other sides of their X are: of GPT-2-small,
    (48, 768, 768) for kernels of (768, 768), (768, 2304), (768, 3072) and (3072, 768).
    """
    coefficients, products = iteration.coefficients, iteration.commuting_product
    assert isinstance(coefficients, (PolynomialCoefficients, RationalCoefficients))
    start = prescaled(gram, gram.dtype, coefficients, eps_in_units(eps, scale), products)
    if isinstance(coefficients, RationalCoefficients):
        q = product_of_rational_steps(start.gram, coefficients.functions, products)
    else:
        q, _ = _product_of_steps(start.gram, start.square, coefficients.polynomials, products, iteration.loop)
    return q * start.row_scale.mT


def apply_factor(q: Float[Array, "*batch k k"], x: Float[Array, "*batch m n"]) -> Array:
    """`Q X`, or `X Q` of a tall X."""
    return product(q, x) if x.shape[-2] <= x.shape[-1] else product(x, q.mT)


def _product_of_steps(
    r: Array, square: Array | None, polynomials: Sequence[Polynomial], products: Method, loop: bool
) -> tuple[Array, float]:
    """Q and f with `(Q + f I) X` the result of all steps, from the Gram matrix R of X; f is 0 in full precision.

    `square` is R R where the caller has it.

    Example: two steps of `1.5 s - 0.5 s^3` on a 1 x 1 matrix X = 0.5, so R = 0.25. Step one multiplies by
    1.5 - 0.5 * 0.25 = 1.375, after which R = 0.25 * 1.375^2 = 0.4727; step two by 1.5 - 0.5 * 0.4727 = 1.2637. So
    Q = 1.375 * 1.2637 = 1.7375, and Q X = 0.869 is nearer to one than X.
    """
    if square is None and not is_cubic(polynomials[0]):
        square = commuting(r, r, products)
    z, a = polynomial_of(r, square, polynomials[0], products)

    def step(carry: tuple[Any, ...], polynomial: Any, cubic: bool) -> tuple[Any, ...]:
        q, f, r, z, a = carry
        rz = weighted_sum(r, (1.0, commuting(r, z, products, wide_result=True)), (a, r))
        r = weighted_sum(r, (1.0, commuting(z, rz, products, wide_result=True)), (a, rz))
        square = None if cubic else commuting(r, r, products)
        z, a = polynomial_of(r, square, polynomial, products)
        # (Q + f I)(Z + a I) = Q Z + a Q + f Z + a f I, where a and f are 0 in full precision.
        q = weighted_sum(q, (1.0, commuting(q, z, products, wide_result=True)), (a, q), (f, z))
        return q, a * f, r, z, a

    if not loop:
        return repeat(step, (z, a, r, z, a), polynomials[1:], False)[:2]

    def step_without_identity(carry: tuple[Array, ...], polynomial: Any, cubic: bool) -> tuple[Array, ...]:
        q, r, z = carry
        q, _, r, z, _ = step((q, 0.0, r, z, 0.0), polynomial, cubic)
        return q, r, z

    return repeat(step_without_identity, (z, r, z), polynomials[1:], True)[0], 0.0
