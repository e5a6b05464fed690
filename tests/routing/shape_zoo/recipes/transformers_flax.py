"""Flax models of Hugging Face Transformers 4, and Diffusers."""

from __future__ import annotations

from typing import Any

import jax

from jaxopt_tour.routing import from_function
from tests.routing.shape_zoo.record import Built, floats, recipe, restore_old_numpy, tokens


def built(model: Any, shape: tuple[int, ...], *inputs: Any, **kwargs: Any) -> Built:
    """The parameters and the routes of a model that was made with `_do_init=False`."""
    params = jax.eval_shape(lambda key: model.init_weights(key, shape), jax.random.key(0))
    params = params.unfreeze() if hasattr(params, "unfreeze") else params

    def call(params: Any, *inputs: Any) -> Any:
        output = model(*inputs, params=params, **kwargs)
        return (
            output[0]
            if isinstance(output, tuple)
            else {name: output[name] for name in ("logits",) if name in output} or output
        )

    return params, lambda: from_function(call, params, *inputs)


NORMS = "*/scale | vector\n*bias | vector\n"


@recipe(
    "GPT-2, transformers",
    "linen",
    "{package}, FlaxGPT2LMHeadModel",
    "transformers",
    ["V=97 T=50 D=48 H=3 L=2 F=192", "V=97 T=64 D=64 H=8 L=2 F=256"],
    NORMS
    + """
    */wte/embedding | embedding
    */wpe/embedding | position
    */kernel | oi
    """.strip(),
    "3*D",
    conventional=True,
)
def gpt2(z: Any) -> Built:
    from transformers import FlaxGPT2LMHeadModel, GPT2Config

    config = GPT2Config(vocab_size=z.V, n_positions=z.T, n_embd=z.D, n_layer=z.L, n_head=z.H)
    return built(FlaxGPT2LMHeadModel(config, _do_init=False), (1, 8), tokens(1, 8))


@recipe(
    "T5 1.1, transformers",
    "linen",
    "{package}, FlaxT5ForConditionalGeneration",
    "transformers",
    ["V=97 D=48 H=5 K=16 F=112 B=32", "V=97 D=64 H=4 K=16 F=64 B=32"],
    """
    */weight | vector
    shared/embedding | embedding
    */relative_attention_bias/embedding | position
    lm_head/kernel | head
    */kernel | io
    """,
    "H*K",
    conventional=True,
)
def t5(z: Any) -> Built:
    restore_old_numpy()
    from transformers import FlaxT5ForConditionalGeneration, T5Config

    config = T5Config(
        vocab_size=z.V, d_model=z.D, num_heads=z.H, d_kv=z.K, d_ff=z.F, num_layers=2, tie_word_embeddings=False,
        feed_forward_proj="gated-gelu", relative_attention_num_buckets=z.B, decoder_start_token_id=0,
    )  # fmt: skip
    ids = tokens(1, 8)
    return built(FlaxT5ForConditionalGeneration(config, _do_init=False), (1, 8), ids, None, ids)


@recipe(
    "CLIP, transformers",
    "linen",
    "{package}, FlaxCLIPModel",
    "transformers",
    ["V=97 T=20 D=48 F=112 E=64 G=160 P=40 X=17", "V=97 T=20 D=64 F=256 E=64 G=256 P=64 X=17"],
    """
    *bias | vector
    */scale | vector
    logit_scale | scalar
    */token_embedding/embedding | embedding
    */position_embedding/embedding | position
    */class_embedding | vector
    */patch_embedding/kernel | iiio
    */kernel | io
    """.replace("*/kernel | io", "text_projection/kernel | head\nvisual_projection/kernel | head\n*/kernel | io"),
    conventional=True,
)
def clip(z: Any) -> Built:
    from transformers import CLIPConfig, FlaxCLIPModel

    text = dict(
        vocab_size=z.V, hidden_size=z.D, intermediate_size=z.F, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=z.T, projection_dim=z.P, eos_token_id=2,
    )  # fmt: skip
    vision = dict(
        hidden_size=z.E,
        intermediate_size=z.G,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
        projection_dim=z.P,
    )
    model = FlaxCLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=z.P), _do_init=False)
    shape = ((1, 8), (1, 32, 32, 3))
    params = jax.eval_shape(lambda key: model.init_weights(key, shape), jax.random.key(0))

    def call(params: Any, ids: Any, pixels: Any) -> Any:
        output = model(ids, pixels, params=params)
        return output.text_embeds, output.image_embeds, output.logits_per_text

    return params, lambda: from_function(call, params, tokens(1, 8), floats(1, 3, 32, 32))


@recipe(
    "BART, transformers",
    "linen",
    "{package}, FlaxBartForConditionalGeneration",
    "transformers",
    ["V=97 T=50 D=48 F=112 G=80", "V=97 T=62 D=64 F=64 G=64"],
    """
    final_logits_bias | vector
    *bias | vector
    */scale | vector
    */shared/embedding | embedding
    */embed_positions/embedding | position
    */kernel | io
    """,
    "T+2",
    conventional=True,
)
def bart(z: Any) -> Built:
    from transformers import BartConfig, FlaxBartForConditionalGeneration

    config = BartConfig(
        vocab_size=z.V, max_position_embeddings=z.T, d_model=z.D, encoder_layers=2, decoder_layers=2,
        encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=z.F, decoder_ffn_dim=z.G,
    )  # fmt: skip
    return built(FlaxBartForConditionalGeneration(config, _do_init=False), (1, 8), tokens(1, 8))


@recipe(
    "BLOOM, transformers",
    "linen",
    "{package}, FlaxBloomForCausalLM",
    "transformers",
    ["V=97 D=48 H=3", "V=64 D=64 H=8"],
    """
    *bias | vector
    */scale | vector
    */word_embeddings/embedding | embedding
    */kernel | io
    """,
    "3*D 4*D",
    conventional=True,
)
def bloom(z: Any) -> Built:
    restore_old_numpy()
    from transformers import BloomConfig, FlaxBloomForCausalLM

    config = BloomConfig(vocab_size=z.V, hidden_size=z.D, n_layer=2, n_head=z.H)
    return built(FlaxBloomForCausalLM(config, _do_init=False), (1, 8), tokens(1, 8))


@recipe(
    "Mistral, transformers",
    "linen",
    "{package}, FlaxMistralForCausalLM",
    "transformers",
    ["V=97 D=48 H=6 G=2 F=112 K=8", "V=97 D=64 H=8 G=8 F=64 K=8"],
    """
    */weight | vector
    */embed_tokens/embedding | embedding
    lm_head/kernel | head
    */kernel | io
    """,
    "G*K",
    conventional=True,
)
def mistral(z: Any) -> Built:
    from transformers import FlaxMistralForCausalLM, MistralConfig

    config = MistralConfig(
        vocab_size=z.V, hidden_size=z.D, num_hidden_layers=2, num_attention_heads=z.H, num_key_value_heads=z.G,
        intermediate_size=z.F, max_position_embeddings=32, sliding_window=16, tie_word_embeddings=False,
    )  # fmt: skip
    return built(FlaxMistralForCausalLM(config, _do_init=False), (1, 8), tokens(1, 8))


@recipe(
    "wav2vec 2.0, transformers",
    "linen",
    "{package}, FlaxWav2Vec2ForCTC",
    "transformers",
    ["V=33 C=40 D=48 F=112", "V=32 C=64 D=64 F=256"],
    """
    *bias | vector
    */scale | vector
    */masked_spec_embed | vector
    */pos_conv_embed/conv/weight_g | vector
    */pos_conv_embed/conv/weight_v | oii
    */feature_extractor/*/kernel | iio
    lm_head/kernel | head
    */kernel | io
    """,
    "D//4",
    conventional=True,
)
def wav2vec(z: Any) -> Built:
    from transformers import FlaxWav2Vec2ForCTC, Wav2Vec2Config

    config = Wav2Vec2Config(
        vocab_size=z.V, hidden_size=z.D, num_hidden_layers=2, num_attention_heads=4, intermediate_size=z.F,
        conv_dim=(z.C,) * 3, conv_kernel=(10, 3, 2), conv_stride=(5, 2, 2), num_feat_extract_layers=3,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, feat_extract_norm="layer",
        do_stable_layer_norm=True,
    )  # fmt: skip
    return built(FlaxWav2Vec2ForCTC(config, _do_init=False), (1, 1024), floats(1, 1024))


@recipe(
    "RegNet, transformers",
    "linen",
    "{package}, FlaxRegNetForImageClassification",
    "transformers",
    ["A=12 B=24 C=40 S=20 N=30", "A=16 B=32 C=64 S=16 N=64"],
    """
    params/*bias | vector
    params/*/scale | vector
    params/*/layer/1/convolution/kernel | iiio
    params/*convolution/kernel | iiio
    params/*/attention/*/kernel | iiio
    params/classifier/1/kernel | head
    """,
    "S//4 A//4 B//4 C//4",
    conventional=True,
)
def regnet(z: Any) -> Built:
    from transformers import FlaxRegNetForImageClassification, RegNetConfig

    config = RegNetConfig(
        embedding_size=z.S,
        hidden_sizes=[z.A, z.B, z.C],
        depths=[1, 2, 1],
        groups_width=4,
        layer_type="y",
        num_labels=z.N,
    )
    model = FlaxRegNetForImageClassification(config, _do_init=False)
    variables = jax.eval_shape(lambda key: model.init_weights(key, (1, 64, 64, 3)), jax.random.key(0))

    def call(params: Any, stats: Any, pixels: Any) -> Any:
        return model(pixels, params={"params": params["params"], "batch_stats": stats}).logits

    params = {"params": variables["params"]}
    return params, lambda: from_function(call, params, variables["batch_stats"], floats(1, 3, 64, 64))


@recipe(
    "Stable Diffusion U-Net, diffusers",
    "linen",
    "{package}, FlaxUNet2DConditionModel",
    "diffusers",
    ["A=32 B=64 X=40", "A=32 B=64 X=64"],
    """
    *bias | vector
    */scale | vector
    conv_out/kernel | head
    time_embedding/*/kernel | io
    */time_emb_proj/kernel | io
    */conv*/kernel | iiio
    conv_in/kernel | iiio
    */proj_in/kernel | iiio
    */proj_out/kernel | iiio
    */kernel | io
    """,
    "4*A 8*A 8*B 4*B 2*B A+B",
)
def unet(z: Any) -> Built:
    from diffusers import FlaxUNet2DConditionModel

    model = FlaxUNet2DConditionModel(
        sample_size=16, block_out_channels=(z.A, z.B), down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), layers_per_block=1, attention_head_dim=8,
        cross_attention_dim=z.X,
    )  # fmt: skip
    params = jax.eval_shape(model.init_weights, jax.random.key(0))

    def call(params: Any, sample: Any, time: Any, context: Any) -> Any:
        return model.apply({"params": params}, sample, time, context).sample

    return params, lambda: from_function(call, params, floats(1, 4, 16, 16), tokens(1), floats(1, 8, z.X))


@recipe(
    "latent autoencoder, diffusers",
    "linen",
    "{package}, FlaxAutoencoderKL",
    "diffusers",
    ["A=32 B=64", "A=64 B=128"],
    """
    *bias | vector
    */scale | vector
    decoder/conv_out/kernel | head
    */attentions_*/kernel | io
    */kernel | iiio
    """,
)
def autoencoder(z: Any) -> Built:
    from diffusers import FlaxAutoencoderKL

    model = FlaxAutoencoderKL(
        block_out_channels=(z.A, z.B), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1, norm_num_groups=8, sample_size=16,
    )  # fmt: skip
    params = jax.eval_shape(model.init_weights, jax.random.key(0))

    def call(params: Any, sample: Any) -> Any:
        return model.apply({"params": params}, sample).sample

    return params, lambda: from_function(call, params, floats(1, 3, 16, 16))
