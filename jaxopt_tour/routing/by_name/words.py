"""Words in path names, and what they say about a parameter."""

from __future__ import annotations

import itertools
import re
from typing import Final


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


VECTORS: Final = _set(
    "b bias beta gamma g scale offset alpha temperature ls1 ls2 gain shift mean var norm ln rms layernorm "
    "batchnorm groupnorm rmsnorm bn gn alog dtbias sinks sink peephole peepholes"
)
NORMS: Final = _set("norm ln rms layernorm batchnorm groupnorm rmsnorm bn gn layernorms norms")
EMBEDDINGS: Final = _set("embed embedding embeddings embedder emb wte vocab tok token tokens")
POSITIONS: Final = _set("pos position positions positional wpe cls latents registers")
HEADS: Final = _set("head lmhead classifier logits unembed unembedding readout predictions score mdn")
ROOT_HEADS: Final = _set("output outputs out fcout final")
ATTENTIONS: Final = _set("multi attention attn mha")
EXPERTS: Final = _set("expert experts moe")
ROUTERS: Final = _set("router gate")
STACKS: Final = _set("scan scanned stack stacked repeat repeated layers blocks")
INTO_HEADS: Final = _set("query key value q k v qproj kproj vproj wq wk wv wkv toq tok tov")
OUT_OF_HEADS: Final = _set("out o outproj oproj wo toout proj attnout")
FUSED: Final = {"qkv": 3, "cattn": 3, "inproj": 3, "wqkv": 3, "kv": 2, "gateup": 2, "wi": 2}
CONVOLUTIONS: Final = _set("conv convolution conv1d conv2d conv3d patchify")
DEPTHWISE: Final = _set("depthwise dw dwconv")
PLAIN_STEMS: Final = _set("dense linear lin fc layers layer w weight weights kernel proj")
#: What a matrix with two axes is called that is neither ``kernel`` nor ``weight`` nor begins with w.
MATRICES: Final = (
    PLAIN_STEMS
    | INTO_HEADS
    | OUT_OF_HEADS
    | FUSED.keys()
    | _set("up down gate in hidden ih hh a lora mlp ffn ff input recurrent state projection router c cfc cproj")
)


def words(name: str) -> set[str]:
    """``"QKVProj_0"`` -> {"qkv", "proj", "qkvproj"}; camel case, underscores and numbers separate words."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    parts = [word for word in re.split(r"[^A-Za-z]+", spaced.lower()) if word]
    joined = "".join(parts)
    return {*parts, joined, *("".join(pair) for pair in itertools.pairwise(parts)), name.lower()}
