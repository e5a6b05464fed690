"""Parameters of models that other people published: paths, shapes, and what each is.

Sizes are small; those that are equal in the models are equal here. A matrix has its axes, everything else is
`REST`: Muon must not have it.
"""

from __future__ import annotations

from typing import Final, Literal

from jaxopt_tour.routing.axes import MatrixAxes

REST: Final = "rest"
Right = MatrixAxes | Literal["rest"]
Model = dict[str, tuple[tuple[int, ...], Right]]

DENSE: Final = MatrixAxes(0, 1)


def _vectors(width: int, *names: str) -> Model:
    return dict.fromkeys(names, ((width,), REST))


def _maxtext_layers_second() -> Model:
    """MaxText's default, `param_scan_axis: 1`: four layers of width 64."""
    return {
        "token_embedder/embedding": ((512, 64), REST),
        "decoder/decoder_norm/scale": ((64,), REST),
        "decoder/logits_dense/kernel": ((64, 512), REST),
        "decoder/layers/pre_self_attention_layer_norm/scale": ((64, 4), REST),
        "decoder/layers/self_attention/query/kernel": ((64, 4, 8, 16), MatrixAxes(0, (2, 3))),
        "decoder/layers/self_attention/key/kernel": ((64, 4, 2, 16), MatrixAxes(0, (2, 3))),
        "decoder/layers/self_attention/value/kernel": ((64, 4, 2, 16), MatrixAxes(0, (2, 3))),
        "decoder/layers/self_attention/out/kernel": ((8, 4, 16, 64), MatrixAxes((0, 2), 3)),
        "decoder/layers/mlp/wi_0/kernel": ((64, 4, 256), MatrixAxes(0, 2)),
        "decoder/layers/mlp/wi_1/kernel": ((64, 4, 256), MatrixAxes(0, 2)),
        "decoder/layers/mlp/wo/kernel": ((256, 4, 64), MatrixAxes(0, 2)),
    }


def _maxtext_layers_first() -> Model:
    """The same with `param_scan_axis: 0`."""
    return {
        "token_embedder/embedding": ((512, 64), REST),
        "decoder/decoder_norm/scale": ((64,), REST),
        "decoder/layers/pre_self_attention_layer_norm/scale": ((4, 64), REST),
        "decoder/layers/self_attention/query/kernel": ((4, 64, 8, 16), MatrixAxes(1, (2, 3))),
        "decoder/layers/self_attention/out/kernel": ((4, 8, 16, 64), MatrixAxes((1, 2), 3)),
        "decoder/layers/mlp/wi_0/kernel": ((4, 64, 256), MatrixAxes(1, 2)),
        "decoder/layers/mlp/wo/kernel": ((4, 256, 64), MatrixAxes(1, 2)),
    }


def _as_many_layers_as_width() -> Model:
    """Sixty-four layers of width 64: no shape tells the axis of layers."""
    return {
        "token_embedder/embedding": ((512, 64), REST),
        "decoder/layers/norm/scale": ((64, 64), REST),
        "decoder/layers/mlp/wi/kernel": ((64, 64, 256), MatrixAxes(1, 2)),
        "decoder/layers/self_attention/query/kernel": ((64, 64, 8, 16), MatrixAxes(1, (2, 3))),
    }


def _maxtext_deepseek() -> Model:
    """Four scanned layers with a router, routed experts and a shared expert; latent attention."""
    return {
        "token_embedder/embedding": ((512, 64), REST),
        "decoder/moe_layers/pre_self_attention_layer_norm/scale": ((64, 4), REST),
        "decoder/moe_layers/self_attention/wq_a/kernel": ((64, 4, 24), MatrixAxes(0, 2)),
        "decoder/moe_layers/self_attention/wkv_a/kernel": ((64, 4, 40), MatrixAxes(0, 2)),
        "decoder/moe_layers/self_attention/out/kernel": ((8, 4, 16, 64), MatrixAxes((0, 2), 3)),
        "decoder/moe_layers/DeepSeekMoeBlock_0/shared_experts/wi_0/kernel": ((64, 4, 256), MatrixAxes(0, 2)),
        "decoder/moe_layers/DeepSeekMoeBlock_0/shared_experts/wo/kernel": ((256, 4, 64), MatrixAxes(0, 2)),
        "decoder/moe_layers/DeepSeekMoeBlock_0/MoeBlock_0/gate/kernel": ((64, 4, 6), MatrixAxes(0, 2)),
        "decoder/moe_layers/DeepSeekMoeBlock_0/MoeBlock_0/wi_0": ((6, 4, 64, 96), MatrixAxes(2, 3)),
        "decoder/moe_layers/DeepSeekMoeBlock_0/MoeBlock_0/wo": ((6, 4, 96, 64), MatrixAxes(2, 3)),
    }


def _maxtext_deepseek_unrolled() -> Model:
    return {
        "token_embedder/embedding": ((512, 64), REST),
        "decoder/moe_layers_0/pre_self_attention_layer_norm/scale": ((64,), REST),
        "decoder/moe_layers_0/self_attention/query/kernel": ((64, 8, 16), MatrixAxes(0, (1, 2))),
        "decoder/moe_layers_0/self_attention/wkv_b/kernel": ((24, 8, 32), MatrixAxes(0, (1, 2))),
        "decoder/moe_layers_0/self_attention/out/kernel": ((8, 16, 64), MatrixAxes((0, 1), 2)),
        "decoder/moe_layers_0/DeepSeekMoeBlock_0/shared_experts/wi_0/kernel": ((64, 256), DENSE),
        "decoder/moe_layers_0/DeepSeekMoeBlock_0/MoeBlock_0/gate/kernel": ((64, 6), DENSE),
        "decoder/moe_layers_0/DeepSeekMoeBlock_0/MoeBlock_0/wi_0": ((6, 64, 96), MatrixAxes(1, 2)),
        "decoder/moe_layers_0/DeepSeekMoeBlock_0/MoeBlock_0/wo": ((6, 96, 64), MatrixAxes(1, 2)),
    }


def _maxtext_gpt_oss() -> Model:
    return {
        "token_embedder/embedding": ((512, 64), REST),
        "decoder/layers/layers_0/pre_self_attention_layer_norm/scale": ((64, 4), REST),
        "decoder/layers/layers_0/GptOssAttention/sinks": ((8, 4), REST),
        "decoder/layers/layers_0/GptOssAttention/query/kernel": ((64, 4, 8, 16), MatrixAxes(0, (2, 3))),
        "decoder/layers/layers_0/GptOssAttention/query/bias": ((8, 4, 16), REST),
        "decoder/layers/layers_0/GptOssMlp/gate/kernel": ((64, 4, 6), MatrixAxes(0, 2)),
        "decoder/layers/layers_0/GptOssMlp/gate/bias": ((6, 4), REST),
    }


def _gemma() -> Model:
    """DeepMind's and Tunix's Gemma: einsum weights."""
    block = "transformer/layer_0"
    return {
        "transformer/embedder/input_embedding": ((512, 64), REST),
        "transformer/final_norm/scale": ((64,), REST),
        f"{block}/pre_attention_norm/scale": ((64,), REST),
        f"{block}/attn/q_einsum/w": ((8, 64, 16), MatrixAxes(1, (0, 2))),
        f"{block}/attn/kv_einsum/w": ((2, 1, 64, 16), MatrixAxes(2, (0, 1, 3))),
        f"{block}/attn/attn_vec_einsum/w": ((8, 16, 64), MatrixAxes((0, 1), 2)),
        f"{block}/mlp/gating_einsum": ((2, 256, 64), MatrixAxes(2, (0, 1))),
        f"{block}/mlp/linear": ((256, 64), DENSE),
    }


def _equinox_resnet() -> Model:
    return {
        "conv1/weight": ((64, 3, 7, 7), MatrixAxes((1, 2, 3), 0)),
        "bn1/weight": ((64,), REST),
        "layer1/layers/0/conv1/weight": ((64, 64, 3, 3), MatrixAxes((1, 2, 3), 0)),
        "layer1/layers/0/conv1/bias": ((64, 1, 1), REST),
        "layer1/layers/0/downsample/layers/0/conv/weight": ((128, 64, 1, 1), MatrixAxes((1, 2, 3), 0)),
        "layer1/layers/0/bn1/weight": ((64,), REST),
        "fc/weight": ((10, 64), MatrixAxes(1, 0)),
        "fc/bias": ((10,), REST),
    }


def _equinox_convnext() -> Model:
    return {
        "stem/conv/weight": ((96, 3, 4, 4), MatrixAxes((1, 2, 3), 0)),
        "stem/conv/bias": ((96, 1, 1), REST),
        "stages/0/blocks/0/dwconv/weight": ((96, 1, 7, 7), REST),
        "stages/0/blocks/0/dwconv/bias": ((96, 1, 1), REST),
        "stages/0/blocks/0/pwconv1/weight": ((384, 96), MatrixAxes(1, 0)),
        "stages/0/blocks/0/pwconv1/bias": ((384,), REST),
        "stages/0/blocks/0/gamma": ((96, 1, 1), REST),
        "head/weight": ((1000, 96), REST),
    }


def _levanter() -> Model:
    """Haliax' named arrays: the path ends in a number, and the names of the axes are not in the tree's leaves."""
    return {
        "embeddings/token_embeddings/weight/0": ((512, 64), REST),
        "transformer/blocks/stacked/attn/c_attn/weight/0": ((4, 3, 8, 16, 64), MatrixAxes(4, (1, 2, 3))),
        "transformer/blocks/stacked/mlp/c_fc/weight/0": ((4, 256, 64), MatrixAxes(2, 1)),
        "transformer/blocks/stacked/mlp/c_fc/bias/0": ((4, 256), REST),
        "transformer/blocks/stacked/ln_1/weight/0": ((4, 64), REST),
        "lm_head/weight/0": ((512, 64), REST),
    }


def _mamba() -> Model:
    mixer = "layers/0/mixer"
    return {
        "embedding/weight": ((512, 64), REST),
        f"{mixer}/in_proj/kernel": ((64, 256), DENSE),
        f"{mixer}/conv1d/kernel": ((4, 1, 128), REST),
        f"{mixer}/conv1d/bias": ((128,), REST),
        f"{mixer}/x_proj/kernel": ((128, 36), DENSE),
        f"{mixer}/dt_proj/kernel": ((4, 128), DENSE),
        f"{mixer}/A_log": ((128, 16), REST),
        f"{mixer}/D": ((128,), REST),
        f"{mixer}/out_proj/kernel": ((128, 64), DENSE),
        "norm_f/weight": ((64,), REST),
    }


def _list_of_pairs() -> Model:
    """Plain JAX: a list of (weight, bias)."""
    return {
        "0/0": ((784, 64), DENSE),
        "0/1": ((64,), REST),
        "1/0": ((64, 32), DENSE),
        "1/1": ((32,), REST),
        "2/0": ((32, 10), REST),
        "2/1": ((10,), REST),
    }


def _unet() -> Model:
    return {
        "Conv_0/kernel": ((3, 3, 3, 32), MatrixAxes((0, 1, 2), 3)),
        "Conv_0/bias": ((32,), REST),
        "Dense_0/kernel": ((32, 128), DENSE),
        "Dense_1/kernel": ((128, 128), DENSE),
        "ResnetBlock_0/Conv_0/kernel": ((3, 3, 32, 64), MatrixAxes((0, 1, 2), 3)),
        "Conv_1/kernel": ((3, 3, 64, 32), MatrixAxes((0, 1, 2), 3)),
        "Conv_2/kernel": ((3, 3, 32, 3), REST),
    }


def _actor_critic() -> Model:
    return {
        "params/Dense_0/kernel": ((8, 64), DENSE),
        "params/Dense_1/kernel": ((64, 64), DENSE),
        "params/Dense_2/kernel": ((64, 4), REST),
        "params/Dense_3/kernel": ((64, 1), REST),
    }


def _dit_without_biases() -> Model:
    """Everything of one width, and no vector in the attention."""
    return {
        "x_embedder/kernel": ((2, 2, 4, 64), MatrixAxes((0, 1, 2), 3)),
        "blocks_0/attn/q/kernel": ((64, 64), DENSE),
        "blocks_0/attn/k/kernel": ((64, 64), DENSE),
        "blocks_0/attn/v/kernel": ((64, 64), DENSE),
        "blocks_0/attn/out/kernel": ((64, 64), DENSE),
        "blocks_0/adaln/kernel": ((64, 384), DENSE),
        "final_layer/linear/kernel": ((64, 16), REST),
    }


def _lstm_with_peepholes() -> Model:
    return {
        "cell/peephole_weights": ((400, 3), REST),
        "cell/ih/kernel": ((3, 1600), DENSE),
        "cell/hh/kernel": ((400, 1600), DENSE),
        "mdn_head/kernel": ((400, 121), REST),
    }


def _hugging_face_gpt2() -> Model:
    """`FlaxConv1D` stores (out, in) under the name kernel; a bias tells where the sizes differ."""
    return {
        "transformer/wte/embedding": ((512, 64), REST),
        "transformer/wpe/embedding": ((128, 64), REST),
        "transformer/h/0/ln_1/scale": ((64,), REST),
        "transformer/h/0/attn/c_attn/kernel": ((192, 64), MatrixAxes(1, 0)),
        "transformer/h/0/attn/c_attn/bias": ((192,), REST),
        "transformer/h/0/attn/c_proj/kernel": ((64, 64), MatrixAxes(1, 0)),
        "transformer/h/0/attn/c_proj/bias": ((64,), REST),
        "transformer/h/0/mlp/c_fc/kernel": ((256, 64), MatrixAxes(1, 0)),
        "transformer/h/0/mlp/c_fc/bias": ((256,), REST),
    }


def _t5x() -> Model:
    """Scan axis 1; attention kernels flattened to (embed, heads * head_dim)."""
    return {
        "token_embedder/embedding": ((512, 64), REST),
        "decoder/decoder_norm/scale": ((64,), REST),
        "decoder/decoder/pre_self_attention_layer_norm/scale": ((64, 6), REST),
        "decoder/decoder/self_attention/query/kernel": ((64, 6, 128), MatrixAxes(0, 2)),
        "decoder/decoder/self_attention/out/kernel": ((128, 6, 64), MatrixAxes(0, 2)),
        "decoder/decoder/mlp/wi_0/kernel": ((64, 6, 256), MatrixAxes(0, 2)),
        "decoder/decoder/mlp/wo/kernel": ((256, 6, 64), MatrixAxes(0, 2)),
        "decoder/relpos_bias/rel_embedding": ((8, 32), REST),
        "decoder/logits_dense/kernel": ((64, 512), REST),
    }


def _vision_transformer() -> Model:
    """big_vision's ViT."""
    block = "Transformer/encoderblock_0"
    return {
        "embedding/kernel": ((16, 16, 3, 64), MatrixAxes((0, 1, 2), 3)),
        "embedding/bias": ((64,), REST),
        "cls": ((1, 1, 64), REST),
        "pos_embedding": ((1, 197, 64), REST),
        f"{block}/LayerNorm_0/scale": ((64,), REST),
        f"{block}/MultiHeadDotProductAttention_0/query/kernel": ((64, 4, 16), MatrixAxes(0, (1, 2))),
        f"{block}/MultiHeadDotProductAttention_0/query/bias": ((4, 16), REST),
        f"{block}/MultiHeadDotProductAttention_0/out/kernel": ((4, 16, 64), MatrixAxes((0, 1), 2)),
        f"{block}/MultiHeadDotProductAttention_0/out/bias": ((64,), REST),
        f"{block}/MlpBlock_0/Dense_0/kernel": ((64, 256), DENSE),
        f"{block}/MlpBlock_0/Dense_1/kernel": ((256, 64), DENSE),
        "head/kernel": ((64, 1000), REST),
    }


def _haiku_transformer() -> Model:
    return {
        "transformer/~/embed/embeddings": ((512, 64), REST),
        "transformer/layer_norm/scale": ((64,), REST),
        "transformer/multi_head_attention/query/w": ((64, 128), DENSE),
        "transformer/multi_head_attention/query/b": ((128,), REST),
        "transformer/multi_head_attention/linear/w": ((128, 64), DENSE),
        "transformer/mlp/linear/w": ((64, 256), DENSE),
        "transformer/mlp/linear/b": ((256,), REST),
        "transformer/logits/w": ((64, 512), REST),
    }


MODELS: Final[dict[str, Model]] = {
    "MaxText, layers second": _maxtext_layers_second(),
    "MaxText, layers first": _maxtext_layers_first(),
    "MaxText, as many layers as width": _as_many_layers_as_width(),
    "MaxText DeepSeek": _maxtext_deepseek(),
    "MaxText DeepSeek, unrolled": _maxtext_deepseek_unrolled(),
    "MaxText GPT-OSS": _maxtext_gpt_oss(),
    "Gemma": _gemma(),
    "Equinox ResNet": _equinox_resnet(),
    "Equinox ConvNeXt": _equinox_convnext(),
    "Levanter": _levanter(),
    "Mamba": _mamba(),
    "a list of pairs": _list_of_pairs(),
    "U-Net": _unet(),
    "actor and critic": _actor_critic(),
    "DiT without biases": _dit_without_biases(),
    "LSTM with peepholes": _lstm_with_peepholes(),
    "Hugging Face GPT-2": _hugging_face_gpt2(),
    "T5X": _t5x(),
    "big_vision ViT": _vision_transformer(),
    "Haiku transformer": _haiku_transformer(),
}
