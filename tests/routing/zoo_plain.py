"""The zoo's functions in plain JAX: every operation that a parameter can be seen through, and some that it cannot."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_tour.routing.axes import MatrixAxes
from tests.routing.zoo_case import (
    DENSE,
    EMBEDDING,
    HEAD,
    NOT_UNDERSTOOD,
    POSITION,
    SCALAR,
    VECTOR,
    case,
    floats,
    head,
    matrix,
    tied,
    tokens,
)


@case(
    {
        "layers/w": matrix(1, 2), "layers/b": VECTOR, "layers/temperature": VECTOR, "head": HEAD, "alpha": SCALAR,
        "embedding": EMBEDDING,
    }
)  # fmt: skip
def plain_scan() -> tuple[Any, ...]:
    params = {
        "embedding": floats(20, 8),
        "layers": {"w": floats(4, 8, 8), "b": floats(4, 8), "temperature": floats(4)},
        "alpha": floats(),
        "head": floats(8, 3),
    }

    def fn(params: Any, x: Any) -> Any:
        def layer(x: Any, p: Any) -> tuple[Any, None]:
            return x + jnp.tanh(p["temperature"] * (x @ p["w"]) + p["b"]), None

        x, _ = jax.lax.scan(jax.checkpoint(layer), params["embedding"][x], params["layers"])
        return params["alpha"] * x @ params["head"]

    return fn, params, tokens(2, 5)


@case({"w": matrix(1, 2), "b": VECTOR, "head": HEAD})
def plain_indexed_layers() -> tuple[Any, ...]:
    def fn(params: Any, x: Any) -> Any:
        x = jnp.tanh(x @ params["w"][0] + params["b"][0])

        def body(i: Any, x: Any) -> Any:
            return jnp.tanh(x @ params["w"][i] + params["b"][i])

        return jax.lax.fori_loop(1, 4, body, x) @ params["head"]

    return fn, {"w": floats(4, 8, 8), "b": floats(4, 8), "head": floats(8, 3)}, floats(5, 8)


@case({"w1": matrix(1, 2), "b1": VECTOR, "w2": head(1, 2), "conv": matrix((1, 2, 3), 4)})
def plain_vmapped_ensemble() -> tuple[Any, ...]:
    """Five networks side by side on the same input."""

    def one(params: Any, x: Any) -> Any:
        x = jax.lax.conv_general_dilated(
            x, params["conv"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ).mean((1, 2))
        return jax.nn.relu(x @ params["w1"] + params["b1"]) @ params["w2"]

    params = {"w1": floats(5, 6, 16), "b1": floats(5, 16), "w2": floats(5, 16, 3), "conv": floats(5, 3, 3, 1, 6)}
    return lambda params, x: jax.vmap(one, (0, None))(params, x).mean(0), params, floats(2, 8, 8, 1)


@case({"w": DENSE, "a": DENSE, "b": DENSE, "core": DENSE, "left": DENSE, "right": DENSE, "head": HEAD})
def plain_lora() -> tuple[Any, ...]:
    """W + a B @ A, and a product of three factors; the wide layer is stored as (out, in)."""

    def fn(params: Any, x: Any) -> Any:
        x = jax.nn.relu(x @ (params["w"] + 0.5 * params["b"] @ params["a"]))
        factored = (params["right"].T @ params["core"].T @ params["left"].T).T
        return jax.nn.relu(x @ factored) @ params["head"]

    params = {
        "w": floats(8, 16), "b": floats(8, 2), "a": floats(2, 16), "left": floats(16, 3), "core": floats(3, 4),
        "right": floats(4, 12), "head": floats(12, 3),
    }  # fmt: skip
    return fn, params, floats(5, 8)


@case({"qkv": DENSE, "kv": matrix(0, (1, 2, 3)), "thirds": DENSE, "out": DENSE, "head": HEAD})
def plain_fused() -> tuple[Any, ...]:
    return _fused, FUSED, floats(2, 5, 8)


@case(
    {
        "qkv": matrix(0, 1, (8, 4, 4)), "kv": matrix(0, (1, 2, 3), (8, 8)), "thirds": matrix(0, 1, (8, 8, 8)),
        "out": DENSE, "head": HEAD,
    }
)  # fmt: skip
def plain_fused_split() -> tuple[Any, ...]:
    return _fused, FUSED, floats(2, 5, 8), {"split": "fused"}


FUSED = {
    "qkv": floats(8, 16), "kv": floats(8, 2, 2, 4), "thirds": floats(8, 24), "out": floats(8, 8), "head": floats(8, 3),
}  # fmt: skip


def _fused(params: Any, x: Any) -> Any:
    """Queries wider than keys and values; a stack of keys and values; a reshape into three; a split parameter."""
    q, k, v = jnp.split(x @ params["qkv"], [8, 12], axis=-1)
    q1, q2 = jnp.split(q.reshape(2, 5, 2, 4), 2, axis=-1)  # a rotation inside every head is no fused projection
    q = jnp.concatenate([-q2, q1], axis=-1)
    x = x + jax.nn.dot_product_attention(q, k[:, :, None], v[:, :, None]).reshape(2, 5, 8) @ params["out"]
    kv = jnp.einsum("btd,dkhf->bkthf", x, params["kv"])
    x = x + jax.nn.dot_product_attention(x.reshape(2, 5, 2, 4), kv[:, 0], kv[:, 1]).reshape(2, 5, 8)
    a, b, c = (jnp.tanh(x @ w) for w in jnp.split(params["thirds"], 3, axis=1))
    return (x + a * b + c) @ params["head"]


@case({"w": DENSE, "g": VECTOR, "centered": DENSE, "head": HEAD})
def plain_normalized_weights() -> tuple[Any, ...]:
    """Weight normalization and weight standardization."""

    def fn(params: Any, x: Any) -> Any:
        w = params["g"] * params["w"] / jnp.linalg.norm(params["w"], axis=0)
        centered = (params["centered"] - params["centered"].mean(0)) / params["centered"].std(0)
        return jnp.tanh(jnp.tanh(x @ w) @ centered) @ params["head"]

    return fn, {"w": floats(8, 16), "g": floats(16), "centered": floats(16, 16), "head": floats(16, 3)}, floats(5, 8)


@case(
    {
        "matrix": matrix((0, 1), 2),
        "folded": matrix(0, (1, 2)),
        "flat": NOT_UNDERSTOOD,
        "straddled": NOT_UNDERSTOOD,
        "head": HEAD,
    }
)
def plain_reshaped() -> tuple[Any, ...]:
    def fn(params: Any, x: Any) -> Any:
        x = x.reshape(5, 8) @ params["matrix"].reshape(8, 16)
        x = jnp.tanh(jnp.moveaxis(params["folded"], 0, -1).reshape(16, 16) @ x[..., None])[..., 0]
        x = jnp.tanh(x @ params["flat"].reshape(16, 6))
        x = jnp.tanh(x @ params["straddled"].reshape(6, 4))
        return x @ params["head"]

    params = {
        "matrix": floats(2, 4, 16), "folded": floats(16, 4, 4), "flat": floats(96), "straddled": floats(4, 6),
        "head": floats(4, 3),
    }  # fmt: skip
    return fn, params, floats(5, 2, 4)


@jax.custom_vjp
def _scaled(w: Any, x: Any) -> Any:
    return 2.0 * (x @ w)


_scaled.defvjp(lambda w, x: (_scaled(w, x), (w, x)), lambda saved, g: (saved[1].T @ g, g @ saved[0].T))


@jax.custom_jvp
def _plus(b: Any, x: Any) -> Any:
    return x + b


_plus.defjvp(lambda primals, tangents: (_plus(*primals), tangents[0] + tangents[1]))


@case({"custom": DENSE, "bias": VECTOR, "jitted": DENSE, "either": DENSE, "vmapped": DENSE, "head": HEAD})
def plain_calls() -> tuple[Any, ...]:
    """Parameters seen through jit, remat, custom derivatives, cond, while and vmap."""

    def fn(params: Any, x: Any) -> Any:
        x = jnp.tanh(_plus(params["bias"], _scaled(params["custom"], x)))
        x = jax.jit(jax.checkpoint(lambda w, x: jnp.sin(x @ w)))(params["jitted"], x)
        x = jax.lax.cond(x.sum() > 0, lambda x: x @ params["either"], lambda x: 2 * x, x)
        x = jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, 2 * c[1]), (0, x))[1]
        x = jnp.tanh(jax.vmap(lambda row: params["vmapped"].T @ row)(x))
        return x @ params["head"]

    names = ("custom", "jitted", "either", "vmapped")
    return fn, {**{name: floats(8, 8) for name in names}, "bias": floats(8), "head": floats(8, 3)}, floats(5, 8)


@case({"body": DENSE, "policy": HEAD, "value": head(0, 1), "policy_bias": VECTOR})
def plain_two_heads() -> tuple[Any, ...]:
    def fn(params: Any, x: Any) -> Any:
        x = jax.nn.relu(x @ params["body"])
        return jax.nn.log_softmax(x @ params["policy"] + params["policy_bias"]), (x @ params["value"])[..., 0]

    params = {"body": floats(8, 16), "policy": floats(16, 4), "policy_bias": floats(4), "value": floats(16, 1)}
    return fn, params, floats(5, 8)


@case({"embedding": EMBEDDING, "positions": POSITION, "bias_table": POSITION, "w": DENSE, "cls": VECTOR,
       "registers": POSITION, "latents": POSITION, "mask": VECTOR, "head": HEAD})  # fmt: skip
def plain_learned_inputs() -> tuple[Any, ...]:
    """One-hot lookups, learned positions, relative biases, class and register tokens, latents, mask tokens."""

    def fn(params: Any, x: Any) -> Any:
        masked = x == 0
        x = jax.nn.one_hot(x, 20) @ params["embedding"]
        x = jnp.where(masked[..., None], params["mask"], x) + params["positions"][:5]
        extra = jnp.concatenate([params["cls"], params["registers"]])
        x = jnp.concatenate([jnp.broadcast_to(extra, (2, 4, 8)), x], axis=1)
        q = jnp.broadcast_to(params["latents"], (2, 6, 8)) @ params["w"]
        distance = jnp.clip(jnp.arange(6)[:, None] - jnp.arange(9)[None], -4, 4) + 4
        logits = jnp.einsum("bqd,bkd->bqk", q, x)[:, None] + params["bias_table"][distance].transpose(2, 0, 1)
        return (jax.nn.softmax(logits) @ x[:, None]).sum(1) @ params["head"]

    params = {
        "embedding": floats(20, 8), "positions": floats(16, 8), "cls": floats(1, 8), "registers": floats(3, 8),
        "latents": floats(6, 8), "mask": floats(8), "w": floats(8, 8), "bias_table": floats(9, 2), "head": floats(8, 3),
    }  # fmt: skip
    return fn, params, tokens(2, 5)


@case(
    {
        "solved": NOT_UNDERSTOOD,
        "squared": NOT_UNDERSTOOD,
        "rotation": NOT_UNDERSTOOD,
        "outer": NOT_UNDERSTOOD,
        "unused": NOT_UNDERSTOOD,
        "w": HEAD,
    }
)
def plain_unknown() -> tuple[Any, ...]:
    """A linear solve, a penalty alone, a matrix exponential, a product written out by hand, and no use at all."""

    def fn(params: Any, x: Any) -> Any:
        x = jnp.linalg.solve(params["solved"], x.T).T
        x = x @ jnp.linalg.qr(params["rotation"])[0]
        x = (x[..., :, None] * params["outer"]).sum(-2)
        return jnp.mean(x @ params["w"]) + jnp.sum(params["squared"] ** 2) + 0.1 * jnp.sum(params["w"] ** 2)

    names = ("solved", "squared", "rotation", "outer", "unused")
    return fn, {**{name: floats(8, 8) for name in names}, "w": floats(8, 3)}, floats(5, 8)


@case({"both": DENSE, "conflict": NOT_UNDERSTOOD, "thin": ("vector", MatrixAxes(0, 1)), "direction": VECTOR,
       "complex": NOT_UNDERSTOOD, "head": HEAD})  # fmt: skip
def plain_odd_uses() -> tuple[Any, ...]:
    """Used straight and transposed; whole and head by head; one column; one vector; complex."""

    def fn(params: Any, x: Any) -> Any:
        x = jnp.tanh(x @ params["both"]) @ params["both"].T
        x = jnp.tanh(x @ params["conflict"])
        x = jnp.einsum("bhi,hio->bho", x.reshape(5, 2, 4), params["conflict"].reshape(2, 4, 8)).reshape(5, 16)[:, :8]
        x = x * jax.nn.sigmoid(x @ params["thin"]) * (x @ params["direction"])[:, None]
        return jnp.real(x @ params["complex"]) @ params["head"]

    names = ("both", "conflict")
    params = {
        **{name: floats(8, 8) for name in names}, "thin": floats(8, 1), "direction": floats(8),
        "complex": jax.ShapeDtypeStruct((8, 8), jnp.complex64), "head": floats(8, 3),
    }  # fmt: skip
    return fn, params, floats(5, 8)


@case({"gates": matrix(1, 2), "q": matrix(1, (0, 2)), "out": matrix((0, 1), 2), "down": DENSE, "scale": VECTOR,
       "embedding": tied(1, 0)})  # fmt: skip
def plain_axes_in_front() -> tuple[Any, ...]:
    """Kernels with heads, or the two branches of a gate, as their first axis: heads are one matrix, branches two."""

    def fn(params: Any, x: Any) -> Any:
        x = params["embedding"][x]
        q = jnp.einsum("btd,ndh->btnh", x, params["q"])
        attention = jax.nn.softmax(jnp.einsum("btnh,bsnh->bnts", q, q))
        x = x + jnp.einsum("bnts,bsnh,nhd->btd", attention, q, params["out"])
        gate, up = jnp.einsum("btd,cdf->cbtf", x, params["gates"])
        return (x + (jax.nn.gelu(gate) * up) @ params["down"]) * (1 + params["scale"]) @ params["embedding"].T

    params = {
        "q": floats(4, 8, 2), "out": floats(4, 2, 8), "gates": floats(2, 8, 16), "down": floats(16, 8),
        "scale": floats(8), "embedding": floats(30, 8),
    }  # fmt: skip
    return fn, params, tokens(2, 5)


@case({"skew": DENSE, "left": DENSE, "right": DENSE, "upper": DENSE, "filter": NOT_UNDERSTOOD, "latents": POSITION,
       "rows": NOT_UNDERSTOOD, "columns": NOT_UNDERSTOOD, "resized": POSITION, "w": DENSE, "head": HEAD})  # fmt: skip
def plain_made_of_parameters() -> tuple[Any, ...]:
    """Skew-symmetric, Kronecker-factored and masked matrices; a filter in Fourier space; tiled latents; positions that
    are resized, and positions that are a product of parameters.
    """

    def fn(params: Any, x: Any) -> Any:
        x = x + jax.image.resize(params["resized"], (5, 8), "linear") + jax.nn.gelu(params["rows"] @ params["columns"])
        x = jnp.tanh(x @ (params["skew"] - params["skew"].T))
        x = jnp.tanh(x @ jnp.kron(params["left"], params["right"]))
        x = jnp.tanh(x @ jnp.triu(params["upper"]))
        x = jnp.fft.irfft(jnp.fft.rfft(x) * jnp.fft.rfft(params["filter"]), n=8)
        q = jnp.tile(params["latents"][None], (2, 1, 1)) @ params["w"]
        return jax.nn.softmax(q @ x.swapaxes(1, 2)) @ x @ params["head"]

    params = {
        "skew": floats(8, 8), "left": floats(2, 2), "right": floats(4, 4), "upper": floats(8, 8), "filter": floats(8),
        "latents": floats(6, 8), "w": floats(8, 8), "resized": floats(9, 8), "rows": floats(5, 2),
        "columns": floats(2, 8), "head": floats(8, 3),
    }  # fmt: skip
    return fn, params, floats(2, 5, 8)


@case({"inputs": DENSE, "log_a": VECTOR, "b": NOT_UNDERSTOOD, "c": VECTOR, "d": VECTOR, "out": DENSE, "head": HEAD})
def plain_state_space() -> tuple[Any, ...]:
    """A diagonal state space model: its (width, state) parameters multiply elementwise and are no matrices."""

    def fn(params: Any, x: Any) -> Any:
        u = x @ params["inputs"]
        driven = u[..., None] * params["b"]
        a = jnp.broadcast_to(jnp.exp(-jnp.exp(params["log_a"])), driven.shape)
        _, h = jax.lax.associative_scan(lambda p, q: (p[0] * q[0], q[0] * p[1] + q[1]), (a, driven), axis=1)
        return jnp.tanh(((h * params["c"]).sum(-1) + params["d"] * u) @ params["out"]) @ params["head"]

    params = {
        "inputs": floats(6, 8), "log_a": floats(8, 4), "b": floats(8, 4), "c": floats(8, 4), "d": floats(8),
        "out": floats(8, 6), "head": floats(6, 2),
    }  # fmt: skip
    return fn, params, floats(2, 5, 6)
