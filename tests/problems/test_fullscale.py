"""The settings for the real scale: their sizes by shape alone, and one step of each on tiny data."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_tour.problems import fullscale
from jaxopt_tour.problems.data.fullsize import Images
from jaxopt_tour.problems.workloads import Workload, parameters

pytestmark = pytest.mark.slow
RNG = np.random.default_rng(0)


def images(*shape: int) -> Images:
    pixels = (RNG.random((28, *shape)) ** 2 * 255).astype(np.uint8)
    labels = np.arange(28, dtype=np.uint8) % 10
    return Images(pixels[:20], labels[:20], pixels[20:], labels[20:])


def one_step(workload: Workload) -> tuple[float, float, float]:
    """Loss before and after one small step on a batch, and the measurement."""
    data = jax.tree.map(jnp.asarray, workload.data())

    @jax.jit
    def run(key, data):
        params = workload.init(key)
        batch = workload.draw(data, key)
        loss, gradient = jax.value_and_grad(workload.loss)(params, batch)
        length = optax.tree.norm(gradient)
        stepped = jax.tree.map(lambda x, g: x - 1e-2 * g / length, params, gradient)
        return loss, workload.loss(stepped, batch), workload.measure(params, data)

    return tuple(map(float, run(jax.random.key(0), data)))


def test_channels_have_mean_zero_and_deviation_one_over_the_training_pixels():
    for given in (images(28, 28), images(32, 32, 3)):
        data, axes = fullscale.image_data(given), (0, 1, 2)
        np.testing.assert_allclose(data["images"].mean(axis=axes), 0, atol=1e-4)
        np.testing.assert_allclose(data["images"].std(axis=axes), 1, atol=1e-4)
        pixels = given.train_images.astype(np.float64)
        expected = (given.test_images - pixels.mean(axis=axes)) / pixels.std(axis=axes)
        np.testing.assert_allclose(data["held_out_images"], expected, atol=1e-5)
        assert data["images"].dtype == np.float32 and data["labels"].dtype == np.int32


def test_models_have_the_sizes_that_are_said():
    millions = {
        "11M": fullscale.byte_gpt(size="11M"),
        "26M": fullscale.byte_gpt(size="26M", tokens=65_536),
        "resnet": fullscale.cifar_resnet(lambda: images(32, 32, 3)),
        "cnn": fullscale.fashion_cnn(lambda: images(28, 28)),
    }
    sizes = {name: parameters(workload) / 1e6 for name, workload in millions.items()}
    np.testing.assert_allclose([sizes[name] for name in ("11M", "26M", "resnet", "cnn")], [11, 26, 11, 0.22], rtol=0.05)
    assert millions["26M"].batch_text == "256 windows of 256 bytes"


@pytest.mark.slow
def test_one_step_of_the_cnn_and_of_a_narrow_resnet_goes_down():
    cnn = fullscale.fashion_cnn(lambda: images(28, 28), channels=(4, 4), batch=8)
    resnet = fullscale.cifar_resnet(lambda: images(32, 32, 3), channels=(4,), blocks=1, batch=4, parts=2)
    assert resnet.title == "CIFAR-10, ResNet of 4 layers"
    for workload in (cnn, resnet):
        before, after, measured = one_step(workload)
        assert after < before and math.isfinite(measured)


def test_one_step_of_the_byte_gpt_goes_down(monkeypatch):
    monkeypatch.setitem(fullscale.GPT_SIZES, "tiny", {"width": 8, "heads": 2, "blocks": 1, "hidden": 16})
    text = b"all the world's a stage, \xff and all the men and women merely players. " * 20
    before, after, measured = one_step(fullscale.byte_gpt(lambda: text, size="tiny", tokens=32, length=16))
    # A fresh model knows nothing of 256 bytes: about log(256) nats each.
    assert after < before and abs(measured - math.log(256)) < 1


def test_nothing_is_read_before_a_run_begins():
    def never() -> Images:
        raise AssertionError("read too early")

    workload = fullscale.cifar_resnet(never)
    jax.eval_shape(workload.init, jax.random.key(0))


def test_arguments_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="size must be one of '11M', '26M'"):
        fullscale.byte_gpt(size="10M")
    with pytest.raises(ValueError, match="length must divide tokens = 8192, got 100"):
        fullscale.byte_gpt(length=100)
    with pytest.raises(ValueError, match="the text must have at least 2,580 bytes for windows of 256, got 3"):
        fullscale.byte_gpt(lambda: b"abc").data()
