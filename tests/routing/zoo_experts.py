"""The zoo's mixtures of experts in plain JAX: soft, scanned, dispatched, gathered and ragged ones."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from tests.routing.zoo_case import DENSE, HEAD, VECTOR, case, floats, matrix, stacked, tokens, under


def _experts(params: Any, x: Any) -> Any:
    """Every expert sees every token; a softmax gate mixes them."""
    gates = jax.nn.softmax(x @ params["router"])
    h = jax.nn.silu(jnp.einsum("td,edf->tef", x, params["gate"])) * jnp.einsum("td,edf->tef", x, params["up"])
    return jnp.einsum("te,ted->td", gates, jnp.einsum("tef,efd->ted", h + params["bias"], params["down"]))


EXPERTS = {"router": floats(8, 4), "gate": floats(4, 8, 16), "up": floats(4, 8, 16), "down": floats(4, 16, 8),
           "bias": floats(4, 16)}  # fmt: skip
EXPERTS_EXPECTED = {"router": DENSE, "gate": matrix(1, 2), "up": matrix(1, 2), "down": matrix(1, 2), "bias": VECTOR}


@case(under("experts", EXPERTS_EXPECTED) | {"head": HEAD}, conventional=True)
def plain_soft_experts() -> tuple[Any, ...]:
    def fn(params: Any, x: Any) -> Any:
        return _experts(params["experts"], x) @ params["head"]

    return fn, {"experts": EXPERTS, "head": floats(8, 3)}, floats(6, 8)


@case(stacked(EXPERTS_EXPECTED) | {"head": HEAD})
def plain_scanned_experts() -> tuple[Any, ...]:
    def fn(params: Any, x: Any) -> Any:
        layers = {name: params[name] for name in EXPERTS}
        x, _ = jax.lax.scan(lambda x, p: (x + _experts(p, x), None), x, layers)
        return x @ params["head"]

    params = {name: floats(3, *leaf.shape) for name, leaf in EXPERTS.items()}
    return fn, {**params, "head": floats(8, 3)}, floats(6, 8)


def _routed(params: Any, x: Any) -> Any:
    """Top-2 routing with dispatch and combine tensors."""
    weights, chosen = jax.lax.top_k(jax.nn.softmax(x @ params["router"]), 2)
    dispatch = jax.nn.one_hot(chosen, 4)  # (tokens, 2, experts)
    combine = jnp.einsum("tk,tke->te", weights, dispatch)
    inputs = jnp.einsum("te,td->etd", dispatch.sum(1), x)
    h = jax.nn.relu(jnp.einsum("etd,edf->etf", inputs, params["up"]))
    return jnp.einsum("te,etd->td", combine, jnp.einsum("etf,efd->etd", h, params["down"]))


@case({"router": DENSE, "up": matrix(1, 2), "down": matrix(1, 2), "head": HEAD}, conventional=True)
def plain_routed_experts() -> tuple[Any, ...]:
    params = {"router": floats(8, 4), "up": floats(4, 8, 16), "down": floats(4, 16, 8), "head": floats(8, 3)}
    return lambda params, x: _routed(params, x) @ params["head"], params, floats(6, 8)


@case({"router": DENSE, "up": matrix(1, 2), "down": matrix(1, 2), "head": HEAD}, conventional=True)
def plain_gathered_experts() -> tuple[Any, ...]:
    """The weights of the chosen expert are looked up for every token."""

    def fn(params: Any, x: Any) -> Any:
        logits = x @ params["router"]
        chosen = jnp.argmax(logits, axis=-1)
        h = jax.nn.relu(jnp.einsum("td,tdf->tf", x, params["up"][chosen]))
        h = jnp.einsum("tf,tfd->td", h, jnp.take(params["down"], chosen, axis=0))
        return (h * jnp.max(jax.nn.softmax(logits), axis=-1, keepdims=True)) @ params["head"]

    params = {"router": floats(8, 4), "up": floats(4, 8, 16), "down": floats(4, 16, 8), "head": floats(8, 3)}
    return fn, params, floats(6, 8)


@case({"up": matrix(1, 2), "down": matrix(1, 2), "head": HEAD})
def plain_ragged_experts() -> tuple[Any, ...]:
    def fn(params: Any, x: Any, sizes: Any) -> Any:
        h = jax.nn.relu(jax.lax.ragged_dot(x, params["up"], sizes))
        return jax.lax.ragged_dot(h, params["down"], sizes) @ params["head"]

    params = {"up": floats(4, 8, 16), "down": floats(4, 16, 8), "head": floats(8, 3)}
    return fn, params, floats(6, 8), tokens(4)
