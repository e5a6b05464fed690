"""A program runs the plan of the platform that it is lowered for, whatever the platform of this process."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Sequence
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import jaxopt_tour as jt
from jaxopt_tour.mesh.plan import plan_matrices
from jaxopt_tour.mesh.run import run_plan
from jaxopt_tour.orthogonalization.plan import PLATFORMS, Platform, plan_iteration
from jaxopt_tour.orthogonalization.run import iterate

#: From 128 rows on a CPU runs inverses. Wide and square matrices, a batch, and a vector for AdamW.
PARAMS: Final = {
    "up": {"kernel": jnp.ones((128, 160))},
    "down": {"kernel": jnp.ones((160, 128))},
    "layers": {"kernel": jnp.ones((3, 130, 130))},
}
WITH_A_VECTOR: Final = PARAMS | {"norm": {"scale": jnp.ones(4)}}
AXES: Final = {
    "up/kernel": jt.MatrixAxes(0, 1),
    "down/kernel": jt.MatrixAxes(0, 1),
    "layers/kernel": jt.MatrixAxes(1, 2),
}

#: What tells the plans apart in a module: the dtypes of its tensors, and the decompositions of its inverses.
MARKS: Final = {
    "float16": r"[x<]f16>",
    "bfloat16": r"[x<]bf16>",
    "cholesky": r"cholesky|potrf",
    "triangular_solve": r"triangular_solve|trsm",
}
OF_PLATFORM: Final = {"cpu": {"cholesky"}, "cuda": {"float16"}, "tpu": {"bfloat16"}}
TRANSFORMS: Final = {
    "orthogonalize_via_newton_schulz": (jt.orthogonalize_via_newton_schulz(axes=AXES), PARAMS),
    "muon": (jt.muon(1e-3, routing=AXES), WITH_A_VECTOR),
}


def exported(name: str, platforms: Sequence[str]) -> export.Exported:
    tx, params = TRANSFORMS[name]
    return export.export(jax.jit(tx.update), platforms=platforms)(params, tx.init(params), params)


def marks(program: export.Exported) -> set[str]:
    module = program.mlir_module()
    return {mark for mark, pattern in MARKS.items() if re.search(pattern, module)}


@pytest.mark.parametrize("platform", OF_PLATFORM)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_program_carries_the_plan_of_its_platform_and_no_other(name: str, platform: str) -> None:
    assert marks(exported(name, [platform])) == OF_PLATFORM[platform]


@pytest.mark.parametrize(
    "platforms", [("cpu", "cuda"), ("cpu", "tpu"), ("cuda", "tpu"), ("cpu", "cuda", "tpu")], ids=str
)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_program_for_several_platforms_carries_the_plan_of_each(name: str, platforms: tuple[str, ...]) -> None:
    program = exported(name, platforms)
    assert program.platforms == platforms
    # The CPU inverts triangles row by row; in a program for several platforms the other way stays beside it.
    others = {"triangular_solve"} if "cpu" in platforms else set()
    assert marks(program) == others.union(*(OF_PLATFORM[platform] for platform in platforms))


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_program_for_several_platforms_is_this_platforms_program_here(name: str) -> None:
    tx, params = TRANSFORMS[name]
    rng = np.random.default_rng(0)
    gradients = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), p.dtype), params)
    program = exported(name, ["cpu", "cuda", "tpu"])
    here, _ = jax.jit(tx.update)(gradients, tx.init(params), params)
    of_three, _ = jax.jit(program.call)(gradients, tx.init(params), params)
    jax.tree.map(np.testing.assert_array_equal, of_three, here)


@pytest.mark.parametrize("platform", OF_PLATFORM)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_dtype_that_is_given_is_that_of_every_platform(platform: str, dtype: str) -> None:
    orthogonalizer = jt.Orthogonalizer(dtype=dtype)
    x = jax.ShapeDtypeStruct((130, 160), jnp.float32)
    assert marks(export.export(jax.jit(lambda x: orthogonalizer(x)), platforms=[platform])(x)) == {dtype}


@pytest.mark.parametrize("platform", OF_PLATFORM)
def test_inverses_lower_for_every_platform_where_they_are_asked_for(platform: str) -> None:
    run = jax.jit(jax.vmap(lambda x: jt.orthogonalize(x, "zolotarev")))
    program = export.export(run, platforms=[platform])(jnp.zeros((2, 70, 80)))
    # A CPU inverts triangles row by row.
    assert marks(program) == ({"cholesky"} if platform == "cpu" else {"cholesky", "triangular_solve"})


def test_a_program_lowered_in_vain_for_another_device_keeps_its_plan() -> None:
    """Lowering, too, asks for the platform of the program: no device of it need be there."""
    x = jax.ShapeDtypeStruct((130, 160), jnp.float32)
    traced = jax.jit(lambda x: jt.orthogonalize(x)).trace(x)
    text = traced.lower(lowering_platforms=("tpu",)).as_text()
    assert re.search(MARKS["bfloat16"], text) and not re.search(MARKS["cholesky"], text)


#: The library; the tour, which runs things, may ask what it runs on.
LIBRARY: Final = ("linalg", "coefficients", "orthogonalization", "routing", "mesh", "optimizers")


def test_the_library_never_asks_for_the_platform_or_the_devices_of_the_process() -> None:
    root = pathlib.Path(jt.__file__).parent
    sources = [*root.glob("_*.py"), *(path for name in LIBRARY for path in (root / name).rglob("*.py"))]
    assert {path.parent.name for path in sources} >= set(LIBRARY)
    asks = re.compile(r"default_backend|jax\.devices\(|device_count|local_devices")
    assert not [str(path.relative_to(root)) for path in sources if asks.search(path.read_text())]


# The plans of accelerators, executed here: XLA:CPU rounds as they say, if slowly.

SHAPES: Final = {
    "square": (64, 64),
    "wide": (48, 160),
    "tall": (160, 48),
    "large": (128, 320),
    "batch": (3, 40, 72),
    "tall batch": (2, 72, 40),
    "row": (1, 30),
}
#: Smallest singular value, relative to the largest.
LOWEST: Final = 0.02

#: How much larger than the largest singular value the prescaling norm may be: 128^(1/2) and 128^(1/8).
NORM: Final = {"frobenius": 12, "schatten8": 2}

#: What rounding to half precision adds to the largest distance of a singular value from 1, see docs/accuracy.md.
ROUNDING: Final = 1e-2


def matrices(shape: tuple[int, ...], seed: int) -> jax.Array:
    u, _, vt = np.linalg.svd(np.random.default_rng(seed).normal(size=shape), full_matrices=False)
    return jnp.asarray((u * np.geomspace(1, LOWEST, min(shape[-2:]))) @ vt, jnp.float32)


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
@pytest.mark.parametrize("coefficients", ["auto", "fast", "keller_jordan", "modula"])
def test_an_accelerators_plan_keeps_the_promise_of_its_coefficients(coefficients: str, platform: Platform) -> None:
    leaves = {name: matrices(shape, seed) for seed, (name, shape) in enumerate(SHAPES.items())}
    views = dict.fromkeys(SHAPES, jt.MatrixAxes(-2, -1))
    dtypes = dict.fromkeys(SHAPES, "float32")
    plan = plan_matrices(jt.Orthogonalizer(coefficients), platform, SHAPES, dtypes, views)
    assert {group.iteration.dtype for group in plan.groups} == {"float16" if platform == "gpu" else "bfloat16"}
    results = jax.jit(lambda leaves: run_plan(plan, views, leaves, 0.0))(leaves)
    # Keller Jordan's steps do not converge: the last one multiplies an error by up to 2.3, its slope at 1.15.
    growth = 2.3 if coefficients == "keller_jordan" else 1
    iterations = {key.name: group.iteration for group in plan.groups for key, _ in group.members}
    for name, iteration in iterations.items():
        assert results[name].dtype == jnp.float32
        chosen: Any = iteration.coefficients
        promised = chosen.worst_error(LOWEST / NORM[chosen.prescale])
        values = np.linalg.svd(np.asarray(results[name], np.float64), compute_uv=False)
        assert np.abs(values - 1).max() < promised + growth * ROUNDING, name


@pytest.mark.slow
def test_plans_of_all_platforms_agree_up_to_what_they_promise() -> None:
    leaves = {name: matrices(shape, seed) for seed, (name, shape) in enumerate(SHAPES.items())}
    views = dict.fromkeys(SHAPES, jt.MatrixAxes(-2, -1))
    dtypes = dict.fromkeys(SHAPES, "float32")

    def run(platform: Platform, **options: Any) -> dict[str, jax.Array]:
        plan = plan_matrices(jt.Orthogonalizer(**options), platform, SHAPES, dtypes, views)
        return jax.jit(lambda leaves: run_plan(plan, views, leaves, 0.0))(leaves)

    exact = run("cpu", coefficients="exact")
    same = [run(platform, coefficients="keller_jordan", dtype="float32") for platform in PLATFORMS]
    results = {platform: run(platform, coefficients="auto") for platform in PLATFORMS}
    for name in SHAPES:
        for result in same[1:]:
            # In stacks or one by one: float32 rounding, which five steps of slope 3.44 lift by 485.
            np.testing.assert_allclose(result[name], same[0][name], atol=485 * 6e-8)
        for platform, result in results.items():
            # 0.01 of the coefficients, and singular vectors that turn by the rounding of eight bits over five steps.
            assert np.linalg.norm(result[name] - exact[name]) < 0.03 * np.linalg.norm(exact[name]), (name, platform)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 1e-3), ("bfloat16", 8e-3)])
@pytest.mark.parametrize("form", ["standard", "gram"])
def test_terms_that_nearly_cancel_are_rounded_once(dtype: str, tolerance: float, form: str) -> None:
    """A row's direction changes by rounding alone: that of its input, and of one sum a step."""
    x = np.random.default_rng(0).normal(size=(1, 400)).astype(np.float32)
    iteration = plan_iteration(jt.Orthogonalizer("polar_express", dtype=dtype, form=form), 1, 400, "float32", "tpu")
    o = np.asarray(iterate(jnp.asarray(x), iteration, 0.0))
    direction = o / np.linalg.norm(o)
    # Six roundings of 2^-12 or 2^-9 at most, some of them larger than the result by a small factor.
    assert np.linalg.norm(direction - x / np.linalg.norm(x)) < tolerance
