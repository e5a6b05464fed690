"""Language models of Levanter, whose arrays name their axes with Haliax."""

from __future__ import annotations

from typing import Any

import jax

from jaxopt_tour.routing import from_function
from tests.routing.shape_zoo.record import Built, recipe, tokens


def built(module: str, model: str, config: Any, vocabulary: int) -> Built:
    """A language model: its arrays by name, and its routes."""
    import importlib

    import equinox as eqx
    import haliax as hax

    kind = getattr(importlib.import_module(f"levanter.models.{module}"), model)
    vocab = hax.Axis("vocab", vocabulary)
    tree = eqx.filter_eval_shape(lambda: kind.init(vocab, config, key=jax.random.key(0)))

    def call(tree: Any, ids: Any) -> Any:
        return tree(hax.named(ids, config.Pos), key=None).array

    return tree, lambda: from_function(call, tree, tokens(config.Pos.size))


SIZES = ["V=97 D=48 H=6 G=2 F=112 L=5", "V=64 D=64 H=8 G=8 F=64 L=8"]

#: What every decoder has in common.
ATTENTION = """
    *norm/weight | vector
    */token_embeddings/weight | embedding
    */q_proj/weight | boooi
    */k_proj/weight | booi
    */v_proj/weight | booi
    */o_proj/weight | boii
"""


@recipe(
    "Gemma 2, Levanter",
    "haliax",
    "{package}, levanter.models.gemma.Gemma2LMHeadModel",
    "levanter",
    SIZES,
    ATTENTION
    + """
    */mlp/*/weight | boi
    """,
    "D//H H//G",
    conventional=True,
)
def gemma(z: Any) -> Built:
    from levanter.models.gemma import Gemma2Config

    config = Gemma2Config(
        seq_len=16, hidden_dim=z.D, intermediate_dim=z.F, num_layers=z.L, num_heads=z.H, num_kv_heads=z.G,
        head_dim=z.D // z.H
    )  # fmt: skip
    return built("gemma", "Gemma2LMHeadModel", config, z.V)


@recipe(
    "OLMo 2, Levanter",
    "haliax",
    "{package}, levanter.models.olmo.Olmo2LMHeadModel",
    "levanter",
    SIZES,
    ATTENTION
    + """
    lm_head/weight | head
    */mlp/*/weight | boi
    """,
    "D//H H//G",
    conventional=True,
)
def olmo(z: Any) -> Built:
    from levanter.models.olmo import Olmo2Config

    config = Olmo2Config(
        seq_len=16, hidden_dim=z.D, intermediate_dim=z.F, num_layers=z.L, num_heads=z.H, num_kv_heads=z.G
    )
    return built("olmo", "Olmo2LMHeadModel", config, z.V)


@recipe(
    "Mixtral, Levanter",
    "haliax",
    "{package}, levanter.models.mixtral.MixtralLMHeadModel",
    "levanter",
    ["V=97 D=48 H=6 G=2 F=112 L=5 E=7", "V=64 D=64 H=8 G=8 F=64 L=8 E=8"],
    ATTENTION
    + """
    lm_head/weight | head
    */gate/weight | boi
    */experts/*/weight | bbio
    """,
    "D//H H//G",
    conventional=True,
)
def mixtral(z: Any) -> Built:
    from levanter.models.mixtral import MixtralConfig

    config = MixtralConfig(
        seq_len=16, hidden_dim=z.D, intermediate_dim=z.F, num_layers=z.L, num_heads=z.H, num_kv_heads=z.G,
        n_routed_experts=z.E
    )  # fmt: skip
    return built("mixtral", "MixtralLMHeadModel", config, z.V)


@recipe(
    "Whisper, Levanter",
    "haliax",
    "{package}, levanter.models.whisper.WhisperModel",
    "levanter",
    ["V=97 D=48 H=6 F=112 G=80 L=5 M=10 S=24 T=20", "V=64 D=64 H=8 F=256 G=256 L=8 M=16 S=24 T=20"],
    """
    *bias | vector
    *_ln/weight | vector
    *norm/weight | vector
    */token_embeddings/weight | embedding
    */position_embeddings/weight | position
    */conv*/weight | oii
    */q_proj/weight | bioo
    */k_proj/weight | bioo
    */v_proj/weight | bioo
    */out_proj/weight | biio
    */fc*/weight | bio
    """,
    "D//H",
    conventional=True,
)
def whisper(z: Any) -> Built:
    import equinox as eqx
    import haliax as hax
    from levanter.models.whisper import WhisperConfig, WhisperModel

    config = WhisperConfig(
        vocab_size=z.V, num_mel_bins=z.M, encoder_layers=z.L, encoder_attention_heads=z.H, decoder_layers=z.L,
        decoder_attention_heads=z.H, decoder_ffn_dim=z.G, encoder_ffn_dim=z.F, d_model=z.D, max_source_positions=z.S,
        max_length=z.T,
    )  # fmt: skip
    vocab = hax.Axis("vocab", z.V)
    return eqx.filter_eval_shape(lambda: WhisperModel.init(vocab, config, key=jax.random.key(0))), None
