"""Execution of a plan for the matrices of a model, on one device or on a mesh.

A plan has groups, which every device processes without communication, and on a mesh exchanges as well
(`exchange`). The layouts of the parameters come from one of four places:

* no mesh: nothing travels;
* Explicit axes, and arrays outside `jit`: from the arrays;
* Auto axes under `jit`: from XLA's partitioner (`partitioner`);
* inside `jax.shard_map`: from the caller, `OnMesh(..., layouts=)`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec

from jaxopt_tour._types import Array
from jaxopt_tour.mesh.assignment import Layout, whole_view
from jaxopt_tour.mesh.exchange import run_exchange
from jaxopt_tour.mesh.layouts import (
    axis_types,
    check_one_mesh,
    explicit_axes,
    gathered,
    given_layouts,
    kind_of_axes,
    laid_like,
    layout_of,
    mesh_of,
    spec_of,
)
from jaxopt_tour.mesh.layouts import whole_shapes as shapes_of_whole
from jaxopt_tour.mesh.on_mesh import OnMesh
from jaxopt_tour.mesh.partitioner import partitioned
from jaxopt_tour.mesh.plan import MatrixPlan, plan_matrices
from jaxopt_tour.orthogonalization.orthogonalizer import Orthogonalizer
from jaxopt_tour.orthogonalization.plan import PLATFORMS, Key, Platform
from jaxopt_tour.orthogonalization.run import on_lowered_platform, run_groups
from jaxopt_tour.routing.axes import MatrixAxes


def orthogonalize_parameters(
    orthogonalizer: Orthogonalizer,
    leaves: Mapping[str, Array],
    views: Mapping[str, MatrixAxes],
    on_mesh: OnMesh | None = None,
) -> dict[str, Array]:
    """Orthogonalize all matrices of some parameters.

    Args:
        orthogonalizer: what is done to each matrix.
        leaves: parameters by path name.
        views: how each is seen as matrices.
        on_mesh: the mesh axes whose devices share the work. None: the Explicit axes that shard the parameters; Auto
            ones leave the work to the partitioner.

    Returns:
        The parameters with every matrix replaced, sharded as they were.

    Raises:
        ValueError: the mesh has no such axis, or a layout does not fit its parameter or the mesh.
    """
    leaves = dict(leaves)
    if not leaves:
        return {}
    axes = explicit_axes(leaves.values()) if on_mesh is None else on_mesh.axes
    layouts, wire_dtype = (None, None) if on_mesh is None else (on_mesh.layouts, on_mesh.wire_dtype)
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in leaves.values())
    mesh: Any = mesh_of(leaves.values()) if axes else None
    eps_is_array = not orthogonalizer.fixed_eps
    work = _Work(
        dataclasses.replace(orthogonalizer, eps=0.0) if eps_is_array else orthogonalizer,
        eps_is_array,
        tuple(leaves),
        tuple(views[name] for name in leaves),
        axes,
        None if wire_dtype is None else str(wire_dtype),
    )
    arrays = [*leaves.values(), *([jnp.asarray(orthogonalizer.eps)] if eps_is_array else [])]
    if not axes or (mesh is None and not traced):
        return work.named(work.run(*arrays) if traced else _compiled(work, *arrays))
    # Under jit the partitioner knows the mesh where nothing else does.
    kind = AxisType.Auto if mesh is None else kind_of_axes(mesh, axes)
    if kind == AxisType.Manual and mesh is not None:
        sizes = {name: mesh.shape[name] for name, kind in axis_types(mesh).items() if kind == AxisType.Manual}
        known = given_layouts(layouts, leaves, sizes)
        whole = shapes_of_whole(leaves, layouts)
        return work.named(work.run(*arrays, shapes=whole, layouts=known, sizes=sizes))
    if kind == AxisType.Explicit or not traced:
        check_one_mesh(leaves, mesh)
        of_leaves = tuple(layout_of(leaf) for leaf in leaves.values())
        return work.named((_Work.run_on_mesh if traced else _compiled_on_mesh)(work, mesh, of_leaves, *arrays))
    return work.named(partitioned(work.run, work.run, list(leaves), arrays, axes))


def run_plan(
    plan: MatrixPlan, views: Mapping[str, MatrixAxes], leaves: Mapping[str, Array], eps: Array | float
) -> dict[str, Array]:
    """Execute a plan: what one device does. Its shards of all parameters in, the same shards of the results out.

    Args:
        plan: groups and exchanges.
        views: how each parameter is seen as matrices.
        leaves: parameters, or this device's shards of them.
        eps: added to the prescaling norm.
    """
    late = {
        member.key.name for exchange in plan.exchanges for member in exchange.assignment.members if member.group.split
    }
    views = {name: whole_view(view) if name in late else view for name, view in views.items()}
    pieces = {
        Key(name, number): matrices
        for name, leaf in leaves.items()
        if leaf.size
        for number, matrices in enumerate(views[name].to_matrices(leaf))
    }
    results = run_groups(plan.groups, pieces, eps)
    for exchange in plan.exchanges:
        results |= run_exchange(exchange, pieces, eps, plan.wire_dtype)
    done: dict[str, list[Array]] = {}
    for key in pieces:
        done.setdefault(key.name, []).append(results[key])
    return {
        name: views[name].from_matrices(done[name], leaf.shape) if name in done else leaf
        for name, leaf in leaves.items()
    }


@dataclass(frozen=True)
class _Work:
    """What is to be done, without the arrays: hashable, so that eager calls find their compiled program again."""

    orthogonalizer: Orthogonalizer
    eps_is_array: bool  # the last array is eps; the orthogonalizer's counts otherwise
    names: tuple[str, ...]
    views: tuple[MatrixAxes, ...]
    mesh_axes: tuple[str, ...]
    wire_dtype: str | None

    def named(self, values: Sequence[Any]) -> dict[str, Any]:
        return dict(zip(self.names, values, strict=True))

    def run(
        self,
        *arrays: Array,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
        layouts: Mapping[str, Layout] | None = None,
        sizes: Mapping[str, int] | None = None,
    ) -> list[Array]:
        """Plan for every platform, and run the plan of the one that the program is lowered for."""
        shards = arrays[: len(self.names)]
        leaves = self.named(shards)
        if shapes is None:
            shapes = {name: _whole(leaf.shape, (layouts or {}).get(name), sizes or {}) for name, leaf in leaves.items()}
        views = dict(zip(self.names, self.views, strict=True))

        def plan(platform: Platform) -> MatrixPlan:
            return plan_matrices(
                self.orthogonalizer,
                platform,
                shapes,
                {name: str(leaf.dtype) for name, leaf in leaves.items()},
                views,
                layouts=layouts,
                sizes=sizes,
                mesh_axes=self.mesh_axes if layouts is not None else (),
                wire_dtype=self.wire_dtype,
            )

        def execute(plan: MatrixPlan, *arrays: Array) -> list[Array]:
            *shards, eps = arrays if self.eps_is_array else (*arrays, self.orthogonalizer.eps)
            return list(run_plan(plan, views, self.named(shards), eps).values())

        return list(on_lowered_platform({platform: plan(platform) for platform in PLATFORMS}, execute, *arrays))

    def run_on_mesh(self, mesh: Any, layouts: tuple[Layout, ...], *arrays: Array) -> list[Array]:
        """The same for arrays on a mesh, sharded as these layouts say.

        The loops of the exchange have as many rounds as a device has matrices, through which reverse mode cannot go:
        derivatives are those of the iteration on every device, of gathered arrays.
        """
        specs = [spec_of(layout) for layout in layouts]
        on_shards = jax.shard_map(
            functools.partial(self.run, layouts=self.named(layouts), sizes=dict(mesh.shape)),
            mesh=mesh,
            in_specs=(*specs, *(PartitionSpec() for _ in arrays[len(specs) :])),
            out_specs=specs,
            check_vma=False,  # a gathered result is the same on all devices, which its type cannot say
        )

        def on_whole(*arrays: Array) -> list[Array]:
            shards = arrays[: len(specs)]
            whole = self.run(*(gathered(shard) for shard in shards), *arrays[len(specs) :])
            return [laid_like(result, shard) for result, shard in zip(whole, shards, strict=True)]

        differentiable = jax.custom_jvp(lambda *arrays: list(on_shards(*arrays)))
        differentiable.defjvp(lambda primals, tangents: jax.jvp(on_whole, primals, tangents))
        return differentiable(*arrays)


def _whole(shape: tuple[int, ...], layout: Layout | None, sizes: Mapping[str, int]) -> tuple[int, ...]:
    if layout is None:
        return tuple(shape)
    lengths = []
    for length, names in zip(shape, layout, strict=True):
        for name in names:
            length *= sizes[name]
        lengths.append(length)
    return tuple(lengths)


_compiled = functools.partial(jax.jit, static_argnums=0)(_Work.run)
_compiled_on_mesh = functools.partial(jax.jit, static_argnums=(0, 1, 2))(_Work.run_on_mesh)
