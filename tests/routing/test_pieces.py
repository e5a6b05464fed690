"""Heads and fused projections: found in the trace, split on request, and never split wrongly."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_tour as jt
from jaxopt_tour.routing.axes import MatrixAxes
from jaxopt_tour.routing.by_use.trace import from_function
from tests.routing import zoo

HEADS, KV_HEADS, HEAD, WIDTH = 4, 2, 8, 24
INNER, KV = HEADS * HEAD, KV_HEADS * HEAD


def rotate(x: Any, how: str) -> Any:
    """Rotary embeddings as halves, as pairs, as complex numbers, or of a part of the head."""
    if how == "halves":
        first, second = jnp.split(x, 2, axis=-1)
        return x * 0.5 + jnp.concatenate([-second, first], axis=-1) * 0.5
    if how == "pairs":
        even, odd = x[..., ::2], x[..., 1::2]
        return jnp.stack([even * 0.5 - odd, odd * 0.5 + even], axis=-1).reshape(x.shape)
    if how == "partial":
        return jnp.concatenate([rotate(x[..., :4], "halves"), x[..., 4:]], axis=-1)
    return x


def attend(q: Any, k: Any, v: Any, how: str = "halves") -> Any:
    """(batch, time, heads, head) -> the same, with fewer heads in key and value."""
    q, k = rotate(q, how), rotate(k, how)
    group = q.shape[2] // k.shape[2]
    q = q.reshape(*q.shape[:2], k.shape[2], group, q.shape[-1])
    scores = jax.nn.softmax(jnp.einsum("btkgh,bskh->bkgts", q, k))
    y = jnp.einsum("bkgts,bskh->btkgh", scores, v)
    return y.reshape(*y.shape[:2], -1, v.shape[-1])


def routes(fn: Any, params: dict[str, Any], **options: Any) -> Any:
    params = {**params, "head": zoo.floats(WIDTH, 5)}
    return from_function(lambda p, x: fn(p, x) @ p["head"], params, zoo.floats(2, 5, WIDTH), **options)


def views(fn: Any, params: dict[str, Any], **options: Any) -> dict[str, MatrixAxes]:
    found = routes(fn, params, **options)
    assert all(found[name].role == "matrix" for name in params)
    return {name: found[name].axes for name in params}


def folded(x: Any) -> Any:
    return x.reshape(*x.shape[:2], -1)


def cut(x: Any, heads: int) -> Any:
    return x.reshape(*x.shape[:2], heads, -1)


@pytest.mark.parametrize("how", ["none", "halves", "pairs", "partial"])
def test_heads_of_flat_kernels(how: str) -> None:
    def fn(p: Any, x: Any) -> Any:
        q, k, v = (cut(x @ p[name], heads) for name, heads in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)))
        return x + folded(attend(q, k, v, how)) @ p["out"]

    params = {
        "q": zoo.floats(WIDTH, INNER), "k": zoo.floats(WIDTH, KV), "v": zoo.floats(WIDTH, KV),
        "out": zoo.floats(INNER, WIDTH),
    }  # fmt: skip
    by_head = MatrixAxes(0, 2, factors={1: (HEAD,)})
    split = {"q": by_head, "k": by_head, "v": by_head, "out": MatrixAxes(1, 2, factors={0: (HEAD,)})}
    whole = dict.fromkeys(params, MatrixAxes(0, 1))
    assert views(fn, params, split="heads") == split
    assert views(fn, params, split="all") == split
    assert views(fn, params, split="fused") == whole
    assert views(fn, params) == whole
    pieces = {name: [entry.what for entry in route.pieces] for name, route in routes(fn, params).items()}
    assert pieces == {
        "q": ["4 heads of 8"], "k": ["2 heads of 8"], "v": ["2 heads of 8"], "out": ["4 heads of 8 in fan-in"],
        "head": [],
    }  # fmt: skip


def test_heads_of_kernels_with_axes_for_heads() -> None:
    def fn(p: Any, x: Any) -> Any:
        q = jnp.einsum("btd,dnh->btnh", x, p["q"])
        k, v = (jnp.einsum("btd,ndh->btnh", x, p[name]) for name in ("k", "v"))
        return x + jnp.einsum("btnh,nhd->btd", attend(q, k, v), p["out"])

    params = {
        "q": zoo.floats(WIDTH, HEADS, HEAD), "k": zoo.floats(KV_HEADS, WIDTH, HEAD),
        "v": zoo.floats(KV_HEADS, WIDTH, HEAD), "out": zoo.floats(HEADS, HEAD, WIDTH),
    }  # fmt: skip
    assert views(fn, params, split="heads") == {
        "q": MatrixAxes(0, 2), "k": MatrixAxes(1, 2), "v": MatrixAxes(1, 2), "out": MatrixAxes(1, 2)
    }  # fmt: skip


def test_heads_of_scanned_layers_through_jax_attention() -> None:
    def fn(p: Any, x: Any) -> Any:
        def layer(x: Any, w: Any) -> tuple[Any, None]:
            q, k, v = (cut(x @ w[name], HEADS if name == "q" else KV_HEADS) for name in "qkv")
            return x + folded(jax.nn.dot_product_attention(q, k, v)) @ w["o"], None

        return jax.lax.scan(layer, x, p)[0]

    params = {
        "q": zoo.floats(3, WIDTH, INNER), "k": zoo.floats(3, WIDTH, KV), "v": zoo.floats(3, WIDTH, KV),
        "o": zoo.floats(3, INNER, WIDTH),
    }  # fmt: skip

    def scanned(p: Any, x: Any) -> Any:
        return fn({name: p[name] for name in "qkvo"}, x)

    by_head = MatrixAxes(1, 3, factors={2: (HEAD,)})
    assert views(scanned, params, split="heads") == {
        "q": by_head, "k": by_head, "v": by_head, "o": MatrixAxes(2, 3, factors={1: (HEAD,)})
    }  # fmt: skip


@pytest.mark.parametrize("how", ["none", "halves", "pairs"])
def test_a_fused_projection_with_grouped_queries(how: str) -> None:
    def fn(p: Any, x: Any) -> Any:
        q, k, v = jnp.split(x @ p["qkv"], [INNER, INNER + KV], axis=-1)
        return x + folded(attend(cut(q, HEADS), cut(k, KV_HEADS), cut(v, KV_HEADS), how)) @ p["out"]

    params = {"qkv": zoo.floats(WIDTH, INNER + 2 * KV), "out": zoo.floats(INNER, WIDTH)}
    assert views(fn, params, split="fused")["qkv"] == MatrixAxes(0, 1, split=(INNER, KV, KV))
    assert views(fn, params, split="heads")["qkv"] == MatrixAxes(0, 2, factors={1: (HEAD,)})
    assert views(fn, params, split="all")["qkv"] == MatrixAxes(0, 2, factors={1: (HEAD,)})
    assert views(fn, params)["qkv"] == MatrixAxes(0, 1)
    assert [entry.what for entry in routes(fn, params)["qkv"].pieces] == ["8 heads of 8", "3 parts, 32 + 16 + 16"]


@pytest.mark.parametrize("how", ["halves", "pairs"])
def test_query_key_and_value_that_alternate_by_head(how: str) -> None:
    def fn(p: Any, x: Any) -> Any:
        qkv = (x @ p["qkv"]).reshape(2, 5, HEADS, 3, HEAD)
        q, k, v = (qkv[:, :, :, i] for i in range(3))
        q2, k2, v2 = jnp.split(cut(x @ p["qkv2"], HEADS), 3, axis=-1)
        y = attend(q, k, v, how) + attend(q2, k2, v2, how)
        return x + folded(y) @ p["out"]

    params = {
        "qkv": zoo.floats(WIDTH, 3 * INNER), "qkv2": zoo.floats(WIDTH, 3 * INNER), "out": zoo.floats(INNER, WIDTH)
    }  # fmt: skip
    fused = views(fn, params, split="fused")
    assert fused["qkv"] == fused["qkv2"] == MatrixAxes(0, (1, 3), factors={1: (3, HEAD)})
    by_head = views(fn, params, split="heads")
    assert by_head["qkv"] == by_head["qkv2"] == MatrixAxes(0, 2, factors={1: (HEAD,)})


def test_a_kernel_with_an_axis_for_query_key_and_value() -> None:
    def fn(p: Any, x: Any) -> Any:
        outer = jnp.einsum("btd,dcnh->btcnh", x, p["outer"])
        inner = jnp.einsum("btd,dnch->btnch", x, p["inner"])
        x = x + jnp.einsum("btnh,nhd->btd", attend(*(outer[:, :, i] for i in range(3))), p["out"])
        return x + jnp.einsum("btnh,nhd->btd", attend(*(inner[:, :, :, i] for i in range(3))), p["out"])

    params = {
        "outer": zoo.floats(WIDTH, 3, HEADS, HEAD), "inner": zoo.floats(WIDTH, HEADS, 3, HEAD),
        "out": zoo.floats(HEADS, HEAD, WIDTH),
    }  # fmt: skip
    fused = views(fn, params, split="fused")
    assert fused["outer"] == MatrixAxes(0, (1, 2, 3), split=(INNER,) * 3)
    assert fused["inner"] == MatrixAxes(0, (1, 3))
    by_head = views(fn, params, split="heads")
    assert by_head == {"outer": MatrixAxes(0, 3), "inner": MatrixAxes(0, 3), "out": MatrixAxes(1, 2)}


def test_interleaved_parts_of_unequal_sizes_are_not_split_and_say_so() -> None:
    """Two queries, one key and one value for each of the key-value heads, as in Megatron."""

    def fn(p: Any, x: Any) -> Any:
        qkv = (x @ p["qkv"]).reshape(2, 5, KV_HEADS, 4, HEAD)
        q, k, v = qkv[..., :2, :].reshape(2, 5, HEADS, HEAD), qkv[..., 2, :], qkv[..., 3, :]
        return x + folded(attend(q, k, v)) @ p["out"]

    params = {"qkv": zoo.floats(WIDTH, 8 * HEAD), "out": zoo.floats(INNER, WIDTH)}
    assert views(fn, params, split="fused")["qkv"] == MatrixAxes(0, 1)
    heads, fused = routes(fn, params)["qkv"].pieces
    assert fused.axes is None and "not split: their sizes are unequal" in fused.what
    assert heads.axes == MatrixAxes(0, 2, factors={1: (HEAD,)})


def test_latent_attention_has_heads_of_two_parts() -> None:
    """Keys (8) and values (4) of a head are neighbors; every head has a rotated part that all heads share."""

    def fn(p: Any, x: Any) -> Any:
        latent = jax.nn.standardize(x @ p["down"])
        kv = cut(latent @ p["up"], HEADS)
        k, v = kv[..., :HEAD], kv[..., HEAD:]
        shared = jnp.broadcast_to(rotate(x @ p["shared"], "halves")[:, :, None], (2, 5, HEADS, 4))
        k = jnp.concatenate([k, shared], axis=-1)
        q = cut(x @ p["q"], HEADS)
        q = jnp.concatenate([q[..., :HEAD], rotate(q[..., HEAD:], "halves")], axis=-1)
        scores = jax.nn.softmax(jnp.einsum("btnh,bsnh->bnts", q, k))
        return x + folded(jnp.einsum("bnts,bsnh->btnh", scores, v)) @ p["out"]

    params = {
        "down": zoo.floats(WIDTH, 6), "up": zoo.floats(6, HEADS * 12), "shared": zoo.floats(WIDTH, 4),
        "q": zoo.floats(WIDTH, HEADS * 12), "out": zoo.floats(HEADS * 4, WIDTH),
    }  # fmt: skip
    split = views(fn, params, split="heads")
    assert split["q"] == MatrixAxes(0, 2, factors={1: (12,)})
    assert split["up"].matrix_shapes((6, 48)) == ((1, 6, 8), (1, 6, 4)) * 4
    assert split["out"] == MatrixAxes(1, 2, factors={0: (4,)})
    assert split["down"] == split["shared"] == MatrixAxes(0, 1)


@pytest.mark.parametrize("interleaved", [False, True])
def test_gate_and_up(interleaved: bool) -> None:
    def fn(p: Any, x: Any) -> Any:
        h = x @ p["up"]
        gate, up = (h[..., ::2], h[..., 1::2]) if interleaved else jnp.split(h, 2, axis=-1)
        return x + (jax.nn.silu(gate) * up) @ p["down"]

    params = {"up": zoo.floats(WIDTH, 64), "down": zoo.floats(32, WIDTH)}
    expected = MatrixAxes(0, 1, factors={1: (2,)}) if interleaved else MatrixAxes(0, 1, split=(32, 32))
    assert views(fn, params, split="fused")["up"] == expected
    assert views(fn, params, split="all")["up"] == expected
    assert views(fn, params, split="heads")["up"] == MatrixAxes(0, 1)


def test_the_chunks_of_adaptive_layer_norm() -> None:
    def fn(p: Any, x: Any) -> Any:
        chunks = jnp.split(jax.nn.silu(x.mean(1, keepdims=True) @ p["time"]) @ p["ada"], 6, axis=-1)
        h = x * (1 + chunks[0]) + chunks[1]
        x = x + chunks[2] * jnp.tanh(h @ p["w"])
        return x * (1 + chunks[3]) + chunks[4] * chunks[5]

    params = {"time": zoo.floats(WIDTH, 16), "ada": zoo.floats(16, 6 * WIDTH), "w": zoo.floats(WIDTH, WIDTH)}
    assert views(fn, params, split="fused")["ada"] == MatrixAxes(0, 1, split=(WIDTH,) * 6)


def test_slices_that_are_joined_again_are_no_parts() -> None:
    """A rolled feature axis, and a shuffle of channels."""

    def fn(p: Any, x: Any) -> Any:
        x = jnp.tanh(jnp.roll(x @ p["rolled"], 3, axis=-1))
        first, second = jnp.split(x @ p["shuffled"], 2, axis=-1)
        return jnp.tanh(jnp.stack([first, second], axis=-1).reshape(x.shape))

    params = {"rolled": zoo.floats(WIDTH, WIDTH), "shuffled": zoo.floats(WIDTH, WIDTH)}
    assert all(not routes(fn, params)[name].pieces for name in params)


def test_a_projection_that_meets_attention_in_part_is_split_only_where_slices_cover_the_rest() -> None:
    def fn(p: Any, x: Any, rest: int) -> Any:
        h = x @ p["in"]
        q, k, v = (cut(h[..., i * INNER : (i + 1) * INNER], HEADS) for i in range(3))
        x = x + folded(attend(q, k, v)) @ p["out"]
        return x + jnp.tanh(h[..., 3 * INNER + rest :]) @ p["down"]

    for rest, expected in ((0, (HEAD,) * 12 + (16,)), (6, None)):
        params = {
            "in": zoo.floats(WIDTH, 3 * INNER + 16), "out": zoo.floats(INNER, WIDTH),
            "down": zoo.floats(16 - rest, WIDTH),
        }  # fmt: skip
        found = routes(lambda p, x, rest=rest: fn(p, x, rest), params, split="heads")["in"]
        assert found.axes == MatrixAxes(0, 1, split=expected)
        assert expected or "the rest is not understood" in found.pieces[0].what


def test_experts_are_no_heads() -> None:
    arguments, _ = zoo.CASES["plain_soft_experts"].build()
    assert not any(route.pieces for route in from_function(*arguments).values())


@pytest.mark.parametrize(
    ("axes", "shape", "matrices"),
    [
        (MatrixAxes(0, 2, factors={1: (8,)}), (6, 32), ((4, 6, 8),)),
        (MatrixAxes(1, 2, factors={0: (8,)}), (32, 6), ((4, 8, 6),)),
        (MatrixAxes(0, (1, 3), factors={1: (3, 8)}), (6, 96), ((3, 6, 32),)),
        (MatrixAxes(1, 2, factors={2: (2,)}), (5, 6, 8), ((10, 6, 4),)),
        (MatrixAxes(0, -1, factors={-1: (8,)}), (6, 32), ((4, 6, 8),)),
    ],
)
def test_factors_of_an_axis_go_there_and_back(axes: MatrixAxes, shape: Any, matrices: Any) -> None:
    leaf = jnp.arange(np.prod(shape), dtype=jnp.float32).reshape(shape)
    assert axes.matrix_shapes(shape) == matrices
    parts = axes.to_matrices(leaf)
    assert tuple(part.shape for part in parts) == matrices
    np.testing.assert_array_equal(axes.from_matrices(parts, shape), leaf)
    assert eval(repr(axes)) == axes


def test_interleaved_parts_hold_the_right_columns() -> None:
    (parts,) = MatrixAxes(0, (1, 3), factors={1: (3, 2)}).to_matrices(jnp.arange(12.0).reshape(1, 12))
    np.testing.assert_array_equal(parts[:, 0], [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]])


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        ({"factors": {1: (5,)}}, (6, 32), "not divisible"),
        ({"factors": {4: (8,)}}, (6, 32), "does not exist"),
        ({"factors": {1: ()}}, None, "positive"),
        ({"factors": {1: (8,)}, "split": (8, 8)}, None, "together"),
    ],
)
def test_factors_that_are_impossible_raise(options: Any, shape: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MatrixAxes(0, 2, **options).matrix_shapes(shape)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [jt.muon, jt.shampoo])
def test_an_update_by_heads_is_that_of_the_heads(optimizer: Any) -> None:
    """The update of a kernel equals those of its heads as parameters of their own."""
    key = jax.random.key(0)
    w, g = jax.random.normal(key, (2, 6, 4 * 8))
    tx = optimizer(0.1, weight_decay=0.0, routing=lambda path, leaf: MatrixAxes(0, 2, factors={1: (8,)}))
    update, _ = tx.update({"w": g}, tx.init({"w": w}), {"w": w})
    parts = [{str(i): x[:, 8 * i : 8 * i + 8] for i in range(4)} for x in (w, g)]
    tx = optimizer(0.1, weight_decay=0.0, routing=lambda path, leaf: "matrix")
    expected, _ = tx.update(parts[1], tx.init(parts[0]), parts[0])
    joined = jnp.concatenate([expected[str(i)] for i in range(4)], axis=1)
    np.testing.assert_allclose(update["w"], joined, rtol=1e-4, atol=1e-6)
