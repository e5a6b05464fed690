"""Showing how far a race is: live bars on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

#: Seconds between two plain lines about one run.
PLAIN_INTERVAL = 5.0


class Display:
    """Bars or lines for a known number of runs.

    Args:
        console: where to write; whether it is a terminal decides the form.
        total_steps: steps of all runs together.
    """

    def __init__(self, console: Console, total_steps: int) -> None:
        self._console = console
        self._total_steps = total_steps
        self._done = 0
        self._bars: Progress | None = None
        self._overall: TaskID | None = None
        if console.is_terminal:
            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(),
                console=console,
                transient=True,
            )
            self._overall = self._bars.add_task("all runs", total=total_steps, note="")

    def __enter__(self) -> Display:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def note(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def skip(self, steps: int) -> None:
        """Count steps that need not be run."""
        self._done += steps
        if self._bars is not None and self._overall is not None:
            self._bars.advance(self._overall, steps)

    @contextmanager
    def run(self, name: str, steps: int) -> Iterator[RunDisplay]:
        """Show one run while it lasts."""
        shown = RunDisplay(self, name, steps)
        try:
            yield shown
        finally:
            shown.close()


class RunDisplay:
    """The bar, or the lines, of one run."""

    def __init__(self, display: Display, name: str, steps: int) -> None:
        self._display, self._name, self._steps = display, name, steps
        self._step = 0
        self._last_line = time.monotonic()
        self._bar: TaskID | None = None
        if display._bars is not None:
            self._bar = display._bars.add_task(name, total=steps, note="compiling")

    def update(self, step: int, loss: float) -> None:
        """So many steps are done; the last one had this training loss."""
        display, note = self._display, f"train loss {loss:.3f}"
        display.skip(step - self._step)
        self._step = step
        if display._bars is not None and self._bar is not None:
            display._bars.update(self._bar, completed=step, note=note)
        elif time.monotonic() - self._last_line > PLAIN_INTERVAL and step < self._steps:
            self._last_line = time.monotonic()
            share = 100 * display._done / max(1, display._total_steps)
            display.note(f"{self._name}: step {step} of {self._steps}, {note} ({share:.0f} % of the race)")

    def close(self) -> None:
        """The run is over; steps that it did not need (it diverged) count as done."""
        display = self._display
        display.skip(self._steps - self._step)
        if display._bars is not None and self._bar is not None:
            display._bars.remove_task(self._bar)
