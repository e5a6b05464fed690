"""Routing by name on the zoo, where its readings must be those of routing by use, and case by case."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from jaxopt_tour.problems.tasks import make_task
from jaxopt_tour.routing.axes import MatrixAxes
from jaxopt_tour.routing.by_name.routes import ByName, routes_by_name
from jaxopt_tour.routing.by_use.trace import from_function
from jaxopt_tour.routing.route import Role
from tests.routing.zoo import CASES

CONVENTIONAL = [name for name, case in CASES.items() if case.conventional]


def tree(**leaves: tuple[int, ...]) -> dict:
    """Parameters by path, slashes written as two underscores."""
    return {name.replace("__", "/"): jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in leaves.items()}


@pytest.mark.parametrize("name", CONVENTIONAL)
def test_names_and_use_agree(name: str) -> None:
    case = CASES[name]
    arguments, options = case.build()
    used = from_function(*arguments, **options)
    named = routes_by_name(case.params())
    assert list(named) == list(used)
    for path, route in named.items():
        assert route.role == used[path].role, (path, route.reason, used[path].reason)
        if route.role == "matrix":
            assert route.axes == used[path].axes, (path, route.reason, used[path].reason)


@pytest.mark.parametrize("name", list(CASES))
def test_what_names_leave_open_is_no_matrix(name: str) -> None:
    """Where a name tells nothing, the role may differ from use's, but never with wrong axes."""
    case = CASES[name]
    routes = routes_by_name(case.params())
    for path, route in routes.items():
        if route.role == "not understood":
            assert route.label == "not understood" and route.axes is None, path
        assert route.reason


CASE_BY_CASE = [
    # dense layers, whatever their rank was before
    (tree(dense__kernel=(3, 4), head__kernel=(4, 2)), "dense/kernel", MatrixAxes(0, 1)),
    (tree(proj__kernel=(8, 2, 4), proj__bias=(2, 4)), "proj/kernel", MatrixAxes(0, (1, 2))),
    (tree(proj__kernel=(2, 4, 8), proj__bias=(8,)), "proj/kernel", MatrixAxes((0, 1), 2)),
    (tree(head__kernel=(8, 3), layers_0__kernel=(20, 8), layers_1__kernel=(8, 8)), "layers_0/kernel", MatrixAxes(0, 1)),
    (
        tree(head__kernel=(8, 3), layers__0__kernel=(20, 8), layers__1__kernel=(8, 8)),
        "layers/0/kernel",
        MatrixAxes(0, 1),
    ),
    (tree(fc__weight=(16, 8), fc__bias=(16,), head__weight=(3, 16)), "fc/weight", MatrixAxes(1, 0)),
    (tree(fc__weight=(8, 16), fc__bias=(16,), head__weight=(3, 16)), "fc/weight", MatrixAxes(0, 1)),
    # attention
    (tree(attention__query__kernel=(8, 2, 4)), "attention/query/kernel", MatrixAxes(0, (1, 2))),
    (tree(attention__out__kernel=(2, 4, 8)), "attention/out/kernel", MatrixAxes((0, 1), 2)),
    (tree(attn__qkv__kernel=(8, 3, 2, 4)), "attn/qkv/kernel", MatrixAxes(0, (1, 2, 3))),
    # convolutions
    (tree(conv__kernel=(3, 3, 8, 16)), "conv/kernel", MatrixAxes((0, 1, 2), 3)),
    (tree(conv__kernel=(5, 8, 16)), "conv/kernel", MatrixAxes((0, 1), 2)),
    (tree(conv__kernel=(3, 3, 1, 16)), "conv/kernel", MatrixAxes((0, 1, 2), 3)),
    (tree(depthwise__kernel=(3, 3, 1, 16)), "depthwise/kernel", "depthwise"),
    # scanned layers: (L, d) is a vector, (L, in, out) a batch of matrices
    (tree(layers__dense__kernel=(6, 8, 16), layers__dense__bias=(6, 16)), "layers/dense/kernel", MatrixAxes(1, 2)),
    (tree(layers__dense__kernel=(6, 8, 16), layers__dense__bias=(6, 16)), "layers/dense/bias", "vector"),
    (tree(layers__norm__scale=(6, 8), layers__query__kernel=(6, 8, 2, 4)), "layers/norm/scale", "vector"),
    (
        tree(layers__norm__scale=(6, 8), layers__query__kernel=(6, 8, 2, 4)),
        "layers/query/kernel",
        MatrixAxes(1, (2, 3)),
    ),
    (tree(body__norm__scale=(6, 8), body__fc__kernel=(6, 8, 16)), "body/fc/kernel", MatrixAxes(1, 2)),
    (tree(fc__kernel=(6, 8, 16), fc__bias=(6, 16)), "fc/kernel", MatrixAxes(1, 2)),
    # experts, one layer and scanned
    (tree(experts__up__kernel=(4, 8, 16)), "experts/up/kernel", MatrixAxes(1, 2)),
    (tree(layers__norm__scale=(6, 8), layers__experts__up=(6, 4, 8, 16)), "layers/experts/up", MatrixAxes(2, 3)),
    # LoRA
    (tree(lora__lora_a=(8, 2), lora__lora_b=(2, 8)), "lora/lora_b", MatrixAxes(0, 1)),
    # not matrices
    (tree(embed__embedding=(100, 8)), "embed/embedding", "embedding"),
    (tree(wte=(100, 8), wpe=(64, 8)), "wte", "embedding"),
    (tree(wte=(100, 8), wpe=(64, 8)), "wpe", "position"),
    (tree(pos_embed=(1, 64, 8)), "pos_embed", "position"),
    (tree(lm_head__kernel=(8, 100)), "lm_head/kernel", "head"),
    (tree(Dense_0__kernel=(4, 8), Dense_1__kernel=(8, 2)), "Dense_1/kernel", "head"),
    (tree(Dense_0__kernel=(4, 8), Dense_1__kernel=(8, 2)), "Dense_0/kernel", MatrixAxes(0, 1)),
    (tree(mlp__gate__kernel=(8, 1)), "mlp/gate/kernel", "vector"),
    (tree(strange=(3, 4, 5)), "strange", "not understood"),
    (tree(scale=()), "scale", "scalar"),
    (tree(mlp__up__kernel=(0, 4)), "mlp/up/kernel", "vector"),
]


@pytest.mark.parametrize(("params", "path", "expected"), CASE_BY_CASE)
def test_case_by_case(params: dict, path: str, expected: MatrixAxes | Role) -> None:
    """Axes are expected of a matrix, a role of any other parameter."""
    route = routes_by_name(params)[path]
    if isinstance(expected, MatrixAxes):
        assert (route.role, route.label, route.axes) == ("matrix", "matrix", expected), route
    else:
        assert (route.role, route.label, route.axes) == (expected, expected, None), route


def test_heads_and_fused_projections_are_split_when_asked_for() -> None:
    params = tree(attn__query__kernel=(8, 2, 4), attn__out__kernel=(2, 4, 8), attn__qkv__kernel=(8, 24))
    split = ByName(split_heads=True, split_fused=True).routes(params)
    assert split["attn/query/kernel"].axes == MatrixAxes(0, 2)
    assert split["attn/out/kernel"].axes == MatrixAxes(1, 2)
    assert split["attn/qkv/kernel"].axes == MatrixAxes(0, 1, split=(8, 8, 8))
    fused = ByName(split_fused=True).routes(tree(attn__qkv__kernel=(8, 3, 2, 4)))
    assert fused["attn/qkv/kernel"].axes == MatrixAxes(0, (2, 3))


def test_complex_and_integer_parameters_are_no_matrices() -> None:
    params = {"dense/kernel": jnp.zeros((3, 4), jnp.complex64), "table/w": jnp.zeros((3, 4), jnp.int32)}
    assert all(route.label == "not understood" for route in routes_by_name(params).values())


@pytest.mark.parametrize("task", ["cnn", "gpt"])
def test_names_and_use_agree_on_the_models_of_the_race(task: str) -> None:
    problem = make_task(task)
    model = nnx.eval_shape(lambda: problem.model(nnx.Rngs(0)))
    used = from_function(model, problem.held_out[0].inputs)
    named = routes_by_name(nnx.state(model, nnx.Param))
    for path, route in named.items():
        axes = used[path].axes if route.role == "matrix" else None
        assert (route.role, route.axes) == (used[path].role, axes), path
    assert {route.label == "matrix" for route in named.values()} == {True, False}
