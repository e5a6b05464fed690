"""The measurements of an update: sums over entries, stable ranks, and distances from orthogonality."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_tour._types import Array, Float
from jaxopt_tour.linalg.products import product
from jaxopt_tour.optimizers._numerics import abs_squared, safe_divide, widen
from jaxopt_tour.routing.axes import MatrixAxes
from jaxopt_tour.state.rounding import applied, is_half_precision

#: Steps of the power iteration; tests/state/test_measure.py holds the accuracy that the documents state for it.
POWER_ITERATIONS: Final = 8

#: Metrics that a sum over entries is enough for, in the order of the dictionary.
ENTRYWISE: Final = ("update_rms", "update_ratio", "gradient_norm", "momentum_norm", "decay_share", "vanished")
MATRIXWISE: Final = ("stable_rank", "polar_error")

#: Parameters of at most so many entries are stacked: copying them costs less than compiling a program for each.
SUMMED_TOGETHER: Final = 2**14

#: Of one parameter: gradient, update, weights, momentum, decay; None where there is none.
_Arrays = tuple[Array | None, Array | None, Array, Array | None, Array | None]


@dataclasses.dataclass(frozen=True)
class Layer:
    """What is known of one parameter before it is measured.

    Attributes:
        name: its path name.
        role: what it is, see `Route`.
        size: number of entries.
        axes: its matrices, if it is a matrix.
        orthogonalized: whether its updates are.
        has_momentum: whether the optimizer's state has a momentum for it.
    """

    name: str
    role: str
    size: int
    axes: MatrixAxes | None
    orthogonalized: bool
    has_momentum: bool

    def has(self, metric: str) -> bool:
        """Whether the metric exists for this parameter."""
        if metric == "momentum_norm":
            return self.has_momentum
        if metric == "stable_rank":
            return self.has_momentum and self.axes is not None
        return metric != "polar_error" or (self.orthogonalized and self.axes is not None)


def rows_of(layers: Sequence[Layer]) -> list[tuple[str, tuple[int, ...]]]:
    """What is measured: every parameter, every role, and all together, as label and indices of parameters.

    Labels of parameters begin with `"/"`, those of roles with `"_by_role/"`.
    """
    roles = dict.fromkeys(layer.role for layer in layers)
    by_role = [(role, tuple(i for i, layer in enumerate(layers) if layer.role == role)) for role in roles]
    return [
        *((f"/{layer.name or 'parameter'}", (i,)) for i, layer in enumerate(layers)),
        *((f"_by_role/{role.replace(' ', '_')}", members) for role, members in by_role),
        *([("_by_role/all", tuple(range(len(layers))))] if layers else []),
    ]


def keys_of(layers: Sequence[Layer], with_decay: bool) -> list[str]:
    """The keys of the dictionary, in the order of `measure`'s values."""
    return [
        metric + label
        for metric in (*ENTRYWISE, *MATRIXWISE)
        for label, members in rows_of(layers)
        if (metric != "decay_share" or with_decay) and any(layers[i].has(metric) for i in members)
    ]


def measure(
    layers: Sequence[Layer],
    gradients: Mapping[str, Array],
    updates: Mapping[str, Array],
    weights: Mapping[str, Array],
    decays: Mapping[str, Array] | None,
    momenta: Mapping[str, Array],
) -> Float[Array, " keys"]:
    """Measure an update.

    Args:
        layers: the parameters.
        gradients: what the optimizer was given, by path name; missing ones count as zero.
        updates: what it returned; missing ones count as zero.
        weights: the parameters before the update.
        decays: the part of the updates that is weight decay; None if that is not known.
        momenta: momenta after the update, for the layers that have one.

    Returns:
        The values of `keys_of`, float32.
    """
    of_layers = [
        (
            gradients.get(layer.name),
            updates.get(layer.name),
            weights[layer.name],
            momenta.get(layer.name) if layer.has_momentum else None,
            (decays or {}).get(layer.name),
        )
        for layer in layers
    ]
    table = _table(of_layers) if layers else jnp.zeros((0, 8))
    rows = rows_of(layers)
    # (parameters and roles, parameters): one where the sum of a row includes the parameter
    includes = np.zeros((len(rows), len(layers)), np.float32)
    for row, (_, members) in enumerate(rows):
        includes[row, list(members)] = 1
    # A product would turn 0 * inf of another parameter into NaN.
    table = jnp.sum(jnp.where(includes[:, :, None] > 0, table[None], 0), axis=1)
    gradient, update, weight, momentum, decay, rest, still, moving = table.T
    sizes = np.asarray([sum(layers[i].size for i in members) for _, members in rows], np.float32)
    values = {
        "update_rms": jnp.sqrt(update / np.maximum(sizes, 1)),
        "update_ratio": jnp.sqrt(safe_divide(update, weight)),
        "gradient_norm": jnp.sqrt(gradient),
        "momentum_norm": jnp.sqrt(momentum),
        "decay_share": safe_divide(jnp.sqrt(decay), jnp.sqrt(decay) + jnp.sqrt(rest)),
        "vanished": safe_divide(still, moving),
    }
    ranks = {i: _stable_ranks(layer, momenta) for i, layer in enumerate(layers) if layer.has("stable_rank")}
    errors = {i: _polar_errors(x, updates, decays or {}) for i, x in enumerate(layers) if x.has("polar_error")}
    collected = []
    for metric in ENTRYWISE:
        having = [row for row, (_, members) in enumerate(rows) if any(layers[i].has(metric) for i in members)]
        if having and (metric != "decay_share" or decays is not None):
            collected.append(values[metric][np.asarray(having)])  # one gather, where slices would be hundreds
    for of_matrices, together in ((ranks, jnp.mean), (errors, jnp.max)):
        parts = [[of_matrices[i] for i in members if i in of_matrices] for _, members in rows]
        collected += [together(jnp.concatenate(part))[None] for part in parts if part]
    return jnp.concatenate(collected).astype(jnp.float32) if collected else jnp.zeros(0, jnp.float32)


def _table(of_layers: Sequence[_Arrays]) -> Float[Array, "layers 8"]:
    """The sums of every parameter. Small ones of one shape are summed together: a transformer has hundreds."""
    groups: dict[Any, list[int]] = {}
    for i, arrays in enumerate(of_layers):
        kind = tuple(x if x is None else (x.shape, x.dtype) for x in arrays)
        groups.setdefault(kind if arrays[2].size <= SUMMED_TOGETHER else i, []).append(i)
    tables = []
    for members in groups.values():
        if len(members) == 1:
            tables.append(_sums(*of_layers[members[0]])[None])
        else:
            # (12, 768): the scales of twelve norms
            stacks = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(of_layers[i] for i in members))
            tables.append(jax.vmap(_sums)(*stacks))
    order = np.argsort([i for members in groups.values() for i in members])
    return jnp.concatenate(tables)[order]


def _sums(
    gradient: Array | None, update: Array | None, w: Array, momentum: Array | None, decay: Array | None
) -> Float[Array, " 8"]:
    """Sums over the entries of one parameter: six squares, entries that stand still, entries with an update."""
    u, d = update, decay
    squares = [None if x is None else abs_squared(widen(x)) for x in (gradient, u, w, momentum, d)]
    if u is None:
        return _sums_in_one_pass([*squares, None, None, None])
    rest = squares[1] if d is None else abs_squared(widen(u) - widen(d))
    moving = widen(u) != 0
    after = applied(w, u.astype(jnp.float32)) if is_half_precision(w) else (w + u).astype(w.dtype)
    still = moving & (after == (w.astype(jnp.float32) if is_half_precision(w) else w))
    return _sums_in_one_pass([*squares, rest, still, moving])


def _sums_in_one_pass(terms: Sequence[Array | None]) -> Float[Array, " terms"]:
    """Sum each array over all entries, where None has sum 0.

    One reduction of all terms reads each parameter once and writes nothing, where XLA:CPU would write each term to
    memory for a sum of its own. It runs along rows, whose sums are summed then: over a million entries one running sum
    in float32 is off by 1e-2.
    """
    present = [term for term in terms if term is not None]
    dtype = jnp.promote_types(jnp.result_type(*present), jnp.float32)
    present = [jnp.atleast_1d(term).astype(dtype) for term in present]

    def add(left: Sequence[Array], right: Sequence[Array]) -> list[Array]:
        return [a + b for a, b in zip(left, right, strict=True)]

    zeros = [np.zeros([], dtype)] * len(present)
    rows = jax.lax.reduce(present, zeros, add, (present[0].ndim - 1,))
    sums = iter([jnp.sum(row) for row in rows])
    return jnp.stack([jnp.zeros([], dtype) if term is None else next(sums) for term in terms]).astype(jnp.float32)


def _stable_ranks(layer: Layer, momenta: Mapping[str, Array]) -> Float[Array, " matrices"]:
    assert layer.axes is not None
    return jnp.concatenate([stable_rank(widen(part)) for part in layer.axes.to_matrices(momenta[layer.name])])


def _polar_errors(layer: Layer, updates: Mapping[str, Array], decays: Mapping[str, Array]) -> Float[Array, " matrices"]:
    assert layer.axes is not None
    if layer.name not in updates:
        return jnp.zeros(1)
    u = widen(updates[layer.name])
    if layer.name in decays:
        u = u - widen(decays[layer.name])
    return jnp.concatenate([polar_error(part) for part in layer.axes.to_matrices(u)])


def stable_rank(x: Float[Array, "batch m n"]) -> Float[Array, " batch"]:
    r"""Estimate $|X|_F^2 / |X|_2^2$ of every matrix, from above; 0 for a matrix of zeros.

    The spectral norm is $|X v|$ after `POWER_ITERATIONS` steps $v \leftarrow X^T X v$, normalized, from a fixed
    random vector. That is a lower bound, so the stable rank is an upper bound.
    """
    tiny = jnp.finfo(x.dtype).tiny
    # Vectors are divided by the largest entry, not the matrix, which would be written once more: squares neither over-
    # nor underflow.
    inverse = 1 / jnp.maximum(jnp.max(jnp.abs(x), axis=(-2, -1), keepdims=True), tiny)
    start = np.random.default_rng(0).standard_normal((1, x.shape[-1]))
    v = jnp.broadcast_to(jnp.asarray(start, x.dtype), (x.shape[0], 1, x.shape[-1]))  # rows: none needs X transposed

    def normalized(v: Array) -> Array:
        return v / jnp.maximum(jnp.linalg.norm(v, axis=(-2, -1), keepdims=True), tiny)

    def image(v: Array) -> Array:
        return product(x, (inverse * v).mT)

    def step(_: int, v: Array) -> Array:
        return normalized(product((inverse * normalized(image(v))).mT, x))

    v = jax.lax.fori_loop(0, POWER_ITERATIONS, step, normalized(v))
    return safe_divide(jnp.sum(jnp.square(inverse * x), axis=(-2, -1)), jnp.sum(jnp.square(image(v)), axis=(-2, -1)))


def polar_error(x: Float[Array, "batch m n"]) -> Float[Array, " batch"]:
    r"""Measure how far the singular values of every matrix are from equal; 0 for a matrix of zeros.

    $$
    \tfrac12 \sqrt{m |G|_F^2 / (\operatorname{tr} G)^2 - 1}, \qquad G = X X^T \text{ of size } m \le n
    $$

    It is half the relative standard deviation of the squared singular values: to first order the root mean square of
    $|\sigma_i / \bar\sigma - 1|$, whatever factor the matrix is multiplied by. If r of m singular values are equal and
    the others zero, it is $\tfrac12 \sqrt{m / r - 1}$.
    """
    x = x.mT if x.shape[-2] > x.shape[-1] else x
    m = x.shape[-2]
    x = x / jnp.maximum(jnp.max(jnp.abs(x), axis=(-2, -1), keepdims=True), jnp.finfo(x.dtype).tiny)
    gram = product(x, x.mT)
    mean = jnp.trace(gram, axis1=-2, axis2=-1) / m
    # The deviation is summed, not the squares, whose difference would lose half of the digits.
    deviation = safe_divide(gram, mean[:, None, None]) - jnp.eye(m, dtype=x.dtype)
    return jnp.where(mean == 0, 0, 0.5 * jnp.sqrt(jnp.sum(jnp.square(deviation), axis=(-2, -1)) / m))
