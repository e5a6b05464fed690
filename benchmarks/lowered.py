"""Counting the operations of a program that was lowered for a platform this machine need not have."""

from __future__ import annotations

import math
import re
from typing import Any

import jax
import jax.export
from optimizer_step import whole_update

Tree = Any

_PRODUCT = re.compile(
    r"stablehlo\.dot_general .*?contracting_dims = \[([\d, ]*)\] x "
    r".*: \(tensor<([\dx]+)x\w+>, .*\) -> tensor<([\dx]*)x?\w+>"
)
_CALL = re.compile(r"call @\"?([\w.\-<>]+)\"?\(")
_FUNCTION = re.compile(r"\s*func\.func (?:\w+ )?@\"?([\w.\-<>]+)\"?\(")


def lowered_text(tx: Any, params: Tree, platform: str) -> str:
    """The StableHLO of a whole update for one platform, as `jax.export` gives it."""
    state = jax.eval_shape(tx.init, params)
    return jax.export.export(jax.jit(whole_update(tx)), platforms=(platform,))(params, state, params).mlir_module()


def product_operations(text: str) -> int:
    """The floating-point operations of all matrix products: (m, k) by (k, n) counts 2 m k n, by calls of its function.

    Raises:
        ValueError: the program has a loop, whose trips the text does not say, or a product that is not understood.
    """
    own: dict[str, int] = {}
    calls: dict[str, list[str]] = {}
    function = ""
    for line in text.splitlines():
        if head := _FUNCTION.match(line):
            function = head[1]
            own[function], calls[function] = 0, []
        if "stablehlo.while" in line:
            raise ValueError(f"a loop in {function}, whose trips are not known")
        if "stablehlo.dot_general" in line:
            own[function] += _operations_of(line)
        calls.setdefault(function, []).extend(name for name in _CALL.findall(line) if "func.func" not in line)

    def total(name: str) -> int:
        return own[name] + sum(total(called) for called in calls[name])

    return total("main")


def _operations_of(line: str) -> int:
    found = _PRODUCT.search(line)
    if not found:
        raise ValueError(f"a product that is not understood: {line.strip()[:160]}")
    left = [int(size) for size in found[2].split("x")]
    result = math.prod(int(size) for size in found[3].split("x") if size)
    return 2 * result * math.prod(left[int(axis)] for axis in found[1].split(",") if axis.strip())
