"""An optimizer of a reader's own, as the laboratory takes it: found by its name, with the numbers that are tuned.

An entry is a function `(learning_rate, **hyperparameters) -> optax.GradientTransformation`. The laboratory gives it a
schedule as `learning_rate`, and numbers that are arguments of the compiled program. A function that needs plain numbers
is given those; then every setting is a program of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import math
import sys
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jax
import jax.numpy as jnp
import optax

from jaxopt_tour.problems.workloads import Workload
from jaxopt_tour.tour.laboratory.protocol import Entrant
from jaxopt_tour.tour.laboratory.runs import Rule
from jaxopt_tour.tour.laboratory.tuning import Axis, rate

Factory = Callable[..., optax.GradientTransformation]
Range = tuple[float, float]

#: Where a search for the rate begins; it goes as far as it has to.
FIRST_RATE: Final = 3e-3
#: Tuned beside the rate where nothing else is asked for: the first of these that the function has.
MOMENTA: Final = ("momentum", "beta", "b1")


@dataclass(frozen=True)
class Entry:
    """A function that makes an optimizer, and the ranges of what is tuned beside the rate."""

    name: str
    factory: Factory
    ranges: Mapping[str, Range]
    first_rate: float
    #: Changes with source and ranges, so that results of earlier ones are not taken for those of these.
    digest: str

    def entrant(self, workload: Workload) -> Entrant:
        """The rule with its grids, built in the way that works on this workload.

        Raises:
            ValueError: the function makes no optimizer for it; the message has the function's own error.
        """
        axes = (rate(self.first_rate), *(self._axis(name) for name in self.ranges))
        defaults = {axis.name: axis.start for axis in axes}
        build, static = _way_to_build(self, workload, defaults)
        return Entrant(Rule(f"{self.name}@{self.digest}", build, defaults, static), axes)

    def _axis(self, name: str) -> Axis:
        low, high = self.ranges[name]
        default = _arguments(self.factory)[name].default
        inside = isinstance(default, (int, float)) and low <= default <= high
        if 0.5 <= high < 1:  # a decay rate, on a grid of 1 - b
            return Axis(name, float(default) if inside else max(low, 0.5), 2.0, of_one_minus=True, ends=(low, high))
        return Axis(name, float(default) if inside else math.sqrt(low * high), 10**0.5, ends=(low, high))


def find_entry(where: str, tune: Iterable[str] = (), first_rate: float = FIRST_RATE) -> Entry:
    """The entry of a name such as `my_package.my_module:make_optimizer` or `folder/file.py:make_optimizer`.

    Args:
        where: module or file, a colon, and the function.
        tune: what is tuned beside the rate, each `name=low:high`. Arguments that are annotated
            `Annotated[float, (low, high)]` are tuned as well; if there is none of either, the momentum is.
        first_rate: where the search for the rate begins.

    Raises:
        ValueError: there is no such function, it has no such argument, or a range that is none.
    """
    factory = _function(where)
    arguments = _arguments(factory)
    if not arguments:
        raise ValueError(f"{where} must take a learning rate as its first argument; it takes no arguments")
    ranges = {**_annotated(factory), **dict(_range(text) for text in tune)}
    names = list(arguments)[1:]
    for name, (low, high) in ranges.items():
        if name not in names:
            raise ValueError(f"{where} has no argument {name!r} to tune; there are {', '.join(names) or 'none'}")
        if not 0 <= low < high or (low == 0 and not 0.5 <= high < 1):
            raise ValueError(f"the range of {name} must be low:high with 0 < low < high, got {low:g}:{high:g}")
    if not ranges:
        ranges = {name: (0.0, 0.999) for name in MOMENTA if name in names}
        ranges = dict(list(ranges.items())[:1])
    if not (math.isfinite(first_rate) and first_rate > 0):
        raise ValueError(f"the rate that the search begins with must be above 0, got {first_rate:g}")
    file = inspect.getsourcefile(inspect.unwrap(factory))
    source = Path(file).read_bytes() if file else where.encode()
    digest = hashlib.sha256(source + repr((sorted(ranges.items()), first_rate)).encode()).hexdigest()[:8]
    return Entry(where.partition(":")[2], factory, ranges, first_rate, digest)


def _function(where: str) -> Factory:
    place, _, name = where.partition(":")
    if not place or not name:
        raise ValueError(f"an entry is MODULE:FUNCTION or FILE.py:FUNCTION, got {where!r}")
    try:
        module = _module(place)
    except Exception as error:
        raise ValueError(f"{place} cannot be imported: {_in_a_line(error)}") from error
    function = getattr(module, name, None)
    if not callable(function):
        there = [each for each, value in vars(module).items() if callable(value) and not each.startswith("_")]
        raise ValueError(f"{place} has no function {name!r}; it has {', '.join(there[:12]) or 'none'}")
    return function


def _module(place: str) -> Any:
    if not place.endswith(".py"):
        sys.path.insert(0, str(Path.cwd()))
        try:
            return importlib.import_module(place)
        finally:
            sys.path.pop(0)
    spec = importlib.util.spec_from_file_location(f"_entered_{Path(place).stem}", place)
    assert spec is not None and spec.loader is not None  # the name ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and annotations look their module up
    spec.loader.exec_module(module)
    return module


def _arguments(factory: Factory) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(factory).parameters)


def _annotated(factory: Factory) -> dict[str, Range]:
    hints: dict[str, Any] = {}
    with contextlib.suppress(Exception):  # an annotation that cannot be evaluated has no range
        hints = typing.get_type_hints(factory, include_extras=True)
    return {
        name: (float(part[0]), float(part[1]))
        for name, hint in hints.items()
        for part in getattr(hint, "__metadata__", ())
        if isinstance(part, tuple) and len(part) == 2 and all(isinstance(end, (int, float)) for end in part)
    }


def _range(text: str) -> tuple[str, Range]:
    name, _, ends = text.partition("=")
    low, _, high = ends.partition(":")
    try:
        return name.strip(), (float(low), float(high))
    except ValueError:
        raise ValueError(f"what is tuned is name=low:high, such as b1=0.8:0.99; got {text!r}") from None


def _way_to_build(entry: Entry, workload: Workload, defaults: Mapping[str, float]) -> tuple[Any, tuple[str, ...]]:
    """How the function is called, and which of its numbers it wants as plain ones: the first way that can be traced."""
    others = tuple(name for name in defaults if name != "learning_rate")
    errors: list[Exception] = []
    for injected in (False, True):
        build = _injected(entry.factory) if injected else _direct(entry.factory)
        for static in ((), others) if others else ((),):
            try:
                _trace(build, workload, defaults, static)
            except Exception as error:  # whatever a stranger's function raises
                errors.append(error)
            else:
                return build, static
    raise ValueError(f"{entry.name} makes no optimizer for {workload.title}: {_in_a_line(errors[0])}") from errors[0]


def _direct(factory: Factory) -> Any:
    def build(schedule: optax.Schedule, numbers: Mapping[str, Any], workload: Workload) -> optax.GradientTransformation:
        return factory(schedule, **{name: value for name, value in numbers.items() if name != "learning_rate"})

    return build


def _injected(factory: Factory) -> Any:
    """For a function that takes the rate as a number: it is called again at every step, with that step's rate."""
    first = next(iter(_arguments(factory)))

    def build(schedule: optax.Schedule, numbers: Mapping[str, Any], workload: Workload) -> optax.GradientTransformation:
        others = {name: value for name, value in numbers.items() if name != "learning_rate"}
        return optax.inject_hyperparams(factory, static_args=tuple(others))(**{first: schedule}, **others)

    return build


def _trace(build: Any, workload: Workload, defaults: Mapping[str, float], static: tuple[str, ...]) -> None:
    """One update of the workload's parameters, traced."""
    fixed = {name: defaults[name] for name in static}

    def update(numbers: Mapping[str, Any], params: Any) -> Any:
        tx = build(lambda count: numbers["learning_rate"], {**numbers, **fixed}, workload)
        updates, state = tx.update(params, tx.init(params), params)
        return optax.apply_updates(params, updates), state

    numbers = {name: jnp.float32(value) for name, value in defaults.items() if name not in static}
    jax.eval_shape(update, numbers, jax.eval_shape(workload.init, jax.random.key(0)))


def _in_a_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"
