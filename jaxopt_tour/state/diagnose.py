"""Sentences about metrics that a person would want to be told."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from jaxopt_tour._checks import check_mapping, check_nonnegative
from jaxopt_tour.routing import ROLES

#: From this share of vanished entries on, most entries with an update stand still.
VANISHED: Final = 0.5
#: At one learning rate, entries of AdamW move by the rate in the first step, and Muon's by 0.2 of it; after some steps
#: AdamW's move by 0.2 to 0.4 of the rate (https://arxiv.org/abs/2502.16982, section 2.2). A factor of 5 comes from
#: rates that do not fit each other.
FACTOR: Final = 5.0
#: So many updates make up most of AdamW's second moment at b2 = 0.95; before, its steps are those of the start.
SETTLED: Final = 20
#: Where the plan is not known, as that of `optax.contrib.muon`: beyond the 0.2 to 0.3 that Keller Jordan's coefficients
#: leave by design (docs/accuracy.md), and what a matrix has if more than a quarter of its directions get no update.
POLAR_ERROR: Final = 0.3
_VANISHED: Final = (
    "the update of {} vanishes in rounding: {:.0%} of the entries that it should move stay. Wrap the optimizer in "
    "jt.with_master_weights or jt.with_stochastic_rounding"
)
_POLAR_ERROR: Final = (
    "the orthogonalized update of {} has unequal singular values: polar error {:.2f}, above BOUND. Its momentum has a "
    'low rank, or more steps are needed, such as jt.Orthogonalizer("polar_express", steps=8)'
)
#: How many parameters a sentence names.
_NAMED: Final = 3


def diagnose(metrics: Mapping[str, Any], *, polar_error: float | None = None) -> list[str]:
    r"""Return a sentence for everything in the metrics that deserves attention; none if nothing does.

    | sentence about | threshold | why |
    |---|---|---|
    | numbers that are not finite | any | the measured step had an infinite or NaN gradient, update or weight |
    | skipped steps | the last step was | `optax.apply_if_finite` rejects updates in a row |
    | vanished updates | half of a parameter's entries with an update | rounding takes most of the step |
    | a dead layer | the gradient is exactly zero | nothing that the parameter does reaches the loss |
    | the polar error | above the plan's bound | coefficients leave less, even without a quarter of the directions |
    | AdamW's part against Muon's | update RMS 5 times the matrices', from update 21 on | one rate explains less |

    The first measurement is of the first step. Zero gradients are normal there for layers behind weights that are
    initialized at zero, and momenta of low rank leave large polar errors: diagnose a few measurements before acting.

    Args:
        metrics: What `jt.metrics` returns, or any dictionary with its keys.
        polar_error: The largest accepted polar error, a number of at least 0. Default None: the metrics'
            `"polar_error_bound"`, $\tfrac12 \sqrt{(1 + 4 e^2) / 0.75 - 1}$ for coefficients that end within e of 1 on
            [0.01, 1], with 0.02 more in half precision: 0.29 for the default ones, 0.47 for Keller Jordan's. Without
            that key, 0.3. For matrices of full rank, e itself is a bound:
            `jt.coefficients.polar_express().worst_error(1e-2)`.

    Returns:
        Sentences; the first names of parameters are in them.

    Raises:
        ValueError: A value is no number, such as a batch of numbers from `vmap`; or `polar_error` is out of range.
    """
    if polar_error is not None:
        check_nonnegative("polar_error", polar_error)
    check_mapping("metrics", metrics, "from names to numbers")
    if not all(isinstance(key, str) for key in metrics):
        raise ValueError(f"metrics must have names as keys, got {metrics!r}")
    values = {key: _as_number(key, value) for key, value in metrics.items()}
    bound = values.get("polar_error_bound", POLAR_ERROR) if polar_error is None else polar_error
    if values.get("measured_at") == 0:
        return []
    return [
        *_not_finite(values),
        *_skipped(values),
        *_above(values, "vanished", VANISHED, _VANISHED),
        *_dead(values),
        *_above(values, "polar_error", bound, _POLAR_ERROR.replace("BOUND", f"the {bound:.2f} that its plan explains")),
        *_unequal(values),
    ]


def _as_number(key: str, value: Any) -> float:
    try:
        if np.ndim(value) == 0:
            return float(value)
    except (TypeError, ValueError):
        pass
    raise ValueError(f"metrics must have a number for {key!r}, got {value!r}; give those of one optimizer of a batch")


def _of_parameters(values: Mapping[str, float], metric: str) -> dict[str, float]:
    """The values of a metric by path name."""
    return {key.removeprefix(metric + "/"): value for key, value in values.items() if key.startswith(metric + "/")}


def _listed(names: list[str]) -> str:
    more = f", and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(repr, names[:_NAMED])) + more


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _above(values: Mapping[str, float], metric: str, bound: float, text: str) -> list[str]:
    """One sentence with the parameters above the bound, the largest first, and the largest value."""
    high = {name: value for name, value in _of_parameters(values, metric).items() if value > bound}
    names = sorted(high, key=lambda name: -high[name])
    return [_sentence(text.format(_listed(names), high[names[0]]))] if names else []


def _not_finite(values: Mapping[str, float]) -> list[str]:
    names = [key for key, value in values.items() if not math.isfinite(value)]
    return [_sentence(f"the measured step has numbers that are not finite: {_listed(names)}")] if names else []


def _skipped(values: Mapping[str, float]) -> list[str]:
    in_a_row, total = values.get("steps_skipped_in_a_row", 0), values.get("steps_skipped", 0)
    if not in_a_row:
        return []
    return [
        _sentence(f"the last {in_a_row:.0f} steps were skipped for updates that are not finite, {total:.0f} in all")
    ]


def _dead(values: Mapping[str, float]) -> list[str]:
    gradients = _of_parameters(values, "gradient_norm")
    names = [name for name, value in gradients.items() if value == 0]
    if names and len(names) == len(gradients):
        return ["All gradients are zero."]
    return [_sentence(f"the gradient of {_listed(names)} is zero")] if names else []


def _unequal(values: Mapping[str, float]) -> list[str]:
    """About roles that move further than orthogonalized matrices."""
    matrix = values.get("update_rms_by_role/matrix", 0.0)
    started = values.get("measured_at", math.inf) <= SETTLED
    if started or not matrix or "polar_error_by_role/matrix" not in values:
        return []
    sentences = []
    for role in ROLES:
        key = role.replace(" ", "_")
        ratio = values.get(f"update_rms_by_role/{key}", 0.0) / matrix
        if role != "matrix" and ratio > FACTOR:
            sentences.append(
                _sentence(
                    f"entries of role {role!r} move {ratio:.1f} times as far as those of matrices: lower their rate "
                    "(rest=), or raise that of the matrices"
                )
            )
    return sentences
