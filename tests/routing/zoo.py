"""Small models and the routes of their parameters, against which routing by name and by use are tested.

`CASES` maps a name to a case. `case.build()` gives the arguments and keyword arguments of `from_function`,
`case.expected` the role and axes of every parameter by path name, `case.params()` the parameter tree. The
parameters of `conventional` cases have the field's usual names, so that both ways of routing must agree on them.
"""

from __future__ import annotations

from tests.routing import zoo_experts, zoo_flax, zoo_plain
from tests.routing.zoo_case import CASES, Case, floats, tokens

__all__ = ["CASES", "Case", "floats", "tokens", "zoo_experts", "zoo_flax", "zoo_plain"]
