"""The exchange: blocks of matrices in, whole matrices on the device that works on them, blocks of the results out.

A device packs its blocks of all matrices into one row for every share, a first all-to-all delivers the rows, each share
works on its own matrices where they stand in the buffer, and a second all-to-all brings the blocks back. Who gets what
is planned in :mod:`jaxopt_tour.matrices.shares`.

The order in which rows and columns of a matrix are put together is that of the devices, not always that of the
parameter (a layout may split the minor one of two flattened axes). ``P orthogonalize(X) Q = orthogonalize(P X Q)`` for
permutations P and Q, so nothing depends on it.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_tour._types import Array
from jaxopt_tour.matrices.shares import Deal, Kind, Names
from jaxopt_tour.matrices.stacking import matrices_at_once


def exchange(function: Callable[[Array], Array], sent: Array, deal: Deal, dtype: np.dtype) -> Array:
    """The blocks for every share (shares, length) in, the blocks of the results out, in the same places."""
    bundle, length = deal.bundle, deal.length
    mine = sent.reshape(deal.replicas, deal.exchanged, length)
    share = jnp.int32(0)
    if bundle.replicas:
        replica = jax.lax.axis_index(bundle.replicas)
        mine = jax.lax.dynamic_index_in_dim(mine, replica, keepdims=False)
        share = replica * deal.exchanged
    buffer = mine.reshape(deal.exchanged, length)
    if bundle.exchange:
        share += jax.lax.axis_index(bundle.exchange)
        buffer = all_to_all(buffer, bundle.exchange)  # a row for every block of a matrix
    if bundle.gather:
        buffer = jax.lax.all_gather(buffer, bundle.gather).reshape(-1, length)
    for k, kind in enumerate(deal.kinds):
        buffer = work(functools.partial(apply_to_whole, function, kind=kind), buffer, deal, k, share, dtype)
    if bundle.gather:
        buffer = buffer.reshape(-1, deal.exchanged, length)
        buffer = jax.lax.dynamic_index_in_dim(buffer, jax.lax.axis_index(bundle.gather), keepdims=False)
    if bundle.exchange:
        buffer = all_to_all(buffer, bundle.exchange)
    if bundle.replicas:
        buffer = jax.lax.all_gather(buffer, bundle.replicas)
    return buffer.reshape(deal.shares, length)


def all_to_all(buffer: Array, axes: Names) -> Array:
    """Row i goes to device i. Half precision travels as integers: XLA:CPU would widen it on the way."""
    if buffer.dtype.itemsize != 2:
        return jax.lax.all_to_all(buffer, axes, 0, 0, tiled=True)
    bits = jax.lax.bitcast_convert_type(buffer, jnp.uint16)
    return jax.lax.bitcast_convert_type(jax.lax.all_to_all(bits, axes, 0, 0, tiled=True), buffer.dtype)


def work(
    function: Callable[..., Array],
    buffer: Array,
    deal: Deal,
    k: int,
    share: Array,
    dtype: np.dtype,
    of_each: Array | None = None,
) -> Array:
    """One share's matrices of kind k, each read from the buffer and written back to where it was.

    No device does more than its share: the number of rounds is its own. ``of_each`` has an entry for every matrix of
    the kind, which the function gets beside it.
    """
    kind, size = deal.kinds[k], deal.block_size(k)
    together, apart = whole_and_blocks(kind, deal)
    table, extra = deal.offsets[k], deal.extra[:, k]
    most = table.shape[1]
    if not most:
        return buffer
    count: Array | int = int(deal.even[k])
    if extra.any():
        count = count + jnp.asarray(extra, jnp.int32)[share]
    each = None if of_each is None else of_each[jnp.asarray(deal.numbers[k])[share]]
    places = jnp.asarray(table[0]) if (table == table[0]).all() else jnp.asarray(table)[share]
    at_once = min(matrices_at_once(kind.m, kind.n, dtype.itemsize, jax.default_backend()), most)

    def block(buffer: Array, place: Array) -> Array:
        return jax.lax.dynamic_slice(buffer, (jnp.int32(0), place), (buffer.shape[0], size))

    def one_round(number: Array | int, buffer: Array) -> Array:
        slots = number * at_once + jnp.arange(at_once)
        at = places[jnp.minimum(slots, most - 1)]
        x = jax.vmap(lambda place: together(block(buffer, place)))(at).astype(dtype)  # (at_once, m, n)
        beside = () if each is None else (each[jnp.minimum(slots, most - 1)],)
        y = jax.vmap(apart)(function(x, *beside).astype(buffer.dtype))

        def put(i: Array | int, buffer: Array) -> Array:
            # A slot beyond the count points at a matrix that is another slot's.
            new = jnp.where(slots[i] < count, y[i], block(buffer, at[i])) if most % at_once or extra.any() else y[i]
            return jax.lax.dynamic_update_slice(buffer, new, (jnp.int32(0), at[i]))

        return put(0, buffer) if at_once == 1 else jax.lax.fori_loop(0, at_once, put, buffer)

    if most == at_once:
        return one_round(0, buffer)
    return jax.lax.fori_loop(0, (count + at_once - 1) // at_once, one_round, buffer)


def whole_and_blocks(kind: Kind, deal: Deal) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    """Two functions: blocks (parts, size of a block) -> the matrix (m, n), and back."""
    m, n = deal.block(kind)
    axes = deal.bundle.gather + deal.bundle.exchange  # in the order in which the parts arrive
    order = [axes.index(name) for name in kind.rows] + [len(axes)]
    order += [axes.index(name) for name in kind.columns] + [len(axes) + 1]
    lengths = [deal.sizes[name] for name in axes] + [m, n]
    back = sorted(range(len(order)), key=order.__getitem__)

    def together(blocks: Array) -> Array:
        return blocks.reshape(lengths).transpose(order).reshape(kind.m, kind.n)

    def apart(matrix: Array) -> Array:
        return matrix.reshape([lengths[i] for i in order]).transpose(back).reshape(-1, m * n)

    return together, apart


def apply_to_whole(function: Callable[[Array], Array], x: Array, kind: Kind) -> Array:
    """The function on whole matrices (count, m, n), cut first where the kind says so."""
    if kind.split is None:
        return function(x)
    ends = np.cumsum(kind.split)
    parts = [x[..., end - width : end] for end, width in zip(ends, kind.split, strict=True)]
    return jnp.concatenate(
        [function(part.mT).mT if part.shape[-2] > part.shape[-1] else function(part) for part in parts], axis=-1
    )


def pack(pieces: Sequence[Sequence[Array]], deal: Deal) -> Array:
    """Blocks (count, m block, n block) of every kind, in pieces -> (shares, length): what goes to each share, in a row.

    Every block is copied once, from where it is to its place in the row: no stack of a kind is made on the way.
    """
    parts: list[Array] = []
    for row in deal.rows:
        filled = 0
        for k, first, last in row:
            parts += [part.reshape(-1) for part in _between(pieces[k], first, last)]
            filled += (last - first) * deal.block_size(k)
        if filled < deal.length:
            parts.append(jnp.zeros(deal.length - filled, pieces[0][0].dtype))
    return jnp.concatenate(parts).reshape(deal.shares, deal.length)


def _between(pieces: Sequence[Array], first: int, last: int) -> list[Array]:
    """Matrices first, ..., last - 1 of some pieces that stand one after the other."""
    found, start = [], 0
    for piece in pieces:
        lower, upper = max(first - start, 0), min(last - start, piece.shape[0])
        if lower < upper:
            found.append(piece[lower:upper])
        start += piece.shape[0]
    return found


def unpack(rows: Array, deal: Deal, counts: Sequence[Sequence[int]]) -> list[list[Array]]:
    """The inverse of :func:`pack`, given how many matrices every piece of every kind has."""
    runs: list[list[tuple[int, Array]]] = [[] for _ in deal.kinds]  # the number of the first, and the blocks
    for d, row in enumerate(deal.rows):
        at = 0
        for k, first, last in row:
            width = (last - first) * deal.block_size(k)
            blocks = rows[d, at : at + width].reshape(-1, *deal.block(deal.kinds[k]))
            runs[k].append((first, blocks))
            at += width
    found = []
    for of_kind, own in zip(runs, counts, strict=True):
        in_order = [blocks for _, blocks in sorted(of_kind, key=lambda run: run[0])]
        edges = itertools.accumulate(own, initial=0)
        cut = [_between(in_order, first, last) for first, last in itertools.pairwise(edges)]
        found.append([parts[0] if len(parts) == 1 else jnp.concatenate(parts) for parts in cut])
    return found
