"""Words in path names, and what they say about a parameter."""

from __future__ import annotations

import itertools
import re
from typing import Final


def word_set(words: str) -> frozenset[str]:
    """A set of words, from a line of them."""
    return frozenset(words.split())


VECTORS: Final = word_set(
    "b bias beta gamma g scale offset alpha temperature ls1 ls2 gain shift mean var norm ln rms layernorm "
    "batchnorm groupnorm rmsnorm bn gn alog dtbias sinks sink peephole peepholes"
)
NORMS: Final = word_set("norm ln rms layernorm batchnorm groupnorm rmsnorm bn gn layernorms norms")
EMBEDDINGS: Final = word_set("embed embedding embeddings embedder emb wte vocab tok token tokens")
POSITIONS: Final = word_set("pos position positions positional wpe cls latents registers")
HEADS: Final = word_set("head lmhead classifier logits unembed unembedding readout predictions score mdn")
ROOT_HEADS: Final = word_set("output outputs out fcout final")
ATTENTIONS: Final = word_set("multi attention attn mha")
EXPERTS: Final = word_set("expert experts moe")
ROUTERS: Final = word_set("router gate")
STACKS: Final = word_set("scan scanned stack stacked repeat repeated layers blocks")
INTO_HEADS: Final = word_set("query key value q k v qproj kproj vproj wq wk wv wkv toq tok tov")
OUT_OF_HEADS: Final = word_set("out o outproj oproj wo toout proj attnout attentionoutput")
FUSED: Final = {"qkv": 3, "cattn": 3, "inproj": 3, "wqkv": 3, "kv": 2, "gateup": 2, "wi": 2}
CONVOLUTIONS: Final = word_set("conv convolution conv1d conv2d conv3d patchify")
SHORTCUTS: Final = word_set("downsample shortcut")
DEPTHWISE: Final = word_set("depthwise dw dwconv")
PLAIN_STEMS: Final = word_set("dense linear lin fc layers layer w weight weights kernel proj")
#: What a matrix with two axes is called that is neither `kernel` nor `weight` nor begins with w.
MATRICES: Final = (
    PLAIN_STEMS
    | INTO_HEADS
    | OUT_OF_HEADS
    | FUSED.keys()
    | word_set("up down gate in hidden ih hh a lora mlp ffn ff input recurrent state projection router cfc cproj")
)


def words(name: str) -> set[str]:
    """`"QKVProj_0"` -> {"qkv", "proj", "qkvproj"}; camel case, underscores and numbers separate words."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    parts = [word for word in re.split(r"[^A-Za-z]+", spaced.lower()) if word]
    joined = "".join(parts)
    return {*parts, joined, *("".join(pair) for pair in itertools.pairwise(parts)), name.lower()}
