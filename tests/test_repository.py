"""The rules of the repository: what an import loads, which way imports point, what is shipped and documented."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[1]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
HEAVY = {"flax", "matplotlib", "orbax", "rich", "typer", "scipy", "chex", "jaxtyping", "beartype"}


def run(*command: str | pathlib.Path, **arguments) -> subprocess.CompletedProcess[str]:
    arguments = {"cwd": ROOT, **arguments}
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, **arguments)


def modules_after(statement: str) -> set[str]:
    """Top-level modules in a fresh interpreter after a statement."""
    done = run(
        sys.executable, "-c", f"{statement}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


class TestImportWeight:
    @pytest.mark.slow
    def test_importing_the_package_loads_nothing_that_optax_does_not(self):
        loaded = modules_after("import jaxopt_tour")
        assert "jax" in loaded
        assert not (loaded - modules_after("import optax")) & HEAVY

    @pytest.mark.slow
    def test_every_public_name_is_there_and_the_librarys_need_no_extra(self):
        statement = (
            "import jaxopt_tour as jt\n"
            "missing = [name for name in jt.__all__ if name not in dir(jt)]\n"
            "assert not missing, missing\n"
            "jt.muon(1e-3), jt.routing_table({'kernel': __import__('numpy').zeros((3, 4), 'float32')})"
        )
        assert not (modules_after(statement) - modules_after("import optax")) & HEAVY


def test_imports_point_one_way():
    pytest.importorskip("importlinter", reason="in requirements/dev.txt")
    done = run(pathlib.Path(sys.executable).with_name("lint-imports"), "--no-cache")
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_module_is_shadowed_by_a_public_name():
    """`import jaxopt_tour.a.b as b` must give the module, so no name of a package is that of one of its modules."""
    import importlib
    import types

    for path in sorted((ROOT / "jaxopt_tour").rglob("__init__.py")):
        package = importlib.import_module(".".join(path.parent.relative_to(ROOT).parts))
        modules = {entry.stem for entry in path.parent.iterdir() if entry.suffix == ".py" or entry.is_dir()}
        for name in modules & set(vars(package)):
            assert isinstance(getattr(package, name), types.ModuleType), f"{package.__name__}.{name}"


def test_dir_shows_the_public_names_alone():
    import jaxopt_tour

    assert set(dir(jaxopt_tour)) == {*jaxopt_tour.__all__, "problems", "tour", "cli"}


class TestLocks:
    def test_there_is_one_for_each_environment(self):
        assert {path.stem for path in LOCKS} == {"bootstrap", "dev", "floor", "tour"}

    @pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
    def test_hold_pinned_versions_and_hashes_and_no_address(self, path):
        requirements = path.read_text().replace("\\\n", " ").splitlines()
        assert requirements
        for line in requirements:
            assert re.fullmatch(r"[\w.\-\[\],]+==[\w.!+]+( ;[^@/]*?)?(\s+--hash=sha256:[0-9a-f]{64})+\s*", line), line

    def test_tests_run_on_the_versions_of_the_tour(self):
        versions = {path.stem: set(re.findall(r"^\S+==\S+", path.read_text(), re.M)) for path in LOCKS}
        assert versions["tour"] <= versions["dev"]

    def test_floors_are_those_that_the_project_promises(self):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        promised = project["dependencies"] + project["optional-dependencies"]["tour"]
        floor = (ROOT / "requirements/floor.txt").read_text()
        for name in ("jax", "optax", "flax"):
            (version,) = (line.partition(">=")[2] for line in promised if line.startswith(f"{name}>="))
            assert f"\n{name}=={version} " in floor


def wheel_of(folder, destination):
    """The names in the wheel that is built from a folder, and its bytes."""
    pytest.importorskip("hatchling", reason="in requirements/dev.txt")
    done = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", destination, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = destination.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist()), wheel.read_bytes()


def files_of(package):
    return {str(path.relative_to(package.parent)) for path in package.rglob("*") if path.is_file()}


def test_the_wheel_of_the_library_carries_types_and_licence_and_no_data(tmp_path):
    names, content = wheel_of(ROOT, tmp_path)
    expected = {name for name in files_of(ROOT / "jaxopt_tour") if "__pycache__" not in name}
    assert "jaxopt_tour/py.typed" in expected and expected <= names
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert len(content) < 700_000  # code alone; the data sets have two megabytes


def test_a_wheel_is_built_twice_bit_for_bit(tmp_path):
    built = [wheel_of(ROOT, tmp_path / str(number))[1] for number in range(2)]
    assert built[0] == built[1]


def test_the_wheel_of_the_data_carries_both_sets_with_their_licences(tmp_path):
    names, _ = wheel_of(ROOT / "data", tmp_path)
    assert {"jaxopt_tour_data/shakespeare.txt.gz", "jaxopt_tour_data/fashion_mnist_5k.npz"} <= names
    assert sum("/licenses/" in name and "LICENSE-" in name for name in names) == 2


class TestRelease:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def test_the_citation_has_the_version_and_the_licence(self):
        import jaxopt_tour as jt

        citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
        assert citation["version"] == jt.__version__ and citation["license"] == self.project["license"]

    def test_actions_are_pinned_and_may_only_read(self):
        for path in (ROOT / ".github" / "workflows").glob("*.yml"):
            workflow = yaml.safe_load(path.read_text())
            assert workflow["permissions"] == {"contents": "read"}
            used = re.findall(r"uses: (\S+)", path.read_text())
            assert used and all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action) for action in used)

    def test_templates_and_hooks_are_read_as_yaml(self):
        for path in [*(ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"), ROOT / ".pre-commit-config.yaml"]:
            assert isinstance(yaml.safe_load(path.read_text()), dict), path

    def test_the_public_address_stands_in_one_place(self):
        address = self.project["urls"]["Repository"]
        texts = [*ROOT.glob("*.*"), *(ROOT / "docs").glob("*.*"), *(ROOT / "notebooks").glob("*.py")]
        assert [path.name for path in texts if path.is_file() and address in path.read_text()] == ["pyproject.toml"]
        if "example.org" in address:
            pytest.xfail("the project has no public address yet")


class TestScripts:
    @pytest.mark.parametrize("script", ["tour", ".ci/run", "requirements/compile.sh"])
    def test_are_executable_and_parse(self, script):
        path = ROOT / script
        assert path.stat().st_mode & 0o111
        shell = path.read_text().splitlines()[0].removeprefix("#!").split()[-1].rpartition("/")[2]
        done = run(shutil.which("dash") if shell == "sh" and shutil.which("dash") else shell, "-n", path)
        assert done.returncode == 0, done.stderr

    def test_too_old_a_python_is_named(self, tmp_path):
        old = tmp_path / "python3"
        old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.1 && exit\nexit 1\n')
        old.chmod(0o755)
        for name in ("python", "python3.11", "python3.12", "python3.13"):
            (tmp_path / name).symlink_to(old)
        done = run(ROOT / "tour", "setup", env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
        assert done.returncode == 1
        assert "needs Python 3.11 or newer, found: Python 3.9.1" in done.stderr

    def test_a_folder_of_someone_else_is_left_alone(self, tmp_path):
        mine = tmp_path / "mine"
        mine.mkdir()
        (mine / "thesis.tex").write_text("years of work")
        environment = {"PATH": "/usr/bin:/bin", "JAXOPT_TOUR_PYTHON": sys.executable, "JAXOPT_TOUR_VENV": str(mine)}
        done = run(ROOT / "tour", "setup", env=environment)
        assert done.returncode == 1
        assert "name another folder" in done.stderr
        assert (mine / "thesis.tex").read_text() == "years of work"


def test_the_reference_has_every_public_name():
    import jaxopt_tour as jt

    text = "\n".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.md"))
    documented = set(re.findall(r"^\.\. (?:auto|py:)(?:function|class|data):: jaxopt_tour\.(\S+)", text, re.M))
    public = {*jt.__all__, *(f"routing.{name}" for name in jt.routing.__all__)}
    public |= {f"coefficients.{name}" for name in jt.coefficients.__all__}
    public |= {f"presets.{name}" for name in jt.presets.__all__}
    # A name that is there twice is documented once; packages have a page.
    routed = {name for name in jt.__all__ if name in jt.routing.__all__}
    assert public - routed - {"routing", "coefficients", "presets"} == documented


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    done = run(
        sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", tmp_path,
        env={**os.environ, "JAXOPT_TOUR_NOTEBOOKS": "off"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # Nothing is fetched by a page that was built.
    for page in tmp_path.rglob("*.html"):
        assert not re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=.(?:https?:)?//", page.read_text()), page
