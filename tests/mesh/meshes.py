"""What the tests of this folder share: a small model, meshes, a training run, and readers of compiled programs."""

from __future__ import annotations

import functools
import hashlib
import re
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxopt_tour as jt

Tree = Any

STEPS = 2
#: The tests look at what surrounds the iteration, so one step of it stands for all: the time is the compiler's.
SHORT = ((3.4445, -4.7750, 2.0315),)
#: Blocks of a matrix may arrive in another order than its rows have, so sums are taken in another order: float32.
ROUNDING = 2e-5

#: Counts that no number of devices divides; wide, tall and square; a stack of layers; a stack of layers of experts.
SHAPES = {
    "a": {"kernel": (64, 32)},
    "b": {"kernel": (32, 64)},
    "c": {"kernel": (32, 32)},
    "layers": {"kernel": (5, 32, 32), "bias": (5, 32)},
    "moe": {"experts": {"kernel": (3, 4, 16, 32)}},
    "embed": {"embedding": (40, 16)},
}
AXES = {
    "a/kernel": jt.MatrixAxes(0, 1),
    "b/kernel": jt.MatrixAxes(0, 1),
    "c/kernel": jt.MatrixAxes(0, 1),
    "layers/kernel": jt.MatrixAxes(1, 2),
    "moe/experts/kernel": jt.MatrixAxes(2, 3),
}


def routing(path: str, leaf: Any) -> Any:
    return AXES.get(path, "other")


def drawn(seed: int, shapes: Tree) -> Tree:
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: rng.standard_normal(shape, np.float32), shapes, is_leaf=lambda node: isinstance(node, tuple)
    )


PARAMS, GRADS = drawn(0, SHAPES), [drawn(1 + step, SHAPES) for step in range(STEPS)]
#: A part of the model, for programs that are to compile in little time: two shapes, six matrices, and a vector.
PART = ("b", "layers")
#: Gradients of one shape of matrix alone.
KERNELS = {"layers": {"kernel": GRADS[0]["layers"]["kernel"]}}


def muon(orthogonalizer: Any = SHORT, **options: Any) -> optax.GradientTransformationExtraArgs:
    rest = jt.sgd(0.02)  # fewer operations to compile than AdamW
    return jt.muon(0.02, weight_decay=0.1, orthogonalizer=orthogonalizer, rest=rest, routing=routing, **options)


def orthogonalize(
    tree: Tree, mesh: Any = None, orthogonalizer: Any = SHORT, axes: Any = AXES
) -> Tree:  # a transformation without a state
    tx = jt.orthogonalize_via_newton_schulz(orthogonalizer, axes=axes, mesh=mesh)
    return tx.update(tree, tx.init(tree))[0]


def step_of(tx: optax.GradientTransformation) -> Callable[..., tuple[Tree, Tree]]:
    def step(params: Tree, state: Tree, grads: Tree) -> tuple[Tree, Tree]:
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return step


class Run(NamedTuple):
    params: Tree
    state: Tree
    digests: tuple[str, str]  # of parameters and state, of two runs of one program
    program: str  # compiled


def part_of(tree: Tree) -> Tree:
    return {name: tree[name] for name in PART}


def train(
    tx: optax.GradientTransformation, place: Callable[[Tree], Tree] = lambda tree: tree, part: bool = False
) -> Run:
    """Train the model, or a part of it, for two steps, twice from the same start by one compiled program."""
    choose = part_of if part else lambda tree: tree
    compiled: Any = None
    digests = []
    for _ in range(2):
        params = place(choose(PARAMS))
        state = tx.init(params)
        compiled = compiled or jax.jit(step_of(tx)).lower(params, state, place(choose(GRADS[0]))).compile()
        for grads in GRADS:
            params, state = compiled(params, state, place(choose(grads)))
        digests.append(digest((params, state)))
    return Run(params, state, (digests[0], digests[1]), compiled.as_text())


@functools.cache
def one_device() -> Tree:
    """The parameters after training on one device, which every layout must reproduce."""
    return train(muon()).params


# --- meshes and layouts ----------------------------------------------------------------------------------------------


@functools.cache
def mesh_of(kind: AxisType = AxisType.Auto, **sizes: int) -> Any:
    """A mesh of the first devices; of `fsdp=8` where no sizes are given."""
    sizes = sizes or {"fsdp": 8}
    count = int(np.prod(list(sizes.values())))
    types = (kind,) * len(sizes)
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=types, devices=jax.devices()[:count])


def placer(mesh: Any, spec: Callable[[str], P]) -> Callable[[Tree], Tree]:
    """A function that shards a tree over the mesh, given a PartitionSpec for every path name."""

    def place(tree: Tree) -> Tree:
        return jax.tree.map(lambda leaf, spec: jax.device_put(leaf, NamedSharding(mesh, spec)), tree, specs(tree, spec))

    return place


def specs(tree: Tree, spec: Callable[[str], P]) -> Tree:
    return jax.tree_util.tree_map_with_path(lambda path, _: spec("/".join(key.key for key in path)), tree)


def _rank(name: str) -> int:
    node: Any = SHAPES
    for key in name.split("/"):
        node = node[key]
    return len(node)


def on_rows(name: str) -> P:
    if name.endswith("kernel"):
        return P(*[None] * (_rank(name) - 2), "fsdp", None)
    return P(None, "fsdp") if name == "embed/embedding" else P()


def on_columns(name: str, axis: str = "fsdp") -> P:
    return P(*[None] * (_rank(name) - 1), axis) if name.endswith("kernel") else P()


def on_both(name: str) -> P:
    return P(*[None] * (_rank(name) - 2), "fsdp", "tp") if name.endswith("kernel") else P()


def by_expert(name: str) -> P:
    return P(None, "expert", None, "fsdp") if name.startswith("moe") else on_columns(name)


# --- readers ---------------------------------------------------------------------------------------------------------


def error(tree: Tree, expected: Tree) -> float:
    """The largest difference of two entries."""
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True)
    return max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs)


def digest(tree: Tree) -> str:
    """Equal where all bits are."""
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree))).hexdigest()


def has_layout_of(tree: Tree, params: Tree) -> bool:
    """Whether every array of the tree is sharded as the parameter of its path."""
    expected = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    leaves = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    return bool(leaves) and all(
        leaf.sharding.is_equivalent_to(expected[name].sharding, leaf.ndim) for name, leaf in leaves.items()
    )


KINDS = r"all-to-all|all-gather|all-reduce|collective-permute|reduce-scatter|ragged-all-to-all"
COLLECTIVE = rf"= \S.*? ({KINDS})(?:-start)?\("


def collectives(program: str) -> dict[str, int]:
    """How often each kind occurs in a compiled program."""
    return dict(Counter(re.findall(COLLECTIVE, program)))


def collectives_in_loops(program: str) -> int:
    """How many of them are outside the entry computation: in loops."""
    entry = program[program.index("\nENTRY ") :]
    return sum(collectives(program).values()) - sum(collectives(entry).values())
