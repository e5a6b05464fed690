"""`init` says once what the parameters are, and warns where matrices are not understood."""

from __future__ import annotations

import logging
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jaxopt_tour as jt

UNDERSTOOD = {
    "embed": {"embedding": jnp.zeros((20, 8))}, "up": {"kernel": jnp.zeros((8, 16)), "bias": jnp.zeros(16)},
    "head": {"kernel": jnp.zeros((16, 20))},
}  # fmt: skip
ODD = {**UNDERSTOOD, "odd": jnp.zeros((2, 3, 4))}


@pytest.fixture
def records(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.INFO, logger="jaxopt_tour")
    return caplog


@pytest.mark.parametrize("optimizer", [jt.muon, jt.shampoo])
def test_init_logs_the_totals(records: Any, optimizer: Any) -> None:
    optimizer(1e-3).init(UNDERSTOOD)
    assert [(record.levelname, record.message) for record in records.records] == [
        ("INFO", "matrix 1 parameter (20.5 %), embedding 1, head 1, vector 1")
    ]


def test_matrices_that_are_not_understood_warn_with_the_way_out(records: Any) -> None:
    jt.muon(1e-3).init(ODD)
    info, warning = records.records
    assert info.message.endswith("not understood 1 (3.7 %): route by use")
    assert warning.levelname == "WARNING" and "'odd'" in warning.message and "from_function" in warning.message
    records.clear()
    jt.muon(1e-3).init({**UNDERSTOOD, "odd": jnp.zeros((2, 1, 4))})
    assert [record.levelname for record in records.records] == ["INFO"]


@pytest.mark.parametrize("label", ["frozen", "other"])
def test_a_label_that_is_given_does_not_warn(records: Any, label: str) -> None:
    jt.muon(1e-3, routing={"odd": label}).init(ODD)
    assert [record.levelname for record in records.records] == ["INFO"]


@pytest.mark.parametrize(
    "init",
    [
        lambda tx: jax.jit(tx.init)(ODD),
        lambda tx: (jax.eval_shape(tx.init, ODD), jax.jit(tx.init)(ODD), tx.init(ODD)),
        lambda tx: jax.jit(lambda p, s: tx.update(p, s, p)[0])(ODD, tx.init(ODD)),
    ],
    ids=["jit", "shapes first", "an update"],
)
def test_nothing_is_said_twice(records: Any, init: Any) -> None:
    init(jt.muon(1e-3))
    assert [record.levelname for record in records.records] == ["INFO", "WARNING"]


def test_logging_silences_it(capfd: Any) -> None:
    logger = logging.getLogger("jaxopt_tour")
    level = logger.level
    logger.setLevel("ERROR")
    try:
        jt.muon(1e-3).init(ODD)
    finally:
        logger.setLevel(level)
    assert capfd.readouterr() == ("", "")
