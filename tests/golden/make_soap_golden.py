"""Make `soap.npz`: what two other implementations of SOAP do with fifty given gradients.

The protocol: weights of zero, fifty standard normal gradients, a constant learning rate of 0.02, betas (0.9, 0.95), new
bases every third step, no decay. The gradients are square, so that all bases are determined: of a gradient of less than
full rank the eigenvectors without an eigenvalue are arbitrary, and the next updates depend on them. Weights are kept
after 2, 20 and 50 steps.

* `authors`, `authors_one_sided` (columns alone): `soap.py` of https://github.com/nikhilvyas/SOAP, commit a1e5535, which
  must be importable. Its eigenvectors are of float32; the casts are taken out.
* `pytorch_optimizer`: that library's, with its cast to float32 taken out as well.

Run with torch 2.14 and pytorch_optimizer 4.1 (CPU):

```text
PYTHONPATH=folder/of/soap.py python tests/golden/make_soap_golden.py
```
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pytorch_optimizer
import soap
import torch

KEEP = (2, 20, 50)
ARGUMENTS = {"lr": 0.02, "betas": (0.9, 0.95), "weight_decay": 0.0, "precondition_frequency": 3}


def run(make: Callable[..., torch.optim.Optimizer], gradients: np.ndarray, **arguments: Any) -> dict[int, np.ndarray]:
    """The weight after each of some steps, which start at zero."""
    weight = torch.zeros(gradients.shape[1:], dtype=torch.float64, requires_grad=True)
    optimizer = make([weight], **ARGUMENTS, **arguments)
    kept = {}
    for step, gradient in enumerate(gradients, 1):
        weight.grad = torch.tensor(gradient)
        optimizer.step()
        if step in KEEP:
            kept[step] = weight.detach().numpy().copy()
    return kept


def main() -> None:
    torch.set_num_threads(1)  # one order of summation, one result
    rng = np.random.default_rng(0)
    square, wide = rng.standard_normal((50, 8, 8)), rng.standard_normal((50, 8, 6))
    arrays = {"square": square, "wide": wide}
    with (
        mock.patch.object(torch, "float32", torch.float64),
        mock.patch.object(torch.Tensor, "float", torch.Tensor.clone),
    ):
        paths = {"pytorch_optimizer": run(pytorch_optimizer.SOAP, square)}
        torch.set_default_dtype(torch.float64)  # in which the authors' code keeps its covariances
        paths["authors"] = run(soap.SOAP, square)
        paths["authors_one_sided"] = run(soap.SOAP, wide, max_precond_dim=7)
    arrays |= {f"{name}/{step}": weight for name, path in paths.items() for step, weight in path.items()}
    path = pathlib.Path(__file__).with_name("soap.npz")
    np.savez_compressed(path, torch_version=np.array(torch.__version__), **arrays)
    print(f"{path.name}: {len(arrays)} arrays, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
