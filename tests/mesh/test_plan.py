"""Plans on a mesh: pure data, with the choices of the platform that a program is lowered for."""

from __future__ import annotations

import functools
import re
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import jaxopt_tour as jt
from jaxopt_tour.mesh.plan import MatrixPlan, plan_matrices
from jaxopt_tour.mesh.run import run_plan
from jaxopt_tour.orthogonalization.plan import PLATFORMS, Platform
from tests.mesh.meshes import error, mesh_of, orthogonalize, placer

SHAPES = {"wide": (13, 16, 32), "tall": (5, 32, 16), "fused": (16, 48), "local": (8, 16, 16)}
VIEWS = {name: jt.MatrixAxes(-2, -1) for name in SHAPES} | {"fused": jt.MatrixAxes(0, 1, split=(16, 16, 16))}
SPECS = {"wide": P(None, "fsdp"), "tall": P(None, None, "fsdp"), "fused": P(None, "fsdp"), "local": P("fsdp")}
LAYOUTS = {
    name: tuple(() if entry is None else (entry,) for entry in (*spec, *[None] * (len(SHAPES[name]) - len(spec))))
    for name, spec in SPECS.items()
}
#: Three steps stand for all: after the second the Gram form returns to X in half precision.
SHORT = ((3.4445, -4.7750, 2.0315),) * 3


def conditioned(shape: tuple[int, ...]) -> np.ndarray:
    """Matrices without small singular values, which would magnify rounding."""
    noise = np.random.default_rng(len(shape)).standard_normal(shape, np.float32)
    return noise + 8 * np.resize(np.eye(16, dtype=np.float32), shape[-2:])


MATRICES = {name: conditioned(shape) for name, shape in SHAPES.items()}


def plan(platform: Platform, devices: int = 8, **options: Any) -> MatrixPlan:
    on_mesh: dict[str, Any] = {"layouts": LAYOUTS, "sizes": {"fsdp": devices}, "mesh_axes": ("fsdp",)}
    dtypes = dict.fromkeys(SHAPES, "float32")
    options_ = jt.Orthogonalizer(**options)
    return plan_matrices(options_, platform, SHAPES, dtypes, VIEWS, **(on_mesh if devices > 1 else {}))


@pytest.mark.parametrize("platform", PLATFORMS)
def test_every_matrix_is_in_the_plan_once(platform: Platform) -> None:
    on_mesh = plan(platform)
    in_groups = [key.name for group in on_mesh.groups for key, _ in group.members]
    travelling = [member.key.name for exchange in on_mesh.exchanges for member in exchange.assignment.members]
    assert sorted(in_groups + travelling) == sorted(SHAPES)
    assert in_groups == ["local"]
    assert not plan(platform, 1).exchanges


def test_the_dtype_is_that_of_the_platform() -> None:
    dtypes = {platform: plan(platform).exchanges[0].iterations[0][0].dtype for platform in PLATFORMS}
    assert dtypes == {"cpu": "float32", "gpu": "float16", "tpu": "bfloat16"}


def test_plans_are_equal_where_they_do_the_same() -> None:
    assert plan("tpu") == plan("tpu")
    assert plan("tpu") != plan("gpu")
    exact = {"coefficients": "exact", "grouping": "none"}
    assert plan("tpu", **exact).exchanges == plan("gpu", **exact).exchanges == plan("cpu", **exact).exchanges


@pytest.mark.parametrize("platform", PLATFORMS)
def test_costs_are_those_of_the_coefficients_that_run(platform: Platform) -> None:
    """On GPUs and TPUs polynomials stand in for inverses, and the balance is that of their operations."""
    (exchange,) = plan(platform).exchanges
    operations = 0
    for member in exchange.assignment.members:
        group = member.group
        iterations = exchange.iterations[exchange.assignment.groups.index(group)]
        for iteration, width in zip(iterations, group.split or (group.n,), strict=True):
            operations += member.local * iteration.operations(min(group.m, width), max(group.m, width))
    assert sum(exchange.assignment.work) == pytest.approx(operations)


def test_many_devices_take_no_time() -> None:
    shapes = {str(i): (4, 256, 256 * (1 + i % 3)) for i in range(200)}
    layouts: Any = dict.fromkeys(shapes, ((), ("fsdp",), ()))
    views = dict.fromkeys(shapes, jt.MatrixAxes(1, 2))
    dtypes = dict.fromkeys(shapes, "float32")
    sizes: dict[str, Any] = {"layouts": layouts, "sizes": {"fsdp": 256}, "mesh_axes": ("fsdp",)}
    planned = plan_matrices(jt.Orthogonalizer(), "tpu", shapes, dtypes, views, **sizes)
    assert len(planned.exchanges) == 1


# --- what an accelerator runs ----------------------------------------------------------------------------------------


@functools.cache
def exported(**options: Any) -> str:
    """The program of a TPU, lowered here, on a mesh of Explicit axes."""
    sharded = placer(mesh_of(AxisType.Explicit), SPECS.__getitem__)(MATRICES)
    update = jax.jit(lambda tree: orthogonalize(tree, "fsdp", jt.Orthogonalizer(SHORT, **options), VIEWS))
    return jax.export.export(update, platforms=("tpu",))(sharded).mlir_module()


def products(program: str) -> set[tuple[str, str]]:
    """Shape and dtype of the first factor of every product of an exported program."""
    return set(re.findall(r"dot_general.*: \(tensor<([\dx]+)x(\w+)>", program))


def test_an_exported_program_has_the_tpus_products_and_two_exchanges() -> None:
    program = exported()
    assert {dtype for _, dtype in products(program)} == {"bf16"}
    assert len(re.findall(r"= \"?stablehlo.all_to_all", program)) == 2
    assert "lapack" not in program


def test_grouping_is_honoured_on_a_mesh() -> None:
    """By shape, a device works on all its matrices of a group at once; with "none", on one after the other."""
    together, one_by_one = ({shape for shape, _ in products(text)} for text in (exported(), exported(grouping="none")))
    assert "3x16x32" in together  # 18 matrices on 8 devices
    assert not any(shape.count("x") == 2 and not shape.startswith("1x") for shape in one_by_one), one_by_one


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_an_accelerators_plan_gives_the_numbers_of_one_device(platform: Platform) -> None:
    plans = [plan(platform, devices, coefficients=SHORT) for devices in (1, 8)]
    on_one, on_mesh = (functools.partial(run_plan, plan, VIEWS, eps=0.0) for plan in plans)
    expected = jax.jit(on_one)(MATRICES)
    result = jax.jit(jax.shard_map(on_mesh, mesh=mesh_of(), in_specs=(SPECS,), out_specs=SPECS, check_vma=False))(
        MATRICES
    )
    # Rounding to 8 (TPU) or 11 (GPU) bits of factors that differ in the last bit of float32; entries are near 1.
    assert error(result, expected) < {"tpu": 2**-6, "gpu": 2**-9}[platform]
