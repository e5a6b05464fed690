"""Loggers take the metrics' dictionary as it is; those that are not installed are left out."""

from __future__ import annotations

import pathlib
from typing import Any

import jax.numpy as jnp
import optax
import pytest

import jaxopt_tour as jt

# Packages of others: what they deprecate, or leave open, says nothing about the dictionary.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def measured() -> dict[str, float]:
    params = {"up": {"kernel": jnp.ones((4, 6)), "bias": jnp.ones(6)}}
    tx = jt.monitored(optax.adam(1e-3))
    return jt.metrics(tx.update(params, tx.init(params), params)[1])


def test_weights_and_biases_logs_it_offline(
    measured: dict[str, float], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    with wandb.init(mode="offline", project="metrics", dir=str(tmp_path)) as run:
        run.log(measured, step=1, commit=True)
        logged = {name: run.summary[name] for name in measured}
    assert logged == measured
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def test_trackio_stores_it_on_this_machine(
    measured: dict[str, float], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))  # read when it is imported
    trackio = pytest.importorskip("trackio")
    storage = pytest.importorskip("trackio.sqlite_storage").SQLiteStorage
    trackio.init(project="metrics", name="run", embed=False)
    trackio.log(measured, step=1)
    trackio.finish()
    (row,) = storage.get_logs("metrics", "run")
    assert {name: row[name] for name in measured} == pytest.approx(measured)


def test_clu_writes_it(measured: dict[str, float], caplog: pytest.LogCaptureFixture) -> None:
    metric_writers: Any = pytest.importorskip("clu.metric_writers")
    caplog.set_level("INFO")
    writer = metric_writers.LoggingWriter()
    writer.write_scalars(1, measured)
    writer.flush()
    assert all(name in caplog.text for name in measured)
