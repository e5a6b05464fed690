"""Parameter trees with the names and shapes of real models, filled with random numbers on demand."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Tree = dict[str, Any]


def dense(*shape: int) -> jax.ShapeDtypeStruct:
    """One float32 parameter."""
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def gpt2_small(layers: int = 12, width: int = 768) -> Tree:
    """GPT-2 small: 124 M parameters, learned positions, fused query-key-value, tied head. Kernels are (in, out)."""

    def block() -> Tree:
        return {
            "ln_1": {"scale": dense(width), "bias": dense(width)},
            "attn": {
                "c_attn": {"kernel": dense(width, 3 * width), "bias": dense(3 * width)},
                "c_proj": {"kernel": dense(width, width), "bias": dense(width)},
            },
            "ln_2": {"scale": dense(width), "bias": dense(width)},
            "mlp": {
                "c_fc": {"kernel": dense(width, 4 * width), "bias": dense(4 * width)},
                "c_proj": {"kernel": dense(4 * width, width), "bias": dense(width)},
            },
        }

    return {
        "wte": {"embedding": dense(50257, width)},
        "wpe": {"embedding": dense(1024, width)},
        "h": {str(i): block() for i in range(layers)},
        "ln_f": {"scale": dense(width), "bias": dense(width)},
    }


def gpt2_small_scanned(layers: int = 12, width: int = 768) -> Tree:
    """The same model with its layers scanned: every leaf of a block has a leading axis of layers."""
    tree = gpt2_small(1, width)
    block = tree["h"]["0"]
    return tree | {"h": jax.tree.map(lambda leaf: dense(layers, *leaf.shape), block)}


def resnet18() -> Tree:
    """ResNet-18 for ImageNet: 3 x 3 convolutions (kh, kw, in, out) in four stages, batch norms, one dense head."""
    tree: Tree = {"conv_init": {"kernel": dense(7, 7, 3, 64)}, "bn_init": {"scale": dense(64), "bias": dense(64)}}
    channels = 64
    for stage, width in enumerate((64, 128, 256, 512)):
        for number in range(2):
            block: Tree = {
                "Conv_0": {"kernel": dense(3, 3, channels, width)},
                "BatchNorm_0": {"scale": dense(width), "bias": dense(width)},
                "Conv_1": {"kernel": dense(3, 3, width, width)},
                "BatchNorm_1": {"scale": dense(width), "bias": dense(width)},
            }
            if channels != width:
                block["conv_proj"] = {"kernel": dense(1, 1, channels, width)}
            tree[f"ResNetBlock_{2 * stage + number}"] = block
            channels = width
    return tree | {"head": {"kernel": dense(512, 1000), "bias": dense(1000)}}


def few_large(width: int = 1024) -> Tree:
    """Two matrices of a shape each, one wide and one tall: 4.2 M entries both."""
    return {
        "up": {"kernel": dense(width, 4 * width), "bias": dense(4 * width)},
        "down": {"kernel": dense(8 * width, width // 2), "bias": dense(width // 2)},
    }


TREES = {"gpt2-small": gpt2_small, "gpt2-small-scanned": gpt2_small_scanned, "resnet18": resnet18}


def filled(tree: Tree, seed: int = 0, scale: float = 1.0) -> Tree:
    """The tree with Gaussian entries."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(scale * rng.standard_normal(leaf.shape, np.float32)),
        tree,
        is_leaf=lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct),
    )
