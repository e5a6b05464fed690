"""How long `routing.from_function` takes against `jax.eval_shape` of the same function, in alternating rounds.

python benchmarks/routing_by_use.py [--rounds 7] [--limit 2.0]

Both trace the function anew in every round. Prints a table a model, writes benchmarks/results/routing_by_use.json, and
fails where the median ratio of the largest model is above the limit.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from _common import alternate, compare, table, write
from flax import nnx

from jaxopt_tour.routing import from_function

BASELINE = "jax.eval_shape"
LARGEST = "48 layers, unrolled"


class Model(NamedTuple):
    """A function of parameters and tokens, and both as shapes."""

    fn: Callable[[Any, Any], Any]
    params: Any
    tokens: Any


def floats(*shape: int) -> Any:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def block(p: Any, x: Any, heads: int) -> Any:
    """A pre-norm block: rotary attention from a fused projection, then a gated MLP."""
    h = x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-6) * p["norm"]
    q, k, v = (y.reshape(*y.shape[:2], heads, -1) for y in jnp.split(h @ p["qkv"], 3, axis=-1))
    angles = jnp.arange(x.shape[1])[:, None, None] * jnp.arange(q.shape[-1] // 2)
    q, k = (rotated(y, jnp.sin(angles), jnp.cos(angles)) for y in (q, k))
    y = jax.nn.dot_product_attention(q, k, v, is_causal=True)
    x = x + y.reshape(x.shape) @ p["out"]
    gate, up = jnp.split(x @ p["up"], 2, axis=-1)
    return x + (jax.nn.silu(gate) * up) @ p["down"]


def rotated(x: Any, sin: Any, cos: Any) -> Any:
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def unrolled(layers: int, width: int = 768, heads: int = 12, words: int = 50304) -> Model:
    layer = {
        "norm": floats(width),
        "qkv": floats(width, 3 * width),
        "out": floats(width, width),
        "up": floats(width, 8 * width),
        "down": floats(4 * width, width),
    }
    params = {"embed": floats(words, width), "layers": [layer] * layers, "head": floats(width, words)}

    def fn(params: Any, tokens: Any) -> Any:
        x = params["embed"][tokens]
        for p in params["layers"]:
            x = block(p, x, heads)
        return x @ params["head"]

    return Model(fn, params, jax.ShapeDtypeStruct((2, 128), jnp.int32))


def scanned(layers: int) -> Model:
    model = unrolled(1)
    stacked = jax.tree.map(lambda leaf: floats(layers, *leaf.shape), model.params["layers"][0])

    def fn(params: Any, tokens: Any) -> Any:
        x = params["embed"][tokens]
        x, _ = jax.lax.scan(lambda x, p: (block(p, x, 12), None), x, params["layers"])
        return x @ params["head"]

    return model._replace(fn=fn, params={**model.params, "layers": stacked})


class Transformer(nnx.Module):
    """Flax's layers, unrolled."""

    def __init__(self, layers: int, width: int, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Embed(50304, width, rngs=rngs)
        self.norms = nnx.List([nnx.LayerNorm(width, rngs=rngs) for _ in range(layers)])
        self.attention = nnx.List([nnx.MultiHeadAttention(12, width, decode=False, rngs=rngs) for _ in range(layers)])
        self.up = nnx.List([nnx.Linear(width, 4 * width, rngs=rngs) for _ in range(layers)])
        self.down = nnx.List([nnx.Linear(4 * width, width, rngs=rngs) for _ in range(layers)])

    def __call__(self, tokens: Any) -> Any:
        x = self.embed(tokens)
        for norm, attention, up, down in zip(self.norms, self.attention, self.up, self.down, strict=True):
            x = x + attention(norm(x))
            x = x + down(nnx.gelu(up(x)))
        return self.embed.attend(x)


def flax_model(layers: int) -> Model:
    model = nnx.eval_shape(lambda: Transformer(layers, 768, nnx.Rngs(0)))
    graph, params = nnx.split(model, nnx.Param)
    return Model(lambda p, x: nnx.merge(graph, p)(x), params, jax.ShapeDtypeStruct((2, 128), jnp.int32))


MODELS = {
    "12 layers, Flax nnx": lambda: flax_model(12),
    "48 layers, scanned": lambda: scanned(48),
    LARGEST: lambda: unrolled(48),
}


def traced(run: Callable[..., Any], model: Model) -> Callable[[], Any]:
    def anew() -> Any:
        jax.clear_caches()
        return run(lambda *arguments: model.fn(*arguments), model.params, model.tokens)

    return anew


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="traces of each (default %(default)s)")
    parser.add_argument("--limit", type=float, default=2.0, help="largest ratio that passes (default %(default)s)")
    parser.add_argument("--no-write", action="store_true", help="print only")
    arguments = parser.parse_args()
    contenders = {BASELINE: jax.eval_shape, "from_function": from_function}
    results, ratios = [], {}
    for name, make in MODELS.items():
        model = make()
        runs = {contender: traced(run, model) for contender, run in contenders.items()}
        rows = compare(alternate(runs, rounds=arguments.rounds), baseline=BASELINE)
        print(f"{name}\n{table(rows)}\n")
        results += [{"model": name, **row} for row in rows]
        ratios[name] = next(row["ratio"] for row in rows if row["name"] == "from_function")
    if not arguments.no_write:
        write("routing_by_use", results, settings={"rounds": arguments.rounds, "limit": arguments.limit})
    if ratios[LARGEST] > arguments.limit:
        sys.exit(f"from_function takes {ratios[LARGEST]:.2f} times as long as {BASELINE}")


if __name__ == "__main__":
    main()
