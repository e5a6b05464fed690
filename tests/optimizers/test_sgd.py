from __future__ import annotations

import pytest

from agreement import assert_agrees
from jaxopt_tour.optimizers.sgd import sgd
from references import sgd_by_hand


@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_agrees_with_the_reference(x64, l2):
    assert_agrees(sgd(0.02, l2=l2), sgd_by_hand, eta=0.02, lam=l2)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [({"learning_rate": -1.0}, "learning_rate"), ({"learning_rate": 1.0, "l2": -0.1}, "l2")],
)
def test_wrong_arguments_are_named(arguments, name):
    with pytest.raises(ValueError, match=name):
        sgd(**arguments)
