"""Keeping generated coefficients."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")


def cached(generator: Callable[_P, _R]) -> Callable[_P, _R]:
    """`functools.cache`; arguments that have no hash reach the generator, whose checks name them."""
    kept = functools.cache(generator)

    @functools.wraps(generator)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            hash((args, tuple(kwargs.values())))
        except TypeError:
            return generator(*args, **kwargs)
        return kept(*args, **kwargs)  # type: ignore[arg-type]

    return call
