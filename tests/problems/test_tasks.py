"""Batches are a function of (seed, step), cover the data, and never touch what is held out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxopt_tour.problems import tasks
from jaxopt_tour.problems.data import datasets


@pytest.mark.parametrize("name", tasks.TASKS)
def test_batches_depend_on_seed_and_step_alone(name):
    task = tasks.make_task(name)
    first, again = task.batch(0, 7), task.batch(0, 7)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    for other in (task.batch(0, 8), task.batch(1, 7)):
        assert not np.array_equal(first.inputs, other.inputs)


def test_an_epoch_shows_every_example_once_and_the_next_in_another_order():
    epochs = [np.concatenate([tasks.shuffled_positions(40, 8, 3, 5 * e + i) for i in range(5)]) for e in range(2)]
    assert all(sorted(epoch) == list(range(40)) for epoch in epochs)
    assert epochs[0].tolist() != epochs[1].tolist()


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(ValueError, match="batch_size must be at most the number of examples, 40, got 41"):
        tasks.shuffled_positions(40, 41, 0, 0)


def test_images_and_labels_stay_together():
    task, data = tasks.cnn(), datasets.fashion_mnist()
    batch = task.batch(3, 40)
    chosen = tasks.shuffled_positions(4000, 128, 3, 40)
    np.testing.assert_array_equal(batch.targets, data.train_labels[chosen])
    # Mirroring and moving by a pixel keep most of an image's brightness.
    brightness = (batch.inputs * 0.353 + 0.286).mean((1, 2))
    np.testing.assert_allclose(brightness, data.train_images[chosen].mean((1, 2)) / 255, atol=0.03)


def test_flips_and_shifts_are_all_there_and_nothing_else():
    image = np.zeros((28, 28), np.float32)
    image[10, 5] = 1.0
    changed = tasks.flip_and_shift(np.tile(image, (500, 1, 1)), 0, 0)
    assert changed.shape == (500, 28, 28) and changed.dtype == np.float32
    np.testing.assert_array_equal(changed.sum((1, 2)), 1.0)
    places = {(int(row), int(column)) for _, row, column in np.argwhere(changed)}
    assert places == {(row, column) for row in (9, 10, 11) for column in (4, 5, 6, 21, 22, 23)}


def test_targets_are_the_next_characters_of_the_training_text():
    task, data = tasks.gpt(), datasets.shakespeare()
    batch = task.batch(0, 0)
    assert batch.inputs.shape == batch.targets.shape == (8, 128)
    np.testing.assert_array_equal(batch.inputs[:, 1:], batch.targets[:, :-1])
    train = data.text[: len(data.text) * 9 // 10]
    for row, last in zip(batch.inputs, batch.targets[:, -1:], strict=True):
        assert data.decode(row) + data.decode(last) in train


def test_held_out_text_is_the_last_tenth():
    data = datasets.shakespeare()
    held_out = data.text[len(data.text) * 9 // 10 :]
    for batch in tasks.gpt().held_out:
        assert all(data.decode(row) in held_out for row in batch.inputs)


def test_held_out_images_are_the_test_split():
    (batch,) = tasks.cnn().held_out
    assert batch.inputs.shape == (1000, 28, 28)
    np.testing.assert_array_equal(batch.targets, datasets.fashion_mnist().test_labels)


def test_windows_reach_the_last_character_and_no_further():
    tokens = np.arange(12)
    starts = {int(tasks.random_windows(tokens, 1, 10, 0, step).inputs[0, 0]) for step in range(50)}
    assert starts == {0, 1}


def test_cross_entropy_and_accuracy_by_hand():
    logits = jnp.array([[2.0, 0.0], [0.0, 1.0]])
    batch = tasks.Batch(None, jnp.array([0, 0]))
    by_hand = np.mean([np.log(1 + np.exp(-2)), np.log(1 + np.exp(1))])
    # float32 against float64
    np.testing.assert_allclose(tasks.cross_entropy(lambda _: logits, batch), by_hand, rtol=1e-6)
    assert tasks.accuracy(lambda _: logits, batch) == 0.5


@pytest.mark.slow
def test_fresh_models_start_near_chance():
    task = tasks.cnn()
    loss = task.loss(task.model(nnx.Rngs(0)), task.held_out[0])
    assert 0.9 * np.log(10) < loss < 1.5 * np.log(10)


def test_an_unknown_task_lists_the_known():
    with pytest.raises(ValueError, match="task must be one of cnn, gpt, got 'vit'"):
        tasks.make_task("vit")
