"""Optimizer state of PyTorch as arrays by path name."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np

from jaxopt_tour._checks import check_choice, check_mapping
from jaxopt_tour.state.moments import AVERAGE, SUM, TORCH, Holder, Moment, SavedMoments


def moments_from_torch(
    arrays: Mapping[str, Mapping[str, Any]],
    *,
    transpose: bool | Iterable[str] = False,
    momentum_buffer: Literal["average", "sum"] = "average",
) -> SavedMoments:
    """Read the state of a `torch.optim` optimizer, for `migrate_state`.

    ```python
    arrays = {paths[name]: {key: value.cpu().numpy() for key, value in optimizer.state[parameter].items()}
              for name, parameter in model.named_parameters()}       # paths: PyTorch's names to path names
    old = jt.moments_from_torch(arrays, transpose=["**/kernel"])
    state = jt.migrate_state(old, tx, params).state
    ```

    A `torch.nn.Linear` keeps its weight as (out, in), and so are its moments. A Flax kernel is (in, out): name these
    parameters in `transpose`. An embedding is (tokens, width) in both and needs nothing. Permute the axes of a
    convolution's moments as you permute its weight, from (out, in, height, width) to (height, width, in, out), before
    the call.

    Args:
        arrays: by the path name of the parameter in JAX, the arrays by PyTorch's name: `"exp_avg"`,
            `"exp_avg_sq"` and `"step"` of Adam and AdamW, `"momentum_buffer"` of Muon and SGD, `"square_avg"`
            of RMSProp, `"sum"` of Adagrad.
        transpose: which moments with two axes are transposed: True all, False none, or patterns of path names such as
            `"blocks/*/up/kernel"`; `*` also matches `/`.
        momentum_buffer: what this array is: `"average"` in `torch.optim.Muon`, `"sum"` in `torch.optim.SGD`.

    Returns:
        The moments. A moment that has not the shape of its parameter is an error in `migrate_state`.

    Raises:
        ValueError: a name that PyTorch's optimizers do not have, a pattern that matches no parameter, or a step that is
            no number. The message names the parameter.
    """
    check_mapping("arrays", arrays, "from path names to arrays by PyTorch's name")
    if isinstance(transpose, np.ndarray) or not isinstance(transpose, Iterable | bool | np.bool_):
        raise ValueError(f"transpose must be True, False or patterns of path names, got {transpose!r}")
    check_choice("momentum_buffer", momentum_buffer, ("average", "sum"))
    kinds = {**TORCH, "momentum_buffer": AVERAGE if momentum_buffer == "average" else SUM}
    if not isinstance(transpose, (bool, np.bool_)):
        patterns = (transpose,) if isinstance(transpose, str) else tuple(transpose)
        for pattern in patterns:
            if not isinstance(pattern, str):
                raise ValueError(f"transpose must have patterns of path names, got {pattern!r}")
            if not any(_matches(name, pattern) for name in arrays):
                raise ValueError(f"transpose has the pattern {pattern!r}, which matches no parameter")
    else:
        patterns = ("*",) if transpose else ()
    holders = []
    for name, by_key in arrays.items():
        if not isinstance(by_key, Mapping):
            raise ValueError(f"arrays of {name!r} must be a mapping such as {{'exp_avg': ...}}, got {by_key!r}")
        count = _step(name, by_key["step"]) if "step" in by_key else None
        transposed = any(_matches(name, pattern) for pattern in patterns)
        moments = []
        for key, value in by_key.items():
            if key == "step" or value is None:
                continue
            if key not in kinds:
                raise ValueError(f"arrays of {name!r} must be {', '.join(map(repr, (*kinds, 'step')))}; got {key!r}")
            array = value if hasattr(value, "shape") else np.asarray(value)
            array = array.T if transposed and array.ndim == 2 else array
            moments.append(Moment(kinds[key], name, array, ("torch", key), ("torch", key, name), count))
        holders.append(Holder("torch", None, tuple(moments)))
    return SavedMoments(tuple(holders), must_fit=True)


def _matches(name: str, pattern: str) -> bool:
    """Whether a pattern matches a path name; `**/` also matches nothing."""
    return fnmatch.fnmatchcase(f"/{name}", f"/{pattern}") or (
        pattern.startswith("**/") and fnmatch.fnmatchcase(name, pattern.removeprefix("**/"))
    )


def _step(name: str, value: Any) -> int:
    """PyTorch keeps the number of steps as a float tensor."""
    step = np.asarray(value)
    if step.ndim or not np.issubdtype(step.dtype, np.number) or step != np.floor(step) or step < 0:
        raise ValueError(f"step of {name!r} must be a whole number, got {value!r}")
    return int(step)
