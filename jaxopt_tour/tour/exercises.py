"""Exercises of the notebooks: an answer is put to a check, and the reader is told what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def grade(check: Callable[[Any], None], answer: Any) -> bool:
    """Put an answer to a check, and print whether it is right.

    Args:
        check: Raises an exception where the answer is wrong. Its docstring names the exercise.
        answer: What the reader wrote, a function in most exercises.

    Returns:
        Whether the answer is right.
    """
    name = (check.__doc__ or "The exercise").strip().splitlines()[0].rstrip(".")
    try:
        check(answer)
    except Exception as error:  # whatever a reader's first attempt raises is feedback, not the end of the notebook
        reason = " ".join(str(error).split()) or type(error).__name__
        print(f"{name}: not yet. {reason[:300]}")
        return False
    print(f"{name}: right.")
    return True
