"""QK-clip bounds the logits of the heads that were too large, and no others."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_tour as jt

EMBED, HEADS, DIM, TOKENS = 8, 4, 6, 5
LAYER = "blocks/0/attention"


def layer_of(rng, key_heads=HEADS, flat=False):
    query, key = (jnp.asarray(rng.normal(size=(EMBED, n, DIM)), jnp.float32) for n in (HEADS, key_heads))
    if flat:
        query, key = query.reshape(EMBED, -1), key.reshape(EMBED, -1)
    return {"query": {"kernel": query}, "key": {"kernel": key}, "value": {"kernel": jnp.ones((EMBED, HEADS, DIM))}}


def params_of(attention):
    return {"blocks": {"0": {"attention": attention}}}


def logits_of(params, x):
    """(heads, tokens, tokens), with key heads repeated for the queries that share them."""
    attention = params["blocks"]["0"]["attention"]
    query = (x @ attention["query"]["kernel"].reshape(EMBED, -1)).reshape(TOKENS, -1, DIM)
    key = (x @ attention["key"]["kernel"].reshape(EMBED, -1)).reshape(TOKENS, -1, DIM)
    key = jnp.repeat(key, query.shape[1] // key.shape[1], axis=1)
    return jnp.einsum("qhd,khd->hqk", query, key) / DIM**0.5


@pytest.mark.parametrize(("key_heads", "flat"), [(4, False), (4, True), (2, False), (2, True), (1, False)])
def test_the_logits_of_a_head_are_multiplied_by_its_gamma(key_heads, flat):
    rng = np.random.default_rng(0)
    params, x = params_of(layer_of(rng, key_heads, flat)), jnp.asarray(rng.normal(size=(TOKENS, EMBED)), jnp.float32)
    before = logits_of(params, x)
    largest = jnp.max(before, axis=(1, 2))
    threshold = float(jnp.sort(largest)[1])  # two heads are above it
    tx = jt.clip_qk(threshold, heads_axis=-1 if flat else -2)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = jax.jit(tx.update)(zeros, tx.init(params), params, max_logits={LAYER: largest})
    after = logits_of(optax.apply_updates(params, updates), x)
    gamma = np.minimum(1, threshold / np.asarray(largest))
    # Two products and a root in float32.
    np.testing.assert_allclose(after, gamma[:, None, None] * before, rtol=2e-6, atol=1e-5)
    assert float(after.max()) <= threshold * (1 + 1e-6)
    attention = updates["blocks"]["0"]["attention"]
    assert not attention["value"]["kernel"].any()
    if key_heads == HEADS:
        factors = [
            np.asarray(attention[n]["kernel"] / params["blocks"]["0"]["attention"][n]["kernel"])
            for n in ("query", "key")
        ]
        np.testing.assert_allclose(*factors, atol=1e-6)  # both shrink alike


def test_small_and_unknown_logits_leave_the_update_as_it_is():
    rng = np.random.default_rng(1)
    params = params_of(layer_of(rng))
    u = jax.tree.map(lambda p: 0.1 * p, params)
    tx = jt.clip_qk(10.0)
    for largest in (jnp.full(HEADS, 9.0), jnp.asarray([jnp.nan, jnp.inf, -20.0, 10.0])):
        updates, _ = tx.update(u, tx.init(params), params, max_logits={LAYER: largest})
        jax.tree.map(np.testing.assert_array_equal, updates, u)


def test_the_parameters_after_the_step_are_what_shrinks():
    rng = np.random.default_rng(2)
    params = params_of(layer_of(rng))
    tx = optax.chain(jt.sgd(0.5), jt.clip_qk(4.0))
    updates, _ = tx.update(params, tx.init(params), params, max_logits={LAYER: jnp.full(HEADS, 16.0)})
    moved = optax.apply_updates(params, updates)["blocks"]["0"]["attention"]["query"]["kernel"]
    np.testing.assert_allclose(moved, 0.5 * 0.5 * params["blocks"]["0"]["attention"]["query"]["kernel"], rtol=1e-6)


def test_scanned_layers_have_a_row_of_heads_each():
    rng = np.random.default_rng(3)
    layers = [layer_of(rng) for _ in range(3)]
    scanned = {"attention": jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)}
    largest = jnp.asarray(rng.uniform(5, 20, size=(3, HEADS)), jnp.float32)
    tx = jt.clip_qk(10.0)
    updates, _ = tx.update(scanned, tx.init(scanned), scanned, max_logits={"attention": largest})
    for i, layer in enumerate(layers):
        alone = params_of(layer)
        expected, _ = tx.update(alone, tx.init(alone), alone, max_logits={LAYER: largest[i]})
        for name in ("query", "key"):
            found = updates["attention"][name]["kernel"][i]
            np.testing.assert_array_equal(found, expected["blocks"]["0"]["attention"][name]["kernel"])


def test_a_bias_shrinks_with_its_kernel():
    params = {
        "attention": {
            n: {"kernel": jnp.ones((EMBED, HEADS, DIM)), "bias": jnp.ones((HEADS, DIM))} for n in ("query", "key")
        }
    }
    tx = jt.clip_qk(1.0, query=("query/kernel", "query/bias"), key=("key/kernel", "key/bias"))
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(zeros, tx.init(params), params, max_logits={"attention": jnp.full(HEADS, 4.0)})
    jax.tree.map(lambda u: np.testing.assert_array_equal(u, -0.5), updates)


def test_what_does_not_fit_is_named_by_its_path():
    params = params_of(layer_of(np.random.default_rng(4)))
    tx = jt.clip_qk(1.0)
    state = tx.init(params)
    with pytest.raises(ValueError, match=r"no layer has parameters that end in 'query/kernel'.*there are up/kernel"):
        tx.init({"up": {"kernel": jnp.ones((2, 2))}})
    with pytest.raises(ValueError, match="clip_qk needs update"):
        tx.update(params, state, params)
    with pytest.raises(ValueError, match="'blocks/0/attention' is missing"):
        tx.update(params, state, params, max_logits={})
    with pytest.raises(ValueError, match="'other' is none of them"):
        tx.update(params, state, params, max_logits={LAYER: jnp.ones(HEADS), "other": jnp.ones(HEADS)})
    with pytest.raises(ValueError, match=r"shape \(heads,\) or \(layers, heads\), got \(\)"):
        tx.update(params, state, params, max_logits={LAYER: 3.0})
    with pytest.raises(ValueError, match="has the size 4, which is no multiple of 3 heads"):
        tx.update(params, state, params, max_logits={LAYER: jnp.ones(3)})
    with pytest.raises(ValueError, match="heads_axis is -4"):
        jt.clip_qk(1.0, heads_axis=-4).update(params, state, params, max_logits={LAYER: jnp.ones(HEADS)})
    for arguments, message in (
        ({"threshold": 0.0}, "threshold"),
        ({"query": ()}, "query must be"),
        ({"heads_axis": 1.5}, "heads_axis"),
    ):
        with pytest.raises(ValueError, match=message):
            jt.clip_qk(**arguments)
