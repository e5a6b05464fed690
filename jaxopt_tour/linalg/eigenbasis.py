"""Eigenvectors of symmetric matrices that change slowly: all at once, or one power step from those before."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxopt_tour._types import Array, Float
from jaxopt_tour.linalg.decompositions import decompose
from jaxopt_tour.linalg.products import product


def eigenbasis(a: Float[Array, "*batch m m"]) -> Float[Array, "*batch m m"]:
    """Return the eigenvectors of symmetric matrices without negative eigenvalues, largest eigenvalue first.

    Eigenvalues up to `m eps` times the largest are rounding, and `eigh` returns any basis of their vectors: another one
    in another program, or on another device. Here that basis is a projection of fixed random vectors, so that two
    programs agree. Signs are arbitrary.

    Args:
        a: Matrices of float32 or float64. Of the zero matrix every basis is one.

    Returns:
        Orthogonal matrices Q, with the eigenvectors as columns.
    """
    m = a.shape[-1]
    values, vectors = decompose(_eigh, _near_one(a))
    values, vectors = values[..., ::-1], vectors[..., ::-1]
    resolved = _resolved(values)[..., None, :]
    signal = jnp.where(resolved, vectors, 0)
    draws = jax.random.normal(jax.random.key(0), (m, m), a.dtype)
    others = draws - product(signal, product(signal.mT, jnp.broadcast_to(draws, a.shape)))
    return decompose(_orthogonal, jnp.where(resolved, vectors, others))


def power_step(a: Float[Array, "*batch m m"], q: Float[Array, "*batch m m"]) -> tuple[Array, Array]:
    r"""Move approximate eigenvectors of another matrix towards those of A, by orthogonal iteration.

    $$
    Q' R' = A Q_\pi, \qquad \pi \text{ sorts the columns of } Q \text{ by } q_i^\top A q_i, \text{ largest first}
    $$

    A column whose $q_i^\top A q_i$ is rounding (up to `m eps` times the largest) is kept but for what makes it
    orthogonal to the others: its product with A has no correct digit.

    Args:
        a: Symmetric matrices without negative eigenvalues, of float32 or float64.
        q: Orthogonal matrices.

    Returns:
        $Q'$, and $\pi$ as indices of shape (*batch, m): column i of $Q'$ comes from column $\pi_i$ of Q.

    Source:
        Golub & Van Loan, Matrix Computations, section 8.2.4; its use in SOAP: Vyas et al. 2024,
        https://arxiv.org/abs/2409.11321, algorithm 4.
    """
    a = _near_one(a)
    aq = product(a, q)
    values = jnp.sum(q * aq, axis=-2)
    order = jnp.argsort(-values, axis=-1)
    values = jnp.take_along_axis(values, order, -1)
    aq, q = (jnp.take_along_axis(x, order[..., None, :], -1) for x in (aq, q))
    return decompose(_orthogonal, jnp.where(_resolved(values)[..., None, :], aq, q)), order


def _near_one(a: Array) -> Array:
    """Divide by a power of two, so that the largest entry is near 1: products neither overflow nor underflow."""
    largest = jnp.max(jnp.abs(a), axis=(-2, -1), keepdims=True)
    _, exponent = jnp.frexp(largest)
    return jnp.ldexp(a, -exponent)


def _resolved(values: Array) -> Array:
    """Which eigenvalues, largest first, are above rounding."""
    return values > values.shape[-1] * jnp.finfo(values.dtype).eps * values[..., :1]


def _eigh(a: Array) -> tuple[Array, Array]:
    values, vectors = jnp.linalg.eigh(a)
    return values, vectors


def _orthogonal(x: Array) -> Array:
    return jnp.linalg.qr(x).Q
