"""Make `authors.npz`: what the authors' Muown, Dion2 and MuSGD do to the problem of `make_torch_golden.py`.

All in float64: casts to bfloat16 are taken out, and Muown and Dion2 orthogonalize by an exact decomposition. Every
fourth row of W is kept after 1, 20 and 50 steps at a constant learning rate of 0.02, without decay unless named.

* `muown`: https://github.com/kcc-lion/muown at 3bd0c05;
* `dion2`, `dion2_wide`: https://github.com/microsoft/dion at 0a059a4, choosing columns of W (64, 32) and rows of its
  transpose; it holds its constants in float32, where 0.9375 is exact;
* `musgd`, `musgd_decay`: ultralytics 8.4.190, with the weights 0.2 and 1 of its trainer.

Run with torch 2.14 (CPU), given a checkout of each and the file `ultralytics/optim/muon.py` of the package:

```text
TORCHDYNAMO_DISABLE=1 python tests/golden/make_authors_golden.py MUOWN DION MUON_PY
```
"""

from __future__ import annotations

import functools
import importlib.util
import pathlib
import sys
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import torch
from make_torch_golden import LEARNING_RATE, ROWS, problem, run

KEEP = (1, 20, 50)


def module_of(path: pathlib.Path) -> Any:
    """The module in one file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def polar(x: torch.Tensor, epsilon: Any = None) -> torch.Tensor:
    u, _, vt = torch.linalg.svd(x, full_matrices=False)
    return u @ vt


def run_wide(make: Callable[[list[torch.Tensor]], torch.optim.Optimizer]) -> dict[int, np.ndarray]:
    """The same problem for the transpose of W, which the optimizer sees as wide; the columns kept are W's rows."""
    data = {name: torch.tensor(value) for name, value in problem().items()}
    weight = data["W"].T.clone().requires_grad_()
    optimizer, kept = make([weight]), {}
    for step in range(1, max(KEEP) + 1):
        optimizer.zero_grad()
        (data["x"] @ weight - data["y"]).square().mean().backward()
        optimizer.step()
        if step in KEEP:
            kept[step] = weight.detach().T[ROWS].numpy().copy()
    return kept


def main() -> None:
    torch.set_num_threads(1)  # one order of summation, one result
    muown, dion, muon = (pathlib.Path(argument) for argument in sys.argv[1:])
    sys.path.insert(0, str(dion))
    from dion import Dion2

    muown, musgd = module_of(muown / "optim" / "muown.py").Muown, module_of(muon).MuSGD
    arrays = {}

    def keep(name: str, path: dict[int, np.ndarray]) -> None:
        arrays.update({f"{name}/{step}": weight for step, weight in path.items()})

    keep("muown", run(functools.partial(muown, lr=LEARNING_RATE, backend="svd"), torch.float64, KEEP))
    with mock.patch.object(torch, "bfloat16", torch.float64):
        options = {"weight_decay": 0.0, "newton_schulz_func": polar, "adjust_lr": "spectral_norm"}
        make = functools.partial(Dion2, lr=LEARNING_RATE, fraction=0.25, ef_decay=0.9375, **options)
        keep("dion2", run(make, torch.float64, KEEP))
        keep("dion2_wide", run_wide(make))
    with mock.patch.object(torch.Tensor, "bfloat16", torch.Tensor.clone):
        for name, decay in {"musgd": 0.0, "musgd_decay": 0.01}.items():
            options = {"momentum": 0.9, "nesterov": True, "use_muon": True, "muon": 0.2, "sgd": 1.0}
            make = functools.partial(musgd, lr=LEARNING_RATE, weight_decay=decay, **options)
            keep(name, run(make, torch.float64, KEEP))
    path = pathlib.Path(__file__).with_name("authors.npz")
    np.savez_compressed(path, torch_version=np.array(torch.__version__), **arrays)
    print(f"{path.name}: {len(arrays)} arrays, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
