"""Record shape trees from installed packages and checked-out repositories.

A recipe in `recipes/` builds one model without allocating it, and says by hand what each parameter is. The script
writes the model as a block of `packages_open.txt` or `packages_held_back.txt`, which a hash of its name decides, or of
`packages_blind.txt`.
To record everything again, in one environment for each group of packages that `README.md` lists:

```text
uv venv scratch && VIRTUAL_ENV=scratch uv pip install PACKAGES
PYTHONPATH=. ZOO_SOURCES=FOLDER scratch/bin/python -m tests.routing.shape_zoo.record [--check] [part of a name ...]
```

`ZOO_SOURCES` has one checkout per repository, named `owner+repository`. Recipes whose packages or checkouts are
missing are skipped and keep their blocks, since no environment can hold all packages. `--check` routes each model by
use and prints where it disagrees with the answers; it writes nothing. No test imports the recipes.
"""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import importlib
import importlib.metadata
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import jax

from jaxopt_tour._trees import path_name
from jaxopt_tour.routing import from_function
from tests.routing.shape_zoo.models import FOLDER, is_held_back, read_models

HERE = Path(__file__).parent
FILES = {kind: FOLDER / f"packages_{kind}.txt" for kind in ("open", "held_back", "blind")}

#: The tree of shapes of a model, and its routes by use; None where it cannot be traced.
Built = tuple[Any, Callable[[], dict[str, Any]] | None]


class Missing(Exception):
    """A package or a checkout that a recipe needs is not here."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to build one model, and what its parameters are.

    Args:
        name: name of the model; decides whether it is held back.
        framework: framework that builds the tree, as in `models.py`.
        source: package and expression, or repository and path. `{package}` is replaced by package and version.
        sizes: variants, such as `"D=48 H=3"`. The first has no two equal sizes.
        expressions: products that may be lengths of axes, such as `"H*K 3*D"`; the names of sizes always may.
        answers: lines `glob | answer`; the first that matches a path decides.
        needs: package (`"jraph"`) or repository (`"owner/name"`, with `:folder` where its packages are).
        conventional: whether the rules should understand the model almost completely.
        blind: whether the answers were written before any rule was run on the model.
    """

    name: str
    framework: str
    source: str
    sizes: tuple[str, ...]
    expressions: str
    answers: str
    needs: tuple[str, ...]
    conventional: bool
    blind: bool
    build: Callable[[Any], Built]

    @property
    def kind(self) -> str:
        """`"open"`, `"held_back"` or `"blind"`: the file that the model is written to."""
        return "blind" if self.blind else "held_back" if is_held_back(self.name) else "open"


RECIPES: list[Recipe] = []


def recipe(
    name: str,
    framework: str,
    source: str,
    needs: str,
    sizes: list[str],
    answers: str,
    expressions: str = "",
    conventional: bool = False,
    blind: bool = False,
) -> Callable[[Callable[[Any], Built]], Callable[[Any], Built]]:
    """Register a function of the sizes that returns the tree and the routes by use; see `Recipe`."""

    def register(build: Callable[[Any], Built]) -> Callable[[Any], Built]:
        texts = (name, framework, source, tuple(sizes), expressions, answers, tuple(needs.split()))
        RECIPES.append(Recipe(*texts, conventional, blind, build))
        return build

    return register


@dataclasses.dataclass
class Row:
    """One parameter: its path, its lengths in every variant, the names of its axes."""

    path: str
    lengths: list[tuple[int, ...]]
    names: tuple[str | None, ...] | None


def values_of(sizes: str) -> dict[str, int]:
    return {key: int(value) for key, value in (pair.split("=") for pair in sizes.split())}


def rows_of(tree: Any) -> dict[str, Row]:
    """The arrays of a tree with their paths and, where the framework stores them, the names of their axes."""
    rows: dict[str, Row] = {}

    def is_leaf(node: Any) -> bool:
        return names_of(node) is not None or type(node).__name__ in ("Param", "VariableState")

    for path, leaf in jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf)[0]:
        array = next(iter(jax.tree.leaves(leaf)), None)
        if not hasattr(array, "shape") or not jax.numpy.issubdtype(array.dtype, jax.numpy.inexact):
            continue
        name = path_name(path).removesuffix("/value" if type(leaf).__name__ == "VariableState" else "\0")
        assert name not in rows, name
        rows[name] = Row(name, [tuple(array.shape)], names_of(leaf))
    return rows


def names_of(node: Any) -> tuple[str | None, ...] | None:
    """The names of the axes of a linen, nnx, Haliax or Penzai array; None where it has none."""
    for holder in (node, getattr(node, "_var_metadata", None) or {}):
        for key in ("names", "out_sharding", "sharding_names", "sharding"):
            names = holder.get(key) if isinstance(holder, dict) else vars(holder).get(key) if _is_box(holder) else None
            if names:
                return tuple(names)
    if type(node).__name__ == "NamedArray" and hasattr(node, "named_axes"):  # Penzai
        return (*[None] * len(node.positional_shape), *node.named_axes)
    if type(node).__name__ == "NamedArray":  # Haliax
        return tuple(axis.name for axis in node.axes)
    return None


def _is_box(node: Any) -> bool:
    return type(node).__name__ in ("Partitioned", "LogicallyPartitioned", "PartitionSpec")


def tokens(*shape: int) -> Any:
    return jax.ShapeDtypeStruct(shape, jax.numpy.int32)


def floats(*shape: int) -> Any:
    return jax.ShapeDtypeStruct(shape, jax.numpy.float32)


def linen(module: Any, *inputs: Any, **kwargs: Any) -> Built:
    """The parameters of a linen module, and its routes."""
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(0), "lstm": jax.random.key(0)}
    variables = jax.eval_shape(lambda *inputs: module.init(keys, *inputs, **kwargs), *inputs)
    return variables["params"], lambda: from_function(module, variables, *inputs, **kwargs)


def nnx_module(make: Callable[[], Any], *inputs: Any, **kwargs: Any) -> Built:
    """The parameters of an nnx module, and its routes."""
    from flax import nnx

    model = nnx.eval_shape(make)
    return nnx.state(model, nnx.Param), lambda: from_function(model, *inputs, **kwargs)


def haiku(function: Callable[..., Any], *inputs: Any) -> Built:
    """The parameters of a function of Haiku modules, and its routes."""
    import haiku as hk

    pair = hk.transform_with_state(function)
    params, state = jax.eval_shape(pair.init, jax.random.key(0), *inputs)
    return params, lambda: from_function(pair, params, state, *inputs)


def equinox(make: Callable[[], Any], call: Callable[..., Any], *inputs: Any) -> Built:
    """The arrays of an Equinox module, and the routes of `call(module, *inputs)`."""
    import equinox as eqx

    model = eqx.filter_eval_shape(make)
    return model, lambda: from_function(call, model, *inputs)


def restore_old_numpy() -> None:
    """Put back what newer JAX removed from `jax.numpy` and older models still call."""
    clip = jax.numpy.clip
    if not hasattr(jax.numpy, "cat"):
        jax.numpy.DeviceArray = jax.Array
        jax.numpy.cat = jax.numpy.concatenate
        jax.numpy.clip = lambda x, a_min=None, a_max=None, **kwargs: clip(x, a_min, a_max, **kwargs)


def stub(*names: str) -> None:
    """Put empty stand-ins in place of modules that a checkout imports and a model's definition does not need."""
    for name in names:
        sys.modules[name] = MagicMock()


def bare_package(repository: str, name: str) -> None:
    """Make a package of a checkout importable without running its `__init__`."""
    package = ModuleType(name)
    package.__path__ = [str(checkout_of(repository) / name.replace(".", "/"))]
    sys.modules[name] = package


def checkout_of(repository: str) -> Path:
    return Path(os.environ.get("ZOO_SOURCES", "/nonexistent")) / repository.replace("/", "+")


def import_what_is_needed(entry: Recipe) -> str:
    """Import packages and put checkouts on the path; return `package version` of the first package."""
    title = ""
    for need in entry.needs:
        repository, _, folder = need.partition(":")
        if "/" in repository:
            checkout = checkout_of(repository)
            if not checkout.exists():
                raise Missing(need)
            sys.path.insert(0, str(checkout / folder))
            continue
        try:
            title = title or f"{need} {importlib.metadata.version(need)}"
        except importlib.metadata.PackageNotFoundError:
            raise Missing(need) from None
    return title


def block(entry: Recipe) -> str:
    """The block of a model: builds every variant and finds the expressions that give the lengths of the axes."""
    title = import_what_is_needed(entry)
    variants = [values_of(sizes) for sizes in entry.sizes]
    trees = [rows_of(entry.build(SimpleNamespace(**values))[0]) for values in variants]
    rows = trees[0]
    for other in trees[1:]:
        assert other.keys() == rows.keys(), sorted(other.keys() ^ rows.keys())
        for path, row in rows.items():
            row.lengths.append(other[path].lengths[0])
    lines = [f"[{entry.name}] {entry.framework}{' conventional' if entry.conventional else ''}"]
    lines += [f"source: {entry.source.replace('{package}', title)}", *(f"sizes: {sizes}" for sizes in entry.sizes)]
    known = [*variants[0], *entry.expressions.split()]
    cells = {
        path: (" ".join(_expression(known, variants, lengths) for lengths in zip(*row.lengths, strict=True)), row.names)
        for path, row in rows.items()
    }
    answers = answers_of(entry, {path: row.lengths for path, row in rows.items()})
    columns: dict[tuple[str, ...], list[str]] = {}
    for path, (shape, names) in cells.items():
        tail = (shape, answers[path], *([" ".join(map(str, names))] if names else []))
        columns.setdefault(tail, []).append(path)
    lines += [
        " | ".join((path, *tail)).replace(" |  | ", " | | ")
        for tail, paths in columns.items()
        for path in folded(paths)
    ]
    return "\n".join(lines) + "\n"


def _expression(known: list[str], variants: list[dict[str, int]], lengths: tuple[int, ...]) -> str:
    if len(set(lengths)) == 1 and lengths[0] <= 4:
        return str(lengths[0])
    for text in known:
        if [eval(text, {"__builtins__": {}}, dict(values)) for values in variants] == list(lengths):
            return text
    assert len(set(lengths)) == 1, f"no expression gives {lengths} for {variants}"
    return str(lengths[0])


def answers_of(entry: Recipe, paths: dict[str, Any]) -> dict[str, str]:
    """The answer for every path. Every line of the answers must match a path, and every path a line."""
    pairs = [[part.strip() for part in line.split("|")] for line in entry.answers.splitlines() if line.strip()]
    matches = {path: [i for i, (glob, _) in enumerate(pairs) if fnmatch.fnmatchcase(path, glob)] for path in paths}
    unknown = [f"{path} {paths[path]}" for path in paths if not matches[path]]
    assert not unknown, "no answers for\n" + "\n".join(unknown)
    found = {path: matches[path][0] for path in paths}
    for path, lengths in paths.items():
        answer = pairs[found[path]][1]
        assert not set(answer) <= set("bio") or len(answer) == len(lengths[0]), f"{path} {lengths}: {answer}"
    unused = [pairs[i] for i in range(len(pairs)) if i not in found.values()]
    assert not unused, f"unused answers: {unused}"
    return {path: pairs[i][1] for path, i in found.items()}


def folded(paths: list[str]) -> list[str]:
    """Paths that differ in one part only, as one path with braces: `a/0/w`, `a/1/w` become `a/{0..1}/w`."""
    current = [path.split("/") for path in paths]
    for position in range(max(map(len, current))):
        groups: dict[tuple[Any, ...], list[str]] = {}
        for parts in current:
            rest = tuple(parts[:position]), tuple(parts[position + 1 :]), len(parts) > position
            groups.setdefault(rest, []).append(parts[position] if len(parts) > position else "")
        current = [
            [*before, *([braces(parts)] if there else []), *after] for (before, after, there), parts in groups.items()
        ]
    return ["/".join(parts) for parts in current]


def braces(parts: list[str]) -> str:
    """Several names as one: `layers_{0..2}` for numbers in a row, otherwise `{key,query}`."""
    if len(parts) == 1:
        return parts[0]
    assert not any("{" in part for part in parts), parts
    matches = [re.fullmatch(r"(\D*)(0|[1-9]\d*)(\D*)", part) for part in parts]
    ends = {(match[1], match[3]) for match in matches if match}
    numbers = sorted(int(match[2]) for match in matches if match)
    if len(ends) == 1 and len(numbers) == len(parts):
        ((start, end),) = ends
        in_a_row = numbers == list(range(numbers[0], numbers[-1] + 1))
        return f"{start}{{{f'{numbers[0]}..{numbers[-1]}' if in_a_row else ','.join(map(str, numbers))}}}{end}"
    return f"{{{','.join(parts)}}}"


def head(file: Path) -> str:
    """The comments before the first block, which are kept."""
    return re.split(r"(?m)^\[", file.read_text(), maxsplit=1)[0]


def blocks(file: Path) -> dict[str, str]:
    text = file.read_text() if file.exists() else ""
    found = [part for part in re.split(r"\n(?=\[)", "\n" + text) if part.startswith("[")]
    return {part[1 : part.index("]")]: part.rstrip("\n") + "\n" for part in found}


def disagreements(entry: Recipe) -> Iterator[str]:
    """Where routing by use and the answers disagree, in the first variant."""
    import_what_is_needed(entry)
    _, route = entry.build(SimpleNamespace(**values_of(entry.sizes[0])))
    if route is None:
        yield "not traced"
        return
    (model,) = read_models(block(entry).splitlines(), first=True)
    routes = route()
    verdicts = model.verdicts({path: routes[path] for path in routes})
    rights = {parameter.path: parameter for parameter in model.parameters}
    for path, verdict in verdicts.items():
        if verdict != "right":
            ours = next(routes[name] for name in routes if name == path or name.startswith(path + "/"))
            right = f"{path} {rights[path].shape}: answer {rights[path].answer}"
            yield f"{right}, by use {ours.role} {ours.axes} ({ours.reason})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    for file in sorted((HERE / "recipes/").glob("*.py")):
        importlib.import_module(f"tests.routing.shape_zoo.recipes.{file.stem}")
    texts = {kind: blocks(file) for kind, file in FILES.items()}
    for entry in RECIPES:
        if arguments.names and not any(part in entry.name for part in arguments.names):
            continue
        try:
            if arguments.check:
                print(f"{entry.name}:", *(f"\n  {line}" for line in disagreements(entry)))
            else:
                texts[entry.kind][entry.name] = block(entry)
                print(f"{entry.name}: recorded")
        except Missing as error:
            print(f"{entry.name}: skipped, needs {error}")
        except Exception:
            print(f"{entry.name}: FAILED")
            traceback.print_exc(limit=-4)
    if not arguments.check:
        for kind, file in FILES.items():
            order = [entry.name for entry in RECIPES if entry.name in texts[kind]]
            file.write_text(head(file) + "\n".join(texts[kind][name] for name in order))


if __name__ == "__main__":
    from tests.routing.shape_zoo import record  # the module that recipes import

    record.main()
