"""The command does what its options say; a killed race goes on; a mistake is answered with what is possible."""

# ruff: noqa: F811  (fixtures are imported, then named as arguments)

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("typer")

from typer.testing import CliRunner

import jaxopt_tour
from jaxopt_tour import cli
from jaxopt_tour.tour import race as racing
from jaxopt_tour.tour import rates
from tiny_tasks import tiny_race, tiny_tasks  # noqa: F401  (fixtures)

ROOT = Path(cli.__file__).parents[1]


def call(*arguments: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(cli.app, [str(each) for each in arguments], env={"COLUMNS": "120", "NO_COLOR": "1"})
    assert result.exit_code == code, result.output
    return re.sub(r"\x1b\[[0-9;]*m", "", result.output)


def final_numbers(out: Path) -> dict:
    results = json.loads((out / "results.json").read_text(), parse_constant=pytest.fail)
    return {
        (task, run["optimizer"], run["seed"]): (
            run["steps"], run["final"], {name: v for name, v in run["curve"].items() if name != "seconds"},
        )
        for task, entry in results["tasks"].items()
        for run in entry["runs"]
    }  # fmt: skip


def test_a_race_of_two_on_real_images(tmp_path):
    text = call(
        "race", "--task", "cnn", "--optimizers", "adamw, momentum", "--steps", "20", "--seeds", "1", "--out", tmp_path
    )
    assert [key[:2] for key in final_numbers(tmp_path)] == [("cnn", "momentum"), ("cnn", "adamw")]  # the tour's order
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["settings"]["steps"] == 20 and results["tasks"]["cnn"]["parameters"] == 105_866
    for run in results["tasks"]["cnn"]["runs"]:
        assert run["final"]["validation_accuracy"] > 0.4  # chance is 0.1
        assert run["learning_rate"] == rates.learning_rate("cnn", run["optimizer"])
    assert "Fashion-MNIST, small CNN" in text and str(tmp_path / "report.html") in text
    report, page = ((tmp_path / name).read_text() for name in ("report.html", "tour.html"))
    assert "<html" in report[:500].lower() and str(tmp_path / "tour.html") in text
    assert 'href="tour.html"' in report and 'href="report.html"' in page


def test_killed_at_once_and_resumed_gives_the_same_bits(tmp_path, optimized):
    arguments = ["race", "--task", "cnn", "--optimizers", "momentum", "--steps", "100", "--seeds", "1", "--out"]
    command = [sys.executable, "-m", "jaxopt_tour.cli", *arguments, str(tmp_path / "cut")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment) as process:
        folder = tmp_path / "cut" / "checkpoints" / "cnn" / "momentum-seed0"
        while process.poll() is None and not any(path.name.isdigit() for path in folder.glob("*")):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert final_numbers(tmp_path / "cut") == {}  # it was killed within its first run
    text = call(*arguments, tmp_path / "cut", "--resume")
    call(*arguments, tmp_path / "whole")
    assert final_numbers(tmp_path / "cut") == final_numbers(tmp_path / "whole")
    assert "going on from step" in text


def test_seeds_task_steps_and_rates(tiny_race, tmp_path):
    text = call("race", "--task", "gpt", "--seeds", "2", "--steps", "20", "--out", tmp_path, "--rates", tiny_race)
    assert {key: value[0] for key, value in final_numbers(tmp_path).items()} == {
        ("gpt", "adamw", 0): 20, ("gpt", "adamw", 1): 20, ("gpt", "muon-0.7", 0): 14, ("gpt", "muon-0.7", 1): 14,
    }  # fmt: skip
    assert "GPT: Muon trained for 14 steps, 0.7 of AdamW's 20" in text
    assert "of 2 seeds; seed 0: " in text


def test_quick_runs_every_task_briefly(tiny_race, tmp_path, monkeypatch):
    monkeypatch.setattr(racing, "QUICK_STEPS", {"cnn": 4, "gpt": 10})
    call("race", "--quick", "--out", tmp_path, "--rates", tiny_race)
    assert {key[:2]: value[0] for key, value in final_numbers(tmp_path).items()} == {
        ("cnn", "sgd"): 4, ("cnn", "adam"): 4, ("gpt", "adamw"): 10, ("gpt", "muon-0.7"): 7,
    }  # fmt: skip


def test_interrupting_says_what_is_kept_and_how_to_go_on(tiny_race, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(racing, "run_one", interrupt)
    text = call("race", "--out", tmp_path, "--rates", tiny_race, code=130)
    assert "results.json" in text and "--resume" in text


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["race", "--optimizers", "lion"], "signum, adam, adamw, muon"),
        (["race", "--task", "vit"], "cnn"),
        (["race", "--task", "gpt", "--optimizers", "adadelta"], "muon-0.7"),
        (["race", "--seeds", "0"], "Invalid value for '--seeds'"),
        (["race", "--steps", "-1"], "Invalid value for '--steps'"),
        (["sweep", "--optimizers", "lion"], "signum, adam, adamw, muon"),
    ],
)
def test_a_mistake_is_answered_with_what_is_possible(arguments, answer):
    assert answer in re.sub(r"[\s│]+", " ", call(*arguments, code=2))


def test_resuming_over_a_foreign_file_is_refused(tiny_race, tmp_path):
    (tmp_path / "results.json").write_text("[]")
    assert "not a results file" in re.sub(r"[\s│]+", " ", call(
        "race", "--resume", "--out", tmp_path, "--rates", tiny_race, code=2
    ))  # fmt: skip
    assert (tmp_path / "results.json").read_text() == "[]"


def test_help_names_every_command_option_and_optimizer():
    text = call("--help")
    commands = ("race", "explore", "sweep", "routing", "--version", "jaxopt-tour race --quick")
    assert all(word in text for word in commands)
    text = call("race", "--help")
    options = ("--task", "--optimizers", "--seeds", "--steps", "--out", "--quick", "--resume", "--rates")
    from jaxopt_tour.tour.contenders import CONTENDERS

    names = {contender.name for group in CONTENDERS.values() for contender in group}
    flat = re.sub(r"[\s│]+", " ", text)
    assert all(word in flat for word in (*options, *names, "jaxopt-tour race --task cnn"))
    assert "default: 300" in flat


def test_explore_writes_the_page_and_links_a_report_that_is_there(tmp_path):
    assert call("explore", "--out", tmp_path) == f"To play with: {tmp_path / 'tour.html'}\n"
    assert "report.html" not in (tmp_path / "tour.html").read_text()
    (tmp_path / "report.html").write_text("a report")
    call("explore", "--out", tmp_path)
    assert 'href="report.html"' in (tmp_path / "tour.html").read_text()


def test_version():
    assert call("--version") == f"jaxopt-tour {jaxopt_tour.__version__}\n"


def test_routing_shows_where_each_parameter_goes():
    text = call("routing", "--task", "gpt")
    assert re.search(r"blocks/0-1/attention/query/kernel +\([\d, ]+\) +matrix ", text)
    assert re.search(r"embed/embedding +\([\d, ]+\) +embedding ", text)
    assert "DIFFERS" not in text


def test_sweep_writes_a_file_that_race_takes_and_resumes_itself(tiny_race, tmp_path):
    output = tmp_path / "found.json"
    arguments = ["sweep", "--task", "cnn", "--optimizers", "adam", "--steps", "10", "--seeds", "1", "--output", output]
    text = call(*arguments)
    entry = json.loads(output.read_text())["rates"]["cnn"]["adam"]
    assert entry["steps"] == 10 and entry["seeds"] == [1000]
    assert f"cnn adam: best rate {entry['learning_rate']:g}" in text
    assert "cnn adam: already done" in call(*arguments, "--resume")
    call("race", "--task", "cnn", "--optimizers", "adam", "--steps", "10", "--out", tmp_path, "--rates", output)
    assert "cnn,adam,2," in (tmp_path / "results.csv").read_text()
    runs = json.loads((tmp_path / "results.json").read_text())["tasks"]["cnn"]["runs"]
    assert [run["seed"] for run in runs] == [0, 1, 2]
    assert {run["learning_rate"] for run in runs} == {entry["learning_rate"]}


def test_a_missing_extra_is_named(tmp_path):
    code = "import sys, importlib.util as u; f = u.find_spec\n"
    code += "u.find_spec = lambda name, *a: None if name in ('typer', 'orbax') else f(name, *a)\nimport jaxopt_tour.cli"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "jaxopt-tour needs typer, orbax, which come with the extra 'tour': pip install 'jaxopt-tour[tour]'\n"
    )
