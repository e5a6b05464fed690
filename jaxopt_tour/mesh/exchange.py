"""The exchange: blocks of matrices in, whole matrices on the device that works on them, blocks of the results out.

A device packs its blocks of all matrices into one row per device. A first all-to-all delivers the rows, each device
works on its own matrices where they are in the buffer, and a second all-to-all returns the blocks. Which device works
on what is planned in `assignment`.

A device holds `1 / N` of every matrix and sends `(N - 1) / N` of that, twice: `2 (N - 1) / N^2` of all bytes.
That is the floor for whole matrices.

Rows and columns of a matrix are put together in the order of the devices, not always in that of the parameter (a layout
may shard the minor one of two flattened axes). `P orthogonalize(X) Q = orthogonalize(P X Q)` for permutations P and
Q, so the result does not depend on it. Only a fan-out that is split on arrival is put in order first.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_tour._types import Array, DTypeLike
from jaxopt_tour.mesh.assignment import Assignment, Member, Names, ShardedGroup
from jaxopt_tour.mesh.plan import Exchange
from jaxopt_tour.orthogonalization.plan import Iteration, Key, at_once
from jaxopt_tour.orthogonalization.run import iterate


def run_exchange(
    plan: Exchange, pieces: Mapping[Key, Array], eps: Array | float, wire_dtype: DTypeLike | None
) -> dict[Key, Array]:
    """Orthogonalize the matrices of one exchange; pieces are what this device stores of each, as it stores it."""
    assignment = plan.assignment
    by_group = [[member for member in assignment.members if member.group == group] for group in assignment.groups]
    stored = [[_wide(pieces[member.key], member) for member in members] for members in by_group]
    dtype = jnp.dtype(assignment.dtype)
    buffer = _send(pack(stored, assignment).astype(wire_dtype or dtype), assignment)
    for k in range(len(assignment.groups)):
        buffer = _work(plan, k, buffer, eps, dtype)
    counts = [[member.local for member in members] for members in by_group]
    returned = unpack(_send_back(buffer, assignment), assignment, counts)
    return {
        member.key: _wide(blocks.astype(dtype), member)
        for members, of_group in zip(by_group, returned, strict=True)
        for member, blocks in zip(members, of_group, strict=True)
    }


def _wide(blocks: Array, member: Member) -> Array:
    return blocks.mT if member.transposed else blocks


def _send(rows: Array, assignment: Assignment) -> Array:
    """Rows for all devices (devices, length) in, this device's matrices out: a row for every block of a matrix."""
    axes, length = assignment.axes, assignment.length
    buffer = rows.reshape(assignment.replicas, assignment.exchanged, length)
    if axes.replicas:
        buffer = jax.lax.dynamic_index_in_dim(buffer, jax.lax.axis_index(axes.replicas), keepdims=False)
    buffer = buffer.reshape(assignment.exchanged, length)
    if axes.exchange:
        buffer = all_to_all(buffer, axes.exchange)
    if axes.gather:
        buffer = jax.lax.all_gather(buffer, axes.gather).reshape(-1, length)
    return buffer


def _send_back(buffer: Array, assignment: Assignment) -> Array:
    """The inverse of `_send`."""
    axes, length = assignment.axes, assignment.length
    if axes.gather:
        buffer = buffer.reshape(-1, assignment.exchanged, length)
        buffer = jax.lax.dynamic_index_in_dim(buffer, jax.lax.axis_index(axes.gather), keepdims=False)
    if axes.exchange:
        buffer = all_to_all(buffer, axes.exchange)
    if axes.replicas:
        buffer = jax.lax.all_gather(buffer, axes.replicas)
    return buffer.reshape(assignment.devices, length)


def all_to_all(buffer: Array, axes: Names) -> Array:
    """Row i goes to device i. Half precision travels as integers: XLA:CPU would widen it on the way."""
    if buffer.dtype.itemsize != 2:
        return jax.lax.all_to_all(buffer, axes, 0, 0, tiled=True)
    bits = jax.lax.bitcast_convert_type(buffer, jnp.uint16)
    return jax.lax.bitcast_convert_type(jax.lax.all_to_all(bits, axes, 0, 0, tiled=True), buffer.dtype)


def _work(plan: Exchange, k: int, buffer: Array, eps: Array | float, dtype: np.dtype) -> Array:
    """This device's matrices of group k, each read from the buffer and written back to where it was.

    Every device makes as many rounds as it has matrices. With 5 matrices on 2 devices: 3 rounds on one, 2 on the other.
    """
    assignment, iterations = plan.assignment, plan.iterations[k]
    group, size = assignment.groups[k], assignment.block_sizes[k]
    together, into_blocks = _whole_and_blocks(group, assignment)
    table, extra = assignment.offsets[k], np.asarray([row[k] for row in assignment.extra])
    most = table.shape[1]
    if not most:
        return buffer
    device = _device_number(assignment)
    count: Array | int = assignment.even[k]
    if extra.any():
        count = count + jnp.asarray(extra, jnp.int32)[device]
    places = jnp.asarray(table[0]) if (table == table[0]).all() else jnp.asarray(table)[device]
    batch = min(at_once(plan.slice_bytes, group.m, group.n, dtype.itemsize), most)

    def block(buffer: Array, place: Array) -> Array:
        return jax.lax.dynamic_slice(buffer, (jnp.int32(0), place), (buffer.shape[0], size))

    def one_round(number: Array | int, buffer: Array) -> Array:
        slots = number * batch + jnp.arange(batch)
        at = places[jnp.minimum(slots, most - 1)]
        x = jax.vmap(lambda place: together(block(buffer, place)))(at).astype(dtype)  # (batch, m, n)
        y = jax.vmap(into_blocks)(iterate_whole(x, group, iterations, eps).astype(buffer.dtype))

        def put(i: Array | int, buffer: Array) -> Array:
            # A slot beyond the count points at a matrix that is another slot's.
            new = jnp.where(slots[i] < count, y[i], block(buffer, at[i])) if most % batch or extra.any() else y[i]
            return jax.lax.dynamic_update_slice(buffer, new, (jnp.int32(0), at[i]))

        return put(0, buffer) if batch == 1 else jax.lax.fori_loop(0, batch, put, buffer)

    if most == batch:
        return one_round(0, buffer)
    return jax.lax.fori_loop(0, (count + batch - 1) // batch, one_round, buffer)


def iterate_whole(x: Array, group: ShardedGroup, iterations: Sequence[Iteration], eps: Array | float) -> Array:
    """Orthogonalize whole matrices (batch, m, n), split first where the group says so."""
    if group.split is None:
        return iterate(x, iterations[0], eps)
    into_order, back = _column_orders(group)
    x, ends = x[..., into_order], np.cumsum(group.split)
    parts = [x[..., end - width : end] for end, width in zip(ends, group.split, strict=True)]
    done = [iterate(part, iteration, eps) for part, iteration in zip(parts, iterations, strict=True)]
    return jnp.concatenate(done, axis=-1)[..., back]


def _column_orders(group: ShardedGroup) -> tuple[np.ndarray | slice, np.ndarray | slice]:
    """Two indices of the columns: from the order of arrival to the order of fan-out, and back.

    Of a fan-out (6 heads, 16) whose second dimension is sharded over 8 devices, columns arrive as (8, 6, 2) and become
    (6, 8, 2).
    """
    rank = len(group.blocks)
    if sum(devices > 1 for devices, _ in group.blocks[1:]) == 0:
        return slice(None), slice(None)
    arrival = [devices for devices, _ in group.blocks] + [length for _, length in group.blocks]
    order = [i for dimension in range(rank) for i in (dimension, rank + dimension)]
    into_order = np.arange(group.n).reshape(arrival).transpose(order).reshape(-1)
    return into_order, np.argsort(into_order)


def _device_number(assignment: Assignment) -> Array:
    """Of this device among those that share the work, replica axes first."""
    number, axes = jnp.int32(0), assignment.axes
    if axes.replicas:
        number = jax.lax.axis_index(axes.replicas) * assignment.exchanged
    return number + jax.lax.axis_index(axes.exchange) if axes.exchange else number


def _whole_and_blocks(
    group: ShardedGroup, assignment: Assignment
) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    """Two functions: blocks (number, size of a block) -> the matrix (m, n), and back.

    Eight devices with a block (8, 32) each of a (64, 32) matrix sharded along rows: (8, 256) -> (64, 32).
    """
    m, n = assignment.block(group)
    sizes = dict(assignment.sizes)
    axes = assignment.axes.gather + assignment.axes.exchange  # in the order in which the blocks arrive
    order = [axes.index(name) for name in group.rows] + [len(axes)]
    order += [axes.index(name) for name in group.columns] + [len(axes) + 1]
    lengths = [sizes[name] for name in axes] + [m, n]
    back = sorted(range(len(order)), key=order.__getitem__)

    def together(blocks: Array) -> Array:
        return blocks.reshape(lengths).transpose(order).reshape(group.m, group.n)

    def into_blocks(matrix: Array) -> Array:
        return matrix.reshape([lengths[i] for i in order]).transpose(back).reshape(-1, m * n)

    return together, into_blocks


def pack(stored: Sequence[Sequence[Array]], assignment: Assignment) -> Array:
    """Blocks (count, m block, n block) of every group, in members -> (devices, length): a row for each device.

    Every block is copied once, from where it is to its place in the row: no stack of a group is made on the way.
    """
    parts: list[Array] = []
    for row in assignment.runs:
        filled = 0
        for k, first, last in row:
            parts += [part.reshape(-1) for part in _between(stored[k], first, last)]
            filled += (last - first) * assignment.block_sizes[k]
        if filled < assignment.length:
            parts.append(jnp.zeros(assignment.length - filled, stored[0][0].dtype))
    return jnp.concatenate(parts).reshape(assignment.devices, assignment.length)


def _between(batches: Sequence[Array], first: int, last: int) -> list[Array]:
    """Matrices first, ..., last - 1 of batches that follow each other."""
    parts, start = [], 0
    for batch in batches:
        lower, upper = max(first - start, 0), min(last - start, batch.shape[0])
        if lower < upper:
            parts.append(batch[lower:upper])
        start += batch.shape[0]
    return parts


def unpack(rows: Array, assignment: Assignment, counts: Sequence[Sequence[int]]) -> list[list[Array]]:
    """The inverse of `pack`, given the number of matrices of every member of every group."""
    runs: list[list[tuple[int, Array]]] = [[] for _ in assignment.groups]  # the number of the first, and the blocks
    for d, row in enumerate(assignment.runs):
        at = 0
        for k, first, last in row:
            width = (last - first) * assignment.block_sizes[k]
            blocks = rows[d, at : at + width].reshape(-1, *assignment.block(assignment.groups[k]))
            runs[k].append((first, blocks))
            at += width
    unpacked = []
    for of_group, lengths in zip(runs, counts, strict=True):
        in_order = [blocks for _, blocks in sorted(of_group, key=lambda run: run[0])]
        edges = itertools.accumulate(lengths, initial=0)
        parts = [_between(in_order, first, last) for first, last in itertools.pairwise(edges)]
        unpacked.append([part[0] if len(part) == 1 else jnp.concatenate(part) for part in parts])
    return unpacked
