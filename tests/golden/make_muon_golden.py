"""Make `muon.npz`: the bits of `jt.muon` as it was before the rules that came after it.

A small model in float32, all options at their defaults, a rate of 0.02 and a decay of 0.1, after 1 and 5 steps along
given gradients. Other machines round products differently, so the file has products of the same shapes too: where they
agree to the bit, so must Muon.

Run on the revision before `normuon` (8ed5b88), from its root, with this file:

```text
python make_muon_golden.py muon.npz
```
"""

from __future__ import annotations

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

SHAPES = {
    "blocks": {"0": {"up": {"kernel": (8, 12), "bias": (12,)}, "down": {"kernel": (12, 8)}}},
    "layers": {"mlp": {"kernel": (3, 6, 5), "bias": (3, 5)}},
}
KEEP = (1, 5)


def drawn(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32), SHAPES, is_leaf=lambda x: isinstance(x, tuple)
    )


def products() -> dict[str, np.ndarray]:
    """What tells whether two machines and versions round alike."""

    @jax.jit
    def of(tree: Any) -> Any:
        x, y = tree["blocks"]["0"]["up"]["kernel"], tree["layers"]["mlp"]["kernel"]
        gram, grams = x @ x.T, jnp.swapaxes(y, 1, 2) @ y
        return {"x": (gram @ gram) @ x, "y": y @ (grams @ grams), "root": 1 / (jnp.sqrt(jnp.abs(x)) + 1e-8)}

    return {f"products/{name}": np.asarray(value) for name, value in of(drawn(0)).items()}


def path_of(tx: optax.GradientTransformation) -> dict[str, np.ndarray]:
    """Every parameter after some steps."""
    params, found = drawn(0), {}
    state, update = tx.init(params), jax.jit(tx.update)
    for t in range(1, max(KEEP) + 1):
        updates, state = update(drawn(t), state, params)
        params = optax.apply_updates(params, updates)
        if t in KEEP:
            for path, leaf in jax.tree_util.tree_leaves_with_path(params):
                found["/".join([str(t), *(key.key for key in path)])] = np.asarray(leaf)
    return found


if __name__ == "__main__":
    import jaxopt_tour as jt

    jax.config.update("jax_disable_most_optimizations", True)  # as tests/conftest.py has it
    arrays = {**products(), **path_of(jt.muon(0.02, weight_decay=0.1)), "jax_version": np.array(jax.__version__)}
    np.savez_compressed(sys.argv[1], **arrays)
    print(f"{sys.argv[1]}: {len(arrays)} arrays")
