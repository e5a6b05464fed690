"""Quick runs of the experiments: nearly all of their time is the compiler's."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="module")
def quick_to_compile(compile_fast: None) -> None:
    """For every module of this folder."""
