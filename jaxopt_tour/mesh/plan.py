"""The plan for the matrices of a model: groups that a device processes where they are, and exchanges between devices.

Made from names, shapes, dtypes, layouts and a platform; nothing here touches an array or asks for a device. On one
device, and for whatever a mesh does not shard, there are groups alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jaxopt_tour.mesh.assignment import Assignment, Layout, assign
from jaxopt_tour.orthogonalization.options import Options
from jaxopt_tour.orthogonalization.plan import (
    SLICE_BYTES,
    Group,
    Iteration,
    Matrices,
    Platform,
    plan_groups,
    plan_iteration,
)
from jaxopt_tour.routing.axes import MatrixAxes


@dataclass(frozen=True)
class Exchange:
    """Matrices that travel to the devices that work on them, and back.

    Attributes:
        assignment: which device works on which.
        iterations: for every sharded group, what is done to each of its matrices: one iteration, or one for each size
            of a fan-out that is split on arrival.
        slice_bytes: bound on the memory of matrices that are worked on together; 0: one at a time.
    """

    assignment: Assignment
    iterations: tuple[tuple[Iteration, ...], ...]
    slice_bytes: int


@dataclass(frozen=True)
class MatrixPlan:
    """What is done to the matrices of a model on one platform, and where.

    Attributes:
        platform: "cpu", "gpu" or "tpu"; not part of the comparison of two plans.
        groups: processed by every device where they are.
        exchanges: whose matrices travel, each to the one device that works on it.
        wire_dtype: of matrices while they travel; None: their own.
    """

    platform: Platform = field(compare=False)
    groups: tuple[Group, ...]
    exchanges: tuple[Exchange, ...] = ()
    wire_dtype: str | None = None


def plan_matrices(
    options: Options,
    platform: Platform,
    shapes: Mapping[str, tuple[int, ...]],
    dtypes: Mapping[str, str],
    views: Mapping[str, MatrixAxes],
    *,
    layouts: Mapping[str, Layout] | None = None,
    sizes: Mapping[str, int] | None = None,
    mesh_axes: Sequence[str] = (),
    wire_dtype: str | None = None,
) -> MatrixPlan:
    """Decide how the matrices of some parameters are orthogonalized.

    Args:
        options: coefficients, form, dtype and so on.
        platform: the platform that the program is lowered for.
        shapes: of the whole parameters, by path name.
        dtypes: of the parameters.
        views: how each is seen as matrices.
        layouts: how each is sharded; None: not at all.
        sizes: of the mesh axes.
        mesh_axes: the axes that share the work.
        wire_dtype: of matrices while they travel.
    """
    if layouts is None:
        layouts = {name: ((),) * len(shape) for name, shape in shapes.items()}
    iterations: dict[tuple[int, int, str], Iteration] = {}

    def iteration(m: int, n: int, dtype: str) -> Iteration:
        key = m, n, dtype
        if key not in iterations:
            iterations[key] = plan_iteration(options, m, n, dtype, platform)
        return iterations[key]

    def cost(m: int, n: int) -> float:
        return float(iteration(m, n, "float32").operations(m, n))

    local, assignments = assign(shapes, dtypes, views, layouts, sizes or {}, mesh_axes, cost)
    pieces = {key: Matrices(count, rows, columns, dtype) for key, count, rows, columns, dtype in local}
    exchanges = []
    for assignment in assignments:
        of_groups = tuple(
            tuple(
                iteration(min(group.m, width), max(group.m, width), assignment.dtype)
                for width in (group.split or (group.n,))
            )
            for group in assignment.groups
        )
        slice_bytes = 0 if options.grouping == "none" else SLICE_BYTES[platform]
        exchanges.append(Exchange(assignment, of_groups, slice_bytes))
    return MatrixPlan(platform, plan_groups(options, pieces, platform), tuple(exchanges), wire_dtype)
