"""An abstract interpreter of jaxprs that records how each parameter is used, and runs nothing.

Every variable has a `Value`. It says whether the variable depends on the inputs, from which parameters it is computed
(`Lineage`), and which contractions reach it with no other contraction with a parameter in between.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from jaxopt_tour.routing.by_use import lineage as ln
from jaxopt_tour.routing.by_use.lineage import FILLER, Group, Lineage, Side

#: The place of an equation in a program: its index, after those of the equations that call it.
Key = tuple[int, ...]
Operation = Literal["contract", "gather", "add", "scale", "data", "not understood"]
_NONE: frozenset[int] = frozenset()


@dataclasses.dataclass(frozen=True)
class Value:
    """What the interpreter knows about a variable.

    Args:
        active: whether it depends on the example inputs.
        reach: the contractions with parameters that lead to it through elementwise operations, reductions and products
            of activations only.
        origins: the parameters from which it is computed. In an active value: parameters looked up by the inputs.
        tracks: which of its dimensions are the fan-out of which parameters, for an activation.
        onehot: whether it is a comparison of the inputs with 0, 1, 2, ...; contracting it is a lookup.
        counter: whether it is a constant 0, 1, 2, ...
    """

    active: bool = False
    reach: frozenset[int] = _NONE
    origins: tuple[Lineage, ...] = ()
    tracks: tuple[Lineage, ...] = ()
    onehot: bool = False
    counter: bool = False

    @property
    def is_weight(self) -> bool:
        """Whether it is computed from parameters and constants only."""
        return bool(self.origins) and not self.active

    def map(self, function: Callable[[Lineage], Lineage | None]) -> Value:
        """The value with `function` applied to its lineages; None drops one."""
        origins = (function(origin) if not origin.opaque else origin for origin in self.origins)
        tracks = (function(track) for track in self.tracks)
        return dataclasses.replace(
            self, origins=tuple(x for x in origins if x is not None), tracks=tuple(x for x in tracks if x is not None)
        )


CONSTANT = Value()


@dataclasses.dataclass(frozen=True)
class Use:
    """One use of one parameter.

    Args:
        op: "contract", "gather", "add", "scale" (any other elementwise use), "data" (a learned input) or
            "not understood".
        primitive: name of the operation.
        lineage: lineage of the operand.
        sides: for a contraction, the atoms by side: "in", "out", "batch", and "?" where the side is undecided.
        node: number of the contraction.
        outer: whether the activation is constant along one of the parameter's axes in an elementwise product, which is
            an outer product.
        matched: whether the parameter is added along dimensions that are fan-out of other parameters, as a bias is.
        depthwise: whether this is a convolution with one input channel per group.
        note: why the operation is not understood, where it is not for want of a rule.
    """

    op: Operation
    primitive: str
    lineage: Lineage
    sides: dict[Side, Group] = dataclasses.field(default_factory=dict)
    node: int | None = None
    outer: bool = False
    matched: bool = False
    depthwise: bool = False
    note: str = ""

    @property
    def place(self) -> tuple[int, int]:
        """The contraction and the parameter."""
        return (-1 if self.node is None else self.node, self.lineage.param)


class Heads(NamedTuple):
    """Attention in which the result of a contraction, or the input of one, takes part.

    Args:
        outer: the atoms that number the heads. Empty for the input of a contraction.
        inner: the atoms of one head.
        removed: atoms that were removed from the result before: the index of a part, such as query or key.
        fan_in: whether this is the input of a contraction.
    """

    outer: Group
    inner: Group
    removed: Group = ()
    fan_in: bool = False


@dataclasses.dataclass
class Record:
    """All uses of parameters, the graph of contractions, and what happens to the results of contractions.

    Results are cut into parts, joined again, stacked, and used as heads of attention.
    """

    uses: dict[tuple[Any, ...], Use] = dataclasses.field(default_factory=dict)
    inputs: dict[int, frozenset[int]] = dataclasses.field(default_factory=dict)
    cuts: dict[tuple[int, int], frozenset[ln.Part]] = dataclasses.field(default_factory=dict)
    stacked: dict[tuple[int, int], frozenset[int]] = dataclasses.field(default_factory=dict)
    rejoined: dict[tuple[int, int], frozenset[ln.Part]] = dataclasses.field(default_factory=dict)
    heads: dict[tuple[int, int], frozenset[Heads]] = dataclasses.field(default_factory=dict)

    def copy(self) -> Record:
        """A shallow copy, which later records do not change."""
        fields = (getattr(self, field.name) for field in dataclasses.fields(self))
        return Record(*(dict(field) for field in fields))


@dataclasses.dataclass(frozen=True)
class Ref(Value):
    """A reference inside a kernel: what it holds is read and written in place."""

    cell: list[Value] = dataclasses.field(default_factory=list)


class UnsupportedKernelError(Exception):
    """A kernel does something with a reference that cannot be followed."""


class Walker:
    """Interprets a jaxpr and fills `record`.

    Args:
        rules: `rules(walker, eqn, values, key)` gives the values of an equation's outputs.
    """

    def __init__(self, rules: Callable[[Walker, Any, list[Value], Key], Sequence[Value]]) -> None:
        self.record = Record()
        self.registered: set[str] = set()  # the kernels in place of which a user's function is interpreted
        self._rules = rules
        self._numbers: dict[Key, int] = {}

    def fresh(self) -> Walker:
        """An interpreter with the same rules and an empty record."""
        return Walker(self._rules)

    # Recording

    def number(self, key: Key) -> int:
        """A stable number for a place in the program."""
        return self._numbers.setdefault(key, len(self._numbers))

    def use(self, key: Key, use: Use) -> None:
        """Record a use; one equation may use several parameters, and a parameter in several ways."""
        self.record.uses[(key, use.op, use.lineage)] = use

    def contraction(self, key: Key, inputs: Iterable[Value]) -> int:
        """A node of the graph of contractions, fed by `inputs`."""
        node = self.number(key)
        self.record.inputs[node] = self.record.inputs.get(node, _NONE) | union(inputs)
        return node

    def stack(self, track: Lineage, dims: Iterable[int], summed: bool = False) -> None:
        """Record dimensions of a contraction's result that are a batch for the next parameter, or are summed over.

        A sum of experts leaves their features, which are later axes of the parameter. The product of queries and keys
        and the norm of an activation sum over the last axes: these are no stack.
        """
        dims = frozenset(dims)
        left = track.atoms(dim for dim in range(len(track.dims)) if dim not in dims)
        innermost = max((atom.axis for atom in left if atom.size > 1), default=-1)
        axes = frozenset(
            atom.axis
            for atom in track.atoms(dims)
            if (atom.size == track.shape[atom.axis] or atom.axis in track.sharded)
            and not (summed and atom.axis > innermost)
        )
        if axes and track.node is not None and not track.head_dims:
            place = (track.node, track.param)
            self.record.stacked[place] = self.record.stacked.get(place, frozenset()) | axes

    def cut(self, value: Value) -> Value:
        """Record the slices taken of results of contractions, and return the value."""
        for track in value.tracks:
            if track.parts and track.node is not None and not track.head_dims:
                place = (track.node, track.param)
                self.record.cuts[place] = self.record.cuts.get(place, frozenset()) | track.parts
        return value

    def heads(self, place: tuple[int, int], heads: Heads) -> None:
        """Record heads of attention in the result or the input of a contraction."""
        self.record.heads[place] = self.record.heads.get(place, frozenset()) | {heads}

    # Interpreting

    def run(self, jaxpr: Any, arguments: Sequence[Value], path: Key = ()) -> list[Value]:
        """The values of a jaxpr's outputs."""
        constants = getattr(jaxpr, "consts", ())
        jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
        env: dict[Any, Value] = dict(zip(jaxpr.invars, arguments, strict=True))
        for variable, constant in zip(jaxpr.constvars, constants, strict=False):
            counter = getattr(constant, "ndim", 0) > 0 and getattr(constant, "dtype", None) is not None
            env[variable] = Value(counter=bool(counter and constant.dtype.kind in "iu"))

        def read(atom: Any) -> Value:
            return CONSTANT if hasattr(atom, "val") else env.get(atom, CONSTANT)

        for index, eqn in enumerate(jaxpr.eqns):
            outputs = self._rules(self, eqn, [read(atom) for atom in eqn.invars], (*path, index))
            env.update(zip(eqn.outvars, outputs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def scan(self, eqn: Any, values: Sequence[Value], key: Key) -> list[Value]:
        """Interpret `scan`: stacked parameters lose their leading axis, the carry is iterated to a fixed point."""
        constants, carries = _scan_counts(eqn)
        fixed, initial, stacks = (
            list(values[:constants]),
            list(values[constants : constants + carries]),
            [value.map(lambda x: ln.squeeze(x, [0], "scan")) for value in values[constants + carries :]],
        )

        def body(carry: list[Value]) -> list[Value]:
            return self.run(eqn.params["jaxpr"], [*fixed, *carry, *stacks], key)

        outputs = self._fixpoint(body, initial, key)
        length = eqn.params["length"]
        return outputs[:carries] + [value.map(lambda x: _restack(x, length)) for value in outputs[carries:]]

    def loop(self, eqn: Any, values: Sequence[Value], key: Key) -> list[Value]:
        """Interpret `while`."""
        in_condition, in_body = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
        condition, fixed = values[:in_condition], values[in_condition : in_condition + in_body]

        def body(carry: list[Value]) -> list[Value]:
            self.run(eqn.params["cond_jaxpr"], [*condition, *carry], (*key, 0))
            return self.run(eqn.params["body_jaxpr"], [*fixed, *carry], (*key, 1))

        return self._fixpoint(body, list(values[in_condition + in_body :]), key)

    def branches(self, eqn: Any, values: Sequence[Value], key: Key) -> list[Value]:
        """Interpret `cond`: the outputs are joined over all branches."""
        results = [
            self.run(branch, list(values[1:]), (*key, index)) for index, branch in enumerate(eqn.params["branches"])
        ]
        outputs = []
        for options in zip(*results, strict=True):
            value = options[0]
            for option in options[1:]:
                value = self.join(value, option, key, record=True)
            active = value.active or values[0].active
            outputs.append(dataclasses.replace(value, active=active, reach=value.reach | values[0].reach))
        return outputs

    def _fixpoint(self, body: Callable[[list[Value]], list[Value]], carry: list[Value], key: Key) -> list[Value]:
        """Outputs of `body` for a carry that it no longer changes; only the last iteration is recorded."""
        before, initial = self.record.copy(), carry
        for attempt in range(12):
            outputs = body(carry)
            merged = [self.join(old, new, key) for old, new in zip(carry, outputs[: len(carry)], strict=True)]
            if attempt > 8:
                # The lineage of a parameter changes with every iteration: stop following it.
                merged = [value.map(lambda x: x.blurred("loop") if x.node is None else None) for value in merged]
            if merged == carry:
                break
            carry, self.record = merged, before.copy()
        for old, new in zip(initial, carry, strict=True):
            self.join(old, new, key, record=True)
        return carry + outputs[len(carry) :]

    def join(self, left: Value, right: Value, key: Key, record: bool = False) -> Value:
        """The value of a variable that has either value; a parameter joined with an activation is a learned input."""
        active = left.active or right.active
        if active and record:
            for value in (left, right):
                for origin in value.origins if value.is_weight else ():
                    self.use(key, Use("data", "loop or branch", origin))
        origins = [x for value in (left, right) if value.active == active for x in value.origins]
        return Value(
            active,
            left.reach | right.reach,
            tuple(dict.fromkeys(origins)),
            merge_tracks([*left.tracks, *right.tracks]),
            left.onehot and right.onehot,
            left.counter and right.counter,
        )


def _scan_counts(eqn: Any) -> tuple[int, int]:
    """The numbers of constants and of carried values among a scan's inputs."""
    if "ft_in" not in eqn.params:
        return eqn.params["num_consts"], eqn.params["num_carry"]
    constants, carry, _ = eqn.params["ft_in"].unpack()  # JAX after 0.11
    return len(constants), len(carry)


def union(values: Iterable[Value]) -> frozenset[int]:
    """All contractions that reach any of the values."""
    result = _NONE
    for value in values:
        if value.reach and value.reach is not result:
            result = result | value.reach
    return result


def merge_tracks(tracks: Iterable[Lineage]) -> tuple[Lineage, ...]:
    """Tracks without repetition; only the last eight, which suffice for a long residual sum."""
    return tuple(dict.fromkeys(tracks))[-8:]


def _restack(lineage: Lineage, length: int) -> Lineage:
    """Stack the results of a scan in a leading dimension; a parameter that the scan took apart gets its axis back."""
    for index, (how, atom) in reversed(list(enumerate(lineage.removed))):
        if how == "scan" and atom.size == length:
            removed = lineage.removed[:index] + lineage.removed[index + 1 :]
            return lineage.replace(dims=((atom,), *lineage.dims), removed=removed)
    return lineage.replace(dims=(ln.filler(length), *lineage.dims))


def varying_dims(lineage: Lineage) -> Iterator[int]:
    """The dimensions in which the parameter itself varies."""
    for dim, group in enumerate(lineage.dims):
        if any(atom.axis != FILLER and atom.size > 1 for atom in group):
            yield dim


def merge_values(values: Sequence[Value], active: bool) -> Value:
    """The result of an operation on aligned values, with the lineages of those that are as active as the result."""
    origins = [origin for value in values if value.active == active for origin in value.origins]
    tracks = [track for value in values for track in value.tracks]
    return Value(active, union(values), tuple(dict.fromkeys(origins)), merge_tracks(tracks))


def without_rule(walker: Walker, eqn: Any, values: Sequence[Value], key: Key, note: str = "") -> list[Value]:
    """Interpret an operation that has no rule: parameters that meet an activation in it are not understood."""
    name = eqn.primitive.name
    if any(isinstance(value, Ref) for value in values):
        raise UnsupportedKernelError(name)
    parameters = [origin for value in values if value.is_weight for origin in value.origins]
    if any(value.active for value in values):
        for origin in parameters:
            walker.use(key, Use("not understood", name, origin, note=note))
        result = Value(True, union(values))
    else:
        origins = tuple(dict.fromkeys(origin.blurred(name) for origin in parameters))
        result = Value(reach=union(values), origins=origins)
    return [result] * len(eqn.outvars)
