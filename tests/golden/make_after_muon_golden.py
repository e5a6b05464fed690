"""Make `after_muon.npz`: what others' Lion, NorMuon and hyperball do to the problem of `make_torch_golden.py`.

All in float64 but for heavyball's state, with the cast to bfloat16 taken out of the Newton-Schulz iteration. Every
fourth row of W is kept after 1, 20 and 50 steps at a constant learning rate of 0.02.

* `lion`, `normuon`: pytorch_optimizer, whose NorMuon follows the authors' code (`normuon`) or the paper's
  scaling to a root mean square of 0.2 (`normuon_paper`);
* `hyperball`: heavyball's HyperBallAdamW without decay, whose update of matrices is RMSProp's, bias-corrected and
  without momentum (version 3.2); its state is float32.

Run with torch 2.14, pytorch_optimizer 4.1 and heavyball 3.2 (CPU):

```text
python tests/golden/make_after_muon_golden.py
```
"""

from __future__ import annotations

import functools
import pathlib
from unittest import mock

import heavyball
import numpy as np
import pytorch_optimizer
import torch
from make_torch_golden import LEARNING_RATE, run
from pytorch_optimizer.optimizer.muon import normuon

KEEP = (1, 20, 50)


def make_normuon(weights: list[torch.Tensor], update_scale: str) -> torch.optim.Optimizer:
    group = {"params": weights, "use_muon": True, "weight_decay": 0.1, "update_scale": update_scale, "beta2": 0.95}
    return pytorch_optimizer.NorMuon([group], lr=LEARNING_RATE, foreach=False)


def main() -> None:
    torch.set_num_threads(1)  # one order of summation, one result
    heavyball.utils.compile_mode = None
    arrays = {}
    in_float64 = functools.partial(normuon.zero_power_via_newton_schulz_5, dtype=torch.float64)
    with mock.patch.object(normuon, "zero_power_via_newton_schulz_5", in_float64):
        for name, scale in {"normuon": "preserve_norm", "normuon_paper": "match_rms"}.items():
            for step, weight in run(functools.partial(make_normuon, update_scale=scale), torch.float64, KEEP).items():
                arrays[f"{name}/{step}"] = weight
    lion = functools.partial(pytorch_optimizer.Lion, lr=LEARNING_RATE, weight_decay=0.1, foreach=False)
    hyperball = functools.partial(
        heavyball.HyperBallAdamW, lr=LEARNING_RATE, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0, caution=False
    )
    for name, make in {"lion": lion, "hyperball": hyperball}.items():
        for step, weight in run(make, torch.float64, KEEP).items():
            arrays[f"{name}/{step}"] = weight
    path = pathlib.Path(__file__).with_name("after_muon.npz")
    np.savez_compressed(path, torch_version=np.array(torch.__version__), **arrays)
    print(f"{path.name}: {len(arrays)} arrays, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
