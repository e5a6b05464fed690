"""Execution of a plan for one device: groups in, groups out. Nothing is decided here.

A group of Gram matrices takes four steps: scale every piece, stack the Gram matrices of all pieces, compute the factors
of the stack, multiply every piece by its factor. A group of matrices is stacked, iterated on and cut again. Both
work on a slice of the stack at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_tour._types import Array, Float, Tree
from jaxopt_tour.orthogonalization.gram import apply_factor, factor, gram_form, gram_matrix
from jaxopt_tour.orthogonalization.newton_schulz import standard_form
from jaxopt_tour.orthogonalization.plan import Group, Iteration, Key, Platform, at_once
from jaxopt_tour.orthogonalization.prescale import eps_in_units, near_unit, unit_scale
from jaxopt_tour.orthogonalization.svd import polar_factor


def run_groups(groups: Sequence[Group], pieces: Mapping[Key, Array], eps: Array | float) -> dict[Key, Array]:
    """Orthogonalize every matrix of some groups.

    Args:
        groups: what is processed together, and how.
        pieces: batches (batch, rows, columns) by key.
        eps: added to the prescaling norm, in the units of the matrices.

    Returns:
        The pieces with every matrix replaced.
    """
    results: dict[Key, Array] = {}
    for group in groups:
        batches = [pieces[key] for key, _ in group.members]
        run = _on_gram_matrices if group.stacked == "gram matrices" else _on_matrices
        results |= zip((key for key, _ in group.members), run(group, batches, eps), strict=True)
    return results


def iterate(x: Float[Array, "*batch m n"], iteration: Iteration, eps: Array | float) -> Array:
    """Orthogonalize matrices of one shape, wide or tall, all at once."""
    if iteration.form == "exact":
        return polar_factor(x)
    tall = x.shape[-2] > x.shape[-1]
    wide = x.mT if tall else x
    scale = unit_scale(wide)
    unit, eps = near_unit(wide, scale, iteration.dtype), eps_in_units(eps, scale)
    form = standard_form if iteration.form == "standard" else gram_form
    result = form(unit, iteration, eps)
    return (result.mT if tall else result).astype(x.dtype)


def on_lowered_platform(plans: Mapping[Platform, Any], run: Callable[..., Tree], *arrays: Array) -> Tree:
    """`run(plan, *arrays)` with the plan of the platform that the program is lowered for.

    The platform is known once the program is lowered: `jax.export` for several platforms gets the plan of each, and a
    program for a device other than the first gets that device's.
    """
    functions = [functools.partial(run, plan) for plan in plans.values()]
    cpu, gpu, tpu = (
        functions[next(i for i, other in enumerate(plans.values()) if other == plans[platform])]
        for platform in ("cpu", "gpu", "tpu")
    )
    if cpu is gpu is tpu:
        return cpu(*arrays)
    # A platform without a plan of its own gets the TPU's: bfloat16 in the standard form, which is stable everywhere.
    return jax.lax.platform_dependent(*arrays, cpu=cpu, cuda=gpu, rocm=gpu, default=tpu)


def over_slices(slice_bytes: int, function: Callable[..., Array], *stacks: Array) -> Array:
    """`function(*stacks)`, as many matrices at a time as a slice holds."""
    count, m, n = max((stack.shape for stack in stacks), key=lambda shape: shape[-1] * shape[-2])
    size = at_once(slice_bytes, m, n, stacks[0].dtype.itemsize)
    if count <= size or any(stack.size == 0 for stack in stacks):
        return _batched(function, *stacks)
    return jax.lax.map(lambda matrices: function(*matrices), stacks, batch_size=None if size == 1 else size)


def _batched(function: Callable[..., Array], *stacks: Array) -> Array:
    """`function(*stacks)`. Without a batch axis of one XLA:CPU reads a factor to be transposed where it is stored."""
    return function(*(stack[0] for stack in stacks))[None] if stacks[0].shape[0] == 1 else function(*stacks)


def _on_gram_matrices(group: Group, batches: Sequence[Array], eps: Array | float) -> list[Array]:
    """For batches (12, 768, 3072), (12, 3072, 768): one stack (24, 768, 768) of Gram matrices and of factors.

    Only the factors take slices: a product holds nothing besides its operands and its result.
    """
    iteration = group.iteration
    scales = [unit_scale(batch) for batch in batches]
    units = [near_unit(batch, scale, iteration.dtype) for batch, scale in zip(batches, scales, strict=True)]
    grams = [_batched(lambda x: gram_matrix(x, iteration), unit) for unit in units]
    factors = over_slices(
        group.slice_bytes, lambda gram, scale: factor(gram, scale, iteration, eps), _stack(grams), _stack(scales)
    )
    cut = _cut(factors, batches)
    return [_batched(apply_factor, q, x).astype(batch.dtype) for q, x, batch in zip(cut, units, batches, strict=True)]


def _on_matrices(group: Group, batches: Sequence[Array], eps: Array | float) -> list[Array]:
    """For batches (4, 64, 128), (2, 128, 64): one stack (6, 64, 128)."""
    tall = [batch.shape[-2] > batch.shape[-1] for batch in batches]
    wide = [batch.mT if transposed else batch for batch, transposed in zip(batches, tall, strict=True)]
    stack = over_slices(group.slice_bytes, lambda x: iterate(x, group.iteration, eps), _stack(wide))
    return [x.mT if transposed else x for x, transposed in zip(_cut(stack, wide), tall, strict=True)]


def _stack(batches: Sequence[Array]) -> Array:
    return batches[0] if len(batches) == 1 else jnp.concatenate(batches)


def _cut(stack: Array, batches: Sequence[Array]) -> Iterable[Array]:
    """The stack cut into batches as long as those given."""
    start = 0
    for batch in batches:
        yield stack[start : start + batch.shape[0]]
        start += batch.shape[0]
