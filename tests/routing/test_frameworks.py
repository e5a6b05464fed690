"""Models of every framework are routed by use, and the routes fit what their optimizers are given."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jaxopt_tour as jt
from jaxopt_tour.routing.axes import MatrixAxes
from jaxopt_tour.routing.by_use.trace import from_function
from tests.routing import frameworks, zoo

OUT_IN = MatrixAxes(1, 0)


def found(*arguments: Any, **kwargs: Any) -> dict[str, Any]:
    return {path: (route.role, route.axes) for path, route in from_function(*arguments, **kwargs).items()}


EQUINOX = {
    "embedding": ("embedding", None),
    "layers/0/weight": ("matrix", OUT_IN),
    "layers/0/bias": ("vector", None),
    "layers/1/weight": ("matrix", OUT_IN),
    "head/weight": ("head", OUT_IN),
    "head/bias": ("vector", None),
}


def test_an_equinox_module_is_taken_as_it_is() -> None:
    model = frameworks.equinox_model()
    assert found(model, zoo.tokens(6)) == EQUINOX
    assert found(jax.vmap(lambda m, x: m(x), in_axes=(None, 0)), model, zoo.tokens(3, 6)) == EQUINOX
    assert found(lambda m, x: jnp.sum(jax.vmap(m)(x)), model, zoo.tokens(3, 6)) == EQUINOX
    assert found(frameworks.equinox_model(zoo_shape), zoo.tokens(6)) == EQUINOX


def zoo_shape(shape: tuple[int, ...]) -> Any:
    return zoo.floats(*shape)


def test_the_routes_of_an_equinox_module_fit_its_filtered_arrays() -> None:
    model = frameworks.equinox_model()
    arrays = jax.tree.map(lambda x: x if hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.inexact) else None, model)
    tx = jt.muon(1e-3, routing=from_function(model, zoo.tokens(6)))
    state = tx.init(arrays)
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, arrays), state, arrays)
    assert jax.tree.structure(updates) == jax.tree.structure(arrays)


def test_a_keras_model_is_a_list_of_its_trainable_variables() -> None:
    model = frameworks.KerasModel()
    expected = {"0": ("matrix", MatrixAxes(0, 1)), "1": ("vector", None), "2": ("head", MatrixAxes(0, 1))}
    assert found(model, zoo.floats(4, 8)) == expected
    assert found(model, zoo.floats(4, 8), training=True) == expected
    tx = jt.muon(1e-3, routing=from_function(model, zoo.floats(4, 8)))
    tx.init([variable.value for variable in model.trainable_variables])


@pytest.mark.parametrize(("with_key", "with_state"), [(False, False), (True, False), (True, True)])
def test_a_haiku_pair_is_applied(with_key: bool, with_state: bool) -> None:
    pair = frameworks.haiku_pair(with_key, with_state)
    params = {"mlp/~/linear_0": {"w": zoo.floats(8, 16)}, "mlp/~/linear_1": {"w": zoo.floats(16, 3)}}
    state = ({"offset": zoo.floats(3)},) if with_state else ()
    assert found(pair, params, *state, zoo.floats(4, 8)) == {
        "mlp/~/linear_0/w": ("matrix", MatrixAxes(0, 1)), "mlp/~/linear_1/w": ("head", MatrixAxes(0, 1))
    }  # fmt: skip
    assert found(tuple(pair), params, *state, zoo.floats(4, 8))["mlp/~/linear_1/w"][0] == "head"


def test_penzai_arrays_of_other_transformations_have_no_shape() -> None:
    def fn(params: Any, x: Any) -> Any:
        return jnp.tanh(x @ params["w"].data_array) @ params["out"].data_array

    params = {
        "w": frameworks.PenzaiArray(jnp.ones((8, 16)), {"features": 8, "neurons": 16}),
        "out": frameworks.PenzaiArray(jnp.ones((16, 3)), {"neurons": 16, "classes": 3}),
    }
    tx = jt.muon(1e-3, routing=from_function(fn, params, zoo.floats(4, 8)))
    updates, _ = jax.eval_shape(tx.update, params, jax.eval_shape(tx.init, params), params)
    assert jax.tree.structure(updates) == jax.tree.structure(params)


def test_other_leaves_of_any_tree_are_left_as_they_are() -> None:
    def fn(params: Any, x: Any) -> Any:
        assert params["name"] == "tower" and params["depth"] == 1 and params["none"] is None
        return params["act"](x @ params["w"]) @ params["head"] + params["table"][0]

    params = {
        "w": zoo.floats(8, 16), "head": zoo.floats(16, 3), "act": jnp.tanh, "name": "tower", "depth": 1, "none": None,
        "table": zoo.tokens(4),
    }  # fmt: skip
    assert {path: role for path, (role, _) in found(fn, params, zoo.floats(4, 8)).items()} == {
        "w": "matrix", "head": "head"
    }  # fmt: skip
