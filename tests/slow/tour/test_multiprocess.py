"""Training over several processes: the same losses on any number, and what happens when one of them dies."""

from __future__ import annotations

import os
import pathlib
import re
import socket
import subprocess
import sys
from collections.abc import Sequence

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
STEPS, SAVE_EVERY = 5, 2

#: Sums over devices are taken in another order for another number of them: float32, over six steps.
ROUNDING = 1e-3


def start(checkpoints: pathlib.Path, processes: int, *more: str) -> list[subprocess.Popen[str]]:
    """The job, all of its processes on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if "device_count" not in flag]
    environment = {**os.environ, "XLA_FLAGS": " ".join(flags)}
    # All processes compile the same small programs, which is most of their time.
    environment |= {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    command = [sys.executable, "-m", "jaxopt_tour.tour.distributed", "--coordinator", f"127.0.0.1:{port}"]
    command += ["--processes", str(processes), "--checkpoints", str(checkpoints), "--save-every", str(SAVE_EVERY)]
    command += ["--width", "32", "--blocks", "1", *more]
    return [
        subprocess.Popen(
            [*command, "--process", str(number)],
            cwd=ROOT,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for number in range(processes)
    ]


def outputs(job: Sequence[subprocess.Popen[str]], timeout: float = 300) -> list[tuple[str, str]]:
    """What every process wrote; all of them are gone afterwards."""
    try:
        return [process.communicate(timeout=timeout) for process in job]
    finally:
        for process in job:
            process.kill()


def losses(text: str) -> dict[int, float]:
    return {int(step): float(loss) for step, loss in re.findall(r"^step (\d+) loss ([\d.]+)$", text, re.M)}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """The losses of a whole run on two processes."""
    job = start(tmp_path_factory.mktemp("whole"), 2, "--steps", str(STEPS))
    written = outputs(job)
    assert [process.returncode for process in job] == [0, 0], written
    assert not losses(written[1][0])  # one process prints
    return losses(written[0][0])


def test_every_step_is_reported_and_the_loss_falls(uninterrupted: dict[int, float]) -> None:
    assert list(uninterrupted) == list(range(1, STEPS + 1))
    assert uninterrupted[STEPS] < uninterrupted[1] - 0.5


def lose_one(checkpoints: pathlib.Path, lost: int) -> tuple[int, str]:
    """Kill one of two processes after a few steps: how the other ends, and what it says."""
    # Slow enough to be killed in the middle.
    job = start(checkpoints, 2, "--steps", str(STEPS), "--pause", "1", "--patience", "60")
    reported = job[0].stdout
    assert reported is not None
    try:
        for line in reported:
            if line.startswith(f"step {SAVE_EVERY + 1} "):
                break
        job[lost].kill()
        _, complaint = job[1 - lost].communicate(timeout=150)
    finally:
        for process in job:
            process.kill()
            process.communicate()
    return job[1 - lost].returncode, complaint


def test_a_lost_process_ends_the_job_and_four_others_go_on_from_its_checkpoint(
    uninterrupted: dict[int, float], tmp_path: pathlib.Path
) -> None:
    status, complaint = lose_one(tmp_path, lost=1)
    assert status != 0
    assert "another process is gone" in complaint, complaint
    assert "goes on from the last checkpoint" in complaint

    job = start(tmp_path, 4, "--steps", str(STEPS))
    written = outputs(job)
    assert [process.returncode for process in job] == [0] * 4, written
    assert f"4 processes, 4 devices, from step {SAVE_EVERY}" in written[0][0]
    resumed = losses(written[0][0])
    assert list(resumed) == list(range(SAVE_EVERY + 1, STEPS + 1))
    assert resumed == pytest.approx({step: uninterrupted[step] for step in resumed}, abs=ROUNDING)


def test_losing_the_first_process_which_holds_the_others_together_ends_the_job_too(tmp_path: pathlib.Path) -> None:
    status, complaint = lose_one(tmp_path, lost=0)
    assert status != 0
    # Whoever notices first: the collective, or JAX's coordination service, which ends the process by itself.
    assert "another process is gone" in complaint or "coordination" in complaint.lower(), complaint


def test_the_three_numbers_are_asked_for() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jaxopt_tour.tour.distributed", "--checkpoints", "x"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "--coordinator, --processes and --process, or --detect" in done.stderr
