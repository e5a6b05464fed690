"""Haiku, Equinox and Penzai models of several packages, and networks for reinforcement learning."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_tour.routing import from_function
from tests.routing.shape_zoo.record import Built, equinox, floats, haiku, linen, recipe, restore_old_numpy, stub, tokens


@recipe(
    "ResNet version 2, Haiku",
    "haiku",
    "{package}, hk.nets.ResNet(resnet_v2=True, bottleneck=True)",
    "dm-haiku",
    ["A=24 B=40 C=72 E=104 N=30", "A=64 B=64 C=128 E=256 N=64"],
    """
    */scale | vector
    */offset | vector
    *logits/w | head
    *logits/b | vector
    */w | iiio
    """,
    "64 A//4 B//4 C//4 E//4",
    conventional=True,
)
def resnet(z: Any) -> Built:
    import haiku as hk

    def forward(x: Any) -> Any:
        widths = (z.A, z.B, z.C, z.E)
        net = hk.nets.ResNet((1, 2, 1, 1), z.N, resnet_v2=True, bottleneck=True, channels_per_group=widths)
        return net(x, is_training=True)

    return haiku(forward, floats(2, 64, 64, 3))


@recipe(
    "MobileNet version 1, Haiku",
    "haiku",
    "{package}, hk.nets.MobileNetV1",
    "dm-haiku",
    ["A=24 B=40 N=30", "A=32 B=64 N=64"],
    """
    */scale | vector
    */offset | vector
    *logits/w | head
    *logits/b | vector
    *depthwise_conv*/w | depthwise
    */w | iiio
    """,
)
def mobilenet(z: Any) -> Built:
    import haiku as hk

    def forward(x: Any) -> Any:
        return hk.nets.MobileNetV1((1, 2), (z.A, z.B), z.N)(x, is_training=True)

    return haiku(forward, floats(2, 32, 32, 3))


@recipe(
    "travelling salesman actor, Jumanji",
    "haiku",
    "{package}, jumanji.training.networks.tsp",
    "jumanji",
    ["H=3 K=16 F=112", "H=8 K=8 F=64"],
    """
    */scale | vector
    */offset | vector
    */b | vector
    actor_cross_attention_block/linear/w | head
    */w | io
    """,
    "H*K 2*H*K 3*H*K",
)
def tsp(z: Any) -> Built:
    from jumanji.environments import TSP
    from jumanji.training.networks.tsp.actor_critic import make_actor_critic_networks_tsp

    env = TSP()
    observation = jax.eval_shape(lambda key: env.reset(key)[1].observation, jax.random.key(0))
    observation = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), observation)
    nets = make_actor_critic_networks_tsp(env, 2, z.H, z.K, (z.F,), True)
    params = jax.eval_shape(nets.policy_network.init, jax.random.key(0), observation)
    return params, lambda: from_function(nets.policy_network.apply, params, observation)


@recipe(
    "PPO, Brax",
    "linen",
    "{package}, make_ppo_networks",
    "brax",
    ["O=27 A=8 P=32 V=80", "O=64 A=32 P=64 V=64"],
    """
    *bias | vector
    policy/*_2/kernel | head
    value/*_3/kernel | head
    */kernel | io
    """,
    "2*A",
)
def ppo(z: Any) -> Built:
    from brax.training.agents.ppo.networks import make_ppo_networks

    nets = make_ppo_networks(z.O, z.A, policy_hidden_layer_sizes=(z.P,) * 2, value_hidden_layer_sizes=(z.V,) * 3)
    keys = jax.random.key(0)
    params = {
        "policy": jax.eval_shape(nets.policy_network.init, keys)["params"],
        "value": jax.eval_shape(nets.value_network.init, keys)["params"],
    }

    def call(params: Any, obs: Any) -> Any:
        policy = nets.policy_network.apply((), {"params": params["policy"]}, obs)
        return policy, nets.value_network.apply((), {"params": params["value"]}, obs)

    return params, lambda: from_function(call, params, floats(3, z.O))


@recipe(
    "masked autoregressive flow, FlowJAX",
    "equinox",
    "{package}, flowjax.flows.masked_autoregressive_flow",
    "flowjax",
    ["D=7 W=40", "D=32 W=32"],
    """
    base_dist/* | vector
    */bias | vector
    *layers/0/weight/args/1 | boi
    *layers/1/weight/args/1 | boi
    """,
    "2*D",
)
def flow(z: Any) -> Built:
    from flowjax.distributions import Normal
    from flowjax.flows import masked_autoregressive_flow
    from paramax import unwrap

    def make() -> Any:
        return masked_autoregressive_flow(
            jax.random.key(0), base_dist=Normal(jnp.zeros(z.D)), flow_layers=3, nn_width=z.W
        )

    return equinox(make, lambda model, x: unwrap(model).log_prob(x), floats(5, z.D))


@recipe(
    "ViT, Equimo",
    "equinox",
    "{package}, equimo.models.VisionTransformer",
    "equimo",
    ["D=48 F=96 N=30", "D=64 F=128 N=64"],
    """
    patch_embed/proj/weight | oiii
    *bias | vector
    *norm/weight | vector
    global_pos_embed/weight | position
    cls_token | position
    reg_tokens | position
    head/weight | head
    */weight | oi
    """,
    "3*D",
    conventional=True,
)
def vit(z: Any) -> Built:
    import equimo.models as em

    def make() -> Any:
        return em.VisionTransformer(32, 3, z.D, 8, 4, [2], key=jax.random.key(0), mlp_ratio=2.0, num_classes=z.N)

    return equinox(make, lambda model, x: model(x, key=jax.random.key(0), inference=True), floats(3, 32, 32))


@recipe(
    "ConvNeXt, Equimo",
    "equinox",
    "{package}, equimo.models.ConvNeXt",
    "equimo",
    ["A=12 B=20 C=36 E=52 N=30", "A=16 B=32 C=64 E=128 N=64"],
    """
    *bias | vector
    *norm/weight | vector
    */gamma | vector
    */dwconv/weight | depthwise
    head/weight | head
    */weight | oiii
    """,
    "4*A 4*B 4*C 4*E",
)
def convnext(z: Any) -> Built:
    import equimo.models as em

    def make() -> Any:
        return em.ConvNeXt(3, depths=[1, 1, 1, 1], dims=[z.A, z.B, z.C, z.E], num_classes=z.N, key=jax.random.key(0))

    return equinox(make, lambda model, x: model(x, key=jax.random.key(0), inference=True), floats(3, 64, 64))


@recipe(
    "GPT-NeoX, Penzai",
    "penzai",
    "{package}, build_gpt_neox_transformer",
    "penzai",
    ["V=97 D=48 H=5 K=16 F=112", "V=64 D=64 H=8 K=8 F=64"],
    """
    */by | scalar
    */masked_out_value | scalar
    */embeddings/value | embedding
    *bias/value | vector
    body/sublayers/4/weights/value | head
    */input_to_*/weights/value | ioo
    */attn_value_to_output/*/weights/value | iio
    *branches/2/sublayers/1/*/weights/value | io
    */weights/value | vector
    """,
    conventional=True,
)
def gpt_neox(z: Any) -> Built:
    from penzai import pz
    from penzai.models.transformer.variants import gpt_neox

    config = gpt_neox.GPTNeoXTransformerConfig(
        num_attention_heads=z.H, embedding_dim=z.D, projection_dim=z.K, mlp_hidden_dim=z.F, num_decoder_blocks=2,
        vocab_size=z.V, activation_fn="gelu_exact", rope_subset_size=4, rope_wavelength=1e4, layernorm_epsilon=1e-5,
        parameter_dtype=jnp.float32, activation_dtype=jnp.float32,
    )  # fmt: skip
    model = gpt_neox.build_gpt_neox_transformer(config, jax.random.key(0))
    unbound, values = pz.unbind_params(model, freeze=True)

    def call(model: Any, ids: Any) -> Any:
        return model(
            pz.nx.wrap(ids).tag("batch", "seq"), token_positions=pz.nx.wrap(jnp.zeros((2, 8), int)).tag("batch", "seq")
        ).unwrap("batch", "seq", "vocabulary")

    bound = pz.bind_variables(unbound, values)
    return bound, lambda: from_function(call, bound, tokens(2, 8))


@recipe(
    "S5 classifier",
    "linen",
    "lindermanlab/S5 s5/seq_model.py",
    "lindermanlab/S5",
    ["D=24 P=20 C=10 I=5", "D=32 P=32 C=32 I=32"],
    """
    *bias | vector
    */norm/scale | vector
    decoder/kernel | head
    */seq/B | other
    */seq/C | other
    */seq/* | vector
    */kernel | io
    """,
    "P//2",
)
def s5(z: Any) -> Built:
    restore_old_numpy()
    from s5.seq_model import ClassificationModel
    from s5.ssm import init_S5SSM
    from s5.ssm_init import make_DPLR_HiPPO

    eigenvalues, _, _, vectors, _ = make_DPLR_HiPPO(z.P)
    half = z.P // 2
    eigenvalues, vectors = eigenvalues[:half], vectors[:, :half]
    ssm = init_S5SSM(
        z.D, half, eigenvalues.real, eigenvalues.imag, vectors, vectors.conj().T, "lecun_normal", "zoh", 1e-3, 1e-1,
        True,
        False, False,
    )  # fmt: skip
    model = ClassificationModel(ssm, z.C, z.D, 2, padded=False, activation="half_glu1", training=False)
    return linen(model, floats(16, z.I), floats(16))


@recipe(
    "Mamba, mamba-jax",
    "equinox",
    "vvvm23/mamba-jax mamba_jax/modelling/equinox/model.py",
    "equinox vvvm23/mamba-jax einops",
    ["V=96 D=48 S=7", "V=64 D=64 S=16"],
    """
    *bias | vector
    *norm/weight | vector
    *norm_f/weight | vector
    */D | vector
    */A_log | other
    *embedding/weight | embedding
    *lm_head/weight | head
    */conv1d/weight | depthwise
    */weight | oi
    """,
    "2*D 4*D D//16 D//16+2*S V+7 V",
)
def mamba(z: Any) -> Built:
    restore_old_numpy()
    stub("mamba_jax.modelling.equinox.loader")
    from mamba_jax.modelling.equinox.model import MambaLLM

    def make() -> Any:
        return MambaLLM(z.D, 2, z.V, state_dim=z.S, key=jax.random.key(0))

    return equinox(make, lambda model, x: model(x), tokens(16))
