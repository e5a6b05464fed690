"""Make `torch_state.npz`: states of PyTorch's optimizers and what they do next, for `tests/state/test_from_torch.py`.

A `torch.nn.Linear` weight (out, in) and a bias are trained on drawn gradients for 5 steps; then come the parameters,
the optimizer's own `state_dict`, the gradients of 5 further steps, and the parameters after each of them. In float64;
Muon without its cast to bfloat16, for the weight alone, since it takes nothing else.

Run with torch 2.13 or newer (CPU):

```text
python tests/golden/make_torch_state_golden.py
```
"""

from __future__ import annotations

import pathlib
from typing import Any
from unittest import mock

import numpy as np
import torch

RATE, BEFORE, AFTER = 0.02, 5, 5
SHAPES = {"weight": (6, 4), "bias": (6,)}
OPTIMIZERS: dict[str, tuple[Any, dict[str, Any], tuple[str, ...]]] = {
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.1}, ("weight", "bias")),
    "sgd": (torch.optim.SGD, {"momentum": 0.9}, ("weight", "bias")),
    "muon": (torch.optim.Muon, {"weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}, ("weight",)),
}


def main() -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    gradients = {name: rng.standard_normal((BEFORE + AFTER, *shape)) for name, shape in SHAPES.items()}
    start = {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}
    arrays: dict[str, Any] = {f"gradients/{name}": value[BEFORE:] for name, value in gradients.items()}
    for kind, (make, arguments, names) in OPTIMIZERS.items():
        parameters = {name: torch.tensor(start[name]).requires_grad_() for name in names}
        optimizer = make(list(parameters.values()), lr=RATE, **arguments)
        for step in range(BEFORE + AFTER):
            if step == BEFORE:
                for index, name in enumerate(names):  # the numbers of a state_dict are those of the parameters
                    for key, value in optimizer.state_dict()["state"][index].items():
                        arrays[f"{kind}/state/{name}/{key}"] = value.numpy().copy()
                    arrays[f"{kind}/before/{name}"] = parameters[name].detach().numpy().copy()
            for name, parameter in parameters.items():
                parameter.grad = torch.tensor(gradients[name][step])
            # A copy, because the iteration divides what the cast returned in place.
            with mock.patch.object(torch.Tensor, "bfloat16", torch.Tensor.clone):
                optimizer.step()
            if step >= BEFORE:
                for name, parameter in parameters.items():
                    arrays[f"{kind}/after/{name}/{step - BEFORE}"] = parameter.detach().numpy().copy()
    path = pathlib.Path(__file__).with_name("torch_state.npz")
    np.savez_compressed(path, torch_version=np.array(torch.__version__), **arrays)
    print(f"{path.name}: {len(arrays)} arrays, {path.stat().st_size / 1e3:.1f} kB")


if __name__ == "__main__":
    main()
