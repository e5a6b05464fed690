"""Overrides of routing, their errors, and the table that shows the result."""

from __future__ import annotations

import jax.numpy as jnp
import pytest
from flax import nnx

import jaxopt_tour as jt
from jaxopt_tour.routing.axes import MatrixAxes
from jaxopt_tour.routing.by_name.conventions import ByName
from jaxopt_tour.routing.resolve import resolve
from jaxopt_tour.routing.route import Route
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


def test_a_label_without_a_transformation_raises_at_init() -> None:
    tx = jt.multi_transform({"matrix": jt.scale_by_muon()})
    with pytest.raises(ValueError, match=r"'dense/bias'.*'vector'.*'matrix'"):
        tx.init(PARAMS)


def test_the_table_says_what_goes_where_and_why() -> None:
    table = routing_table(PARAMS)
    rows = {row.path: row for row in table.rows}
    assert rows["dense/kernel"].matrices == ((1, 4, 8),)
    assert rows["dense/kernel"].factor == pytest.approx(0.2 * 8**0.5)
    assert rows["embed/embedding"].role == "embedding" and rows["embed/embedding"].factor is None
    assert rows["head/kernel"].matrices == ()
    text = str(table)
    for row in table.rows:
        assert row.path in text and row.reason in text


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
