"""The cases of test_muon_on_a_mesh.py, in a process with eight virtual devices; prints one line of JSON a case."""

from __future__ import annotations

import contextlib
import re
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from flax.training.train_state import TrainState
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from meshes import Tree, digest, error, make_mesh, placer, report

import jaxopt_tour as jt

STEPS = 2
#: What is tested here lies around the iteration, so two steps of it stand for all: most of the time is the compiler's.
SHORT = ((3.4445, -4.7750, 2.0315),) * 2


# Counts that no number of devices divides, wide, tall and square, a stack of layers, a stack of layers of experts.
SHAPES = {
    "a": {"kernel": (64, 32)},
    "b": {"kernel": (32, 64)},
    "c": {"kernel": (32, 32)},
    "layers": {"kernel": (5, 32, 32), "bias": (5, 32)},
    "moe": {"experts": {"kernel": (3, 8, 16, 32)}},
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
    return AXES.get(path, "adamw")


def drawn(seed: int, shapes: Tree = SHAPES) -> Tree:
    rng = np.random.default_rng(seed)
    is_shape = lambda node: isinstance(node, tuple)  # noqa: E731
    return jax.tree.map(lambda shape: rng.standard_normal(shape, np.float32), shapes, is_leaf=is_shape)


PARAMS, GRADS = drawn(0), [drawn(1 + step) for step in range(STEPS)]


def step_of(tx: optax.GradientTransformation) -> Callable[..., tuple[Tree, Tree]]:
    def step(params: Tree, state: Tree, grads: Tree) -> tuple[Tree, Tree]:
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return step


def train(tx: optax.GradientTransformation, place: Callable[[Tree], Tree] = lambda tree: tree) -> tuple[Any, ...]:
    """Parameters, state, whether a second run gives the same bits, and the compiled program."""
    compiled = None
    ends = []
    for _ in range(2):
        params = place(PARAMS)
        state = tx.init(params)
        compiled = compiled or jax.jit(step_of(tx)).lower(params, state, place(GRADS[0])).compile()
        for grads in GRADS:
            params, state = compiled(params, state, place(grads))
        ends.append(digest((params, state)))
    return params, state, ends[0] == ends[1], compiled.as_text()


COLLECTIVES = (
    r"= \S.*? (all-to-all|all-gather|all-reduce|collective-permute|reduce-scatter|ragged-all-to-all)(?:-start)?\("
)


def collectives(text: str) -> tuple[dict[str, int], int]:
    """How often each kind occurs in a compiled program, and how often outside its entry computation: in loops."""
    entry = text[text.index("\nENTRY ") :]
    everywhere, outside = Counter(re.findall(COLLECTIVES, text)), Counter(re.findall(COLLECTIVES, entry))
    return dict(everywhere), sum(everywhere.values()) - sum(outside.values())


REFERENCE = train(jt.muon(0.02, 0.1, coefficients=SHORT, routing=routing))[0]


def rows(name: str, axis: Any = "fsdp") -> P:
    shape = shape_of(name)
    if name.endswith("kernel"):
        return P(*([None] * (len(shape) - 2)), axis, None)
    return P(None, axis) if name == "embed/embedding" else P()


def columns(name: str, axis: Any = "fsdp") -> P:
    shape = shape_of(name)
    return P(*([None] * (len(shape) - 1)), axis) if name.endswith("kernel") else P()


def both(name: str) -> P:
    shape = shape_of(name)
    return P(*([None] * (len(shape) - 2)), "fsdp", "tp") if name.endswith("kernel") else P()


def experts(name: str) -> P:
    return P(None, "expert", None, "fsdp") if name.startswith("moe") else columns(name)


def shape_of(name: str) -> tuple[int, ...]:
    node: Any = SHAPES
    for key in name.split("/"):
        node = node[key]
    return node


TWO = {"all-to-all": 2}
EIGHT = {"fsdp": 8}
#: The mesh, the layout, the axes that share the work, and the collectives that one update may have.
LAYOUTS: dict[str, tuple[dict[str, int], Callable[[str], P], tuple[str, ...], dict[str, int]]] = {
    "1 device": ({"fsdp": 1}, rows, ("fsdp",), {}),
    "2 devices": ({"fsdp": 2}, rows, ("fsdp",), TWO),
    "4 devices": ({"fsdp": 4}, rows, ("fsdp",), TWO),
    "fsdp rows": (EIGHT, rows, ("fsdp",), TWO),
    "fsdp columns": (EIGHT, columns, ("fsdp",), TWO),
    "tp": ({"tp": 8}, lambda name: columns(name, "tp"), ("tp",), TWO),
    "fsdp and tp": ({"fsdp": 4, "tp": 2}, both, ("fsdp", "tp"), TWO),
    "hybrid": ({"data": 2, "fsdp": 4}, rows, ("fsdp",), TWO),
    "hybrid, shared by all": ({"data": 2, "fsdp": 4}, rows, ("data", "fsdp"), TWO | {"all-gather": 1}),
    "replicated, shared by all": ({"data": 8}, lambda name: P(), ("data",), {"all-gather": 1}),
    # Experts share fsdp alone, everything else both axes: two bundles.
    "scanned and experts": (
        {"expert": 4, "fsdp": 2},
        experts,
        ("expert", "fsdp"),
        {"all-to-all": 4, "all-gather": 1},
    ),
    "not all axes share": ({"fsdp": 4, "tp": 2}, both, ("fsdp",), TWO | {"all-gather": 1}),
}


#: As in test_muon_on_a_mesh.py.
EXPLICIT_TOO = sys.argv[1:] or list(LAYOUTS)


def same_layout(momentum: Tree, params: Tree) -> bool:
    wanted = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    found = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(momentum)}
    return bool(found) and all(
        leaf.sharding.is_equivalent_to(wanted[name].sharding, leaf.ndim) for name, leaf in found.items()
    )


def momentum_of(state: Tree) -> Tree:
    return optax.tree.get(state, "trace")


for layout, (sizes, spec, mesh_axes, expected) in LAYOUTS.items():
    for kind in (AxisType.Auto, AxisType.Explicit) if layout in EXPLICIT_TOO else (AxisType.Auto,):
        mesh = make_mesh(sizes, kind)
        place = placer(mesh, spec)
        tx = jt.sharded_state(jt.muon(0.02, 0.1, coefficients=SHORT, routing=routing, mesh_axes=mesh_axes))
        # The arrays carry the mesh; some have it in context as well.
        with jax.set_mesh(mesh) if "fsdp" in layout else contextlib.nullcontext():
            params, state, repeatable, text = train(tx, place)
        counts, inside = collectives(text)
        report(
            f"{layout}, {kind.name}",
            error=error(params, REFERENCE),
            repeatable=repeatable,
            digest=digest(params),
            momentum_layout_kept=same_layout(momentum_of(state), place(PARAMS)),
            collectives=counts,
            expected=expected,
            inside_loops=inside,
        )

AUTO, EXPLICIT = make_mesh(EIGHT, AxisType.Auto), make_mesh(EIGHT, AxisType.Explicit)

# --- inside shard_map ------------------------------------------------------------------------------------------------

for checked in (False, True):
    specs = jax.tree_util.tree_map_with_path(lambda path, _: rows("/".join(key.key for key in path)), PARAMS)
    tx = jt.muon(0.02, 0.1, coefficients=SHORT, routing=routing, mesh_axes="fsdp", layouts=specs)
    state = tx.init(PARAMS)
    layout_of_state = optax.tree.map_params(
        tx,
        lambda part, spec: spec,
        state,
        specs,
        transform_non_params=lambda _: P(),
        is_leaf=lambda node: node == optax.MaskedNode(),
    )
    spread = jax.jit(
        jax.shard_map(
            step_of(tx),
            mesh=AUTO,
            in_specs=(specs, layout_of_state, specs),
            out_specs=(specs, layout_of_state),
            check_vma=checked,
        )
    )
    params = PARAMS
    for grads in GRADS:
        params, state = spread(params, state, grads)
    report("shard_map, checked types" if checked else "shard_map", error=error(params, REFERENCE))

# --- inverses --------------------------------------------------------------------------------------------------------

FEW = {name: GRADS[0][name] for name in ("a", "layers")}
FEW["layers"] = {"kernel": FEW["layers"]["kernel"]}
FEW_AXES = {name: AXES[name] for name in ("a/kernel", "layers/kernel")}
for name, coefficients in {
    "steps": jt.coefficients.zolotarev(),
    "poles": jt.coefficients.zolotarev(1, 2e-3, inverses=2),
}.items():
    specs = jax.tree_util.tree_map_with_path(lambda path, _: rows("/".join(key.key for key in path)), FEW)

    def orthogonal(grads: Tree, coefficients: Any = coefficients, **arguments: Any) -> Tree:
        tx = jt.orthogonalize_via_newton_schulz(coefficients, axes=FEW_AXES, **arguments)
        return tx.update(grads, tx.init(grads))[0]

    alone = orthogonal(FEW)
    found = {
        mesh_kind: jax.jit(lambda grads, of=orthogonal: of(grads, mesh_axes="fsdp"))(placer(mesh, rows)(FEW))
        for mesh_kind, mesh in (("Auto", AUTO), ("Explicit", EXPLICIT))
    }
    inside = lambda grads, of=orthogonal, specs=specs: of(grads, mesh_axes="fsdp", layouts=specs)  # noqa: E731
    found["shard_map"] = jax.jit(jax.shard_map(inside, mesh=AUTO, in_specs=(specs,), out_specs=specs))(FEW)
    report(f"inverses, {name}", **{kind: error(tree, alone) for kind, tree in found.items()})

# --- eager, hyperparameters that are traced, a fused projection ------------------------------------------------------

place = placer(AUTO, rows)
tx = jt.orthogonalize_via_newton_schulz(SHORT, axes=AXES, mesh_axes="fsdp")
alone = jt.orthogonalize_via_newton_schulz(SHORT, axes=AXES)
kernels = {"a": GRADS[0]["a"], "layers": {"kernel": GRADS[0]["layers"]["kernel"]}}
report(
    "eager", error=error(tx.update(place(kernels), tx.init(kernels))[0], alone.update(kernels, alone.init(kernels))[0])
)


# Neither derivatives nor batches have a rule for what the partitioner is asked: they are taken of the plain program.
def loss(tx: optax.GradientTransformation) -> Callable[[Tree, Any], Any]:
    def of(grads: Tree, scale: Any) -> Any:
        updates, _ = tx.update(jax.tree.map(lambda leaf: leaf + scale * jnp.sin(leaf), grads), tx.init(grads))
        return sum(jnp.sum(jnp.cos(leaf)) for leaf in jax.tree.leaves(updates))

    return of


scales = jnp.asarray([0.1, 0.2])
transformed = {
    "grad": lambda tx: jax.jit(jax.grad(loss(tx))),
    "vmap": lambda tx: jax.jit(jax.vmap(loss(tx), in_axes=(None, 0))),
}
for name, transform in transformed.items():
    scale = scales if name == "vmap" else scales[0]
    expected = transform(alone)(kernels, scale)
    report(
        name,
        error=error(transform(tx)(place(kernels), scale), expected),
        largest=error(expected, jax.tree.map(jnp.zeros_like, expected)),
    )

arguments = {"routing": routing, "mesh_axes": "fsdp", "coefficients": SHORT}
injected = optax.inject_hyperparams(lambda learning_rate, eps: jt.muon(learning_rate, 0.1, eps=eps, **arguments))
plain = jt.muon(0.02, 0.1, coefficients=SHORT, eps=0.3, routing=routing)
report("inject_hyperparams", error=error(train(injected(0.02, 0.3), place)[0], train(plain)[0]))

fused = {"qkv": {"kernel": np.random.default_rng(9).standard_normal((16, 96)).astype(np.float32)}}
view = jt.MatrixAxes(0, 1, split=(64, 16, 16))  # no shard boundary is a boundary of the split
expected = jt.orthogonalize_via_newton_schulz(SHORT, axes=view)
expected, _ = expected.update(fused, expected.init(fused))
worst = 0.0
for mesh in (AUTO, EXPLICIT):
    for spec in (P("fsdp", None), P(None, "fsdp")):
        tx = optax.chain(
            jt.orthogonalize_via_newton_schulz(SHORT, axes=view, mesh_axes="fsdp"),
            jt.scale_by_matrix_shape(None, axes=view),
        )
        here = placer(mesh, lambda name, spec=spec: spec)(fused)
        worst = max(worst, error(jax.jit(lambda g, tx=tx: tx.update(g, tx.init(g))[0])(here), expected))
report("fused", error=worst)

# --- no axes named ---------------------------------------------------------------------------------------------------

# Auto axes leave the products to the partitioner; on Explicit ones JAX would refuse them.
small = {"a": {"kernel": PARAMS["a"]["kernel"]}, "b": {"kernel": PARAMS["b"]["kernel"]}}
for name, tx in {"muon": jt.muon(0.02, coefficients=SHORT), "shampoo": jt.shampoo(0.02)}.items():
    update = jax.jit(tx.update)
    expected, _ = update(small, tx.init(small), small)
    for kind, mesh, call in (
        ("Auto", AUTO, update),
        ("Explicit", EXPLICIT, update),
        ("Explicit, eager", EXPLICIT, tx.update),
    ):
        here = placer(mesh, rows)(small)
        updates, _ = call(here, jt.sharded_state(tx).init(here), here)
        report(f"no axes, {name}, {kind}", error=error(updates, expected), layout_kept=same_layout(updates, here))

with jax.set_mesh(EXPLICIT):  # NumPy's arrays lie nowhere on it
    updates, _ = alone.update(kernels, alone.init(kernels))
report("no axes, NumPy", error=error(updates, alone.update(kernels, alone.init(kernels))[0]))

# --- the wire --------------------------------------------------------------------------------------------------------

params, _, _, text = train(
    jt.muon(0.02, 0.1, coefficients=SHORT, routing=routing, mesh_axes="fsdp", wire_dtype="bfloat16"), place
)
report("wire", error=error(params, REFERENCE), dtypes=sorted(set(re.findall(r"= \(?(\w+)\[.*? all-to-all\(", text))))

# --- state -----------------------------------------------------------------------------------------------------------


def is_spread(state: Tree) -> bool:
    """Every array of two or more axes is spread."""
    return all(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state) if leaf.ndim > 1)


def on_columns(tree: Tree) -> Tree:
    return jax.tree.map(
        lambda leaf: jax.device_put(leaf, NamedSharding(AUTO, P(None, "fsdp") if leaf.ndim > 1 else P())), tree
    )


tx = jt.sharded_state(jt.muon(0.02, mesh_axes="fsdp"))
x = jnp.ones((4, 16))

model = nnx.Sequential(nnx.Linear(16, 32, rngs=nnx.Rngs(0)), nnx.Linear(32, 16, rngs=nnx.Rngs(1)))
nnx.update(model, on_columns(nnx.state(model)))
optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
created = is_spread(nnx.state(optimizer))
with jax.set_mesh(AUTO):
    nnx.jit(lambda m, o: o.update(m, nnx.grad(lambda m: jnp.sum(m(x) ** 2))(m)))(model, optimizer)
report("state, nnx", spread=created, kept_after_a_step=is_spread(nnx.state(optimizer)))

dense = flax.linen.Sequential([flax.linen.Dense(32), flax.linen.Dense(16)])
state = TrainState.create(apply_fn=dense.apply, params=on_columns(dense.init(jax.random.key(0), x)["params"]), tx=tx)
created = is_spread(state.opt_state)
grads = jax.grad(lambda params: jnp.sum(dense.apply({"params": params}, x) ** 2))(state.params)
state = jax.jit(lambda state, grads: state.apply_gradients(grads=grads))(state, grads)
report("state, linen", spread=created, kept_after_a_step=is_spread(state.opt_state))

params = on_columns({"a": jnp.ones((16, 32)), "b": jnp.ones((32, 16)), "c": jnp.ones(16)})
state = tx.init(params)
report(
    "state, plain", spread=is_spread(state), kept_after_a_step=is_spread(jax.jit(step_of(tx))(params, state, params)[1])
)

# --- errors ----------------------------------------------------------------------------------------------------------


def message(call: Callable[[], Any]) -> str:
    try:
        call()
    except ValueError as error:
        return str(error)
    return "no error"


def unknown_axis(mesh: Any) -> None:
    with jax.set_mesh(mesh):
        train(jt.muon(0.02, routing=routing, mesh_axes="model"), placer(mesh, rows))


def in_shard_map(layouts: Any) -> Callable[[], Any]:
    tx = jt.orthogonalize_via_newton_schulz(SHORT, axes=jt.MatrixAxes(0, 1), mesh_axes="fsdp", layouts=layouts)
    tree = {"a": PARAMS["a"], "b": PARAMS["b"]}
    specs = jax.tree.map(lambda _: P("fsdp"), tree)
    update = lambda g: tx.update(g, tx.init(g))[0]  # noqa: E731
    return lambda: jax.shard_map(update, mesh=AUTO, in_specs=(specs,), out_specs=specs)(tree)


report(
    "errors",
    **{
        "unknown axis, Auto": message(lambda: unknown_axis(AUTO)),
        "unknown axis, Explicit": message(lambda: unknown_axis(EXPLICIT)),
        "axis twice": message(lambda: jt.muon(0.02, mesh_axes=("fsdp", "fsdp"))),
        "shard_map without layouts": message(in_shard_map(None)),
        "layout twice": message(in_shard_map({"a": {"kernel": P("fsdp", "fsdp")}, "b": {"kernel": P("fsdp")}})),
        "layout with an unknown axis": message(in_shard_map(lambda name, leaf: P("model"))),
        "layout missing": message(in_shard_map({"a/kernel": P("fsdp")})),
    },
)
