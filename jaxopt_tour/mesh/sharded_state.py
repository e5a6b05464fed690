"""Optimizer state that is sharded like the parameters, on any mesh and under any Flax API.

`tx.init` under `jit` creates zeros that do not depend on the parameters, so XLA may put a full copy on every
device. Here every array of the state gets a layout: that of its parameter if it has the parameter's shape; otherwise
(counts, factored moments) it is replicated.
"""

from __future__ import annotations

from typing import Any

import jax
import optax
from jax.sharding import NamedSharding, PartitionSpec

from jaxopt_tour._checks import check_transformation
from jaxopt_tour._trees import is_box, is_hole, rebox, unbox
from jaxopt_tour._types import Tree


def state_shardings(tx: optax.GradientTransformation, params: Tree) -> Tree:
    """Return the layout of `tx`'s state: a tree like `tx.init(params)` with a NamedSharding for every array.

    For `jax.jit(..., out_shardings=...)`, and for restoring a checkpoint on another mesh:

    ```python
    shardings = jt.state_shardings(tx, params)
    like = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        jax.eval_shape(tx.init, params), shardings,
    )
    ```

    Args:
        tx: any Optax transformation.
        params: arrays, or `jax.ShapeDtypeStruct` values with a sharding, all on one mesh, boxed in Flax variables or
            not.

    Raises:
        ValueError: a parameter has no NamedSharding, two are on different meshes, or there are none.
    """
    check_transformation("tx", tx)
    mesh = _mesh_of(params)
    everywhere = NamedSharding(mesh, PartitionSpec())

    def like_parameter(part: Any, parameter: Any) -> Any:
        if is_hole(part):
            return part
        array, wanted = unbox(part), unbox(parameter)
        same = not is_hole(wanted) and tuple(array.shape) == tuple(wanted.shape)
        return rebox(part, NamedSharding(mesh, wanted.sharding.spec) if same else everywhere)

    state = jax.eval_shape(tx.init, params)
    return optax.tree.map_params(
        tx,
        like_parameter,
        state,
        params,
        transform_non_params=lambda _: everywhere,
        # A hole in the state stands for a parameter that another transformation owns.
        is_leaf=lambda node: is_box(node) or is_hole(node),
    )


def sharded_state(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Wrap `tx` so that `init` creates its state sharded like the parameters.

    ```python
    tx = jt.sharded_state(jt.muon(3e-3, mesh="fsdp"))
    state = tx.init(params)                                              # plain JAX
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)                  # Flax nnx
    state = TrainState.create(apply_fn=model.apply, params=params, tx=tx)   # Flax linen
    ```

    No device ever holds more of the state than its shards. For parameters that are on no mesh, `init` is `tx.init`.

    Args:
        tx: any Optax transformation.
    """
    check_transformation("tx", tx)
    tx = optax.with_extra_args_support(tx)

    def init(params: Tree) -> Any:
        leaves = jax.tree.leaves(params)
        concrete = leaves and all(isinstance(getattr(leaf, "sharding", None), NamedSharding) for leaf in leaves)
        if not concrete or any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            return tx.init(params)
        return jax.jit(tx.init, out_shardings=state_shardings(tx, params))(params)

    return optax.GradientTransformationExtraArgs(init, tx.update)


def _mesh_of(params: Tree) -> Any:
    """The mesh of all parameters.

    Raises:
        ValueError: one is on no mesh, two are on different meshes, or there are none.
    """
    mesh = None
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        sharding = getattr(leaf, "sharding", None)
        name = jax.tree_util.keystr(path)
        if not isinstance(sharding, NamedSharding):
            raise ValueError(
                f"params must be on a mesh: {name!r} must have a NamedSharding, got {sharding}; place it there first"
            )
        if mesh is not None and sharding.mesh != mesh:
            raise ValueError(f"parameter {name} is on another mesh than those before it: {sharding.mesh} and {mesh}")
        mesh = sharding.mesh
    if mesh is None:
        raise ValueError("params has no arrays")
    return mesh
