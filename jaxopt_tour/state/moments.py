"""What the arrays of a state mean, by the class and the field that hold them.

The class and the field are the version of a state's layout. A number would have to be an array of the state, which is
traced, donated, averaged and sharded with the rest, or a file that can be lost. So a field has one meaning for ever: a
field whose meaning or form changes gets another name, and the former name stays in these tables.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from jaxopt_tour._types import Tree

#: An exponential moving average of gradients, not corrected for its start at zero.
AVERAGE: Final = "average of g"
#: A decayed sum of gradients: the average divided by 1 - beta.
SUM: Final = "sum of g"
#: An exponential moving average of squared gradients, not corrected for its start at zero.
SQUARES: Final = "average of g^2"
SUM_OF_SQUARES: Final = "sum of g^2"
#: The same in SOAP's bases of rows and columns, in which entry (i, j) is none of the parameter's.
ROTATED_SQUARES: Final = "average of squares in SOAP's bases"
#: The average that a centered RMSProp subtracts: it must have the decay rate of the squares.
MEAN: Final = "mean of g at the rate of g^2"
#: The average of squares of EAdam, which adds eps in every step: eps / (1 - b2) of it is eps once it has settled.
SQUARES_WITH_EPS: Final = "average of g^2 with eps in it"
RATIO: Final = "average of g / sqrt(v)"
#: Dion2's sum of gradients, of which a row decays when it is chosen: no average of them all.
RESIDUAL: Final = "gradients that wait to be chosen"
SQUARED_UPDATES: Final = "average of u^2"
ACCUMULATED: Final = "gradients of small batches"
UNIT_SQUARES: Final = "average of the mean square of each output or input"
RADIUS: Final = "norm of each matrix"
OUTPUT_NORM: Final = "norm of each output"
DIRECTION_NORM: Final = "length of each direction"
MASTER: Final = "float32 copy"
PARAMETER_AVERAGE: Final = "average of the parameters"
TREND: Final = "average step"
#: What Shampoo and SOAP keep of the two sides of a matrix; for each, the same of the other side.
SIDES: Final = ("Shampoo's left", "Shampoo's right", "Shampoo's left_root", "Shampoo's right_root")
SUMMED_SIDES: Final = tuple(f"{side} of sums" for side in SIDES)
SOAP_SIDES: Final = ("SOAP's left", "SOAP's right", "SOAP's left_basis", "SOAP's right_basis")
OTHER_SIDE: Final[Mapping[str, str]] = {
    side: side.replace("left", "right") if "left" in side else side.replace("right", "left")
    for side in (*SIDES, *SUMMED_SIDES, *SOAP_SIDES)
}
SHAMPOO_SCALE: Final = "Shampoo's scale"
#: Moments that `init` computes from the parameters: where the old state has none, nothing is lost.
FROM_PARAMETERS: Final = (RADIUS, OUTPUT_NORM, DIRECTION_NORM, MASTER, PARAMETER_AVERAGE)
#: Before the kind of a momentum that follows a second moment in a chain: it is one of scaled gradients.
SCALED: Final = "scaled: "
#: Before the kinds of moments in a field of a state, which are those of something else than the parameters.
OF_FIELD: Final[Mapping[str, Mapping[str, str]]] = {
    "WeightNormalizationState": {"directions": "of directions: ", "norms": "of norms: "},
}

#: The meaning of every field that has an array for each parameter.
FIELDS: Final[Mapping[str, Mapping[str, str]]] = {
    # This library's.
    "AdamState": {"mu": AVERAGE, "nu": SQUARES},
    "MomentumState": {"trace": SUM},
    "EmaMomentumState": {"mu": AVERAGE},
    "RMSPropState": {"mean": MEAN, "mu": MEAN, "nu": SQUARES},  # mu: before 0.1
    "AdagradState": {"sum_of_squares": SUM_OF_SQUARES},
    "AdadeltaState": {"nu": SQUARES, "delta": SQUARED_UPDATES},
    "LaPropState": {"ratio": RATIO, "mu": RATIO, "nu": SQUARES},  # mu: before 0.1
    "EAdamState": {"mu": AVERAGE, "nu_with_eps": SQUARES_WITH_EPS},
    "ShampooState": {
        "scale": SHAMPOO_SCALE,
        **dict(zip(("left", "right", "left_root", "right_root"), SIDES, strict=True)),
    },
    "ShampooSumState": {
        "scale": SHAMPOO_SCALE,
        **dict(zip(("left_sum", "right_sum", "left_sum_root", "right_sum_root"), SUMMED_SIDES, strict=True)),
    },
    "NorMuonState": {"unit_nu": UNIT_SQUARES, "nu": UNIT_SQUARES},  # nu: before 0.1
    "Dion2State": {"residual": RESIDUAL},
    "HyperballState": {"radius": RADIUS},
    "WeightNormalizationState": {"output_norm": OUTPUT_NORM, "direction_norm": DIRECTION_NORM},
    "MasterWeightsState": {"master": MASTER},
    "TailAverageState": {"average": PARAMETER_AVERAGE},
    "LookAheadState": {"trend": TREND},
    "SoapState": {
        "mu": AVERAGE,
        "nu": ROTATED_SQUARES,
        **dict(zip(("left", "right", "left_basis", "right_basis"), SOAP_SIDES, strict=True)),
    },
    # Optax's.
    "EmaState": {"ema": AVERAGE},
    "MuonState": {"mu": AVERAGE},
    "MultiStepsState": {"acc_grads": ACCUMULATED},
    "ScaleByAdaDeltaState": {"e_g": SQUARES, "e_x": SQUARED_UPDATES},
    "ScaleByAdamState": {"mu": AVERAGE, "nu": SQUARES},
    "ScaleByAmsgradState": {"mu": AVERAGE, "nu": SQUARES, "nu_max": "maximum of v"},
    "ScaleByBeliefState": {"mu": AVERAGE, "nu": "average of (g - m)^2"},
    "ScaleByLionState": {"mu": AVERAGE},
    "ScaleByRmsState": {"nu": SQUARES},
    "ScaleByRmsWithCountState": {"nu": SQUARES},
    "ScaleByRStdDevState": {"mu": MEAN, "nu": SQUARES},
    "ScaleByRStdDevWithCountState": {"mu": MEAN, "nu": SQUARES},
    "ScaleByRssState": {"sum_of_squares": SUM_OF_SQUARES},
    "TraceState": {"trace": SUM},
}

#: The class that fields belong to where a checkpoint was restored as plain dictionaries.
BY_FIELDS: Final[Mapping[frozenset[str], str]] = {
    frozenset(fields.split()): name
    for fields, name in {
        "count mu nu": "AdamState",
        "count trace": "MomentumState",
        "count mu": "EmaMomentumState",
        "count mean nu": "RMSPropState",
        "count sum_of_squares": "AdagradState",
        "count nu delta": "AdadeltaState",
        "count ratio nu": "LaPropState",
        "count mu nu_with_eps": "EAdamState",
        "count scale left right left_root right_root": "ShampooState",
        "count scale left_sum right_sum left_sum_root right_sum_root": "ShampooSumState",
        "count unit_nu": "NorMuonState",
        "count residual": "Dion2State",
        "count radius": "HyperballState",
        "output_norm direction_norm directions norms": "WeightNormalizationState",
        "scales inner_state": "Int8MomentumState",
        "master inner_state": "MasterWeightsState",
        "count average": "TailAverageState",
        "count beta trend": "LookAheadState",
        "norms norm_count skipped_count inner_state": "SkipSpikesState",
        "count inner_state measured_at values keys": "MonitorState",
        "count key inner_state": "StochasticRoundingState",
        "count mu nu left right left_basis right_basis": "SoapState",
        "count ema": "EmaState",
        "count mu ns_coeffs": "MuonState",
        "mini_step gradient_step inner_opt_state acc_grads skip_state": "MultiStepsState",
        "notfinite_count last_finite total_notfinite inner_state": "ApplyIfFiniteState",
        "e_g e_x": "ScaleByAdaDeltaState",
        "count mu nu nu_max": "ScaleByAmsgradState",
        "nu": "ScaleByRmsState",
        "count nu": "ScaleByRmsWithCountState",
        "mu nu": "ScaleByRStdDevState",
        "sum_of_squares": "ScaleByRssState",
        "trace": "TraceState",
    }.items()
}

#: What PyTorch calls the arrays of its optimizers; `momentum_buffer` is an argument.
TORCH: Final[Mapping[str, str]] = {
    "exp_avg": AVERAGE,
    "exp_avg_sq": SQUARES,
    "square_avg": SQUARES,
    "sum": SUM_OF_SQUARES,
    "max_exp_avg_sq": "maximum of v",
}


@dataclasses.dataclass(frozen=True)
class Moment:
    """An array that a state keeps for one parameter.

    Args:
        kind: what it is, one of the constants of this module.
        parameter: path name of the parameter.
        array: the array.
        place: names that lead to the field of the state that it is in.
        path: names that lead to it.
        count: the steps that its holder counts; None where the holder counts none.
    """

    kind: str
    parameter: str
    array: Any
    place: tuple[str, ...]
    path: tuple[str, ...]
    count: Any

    @property
    def field(self) -> str:
        """The name of the field, such as `"mu"`."""
        return self.place[-1]


@dataclasses.dataclass(frozen=True)
class Holder:
    """A NamedTuple of a state that keeps moments.

    Args:
        kind: name of its class.
        count_path: names that lead to its count; None if it has none.
        moments: what it keeps.
    """

    kind: str
    count_path: tuple[str, ...] | None
    moments: tuple[Moment, ...]


@dataclasses.dataclass(frozen=True)
class Value:
    """Another number or array of a state: a count of a schedule, a hyperparameter, an array without known meaning.

    Args:
        owner: name of the class that has it; empty where it is in a dictionary.
        path: names that lead to it.
        place: those that lead to it in its owner.
        value: the number or array.
    """

    owner: str
    path: tuple[str, ...]
    place: tuple[str, ...]
    value: Any


@dataclasses.dataclass(frozen=True)
class SavedMoments:
    """A state as its moments and other values.

    Args:
        holders: what keeps moments.
        values: everything else.
        must_fit: whether a moment of another shape than its parameter is an error.
    """

    holders: tuple[Holder, ...]
    values: tuple[Value, ...] = ()
    must_fit: bool = False

    def moments(self) -> list[Moment]:
        """All moments, in the order of the state."""
        return [moment for holder in self.holders for moment in holder.moments]


#: What `migrate_state` takes: the state of an optimizer, as written or restored as dictionaries, or `SavedMoments`.
OldState = SavedMoments | Tree
