"""The benchmark scripts whose numbers the documents quote: they run, and their checks can fail."""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import pathlib
import re
import sys
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_tour as jt
from jaxopt_tour.coefficients import PolynomialCoefficients, RationalCoefficients
from jaxopt_tour.orthogonalization.plan import BLOCKS_FROM, INVERSES_FROM, plan_iteration

ROOT = pathlib.Path(__file__).resolve().parents[2]


def script(name: str) -> ModuleType:
    """A script of benchmarks/; the scripts import each other by name."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def accuracy() -> ModuleType:
    return script("accuracy")


def test_accuracy_runs_on_two_small_matrices(
    accuracy: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {name: accuracy.COEFFICIENTS[name] for name in (*accuracy.DEFAULTS, "keller_jordan")}
    monkeypatch.setattr(accuracy, "COEFFICIENTS", kept)
    assert accuracy.main(["--quick"]) == 0
    printed = capsys.readouterr().out
    assert "The default is nowhere worse" in printed
    assert not [name for name in accuracy.COEFFICIENTS if f"| `{name}` |" not in printed]


def test_accuracy_fails_where_the_default_is_worse(
    accuracy: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {name: accuracy.COEFFICIENTS[name] for name in ("cubic", accuracy.DEGREE_17)}
    monkeypatch.setattr(accuracy, "COEFFICIENTS", kept)
    assert accuracy.main(["--quick", "--default", "cubic"]) == 1
    assert "FAILED" in capsys.readouterr().out


def test_measures_against_what_is_known(accuracy: ModuleType) -> None:
    rng = np.random.default_rng(0)
    u, _, vt = np.linalg.svd(rng.standard_normal((5, 8)), full_matrices=False)
    s = np.array([4.0, 3.0, 2.0, 1.0, 0.0])  # the last one is outside the numerical range
    one = script("accuracy_cases").case("", (u * s) @ vt)
    sigma = np.array([1.0, 0.5, 1.5, 1.0, 0.25])
    measured = accuracy.measure(one, (u * sigma) @ vt)
    expected = {
        "polar_error": np.sqrt(0.5 / 4),  # two of four are off by 0.5
        "deviation": 0.5,
        "alignment": (4 * 1 + 3 * 0.5 + 2 * 1.5 + 1 * 1) / 10,
        "spectral_norm": 1.5,
        "outside": 0.25 / 2,
    }
    assert measured == pytest.approx(expected, abs=1e-6)  # the matrix is kept in float32
    assert accuracy.measure(one, np.full((5, 8), np.nan)) is None


def test_tables_replace_what_is_between_their_marks(accuracy: ModuleType, tmp_path: pathlib.Path) -> None:
    document = tmp_path / "page.md"
    document.write_text("before\n<!-- one: written by x -->\nold\n<!-- end -->\nafter\n")
    accuracy.put(document, {"one": "new"})
    accuracy.put(document, {"one": "newer"})
    assert document.read_text() == "before\n<!-- one: written by x -->\nnewer\n<!-- end -->\nafter\n"
    with pytest.raises(ValueError, match="'one'"):
        accuracy.put(document, {"two": "new"})


class TestRecordedMomentum:
    def test_has_every_kind_of_matrix_at_every_step(self, accuracy: ModuleType) -> None:
        names = script("accuracy_cases").recorded()
        found = {re.fullmatch(r"block[01]/(attention|mlp)/(\w+)@(\d+)", name).groups()[1:] for name in names}
        kinds = ("query", "key", "value", "out", "gate", "up", "down")
        assert found == {(kind, step) for kind in kinds for step in ("1", "20", "50", "100", "199")}
        assert {one.matrix.shape for one in names.values()} == {(128, 128), (128, 352), (352, 128)}
        assert all(np.isfinite(one.matrix).all() for one in names.values())

    def test_no_default_is_worse_on_it_than_optaxs(self, accuracy: ModuleType) -> None:
        """In exact arithmetic, by the maps of singular values; the script measures it in float32."""

        def polar_error(one: object, coefficients: PolynomialCoefficients | RationalCoefficients) -> float:
            power = {"frobenius": 2, "schatten4": 4, "schatten8": 8}[coefficients.prescale]
            mapped = coefficients.map_singular_values(one.s / np.sum(one.s**power) ** (1 / power))
            return float(np.sqrt(np.mean((mapped - 1) ** 2)))

        theirs = jt.coefficients.keller_jordan()
        for ours in (jt.coefficients.auto(), jt.coefficients.auto().polynomial, jt.coefficients.fast()):
            for name, one in script("accuracy_cases").recorded().items():
                assert polar_error(one, ours) <= polar_error(one, theirs), (ours.name, name)


def test_the_document_shows_the_results_file(accuracy: ModuleType, tmp_path: pathlib.Path) -> None:
    text = accuracy.DOCUMENT.read_text()
    assert text.count("written by `python benchmarks/accuracy.py`") >= 5
    copy = tmp_path / "accuracy.md"
    copy.write_text(text)
    results = json.loads((ROOT / "benchmarks" / "results" / "accuracy.json").read_text())["results"]
    accuracy.put(copy, accuracy.tables_of(results["rows"]))
    assert copy.read_text() == text
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert (accuracy.DOCUMENT.parent / target).exists(), target


def test_roofline_counts_the_operations_of_the_plan(optimized: None) -> None:
    roofline = script("roofline")
    # Wide, tall, square, three scanned layers; and one that inverses pay for, of whole blocks.
    shapes = {"a": (16, 64), "b": (64, 16), "c": (16, 16), "d": (3, 16, 40), "e": (128, 192)}
    params = {name: {"kernel": jnp.ones(shape)} for name, shape in shapes.items()}
    axes = {f"{name}/kernel": jt.MatrixAxes(-2, -1) for name in shapes}
    tx = jt.orthogonalize_via_newton_schulz(axes=axes)
    compiled = jax.jit(lambda tree: tx.update(tree, tx.init(tree))[0]).lower(params).compile()
    expected = 0
    for shape in shapes.values():
        m, n = sorted(shape[-2:])
        iteration = plan_iteration(jt.Orthogonalizer(), m, n, jnp.float32, "cpu")
        expected += math.prod(shape[:-2]) * iteration.operations(m, n)
    assert roofline.operations(roofline.products_of(compiled.as_text())) == expected


def test_inverses_run_from_where_they_were_measured_to_pay() -> None:
    written = json.loads((ROOT / "benchmarks/results/inverses-cpu.json").read_text(encoding="utf-8"))["results"]
    inverses = script("inverses")
    assert inverses.pay_from(written["cases"]) == written["pay_from"] == INVERSES_FROM

    def case(rows: int, ratio: float) -> dict[str, Any]:
        return {"rows": rows, "ways": [{"name": "polynomials", "ratio": 1.0}, {"name": "inverses", "ratio": ratio}]}

    # From the last loss on; one of two cases that loses is a loss.
    cases = [case(1, 0.5), case(2, 0.9), case(2, 1.0), case(3, 0.9), case(4, 0.7)]
    assert inverses.pay_from(cases) == 3
    assert inverses.pay_from([*cases, case(4, 1.2)]) is None


def test_blocks_run_from_where_all_quartiles_were_measured_to_be_lower() -> None:
    written = json.loads((ROOT / "benchmarks/results/symmetric-cpu.json").read_text(encoding="utf-8"))["results"]
    assert script("symmetric").gains_from(written["cases"], "blocks") == written["gains_from"]["blocks"]
    for case in written["cases"]:
        (ratio,) = (line["ratio"] for line in case["methods"] if line["name"] == "blocks")
        assert case["product"] != "A A" or ratio < 1 or case["rows"] < BLOCKS_FROM
    assert written["gains_from"]["blocks"] == BLOCKS_FROM


def test_compile_time_separates_tracing_from_compilation() -> None:
    compile_time = script("compile_time")
    seconds = compile_time.BuildSeconds
    builds = {compile_time.BASELINE: [seconds(1.0, 3.0)] * 3, "ours": [seconds(2.0, 1.0)] * 3}
    found = compile_time.by_phase(builds)
    ratios = {phase: next(row["ratio"] for row in rows if row["name"] == "ours") for phase, rows in found.items()}
    assert ratios == {"trace and lower": 2.0, "compile": pytest.approx(1 / 3), "total": 0.75}
    measured = compile_time.build_seconds(lambda: jt.sgd(0.1), {"w": jnp.ones(2)}, contextlib.nullcontext)
    assert measured.lower > 0 and measured.compile > 0


class TestTrack:
    def test_products_are_counted_by_the_calls_of_their_function(self) -> None:
        lowered = script("lowered")
        twice = jax.jit(lambda x: x @ x.T)

        def program(x: jax.Array) -> jax.Array:
            return twice(x) @ (2 * twice(x)) + jnp.einsum("bij,bkj->ik", x[None], x[None])

        text = jax.jit(program).lower(jnp.ones((3, 5))).as_text()
        assert lowered.product_operations(text) == 2 * (2 * 3 * 3 * 5) + 2 * 3**3 + 2 * 3 * 3 * 5

    def test_a_loop_is_refused(self) -> None:
        loop = jax.jit(lambda x: jax.lax.fori_loop(0, 3, lambda _, y: y @ y, x)).lower(jnp.ones((3, 3))).as_text()
        with pytest.raises(ValueError, match="a loop in main"):
            script("lowered").product_operations(loop)

    @pytest.mark.parametrize("platform", ["tpu", "cuda"])
    def test_the_lowered_program_has_the_operations_of_the_plan(self, platform: str) -> None:
        track, lowered = script("track"), script("lowered")
        params = {"blocks": {str(i): {"up": {"kernel": jax.ShapeDtypeStruct((64, 256), jnp.float32)}} for i in (0, 1)}}
        counted = lowered.product_operations(lowered.lowered_text(jt.muon(1e-3), params, platform))
        assert counted == jt.plan(params, platform=platform).totals.operations
        assert track.exactly(counted) == (counted,) * 3

    def test_what_moved_is_outside_of_both_spreads(self) -> None:
        before = {
            "a": (1.0, 0.9, 1.1),
            "b": (1.0, 0.99, 1.01),
            "c": (1.0, 0.9, 1.1),
            "d": (2.0, 2.0, 2.0),
            "e": (1.0,) * 3,
        }
        now = {
            "a": (1.15, 1.12, 1.2),
            "b": (1.02, 1.015, 1.03),
            "c": (1.3, 1.05, 1.5),
            "d": (2.01,) * 3,
            "f": (1.0,) * 3,
        }
        assert script("track").moved(before, now) == [
            "a: 1 -> 1.15 (+15.0%)",  # b moved by less than 3 %, and c within its spread
            "d: 2 -> 2.01 (+0.5%)",  # an exact number moves at all
            "f: new, 1",
            "e: no longer measured",
        ]

    def test_a_history_is_read_from_its_end(self, tmp_path: pathlib.Path) -> None:
        history = tmp_path / "history.jsonl"
        assert script("track").last_line(history) is None
        history.write_text('{"revision": "a"}\n{"revision": "b"}\n')
        assert script("track").last_line(history) == {"revision": "b"}
