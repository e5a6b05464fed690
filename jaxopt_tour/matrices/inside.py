"""Matrices split inside: every device works on some columns of each, and one sum joins them.

For a wide X, cut into the columns ``X_d`` of device d, the Gram form of the iteration needs X twice::

    X X^T = sum over d of X_d X_d^T        summed over the devices
    Q     = factor(X X^T)                  on every device, or each on one device and then gathered
    (Q X)_d = Q X_d                        no communication

so there is no collective inside the iteration. A device holds columns of a matrix already where the layout cuts its
long side; rows are turned into columns by an all-to-all, one for all matrices whose rows lie alike, and back by
another; of copies each device takes other columns, and an all-gather joins the results. Columns of zeros fill up a long
side that does not divide: they change nothing in the Gram matrix. Matrices travel in the wire's dtype, Gram matrices
and factors in the iteration's: factors have entries far above one, and their rounding would count as much as those.

Only what has parts can be split (``Orthogonalization.has_parts``): the Gram form in float32 and float64. In half
precision it returns to X on its way, the standard form does at every step, and an SVD is not made of products.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_tour._types import Array
from jaxopt_tour.linalg.newton_schulz import Orthogonalization
from jaxopt_tour.linalg.products import product
from jaxopt_tour.linalg.symmetric import symmetric_product
from jaxopt_tour.matrices.exchange import all_to_all, pack, unpack, work
from jaxopt_tour.matrices.shares import Deal, Kind, Names
from jaxopt_tour.matrices.stacking import over_slices


def split_inside(
    operation: Orthogonalization, stacks: Sequence[Array], deal: Deal, wire_dtype: np.dtype | None
) -> list[Array]:
    """What one device does: its blocks (count, m block, n block) of every kind in, those of the results out."""
    kinds, dtype = deal.inside.kinds, jnp.dtype(deal.bundle.dtype)
    scales = _scales(operation, stacks, deal.bundle.exchange)
    parts = _to_columns(stacks, kinds, deal, wire_dtype)
    units = [operation.near_unit(part, scale) for part, scale in zip(parts, scales, strict=True)]
    # Of X_d, as of X, it is the rows whose products are taken, also where there are more of them than columns.
    grams = [over_slices(lambda x: symmetric_product(x, x, method=operation.symmetric), unit) for unit in units]
    factors = _factors(operation, grams, scales, deal)
    results = [over_slices(product, *pair).astype(dtype) for pair in zip(factors, units, strict=True)]
    return _from_columns(results, kinds, deal, wire_dtype)


def _scales(operation: Orthogonalization, stacks: Sequence[Array], axes: Names) -> list[Array]:
    """The scale of every matrix (count, 1, 1), from its largest entry on any device."""
    local = [jnp.max(jnp.abs(jax.lax.stop_gradient(stack)), axis=(-2, -1)) for stack in stacks]
    largest = jax.lax.pmax(jnp.concatenate(local), axes) if axes else jnp.concatenate(local)
    ends = np.cumsum([stack.shape[0] for stack in stacks])[:-1]
    return [operation.unit_scale(each[:, None, None]) for each in jnp.split(largest, ends)]


def _factors(operation: Orthogonalization, grams: Sequence[Array], scales: Sequence[Array], deal: Deal) -> list[Array]:
    """The factor of every matrix on every device, from what each has of the Gram matrices (count, m, m)."""
    names = tuple(name for name in deal.sizes if name in deal.bundle.replicas + deal.bundle.exchange)
    dealt = deal.inside.factors
    sides = list(dict.fromkeys(gram.shape[-1] for gram in grams)) if dealt is None else [kind.m for kind in dealt.kinds]
    # Those of one m in one stack, in the order of their kinds.
    members = [[i for i, gram in enumerate(grams) if gram.shape[-1] == m] for m in sides]
    of_side = [[grams[i] for i in own] for own in members]
    beside = [jnp.concatenate([scales[i] for i in own]) for own in members]
    counts = [[gram.shape[0] for gram in own] for own in of_side]
    if dealt is None:
        stacks = [jnp.concatenate(own) for own in of_side]
        summed = _each_shape(jax.lax.psum(_flat(stacks), names), stacks)
        done = [over_slices(operation.factor, gram, scale) for gram, scale in zip(summed, beside, strict=True)]
        found = [jnp.split(stack, np.cumsum(own)[:-1]) for stack, own in zip(done, counts, strict=True)]
    else:
        mine = jax.lax.psum_scatter(pack(of_side, dealt), names, scatter_dimension=0, tiled=True)
        share = jax.lax.axis_index(names)
        for k, scale in enumerate(beside):
            mine = work(operation.factor, mine, dealt, k, share, grams[0].dtype, scale)
        found = unpack(jax.lax.all_gather(mine, names, tiled=True), dealt, counts)
    factors = {i: factor for own, done in zip(members, found, strict=True) for i, factor in zip(own, done, strict=True)}
    return [factors[i] for i in range(len(grams))]


def _to_columns(stacks: Sequence[Array], kinds: Sequence[Kind], deal: Deal, wire_dtype: np.dtype | None) -> list[Array]:
    """Blocks (count, m block, n block) of every kind -> this share's columns, (count, m, columns)."""
    cut = []
    for x, kind in zip(stacks, kinds, strict=True):
        sharing, columns = deal.part(kind)
        here = sharing * columns // deal.replicas
        x = jnp.pad(x, ((0, 0), (0, 0), (0, sharing * columns - x.shape[-1])))
        if deal.replicas > 1:
            x = jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(deal.bundle.replicas) * here, here, axis=-1)
        cut.append(jnp.moveaxis(x.reshape(*x.shape[:-1], here // columns, columns), -2, 0))
    turned = _turn(cut, kinds, wire_dtype)  # (blocks of rows, count, m block, columns)
    return [jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1, x.shape[-1]) for x in turned]


def _from_columns(
    parts: Sequence[Array], kinds: Sequence[Kind], deal: Deal, wire_dtype: np.dtype | None
) -> list[Array]:
    """The inverse of :func:`_to_columns`."""
    cut = []
    for x, kind in zip(parts, kinds, strict=True):
        m = deal.block(kind)[0]
        cut.append(jnp.moveaxis(x.reshape(x.shape[0], -1, m, x.shape[-1]), 1, 0))
    turned = _turn(cut, kinds, wire_dtype)  # (blocks of columns, count, m block, columns)
    blocks = [jnp.moveaxis(x, 0, -2).reshape(*x.shape[1:3], -1) for x in turned]
    if deal.replicas > 1:
        dtype = parts[0].dtype
        flat = _flat(blocks).astype(wire_dtype or dtype)
        copies = jax.lax.all_gather(flat, deal.bundle.replicas).astype(dtype)
        each = [jnp.stack(of_kind) for of_kind in zip(*(_each_shape(row, blocks) for row in copies), strict=True)]
        blocks = [jnp.moveaxis(x, 0, -2).reshape(*x.shape[1:3], -1) for x in each]
    return [x[..., : deal.block(kind)[1]] for x, kind in zip(blocks, kinds, strict=True)]


def _turn(cut: Sequence[Array], kinds: Sequence[Kind], wire_dtype: np.dtype | None) -> list[Array]:
    """Entry i along the first axis goes to device i along the axes that cut a kind's rows: one exchange for each."""
    turned = list(cut)
    for rows in dict.fromkeys(kind.rows for kind in kinds if kind.rows):
        own = [i for i, kind in enumerate(kinds) if kind.rows == rows]
        dtype = cut[own[0]].dtype
        sent = jnp.concatenate([cut[i].reshape(cut[i].shape[0], -1) for i in own], axis=1)
        received = all_to_all(sent.astype(wire_dtype or dtype), rows).astype(dtype)
        ends = np.cumsum([math.prod(cut[i].shape[1:]) for i in own])[:-1]
        for i, part in zip(own, jnp.split(received, ends, axis=1), strict=True):
            turned[i] = part.reshape(cut[i].shape)
    return turned


def _flat(arrays: Sequence[Array]) -> Array:
    return jnp.concatenate([array.reshape(-1) for array in arrays])


def _each_shape(flat: Array, like: Sequence[Array]) -> list[Array]:
    ends = np.cumsum([array.size for array in like])[:-1]
    return [part.reshape(array.shape) for part, array in zip(jnp.split(flat, ends), like, strict=True)]
