"""Models of Flax nnx: Bonsai and Tunix; Gemma of DeepMind; Keras models on JAX."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_tour.routing import from_function
from tests.routing.shape_zoo.record import Built, floats, nnx_module, recipe, tokens


@recipe(
    "EfficientNet, Bonsai",
    "nnx",
    "jax-ml/bonsai bonsai/models/efficientnet/modeling.py",
    "jax-ml/bonsai flax",
    ["A=32 B=16 C=40 N=30", "A=32 B=32 C=64 N=64"],
    """
    *bias | vector
    */scale | vector
    classifier/kernel | head
    */depthwise_conv/kernel | depthwise
    */kernel | iiio
    """,
    "6*B A//4 B//4 C//4 6*C 1280",
)
def efficientnet(z: Any) -> Built:
    from bonsai.models.efficientnet import modeling
    from flax import nnx

    blocks = (
        modeling.BlockConfig(z.A, z.B, 3, 1, 1, 1, 0.25, 1), modeling.BlockConfig(z.B, z.C, 5, 2, 6, 2, 0.25, 2)
    )  # fmt: skip
    fields = {"width_coefficient": 1.0, "depth_coefficient": 1.0, "resolution": 32, "dropout_rate": 0.0}
    config = modeling.ModelConfig(
        **fields, stem_conv_padding=1, bn_momentum=0.9, bn_epsilon=1e-3, block_configs=modeling.BlockConfigs(blocks),
        num_classes=z.N,
    )  # fmt: skip
    return nnx_module(lambda: modeling.EfficientNet(config, rngs=nnx.Rngs(0)), floats(1, 32, 32, 3))


@recipe(
    "ConvNeXt, Bonsai",
    "nnx",
    "jax-ml/bonsai bonsai/models/convnext/modeling.py",
    "jax-ml/bonsai flax",
    ["A=24 B=40 N=30", "A=32 B=64 N=64"],
    """
    *bias | vector
    */scale | vector
    */gamma | vector
    head/kernel | head
    */dwconv/kernel | depthwise
    */pwconv*/kernel | io
    */kernel | iiio
    """,
    "4*A 4*B",
)
def convnext(z: Any) -> Built:
    from bonsai.models.convnext import modeling
    from flax import nnx

    config = modeling.ModelConfig((2, 1), (z.A, z.B), 0.0, z.N)
    return nnx_module(lambda: modeling.ConvNeXt(config, rngs=nnx.Rngs(0)), floats(1, 32, 32, 3), rngs=None)


@recipe(
    "Whisper, Bonsai",
    "nnx",
    "jax-ml/bonsai bonsai/models/whisper/modeling.py",
    "jax-ml/bonsai flax",
    ["D=48 H=3 F=112 G=80 V=97 S=30 M=10", "D=64 H=8 F=256 G=256 V=97 S=64 M=10"],
    """
    *bias | vector
    */scale | vector
    */embed_positions/embedding | position
    */embed_tokens/embedding | embedding
    */query/kernel | ioo
    */key/kernel | ioo
    */value/kernel | ioo
    */out/kernel | iio
    */conv*/kernel | iio
    */kernel | io
    """,
    "D//H",
    conventional=True,
)
def whisper(z: Any) -> Built:
    from bonsai.models.whisper import modeling
    from flax import nnx

    config = dataclasses.replace(
        modeling.ModelConfig.whisper_tiny(), d_model=z.D, encoder_attention_heads=z.H, decoder_attention_heads=z.H,
        encoder_ffn_dim=z.F, decoder_ffn_dim=z.G, vocab_size=z.V, max_source_positions=z.S,
        num_mel_bins=z.M, encoder_layers=2, decoder_layers=2,
    )  # fmt: skip
    return nnx_module(lambda: modeling.Whisper(config, rngs=nnx.Rngs(0)))[0], None


@recipe(
    "Mamba 2, Bonsai",
    "nnx",
    "jax-ml/bonsai bonsai/models/mamba2/modeling.py",
    "jax-ml/bonsai flax",
    ["V=97 D=48 S=10 K=16", "V=64 D=64 S=64 K=16"],
    """
    *bias | vector
    */A_log | vector
    */D | vector
    *norm*/weight | vector
    */embedding | embedding
    */conv1d/conv/kernel | depthwise
    */kernel | io
    """,
    "2*D 2*D//K 4*D+2*S+2*D//K 2*D+2*S",
)
def mamba2(z: Any) -> Built:
    from bonsai.models.mamba2 import modeling
    from flax import nnx

    config = modeling.ModelConfig(
        vocab_size=z.V, hidden_size=z.D, state_size=z.S, head_dim=z.K, chunk_size=8, num_hidden_layers=2
    )
    return nnx_module(lambda: modeling.Mamba2ForCausalLM(config, rngs=nnx.Rngs(0)), tokens(1, 16))


@recipe(
    "V-JEPA 2 classifier, Bonsai",
    "nnx",
    "jax-ml/bonsai bonsai/models/vjepa2/modeling.py",
    "jax-ml/bonsai flax",
    ["D=48 P=40 N=30", "D=64 P=64 N=64"],
    """
    *bias | vector
    */scale | vector
    *_tokens | position
    classifier/kernel | head
    vjepa2/predictor/proj/kernel | head
    */patch_embeddings/proj/kernel | iiiio
    */kernel | io
    """,
    "4*D 4*P 2*D 3*D",
)
def vjepa(z: Any) -> Built:
    from bonsai.models.vjepa2 import modeling
    from flax import nnx

    config = modeling.ModelConfig(
        patch_size=8, crop_size=16, frames_per_clip=4, hidden_size=z.D, num_attention_heads=4, num_hidden_layers=2,
        pred_hidden_size=z.P, pred_num_attention_heads=4, pred_num_hidden_layers=1, num_pooler_layers=1, num_labels=z.N,
    )  # fmt: skip
    names = [name for name in dir(modeling) if "Classification" in name]
    return nnx_module(lambda: getattr(modeling, names[0])(config, rngs=nnx.Rngs(0)), floats(1, 4, 16, 16, 3))


@recipe(
    "Gemma 3, Tunix",
    "nnx",
    "{package}, tunix.models.gemma3.model.Gemma3",
    "google-tunix",
    ["V=97 D=48 H=6 G=2 K=16 F=112", "V=64 D=64 H=8 G=1 K=8 F=64"],
    """
    */input_embedding | embedding
    */scale | vector
    */q_einsum/w | oio
    */kv_einsum/w | ooio
    */attn_vec_einsum/w | iio
    */kernel | io
    """,
    conventional=True,
)
def tunix_gemma3(z: Any) -> Built:
    from flax import nnx
    from tunix.models.gemma3 import model

    sizes = {"num_embed": z.V, "embed_dim": z.D, "hidden_dim": z.F, "num_heads": z.H, "head_dim": z.K}
    config = model.ModelConfig(
        num_layers=2, **sizes, num_kv_heads=z.G, sliding_window_size=8, param_dtype=jnp.float32
    )  # fmt: skip
    mask = jax.ShapeDtypeStruct((1, 8, 8), bool)
    return nnx_module(lambda: model.Gemma3(config, rngs=nnx.Rngs(0)), tokens(1, 8), tokens(1, 8), None, mask)


@recipe(
    "Qwen 2, Tunix",
    "nnx",
    "{package}, tunix.models.qwen2.model.Qwen2",
    "google-tunix",
    ["V=97 D=48 H=6 G=2 K=16 F=112", "V=64 D=64 H=8 G=8 K=8 F=64"],
    """
    */input_embedding | embedding
    *norm/w | vector
    *bias | vector
    lm_head/w | head
    */o_proj/w | iio
    */w | ioo
    */kernel | io
    """,
    "H*K G*K",
    conventional=True,
)
def tunix_qwen2(z: Any) -> Built:
    from flax import nnx
    from tunix.models.qwen2 import model

    config = model.ModelConfig(2, z.V, z.D, z.F, z.H, z.K, z.G, 10_000, 1e-6)
    mask = jax.ShapeDtypeStruct((1, 8, 8), bool)
    return nnx_module(lambda: model.Qwen2(config, rngs=nnx.Rngs(0)), tokens(1, 8), tokens(1, 8), None, mask)


def gemma(z: Any, **changes: Any) -> Built:
    from gemma import gm

    kinds = gm.nn.AttentionType
    config = gm.nn.config.TransformerConfig(
        num_embed=z.V, embed_dim=z.D, hidden_dim=z.F, num_heads=z.H, head_dim=z.K, num_kv_heads=z.G,
        final_logit_softcap=None,
        use_post_attn_norm=True, use_post_ffw_norm=True, attention_types=(kinds.LOCAL_SLIDING, kinds.GLOBAL),
        sliding_window_size=8,
        **changes,
    )  # fmt: skip
    model = gm.nn.Transformer(config=config, tokens="", dtype=jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), tokens(1, 8))

    def call(params: Any, ids: Any) -> Any:
        return model.apply({"params": params}, ids).logits

    return variables["params"], lambda: from_function(call, variables["params"], tokens(1, 8))


GEMMA = """
    embedder/input_embedding | embedding
    */scale | vector
    */q_einsum/w | oio
    */kv_einsum/w | ooio
    */attn_vec_einsum/w | iio
    """


@recipe(
    "Gemma 3, DeepMind",
    "linen",
    "{package}, gm.nn.Transformer",
    "gemma",
    ["V=97 D=48 H=6 G=2 K=16 F=112", "V=64 D=64 H=8 G=1 K=8 F=64"],
    GEMMA + "*/gating_einsum | ooi\n*/linear | io",
    conventional=True,
)
def gemma3(z: Any) -> Built:
    return gemma(z, use_qk_norm=True, transpose_gating_einsum=True)


@recipe(
    "Gemma 1, DeepMind",
    "linen",
    "{package}, gm.nn.Transformer, transpose_gating_einsum=False",
    "gemma",
    ["V=97 D=48 H=5 G=5 K=16 F=112", "V=64 D=64 H=8 G=8 K=8 F=64"],
    GEMMA.replace("q_einsum/w | oio\n", "qkv_einsum/w | ooio\n").replace("    */kv_einsum/w | ooio\n", "")
    + "*/gating_einsum | oio\n*/linear | io",
    conventional=True,
)
def gemma1(z: Any) -> Built:
    return gemma(z)


def keras_model(model: Any, *inputs: Any, paths: bool = False) -> Built:
    """The variables of a Keras model: the list that its stateless functions take, or a dictionary by path."""
    arrays = [jax.ShapeDtypeStruct(tuple(v.shape), jnp.float32) for v in model.trainable_variables]
    tree = {v.path: x for v, x in zip(model.trainable_variables, arrays, strict=True)} if paths else arrays
    names = list(tree) if paths else [str(i) for i in range(len(arrays))]

    def routes() -> Any:
        found = from_function(model, *inputs)
        return {names[int(i)]: route for i, route in found.items()}

    return tree, routes


@recipe(
    "MobileNet version 2, Keras, by path",
    "keras",
    "{package}, keras.applications.MobileNetV2",
    "keras tensorflow",
    ["N=30"],
    """
    */gamma | vector
    */beta | vector
    *bias | vector
    *depthwise/kernel | depthwise
    predictions/kernel | head
    */kernel | iiio
    """,
)
def mobilenet(z: Any) -> Built:
    import keras

    keras.utils.clear_session()
    model = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=z.N)
    return keras_model(model, floats(1, 32, 32, 3), paths=True)


@recipe(
    "Llama 3, KerasHub, by path",
    "keras",
    "{package}, keras_hub.models.Llama3CausalLM",
    "keras-hub",
    ["V=97 D=48 H=6 G=2 F=112", "V=64 D=64 H=8 G=8 F=64"],
    """
    */scale | vector
    */embeddings | embedding
    */reverse_embeddings | head
    */attention_output/kernel | iio
    */self_attention/*/kernel | ioo
    */kernel | io
    """,
    "D//H",
    conventional=True,
)
def keras_llama(z: Any) -> Built:
    import keras
    import keras_hub

    keras.utils.clear_session()
    backbone = keras_hub.models.Llama3Backbone(
        vocabulary_size=z.V, num_layers=2, num_query_heads=z.H, num_key_value_heads=z.G, hidden_dim=z.D,
        intermediate_dim=z.F
    )  # fmt: skip
    model = keras_hub.models.Llama3CausalLM(backbone, preprocessor=None)
    return keras_model(model, {"token_ids": tokens(1, 8), "padding_mask": tokens(1, 8)}, paths=True)


@recipe(
    "BERT, KerasHub, list of variables",
    "list",
    "{package}, keras_hub.models.BertTextClassifier",
    "keras-hub",
    ["V=97 T=20 D=48 H=3 F=112 N=7", "V=64 T=64 D=64 H=8 F=64 N=7"],
    """
    0 | embedding
    1 | position
    2 | embedding
    5 | ioo
    7 | ioo
    9 | ioo
    11 | iio
    17 | io
    19 | io
    21 | io
    23 | head
    * | vector
    """,
    "D//H",
)
def keras_bert(z: Any) -> Built:
    import keras
    import keras_hub

    keras.utils.clear_session()
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=z.V, num_layers=1, num_heads=z.H, hidden_dim=z.D, intermediate_dim=z.F, max_sequence_length=z.T
    )  # fmt: skip
    inputs = {"token_ids": tokens(1, 8), "padding_mask": tokens(1, 8), "segment_ids": tokens(1, 8)}
    model = keras_hub.models.BertTextClassifier(backbone, num_classes=z.N, preprocessor=None)
    return keras_model(model, inputs)
