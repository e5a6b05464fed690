"""The bases of SOAP: averages of outer products of gradients, their eigenvectors, and rotations into them.

A side is the rows or the columns of a batch of matrices. The sides of all parameters that have the same length are
decomposed as one batch. No side is cut over a mesh, so no decomposition communicates.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from jaxopt_tour._trees import map_with_names, named_leaves, rebox, unbox
from jaxopt_tour._types import Array, DTypeLike, Float, Tree
from jaxopt_tour.linalg.eigenbasis import eigenbasis, power_step
from jaxopt_tour.linalg.products import product
from jaxopt_tour.optimizers._numerics import Scalar
from jaxopt_tour.routing.axes import MatrixAxes

Of = Literal["left", "right"]
SIDES: Final[tuple[Of, Of]] = ("left", "right")
Piece = tuple[str, int]  # path name of a parameter, number of its part
Key = tuple[str, int, Of]


class Side(NamedTuple):
    """The rows or the columns of a batch of matrices."""

    covariance: Float[Array, "batch m m"]  # L or R
    basis: Float[Array, "batch m m"]  # Q; zeros until there is a gradient


class TwoSides(NamedTuple):
    """The sides of a batch of matrices; None where the basis is the identity."""

    left: Side | None
    right: Side | None

    def rotated(self, x: Float[Array, "batch m n"]) -> Float[Array, "batch m n"]:
        """Return `Q_L^T x Q_R`."""
        x = x if self.left is None else product(self.left.basis.mT, x)
        return x if self.right is None else product(x, self.right.basis)

    def rotated_back(self, x: Float[Array, "batch m n"]) -> Float[Array, "batch m n"]:
        """Return `Q_L x Q_R^T`: undoes `rotated`."""
        x = x if self.left is None else product(self.left.basis, x)
        return x if self.right is None else product(x, self.right.basis.mT)


def zeros_of_sides(
    params: Tree, views: Mapping[str, MatrixAxes], of: Of, max_size: int, dtype: DTypeLike | None, identity: float
) -> Tree:
    """Return zeros for one side of every parameter: (batch, pieces, m, m) with m that of the widest piece.

    (batch, pieces, 1, 1) where no piece has a basis, filled with `identity`. At least float32 if `dtype` is None.
    """
    leaves = named_leaves(params)

    def one_leaf(name: str, leaf: Any) -> Any:
        pieces = views[name].matrix_shapes(tuple(leaves[name].shape))
        size = max((sizes[SIDES.index(of)] for _, *sizes in pieces if sizes[SIDES.index(of)] <= max_size), default=1)
        wide = jnp.promote_types(leaves[name].dtype, jnp.float32) if dtype is None else dtype
        return rebox(leaf, jnp.full((pieces[0][0], len(pieces), size, size), identity if size == 1 else 0.0, wide))

    return map_with_names(one_leaf, params)


def with_sides(tree: Tree, of: Of, arrays: Mapping[Key, Array], names: Collection[str]) -> Tree:
    """Put the arrays of the pieces into one field of the state; parameters without a gradient keep theirs."""

    def one_leaf(name: str, leaf: Any) -> Any:
        array = unbox(leaf)
        for i in range(array.shape[1] if name in names else 0):
            if (name, i, of) in arrays:
                size = arrays[name, i, of].shape[-1]
                array = array.at[:, i, :size, :size].set(arrays[name, i, of])
        return rebox(leaf, array)

    return map_with_names(one_leaf, tree)


def accumulated(side: Side, x: Float[Array, "batch m n"], beta: Scalar) -> Side:
    """Average `x x^T` into the covariance of the rows of x; a constant to derivatives, as the bases are."""
    covariance = beta * side.covariance + (1 - beta) * product(x, x.mT)
    return side._replace(covariance=stop_gradient(covariance.astype(side.covariance.dtype)))


def has_basis(side: Side) -> Array:
    """Return which matrices of the batch have a basis."""
    return jnp.any(side.basis != 0, axis=(-2, -1))


def with_first_bases(sides: Mapping[Key, Side], replicate: Callable[[Array], Array]) -> dict[Key, Side]:
    """Give a basis to every side that has none and whose covariance is not zero, by an eigendecomposition."""
    missing = {
        key: ~has_basis(side) & (jnp.trace(side.covariance, axis1=-2, axis2=-1) > 0) for key, side in sides.items()
    }

    def found() -> dict[Key, Array]:
        bases = _by_size(lambda side: eigenbasis(side.covariance), sides, replicate)
        return {key: jnp.where(missing[key][:, None, None], bases[key], side.basis) for key, side in sides.items()}

    any_missing = jnp.any(jnp.concatenate([jnp.zeros(1, bool), *missing.values()]))
    bases = jax.lax.cond(any_missing, found, lambda: {key: side.basis for key, side in sides.items()})
    return {key: side._replace(basis=replicate(stop_gradient(bases[key]))) for key, side in sides.items()}


def refreshed(
    sides: Mapping[Key, Side], replicate: Callable[[Array], Array]
) -> tuple[dict[Key, Array], dict[Key, Array]]:
    """Return bases after one power step, and for each of their columns the column that it comes from."""
    stepped = _by_size(lambda side: power_step(*side), sides, replicate)
    bases = {key: jnp.where(has_basis(side)[:, None, None], stepped[key][0], 0) for key, side in sides.items()}
    return bases, {key: order for key, (_, order) in stepped.items()}


def sorted_like(x: Float[Array, "batch m n"], left: Array | None, right: Array | None) -> Float[Array, "batch m n"]:
    """Reorder what belongs to the columns of the bases as these were."""
    x = x if left is None else jnp.take_along_axis(x, left[:, :, None], axis=-2)
    return x if right is None else jnp.take_along_axis(x, right[:, None, :], axis=-1)


def _by_size(
    function: Callable[[Side], Any], sides: Mapping[Key, Side], replicate: Callable[[Array], Array]
) -> dict[Key, Any]:
    """Apply a function of a batch to all sides of one length at once, on every device."""
    groups: dict[tuple[int, Any], list[Key]] = {}
    for key, side in sides.items():
        groups.setdefault((side.basis.shape[-1], side.basis.dtype), []).append(key)
    found: dict[Key, Any] = {}
    for keys in groups.values():
        batch = jax.tree.map(lambda *xs: jnp.concatenate(xs) if len(xs) > 1 else xs[0], *(sides[key] for key in keys))
        results, start = jax.tree.map(replicate, function(jax.tree.map(replicate, batch))), 0
        for key in keys:
            stop = start + len(sides[key].basis)
            found[key] = jax.tree.map(lambda x, start=start, stop=stop: x[start:stop], results)
            start = stop
    return found
