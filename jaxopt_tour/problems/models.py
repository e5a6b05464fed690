"""The Flax models of the tour: an MLP, a small CNN, a small ResNet, a small GPT and a small vision transformer.

Shapes stand beside every step. Axes: B examples, T characters of a window or patches of an image, D width, H heads,
K = D / H.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from jaxopt_tour._types import Array

# Flax 0.12 wants lists of modules to be marked as such; before, plain lists were.
module_list = getattr(nnx, "List", list)


class MLP(nnx.Module):
    """Fully connected layers with ReLU between them."""

    def __init__(self, sizes: tuple[int, ...], *, rngs: nnx.Rngs) -> None:
        *hidden, outputs = sizes[1:]
        self.layers = module_list(
            [nnx.Linear(fan_in, fan_out, rngs=rngs) for fan_in, fan_out in zip(sizes, hidden, strict=False)]
        )
        self.head = nnx.Linear(sizes[-2], outputs, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """Inputs (B, sizes[0]) to outputs (B, sizes[-1])."""
        for layer in self.layers:
            x = nnx.relu(layer(x))  # (B, fan_out)
        return self.head(x)  # (B, outputs)


class CNN(nnx.Module):
    """Two strided convolutions and two fully connected layers, for gray images of 28 x 28 pixels.

    Strides stand in for pooling: the gradient of max pooling takes longer on a CPU than the rest of the step.
    """

    def __init__(self, classes: int = 10, *, channels: tuple[int, int] = (16, 32), rngs: nnx.Rngs) -> None:
        first, second = channels
        self.conv1 = nnx.Conv(1, first, (3, 3), strides=2, rngs=rngs)
        self.conv2 = nnx.Conv(first, second, (3, 3), strides=2, rngs=rngs)
        self.hidden = nnx.Linear(7 * 7 * second, 64, rngs=rngs)
        self.head = nnx.Linear(64, classes, rngs=rngs)

    def __call__(self, images: Array) -> Array:
        """Images (B, 28, 28) to logits (B, classes)."""
        x = images[..., None]  # (B, 28, 28, 1)
        x = nnx.relu(self.conv1(x))  # (B, 14, 14, first)
        x = nnx.relu(self.conv2(x))  # (B, 7, 7, second)
        x = x.reshape(x.shape[0], -1)  # (B, 49 * second)
        x = nnx.relu(self.hidden(x))  # (B, 64)
        return self.head(x)  # (B, classes)


class ResidualBlock(nnx.Module):
    """Two convolutions, each on normalized inputs, added to what came in; a stride halves height and width.

    Source: He et al. 2016, Identity Mappings in Deep Residual Networks, https://arxiv.org/abs/1603.05027, with group
    normalization (Wu & He 2018, https://arxiv.org/abs/1803.08494) in place of batch normalization, which has a state.
    """

    def __init__(self, fan_in: int, fan_out: int, *, stride: int = 1, groups: int = 4, rngs: nnx.Rngs) -> None:
        self.norm1 = nnx.GroupNorm(fan_in, num_groups=groups, rngs=rngs)
        self.conv1 = nnx.Conv(fan_in, fan_out, (3, 3), strides=stride, use_bias=False, rngs=rngs)
        self.norm2 = nnx.GroupNorm(fan_out, num_groups=groups, rngs=rngs)
        self.conv2 = nnx.Conv(fan_out, fan_out, (3, 3), use_bias=False, rngs=rngs)
        self.shortcut = (
            None
            if stride == 1 and fan_in == fan_out
            else nnx.Conv(fan_in, fan_out, (1, 1), strides=stride, use_bias=False, rngs=rngs)
        )

    def __call__(self, x: Array) -> Array:
        """(B, height, width, fan_in) to (B, height / stride, width / stride, fan_out)."""
        ready = nnx.relu(self.norm1(x))
        residual = self.conv2(nnx.relu(self.norm2(self.conv1(ready))))
        return residual + (x if self.shortcut is None else self.shortcut(ready))


class ResNet(nnx.Module):
    """A convolution, stages of residual blocks, the mean over all places, and a linear layer.

    Args:
        channels: of each stage; every stage but the first halves height and width.
        blocks: residual blocks of a stage.
        inputs: channels of the images; 1 takes images (B, height, width).
        stride: of the first convolution, whose window is 3 x 3, or the stride where that is larger.
        classes: how many.
        rngs: Flax's.
    """

    def __init__(
        self,
        channels: tuple[int, ...] = (8, 16),
        *,
        blocks: int = 1,
        inputs: int = 1,
        stride: int = 2,
        classes: int = 10,
        rngs: nnx.Rngs,
    ) -> None:
        window = (max(3, stride), max(3, stride))
        self.stem = nnx.Conv(inputs, channels[0], window, strides=stride, use_bias=False, rngs=rngs)
        found, fan_in = [], channels[0]
        for stage, fan_out in enumerate(channels):
            for index in range(blocks):
                found.append(ResidualBlock(fan_in, fan_out, stride=2 if stage and not index else 1, rngs=rngs))
                fan_in = fan_out
        self.blocks = module_list(found)
        self.norm = nnx.GroupNorm(fan_in, num_groups=4, rngs=rngs)
        self.head = nnx.Linear(fan_in, classes, rngs=rngs)

    def __call__(self, images: Array) -> Array:
        """Images (B, height, width) or (B, height, width, inputs) to logits (B, classes)."""
        x = self.stem(images[..., None] if images.ndim == 3 else images)
        for block in self.blocks:
            x = block(x)
        x = nnx.relu(self.norm(x)).mean(axis=(1, 2))  # (B, channels)
        return self.head(x)  # (B, classes)


def rotate(x: Array, base: float = 10_000.0) -> Array:
    """Rotary positions: turn the pair (x_i, x_{i + K/2}) at position t by the angle t base^(-2i/K).

    The product of a query and a key then depends on their distance alone.

    Source: Su et al. 2021, RoFormer, https://arxiv.org/abs/2104.09864 (pairs half a head apart, as in GPT-NeoX).
    """
    time, half = x.shape[-3], x.shape[-1] // 2
    frequency = base ** (-jnp.arange(half) / half)  # (K/2,)
    angle = jnp.arange(time)[:, None] * frequency  # (T, K/2)
    cos, sin = jnp.cos(angle)[:, None, :], jnp.sin(angle)[:, None, :]  # (T, 1, K/2)
    first, second = x[..., :half], x[..., half:]  # (B, T, H, K/2) each
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)  # (B, T, H, K)


class Attention(nnx.Module):
    """Self-attention with several heads and rotary positions; where causal, no position sees a later one."""

    def __init__(self, width: int, heads: int, *, causal: bool = True, rngs: nnx.Rngs) -> None:
        per_head = (heads, width // heads)
        self.causal = causal
        self.query = nnx.LinearGeneral(width, per_head, use_bias=False, rngs=rngs)
        self.key = nnx.LinearGeneral(width, per_head, use_bias=False, rngs=rngs)
        self.value = nnx.LinearGeneral(width, per_head, use_bias=False, rngs=rngs)
        self.out = nnx.LinearGeneral(per_head, width, axis=(-2, -1), use_bias=False, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """(B, T, D) to (B, T, D)."""
        query, key, value = rotate(self.query(x)), rotate(self.key(x)), self.value(x)  # (B, T, H, K) each
        mixed = jax.nn.dot_product_attention(query, key, value, is_causal=self.causal)  # (B, T, H, K)
        return self.out(mixed)  # (B, T, D)


class SwiGLU(nnx.Module):
    """The gated feed-forward layer down(silu(gate x) * up x).

    Source: Shazeer 2020, GLU Variants Improve Transformer, https://arxiv.org/abs/2002.05202
    """

    def __init__(self, width: int, hidden: int, *, rngs: nnx.Rngs) -> None:
        self.gate = nnx.Linear(width, hidden, use_bias=False, rngs=rngs)
        self.up = nnx.Linear(width, hidden, use_bias=False, rngs=rngs)
        self.down = nnx.Linear(hidden, width, use_bias=False, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """(B, T, D) to (B, T, D)."""
        x = nnx.silu(self.gate(x)) * self.up(x)  # (B, T, hidden)
        return self.down(x)  # (B, T, D)


class Block(nnx.Module):
    """Attention, then feed-forward, each on a normalized input and added to what came in."""

    def __init__(self, width: int, heads: int, hidden: int, *, causal: bool = True, rngs: nnx.Rngs) -> None:
        self.attention_norm = nnx.RMSNorm(width, rngs=rngs)
        self.attention = Attention(width, heads, causal=causal, rngs=rngs)
        self.mlp_norm = nnx.RMSNorm(width, rngs=rngs)
        self.mlp = SwiGLU(width, hidden, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """(B, T, D) to (B, T, D)."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class GPT(nnx.Module):
    """A decoder-only transformer with RMSNorm, SwiGLU, rotary positions and an untied head."""

    def __init__(
        self, vocabulary: int, *, width: int = 128, heads: int = 4, blocks: int = 2, hidden: int = 352, rngs: nnx.Rngs
    ) -> None:
        if width % heads or (width // heads) % 2:
            raise ValueError(f"width must be heads times an even number, got width {width} and heads {heads}")
        self.embed = nnx.Embed(vocabulary, width, rngs=rngs)
        self.blocks = module_list([Block(width, heads, hidden, rngs=rngs) for _ in range(blocks)])
        self.norm = nnx.RMSNorm(width, rngs=rngs)
        self.head = nnx.Linear(width, vocabulary, use_bias=False, rngs=rngs)

    def __call__(self, tokens: Array) -> Array:
        """Characters (B, T) to the logits of the next ones (B, T, vocabulary)."""
        x = self.embed(tokens)  # (B, T, D)
        for block in self.blocks:
            x = block(x)  # (B, T, D)
        return self.head(self.norm(x))  # (B, T, vocabulary)


class ViT(nnx.Module):
    """A vision transformer: patches of a gray image as tokens, blocks that look both ways, the mean of all tokens.

    Source: Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929, with this module's blocks and mean pooling.

    Args:
        size: height and width of the images.
        patch: height and width of a patch.
        width: of a token.
        heads: of the attention.
        blocks: how many.
        hidden: width of the feed-forward layers.
        classes: how many.
        rngs: Flax's.
    """

    def __init__(
        self,
        *,
        size: int = 28,
        patch: int = 7,
        width: int = 48,
        heads: int = 4,
        blocks: int = 2,
        hidden: int = 96,
        classes: int = 10,
        rngs: nnx.Rngs,
    ) -> None:
        if size % patch:
            raise ValueError(f"patch must divide the images' size {size}, got {patch}")
        self.patch = patch
        self.embed = nnx.Linear(patch * patch, width, rngs=rngs)
        self.position = nnx.Embed((size // patch) ** 2, width, rngs=rngs)
        self.blocks = module_list([Block(width, heads, hidden, causal=False, rngs=rngs) for _ in range(blocks)])
        self.norm = nnx.RMSNorm(width, rngs=rngs)
        self.head = nnx.Linear(width, classes, rngs=rngs)

    def __call__(self, images: Array) -> Array:
        """Images (B, size, size) to logits (B, classes)."""
        p = self.patch
        rows = images.shape[1] // p
        x = images.reshape(-1, rows, p, rows, p).swapaxes(2, 3).reshape(-1, rows * rows, p * p)  # (B, T, p * p)
        x = self.embed(x) + self.position(jnp.arange(rows * rows))  # (B, T, D)
        for block in self.blocks:
            x = block(x)  # (B, T, D)
        return self.head(self.norm(x).mean(axis=1))  # (B, classes)
