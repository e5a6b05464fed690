"""A second run is compared number by number, and only where something is computed again."""

from __future__ import annotations

import dataclasses
import math

import pytest

from jaxopt_tour.tour.experiments.race import EXPERIMENT
from jaxopt_tour.tour.laboratory.cells import Cells
from jaxopt_tour.tour.laboratory.reproduction import again

CELLS = 20


class Measured:
    """An experiment of a few cells whose numbers can be changed from one run to the next."""

    def __init__(self, path) -> None:
        self.path, self.shift, self.calls = path, 0.0, 0
        self.experiment = dataclasses.replace(EXPERIMENT, name="x", run=self.run)
        self.run(Cells(path, "x"))

    def measure(self, number: int) -> dict[str, object]:
        self.calls += 1
        return {"final": [1.0 + number, 2.0 + self.shift, None], "curve": {"loss": [0.0, 1 / 3]}}

    def run(self, cells: Cells) -> None:
        for number in range(CELLS):
            cells.get({"what": "read", "number": number}, lambda number=number: self.measure(number))
        cells.get({"what": "costs"}, lambda: self.measure(9))


@pytest.fixture
def measured(tmp_path):
    return Measured(tmp_path / "results.json")


def test_all_cells_but_timings_are_computed_once_more_and_nothing_is_written(measured):
    before, told = measured.path.read_bytes(), []
    compared = again(measured.experiment, measured.path, 1.0, listener=told.append)
    assert [each.key for each in compared] == [{"what": "read", "number": number} for number in range(CELLS)]
    assert all(each.difference == 0 and each.numbers == 5 for each in compared)
    assert measured.calls == 2 * CELLS + 1 and len(told) == CELLS and measured.path.read_bytes() == before


def test_a_difference_is_relative_to_the_larger_number(measured):
    measured.shift = 0.5
    assert [each.difference for each in again(measured.experiment, measured.path, 1.0)] == pytest.approx([0.2] * CELLS)
    measured.shift = math.nan  # now it diverges
    assert [each.difference for each in again(measured.experiment, measured.path, 1.0)] == [math.inf] * CELLS


def test_a_share_is_the_same_cells_every_time(measured):
    few, same = ([each.key for each in again(measured.experiment, measured.path, 0.5)] for _ in range(2))
    assert few == same and 3 < len(few) < 17


@pytest.mark.parametrize("share", [0.0, 1.5, math.nan])
def test_a_share_is_a_share(measured, share):
    with pytest.raises(ValueError, match=r"share must be above 0 and at most 1, got"):
        again(measured.experiment, measured.path, share)


def test_results_that_are_not_whole_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has no cell .*run the experiment to its end first"):
        again(EXPERIMENT, tmp_path / "results.json", 0.1, quick=True)
