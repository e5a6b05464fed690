"""The standard form of the iteration, on X itself:

```text
X <- X / S(X)                             S: a norm above the spectral norm
A = X X^T                                 every step
X <- (a I + b A + c A A) X                so that every singular value s becomes a s + b s^3 + c s^5
```

for wide matrices, m <= n. Singular vectors stay; singular values end near 1. Source: Jordan et al., Muon, 2024,
https://kellerjordan.github.io/posts/muon/; Björck & Bowie, 1971, doi:10.1137/0708036
"""

from __future__ import annotations

from typing import Any

from jaxopt_tour._types import Array, Float
from jaxopt_tour.coefficients import PolynomialCoefficients
from jaxopt_tour.linalg.symmetric import symmetric_product
from jaxopt_tour.orthogonalization.plan import Iteration
from jaxopt_tour.orthogonalization.prescale import prescaled
from jaxopt_tour.orthogonalization.steps import apply, commuting, polynomial_of, repeat, scale_rows


def standard_form(x: Float[Array, "*batch m n"], iteration: Iteration, eps: Array | float) -> Array:
    """Run the steps on X, whose entries are at most 1; m <= n."""
    coefficients, products = iteration.coefficients, iteration.commuting_product
    assert isinstance(coefficients, PolynomialCoefficients)
    first, *others = coefficients.polynomials
    gram = symmetric_product(x, x, method=iteration.gram_product, wide_result=True)
    start = prescaled(gram, x.dtype, coefficients, eps, products)
    x, late_scale = scale_rows(x, start.row_scale)
    x = apply(*polynomial_of(start.gram, start.square, first, products), x, late_scale)

    def step(x: Array, polynomial: Any, cubic: bool) -> Array:
        gram = symmetric_product(x, x, method=iteration.gram_product)
        square = None if cubic else commuting(gram, gram, products)
        return apply(*polynomial_of(gram, square, polynomial, products), x, None)

    return repeat(step, x, others, iteration.loop)
