"""A function of shards on Auto axes, where layouts are known once XLA has partitioned the program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.experimental.custom_partitioning import SdyShardingRule, custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

from jaxopt_tour._types import Array
from jaxopt_tour.mesh.layouts import check_axes_exist, dividing, names_of, spec_of


def partitioned(
    on_whole: Callable[..., list[Array]],
    on_shards: Callable[..., list[Array]],
    names: Sequence[str],
    arrays: Sequence[Array],
    mesh_axes: Sequence[str],
) -> list[Array]:
    """Call `on_shards(*arrays, layouts=, sizes=)` on every device, with the layouts that the partitioner chooses.

    `custom_partitioning` has no rules for derivatives and `vmap`. Both are those of `on_whole`, whose
    communication is the partitioner's.

    Args:
        on_whole: the function of whole arrays.
        on_shards: the same for one device's shards.
        names: of the parameters among the arrays, which come first; the others are the same on every device.
        arrays: the arguments.
        mesh_axes: axes that the mesh must have.
    """
    count = len(names)

    whole = jax.jit(on_whole)  # custom_partitioning refuses constants; inside a jit they are hidden from it

    def partition(mesh: Any, arguments: Any, results: Any) -> tuple[Any, Any, Any, Any]:
        del results
        if mesh.empty:  # nothing in the program is sharded
            return (
                mesh,
                on_whole,
                [argument.sharding for argument in arguments[:count]],
                tuple(argument.sharding for argument in arguments),
            )
        check_axes_exist(mesh_axes, mesh)
        layouts = {
            name: dividing(names_of(argument.sharding.spec, array.ndim), array.shape, dict(mesh.shape))
            for name, argument, array in zip(names, arguments, arrays, strict=False)
        }
        shardings = [NamedSharding(mesh, spec_of(layouts[name])) for name in names]
        replicated = [NamedSharding(mesh, PartitionSpec()) for _ in arrays[count:]]

        def function(*shards: Array) -> list[Array]:
            return on_shards(*shards, layouts=layouts, sizes=dict(mesh.shape))

        return mesh, function, shardings, (*shardings, *replicated)

    # Every result is sharded as its argument is.
    mappings: Any = tuple(
        tuple(f"p{number}d{dimension}" for dimension in range(array.ndim))
        for number, array in enumerate(arrays[:count])
    )
    on_devices = custom_partitioning(lambda *arguments: whole(*arguments))
    on_devices.def_partition(
        partition,
        infer_sharding_from_operands=lambda mesh, arguments, results: [
            argument.sharding for argument in arguments[:count]
        ],
        sharding_rule=SdyShardingRule(mappings + ((),) * (len(arrays) - count), mappings),
    )

    @jax.custom_batching.custom_vmap
    def batched(*arguments: Array) -> list[Array]:
        return list(on_devices(*arguments))

    @batched.def_vmap
    def _(axis_size: int, is_batched: Sequence[bool], *arguments: Array) -> tuple[list[Array], list[bool]]:
        along = [0 if batched else None for batched in is_batched]
        return jax.vmap(whole, in_axes=along, axis_size=axis_size)(*arguments), [True] * count

    @jax.custom_jvp
    def differentiable(*arguments: Array) -> list[Array]:
        return batched(*arguments)

    @differentiable.defjvp
    def _(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[list[Array], list[Array]]:
        return jax.jvp(whole, primals, tangents)

    return differentiable(*arrays)
