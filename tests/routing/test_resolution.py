"""Overrides of routing, their errors, and the table that shows the result."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

import jaxopt_tour as jt
from jaxopt_tour._trees import map_with_names, named_leaves
from jaxopt_tour.routing.axes import MatrixAxes
from jaxopt_tour.routing.by_name.routes import ByName
from jaxopt_tour.routing.resolution import resolve
from jaxopt_tour.routing.route import Role, Route
from jaxopt_tour.routing.table import routing_table

PARAMS = {
    "embed": {"embedding": jnp.zeros((11, 4))},
    "dense": {"kernel": jnp.zeros((4, 8)), "bias": jnp.zeros(8)},
    "odd": jnp.zeros((2, 3, 4)),
    "head": {"kernel": jnp.zeros((8, 11))},
}


def labels(routing: object) -> dict[str, str]:
    return {name: route.label for name, route in resolve(routing, PARAMS).items()}


DEFAULT = {
    "dense/bias": "vector",
    "dense/kernel": "matrix",
    "embed/embedding": "embedding",
    "head/kernel": "head",
    "odd": "not understood",
}


@pytest.mark.parametrize(
    ("routing", "changed"),
    [
        (None, {}),
        (ByName(), {}),
        ({}, {}),
        ({"head": "matrix"}, {"head/kernel": "matrix"}),
        ({"head": {"kernel": "matrix"}}, {"head/kernel": "matrix"}),
        ({"head/kernel": "matrix"}, {"head/kernel": "matrix"}),
        ({"odd": MatrixAxes(1, 2)}, {"odd": "matrix"}),
        ({"odd": Route("matrix", MatrixAxes((0, 1), 2), "mine")}, {"odd": "matrix"}),
        ({"dense": "frozen"}, {"dense/kernel": "frozen", "dense/bias": "frozen"}),
        ({"dense": "frozen", "dense/kernel": None}, {"dense/bias": "frozen"}),
        (lambda path, leaf: "matrix" if path.startswith("head") else None, {"head/kernel": "matrix"}),
        (
            lambda path, leaf: "other" if leaf.ndim == 2 else None,
            {"dense/kernel": "other", "embed/embedding": "other", "head/kernel": "other"},
        ),
        ("other", dict.fromkeys(DEFAULT, "other")),
    ],
)
def test_overrides(routing: object, changed: dict[str, str]) -> None:
    assert labels(routing) == DEFAULT | changed


@pytest.mark.parametrize(
    ("routing", "message"),
    [
        ({"dense/bias": "matrix"}, "'dense/bias'.*cannot be"),
        ({"odd": "matrix"}, "'odd'.*cannot be"),
        ({"odd": MatrixAxes(1, 3)}, "'odd'.*axis 3"),
        ({"odd": MatrixAxes(1, 1)}, "'odd'.*twice"),
        ({"dense/kernel": MatrixAxes(0, 1, split=(3, 3))}, "'dense/kernel'.*split"),
        ({"haed": "other"}, "'haed'.*no parameter"),
        ({"head": 3}, "'head/kernel'.*label"),
        (jnp.zeros(()), "static_args"),
    ],
)
def test_errors_name_the_parameter(routing: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve(routing, PARAMS)


LAYERS = {
    "blocks": [{"attn": {"q": jnp.zeros((4, 4))}, "mlp": {"up": jnp.zeros((4, 8))}} for _ in range(3)],
    "head": {"kernel": jnp.zeros((4, 9))},
}


@pytest.mark.parametrize(
    ("routing", "frozen"),
    [
        ({"blocks/*/attn/q": "frozen"}, {"blocks/0/attn/q", "blocks/1/attn/q", "blocks/2/attn/q"}),
        ({"blocks/*/attn": "frozen"}, {"blocks/0/attn/q", "blocks/1/attn/q", "blocks/2/attn/q"}),
        ({"blocks": {"*": {"attn": "frozen"}}}, {"blocks/0/attn/q", "blocks/1/attn/q", "blocks/2/attn/q"}),
        ({"blocks/[01]/mlp/u?": "frozen"}, {"blocks/0/mlp/up", "blocks/1/mlp/up"}),
        ({"blocks/*/attn": "frozen", "blocks/1": "other"}, {"blocks/0/attn/q", "blocks/2/attn/q"}),
        ({"**/q": "frozen", "blocks/1/attn/q": None}, {"blocks/0/attn/q", "blocks/2/attn/q"}),
        ({"*/kernel": "frozen"}, {"head/kernel"}),
    ],
)
def test_patterns_of_paths(routing: object, frozen: set[str]) -> None:
    assert {name for name, route in resolve(routing, LAYERS).items() if route.label == "frozen"} == frozen


def test_a_star_is_within_a_name() -> None:
    with pytest.raises(ValueError, match="no parameter that matches it"):
        resolve({"blocks/*/q": "frozen"}, LAYERS)


def test_a_literal_star_in_a_path_is_no_pattern() -> None:
    tree = {"a*": jnp.zeros((3, 3)), "ab": jnp.zeros((3, 3))}
    assert [route.label == "frozen" for route in resolve({"a*": "frozen"}, tree).values()] == [True, False]


def test_dimension_numbers_of_optax() -> None:
    """Where Optax's tree has None, a parameter is no matrix; where it has nothing, it is routed by name."""
    numbers = optax.contrib.MuonDimensionNumbers
    tree = {"embed": None, "dense": {"kernel": numbers(1, 0), "bias": None}, "odd": numbers((0, 1), -1)}
    routes = resolve(tree, PARAMS)
    assert routes["dense/kernel"].axes == MatrixAxes(1, 0) and routes["dense/kernel"].label == "matrix"
    assert routes["odd"].axes == MatrixAxes((0, 1), -1)
    assert (routes["dense/bias"].label, routes["embed/embedding"].label) == ("vector", "embedding")
    left_out = resolve({"dense": {"kernel": None}, "odd": numbers(1, 2)}, PARAMS)["dense/kernel"]
    assert left_out.label == "other" and "dimension numbers" in left_out.reason
    both = {"odd": numbers(1, 2), "dense/kernel": numbers(0, 1)}
    tx, theirs = jt.muon(1e-3, routing=both), optax.contrib.muon(1e-3)
    assert tx.init(PARAMS) is not None and theirs is not None


def test_a_label_without_a_transformation_raises_at_init() -> None:
    tx = jt.multi_transform({"matrix": jt.scale_by_muon()})
    with pytest.raises(ValueError, match=r"'dense/bias'.*'vector'.*'matrix'"):
        tx.init(PARAMS)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("frozn", r"'dense/kernel' the label 'frozn'.*did you mean 'frozen'\?.*'matrix'.*'frozen'.*'other'"),
        ("embeding", r"'dense/kernel'.*did you mean 'embedding'\?"),
        ("zzz", r"'dense/kernel'.*no transformation\. Labels: "),
    ],
)
def test_a_mistyped_label_raises_with_the_closest_label(label: str, message: str) -> None:
    zero = optax.set_to_zero()
    tx = jt.multi_transform({"matrix": zero, "frozen": zero, "other": zero}, {"dense/kernel": label})
    with pytest.raises(ValueError, match=message):
        tx.init(PARAMS)


def test_a_mistyped_path_raises_with_the_closest_path() -> None:
    with pytest.raises(ValueError, match=r"'dense/kernl'.*did you mean 'dense/kernel'\?"):
        resolve({"dense/kernl": "other"}, PARAMS)
    with pytest.raises(ValueError, match=r"'denes'.*did you mean 'dense'\?"):
        resolve({"denes": "other"}, PARAMS)


@pytest.mark.parametrize(
    ("entry", "role", "axes"),
    [
        ("frozen", "matrix", MatrixAxes(0, 1)),
        ("mine", "matrix", MatrixAxes(0, 1)),
        ("other", "matrix", MatrixAxes(0, 1)),
        ("head", "head", None),
        ("matrix", "matrix", MatrixAxes(0, 1)),
    ],
)
def test_a_label_that_is_no_role_leaves_the_role(entry: str, role: Role, axes: MatrixAxes | None) -> None:
    assert resolve({"dense/kernel": entry}, PARAMS)["dense/kernel"] == Route(role, axes, "the label is given", entry)
    bias = resolve({"dense/bias": "mine"}, PARAMS)["dense/bias"]
    assert (bias.role, bias.label) == ("vector", "mine")


@jax.tree_util.register_pytree_with_keys_class
class Numbered(dict):
    """A dictionary that allows keys of several types, which JAX cannot sort in a `dict`."""

    def tree_flatten_with_keys(self) -> tuple[list[tuple[object, object]], tuple[object, ...]]:
        return [(jax.tree_util.DictKey(key), value) for key, value in self.items()], tuple(self)

    @classmethod
    def tree_unflatten(cls, keys: tuple[object, ...], values: list[object]) -> Numbered:
        return cls(zip(keys, values, strict=True))


@pytest.mark.parametrize(
    ("tree", "path"),
    [
        ({"dense/kernel": jnp.zeros((4, 8)), "dense": {"kernel": jnp.zeros((4, 8))}}, "dense/kernel"),
        ({"dense": Numbered({1: jnp.zeros((4, 8)), "1": jnp.zeros((4, 8))})}, "dense/1"),
    ],
    ids=["a slash", "a number"],
)
@pytest.mark.parametrize(
    "function",
    [
        named_leaves,
        lambda tree: map_with_names(lambda name, leaf: leaf, tree),
        lambda tree: resolve(None, tree),
        lambda tree: resolve(jax.tree.map(lambda leaf: "other", tree), PARAMS),
        lambda tree: jt.routing.from_function(lambda p, x: x @ jax.tree.leaves(p)[0], tree, jnp.zeros((2, 4))),
        lambda tree: jt.muon(0.1).init(tree),
    ],
    ids=["named_leaves", "map_with_names", "parameters", "routing", "by use", "muon"],
)
def test_two_leaves_with_one_path_name_raise(function: Callable[[object], object], tree: object, path: str) -> None:
    with pytest.raises(ValueError, match=f"path name '{path}'"):
        function(tree)


def test_the_table_says_what_goes_where_and_why() -> None:
    table = routing_table(PARAMS)
    rows = {row.path: row for row in table.rows}
    assert rows["dense/kernel"].matrices == ((1, 4, 8),)
    assert rows["dense/kernel"].factor == pytest.approx(0.2 * 8**0.5)
    assert rows["embed/embedding"].role == "embedding" and rows["embed/embedding"].factor is None
    assert rows["head/kernel"].matrices == ()
    text = str(table)
    for row in table.rows:
        assert row.path in text and row.role in text and row.reason in text
    with_label = routing_table(PARAMS, routing={"dense/kernel": "frozen"})
    row = next(row for row in with_label.rows if row.path == "dense/kernel")
    assert (row.role, row.label, row.matrices, row.factor) == ("matrix", "frozen", ((1, 4, 8),), None)
    assert "frozen (matrix)" in str(with_label)


def test_the_table_folds_layers_and_ends_with_totals() -> None:
    table = routing_table({**LAYERS, "embed": {"embedding": jnp.zeros((9, 4))}})
    lines = str(table).splitlines()
    assert [line.split()[0] for line in lines[2:-1]] == [
        "blocks/0-2/attn/q", "blocks/0-2/mlp/up", "embed/embedding", "head/kernel"
    ]  # fmt: skip
    assert lines[-1] == "matrix 6 parameters (66.7 %), embedding 1, head 1"
    assert len(table.rows) == 8
    page = table._repr_html_()
    assert page.startswith("<table>") and page.count("<tr>") == 5 and lines[-1] in page
    mixed = str(routing_table(LAYERS, routing={"blocks/1/attn/q": "frozen"}))
    assert "blocks/0,2/attn/q" in mixed and "blocks/1/attn/q" in mixed


def test_routes_print_in_the_order_of_the_function_with_what_they_meet() -> None:
    def fn(params: dict[str, jax.Array], tokens: jax.Array) -> jax.Array:
        x = params["z_table"][tokens]
        for layer in params["layers"]:
            qkv = jnp.split(x @ layer["qkv"], 3, axis=-1)
            x = x + jnp.tanh(qkv[0] * qkv[1] + qkv[2]) @ layer["out"] + layer["bias"]
        return x @ params["a_head"]

    layer = {"bias": jnp.zeros(4), "out": jnp.zeros((4, 4)), "qkv": jnp.zeros((4, 12))}
    params = {"a_head": jnp.zeros((4, 9)), "layers": [layer] * 3, "unused": jnp.zeros(3), "z_table": jnp.zeros((9, 4))}
    routes = jt.routing.from_function(fn, params, jnp.zeros((2, 5), int))
    expected = ["z_table", "layers/0-2/qkv", "layers/0-2/out", "layers/0-2/bias", "a_head", "unused"]
    assert [line.split()[0] for line in str(routes).splitlines()[2:]] == expected
    assert routes["layers/1/out"].uses == ("dot_general over axis 0",)
    assert routes["z_table"].uses == ("gather",)
    text = str(routing_table(params, routing=routes))
    assert [line.split()[0] for line in text.splitlines()[2:-1]] == expected
    assert "3 parts, 4 + 4 + 4" in text and "dot_general over axis 0" in text
    assert "<table>" in routes._repr_html_()


def test_the_table_reads_models_and_shows_both_ways() -> None:
    class Model(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.up = nnx.Linear(4, 8, rngs=rngs)
            self.policy = nnx.Linear(8, 3, rngs=rngs)

        def __call__(self, x: object) -> object:
            return self.policy(nnx.relu(self.up(x)))

    model = Model(nnx.Rngs(0))
    usage = jt.routing.from_function(model, jnp.zeros((2, 4)))
    rows = {row.path: row for row in routing_table(model, usage=usage).rows}
    assert rows["up/kernel"].by_use.startswith("same: matrix")
    assert rows["policy/kernel"].by_use.startswith("DIFFERS: head")  # no name says that policy is a head; its use does
    assert "by use" in str(routing_table(model, usage=usage))
    roles = {row.path: row.role for row in routing_table(model, routing=usage).rows}
    assert roles["policy/kernel"] == "head"


def test_linen_variables_are_read_for_their_parameters() -> None:
    table = routing_table({"params": PARAMS, "batch_stats": {"mean": jnp.zeros(3)}})
    assert [row.path for row in table.rows] == list(DEFAULT)


class TestOverride:
    @staticmethod
    def routes() -> jt.Routes:
        def model(params, x):
            return jnp.tanh(x @ params["a"]["w"]) @ params["b"]["w"]

        params = {"a": {"w": jnp.ones((4, 8))}, "b": {"w": jnp.ones((8, 2))}}
        return jt.routing.from_function(model, params, jnp.ones((3, 4)))

    @pytest.mark.parametrize("entry", ["a", "a/w", "*/w"])
    def test_an_entry_takes_precedence_over_what_was_found(self, entry: str):
        found = jt.routing.override(self.routes(), {entry: "frozen"})
        assert found["a/w"].label == "frozen"
        assert found["b/w"].label == ("frozen" if entry == "*/w" else "head")

    def test_what_is_not_named_stays(self):
        routes = self.routes()
        assert jt.routing.override(routes, {}) == routes
        assert jt.routing.override(routes, {"b": jt.MatrixAxes(0, 1)})["b/w"].label == "matrix"

    @pytest.mark.parametrize(
        ("entries", "message"),
        [
            ({"c": "frozen"}, "routing has an entry for 'c', but no parameter there"),
            ("frozen", "entries must map"),
            ({"a": 3}, "routing of 'a/w' must be a label"),
        ],
    )
    def test_a_wrong_entry_is_named(self, entries, message: str):
        with pytest.raises(ValueError, match=message):
            jt.routing.override(self.routes(), entries)
