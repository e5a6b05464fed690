"""TensorBoard reads what the metrics' dictionary writes."""

from __future__ import annotations

import pathlib
import struct

import jax.numpy as jnp
import optax
import pytest
import tensorboardX
from tensorboardX.proto import event_pb2

import jaxopt_tour as jt


def events(path: pathlib.Path) -> list[event_pb2.Event]:
    """The events of a file: records of a length (8 bytes), its check (4), the event, and its check (4)."""
    data, found, place = path.read_bytes(), [], 0
    while place < len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        found.append(event_pb2.Event.FromString(data[place + 12 : place + 12 + length]))
        place += 16 + length
    return found


@pytest.mark.slow
def test_every_metric_is_a_scalar_of_the_event_file(tmp_path: pathlib.Path) -> None:
    params = {"up": {"kernel": jnp.ones((4, 6)), "bias": jnp.ones(6)}}
    tx = jt.monitored(optax.adam(1e-3))
    metrics = jt.metrics(tx.update(params, tx.init(params), params)[1])
    with tensorboardX.SummaryWriter(str(tmp_path)) as writer:
        for name, value in metrics.items():
            writer.add_scalar(name, value, int(metrics["measured_at"]))
    (path,) = tmp_path.glob("events.out.tfevents.*")
    written = {value.tag: (value.simple_value, event.step) for event in events(path) for value in event.summary.value}
    assert written == {name: (pytest.approx(value, rel=1e-6), 1) for name, value in metrics.items()}
