"""Shape factors: by how much an orthogonal update is multiplied, from fan-in and fan-out."""

from __future__ import annotations

import math
from typing import Final, Literal

from jaxopt_tour._checks import check_choice

ShapeFactor = Literal["original", "match_rms_adamw", "spectral"]
SHAPE_FACTORS: Final = ("original", "match_rms_adamw", "spectral", None)


def shape_factor(name: ShapeFactor | None, fan_in: int, fan_out: int) -> float:
    """Return the factor s that multiplies an update whose singular values are 1.

    * `"original"`: `sqrt(max(1, fan_out / fan_in))`. Jordan et al. 2024,
      https://kellerjordan.github.io/posts/muon/
    * `"match_rms_adamw"`: `0.2 sqrt(max(fan_in, fan_out))`, which gives the entries of a full-rank update a
      root mean square of 0.2, as AdamW's have, so that both can share learning rate and weight decay. Liu et al. 2025,
      section 2.2, https://arxiv.org/abs/2502.16982
    * `"spectral"`: `sqrt(fan_out / fan_in)`, with which a learning rate transfers between widths.
      Bernstein & Newhouse 2024, https://arxiv.org/abs/2409.20325
    * None: 1. The spectral norm of the update is the learning rate.
    """
    check_choice("shape_factor", name, SHAPE_FACTORS)
    if name is None or fan_in == 0 or fan_out == 0:
        return 1.0
    if name == "original":
        return math.sqrt(max(1.0, fan_out / fan_in))
    if name == "match_rms_adamw":
        return 0.2 * math.sqrt(max(fan_in, fan_out))
    return math.sqrt(fan_out / fan_in)
