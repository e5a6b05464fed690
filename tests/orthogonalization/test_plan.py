"""The decisions of the plan, as laws: pure functions of shapes, dtypes, options and the platform."""

from __future__ import annotations

import itertools
from typing import Any

import jax.numpy as jnp
import pytest

from jaxopt_tour.coefficients import (
    BY_NAME,
    RationalCoefficients,
    auto,
    fast,
    keller_jordan,
    polar_express,
    zolotarev,
)
from jaxopt_tour.coefficients.operations import operations
from jaxopt_tour.mesh.plan import plan_matrices
from jaxopt_tour.orthogonalization.options import Options
from jaxopt_tour.orthogonalization.plan import (
    BLOCKS_FROM,
    INVERSES_FROM,
    LOOP_FROM,
    PLATFORMS,
    SEPARATE_COUNT,
    SLICE_BYTES,
    STACK_COUNT,
    Group,
    Iteration,
    Key,
    Matrices,
    at_once,
    check_platform,
    plan_groups,
    plan_iteration,
)
from jaxopt_tour.routing.axes import MatrixAxes

SHAPES = [(1, 1), (64, 64), (127, 500), (128, 128), (768, 768), (768, 3072), (2048, 8192)]
HALF = ("float16", "bfloat16")


def plan(m: int, n: int, matrix_dtype: str = "float32", platform: str = "cpu", *args: Any, **options: Any) -> Iteration:
    return plan_iteration(Options(*args, **options), m, n, matrix_dtype, check_platform(platform))


def groups_of(
    shapes: list[tuple[int, int, int]], platform: str = "cpu", matrix_dtype: str = "float32", **options: Any
) -> tuple[Group, ...]:
    """The groups of batches (batch, rows, columns)."""
    pieces = {Key(str(i), 0): Matrices(*shape, matrix_dtype) for i, shape in enumerate(shapes)}
    return plan_groups(Options(**options), pieces, check_platform(platform))


def names(group: Group) -> list[int]:
    return [int(key.name) for key, _ in group.members]


# The dtype.


@pytest.mark.parametrize(("platform", "expected"), [("cpu", "float32"), ("gpu", "float16"), ("tpu", "bfloat16")])
@pytest.mark.parametrize("dtype", ["float32", *HALF])
def test_the_dtype_is_the_platforms(platform: str, expected: str, dtype: str) -> None:
    assert plan(64, 128, dtype, platform, "polar_express").dtype == expected


@pytest.mark.parametrize("platform", PLATFORMS)
def test_matrices_of_float64_are_iterated_on_in_float64(platform: str) -> None:
    for name in BY_NAME:
        assert plan(64, 128, "float64", platform, name).dtype == "float64", name


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("dtype", ["float64", "float32", *HALF])
def test_a_dtype_that_is_given_is_taken(platform: str, dtype: str, x64: None) -> None:
    for matrix_dtype in ("float32", "bfloat16", "float64"):
        assert plan(64, 128, matrix_dtype, platform, dtype=dtype).dtype == dtype


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize(
    "coefficients", [zolotarev(), polar_express(2, 1e-2, degree=(9, 17))], ids=["inverses", "9, 17"]
)
def test_what_half_precision_would_destroy_runs_in_float32_everywhere(platform: str, coefficients: Any) -> None:
    assert plan(64, 128, "float32", platform, coefficients).dtype == "float32"
    assert plan(64, 128, "bfloat16", platform, coefficients).dtype == "float32"


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_coefficients_with_polynomials_for_half_precision_run_in_it(platform: str) -> None:
    for name in ("auto", "fast"):
        assert plan(64, 128, "float32", platform, name).dtype in HALF


def test_the_exact_factor_is_computed_in_full_precision() -> None:
    for platform in PLATFORMS:
        assert plan(64, 128, "bfloat16", platform, "exact") == plan(64, 128, "float32", "cpu", "exact")
        assert plan(64, 128, "float32", platform, "exact").form == "exact"


# Inverses.


@pytest.mark.parametrize("name", ["auto", "fast"])
def test_inverses_run_on_cpus_alone_from_128_rows_on(name: str) -> None:
    coefficients = BY_NAME[name]()
    assert isinstance(coefficients, RationalCoefficients) and coefficients.polynomial is not None
    assert INVERSES_FROM == 128
    for (m, n), dtype, platform in itertools.product(SHAPES, ["float32", "bfloat16"], PLATFORMS):
        inverses = isinstance(plan(m, n, dtype, platform, name).coefficients, RationalCoefficients)
        assert inverses == (platform == "cpu" and m >= 128), (m, n, dtype, platform)
    in_half = coefficients.polynomial.in_half or coefficients.polynomial
    for dtype in HALF:
        assert plan(768, 768, "float32", "cpu", name, dtype=dtype).coefficients == in_half
    assert plan(768, 768, "float32", "cpu", name, form="standard").coefficients == coefficients.polynomial
    assert plan(768, 768, "float64", "cpu", name).coefficients == coefficients


def test_the_polynomials_that_run_elsewhere_are_those_of_the_docstrings() -> None:
    assert auto().polynomial == polar_express()
    assert plan(127, 127).coefficients == plan(128, 128, platform="gpu").coefficients == polar_express()
    assert plan(128, 128, "float32", "gpu", "fast").coefficients == polar_express(4, 1e-2)
    assert plan(127, 127, "float32", "cpu", "fast").coefficients == fast().polynomial


@pytest.mark.parametrize("platform", PLATFORMS)
def test_inverses_without_polynomials_run_everywhere_in_the_gram_form(platform: str) -> None:
    for m, n in SHAPES:
        iteration = plan(m, n, "float32", platform, zolotarev())
        assert (iteration.coefficients, iteration.form, iteration.dtype) == (zolotarev(), "gram", "float32")
        assert iteration.restarts == ()


# The form.


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", [name for name in BY_NAME if name not in ("auto", "fast", "zolotarev", "exact")])
def test_in_full_precision_the_form_is_the_one_of_fewer_operations(name: str, dtype: str) -> None:
    for m, n in SHAPES:
        iteration = plan(m, n, dtype, "cpu", name)
        counts = {form: operations(iteration.coefficients, m, n, form) for form in ("standard", "gram")}
        assert counts[iteration.form] == min(counts.values()), (m, n)
        assert iteration.operations(m, n) == min(counts.values())


def test_the_gram_form_is_for_wide_matrices() -> None:
    assert plan(768, 768, "float32", "cpu", "keller_jordan").form == "standard"
    assert plan(768, 3072, "float32", "cpu", "keller_jordan").form == "gram"
    assert plan(768, 3072, "float32", "gpu", "keller_jordan").form == "gram"


def test_in_half_precision_only_float16_takes_the_gram_form_and_for_five_steps_at_most() -> None:
    for steps, (m, n), platform in itertools.product(range(1, 9), SHAPES, PLATFORMS):
        in_bfloat16 = plan(m, n, "float32", platform, keller_jordan(steps), dtype="bfloat16")
        assert (in_bfloat16.form, in_bfloat16.restarts) == ("standard", ())
        in_float16 = plan(m, n, "float32", platform, keller_jordan(steps), dtype="float16")
        assert steps <= 5 or in_float16.form == "standard"
    assert plan(768, 3072, "float32", "cpu", keller_jordan(5), dtype="float16").form == "gram"
    assert plan(768, 3072, "float32", "cpu", keller_jordan(6), dtype="float16").form == "standard"


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("form", ["standard", "gram"])
def test_a_form_that_is_given_is_taken(platform: str, form: str) -> None:
    for (m, n), dtype in itertools.product(SHAPES, ["float32", *HALF]):
        assert plan(m, n, "float32", platform, "polar_express", form=form, dtype=dtype).form == form


def test_in_half_precision_the_gram_form_returns_to_x_after_two_steps() -> None:
    for steps in range(1, 9):
        for dtype in ("float32", *HALF):
            iteration = plan(768, 3072, dtype, "cpu", keller_jordan(steps), form="gram", dtype=dtype)
            assert iteration.restarts == ((2,) if dtype in HALF and steps > 2 else ()), (steps, dtype)


def test_operations_count_the_restarts() -> None:
    iteration = plan(768, 3072, "float32", "gpu", "polar_express")
    assert iteration.form == "gram" and iteration.restarts == (2,)
    assert iteration.operations(768, 3072) == operations(polar_express(), 768, 3072, "gram", 1)


# The products and the loop.


def test_products_that_commute_are_in_blocks_on_large_matrices_on_cpus() -> None:
    assert BLOCKS_FROM == 1024
    for (m, n), platform in itertools.product(SHAPES, PLATFORMS):
        iteration = plan(m, n, "float32", platform)
        assert iteration.commuting_product == ("blocks" if platform == "cpu" and m >= BLOCKS_FROM else "plain")
        assert iteration.gram_product == "plain"
        for symmetric in ("plain", "blocks"):
            given = plan(m, n, "float32", platform, symmetric=symmetric)
            assert given.gram_product == given.commuting_product == symmetric


def test_equal_steps_of_large_matrices_are_a_loop_in_full_precision() -> None:
    for (m, n), dtype in itertools.product(SHAPES, ["float32", *HALF]):
        full = dtype not in HALF
        assert plan(m, n, dtype, "cpu", "polar_express", dtype=dtype).loop == (full and m >= LOOP_FROM)
    big = LOOP_FROM, LOOP_FROM
    assert not plan(*big, "float32", "cpu", "polar_express", steps=3).loop  # two equal steps
    assert not plan(*big, "float32", "cpu", zolotarev()).loop
    assert plan(*big, "float32", "cpu", polar_express(4, degree=9)).loop
    assert not plan(*big, "float32", "cpu", polar_express(4, degree=17)).loop
    assert not plan(*big, "float32", "cpu", polar_express(4, degree=(5, 9, 5, 9))).loop


# The groups.

MODEL = [(1, 64, 96), (1, 96, 64), (1, 64, 64), (3, 64, 128), (1, 8, 8), (0, 4, 4), (2, 0, 4)]


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("grouping", ["auto", "by_shape", "none"])
@pytest.mark.parametrize("form", ["auto", "standard", "gram"])
def test_every_matrix_is_in_one_group(platform: str, grouping: str, form: str) -> None:
    groups = groups_of(MODEL, platform, grouping=grouping, form=form)
    assert sorted(itertools.chain(*map(names, groups))) == [0, 1, 2, 3, 4]  # what is empty is in none
    for group in groups:
        options = Options(grouping=grouping, form=form)
        for _, matrices in group.members:
            assert group.iteration == plan_iteration(options, *matrices.wide, matrices.dtype, check_platform(platform))
    assert sum(group.operations for group in groups) == sum(
        batch * plan(min(m, n), max(m, n), "float32", platform, form=form).operations(min(m, n), max(m, n))
        for batch, m, n in MODEL
        if batch and m and n
    )


@pytest.mark.parametrize("platform", PLATFORMS)
def test_without_grouping_every_matrix_is_alone(platform: str) -> None:
    groups = groups_of([(1, 64, 96)] * 5 + [(4, 64, 64)], platform, grouping="none")
    assert [names(group) for group in groups] == [[i] for i in range(6)]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_matrices_of_one_shape_are_a_group_however_they_are_stored(platform: str) -> None:
    (group,) = groups_of([(1, 64, 96), (1, 96, 64), (3, 64, 96)], platform, grouping="by_shape")
    assert names(group) == [0, 1, 2]
    apart = groups_of([(1, 64, 96), (1, 64, 200)], platform, grouping="by_shape", form="standard")
    assert len(apart) == 2


@pytest.mark.parametrize("platform", PLATFORMS)
def test_matrices_of_two_dtypes_are_two_groups(platform: str) -> None:
    pieces = {Key(dtype, 0): Matrices(1, 8, 8, dtype) for dtype in ("float32", "bfloat16")}
    assert len(plan_groups(Options(), pieces, check_platform(platform))) == 2


def test_gram_matrices_of_one_short_side_share_a_stack_in_full_precision() -> None:
    shapes = [(1, 64, 64), (1, 64, 256), (1, 500, 64)]
    (group,) = groups_of(shapes, form="gram")
    assert (group.stacked, names(group)) == ("gram matrices", [0, 1, 2])
    for platform in ("gpu", "tpu"):  # where the iteration returns to X
        assert {group.stacked for group in groups_of(shapes, platform, form="gram")} == {"matrices"}
        assert [group.stacked for group in groups_of(shapes, platform, form="gram", dtype="float32")] == [
            "gram matrices"
        ]


@pytest.mark.parametrize("form", ["standard", "gram"])
@pytest.mark.parametrize("count", [1, 7, 9, 11, 12, 16, 17, 24, 33, 48])
def test_a_cpu_divides_a_group_into_stacks_of_equal_length(count: int, form: str) -> None:
    lengths = [len(group.members) for group in groups_of([(1, 64, 96)] * count, form=form)]
    assert sum(lengths) == count and len(set(lengths)) == 1
    divides = any(count % length == 0 for length in range(STACK_COUNT // 2, STACK_COUNT + 1))
    assert (STACK_COUNT // 2 <= lengths[0] <= STACK_COUNT) if divides else lengths == [count]
    for platform in ("gpu", "tpu"):
        assert len(groups_of([(1, 64, 96)] * count, platform, form=form)) == 1
    assert len(groups_of([(1, 64, 96)] * count, form=form, grouping="by_shape")) == 1


def test_a_cpu_leaves_few_small_matrices_separate_in_the_standard_form() -> None:
    def stacks(count: int, m: int, platform: str = "cpu", **options: Any) -> int:
        return len(groups_of([(1, m, m)] * count, platform, coefficients="keller_jordan", **options))

    assert stacks(SEPARATE_COUNT, 128) == stacks(SEPARATE_COUNT, 512) == SEPARATE_COUNT
    assert stacks(SEPARATE_COUNT, 127) == stacks(SEPARATE_COUNT, 513) == 1
    assert stacks(2 * SEPARATE_COUNT, 128) == 2
    assert stacks(SEPARATE_COUNT, 128, form="gram") == stacks(SEPARATE_COUNT, 128, "gpu") == 1
    assert stacks(SEPARATE_COUNT, 128, grouping="by_shape") == 1


@pytest.mark.parametrize("shape", [(768, 3072), (3072, 768), (64, 64), (8192, 8192)])
@pytest.mark.parametrize("itemsize", [2, 4])
def test_slices_on_an_accelerator_stay_within_their_bound(shape: tuple[int, int], itemsize: int) -> None:
    small, large = sorted(shape)
    for platform in ("gpu", "tpu"):
        bound = SLICE_BYTES[check_platform(platform)]
        count = at_once(bound, *shape, itemsize)
        assert count == 1 or count * itemsize * (2 * small * large + 5 * small * small) <= bound
    assert at_once(SLICE_BYTES["cpu"], *shape, itemsize) == 1


# The platform.


@pytest.mark.parametrize(
    "options",
    [
        {"coefficients": "exact", "grouping": "none"},
        {"coefficients": "keller_jordan", "dtype": "float32", "symmetric": "plain"},
        {"coefficients": "polar_express", "dtype": "float32", "symmetric": "blocks", "form": "gram"},
        {"coefficients": "cans", "dtype": "bfloat16", "symmetric": "plain"},
        {"coefficients": "zolotarev", "symmetric": "plain"},
    ],
    ids=str,
)
def test_iterations_are_equal_where_nothing_depends_on_the_platform(options: dict[str, Any]) -> None:
    for m, n in SHAPES:
        assert len({plan(m, n, "float32", platform, **options) for platform in PLATFORMS}) == 1
    assert groups_of(MODEL, "gpu", **options) == groups_of(MODEL, "tpu", **options)
    # Those of a CPU differ in stacks and slices, which single matrices do not have.
    single = [shape for shape in MODEL if shape[0] == 1]
    options = {"grouping": "none"} | options
    assert len({groups_of(single, platform, **options) for platform in PLATFORMS}) == 1


def test_plans_of_a_model_are_equal_where_they_do_the_same() -> None:
    shapes = {"a": (8, 16), "b": (16, 8), "c": (3, 8, 8)}
    views = {"a": MatrixAxes(0, 1), "b": MatrixAxes(0, 1), "c": MatrixAxes(1, 2)}
    dtypes = dict.fromkeys(shapes, "float32")

    def plans(**options: Any) -> list[Any]:
        return [plan_matrices(Options(**options), platform, shapes, dtypes, views) for platform in ("gpu", "tpu")]

    same, other = plans(coefficients="keller_jordan", dtype="float32"), plans()
    assert same[0] == same[1] and [one.platform for one in same] == ["gpu", "tpu"]
    assert other[0] != other[1]
    assert same[0].exchanges == () and same[0].wire_dtype is None


def test_a_plan_needs_no_array_and_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    import jax

    def no_device(*_: Any) -> Any:
        raise AssertionError("a device was asked for")

    for name in ("devices", "local_devices", "default_backend", "device_count"):
        monkeypatch.setattr(jax, name, no_device)
    for platform in PLATFORMS:
        assert groups_of([(12, 768, 3072), (12, 3072, 768), (48, 768, 768)], platform)


def test_an_unknown_platform_is_named() -> None:
    assert [check_platform(name) for name in ("cpu", "gpu", "cuda", "rocm", "tpu")] == [
        "cpu",
        "gpu",
        "gpu",
        "gpu",
        "tpu",
    ]
    with pytest.raises(ValueError, match=r"platform must be one of 'cpu', 'gpu', 'tpu'.*got 'metal'"):
        getattr(check_platform, "__wrapped__", check_platform)("metal")


def test_iterations_can_be_keys() -> None:
    assert jnp.issubdtype(plan(8, 8).dtype, jnp.floating)
    assert len({plan(8, 8), plan(8, 8), plan(9, 9), plan(8, 8, platform="tpu")}) == 2
