"""The models have the shapes, sizes and names that they promise, and the GPT is causal and position-aware."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxopt_tour._trees import named_leaves
from jaxopt_tour.problems.models import CNN, GPT, MLP, Attention, ResNet, ViT, rotate


def parameters(model: nnx.Module) -> dict[str, tuple[int, ...]]:
    return {name: leaf.shape for name, leaf in named_leaves(nnx.state(model, nnx.Param)).items()}


def count(model: nnx.Module) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def small_gpt() -> GPT:
    return GPT(11, width=16, heads=2, blocks=2, hidden=24, rngs=nnx.Rngs(0))


def test_mlp_shapes():
    model = MLP((5, 8, 3), rngs=nnx.Rngs(0))
    assert model(jnp.ones((4, 5))).shape == (4, 3)
    assert parameters(model) == {
        "head/bias": (3,), "head/kernel": (8, 3), "layers/0/bias": (8,), "layers/0/kernel": (5, 8),
    }  # fmt: skip


def test_cnn_shapes():
    model = CNN(rngs=nnx.Rngs(0))
    assert model(jnp.ones((2, 28, 28))).shape == (2, 10)
    assert parameters(model)["conv2/kernel"] == (3, 3, 16, 32)
    assert count(model) == 105_866


@pytest.mark.slow
def test_resnet_halves_at_every_stage_and_keeps_what_came_in():
    model = ResNet((4, 8), blocks=2, inputs=3, stride=1, classes=5, rngs=nnx.Rngs(0))
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 3)), jnp.float32)
    assert model(images).shape == (2, 5)
    assert [block.shortcut is None for block in model.blocks] == [True, True, False, True]
    x = model.stem(images)
    assert x.shape == (2, 8, 8, 4)
    silent = nnx.clone(model.blocks[0]) if hasattr(nnx, "clone") else model.blocks[0]
    silent.conv2.kernel[...] = jnp.zeros_like(silent.conv2.kernel[...])
    np.testing.assert_array_equal(silent(x), x)  # its residual is zero
    for block in model.blocks:
        x = block(x)
    assert x.shape == (2, 4, 4, 8)
    assert ResNet((4, 8), stride=4, rngs=nnx.Rngs(0))(jnp.ones((1, 28, 28))).shape == (1, 10)


@pytest.mark.slow
def test_vit_cuts_patches_and_looks_both_ways():
    model = ViT(size=8, patch=4, width=8, heads=2, blocks=1, hidden=12, classes=3, rngs=nnx.Rngs(0))
    seen = []
    embed = model.embed

    class Spy(nnx.Module):
        def __call__(self, x):
            seen.append(np.asarray(x))
            return embed(x)

    image = np.arange(64, dtype=np.float32).reshape(1, 8, 8)
    expected = model(jnp.asarray(image))
    model.embed = Spy()
    np.testing.assert_array_equal(model(jnp.asarray(image)), expected)
    for index, (row, column) in enumerate([(0, 0), (0, 4), (4, 0), (4, 4)]):
        np.testing.assert_array_equal(seen[0][0, index], image[0, row : row + 4, column : column + 4].ravel())
    assert expected.shape == (1, 3)
    # The first patch's token hears of the last patch.
    attention = model.blocks[0].attention
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 8)), jnp.float32)
    assert np.any(np.asarray(attention(x)[0, 0]) != np.asarray(attention(x.at[0, 3].add(1.0))[0, 0]))
    with pytest.raises(ValueError, match="patch must divide the images' size 28, got 5"):
        ViT(patch=5, rngs=nnx.Rngs(0))


def test_gpt_has_the_size_and_the_names_that_routing_reads():
    model = nnx.eval_shape(lambda: GPT(76, rngs=nnx.Rngs(0)))
    assert 400_000 <= count(model) <= 1_000_000
    shapes = parameters(model)
    block = {
        "attention/query/kernel": (128, 4, 32), "attention/key/kernel": (128, 4, 32),
        "attention/value/kernel": (128, 4, 32), "attention/out/kernel": (4, 32, 128),
        "mlp/gate/kernel": (128, 352), "mlp/up/kernel": (128, 352), "mlp/down/kernel": (352, 128),
        "attention_norm/scale": (128,), "mlp_norm/scale": (128,),
    }  # fmt: skip
    expected = {f"blocks/{i}/{name}": shape for i in range(2) for name, shape in block.items()}
    outside = {"embed/embedding": (76, 128), "norm/scale": (128,), "head/kernel": (128, 76)}
    assert shapes == expected | outside


@pytest.mark.slow
def test_gpt_is_causal():
    model, tokens = small_gpt(), jnp.arange(8)[None] % 11
    changed = tokens.at[0, 5].set(10)
    before, after = model(tokens), model(changed)
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert not np.allclose(before[:, 5:], after[:, 5:])


def test_gpt_sees_the_order_of_characters():
    logits = small_gpt()(jnp.array([[1, 2, 3], [2, 1, 3]]))
    assert not np.allclose(logits[0, -1], logits[1, -1], atol=1e-4)


def test_rotation_keeps_lengths_and_makes_products_depend_on_distance_alone():
    query, key = np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32)
    turned_query = rotate(jnp.tile(query, (10, 1, 1)))[:, 0]  # the same vector at ten positions
    turned_key = rotate(jnp.tile(key, (10, 1, 1)))[:, 0]
    # float32 sines of angles up to 9: a few units in the last place
    np.testing.assert_allclose(jnp.linalg.norm(turned_query, axis=-1), np.linalg.norm(query), rtol=1e-5)
    products = turned_query @ turned_key.T
    for distance in range(5):
        along = jnp.diagonal(products, distance)
        np.testing.assert_allclose(along, along[0], rtol=1e-4, atol=1e-5)
    assert not np.allclose(products[0, 0], products[0, 3], atol=1e-2)


def test_attention_agrees_with_loops():
    model = Attention(8, 2, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).standard_normal((1, 5, 8)).astype(np.float32)
    query, key = (np.asarray(rotate(layer(x)))[0] for layer in (model.query, model.key))  # (5, 2, 4)
    value = np.asarray(model.value(x))[0]
    expected = np.zeros((5, 8), np.float32)
    for t in range(5):
        for head in range(2):
            scores = np.array([query[t, head] @ key[s, head] / np.sqrt(4) for s in range(t + 1)])
            weights = np.exp(scores - scores.max())
            weights /= weights.sum()
            mixed = sum(weights[s] * value[s, head] for s in range(t + 1))
            expected[t] += mixed @ np.asarray(model.out.kernel)[head]
    np.testing.assert_allclose(model(x)[0], expected, rtol=1e-4, atol=1e-5)  # float32, two orders of summation


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="width 30 and heads 4"):
        GPT(11, width=30, heads=4, rngs=nnx.Rngs(0))
