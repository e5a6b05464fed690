"""A training run that saves itself every five steps until it is killed: `python -m tests.mesh.saved_run FOLDER`.

It stands for a run of a version before 0.1: its states are saved in that version's layout, where Muon's momentum had
the name of a sum and a constant rate had no count.
"""

from __future__ import annotations

import functools
import pathlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import jaxopt_tour as jt
from tests.mesh.meshes import SHORT, Tree

RATE, EVERY = 0.03, 5
#: One step of the iteration: the story is about what surrounds it.
muon = functools.partial(jt.muon, weight_decay=0.1, orthogonalizer=SHORT)


def first_params() -> Tree:
    up, down = jax.random.normal(jax.random.key(0), (2, 16, 32)) / 4
    return {"blocks": {"0": {"up": {"kernel": up, "bias": jnp.zeros(32)}, "down": {"kernel": down.T}}}}


def stepper(tx: optax.GradientTransformation) -> Callable[..., tuple[Tree, Any, jax.Array]]:
    """A compiled step; the number of the step draws its batch."""

    @jax.jit
    def step(params: Tree, state: Any, number: int) -> tuple[Tree, Any, jax.Array]:
        x = jax.random.normal(jax.random.fold_in(jax.random.key(1), number), (64, 16))

        def loss(params: Tree) -> jax.Array:
            block = params["blocks"]["0"]
            h = jnp.tanh(x @ block["up"]["kernel"] + block["up"]["bias"])
            return jnp.mean(jnp.square(h @ block["down"]["kernel"] - jnp.roll(x, 1, axis=1)))

        value, gradients = jax.value_and_grad(loss)(params)
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, value

    return step


def train(step: Any, params: Tree, state: Any, numbers: range) -> tuple[Tree, Any, list[float]]:
    losses = []
    for number in numbers:
        params, state, value = step(params, state, number)
        losses.append(float(value))
    return params, state, losses


class MomentumState(NamedTuple):
    """What held Muon's momentum before 0.1."""

    count: Any
    trace: Any


def in_old_layout(state: Any) -> Any:
    """The state as it was saved before 0.1."""
    (momentum, *rest), *more = state.inner_states["matrix"]
    matrices = ((MomentumState(momentum.count, momentum.mu), *rest), *(optax.EmptyState() for _ in more))
    return type(state)({**state.inner_states, "matrix": matrices})


def main(folder: pathlib.Path) -> None:
    import orbax.checkpoint as ocp

    params = first_params()
    routes = jt.routing.resolve(None, params)
    (folder / "routes.json").write_text(routes.to_json())
    tx = muon(RATE, routing=routes)
    state, step = tx.init(params), stepper(tx)
    with ocp.StandardCheckpointer() as checkpointer:
        for number in range(1_000_000):  # until it is killed
            params, state, value = step(params, state, number)
            print(number, float(value).hex(), flush=True)
            if (number + 1) % EVERY == 0:
                checkpointer.save(folder / f"step_{number + 1}", (params, in_old_layout(state)))
                checkpointer.wait_until_finished()


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
