"""The fixtures of tiny_tasks, for every test of the tour."""

from tiny_tasks import tiny, tiny_race, tiny_tasks

__all__ = ["tiny", "tiny_race", "tiny_tasks"]
