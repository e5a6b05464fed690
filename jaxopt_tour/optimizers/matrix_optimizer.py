"""One transformation for the matrices of a model, others for the rest: what `muon` and `shampoo` have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optax

from jaxopt_tour._checks import check_rate, did_you_mean
from jaxopt_tour._types import DTypeLike, ScalarOrSchedule
from jaxopt_tour.optimizers.adam import adamw
from jaxopt_tour.optimizers.multi_transform import MadeForAxes, multi_transform
from jaxopt_tour.optimizers.weight_decay import Mask
from jaxopt_tour.routing import ROLES, Routing

#: What `rest=` takes: nothing, one transformation, or transformations by role.
Rest = Any  # optax.GradientTransformation | Mapping[str, optax.GradientTransformation] | None; Optax has no types


def matrix_optimizer(
    matrices: optax.GradientTransformation | MadeForAxes,
    rest: Rest,
    learning_rate: ScalarOrSchedule,
    *,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
    cautious: bool = False,
    mu_dtype: DTypeLike | None,
    routing: Routing,
) -> optax.GradientTransformationExtraArgs:
    """Send matrices to one transformation, and every other parameter to the one for its role.

    Args:
        matrices: for parameters routed as `"matrix"`.
        rest: None: AdamW with b2 = 0.95 and the arguments below. A transformation: for every other parameter. A mapping
            from roles to transformations, such as `{"embedding": jt.adamw(1e-2), "other": jt.adamw(3e-3)}`; roles it
            does not name go to `"other"`, and without `"other"` to AdamW.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        mask: what AdamW decays.
        cautious: AdamW decays only where update and weight agree in sign.
        mu_dtype: of AdamW's first moment.
        routing: see `resolve`.

    Raises:
        ValueError: `rest` is none of these, or names a role that does not exist.
    """
    check_rate("learning_rate", learning_rate)
    check_rate("weight_decay", weight_decay)
    by_role: dict[str, Any] = dict(rest) if isinstance(rest, Mapping) else {} if rest is None else {"other": rest}
    allowed = tuple(role for role in ROLES if role != "matrix")
    for role, transform in by_role.items():
        if role not in (*allowed, "other"):
            raise ValueError(
                f"rest must have keys among {', '.join(map(repr, (*allowed, 'other')))}; got {role!r}"
                f"{did_you_mean(str(role), (*allowed, 'other'))}"
            )
        if not (hasattr(transform, "init") and hasattr(transform, "update")):
            raise ValueError(
                f"rest must be None, an optax.GradientTransformation, or one by role; got {transform!r} for {role!r}"
            )
    if "other" not in by_role:
        by_role["other"] = adamw(
            learning_rate,
            b2=0.95,
            weight_decay=weight_decay,
            mask=mask,
            cautious=cautious,
            mu_dtype=mu_dtype,
        )
    transforms: dict[str, Any] = {"matrix": matrices, **by_role, "frozen": optax.set_to_zero()}
    return multi_transform(transforms, routing, log=True)
