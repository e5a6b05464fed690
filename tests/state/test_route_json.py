"""Routes as JSON: a complete round trip, and an error that says what is wrong with a text."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxopt_tour as jt
from jaxopt_tour.routing import ROLES, Pieces

AXES = st.one_of(
    st.builds(
        jt.MatrixAxes,
        st.lists(st.integers(0, 3), min_size=1, max_size=2).map(tuple),
        st.integers(-2, 3),
        st.none() | st.lists(st.integers(1, 99), min_size=1, max_size=3).map(tuple),
    ),
    st.builds(
        lambda fan_out, factors: jt.MatrixAxes(0, fan_out, factors=factors),
        st.integers(1, 3),
        st.dictionaries(st.integers(0, 2), st.lists(st.integers(1, 64), min_size=1, max_size=2).map(tuple), max_size=2),
    ),
)
PIECES = st.builds(Pieces, st.sampled_from(["heads", "fused"]), st.none() | AXES, st.text(max_size=20))
ROUTES = st.builds(
    jt.Route,
    st.sampled_from(ROLES),
    AXES,
    st.text(max_size=20),
    st.none() | st.text(min_size=1, max_size=8),
    st.lists(PIECES, max_size=2).map(tuple),
    st.lists(st.text(max_size=8), max_size=3).map(tuple),
    st.lists(st.integers(0, 9), max_size=3).map(tuple),
)


@given(st.dictionaries(st.text(min_size=1), ROUTES, max_size=4))
def test_every_field_of_every_route_comes_back(routes: dict[str, jt.Route]):
    back = jt.Routes.from_json(jt.Routes(routes).to_json())
    assert isinstance(back, jt.Routes)
    assert list(back) == list(routes)
    for name, route in routes.items():  # fields: equality leaves out uses and order
        for field in dataclasses.fields(jt.Route):
            assert getattr(back[name], field.name) == getattr(route, field.name), field.name


def attention(params: Any, x: jax.Array) -> jax.Array:
    q, k, v = jnp.split(x @ params["qkv"], 3, axis=-1)
    x = x + jax.nn.softmax(q @ k.T) @ v
    return jnp.tanh(x @ params["up"]) @ params["head"]


def test_routes_by_use_print_and_route_the_same_after_the_round_trip():
    params = {"qkv": jnp.ones((6, 18)), "up": jnp.ones((6, 9)), "head": jnp.ones((9, 3))}
    routes = jt.routing.from_function(attention, params, jnp.ones((4, 6)), split="fused")
    back = jt.Routes.from_json(routes.to_json())
    assert routes["qkv"].pieces
    assert (str(back), back) == (str(routes), routes)
    first, second = (jt.muon(0.1, routing=entry) for entry in (routes, back))
    jax.eval_shape(second.update, params, first.init(params), params)  # the state of one is that of the other


ROUTES_NOW = jt.Routes(
    up=jt.Route("matrix", jt.MatrixAxes(0, 1, factors={1: (3,)}), "because", pieces=(Pieces("heads", None, "3"),))
)


def edited(*path: Any, value: Any = None, remove: bool = False) -> str:
    document = json.loads(ROUTES_NOW.to_json())
    node = document
    for key in path[:-1]:
        node = node[key]
    if remove:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return json.dumps(document)


WRONG = {
    "no JSON": ("{", "no JSON"),
    "not text": (3, "no JSON"),
    "a list": ("[]", "jaxopt_tour.routes"),
    "another format": (edited("format", value="plan"), "jaxopt_tour.routes"),
    "a newer version": (edited("version", value=2), "version 2 .* reads 1"),
    "no version": (edited("version", remove=True), "version None"),
    "no routes": (edited("routes", value=[]), "routes"),
    "a route that is text": (edited("routes", "up", value="matrix"), "'up' must be an object"),
    "an unknown role": (edited("routes", "up", "role", value="matrx"), "'up': role must be one of"),
    "no role": (edited("routes", "up", "role", remove=True), "'up' has no 'role'"),
    "an unknown field": (edited("routes", "up", "rank", value=2), "'up' has an unknown field 'rank'"),
    "an empty label": (edited("routes", "up", "label", value=""), "'up': label"),
    "no label": (edited("routes", "up", "label", value=None), "'up': label must be text"),
    "no axes for a matrix": (edited("routes", "up", "axes", value=None), "'up': .*needs axes"),
    "an axis that is text": (
        edited("routes", "up", "axes", "fan_in", value=["0"]),
        "'up': axes: fan_in must be a list",
    ),
    "an axis that is true": (
        edited("routes", "up", "axes", "fan_in", value=[True]),
        "'up': axes: fan_in must be a list",
    ),
    "no fan-in": (edited("routes", "up", "axes", "fan_in", value=[]), "'up': axes: fan_in and fan_out"),
    "a size of zero": (edited("routes", "up", "axes", "factors", value=[[1, [0]]]), "'up': axes: factors"),
    "factors without sizes": (
        edited("routes", "up", "axes", "factors", value=[[1]]),
        "'up': axes: factors must be pairs",
    ),
    "split and factors": (edited("routes", "up", "axes", "split", value=[1]), "'up': axes: split and factors"),
    "an unknown kind of piece": (edited("routes", "up", "pieces", 0, "kind", value="halves"), "'up': pieces: kind"),
    "uses that are numbers": (edited("routes", "up", "uses", value=[1]), "'up': uses must be text"),
    "an order that is text": (edited("routes", "up", "order", value=["a"]), "'up': order must be a list of integers"),
    "a parameter twice": (ROUTES_NOW.to_json().replace('"routes": {', '"routes": {"up": {},'), "'up' twice"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_bad_text_raises_and_says_what_is_wrong(name: str):
    text, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        jt.Routes.from_json(text)


def test_no_parameters_are_a_document_too():
    assert jt.Routes.from_json(jt.Routes().to_json()) == {}
