"""The zoo of shape trees: paths, shapes and axis names of public models, with the right answers.

`open_models()` were seen while the rules were written, `held_back_models()` only after the first numbers, and the
answers of `blind_models()` were written before any rule was run on them. The
models in `trees/packages_*.txt` are recorded by `record.py`. One of these is held back if
`int(hashlib.sha256(name.encode()).hexdigest(), 16) % 3 == 0`. The files in `trees/` hold one block a model:

```text
[name] framework conventional
source: owner/repository path/of/the/file
sizes: D=64 H=4 K=16
layers_{0..2}/attention/{query,key}/kernel | D H K | ioo | embed heads kv
```

A line is a path (braces expand as in a shell), a shape, the answer and, where the framework stores them, the names of
the axes. The answer is a letter an axis for a matrix (`b` batch, `i` fan-in, `o` fan-out), otherwise a role.
Every line `sizes` is one variant of the model. `conventional` models must be understood almost completely.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from jaxopt_tour.routing.axes import MatrixAxes
from jaxopt_tour.routing.route import Route

FOLDER = Path(__file__).parent / "trees"


@dataclasses.dataclass(frozen=True)
class Parameter:
    """Path, shape, axis names and right answer of one parameter."""

    path: str
    shape: tuple[int, ...]
    answer: str
    axis_names: tuple[str | None, ...] | None

    @property
    def axes(self) -> MatrixAxes | None:
        """Fan-in and fan-out; None if the parameter is no matrix."""
        if not set(self.answer) <= set("bio"):
            return None
        sides = ([axis for axis, letter in enumerate(self.answer) if letter == side] for side in "io")
        return MatrixAxes(*sides)

    def verdict(self, route: Route) -> str:
        """`"right"`, `"missed"` (a matrix that goes to AdamW) or `"wrong"`."""
        if route.label != "matrix":
            return "right" if self.axes is None else "missed"
        if self.axes is None or route.axes is None:
            return "wrong"
        pairs = zip(route.axes.dimensions(self.shape), self.axes.dimensions(self.shape), strict=True)
        return "right" if all(set(ours) == set(right) for ours, right in pairs) else "wrong"


@dataclasses.dataclass(frozen=True)
class Model:
    """One variant of one public model.

    Args:
        name: the model, and the number of the variant unless it is the first.
        framework: framework that builds the tree.
        conventional: whether the rules should understand it almost completely.
        source: package or repository, and where the model is in it.
        parameters: paths, shapes and answers.
        built: whether a program built the tree. Otherwise it was read from the source by hand.
    """

    name: str
    framework: str
    conventional: bool
    source: str
    parameters: tuple[Parameter, ...]
    built: bool = False

    def tree(self, with_axis_names: bool = True) -> dict[str, Any]:
        """The parameters as shapes, boxed as the framework boxes them."""
        box = _BOXES.get(self.framework) if with_axis_names else None
        leaves = {}
        for parameter in self.parameters:
            leaf: Any = jax.ShapeDtypeStruct(parameter.shape, jnp.float32)
            named = box is not None and parameter.axis_names is not None
            leaves[parameter.path] = box(leaf, parameter.axis_names) if box and named else leaf
        return leaves

    def verdicts(self, routes: dict[str, Route]) -> dict[str, str]:
        """The verdict on every parameter by path."""
        ending = {"haliax": r"/0$", "penzai": r"/data_array$"}.get(self.framework, r"$^")
        paths = {parameter.path for parameter in self.parameters}
        given = {name if name in paths else re.sub(ending, "", name): route for name, route in routes.items()}
        return {parameter.path: parameter.verdict(given[parameter.path]) for parameter in self.parameters}

    def missed_share(self, routes: dict[str, Route]) -> float:
        """The share of the elements of matrices that goes to AdamW."""
        verdicts = self.verdicts(routes)
        sizes = {p.path: math.prod(p.shape) for p in self.parameters if p.axes is not None}
        return sum(size for path, size in sizes.items() if verdicts[path] == "missed") / sum(sizes.values())


@dataclasses.dataclass(frozen=True)
class _Axis:
    name: str
    size: int


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True)
class NamedArray:
    """What Haliax's arrays look like from outside: an array and its axes, flattened without key names."""

    array: Any
    axes: tuple[_Axis, ...]

    def tree_flatten(self) -> tuple[tuple[Any], tuple[_Axis, ...]]:
        return (self.array,), self.axes

    @classmethod
    def tree_unflatten(cls, axes: tuple[_Axis, ...], children: tuple[Any]) -> NamedArray:
        return cls(children[0], axes)


def _haliax(leaf: Any, names: tuple[str | None, ...]) -> NamedArray:
    return NamedArray(leaf, tuple(_Axis(str(name), size) for name, size in zip(names, leaf.shape, strict=True)))


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True)
class PenzaiArray:
    """What Penzai's named arrays look like from outside: an array and the sizes of its axes by name."""

    data_array: Any
    named_axes: dict[str, int]

    def tree_flatten_with_keys(self) -> tuple[tuple[Any, ...], Any]:
        return ((jax.tree_util.GetAttrKey("data_array"), self.data_array),), tuple(self.named_axes.items())

    @classmethod
    def tree_unflatten(cls, axes: Any, children: tuple[Any]) -> PenzaiArray:
        return cls(children[0], dict(axes))


def _nnx(leaf: Any, names: tuple[str | None, ...]) -> Any:
    variable = nnx.Param(leaf)
    variable.set_metadata(out_sharding=names)  # set later: given at once, Flax shards the value and needs a mesh
    return variable


_BOXES: dict[str, Any] = {
    "linen": lambda leaf, names: nn.LogicallyPartitioned(leaf, names),
    "nnx": _nnx,
    "haliax": _haliax,
    "penzai": lambda leaf, names: PenzaiArray(leaf, dict(zip(names, leaf.shape, strict=True))),
}


def open_models() -> list[Model]:
    """Models that were seen while the rules were written; `maxtext.txt` is printed by `benchmarks/maxtext.py`."""
    return [model for name in ("open.txt", "maxtext.txt", "packages_open.txt") for model in _read(FOLDER / name)]


def held_back_models() -> list[Model]:
    """Models that were kept aside until the first numbers on them were written down."""
    return [model for name in ("held_back.txt", "packages_held_back.txt") for model in _read(FOLDER / name)]


def blind_models() -> list[Model]:
    """Models whose answers were written from their sources before any rule was run on them."""
    return [model for name in ("blind.txt", "packages_blind.txt") for model in _read(FOLDER / name)]


def is_held_back(name: str) -> bool:
    """Whether a recorded model is kept aside: decided by a hash of its name, before any rule is run on it."""
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % 3 == 0


def _read(file: Path) -> Iterator[Model]:
    for block in re.split(r"\n(?=\[)", file.read_text())[1:] if file.exists() else []:
        for model in read_models(block.splitlines()):
            yield dataclasses.replace(model, built=file.name not in ("open.txt", "held_back.txt", "blind.txt"))


def read_models(block: Iterable[str], first: bool = False) -> Iterator[Model]:
    """The variants of the model in a block; the first alone on demand."""
    header, *lines = [line for line in block if line.strip() and not line.startswith("#")]
    match = re.fullmatch(r"\[(.+)\] (\w+)( conventional)?", header)
    assert match, header
    name, framework, conventional = match[1], match[2], bool(match[3])
    fields = dict(line.split(": ", 1) for line in lines if re.match(r"(source|note): ", line))
    sizes = [line.removeprefix("sizes: ") for line in lines if line.startswith("sizes: ")]
    rows = [[cell.strip() for cell in line.split("|")] for line in lines if "|" in line]
    for number, row in enumerate(sizes[:1] if first else sizes):
        values = {key: int(value) for key, value in (pair.split("=") for pair in row.split())}
        parameters = tuple(parameter for row in rows for parameter in _parameters(row, values))
        label = name if number == 0 else f"{name}, sizes {number + 1}"
        yield Model(label, framework, conventional, fields["source"], parameters)


def _parameters(row: list[str], sizes: dict[str, int]) -> Iterator[Parameter]:
    path, shape, answer, *names = row
    axes = tuple(None if name == "None" else name for name in names[0].split()) if names else None
    lengths = tuple(int(eval(size, {"__builtins__": {}}, dict(sizes))) for size in shape.split())
    for expanded in _expand(path):
        yield Parameter(expanded, lengths, answer, axes)


def _expand(path: str) -> Iterator[str]:
    """`a_{0..1}/{q,k}` -> a_0/q, a_0/k, a_1/q, a_1/k."""
    pieces = re.split(r"\{([^}]*)\}", path)
    choices = []
    for i, piece in enumerate(pieces):
        span = re.fullmatch(r"(\d+)\.\.(\d+)", piece)
        if i % 2 == 0:
            choices.append([piece])
        elif span:
            choices.append([str(number) for number in range(int(span[1]), int(span[2]) + 1)])
        else:
            choices.append(piece.split(","))
    yield from ("".join(chosen) for chosen in itertools.product(*choices))
