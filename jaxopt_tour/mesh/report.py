"""The plan of a model, to look at before a run: which matrices are processed how, where, and at what cost."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_tour._trees import is_array, named_leaves, not_an_array
from jaxopt_tour.coefficients import Exact, RationalCoefficients
from jaxopt_tour.coefficients.operations import product_counts
from jaxopt_tour.mesh.layouts import check_axes_exist, given_layouts, layout_of, mesh_of
from jaxopt_tour.mesh.on_mesh import as_on_mesh
from jaxopt_tour.mesh.plan import Exchange, MatrixPlan, plan_matrices
from jaxopt_tour.mesh.plan_json import decode, encode
from jaxopt_tour.orthogonalization.orthogonalizer import OrthogonalizerLike, as_orthogonalizer
from jaxopt_tour.orthogonalization.plan import Group, Iteration, Platform, at_once, check_platform
from jaxopt_tour.routing import Routing, resolve
from jaxopt_tour.routing.table import params_of
from jaxopt_tour.routing.text import columns


@dataclass(frozen=True)
class PlanRow:
    """Matrices that are processed alike.

    Attributes:
        parameters: path names, with numbers of layers folded to `*`.
        matrices: how many, on all devices together.
        shape: (m, n), short side first; several n where Gram matrices of one m share a stack.
        coefficients: their name, and the number of steps.
        dtype: of the products.
        form: `"standard"`, `"gram"` or `"exact"`.
        products: per matrix.
        where: stacks on every device, or matrices per device.
        operations: floating-point operations of one update, on all devices together.
    """

    parameters: tuple[str, ...]
    matrices: int
    shape: str
    coefficients: str
    dtype: str
    form: str
    products: str
    where: str
    operations: float


@dataclass(frozen=True)
class PlanTotals:
    """Sums over a plan.

    Attributes:
        matrices: how many.
        operations: floating-point operations of one update, on all devices together.
        busiest: operations of the device with the most work.
        share: of a training step at the given number of tokens, `operations / (operations + 6 parameters tokens)`,
            with embeddings that are only looked up left out; None without `tokens=`.
        wire_bytes: that one device sends in one update.
        temporary_bytes: estimate of what one device holds at once besides parameters, gradients and state.
        balance: mean work of a device by the most of any.
    """

    matrices: int
    operations: float
    busiest: float
    share: float | None
    wire_bytes: int
    temporary_bytes: int
    balance: float


@dataclass(frozen=True)
class Plan:
    """What is done to the matrices of a model on one platform. `print` it; `rows` and `totals` are its data.

    Attributes:
        platform: "cpu", "gpu" or "tpu".
        rows: what is processed alike.
        totals: sums.
        matrix_plan: what `run_plan` executes, given the parameters' axes and eps.
    """

    platform: Platform
    rows: tuple[PlanRow, ...]
    totals: PlanTotals
    matrix_plan: MatrixPlan

    def to_json(self) -> str:
        """The plan as JSON: version, platform, rows, totals and the plan itself; `from_json` reads it."""
        rows = [asdict(row) for row in self.rows]
        plan = {"platform": self.platform, "rows": rows, "totals": asdict(self.totals)}
        return json.dumps({"version": 1, **plan, "matrix_plan": encode(self.matrix_plan)}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The plan that `to_json` wrote.

        Raises:
            ValueError: the text is not such a plan.
        """
        try:
            data = json.loads(text)
            if data["version"] != 1:
                raise ValueError(f"version {data['version']!r}")
            rows = tuple(PlanRow(**{**row, "parameters": tuple(row["parameters"])}) for row in data["rows"])
            return cls(data["platform"], rows, PlanTotals(**data["totals"]), decode(data["matrix_plan"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"text is not the JSON of a plan of version 1: {error}") from error

    def __str__(self) -> str:
        titles = ("parameters", "matrices", "shape", "coefficients", "dtype", "form", "products", "where")
        lines = [titles]
        for row in self.rows:
            names = row.parameters
            shown = ", ".join(names[:2]) + (f", {len(names) - 2} more" if len(names) > 2 else "")
            cells = (str(row.matrices), row.shape, row.coefficients, row.dtype, row.form, row.products, row.where)
            lines.append((shown, *cells))
        totals = self.totals
        sums = [f"{self.platform}: {totals.matrices} matrices, {_short(totals.operations)} operations an update"]
        if totals.share is not None:
            sums.append(f"{100 * totals.share:.2g} % of a training step")
        if totals.wire_bytes:
            sums.append(f"{_short(totals.wire_bytes)}B on the wire per device")
            sums.append(f"balance {totals.balance:.2f}")
        sums.append(f"about {_short(totals.temporary_bytes)}B of temporary memory")
        return "\n".join([columns(lines), "", "; ".join(sums)])


def plan(
    params_or_model: Any,
    *,
    orthogonalizer: OrthogonalizerLike = "auto",
    routing: Routing = None,
    mesh: Any = None,
    platform: str | None = None,
    tokens: int | None = None,
) -> Plan:
    """Plan the orthogonalization of a model's matrices, without running it.

    Args:
        params_or_model: a parameter tree (arrays or `jax.ShapeDtypeStruct`), an `nnx.Module`, or linen variables.
        orthogonalizer: as in `muon`.
        routing: as in `muon`.
        mesh: as in `muon`. Layouts are those of the arrays, or of `OnMesh(..., layouts=)`; the mesh
            is that of the arrays, or `jax.set_mesh`'s.
        platform: `"cpu"`, `"gpu"` (or `"cuda"`, `"rocm"`) or `"tpu"`; it need not be present. None: the
            arrays'.
        tokens: of one training step, for the share of the update.

    Returns:
        A `Plan`.

    Raises:
        ValueError: no platform is given and the parameters are not arrays on one, the mesh is not known, or an argument
            is not one of those named above.

    Example:
        >>> import jax, jaxopt_tour as jt
        >>> params = {"up": {"kernel": jax.ShapeDtypeStruct((768, 3072), "float32")}}
        >>> jt.plan(params, platform="tpu").rows[0].dtype
        'bfloat16'
    """
    params = params_of(params_or_model)
    leaves = named_leaves(params)
    for name, leaf in leaves.items():
        if not is_array(leaf):
            raise not_an_array(name, leaf)
    chosen = _platform_of(leaves.values()) if platform is None else check_platform(platform)
    if tokens is not None and (isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1):
        raise ValueError(f"tokens must be an integer >= 1, got {tokens!r}")
    routes = resolve(routing, params)
    views = {name: route.axes for name, route in routes.items() if route.label == "matrix" and route.axes is not None}
    matrices = {name: leaves[name] for name in views}
    on_mesh = as_on_mesh(mesh)
    where: dict[str, Any] = {}
    if on_mesh is not None:
        found_mesh = mesh_of(leaves.values())
        if found_mesh is None:
            raise ValueError(
                f"mesh= names the axes {on_mesh.axes}, and no mesh has been found: give parameters that are sharded "
                "over one (arrays, or jax.ShapeDtypeStruct(..., sharding=...)), or call this under jax.set_mesh(mesh)"
            )
        check_axes_exist(on_mesh.axes, found_mesh)
        sizes = dict(found_mesh.shape)
        layouts = (
            {name: layout_of(leaf) for name, leaf in matrices.items()}
            if on_mesh.layouts is None
            else given_layouts(on_mesh.layouts, matrices, sizes)
        )
        wire_dtype = None if on_mesh.wire_dtype is None else str(on_mesh.wire_dtype)
        where = {"layouts": layouts, "sizes": sizes, "mesh_axes": on_mesh.axes, "wire_dtype": wire_dtype}
    matrix_plan = plan_matrices(
        as_orthogonalizer(orthogonalizer),
        chosen,
        {name: tuple(leaf.shape) for name, leaf in matrices.items()},
        {name: str(leaf.dtype) for name, leaf in matrices.items()},
        views,
        **where,
    )
    rows = (
        *_rows_of_groups(matrix_plan.groups),
        *(row for part in matrix_plan.exchanges for row in _rows_of_exchange(part)),
    )
    trained = sum(
        math.prod(leaf.shape) for name, leaf in leaves.items() if routes[name].role not in ("embedding", "position")
    )
    return Plan(chosen, rows, _totals(matrix_plan, rows, trained, tokens), matrix_plan)


def _platform_of(leaves: Any) -> Platform:
    platforms = {device.platform for leaf in leaves if isinstance(leaf, jax.Array) for device in leaf.devices()}
    if len(platforms) != 1:
        raise ValueError(
            "platform must be 'cpu', 'gpu' or 'tpu' where the parameters are not arrays on one platform; got None"
        )
    return check_platform(platforms.pop())


def _rows_of_groups(groups: tuple[Group, ...]) -> list[PlanRow]:
    """One row for all groups that differ in their members alone."""
    alike: dict[tuple[Iteration, str, int, str], list[Group]] = {}
    for group in groups:
        m = group.members[0][1].wide[0]
        shape = "" if group.stacked == "gram matrices" else str(group.members[0][1].wide)
        alike.setdefault((group.iteration, group.stacked, m, shape), []).append(group)
    rows = []
    for (iteration, stacked, m, _), same in alike.items():
        members = [member for group in same for member in group.members]
        lengths = [sum(matrices.batch for _, matrices in group.members) for group in same]
        sides = sorted({matrices.wide[1] for _, matrices in members})
        rows.append(
            PlanRow(
                _fold(key.name for key, _ in members),
                sum(lengths),
                f"{m} x {' | '.join(map(str, sides))}",
                _coefficients(iteration),
                iteration.dtype,
                iteration.form,
                _products(iteration),
                _stacks(lengths, "Gram matrices" if stacked == "gram matrices" else "matrices"),
                float(sum(group.operations for group in same)),
            )
        )
    return rows


def _rows_of_exchange(exchange: Exchange) -> list[PlanRow]:
    rows = []
    assignment, axes = exchange.assignment, exchange.assignment.axes
    for k, group in enumerate(assignment.groups):
        members = [member for member in assignment.members if member.group == group]
        counts = sorted({assignment.even[k] + extra[k] for extra in assignment.extra})
        each = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        iterations = exchange.iterations[k]
        widths = group.split or (group.n,)
        matrices = sum(member.local for member in members)
        rows.append(
            PlanRow(
                _fold(member.key.name for member in members),
                matrices * len(widths),
                " | ".join(dict.fromkeys(f"{min(group.m, n)} x {max(group.m, n)}" for n in widths)),
                _coefficients(iterations[0]),
                iterations[0].dtype,
                iterations[0].form,
                _products(iterations[0]),
                f"{assignment.devices} devices over {', '.join(axes.replicas + axes.exchange)}: {each} each",
                float(
                    matrices
                    * sum(
                        iteration.operations(min(group.m, n), max(group.m, n))
                        for iteration, n in zip(iterations, widths, strict=True)
                    )
                ),
            )
        )
    return rows


def _totals(plan: MatrixPlan, rows: tuple[PlanRow, ...], trained: int, tokens: int | None) -> PlanTotals:
    operations = sum(row.operations for row in rows)
    local = float(sum(group.operations for group in plan.groups))
    busiest = local + sum(max(exchange.assignment.work) for exchange in plan.exchanges)
    mean = local + sum(sum(exchange.assignment.work) / len(exchange.assignment.work) for exchange in plan.exchanges)
    wire = sum(
        exchange.assignment.wire_elements * jnp.dtype(plan.wire_dtype or exchange.assignment.dtype).itemsize
        for exchange in plan.exchanges
    )
    # XLA runs groups in an order of its own and holds the stacks of all.
    memory = sum(map(_group_bytes, plan.groups)) + sum(map(_exchange_bytes, plan.exchanges))
    share = None if tokens is None else operations / (operations + 6 * trained * tokens)
    balance = mean / busiest if busiest else 1.0
    return PlanTotals(sum(row.matrices for row in rows), operations, busiest, share, int(wire), int(memory), balance)


def _group_bytes(group: Group) -> int:
    """The stack and its result, copies of the pieces where they are scaled, and one slice's working set."""
    itemsize = jnp.dtype(group.iteration.dtype).itemsize
    pieces = sum(matrices.batch * matrices.rows * matrices.columns for _, matrices in group.members)
    m, n = max((matrices.wide for _, matrices in group.members), key=lambda wide: wide[0] * wide[1])
    count = sum(matrices.batch for _, matrices in group.members)
    at_a_time = min(count, at_once(group.slice_bytes, m, n, itemsize))
    stack = count * m * m if group.stacked == "gram matrices" else pieces
    return itemsize * (pieces + 2 * stack + at_a_time * (2 * m * n + 5 * m * m))


def _exchange_bytes(exchange: Exchange) -> int:
    """Both buffers, and the working set of the largest matrices."""
    assignment = exchange.assignment
    buffers = 2 * assignment.length * assignment.devices * jnp.dtype(assignment.dtype).itemsize
    sizes = []
    for k, group in enumerate(assignment.groups):
        itemsize = jnp.dtype(exchange.iterations[k][0].dtype).itemsize
        m, n = sorted((group.m, group.n))
        most = assignment.offsets[k].shape[1]
        sizes.append(min(most, at_once(exchange.slice_bytes, m, n, itemsize)) * itemsize * (2 * m * n + 5 * m * m))
    return buffers + max(sizes, default=0)


def _stacks(lengths: list[int], what: str) -> str:
    """Lengths 16, 16, 16 as "3 stacks of 16 matrices"."""
    parts = []
    for length in dict.fromkeys(lengths):
        count = lengths.count(length)
        if length == 1:
            parts.append(f"{count} by {'itself' if count == 1 else 'themselves'}")
        else:
            parts.append(f"{count} {'stack' if count == 1 else 'stacks'} of {length} {what}")
    return ", ".join(parts)


def _coefficients(iteration: Iteration) -> str:
    coefficients = iteration.coefficients
    if isinstance(coefficients, Exact):
        return coefficients.name
    # "auto" and "fast" name a choice; that it fell on their rational functions is what a reader wants to know.
    chosen = isinstance(coefficients, RationalCoefficients) and coefficients.name in ("auto", "fast")
    name = f"zolotarev ({coefficients.name})" if chosen else coefficients.name
    return f"{name}, {coefficients.steps} {'step' if coefficients.steps == 1 else 'steps'}"


def _products(iteration: Iteration) -> str:
    if isinstance(iteration.coefficients, Exact):
        return "SVD"
    large, small, inverses = product_counts(iteration.coefficients, iteration.form, len(iteration.restarts))
    text = f"{large} mmn + {small} mmm"
    return text + (f" + {inverses} inverses" if isinstance(iteration.coefficients, RationalCoefficients) else "")


def _fold(names: Any) -> tuple[str, ...]:
    """`blocks/0/up, blocks/1/up` -> `blocks/*/up`; a name that has no like stays."""
    exact = list(dict.fromkeys(names))
    folded: dict[str, list[str]] = {}
    for name in exact:
        folded.setdefault(re.sub(r"(?<![A-Za-z])\d+(?=/|$)|(?<=_)\d+(?=/|$)", "*", name), []).append(name)
    return tuple(pattern if len(same) > 1 else same[0] for pattern, same in folded.items())


def _short(number: float | int) -> str:
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g} {unit}"
    return f"{number:.3g} "
