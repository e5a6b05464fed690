"""Routing by name and shape: the role of a parameter from the parameter tree alone.

The names of axes are asked first, where a framework stores them. Then come shapes: which axis all parameters of a
module share (layers), what a bias says of fan-out, what embeddings and norms say of the model's width. Names come last,
from lists of what they may mean. A matrix also needs evidence that it is no head (`outputs.py`).
Where this leaves two readings or none, the role is "not understood", the parameter goes to the optimizer for the rest,
and the reason says why. Routing by use (`trace`) does not depend on names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp

from jaxopt_tour._trees import named_leaves
from jaxopt_tour._types import Tree
from jaxopt_tour.routing.axes import MatrixAxes
from jaxopt_tour.routing.by_name.axis_names import axis_names, route_from_names, trusted_width
from jaxopt_tour.routing.by_name.experts import batch_axes
from jaxopt_tour.routing.by_name.heads import heads_of
from jaxopt_tour.routing.by_name.layers import without_layers
from jaxopt_tour.routing.by_name.leaves import Leaf, lookup_role, vector_reason
from jaxopt_tour.routing.by_name.outputs import may_be_output
from jaxopt_tour.routing.by_name.readings import Evidence, evidence_of, read
from jaxopt_tour.routing.route import Route, Routes


@dataclasses.dataclass(frozen=True)
class ByName:
    """Routing by name and shape, with its options; `ByName()` is the default of `muon`.

    Args:
        split_heads: whether every attention head of a query, key, value or output kernel is a separate matrix. By
            default all heads are one matrix: the fan-out of (in, heads, head_dim) is heads times head_dim.
        split_fused: whether the parts of a fused projection (`qkv`, `gate_up`) are separate matrices.
    """

    split_heads: bool = False
    split_fused: bool = False

    def routes(self, params: Tree) -> Routes:
        """Return the route of every parameter of a tree."""
        whole = {
            name: Leaf(name, tuple(leaf.shape), leaf.dtype, tuple(range(len(leaf.shape))))
            for name, leaf in named_leaves(params).items()
        }
        leaves = without_layers(whole)
        evidence, heads = evidence_of(leaves), heads_of(leaves)
        routes = {name: self._route(leaf, whole[name], evidence, heads) for name, leaf in leaves.items()}
        if not self.split_heads and not self.split_fused:  # names of axes say nothing of parts
            names = axis_names(params)
            width = trusted_width(names, {name: leaf.shape for name, leaf in whole.items()})
            named = {name: route_from_names(name, leaf.shape, names, width) for name, leaf in whole.items()}
            routes |= {name: _agreed(route, routes[name]) for name, route in named.items() if route is not None}
        return Routes(routes)

    def _route(self, leaf: Leaf, whole: Leaf, evidence: Evidence, heads: Mapping[str, str]) -> Route:
        """Apply the rules in order; the first that matches decides."""
        if not whole.shape:
            return Route("scalar", None, "a scalar")
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return Route("not understood", None, f"{leaf.dtype} entries: only real matrices are orthogonalized")
        if len(leaf.shape) == 1:
            return Route("vector", None, ", ".join(filter(None, ("one axis", leaf.layers))))
        vector = vector_reason(leaf, evidence.leaves)
        if vector:
            return Route("vector", None, vector)
        role = lookup_role(leaf)
        if role:
            return Route(role, None, f"named {leaf.short_path}: {role}")
        if leaf.name in heads:
            return Route("head", None, heads[leaf.name])
        if leaf.unclear:
            return Route("not understood", None, f"{leaf.unclear}: give axes, or route by use")
        batch, batch_reason = batch_axes(leaf, evidence.leaves)
        axes, matrix_role, reason = read(leaf, batch, evidence, self.split_heads, self.split_fused)
        reason = ", ".join(part for part in (reason, leaf.layers, batch_reason) if part)
        if axes is None:
            return Route(matrix_role, None, reason)
        fan_in, fan_out = (tuple(leaf.axes[axis] for axis in side) for side in (axes.fan_in, axes.fan_out))
        axes = MatrixAxes(fan_in, fan_out, axes.split)
        _, rows, columns = axes.matrix_shapes(whole.shape)[0]
        if 0 in whole.shape or min(rows, columns) == 1:
            return Route("vector", None, f"{rows} x {columns}: a vector, {reason}")
        if len(leaf.shape) == 2 and not batch and may_be_output(leaf, rows, columns, evidence.leaves, evidence.widths):
            return Route("not understood", None, f"{reason}, but nothing says that it is no head: route by use")
        return Route("matrix", axes, reason)


def _agreed(named: Route, shaped: Route) -> Route:
    """The route by names of axes, unless shapes say something else; these decide over a head that names do not show."""
    if named.role != "matrix":
        return named
    if shaped.role in ("scalar", "vector", "head", "embedding", "position", "depthwise"):
        return shaped
    if shaped.role == "matrix" and named.axes != shaped.axes:
        return Route("not understood", None, f"{named.reason}, but {shaped.reason}: give axes, or route by use")
    return named


def routes_by_name(params: Tree) -> Routes:
    """Return the route of every parameter by its name and shape: `ByName().routes(params)`."""
    return ByName().routes(params)
