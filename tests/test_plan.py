"""`jt.plan`: the plan of a model as a table, as data and as JSON, for platforms and meshes that are not there."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

import jaxopt_tour as jt


def kernel(*shape: int, spec: PartitionSpec | None = None, dtype: str = "float32") -> jax.ShapeDtypeStruct:
    sharding = None if spec is None else NamedSharding(AbstractMesh((8,), ("fsdp",)), spec)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


MODEL = {
    "blocks": {
        str(i): {"mlp": {"up": {"kernel": kernel(256, 512)}, "down": {"kernel": kernel(512, 256)}}} for i in range(6)
    },
    "embed": {"embedding": kernel(1000, 256)},
}
SHARDED = {str(i): {"up": {"kernel": kernel(256, 512, spec=PartitionSpec("fsdp"))}} for i in range(12)}


@pytest.mark.parametrize(("platform", "dtype"), [("cpu", "float32"), ("gpu", "float16"), ("tpu", "bfloat16")])
def test_a_platform_need_not_be_present(platform: str, dtype: str):
    plan = jt.plan(MODEL, platform=platform)
    assert {row.dtype for row in plan.rows} == {dtype}
    assert plan.platform == platform


@pytest.mark.parametrize("name", ["cuda", "rocm"])
def test_cuda_and_rocm_are_gpus(name: str):
    assert jt.plan(MODEL, platform=name) == jt.plan(MODEL, platform="gpu")


def test_rows_hold_every_matrix_once_and_fold_layers():
    plan = jt.plan(MODEL, platform="cpu")
    assert plan.totals.matrices == sum(row.matrices for row in plan.rows) == 12
    (row,) = plan.rows  # one stack of Gram matrices: both shapes have the short side 256
    assert row.parameters == ("blocks/*/mlp/down/kernel", "blocks/*/mlp/up/kernel")
    assert "2 inverses" in row.products


def test_operations_are_those_of_the_products():
    """Five quintics in the standard form: per step 4 m^2 n + 2 m^3."""
    value = jt.Orthogonalizer("keller_jordan", form="standard")
    plan = jt.plan(MODEL, platform="tpu", orthogonalizer=value, tokens=4096)
    m, n = 256, 512
    assert plan.totals.operations == 12 * 5 * (4 * m * m * n + 2 * m**3)
    trained = 12 * m * n  # an embedding that is looked up costs no product
    assert plan.totals.share == pytest.approx(plan.totals.operations / (plan.totals.operations + 6 * trained * 4096))


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
@pytest.mark.parametrize("model", [MODEL, SHARDED], ids=["one device", "mesh"])
def test_json_holds_the_whole_plan(model: dict, platform: str):
    plan = jt.plan(model, platform=platform, mesh="fsdp" if model is SHARDED else None, tokens=512)
    again = jt.Plan.from_json(plan.to_json())
    assert again == plan and again.matrix_plan == plan.matrix_plan and str(again) == str(plan)


@pytest.mark.parametrize("text", ["", "{}", '{"version": 2}', '{"version": 1, "rows": []}'])
def test_other_json_is_refused(text: str):
    with pytest.raises(ValueError, match="JSON of a plan"):
        jt.Plan.from_json(text)


def test_a_type_that_no_plan_has_is_refused():
    data = json.loads(jt.plan(MODEL, platform="tpu").to_json())
    data["matrix_plan"]["type"] = "Popen"
    with pytest.raises(ValueError, match="Popen"):
        jt.Plan.from_json(json.dumps(data))


def test_a_mesh_balances_the_work_and_counts_the_bytes():
    plan = jt.plan(SHARDED, platform="tpu", mesh="fsdp")
    assert "8 devices over fsdp: 1 to 2 each" in str(plan)
    assert plan.totals.balance == pytest.approx(12 / 16)
    # Two all-to-alls of rows padded to two blocks (32, 512) of float32, to seven other devices.
    assert plan.totals.wire_bytes == 2 * 7 * 2 * 32 * 512 * 4
    half = jt.plan(SHARDED, platform="tpu", mesh=jt.OnMesh("fsdp", wire_dtype="bfloat16"))
    assert half.totals.wire_bytes == plan.totals.wire_bytes // 2


def test_layouts_can_be_given():
    plain = {str(i): {"up": {"kernel": kernel(256, 512)}} for i in range(12)}
    layouts = jax.tree.map(lambda _: PartitionSpec("fsdp"), plain)
    with jax.sharding.use_abstract_mesh(AbstractMesh((8,), ("fsdp",))):
        plan = jt.plan(plain, platform="tpu", mesh=jt.OnMesh("fsdp", layouts=layouts))
    assert plan.totals == jt.plan(SHARDED, platform="tpu", mesh="fsdp").totals


def test_plans_of_two_platforms_differ_only_where_they_do_something_else():
    """In float32 with one set of coefficients a GPU does what a TPU does."""
    value = jt.Orthogonalizer("keller_jordan", dtype="float32")
    gpu, tpu = (jt.plan(MODEL, platform=platform, orthogonalizer=value) for platform in ("gpu", "tpu"))
    assert gpu.matrix_plan == tpu.matrix_plan
    assert gpu.matrix_plan != dataclasses.replace(gpu.matrix_plan, groups=gpu.matrix_plan.groups[:-1])


@pytest.mark.slow
def test_the_memory_is_that_of_the_compiled_program_within_a_factor_of_two(optimized: None):
    params = {str(i): {"kernel": jnp.ones((256, 512))} for i in range(40)}
    tx = jt.orthogonalize_via_newton_schulz(axes=jt.MatrixAxes(0, 1))
    measured = jax.jit(tx.update).lower(params, tx.init(params)).compile().memory_analysis().temp_size_in_bytes
    planned = jt.plan(params, platform="cpu", routing=lambda path, leaf: jt.MatrixAxes(0, 1)).totals.temporary_bytes
    assert measured / 2 < planned < 2 * measured


def test_the_platform_is_that_of_the_arrays_where_none_is_given():
    assert jt.plan({"up": {"kernel": np.float32(jnp.ones((4, 4))).copy()}}, platform="cpu").platform == "cpu"
    assert jt.plan({"up": {"kernel": jnp.ones((4, 4))}}).platform == jax.devices()[0].platform
    with pytest.raises(ValueError, match="platform must be 'cpu', 'gpu' or 'tpu'"):
        jt.plan(MODEL)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"platform": "metal"}, "platform must be one of 'cpu'"),
        ({"platform": "cpu", "tokens": 0}, "tokens must be an integer >= 1"),
        ({"platform": "cpu", "orthogonalizer": "newton"}, "coefficients must be one of"),
        ({"platform": "cpu", "mesh": "fsdp"}, "no mesh has been found"),
        ({"platform": "cpu", "mesh": 8}, "mesh must be None"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        jt.plan(MODEL, **arguments)


def test_an_axis_that_the_mesh_has_not_is_named():
    with pytest.raises(ValueError, match=r"'tp'.*'fsdp'"):
        jt.plan(SHARDED, platform="cpu", mesh="tp")
