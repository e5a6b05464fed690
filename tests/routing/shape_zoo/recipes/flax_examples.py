"""Flax's examples, big_vision, and other repositories of linen models, run from checkouts."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import jax

from jaxopt_tour.routing import from_function
from tests.routing.shape_zoo.record import Built, bare_package, checkout_of, floats, haiku, linen, recipe, stub, tokens


def module_of(repository: str, path: str) -> Any:
    """A module of a checkout, given by its file since its package's name may be taken."""
    file = checkout_of(repository) / path
    name = "zoo_" + path.removesuffix(".py").replace("/", "_")
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec and spec.loader
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@recipe(
    "GraphNet, Flax example",
    "linen",
    "google/flax examples/ogbg_molpcba/models.py",
    "google/flax jraph",
    ["N=9 E=3 G=5 D=24 O=28", "N=32 E=32 G=32 D=32 O=32"],
    """
    *bias | vector
    */scale | vector
    Dense_3/kernel | head
    */kernel | io
    """,
    "3*D 4*D",
)
def graph_net(z: Any) -> Built:
    import jraph

    model = module_of("google/flax", "examples/ogbg_molpcba/models.py").GraphNet(z.D, 2, 2, z.O)
    graph = jraph.GraphsTuple(
        floats(6, z.N), floats(8, z.E), tokens(8), tokens(8), floats(2, z.G), tokens(2), tokens(2)
    )
    variables = jax.eval_shape(model.init, jax.random.key(0), graph)

    def call(params: Any, graph: Any) -> Any:
        return model.apply({"params": params}, graph).globals

    return variables["params"], lambda: from_function(call, variables["params"], graph)


@recipe(
    "sequence to sequence, Flax example",
    "linen",
    "google/flax examples/seq2seq/models.py",
    "google/flax",
    ["V=15 D=40", "V=32 D=32"],
    """
    *bias | vector
    *Dense_0/kernel | head
    */kernel | io
    """,
)
def seq2seq(z: Any) -> Built:
    model = module_of("google/flax", "examples/seq2seq/models.py").Seq2seq(True, z.D, z.V)
    inputs = floats(2, 6, z.V), floats(2, 5, z.V)
    keys = {"params": jax.random.key(0), "lstm": jax.random.key(0)}
    params = jax.eval_shape(model.init, keys, *inputs)["params"]

    def call(params: Any, *inputs: Any) -> Any:
        return model.apply({"params": params}, *inputs, rngs={"lstm": jax.random.key(0)})[0]

    return params, lambda: from_function(call, params, *inputs)


@recipe(
    "language model, Flax example",
    "linen",
    "google/flax examples/lm1b/models.py",
    "google/flax",
    ["V=97 D=48 J=80 H=5 T=20 F=112", "V=64 D=64 J=64 H=8 T=64 F=256"],
    """
    *bias | vector
    */scale | vector
    decoder/*logitdense/kernel | head
    decoder/Embed_0/embedding | embedding
    decoder/*/pos_embedding | position
    */out/kernel | iio
    */query/kernel | ioo
    */key/kernel | ioo
    */value/kernel | ioo
    */kernel | io
    """,
    "J//H",
    conventional=True,
)
def lm1b(z: Any) -> Built:
    models = module_of("google/flax", "examples/lm1b/models.py")
    config = models.TransformerConfig(
        vocab_size=z.V, output_vocab_size=z.V, emb_dim=z.D, num_heads=z.H, num_layers=2, qkv_dim=z.J, mlp_dim=z.F,
        max_len=z.T, deterministic=True, posemb_init=jax.nn.initializers.normal(),
    )  # fmt: skip
    return linen(models.TransformerLM(config), tokens(2, 8))


@recipe(
    "BiT ResNet, big_vision",
    "linen",
    "google-research/big_vision big_vision/models/bit.py",
    "google-research/big_vision flax",
    ["W=32 N=30", "W=64 N=64"],
    """
    *bias | vector
    */scale | vector
    head/kernel | head
    */kernel | iiio
    """,
    "2*W 4*W 8*W 16*W 32*W",
    conventional=True,
)
def bit(z: Any) -> Built:
    stub("big_vision.utils")
    models = module_of("google-research/big_vision", "big_vision/models/bit.py")
    return linen(models.Model(z.N, width=z.W / 64, depth=(1, 2, 1, 1)), floats(1, 64, 64, 3))


@recipe(
    "SigLIP text tower, big_vision",
    "linen",
    "google-research/big_vision big_vision/models/proj/image_text/text_transformer.py",
    "google-research/big_vision flax ml-collections einops",
    ["V=97 D=48 H=3 T=16 F=112 L=5 N=40", "V=97 D=64 H=8 T=16 F=256 L=8 N=64"],
    """
    *bias | vector
    */scale | vector
    Embed_0/embedding | embedding
    pos_embedding | position
    head/kernel | head
    */out/kernel | biio
    */query/kernel | bioo
    */key/kernel | bioo
    */value/kernel | bioo
    */kernel | bio
    """,
    "D//H",
    conventional=True,
)
def siglip_text(z: Any) -> Built:
    stub("big_vision.utils")
    from big_vision.models.proj.image_text import text_transformer

    model = text_transformer.Model(z.N, width=z.D, depth=z.L, mlp_dim=z.F, num_heads=z.H, vocab_size=z.V, scan=True)
    return linen(model, tokens(2, z.T))


@recipe(
    "scalable T5, T5X",
    "linen",
    "google-research/t5x t5x/examples/scalable_t5/network.py",
    "google-research/t5x flax",
    ["V=97 D=48 H=5 K=16 F=112 L=6", "V=97 D=64 H=8 K=8 F=256 L=8"],
    """
    token_embedder/embedding | embedding
    */scale | vector
    */rel_embedding | position
    decoder/logits_dense/kernel | head
    */query/kernel | iboo
    */key/kernel | iboo
    */value/kernel | iboo
    */out/kernel | ibio
    */kernel | ibo
    """,
    "",
    conventional=True,
)
def scalable_t5(z: Any) -> Built:
    bare_package("google-research/t5x", "t5x")
    from t5x.examples.scalable_t5 import network

    config = network.T5Config(
        z.V, emb_dim=z.D, num_heads=z.H, num_encoder_layers=z.L, num_decoder_layers=z.L, head_dim=z.K, mlp_dim=z.F,
        mlp_activations=("gelu", "linear"),
    )  # fmt: skip
    ids = tokens(2, 8)
    return linen(network.Transformer(config), ids, ids, ids, enable_dropout=False)


@recipe(
    "pi0 language model with action expert, openpi",
    "linen",
    "Physical-Intelligence/openpi src/openpi/models/gemma.py",
    "Physical-Intelligence/openpi:src flax einops",
    ["D=48 H=6 K=16 F=112 A=40 B=72 L=5 V=97", "D=64 H=8 K=8 F=256 A=64 B=64 L=8 V=97"],
    "nothing | vector",
    "3*A",
    conventional=True,
)
def pi0(z: Any) -> Built:
    stub("openpi.training", "openpi.training.sharding", "openpi.shared", "openpi.shared.array_typing")
    from openpi.models import gemma

    gemma.at.typecheck = gemma.sharding.activation_sharding_constraint = lambda same: same
    gemma.PALIGEMMA_VOCAB_SIZE = z.V
    configs = [gemma.Config(z.D, z.L, z.F, z.H, 1, z.K), gemma.Config(z.A, z.L, z.B, z.H, 1, z.K)]
    module = gemma.Module(configs, "float32", adarms=True)
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), [False, True], method="init"))
    return variables["params"], None


@recipe(
    "factorized ViViT, Scenic",
    "linen",
    "google-research/scenic scenic/projects/vivit/model.py",
    "google-research/scenic flax ml-collections immutabledict",
    ["D=48 H=3 F=112 N=30", "D=64 H=8 F=256 N=64"],
    "nothing | vector",
    "D//H",
    conventional=True,
)
def vivit(z: Any) -> Built:
    import ml_collections

    stub(
        "scenic.common_lib.video_utils", "scenic.model_lib.base_models.base_model", 
        "scenic.model_lib.base_models.classification_model", "scenic.model_lib.base_models.model_utils",
        "scenic.model_lib.base_models.multilabel_classification_model",
    )  # fmt: skip
    models = module_of("google-research/scenic", "scenic/projects/vivit/model.py")
    config = ml_collections.ConfigDict
    model = models.ViViT(
        z.F, 2, z.H, z.N, config({"size": (8, 8, 2)}), z.D, config({"method": "3d_conv", "kernel_init_method": "none"}),
        config({"type": "factorized_self_attention_block", "attention_order": "time_space"}),
    )  # fmt: skip
    return linen(model, floats(1, 4, 32, 32, 3), train=False)


@recipe(
    "Evoformer, AlphaFold",
    "haiku",
    "google-deepmind/alphafold alphafold/model/modules.py",
    "google-deepmind/alphafold dm-haiku",
    ["M=40 Z=24", "M=64 Z=64"],
    """
    *bias | vector
    *_b | vector
    */scale | vector
    */offset | vector
    */query_w | ioo
    */key_w | ioo
    */value_w | ioo
    */gating_w | ioo
    */output_w | iio
    */feat_2d_weights | io
    */weights | io
    """,
    "M//8 Z//8 Z//4 4*M 4*Z",
)
def evoformer(z: Any) -> Built:
    stub(
        "tree",
        "alphafold.common.residue_constants",
        "alphafold.model.folding",
        "alphafold.model.all_atom",
        "alphafold.model.quat_affine",
    )
    from alphafold.model import config, modules

    settings = config.model_config("model_1").model
    evoformer = settings.embeddings_and_evoformer.evoformer
    settings["global_config"]["deterministic"] = True

    def forward(msa: Any, pair: Any, msa_mask: Any, pair_mask: Any) -> Any:
        block = modules.EvoformerIteration(evoformer, settings.global_config, is_extra_msa=False)
        return block({"msa": msa, "pair": pair}, {"msa": msa_mask, "pair": pair_mask}, is_training=False)

    return haiku(forward, floats(5, 6, z.M), floats(6, 6, z.Z), floats(5, 6), floats(6, 6))


@recipe(
    "GraphCast mesh network",
    "haiku",
    "google-deepmind/graphcast graphcast/deep_typed_graph_net.py",
    "google-deepmind/graphcast dm-haiku jraph",
    ["N=9 E=4 D=40 O=17", "N=32 E=32 D=32 O=32"],
    "nothing | vector",
)
def graphcast(z: Any) -> Built:
    stub("xarray", "graphcast.losses", "graphcast.model_utils")
    from graphcast import deep_typed_graph_net, typed_graph

    net = deep_typed_graph_net.DeepTypedGraphNet
    edges = typed_graph.EdgeSetKey("mesh", ("mesh_nodes", "mesh_nodes"))

    def forward(nodes: Any, features: Any, senders: Any, receivers: Any) -> Any:
        graph = typed_graph.TypedGraph(
            typed_graph.Context(tokens_of_one(), ()),
            {"mesh_nodes": typed_graph.NodeSet(jax.numpy.full(1, 6), nodes)},
            {edges: typed_graph.EdgeSet(jax.numpy.full(1, 8), typed_graph.EdgesIndices(senders, receivers), features)},
        )
        model = net(
            node_latent_size={"mesh_nodes": z.D}, edge_latent_size={"mesh": z.D}, mlp_hidden_size=z.D,
            mlp_num_hidden_layers=1,
            num_message_passing_steps=2, use_layer_norm=True, node_output_size={"mesh_nodes": z.O}, embed_nodes=True,
            embed_edges=True,
            name="mesh_gnn",
        )  # fmt: skip
        return model(graph).nodes["mesh_nodes"].features

    def tokens_of_one() -> Any:
        return jax.numpy.ones(1)

    return haiku(forward, floats(6, 1, z.N), floats(8, 1, z.E), tokens(8), tokens(8))
