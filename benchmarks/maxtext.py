"""Route the models of MaxText by use and by name, and compare with MaxText's own table for Muon.

Run where MaxText 0.2.5 is installed: `python -m benchmarks.maxtext [--leaves | --gemma2 | --zoo | --train]`. Without
an option it prints the table of docs/maxtext.md. Models are abstract except for `--train`.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from maxtext.configs import pyconfig  # type: ignore[import-not-found]
from maxtext.optimizers import optimizers as maxtext_optimizers  # type: ignore[import-not-found]
from maxtext.utils import maxtext_utils, model_creation_utils, muon_utils  # type: ignore[import-not-found]
from maxtext.utils.globals import MAXTEXT_PKG_DIR  # type: ignore[import-not-found]

import jaxopt_tour as jt

MODELS = (
    "llama2-7b", "llama3.1-8b", "llama4-17b-16e", "mistral-7b", "mixtral-8x7b", "gemma-2b", "gemma2-2b", "gemma3-4b",
    "gemma4-26b", "gemma4-e2b", "qwen2.5-1.5b", "qwen3-0.6b", "qwen3-30b-a3b", "qwen3-next-80b-a3b",
    "qwen3.5-35b-a3b", "deepseek2-16b", "deepseek3-671b", "deepseek3.2-671b", "deepseek4-284b", "kimi-k2-1t",
    "gpt-oss-20b", "gpt3-52k", "olmo3-7b", "envy-test",
)  # fmt: skip
ONLY_UNROLLED = ("gemma4-e2b",)
#: The models of tests/routing/shape_zoo/trees/maxtext.txt, and their number of layers where these are not scanned.
ZOO = {
    "qwen3-0.6b": 3, "gemma2-2b": 4, "gemma3-4b": 6, "gemma4-26b": 6, "llama3.1-8b": 3, "mixtral-8x7b": 3,
    "deepseek2-16b": 3, "deepseek3.2-671b": 5, "deepseek4-284b": 6, "gpt-oss-20b": 4, "qwen3-next-80b-a3b": 4,
    "olmo3-7b": 4,
}  # fmt: skip
#: Mixtures of experts, and the ways in which MaxText computes them.
EXPERT_KERNELS = {
    "megablox": ("sparse_matmul=True", "megablox=True"),
    "ragged_dot": ("sparse_matmul=True", "megablox=False"),
    "dense": ("sparse_matmul=False", "megablox=False"),
}
#: Right answers by path, written by hand: a letter an axis (`b` batch, `i` fan-in, `o` fan-out) without axes of
#: layers, which stand where the axis names say. The first pattern that matches decides.
ANSWERS = (
    (r"(logits_dense|shared_expert_gate|conv1d)/kernel$", "no matrix"),
    (r"/(query|key|value|wq_b|wkv|wkv_b)/kernel$", "ioo"),
    (r"/qkv_proj/kernel$", "iooo"),
    (r"/out/kernel$", "iio"),
    (r"/(wi_0|wi_1|wo)$", "bio"),
    (r"/o_a_proj/kernel$", "bio"),
    (r"/((pre|post|res)_alpha|hc_fn|kernel)$", "io"),
)
#: Axes of layers, as MaxText names them.
LAYERS = re.compile(r"layers$|_blocks$")


def build(name: str, *overrides: str) -> tuple[Any, Any, Any]:
    """Config, function that makes the model, and abstract model, as MaxText makes them."""
    argv = [None, os.path.join(MAXTEXT_PKG_DIR, "configs", "base.yml"), f"model_name={name}"]
    argv += ["attention=dot_product", "skip_jax_distributed_system=True", "max_target_length=4096", *overrides]
    config = pyconfig.initialize(argv)
    mesh = jax.sharding.Mesh(maxtext_utils.create_device_mesh(config), config.mesh_axes)
    return config, *model_creation_utils.create_nnx_abstract_model(config, mesh)


def by_use(model: Any) -> jt.routing.Routes:
    """Routes by use. Tokens, positions and segments are integers of one shape."""
    tokens = jax.ShapeDtypeStruct((1, 4096), jnp.int32)
    return jt.routing.from_function(model, tokens, tokens, tokens, enable_dropout=False)


def leaves(model: Any) -> dict[str, Any]:
    """The variables of a model by path."""
    return {"/".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param))}


def axis_names(leaf: Any) -> tuple[str | None, ...]:
    metadata = leaf.get_metadata()
    return tuple(metadata.get("sharding_names") or metadata.get("out_sharding") or ())


def answer(path: str, leaf: Any) -> str:
    """The right answer: letters of the axes, or "no matrix"."""
    shape, names = leaf.get_value().shape, axis_names(leaf)
    letters = next((letters for pattern, letters in ANSWERS if re.search(pattern, path)), "no matrix")
    if letters == "no matrix":
        return letters
    is_layers = [bool(LAYERS.search(name or "")) for name in names or [""] * len(shape)]
    if letters == "iio" and len(shape) - sum(is_layers) == 2:  # heads are merged before the output projection
        letters = "io"
    given = iter(letters)
    result = "".join("b" if layers else next(given) for layers in is_layers)
    assert next(given, None) is None, (path, shape, letters)
    return result


def letters_of(axes: Any, rank: int) -> str:
    """The letters of routed axes, of ours or Optax's."""
    if axes is None:
        return "no matrix"
    sides = (axes.fan_in, axes.fan_out) if hasattr(axes, "fan_in") else (axes.reduction_axis, axes.output_axis)
    fan_in, fan_out = ({axis % rank for axis in ((side,) if isinstance(side, int) else side)} for side in sides)
    return "".join("i" if axis in fan_in else "o" if axis in fan_out else "b" for axis in range(rank))


def given(routes: Any, path: str, rank: int) -> str:
    route = routes[path]
    return letters_of(route.axes if route.label == "matrix" else None, rank)


def compare(name: str, *overrides: str) -> Iterator[tuple[str, Any, str, str, str, str]]:
    """Path, leaf, right answer, by use, by name, MaxText's table; for every parameter."""
    config, _, model = build(name, *overrides)
    use, by_name = by_use(model), jt.routing.routes_by_name(nnx.state(model, nnx.Param))
    table = muon_utils.get_muon_weight_dimension_numbers(model, config)
    theirs = {"/".join(map(str, path)): getattr(x, "value", x) for path, x in nnx.to_flat_state(table)}
    for path, leaf in leaves(model).items():
        rank = len(leaf.get_value().shape)
        yield (
            path, leaf, answer(path, leaf), given(use, path, rank), given(by_name, path, rank),
            letters_of(theirs.get(path), rank),
        )  # fmt: skip


def _wrong_and_missed(rows: list[Any], place: int) -> str:
    wrong = sum(row[place] not in (row[2], "no matrix") for row in rows)
    missed = sum(row[place] == "no matrix" != row[2] for row in rows)
    return f"{wrong}, {missed}"


def print_table(show_leaves: bool) -> None:
    """Print the table of docs/maxtext.md: scanned / unrolled in every cell."""
    print("| model | matrices | by use: wrong, missed | by name: wrong, missed | muon_utils disagrees |")
    print("|---|---|---|---|---|")
    for name in MODELS:
        scans = (False,) if name in ONLY_UNROLLED else (True, False)
        print_row(name, [(f"scan_layers={scan}",) for scan in scans], show_leaves)
    for name in ("mixtral-8x7b", "deepseek2-16b", "gpt-oss-20b", "qwen3-next-80b-a3b"):
        for kernel, options in EXPERT_KERNELS.items():
            print_row(f"{name}, {kernel}", [("scan_layers=True", *options)], show_leaves)


def print_row(title: str, variants: list[tuple[str, ...]], show_leaves: bool) -> None:
    """Print a row for the variants of a model and, on demand, every parameter on which two answers differ."""
    cells: list[list[str]] = []
    differences: dict[str, None] = {}  # a set in order
    for overrides in variants:
        try:
            rows = list(compare(title.split(",")[0], *overrides))
        except Exception as error:
            cells.append([f"{type(error).__name__}: {str(error)[:120]!r}", *"---"])
            continue
        matrices = sum(row[2] != "no matrix" for row in rows)
        disagrees = sum(row[5] != row[3] for row in rows)
        cells.append([str(matrices), _wrong_and_missed(rows, 3), _wrong_and_missed(rows, 4), str(disagrees)])
        for path, leaf, *answers in rows:
            if len(set(answers)) > 1:
                right, use, by_name, theirs = answers
                place = f"{re.sub('layers_[0-9]+', 'layers_*', path)} {leaf.get_value().shape}"
                differences[f"    {place}: right {right}, use {use}, name {by_name}, muon_utils {theirs}"] = None
    print("| " + " | ".join([title, *(" / ".join(column) for column in zip(*cells, strict=True))]) + " |", flush=True)
    if show_leaves:
        print(*differences, sep="\n")


def print_zoo() -> None:
    """Print trees of parameters with the right answers, in the format of tests/routing/shape_zoo/models.py."""
    print("# MaxText's parameters, printed by `python -m benchmarks.maxtext --zoo`.")
    for name, layers in ZOO.items():
        for scan in (True, False):
            few = () if scan else (f"base_num_decoder_layers={layers}", "override_model_config=True")
            _, _, model = build(name, f"scan_layers={scan}", *few)
            routes = by_use(model)
            rows: dict[tuple[str, ...], list[int]] = {}
            for path, leaf in leaves(model).items():
                right = answer(path, leaf)
                right = routes[path].role.replace(" ", "-") if right == "no matrix" else right
                number = re.search(r"(?<=layers_)\d+", path)
                template = path[: number.start()] + "{}" + path[number.end() :] if number else path
                shape = " ".join(map(str, leaf.get_value().shape))
                names = " ".join(map(str, axis_names(leaf)))
                rows.setdefault((template, shape, right, names), []).append(int(number[0]) if number else 0)
            print(f"\n[maxtext 0.2.5 {name}, {'scanned' if scan else 'unrolled'}] nnx")
            print(f"source: maxtext 0.2.5 configs/models/{name}.yml\nsizes: X=1")
            for (template, *cells), numbers in rows.items():
                numbers = sorted(numbers)
                run = f"{numbers[0]}..{numbers[-1]}" if len(numbers) == numbers[-1] - numbers[0] + 1 else None
                choice = str(numbers[0]) if len(numbers) == 1 else f"{{{run or ','.join(map(str, numbers))}}}"
                print(" | ".join(cell for cell in (template.replace("{}", choice), *cells) if cell))


def print_gemma2() -> None:
    """Print the routes of Gemma 2 without the last two columns and the global blocks, which are like the local ones."""
    lines = str(by_use(build("gemma2-2b", "scan_layers=True")[2])).splitlines()
    width = lines[0].index("meets")
    print("\n".join(line[:width].rstrip() for line in lines if "_global" not in line))


def train() -> None:
    """Take three steps of a small Qwen 3 in MaxText's get_optimizer, with each routing of docs/maxtext.md."""
    sizes = "base_emb_dim=64 base_mlp_dim=128 base_num_decoder_layers=4 base_num_query_heads=4 base_num_kv_heads=2"
    small = (
        *sizes.split(),
        "head_dim=16",
        "vocab_size=256",
        "override_model_config=True",
        "dtype=float32",
        "opt_type=muon",
    )
    config, create, abstract = build("qwen3-0.6b", *small)
    routes = by_use(abstract)
    swaps = {
        "by use": lambda rate, table: jt.muon(rate, routing=routes),
        "muon_utils": lambda rate, table: jt.muon(rate, routing=table),
    }
    tokens = jnp.arange(32, dtype=jnp.int32)[None]
    for label, swap in swaps.items():
        model = create()
        maxtext_optimizers.optax_muon = (  # the line of get_optimizer that docs/maxtext.md replaces
            lambda learning_rate, muon_weight_dimension_numbers, swap=swap, **_: swap(
                learning_rate, muon_weight_dimension_numbers
            )
        )
        tx = maxtext_optimizers.get_optimizer(config, optax.constant_schedule(1e-2), model)
        optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

        def loss(model: Any) -> jax.Array:
            logits = model(tokens, tokens, jnp.ones_like(tokens), enable_dropout=False)
            return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits[:, :-1]), tokens[:, 1:, None], -1))

        losses = []
        for _ in range(3):
            value, gradients = nnx.jit(nnx.value_and_grad(loss))(model)
            optimizer.update(model, gradients)
            losses.append(round(float(value), 3))
        print(f"{label}: losses {losses}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--leaves", action="store_true", help="the table, and every parameter on which answers differ")
    what.add_argument("--gemma2", action="store_true", help="the routes of Gemma 2")
    what.add_argument("--zoo", action="store_true", help="trees for tests/routing/shape_zoo/trees/maxtext.txt")
    what.add_argument("--train", action="store_true", help="three steps of a small Qwen 3 with each routing")
    arguments = parser.parse_args()
    if arguments.zoo:
        print_zoo()
    elif arguments.gemma2:
        print_gemma2()
    elif arguments.train:
        train()
    else:
        print_table(arguments.leaves)


if __name__ == "__main__":
    main()
