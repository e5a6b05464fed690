"""The blind set: models of packages, whose answers were written before any rule was run on them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_tour.routing import from_function
from tests.routing.shape_zoo.record import Built, floats, linen, recipe, stub, tokens


@recipe(
    "GPT-J, transformers",
    "linen",
    "{package}, FlaxGPTJForCausalLMModule",
    "transformers",
    ["V=97 D=48 F=112 H=3", "V=64 D=64 F=64 H=8"],
    """
    *bias | vector
    */scale | vector
    */embedding | embedding
    lm_head/kernel | head
    */kernel | io
    """,
    conventional=True,
    blind=True,
)
def gptj(z: Any) -> Built:
    import transformers
    from transformers.models.gptj.modeling_flax_gptj import FlaxGPTJForCausalLMModule

    config = transformers.GPTJConfig(
        vocab_size=z.V, n_positions=20, n_embd=z.D, n_layer=2, n_head=z.H, rotary_dim=8, n_inner=z.F
    )
    return linen(FlaxGPTJForCausalLMModule(config), tokens(1, 8), tokens(1, 8), tokens(1, 8))


@recipe(
    "BEiT, transformers",
    "linen",
    "{package}, FlaxBeitForImageClassificationModule",
    "transformers",
    ["D=48 F=112 H=3 N=30", "D=64 F=64 H=8 N=64"],
    """
    *bias | vector
    */scale | vector
    */cls_token | vector
    */lambda_? | vector
    */relative_position_bias_table | position
    */projection/kernel | iiio
    classifier/kernel | head
    */kernel | io
    """,
    conventional=True,
    blind=True,
)
def beit(z: Any) -> Built:
    import transformers
    from transformers.models.beit.modeling_flax_beit import FlaxBeitForImageClassificationModule

    config = transformers.BeitConfig(
        hidden_size=z.D, num_hidden_layers=3, num_attention_heads=z.H, intermediate_size=z.F, image_size=32,
        patch_size=8, use_relative_position_bias=True, num_labels=z.N,
    )  # fmt: skip
    return linen(FlaxBeitForImageClassificationModule(config), floats(1, 32, 32, 3))


@recipe(
    "input-convex network, OTT",
    "linen",
    "{package}, ott.neural.networks.icnn.ICNN",
    "ott-jax",
    ["D=7 A=24 B=40", "D=64 A=64 B=64"],
    """
    *bias | vector
    */diag_kernel | other
    w_xs_2/*_kernel | head
    pos_def_potentials/*_kernel | head
    */quad_kernel | oio
    */lin_kernel | io
    w_zs_1/kernel | head
    */kernel | io
    """,
    blind=True,
)
def icnn(z: Any) -> Built:
    from ott.neural.networks.icnn import ICNN

    return linen(ICNN(dim_data=z.D, dim_hidden=[z.A, z.B]), floats(z.D))


@recipe(
    "Griffin, RecurrentGemma",
    "linen",
    "{package}, recurrentgemma.jax.Griffin",
    "recurrentgemma",
    ["V=97 D=48 F=112 H=3 R=60", "V=64 D=64 F=64 H=4 R=64"],
    """
    *bias | vector
    */b | vector
    */scale | vector
    */a_param | vector
    */input_embedding | embedding
    */conv_1d/w | depthwise
    */ffw_up/w | oio
    */rg_lru/*_gate/w | bio
    */kernel | io
    """,
    "D//H R//H",
    blind=True,
)
def griffin(z: Any) -> Built:
    stub("sentencepiece")
    from recurrentgemma import common
    from recurrentgemma import jax as recurrentgemma

    kinds = common.TemporalBlockType
    config = common.GriffinConfig(
        vocab_size=z.V, width=z.D, mlp_expanded_width=z.F, num_heads=z.H, lru_width=z.R,
        block_types=(kinds.RECURRENT, kinds.RECURRENT, kinds.ATTENTION), embeddings_scale_by_sqrt_dim=True,
        attention_window_size=16, logits_soft_cap=30.0,
    )  # fmt: skip
    return linen(recurrentgemma.Griffin(config), tokens(1, 8), tokens(1, 8))


@recipe(
    "Xception, Keras, by path",
    "keras",
    "{package}, keras.applications.Xception",
    "keras",
    ["N=30"],
    """
    */gamma | vector
    */beta | vector
    *bias | vector
    */depthwise_kernel | depthwise
    predictions/kernel | head
    */pointwise_kernel | iiio
    */kernel | iiio
    """,
    blind=True,
)
def xception(z: Any) -> Built:
    import keras

    from tests.routing.shape_zoo.recipes.nnx_models import keras_model  # here, to keep the order of the recipes

    keras.utils.clear_session()
    model = keras.applications.Xception((96, 96, 3), weights=None, classes=z.N)
    return keras_model(model, floats(1, 96, 96, 3), paths=True)


@recipe(
    "residual convolutions, stax",
    "list",
    "{package}, jax.example_libraries.stax",
    "jax",
    ["A=20 B=24 D=40 N=10", "A=32 B=32 D=32 N=32"],
    """
    0/0 | iiio
    4/0/0/0 | iiio
    4/1/0 | iiio
    7/0 | io
    9/0 | head
    * | vector
    """,
    "196*B",
    blind=True,
)
def convolutions(z: Any) -> Built:
    from jax.example_libraries import stax

    branch = stax.serial(stax.Conv(z.B, (3, 3), padding="SAME"), stax.BatchNorm())
    block = (stax.FanOut(2), stax.parallel(branch, stax.Conv(z.B, (1, 1), padding="SAME")), stax.FanInSum)
    layers = (stax.Conv(z.A, (3, 3)), stax.BatchNorm(), stax.Relu, *block, stax.Flatten, stax.Dense(z.D), stax.Relu)
    init, apply = stax.serial(*layers, stax.Dense(z.N))
    params = jax.eval_shape(lambda key: init(key, (4, 16, 16, 3))[1], jax.random.key(0))
    return params, lambda: from_function(apply, params, jnp.zeros((4, 16, 16, 3)))
