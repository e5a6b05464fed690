"""Make `torch.npz`: what the optimizers of PyTorch do to one linear regression, for `tests/test_against_torch.py`.

The protocol: a weight W of shape (64, 32) as PyTorch keeps it, (out, in); inputs x of shape (16, 32); the loss
`mean((x W^T - y)^2)`; a constant learning rate of 0.02 unless the table below gives another. Every fourth row of W is
kept after 1, 20 and 200 steps (all rows are trained; a quarter of them keeps the file small). All in float64, so that a
difference in a definition cannot hide behind rounding. Muon is kept three times over:

* `float64` and `float32`: the whole run in that type, with the cast to bfloat16 taken out of PyTorch's iteration;
* `bfloat16`: as PyTorch ships it, parameters in float32, the iteration in bfloat16.

Run with torch 2.13 (CPU):

```text
python tests/golden/make_torch_golden.py
```
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import torch

LEARNING_RATE = 0.02
KEEP = (1, 20, 200)
ROWS = slice(None, None, 4)
Optimizer = Callable[..., torch.optim.Optimizer]

#: name in the file -> (PyTorch's class, its arguments). Arguments that are not named have PyTorch's defaults.
ELEMENTWISE: dict[str, tuple[Optimizer, dict[str, Any]]] = {
    "sgd": (torch.optim.SGD, {}),
    "sgd_weight_decay": (torch.optim.SGD, {"weight_decay": 0.1}),
    "momentum": (torch.optim.SGD, {"momentum": 0.9}),
    "momentum_weight_decay": (torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1}),
    "nesterov": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "adagrad": (torch.optim.Adagrad, {}),
    "adadelta": (torch.optim.Adadelta, {}),
    "rmsprop": (torch.optim.RMSprop, {}),
    "rmsprop_centered": (torch.optim.RMSprop, {"centered": True}),
    "rmsprop_momentum": (torch.optim.RMSprop, {"momentum": 0.9}),
    # At 0.02 these two come to oscillate, and a difference of 1e-14 in W grows to 0.1 within 200 steps.
    "rmsprop_slow": (torch.optim.RMSprop, {"lr": 0.002}),
    "rmsprop_centered_slow": (torch.optim.RMSprop, {"centered": True, "lr": 0.002}),
    "adam": (torch.optim.Adam, {}),
    "adam_weight_decay": (torch.optim.Adam, {"weight_decay": 0.1}),
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.1}),
}
MUON: dict[str, dict[str, Any]] = {
    "muon_original": {"adjust_lr_fn": "original", "weight_decay": 0.1},
    "muon_match_rms_adamw": {"adjust_lr_fn": "match_rms_adamw", "weight_decay": 0.1},
    "muon_without_nesterov": {"adjust_lr_fn": "original", "weight_decay": 0.0, "nesterov": False},
}


def problem() -> dict[str, np.ndarray]:
    """The start W, the inputs x and the targets y, all in float64."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((16, 32))
    truth = rng.standard_normal((64, 32))
    return {"W": 0.1 * rng.standard_normal((64, 32)), "x": x, "y": x @ truth.T}


def run(
    make: Callable[[list[torch.Tensor]], torch.optim.Optimizer], dtype: torch.dtype, keep: tuple[int, ...] = KEEP
) -> dict[int, np.ndarray]:
    """The rows kept of W after each of some steps."""
    data = {name: torch.tensor(value, dtype=dtype) for name, value in problem().items()}
    weight = data["W"].clone().requires_grad_()
    optimizer = make([weight])
    kept = {}
    for step in range(1, max(keep) + 1):
        optimizer.zero_grad()
        (data["x"] @ weight.T - data["y"]).square().mean().backward()
        optimizer.step()
        if step in keep:
            kept[step] = weight.detach()[ROWS].numpy().copy()
    return kept


def main() -> None:
    torch.set_num_threads(1)  # one order of summation, one result
    arrays = problem()
    for name, (optimizer, arguments) in ELEMENTWISE.items():
        make = functools.partial(optimizer, **{"lr": LEARNING_RATE, **arguments})
        for step, weight in run(make, torch.float64).items():
            arrays[f"{name}/{step}"] = weight
    for name, arguments in MUON.items():
        make = functools.partial(torch.optim.Muon, lr=LEARNING_RATE, **arguments)
        # A copy, because the iteration divides what the cast returned in place.
        with mock.patch.object(torch.Tensor, "bfloat16", torch.Tensor.clone):
            for dtype in (torch.float64, torch.float32):
                for step, weight in run(make, dtype).items():
                    arrays[f"{name}/{str(dtype).removeprefix('torch.')}/{step}"] = weight
        for step, weight in run(make, torch.float32).items():
            arrays[f"{name}/bfloat16/{step}"] = weight
    path = pathlib.Path(__file__).with_name("torch.npz")
    np.savez_compressed(path, torch_version=np.array(torch.__version__), **arrays)
    print(f"{path.name}: {len(arrays)} arrays, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
