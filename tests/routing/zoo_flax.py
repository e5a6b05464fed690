"""The zoo's Flax models, nnx and linen."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import optax
from flax import nnx

from tests.routing.zoo_case import (
    DENSE,
    DEPTHWISE,
    EMBEDDING,
    HEAD,
    POSITION,
    VECTOR,
    abstract,
    case,
    floats,
    linen,
    matrix,
    stacked,
    tied,
    tokens,
    under,
)

# Flax nnx


class NnxMLP(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.fc1 = nnx.Linear(8, 16, rngs=rngs)
        self.norm = nnx.LayerNorm(16, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.fc2 = nnx.Linear(16, 12, rngs=rngs)
        self.head = nnx.Linear(12, 3, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = nnx.relu(self.norm(self.fc1(x)))
        return self.head(nnx.relu(self.fc2(self.dropout(x))))


MLP = {
    "fc1/kernel": DENSE, "fc1/bias": VECTOR, "norm/scale": VECTOR, "norm/bias": VECTOR, "fc2/kernel": DENSE,
    "fc2/bias": VECTOR, "head/kernel": HEAD, "head/bias": VECTOR,
}  # fmt: skip


@case(MLP, conventional=True)
def nnx_mlp() -> tuple[Any, ...]:
    return abstract(NnxMLP), floats(5, 8)


@case(MLP, conventional=True)
def nnx_loss() -> tuple[Any, ...]:
    def loss(model: NnxMLP, x: Any, labels: Any) -> Any:
        return optax.softmax_cross_entropy_with_integer_labels(model(x), labels).mean()

    return loss, abstract(NnxMLP), floats(5, 8), tokens(5)


class NnxCNN(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(1, 8, (3, 3), rngs=rngs)
        self.bn = nnx.BatchNorm(8, rngs=rngs)
        self.conv2 = nnx.Conv(8, 16, (3, 3), strides=2, rngs=rngs)
        self.depthwise = nnx.Conv(16, 16, (3, 3), feature_group_count=16, rngs=rngs)
        self.pointwise = nnx.Conv(16, 24, (1, 1), use_bias=False, rngs=rngs)
        self.fc = nnx.Linear(24, 20, rngs=rngs)
        self.head = nnx.Linear(20, 10, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = nnx.relu(self.bn(self.conv1(x)))
        x = nnx.max_pool(nnx.relu(self.conv2(x)), (2, 2), strides=(2, 2))
        x = nnx.relu(self.pointwise(self.depthwise(x))).mean(axis=(1, 2))
        return self.head(nnx.relu(self.fc(x)))


CONV2 = matrix((0, 1, 2), 3)


@case(
    {
        "conv1/kernel": CONV2, "conv1/bias": VECTOR, "bn/scale": VECTOR, "bn/bias": VECTOR,
        "conv2/kernel": CONV2, "conv2/bias": VECTOR, "depthwise/kernel": DEPTHWISE, "depthwise/bias": VECTOR,
        "pointwise/kernel": CONV2, "fc/kernel": DENSE, "fc/bias": VECTOR, "head/kernel": HEAD, "head/bias": VECTOR,
    },
    conventional=True,
)  # fmt: skip
def nnx_cnn() -> tuple[Any, ...]:
    return abstract(NnxCNN), floats(2, 16, 16, 1)


ATTENTION = {
    f"{name}/{leaf}": route
    for name in ("query", "key", "value")
    for leaf, route in {"kernel": matrix(0, (1, 2)), "bias": VECTOR}.items()
} | {"out/kernel": matrix((0, 1), 2), "out/bias": VECTOR}


class NnxBlock(nnx.Module):
    def __init__(self, width: int, rngs: nnx.Rngs):
        self.norm1 = nnx.RMSNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, width, decode=False, rngs=rngs)
        self.norm2 = nnx.RMSNorm(width, rngs=rngs)
        self.up = nnx.Linear(width, 4 * width, rngs=rngs)
        self.down = nnx.Linear(4 * width, width, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = x + self.attention(self.norm1(x))
        return x + self.down(nnx.gelu(self.up(self.norm2(x))))


BLOCK = under("attention", ATTENTION) | {
    "norm1/scale": VECTOR, "norm2/scale": VECTOR, "up/kernel": DENSE, "up/bias": VECTOR, "down/kernel": DENSE,
    "down/bias": VECTOR,
}  # fmt: skip


class NnxLM(nnx.Module):
    def __init__(self, tied: bool, rngs: nnx.Rngs):
        self.embed = nnx.Embed(30, 8, rngs=rngs)
        self.positions = nnx.Embed(12, 8, rngs=rngs)
        self.first = NnxBlock(8, rngs)
        self.second = NnxBlock(8, rngs)
        self.norm = nnx.LayerNorm(8, rngs=rngs)
        if not tied:
            self.head = nnx.Linear(8, 30, use_bias=False, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = self.embed(x) + self.positions(jnp.arange(x.shape[1]))
        x = self.norm(self.second(self.first(x)))
        return self.head(x) if hasattr(self, "head") else self.embed.attend(x)


LM = under("first", BLOCK) | under("second", BLOCK) | {
    "norm/scale": VECTOR, "norm/bias": VECTOR, "positions/embedding": POSITION,
}  # fmt: skip


@case(LM | {"embed/embedding": EMBEDDING, "head/kernel": HEAD}, conventional=True)
def nnx_transformer() -> tuple[Any, ...]:
    return abstract(lambda rngs: NnxLM(False, rngs)), tokens(2, 6)


@case(LM | {"embed/embedding": tied(1, 0)})
def nnx_transformer_tied() -> tuple[Any, ...]:
    return abstract(lambda rngs: NnxLM(True, rngs)), tokens(2, 6)


class NnxLoRA(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.fc = nnx.Linear(8, 16, rngs=rngs)
        self.lora = nnx.LoRA(16, 4, 12, rngs=rngs)
        self.adapted = nnx.LoRALinear(12, 10, lora_rank=2, rngs=rngs)
        self.head = nnx.Linear(10, 3, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.head(nnx.relu(self.adapted(nnx.relu(self.lora(nnx.relu(self.fc(x)))))))


@case(
    {
        "fc/kernel": DENSE, "fc/bias": VECTOR, "lora/lora_a": DENSE, "lora/lora_b": DENSE, "adapted/kernel": DENSE,
        "adapted/bias": VECTOR, "adapted/lora/lora_a": DENSE, "adapted/lora/lora_b": DENSE, "head/kernel": HEAD,
        "head/bias": VECTOR,
    },
    conventional=True,
)  # fmt: skip
def nnx_lora() -> tuple[Any, ...]:
    return abstract(NnxLoRA), floats(5, 8)


class NnxScanned(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        @nnx.split_rngs(splits=3)
        @nnx.vmap(in_axes=0, out_axes=0)
        def make(rngs: nnx.Rngs) -> NnxBlock:
            return NnxBlock(8, rngs)

        self.blocks = make(rngs)
        self.head = nnx.Linear(8, 30, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        @nnx.remat
        def layers(x: Any, block: NnxBlock) -> Any:
            return block(x)

        return self.head(layers(x, self.blocks))


@case(
    under("blocks", stacked(BLOCK)) | {"head/kernel": HEAD, "head/bias": VECTOR},
    conventional=True,
)
def nnx_scanned() -> tuple[Any, ...]:
    return abstract(NnxScanned), floats(2, 5, 8)


# Flax linen


class LinenCNN(nn.Module):
    @nn.compact
    def __call__(self, x: Any, train: bool) -> Any:
        x = nn.Conv(8, (5,), name="conv")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, name="bn")(x))
        x = nn.Conv(12, (3,), feature_group_count=4, name="grouped_conv")(x)
        x = nn.Dropout(0.1, deterministic=not train)(x)
        x = nn.DenseGeneral((4, 6), axis=(-2, -1), name="mix")(x)
        x = nn.DenseGeneral(9, axis=(-2, -1), name="merge")(nn.relu(x))
        return nn.Dense(3, name="head")(nn.relu(x))


@case(
    {
        "conv/kernel": matrix((0, 1), 2), "conv/bias": VECTOR, "bn/scale": VECTOR, "bn/bias": VECTOR,
        "grouped_conv/kernel": matrix((0, 1), 2, (3, 3, 3, 3)), "grouped_conv/bias": VECTOR,
        "mix/kernel": matrix((0, 1), (2, 3)), "mix/bias": VECTOR, "merge/kernel": matrix((0, 1), 2),
        "merge/bias": VECTOR, "head/kernel": HEAD, "head/bias": VECTOR,
    }
)  # fmt: skip
def linen_cnn() -> tuple[Any, ...]:
    return (*linen(LinenCNN(), floats(2, 20, 4), train=True), {"train": True})


class LinenTransformer(nn.Module):
    tied: bool = False

    @nn.compact
    def __call__(self, x: Any) -> Any:
        embed = nn.Embed(30, 8, name="embed")
        x = embed(x) + self.param("pos_embedding", nn.initializers.normal(), (1, 6, 8))
        for i in range(2):
            h = nn.LayerNorm(name=f"ln{i}")(x)
            x = x + nn.MultiHeadDotProductAttention(2, name=f"attention{i}")(h)
            x = x + nn.Dense(8, name=f"down{i}")(nn.gelu(nn.Dense(32, name=f"up{i}")(x)))
        return embed.attend(x) if self.tied else nn.Dense(30, name="head")(x)


LINEN_LM = {"pos_embedding": POSITION}
for _i in range(2):
    LINEN_LM |= under(f"attention{_i}", ATTENTION)
    LINEN_LM |= {f"ln{_i}/scale": VECTOR, f"ln{_i}/bias": VECTOR}
    LINEN_LM |= {f"{side}{_i}/kernel": DENSE for side in ("up", "down")}
    LINEN_LM |= {f"{side}{_i}/bias": VECTOR for side in ("up", "down")}


@case(LINEN_LM | {"embed/embedding": EMBEDDING, "head/kernel": HEAD, "head/bias": VECTOR}, conventional=True)
def linen_transformer() -> tuple[Any, ...]:
    return linen(LinenTransformer(), tokens(2, 6))


@case(LINEN_LM | {"embed/embedding": tied(1, 0)})
def linen_transformer_tied() -> tuple[Any, ...]:
    return linen(LinenTransformer(tied=True), tokens(2, 6))


class LinenBlock(nn.Module):
    @nn.compact
    def __call__(self, x: Any, _: None) -> tuple[Any, None]:
        h = nn.LayerNorm(name="norm")(x)
        h = nn.MultiHeadDotProductAttention(2, name="attention")(h)
        return x + nn.Dense(8, name="down")(nn.gelu(nn.Dense(16, name="up")(h))), None


class LinenScanned(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        layers = nn.scan(
            nn.remat(LinenBlock),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=4,
            in_axes=nn.broadcast,
        )
        x, _ = layers(name="layers")(nn.Dense(8, name="inproj")(x), None)
        return nn.Dense(3, name="head")(x)


LINEN_BLOCK = under("attention", ATTENTION) | {
    "norm/scale": VECTOR, "norm/bias": VECTOR, "up/kernel": DENSE, "up/bias": VECTOR, "down/kernel": DENSE,
    "down/bias": VECTOR,
}  # fmt: skip


@case(
    under("layers", stacked(LINEN_BLOCK))
    | {"inproj/kernel": DENSE, "inproj/bias": VECTOR, "head/kernel": HEAD, "head/bias": VECTOR},
)
def linen_scanned() -> tuple[Any, ...]:
    return linen(LinenScanned(), floats(2, 5, 7))


class LinenRNN(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.RNN(nn.OptimizedLSTMCell(8, name="lstm"))(x)
        return nn.Dense(3, name="head")(x)


@case(
    {f"lstm/{side}{gate}/kernel": DENSE for side in "hi" for gate in "ifgo"}
    | {f"lstm/h{gate}/bias": VECTOR for gate in "ifgo"}
    | {"head/kernel": HEAD, "head/bias": VECTOR}
)
def linen_lstm() -> tuple[Any, ...]:
    return linen(LinenRNN(), floats(2, 5, 6))
