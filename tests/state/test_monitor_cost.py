"""Between measurements a monitored step moves the bytes of the step without a monitor."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_tour as jt
from jaxopt_tour.state.recompute import with_recomputation

SHAPE = (48, 80)
BYTES = {"f32": 4, "bf16": 2, "s32": 4, "u32": 4, "pred": 1, "u8": 1}


def size_of(kind: str) -> int:
    """The bytes of an array or a tuple of arrays, by its type in the text of a program."""
    shapes = re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", re.sub(r"/\*.*?\*/", "", kind))
    return sum(BYTES[dtype] * int(np.prod([int(n) for n in dims.split(",") if n])) for dtype, dims in shapes)


def program(tx: Any) -> str:
    """A step with donated parameters and state, compiled."""
    params = {"blocks": {"0": {"up": {"kernel": jnp.ones(SHAPE)}, "down": {"kernel": jnp.ones(SHAPE[::-1])}}}}

    def step(params: Any, state: Any, gradients: Any) -> Any:
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(step, donate_argnums=(0, 1)).lower(params, tx.init(params), params).compile().as_text()


def entry_of(text: str) -> list[tuple[str, str, str, list[str]]]:
    """Name, type, operation and operands of the instructions that run in every step."""
    entry = re.search(r"^ENTRY [^\n]*\{\n(.*?)^\}", text, re.M | re.S).group(1)
    found = re.findall(r"^ *(?:ROOT )?%([\w.\-]+) = (.*?) ([a-z][a-z\-]*)\(([^)]*)\)", entry, re.M)
    return [(name, kind, op, re.findall(r"%([\w.\-]+)", operands)) for name, kind, op, operands in found]


def bytes_moved(text: str) -> int:
    """Bytes read and written by what runs in every step, conditionals and their operands left out."""
    entry = entry_of(text)
    sizes = {name: size_of(kind) for name, kind, _, _ in entry}
    free = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "conditional")
    return sum(
        sizes[name] + sum(sizes[operand] for operand in operands) for name, _, op, operands in entry if op not in free
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "matrices"),
    [
        (lambda: jt.adamw(1e-3, weight_decay=0.1), 0),
        (lambda: optax.adamw(1e-3, mu_dtype=jnp.bfloat16), 0),
        # Each of two orthogonalized matrices is cut from the stack of both and written.
        (lambda: jt.muon(1e-3, weight_decay=0.1, orthogonalizer=((3.4445, -4.7750, 2.0315),)), 6),
    ],
    ids=["adamw", "bfloat16 momentum", "muon"],
)
def test_a_step_without_measurement_reads_and_writes_what_it_does_without_a_monitor(
    make: Callable[[], Any], matrices: int, optimized: None
) -> None:
    alone, monitored = program(make()), program(jt.monitored(make()))
    assert any(op == "conditional" for _, _, op, _ in entry_of(monitored))
    copies = [
        sum(op == "copy" and size_of(kind) >= 2 * SHAPE[0] * SHAPE[1] for _, kind, op, _ in entry_of(text))
        for text in (alone, monitored)
    ]
    assert copies[1] == copies[0]
    matrix = 4 * SHAPE[0] * SHAPE[1]
    assert bytes_moved(alone) > 10 * matrix
    assert bytes_moved(monitored) < bytes_moved(alone) + (matrices + 0.05) * matrix  # and counters


def test_what_is_computed_again_starts_from_what_is_in_memory() -> None:
    def function(x: jax.Array, w: jax.Array) -> Any:
        state = jnp.sin(x)
        product = state @ w
        return [state], [2 * product + w], jnp.exp(w)

    def run(x: jax.Array, w: jax.Array) -> Any:
        kept, fused, again = with_recomputation(function, x, w)
        return kept, fused, again()

    x, w = jnp.arange(9.0).reshape(3, 3), jnp.eye(3)
    text = str(jax.make_jaxpr(run)(x, w))
    assert text.count("dot_general") == 1 and text.count("sin ") == 1 and text.count("exp ") == 1
    for kept, fused, (fused_again, extras) in (jax.jit(run)(x, w), run(x, w)):
        np.testing.assert_allclose(kept[0], np.sin(x), rtol=1e-6)
        np.testing.assert_allclose(fused[0], 2 * np.sin(x) @ w + w, rtol=1e-6)
        np.testing.assert_array_equal(fused_again[0], fused[0])
        np.testing.assert_allclose(extras, np.exp(w), rtol=1e-6)
