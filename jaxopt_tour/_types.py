"""The few types that every part of the library shares."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import jax
import optax

Array = jax.Array
DTypeLike = jax.typing.DTypeLike
ScalarOrSchedule = optax.ScalarOrSchedule

#: A pytree of arrays: parameters, gradients or updates.
Tree = Any

# Shapes in annotations, such as `Float[Array, "*batch m n"]`, are read by type checkers and, when the
# tests have imported jaxtyping first, checked at every call. A user pays nothing and needs no jaxtyping.
if TYPE_CHECKING or "jaxtyping" in sys.modules:
    from jaxtyping import Float, Num
else:

    class _ShapeAnnotation:
        def __class_getitem__(cls, item: Any) -> Any:
            return item[0]

    Float = Num = _ShapeAnnotation

__all__ = ["Array", "DTypeLike", "Float", "Num", "ScalarOrSchedule", "Tree"]
