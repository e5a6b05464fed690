"""Fill a new state with the moments and counts of an old one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import jax.numpy as jnp
import numpy as np

from jaxopt_tour.state.changed_axes import Change
from jaxopt_tour.state.migration_report import Line, Outcome
from jaxopt_tour.state.moments import (
    ACCUMULATED,
    AVERAGE,
    FROM_PARAMETERS,
    OTHER_SIDE,
    ROTATED_SQUARES,
    SIDES,
    SQUARES,
    SQUARES_WITH_EPS,
    SUM,
    SUM_OF_SQUARES,
    SUMMED_SIDES,
    Holder,
    Moment,
    SavedMoments,
    Value,
)

#: Root mean square of an update of AdamW in training, 0.2 to 0.4: Liu et al. 2025, https://arxiv.org/abs/2502.16982,
#: section 2.2. An estimated second moment makes the first update this large.
_UPDATE_RMS: Final = 0.2

#: The forms that a moment can have beside the one that is wanted, the closest first.
_OTHER_FORMS: Final[Mapping[str, tuple[str, ...]]] = {
    AVERAGE: (SUM,),
    SUM: (AVERAGE,),
    SQUARES: (SQUARES_WITH_EPS, SUM_OF_SQUARES),
    SQUARES_WITH_EPS: (SQUARES, SUM_OF_SQUARES),
    SUM_OF_SQUARES: (SQUARES, SQUARES_WITH_EPS),
    **{average: (total,) for average, total in zip(SIDES[:2], SUMMED_SIDES[:2], strict=True)},
    **{total: (average,) for average, total in zip(SIDES[:2], SUMMED_SIDES[:2], strict=True)},
}
_AVERAGES_OF_SQUARES: Final = (SQUARES, SQUARES_WITH_EPS, *SIDES[:2])
#: Averages that are taken from the momentum, or from other parameters, where the old state has none.
_ESTIMATED: Final = (SQUARES, SQUARES_WITH_EPS, ROTATED_SQUARES)
_SUMS_OF_SQUARES: Final = (SUM_OF_SQUARES, *SUMMED_SIDES[:2])
#: States whose count is that of a schedule or of a start, not of their moments.
_COUNTS_STEPS: Final = ("HyperballState", "TailAverageState", "LookAheadState")
_KEEPS_ROOTS: Final = ("ShampooState", "ShampooSumState")
#: Fields of a state that mean something together alone: a count of norms and the norms, names and their values.
_TOGETHER: Final = {"SkipSpikesState": ("norms", "norm_count"), "MonitorState": ("keys", "values", "measured_at")}


class Filling:
    """The arrays of a new state, by the names that lead to them."""

    def __init__(
        self,
        old: SavedMoments,
        new: SavedMoments,
        parameters: Mapping[str, Any],
        beta: float | None,
        count: int | None,
        changes: Mapping[str, Change],
    ) -> None:
        self._old, self._new, self._parameters, self._beta, self._count = old, new, parameters, beta, count
        self._changes = changes
        self._by_parameter: dict[str, list[Moment]] = {}
        for moment in old.moments():
            self._by_parameter.setdefault(moment.parameter, []).append(moment)
        self._used: set[int] = set()  # identities of old moments
        self._arrays: dict[tuple[str, ...], Any] = {}
        self.lines: list[Line] = []

    def run(self) -> dict[tuple[str, ...], Any]:
        """Return the arrays that come from the old state, or are estimated from it, and say so in `lines`."""
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
                if holder.count_path is not None:
                    counts.append(self._steps(source))
                self._put(target, *self._converted(source, target), source)
        carried = [
            self._arrays[target.path]
            for target in holder.moments
            if target.kind in _ESTIMATED and target.path in self._arrays
        ]
        for target, why in missing:
            momentum = self._momentum(target.parameter)
            if target.kind in (*_ESTIMATED, SUM_OF_SQUARES) and momentum is not None:
                counts.append(self._steps(momentum))
                squares = np.float32(1 / _UPDATE_RMS**2) * jnp.mean(jnp.square(jnp.abs(self._as_average(momentum))))
                self._estimate(target, squares, counts[-1], f"from the momentum: {why}")
            elif target.kind in _ESTIMATED and carried:
                self._estimate(
                    target, jnp.mean(jnp.stack([jnp.mean(v) for v in carried])), 0, f"mean of other parameters: {why}"
                )
            elif target.kind != ACCUMULATED:  # of a small batch that has begun
                made = "; made from the parameters" if target.kind in FROM_PARAMETERS else ""
                self._say(target, "new", f"{why}{made}")
                if holder.kind in _KEEPS_ROOTS:  # a root of zeros is used until the count takes a new one
                    counts.append(0)
        if (holder.kind in _COUNTS_STEPS or not holder.moments) and not counts:
            counts.append(self._old_steps("/".join(holder.count_path or ())))
        if holder.count_path is not None and counts:
            self._arrays[holder.count_path] = jnp.asarray(min(counts), jnp.int32)

    def _source(self, target: Moment) -> tuple[Moment | None, str]:
        """The old moment for a new one, or the reason that there is none."""
        everything = self._by_parameter.get(target.parameter, [])
        candidates: list[Moment] = []
        wanted_kind = self._old_side(target)
        if wanted_kind is None:
            return None, "the old routes have other matrix axes for it"
        for kind in (wanted_kind, *_OTHER_FORMS.get(wanted_kind, ())):
            candidates = candidates or [moment for moment in everything if moment.kind == kind]
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

    def _old_side(self, target: Moment) -> str | None:
        """The kind of the old moment for a new one: that of the other side of the matrix where its axes are swapped.

        None where the axes have changed otherwise. Without old routes the shapes tell, if the matrix is not square.
        """
        other = OTHER_SIDE.get(target.kind)
        if other is None:
            return target.kind
        change = self._changes.get(target.parameter)
        if change is None:
            forms = {kind: (kind, *_OTHER_FORMS.get(kind, ())) for kind in (target.kind, other)}
            shapes = {moment.kind: np.shape(moment.array) for moment in self._by_parameter.get(target.parameter, [])}
            fits = [kind for kind in forms if any(shapes.get(form) == np.shape(target.array) for form in forms[kind])]
            change = "swapped" if fits == [other] else "none"
        return None if change == "other" else other if change == "swapped" else target.kind

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
        if source.kind in _AVERAGES_OF_SQUARES and target.kind in _SUMS_OF_SQUARES:
            return source.array * float(self._steps(source)), "times the steps"
        if source.kind in _SUMS_OF_SQUARES and target.kind in _AVERAGES_OF_SQUARES:
            return source.array / float(max(self._steps(source), 1)), "divided by the steps"
        if forms == (SQUARES_WITH_EPS, SQUARES):
            return source.array, "as it is: eps stays in it until the average forgets it"
        if forms == (SQUARES, SQUARES_WITH_EPS):
            return source.array, "as it is: eps enters it with the next steps"
        return source.array, ""

    def _put(self, target: Moment, array: Any, done: str, source: Moment) -> None:
        is_shared = id(source) in self._used and array is source.array
        self._used.add(id(source))
        dtype = np.dtype(target.array.dtype)
        old_dtype = np.dtype(source.array.dtype)
        if np.issubdtype(old_dtype, np.complexfloating) and not np.issubdtype(dtype, np.complexfloating):
            array = array.real
        words = [done] if done else []
        same_side = source.kind in (target.kind, *_OTHER_FORMS.get(target.kind, ()))
        words += [] if same_side else ["fan-in and fan-out have changed places"]
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
        field = target.place[-1] if target.place else ""
        source = self._old_value(target)
        if field in _TOGETHER.get(target.owner, ()):
            if not self._is_kept_together(target):
                return
        elif field == "count" and self._count is not None:
            source = None
        if source is not None:
            self._used.add(id(source))
            self._arrays[target.path] = jnp.asarray(source.value, target.value.dtype)
        elif field in ("count", "gradient_step"):
            self._arrays[target.path] = jnp.asarray(self._old_steps("/".join(target.path)), target.value.dtype)
        elif np.ndim(target.value):
            self.lines.append(Line("/".join(target.path), field, "new", "its meaning is not known"))

    def _old_value(self, target: Value) -> Value | None:
        """The old value at the same place of the same class, in the most similar surroundings."""
        fits = [
            value
            for value in self._old.values
            if np.shape(value.value) == np.shape(target.value)
            and (
                (value.path == target.path and value.owner in (target.owner, ""))
                or (value.owner == target.owner and value.place == target.place)
            )
        ]
        return max(fits, key=lambda value: _common_end(value.path, target.path), default=None)

    def _is_kept_together(self, target: Value) -> bool:
        """Whether the old state has all of the fields that belong together, and the same names of numbers."""
        around = target.path[: len(target.path) - len(target.place)]
        for value in self._new.values:
            if value.path[:-1] == around and value.place[-1] in _TOGETHER[target.owner]:
                old = self._old_value(value)
                if old is None or (value.place[-1] == "keys" and not np.array_equal(old.value, value.value)):
                    return False
        return True

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
            raise ValueError(f"count must be the steps so far: old_state does not count them ({what})")
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
            is_known = value.owner in _TOGETHER or value.path[-1:] == ("ns_coeffs",)
            if np.ndim(value.value) and id(value) not in self._used and not is_known:
                self.lines.append(Line("/".join(value.path), value.path[-1], "dropped", "its meaning is not known"))


def _common_end(first: tuple[str, ...], second: tuple[str, ...]) -> int:
    """How many of their last names two paths share."""
    pairs = list(zip(reversed(first), reversed(second), strict=False))
    return next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
