"""The results file is valid JSON, replaced in one move, and says where it comes from."""

from __future__ import annotations

import json
import math

import pytest

from jaxopt_tour.tour import results


def test_numbers_that_are_not_finite_become_null(tmp_path):
    path = tmp_path / "results.json"
    results.write_json(path, {"a": [math.nan, 1.5, (math.inf, -math.inf)], "b": {"c": 2}})
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == {"a": [None, 1.5, [None, None]], "b": {"c": 2}}


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "results.json"
    results.write_json(path, {"old": 1})

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(results.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        results.write_json(path, {"new": 2})
    assert json.loads(path.read_text()) == {"old": 1}
    assert [each.name for each in path.parent.iterdir()] == ["results.json"]


def test_a_value_that_json_cannot_hold_never_reaches_the_file(tmp_path):
    path = tmp_path / "results.json"
    results.write_json(path, {"old": 1})
    with pytest.raises(TypeError):
        results.write_json(path, {"new": object()})
    assert json.loads(path.read_text()) == {"old": 1}


def test_new_results_say_machine_and_versions():
    fresh = results.new_results({"seeds": 1})
    assert fresh["format"] == 1 and fresh["tasks"] == {} and fresh["claims"] == []
    assert {"system", "processor", "cores", "devices"} == set(fresh["machine"])
    assert {"python", "jax", "flax", "optax", "jaxopt-tour"} <= set(fresh["versions"])
    assert fresh["revision"] is None or len(fresh["revision"].removesuffix("+changes")) == 40


def test_reading_back(tmp_path):
    path = tmp_path / "results.json"
    assert results.read_results(path) is None
    results.write_json(path, results.new_results({}))
    assert results.read_results(path)["format"] == 1


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 99}'])
def test_a_foreign_file_is_refused_with_its_path(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"results\.json is not .*remove it to start over"):
        results.read_results(path)
