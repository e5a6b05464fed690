"""Go on with the state of another optimizer, another routing, another version or another library."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding

from jaxopt_tour._checks import check_choice, check_decay_rate, check_integer
from jaxopt_tour._trees import is_box, named_leaves, path_name, rebox, unbox
from jaxopt_tour._types import Tree
from jaxopt_tour.mesh.sharded_state import sharded_state
from jaxopt_tour.routing.log import LOGGER
from jaxopt_tour.state.migration_report import Line, MigrationReport, Outcome
from jaxopt_tour.state.moments import (
    ACCUMULATED,
    AVERAGE,
    ROTATED_SQUARES,
    SQUARES,
    SUM,
    SUM_OF_SQUARES,
    Holder,
    Moment,
    OldState,
    SavedMoments,
    Value,
)
from jaxopt_tour.state.read_state import read_state

#: Root mean square of an update of AdamW in training, 0.2 to 0.4: Liu et al. 2025, https://arxiv.org/abs/2502.16982,
#: section 2.2. An estimated second moment makes the first update this large.
_UPDATE_RMS: Final = 0.2


@dataclasses.dataclass(frozen=True)
class Migration:
    """A state of the new optimizer, and what became of the old one.

    Args:
        state: the state to go on with; its arrays may share memory with the old state's.
        report: what was kept and what was not; `print` it.
    """

    state: Any
    report: MigrationReport


def migrate_state(
    old_state: OldState,
    tx: optax.GradientTransformation,
    params: Tree,
    *,
    beta: float | None = None,
    trace: Literal["sum", "average"] = "sum",
    count: int | None = None,
) -> Migration:
    r"""Return a state of `tx` with every moment of another state whose meaning is the same.

    ```python
    migration = jt.migrate_state(old_state, tx, params)
    print(migration.report)
    updates, state = tx.update(grads, migration.state, params)
    ```

    A moment goes to the same parameter, by path name, and to the field with the same meaning, whatever wraps it:

    | old | new | value |
    |---|---|---|
    | average of g (Adam, Muon, Lion, `form="ema"`) | the same | unchanged |
    | sum of g (`optax.trace`, `form="sum"`) | average of g | $(1 - \beta) m$ |
    | average of g | sum of g | $m / (1 - \beta)$ |
    | average of g^2 | the same | unchanged |
    | average of g^2 | sum of g^2 (Adagrad) | $t v$ |
    | sum of g^2 | average of g^2 | $r / t$ |
    | any other (Shampoo's preconditioners, SOAP's bases, LaProp's ratios) | the same | unchanged |

    A second moment that the old state lacks, as Muon's does, would start at zero and let the first updates explode,
    since the bias correction ends with the count. It is estimated so that the first update, along m, has a root mean
    square of 0.2: $v = \text{mean}(m^2) / 0.04$. A parameter without any moment gets the mean of the others' v.

    Counts, and with them schedules and bias corrections, go on. A transformation none of whose moments comes from the
    old state counts from 0. Hyperparameters that `optax.inject_hyperparams` keeps are those of `tx`.

    A new array has the sharding of its parameter; where parameters are on no mesh, that of the old array.

    Args:
        old_state: the state of any optimizer of this library or of Optax; also as dictionaries, which Orbax restores
            without a target; or what `moments_from_torch` returns. Dictionaries lose the classes:
            fields count, mu and nu are then read as Adam's.
        tx: the optimizer to go on with.
        params: the parameters, as for `tx.init`.
        beta: decay rate of the momentum that is a sum, in the old state or in the new one. Required where a sum becomes
            an average or an average a sum.
        trace: what a field named `trace` holds. `"average"` for states of `jt.muon` and `jt.shampoo` that were
            saved before 0.1.
        count: the steps so far. Required where the old state does not count them, as that of `optax.sgd` at a
            constant rate.

    Returns:
        A `Migration`: the state and the report. A line in the log says how many moments are new or dropped.

    Raises:
        ValueError: `beta` or `count` is required and not given; a moment from PyTorch has not the shape of its
            parameter. The message names the parameter.

    Source:
        The size of AdamW's updates: Liu et al. 2025, https://arxiv.org/abs/2502.16982, section 2.2.
    """
    if beta is not None:
        check_decay_rate("beta", beta)
    check_choice("trace", trace, ("sum", "average"))
    if count is not None:
        check_integer("count", count, 0)
    parameters = named_leaves(params)
    old = old_state if isinstance(old_state, SavedMoments) else read_state(old_state, parameters)
    if trace == "average":
        old = _traces_as_averages(old)
    new_state = sharded_state(tx).init(params)
    filling = _Filling(old, read_state(new_state, parameters), parameters, beta, count)
    arrays = filling.run()

    def replaced(path: tuple[Any, ...], leaf: Any) -> Any:
        names = tuple(path_name((key,)) for key in path)
        return rebox(leaf, _placed(arrays[names], unbox(leaf))) if names in arrays else leaf

    state = jax.tree_util.tree_map_with_path(replaced, new_state, is_leaf=is_box)
    report = MigrationReport(tuple(filling.lines))
    (LOGGER.info if report.is_complete else LOGGER.warning)("migrated optimizer state: %s", report.totals)
    return Migration(state, report)


def _traces_as_averages(old: SavedMoments) -> SavedMoments:
    def renamed(moment: Moment) -> Moment:
        return (
            dataclasses.replace(moment, kind=moment.kind.replace(SUM, AVERAGE)) if moment.field == "trace" else moment
        )

    holders = [dataclasses.replace(holder, moments=tuple(map(renamed, holder.moments))) for holder in old.holders]
    return dataclasses.replace(old, holders=tuple(holders))


class _Filling:
    """The arrays of a new state, by the names that lead to them."""

    def __init__(
        self,
        old: SavedMoments,
        new: SavedMoments,
        parameters: Mapping[str, Any],
        beta: float | None,
        count: int | None,
    ) -> None:
        self._old, self._new, self._parameters, self._beta, self._count = old, new, parameters, beta, count
        self._by_parameter: dict[str, list[Moment]] = {}
        for moment in old.moments():
            self._by_parameter.setdefault(moment.parameter, []).append(moment)
        self._used: set[int] = set()  # identities of old moments
        self._arrays: dict[tuple[str, ...], Any] = {}
        self.lines: list[Line] = []

    def run(self) -> dict[tuple[str, ...], Any]:
        for holder in self._new.holders:
            self._fill_holder(holder)
        for value in self._new.values:
            self._fill_value(value)
        self._say_what_is_dropped()
        return self._arrays

    def _fill_holder(self, holder: Holder) -> None:
        counts: list[int] = []
        missing: list[tuple[Moment, str]] = []
        bases = [target for target in holder.moments if target.field in ("left_basis", "right_basis")]
        turned = {target.parameter for target in bases if self._source(target)[0] is None}
        for target in holder.moments:
            source, why = self._source(target)
            if target.kind == ROTATED_SQUARES and target.parameter in turned and source is not None:
                source, why = None, "its bases are others"
            if source is None:
                missing.append((target, why))
            else:
                counts.append(self._steps(source))
                self._put(target, *self._converted(source, target), source)
        carried = [
            self._arrays[target.path]
            for target in holder.moments
            if target.kind in (SQUARES, ROTATED_SQUARES) and target.path in self._arrays
        ]
        for target, why in missing:
            momentum = self._momentum(target.parameter)
            if target.kind in (SQUARES, SUM_OF_SQUARES, ROTATED_SQUARES) and momentum is not None:
                counts.append(self._steps(momentum))
                squares = np.float32(1 / _UPDATE_RMS**2) * jnp.mean(jnp.square(jnp.abs(self._as_average(momentum))))
                self._estimate(target, squares, counts[-1], f"from the momentum: {why}")
            elif target.kind in (SQUARES, ROTATED_SQUARES) and carried:
                self._estimate(
                    target, jnp.mean(jnp.stack([jnp.mean(v) for v in carried])), 0, f"mean of other parameters: {why}"
                )
            elif target.kind != ACCUMULATED:  # of a small batch that has begun
                self._say(target, "new", why)
                if holder.kind == "ShampooState":  # a root of zeros is used until the count takes a new one
                    counts.append(0)
        if holder.count_path is not None and counts:
            self._arrays[holder.count_path] = jnp.asarray(min(counts), jnp.int32)

    def _source(self, target: Moment) -> tuple[Moment | None, str]:
        """The old moment for a new one, or the reason that there is none."""
        everything = self._by_parameter.get(target.parameter, [])
        same = [moment for moment in everything if moment.kind == target.kind]
        other_form = {AVERAGE: SUM, SUM: AVERAGE, SQUARES: SUM_OF_SQUARES, SUM_OF_SQUARES: SQUARES}.get(target.kind)
        candidates = same or [moment for moment in everything if moment.kind == other_form]
        if not candidates:
            known = ", ".join(dict.fromkeys(moment.kind for moment in everything))
            return None, f"the old state has no {target.kind}" + (f", only {known}" if known else "")
        source = max(candidates, key=lambda moment: _common_end(moment.place, target.place))
        if np.shape(source.array) != np.shape(target.array):
            found, wanted = np.shape(source.array), np.shape(target.array)
            if self._old.must_fit:
                way_out = "; name it in transpose" if found == wanted[::-1] else ""
                raise ValueError(
                    f"{source.field} of {target.parameter!r} has shape {found}, and the parameter {wanted}{way_out}"
                )
            return None, f"the old {source.field} has shape {found}, expected {wanted}"
        return source, ""

    def _momentum(self, parameter: str) -> Moment | None:
        """The first moment of a parameter in the old state, if it has the parameter's shape."""
        shape = np.shape(self._parameters[parameter])
        fits = [m for m in self._by_parameter.get(parameter, []) if np.shape(m.array) == shape]
        return next((m for kind in (AVERAGE, SUM) for m in fits if m.kind == kind), None)

    def _as_average(self, momentum: Moment) -> Any:
        return momentum.array * self._one_minus_beta(momentum) if momentum.kind == SUM else momentum.array

    def _one_minus_beta(self, moment: Moment) -> float:
        if self._beta is None:
            raise ValueError(
                f"beta must be the decay rate of the momentum that is a sum: that of {moment.parameter!r} is a "
                f"{moment.kind} in the old state, and the new optimizer needs it in the other form"
            )
        return 1.0 - self._beta

    def _converted(self, source: Moment, target: Moment) -> tuple[Any, str]:
        """The array in the form of the new moment, and what was done to it."""
        forms = source.kind, target.kind
        if forms == (SUM, AVERAGE):
            return source.array * self._one_minus_beta(source), "times 1 - beta"
        if forms == (AVERAGE, SUM):
            return source.array / self._one_minus_beta(source), "divided by 1 - beta"
        if forms == (SQUARES, SUM_OF_SQUARES):
            return source.array * float(self._steps(source)), "times the steps"
        if forms == (SUM_OF_SQUARES, SQUARES):
            return source.array / float(max(self._steps(source), 1)), "divided by the steps"
        return source.array, ""

    def _put(self, target: Moment, array: Any, done: str, source: Moment) -> None:
        is_shared = id(source) in self._used and not done
        self._used.add(id(source))
        dtype = np.dtype(target.array.dtype)
        old_dtype = np.dtype(source.array.dtype)
        if np.issubdtype(old_dtype, np.complexfloating) and not np.issubdtype(dtype, np.complexfloating):
            array = array.real
        words = [done] if done else []
        words += [] if old_dtype == dtype else [f"{old_dtype} to {dtype}"]
        array = array.astype(dtype)
        self._arrays[target.path] = jnp.copy(array) if is_shared else array  # a state is donated, each buffer once
        self._say(target, "converted" if done else "kept", "; ".join([f"from {'/'.join(source.place)}", *words]))

    def _estimate(self, target: Moment, squares: Any, steps: int, why: str) -> None:
        value = squares * steps if target.kind == SUM_OF_SQUARES else squares
        array = np.full(np.shape(target.array), np.asarray(value, np.float32), np.float32)
        self._arrays[target.path] = array.astype(target.array.dtype)
        self._say(target, "estimated", why)

    def _fill_value(self, target: Value) -> None:
        """Counts go on; other values are kept where the same class has them."""
        if "hyperparams" in target.path:
            return
        old = self._old.values
        same = [value for value in old if value.path == target.path and value.owner in (target.owner, "")]
        same += [value for value in old if value.owner == target.owner and value.path[-1:] == target.path[-1:]]
        fits = [value for value in same if np.shape(value.value) == np.shape(target.value)]
        if fits and (self._count is None or target.path[-1] != "count"):
            self._arrays[target.path] = jnp.asarray(fits[0].value, target.value.dtype)
        elif target.path[-1:] in (("count",), ("gradient_step",)):
            self._arrays[target.path] = jnp.asarray(self._old_steps("/".join(target.path)), target.value.dtype)
        elif np.ndim(target.value):
            self.lines.append(Line("/".join(target.path), target.path[-1], "new", "its meaning is not known"))

    def _steps(self, moment: Moment) -> int:
        """The steps that a moment has seen."""
        if self._count is not None:
            return self._count
        return self._old_steps(moment.parameter) if moment.count is None else int(moment.count)

    def _old_steps(self, what: str) -> int:
        """The steps of the old run."""
        counts = [moment.count for moment in self._old.moments() if moment.count is not None]
        counts += [v.value for v in self._old.values if v.path[-1:] in (("count",), ("gradient_step",))]
        if self._count is None and not counts:
            raise ValueError(f"count must be the steps so far: the old state does not count them ({what})")
        return max(map(int, counts)) if self._count is None else self._count

    def _say(self, target: Moment, outcome: Outcome, why: str) -> None:
        self.lines.append(Line(target.parameter, target.field, outcome, why))

    def _say_what_is_dropped(self) -> None:
        for moment in self._old.moments():
            if id(moment) not in self._used:
                known = moment.parameter in self._parameters
                why = f"the new optimizer has no {moment.kind} for it" if known else "no parameter has this name"
                self._say(moment, "dropped", why)
        for value in self._old.values:
            if np.ndim(value.value) and value.path not in self._arrays and value.path[-1] != "ns_coeffs":
                self.lines.append(Line("/".join(value.path), value.path[-1], "dropped", "its meaning is not known"))


def _common_end(first: tuple[str, ...], second: tuple[str, ...]) -> int:
    """How many of their last names two paths share."""
    pairs = list(zip(reversed(first), reversed(second), strict=False))
    return next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))


def _placed(array: Any, like: Any) -> Any:
    """The array as sharded as `like`; as it is where that is on no mesh."""
    sharding = getattr(like, "sharding", None)
    return jax.device_put(array, sharding) if isinstance(sharding, NamedSharding) else jnp.asarray(array)
