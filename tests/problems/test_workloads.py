"""Workloads draw what they promise, train what they promise, and send matrices where Muon expects them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxopt_tour.problems import workloads
from jaxopt_tour.problems.tasks import Batch
from jaxopt_tour.problems.workloads import functions_of_model, model_workload, parameters, small_gpt
from jaxopt_tour.routing.resolution import resolve

EVERY = {
    "mlp": (workloads.fashion_mlp, 784 * 64 + 64 + 64 * 64 + 64 + 64 * 10 + 10),
    "cnn": (workloads.fashion_cnn, 52_138),
    "resnet": (workloads.fashion_resnet, 5_146),
    "vit": (workloads.fashion_vit, 49_978),
    "gpt": (small_gpt, 110_400),
}


@pytest.mark.parametrize("name", EVERY)
def test_size_name_and_batches(name):
    make, size = EVERY[name]
    workload = make()
    assert workload.name == name and parameters(workload) == size
    data = workload.data()
    params = jax.eval_shape(workload.init, jax.random.key(0))
    batch = jax.eval_shape(workload.draw, data, jax.random.key(0))
    for value in (jax.eval_shape(workload.loss, params, batch), jax.eval_shape(workload.measure, params, data)):
        assert (value.shape, value.dtype) == ((), jnp.float32)
    assert {route.role for route in resolve(workload.routing, params).values()} >= {"matrix", "head", "vector"}


def test_images_are_those_of_the_data_mirrored_and_shifted():
    workload = workloads.fashion_mlp(16)
    data = jax.tree.map(jnp.asarray, workload.data())
    batch = workload.draw(data, jax.random.key(1))
    assert batch.inputs.shape == (16, 28, 28) and batch.targets.shape == (16,)
    known = np.asarray(data["images"])
    for image, label in zip(np.asarray(batch.inputs), np.asarray(batch.targets), strict=True):
        inner = image[1:-1, 1:-1]  # what no shift by one pixel can have replaced
        candidates = known[np.asarray(data["labels"]) == label]
        found = any(
            np.any(np.all(turned[:, 1 + dy : 27 + dy, 1 + dx : 27 + dx] == inner, axis=(1, 2)))
            for turned in (candidates, candidates[:, :, ::-1])
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
        )
        assert found
    again, other = (workload.draw(data, jax.random.key(seed)).inputs for seed in (1, 2))
    np.testing.assert_array_equal(again, batch.inputs)
    assert np.any(np.asarray(other) != np.asarray(batch.inputs))


def test_targets_of_the_text_are_the_next_characters():
    workload = small_gpt(4)
    data = workload.data()
    batch = workload.draw(jax.tree.map(jnp.asarray, data), jax.random.key(0))
    assert batch.inputs.shape == (4, 64)
    np.testing.assert_array_equal(batch.inputs[:, 1:], batch.targets[:, :-1])
    np.testing.assert_array_equal(data["held_out_inputs"][:, 1:], data["held_out_targets"][:, :-1])
    # Nothing that is measured on is trained on: the two parts of the text have no place in common.
    assert len(data["tokens"]) == 932_833 and data["held_out_inputs"].shape == (128, 64)


def test_the_measure_is_the_mean_over_all_held_out_data():
    data = {"x": np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32), "y": np.arange(12) % 3}
    shared = {
        "name": "x", "title": "x", "data": lambda: data, "draw": lambda data, key: None, "measured": "x",
        "target": 0.0, "steps": 1, "batch_text": "x",
    }  # fmt: skip
    make, held_out = lambda rngs: nnx.Linear(5, 3, rngs=rngs), lambda data: Batch(data["x"], data["y"])
    whole, in_parts = (model_workload(make, held_out=held_out, parts=parts, **shared) for parts in (1, 4))
    params = whole.init(jax.random.key(0))
    logits = np.asarray(data["x"] @ params["kernel"][...] + params["bias"][...], np.float64)
    chosen = logits[np.arange(12), data["y"]]
    expected = np.mean(np.log(np.exp(logits).sum(1)) - chosen)
    for workload in (whole, in_parts):
        # float32 logarithms of sums of three exponentials, averaged.
        assert float(workload.measure(params, jax.tree.map(jnp.asarray, data))) == pytest.approx(expected, rel=1e-5)


def test_a_model_with_another_state_is_refused():
    with pytest.raises(ValueError, match="no state but its parameters"):
        functions_of_model(lambda rngs: nnx.BatchNorm(4, rngs=rngs))
