"""What every test shares: shapes in annotations are enforced, and the CPU is the device."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Beartype on a function of a module or a class; a function inside another would be decorated at every call."""
    import beartype

    return function if "<locals>" in function.__qualname__ else beartype.beartype(function)


# Before anything imports JAX.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

#: Thousands of small programs, and nearly all of the time is the compiler's. Its older emitters of elementwise loops
#: and one LLVM module a program save a third of it. Newer versions have no older emitters, and
#: end at an unknown flag. `./tour test --every-case` compiles as users do.
QUICK_COMPILER = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
has_older_emitters = tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 11)
if has_older_emitters and "xla_cpu_use_fusion_emitters" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK_COMPILER}".strip()

# jaxtyping comes first: with it loaded, the library's annotations are real shapes, and the hook has them checked at
# every call of every function of these modules.
CHECKED = tuple(f"jaxopt_tour.{name}" for name in ("linalg", "coefficients", "orthogonalization", "routing"))
if importlib.util.find_spec("jaxtyping") and importlib.util.find_spec("beartype"):
    import jaxtyping

    jaxtyping.install_import_hook(CHECKED, f"{__name__}.checked")

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

# None of these programs is measured.
jax.config.update("jax_disable_most_optimizations", True)

# The first example of a shape compiles, so a deadline would only measure the compiler; a failure must come back.
hypothesis.settings.register_profile("tour", deadline=None, derandomize=True, max_examples=25)
hypothesis.settings.load_profile("tour")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cases", type=int, help="at most so many cases of a test over combinations of options")
    parser.addoption("--everywhere", action="store_true", help="--cases holds for every test")


#: Here the cases of a test are mostly combinations of an algorithm's options. Elsewhere each is a promise of its own:
#: a model that is routed, a chapter, a snippet, a wrong argument.
COMBINED_FOLDERS = {"coefficients", "linalg", "optimizers", "orthogonalization", "state"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Under `--cases N` keep N cases of a test, the first, the last and those evenly between them.

    Without `--everywhere` that is so where cases are combinations of options; an optimizer's row of a law stays.
    """
    most, everywhere = config.getoption("cases"), config.getoption("everywhere")
    if most is None:
        return
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if not everywhere and not _is_combination(item):
            cases[item.nodeid] = [item]
        elif not everywhere or not item.get_closest_marker("slow"):  # which the fast tier leaves out by itself
            cases.setdefault(item.nodeid.split("[")[0], []).append(item)
    kept = {id(item) for group in cases.values() for item in _spread(group, most)}
    config.hook.pytest_deselected(items=[item for item in items if id(item) not in kept])
    items[:] = [item for item in items if id(item) in kept]


def _is_combination(item: pytest.Item) -> bool:
    parameters = getattr(item, "callspec", None)
    if parameters is None or "contender" in parameters.params or "wrong" in item.name:
        return False
    return item.path.parent.name in COMBINED_FOLDERS and not item.get_closest_marker("every_case")


def _spread(group: list[pytest.Item], most: int) -> list[pytest.Item]:
    if len(group) <= most:
        return group
    return [group[round(place * (len(group) - 1) / (most - 1))] for place in range(most)]


#: Where those modules are the subject; elsewhere the checks would double the time of tracing.
CHECKED_FOLDERS = {"linalg", "coefficients", "orthogonalization", "routing"}


@pytest.fixture(autouse=True)
def shapes(request: pytest.FixtureRequest) -> None:
    """Shapes in annotations are enforced in the tests of the modules that have them."""
    if "jaxtyping" in sys.modules:
        sys.modules["jaxtyping"].config.update("jaxtyping_disable", request.path.parent.name not in CHECKED_FOLDERS)


class _Fails(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        assert "not understood" not in record.getMessage(), f"AdamW takes matrices of this test: {record.getMessage()}"


@pytest.fixture(autouse=True)
def understood(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test of Muon has matrices for it: outside of the tests of routing none goes to AdamW unnoticed."""
    handler = _Fails(logging.WARNING)
    logger = logging.getLogger("jaxopt_tour")
    if request.path.parent.name != "routing" and not request.node.get_closest_marker("not_understood"):
        logger.addHandler(handler)
    yield
    logger.removeHandler(handler)


@pytest.fixture(autouse=True, scope="module")
def programs() -> Iterator[None]:
    """No module leaves its programs behind: thousands take gigabytes, and Python's collector looks at them all."""
    yield
    jax.clear_caches()


@pytest.fixture
def x64() -> Iterator[None]:
    """Double precision for the length of one test."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.fixture
def optimized() -> Iterator[None]:
    """Programs as a user's are compiled, for a test about what XLA makes of them."""
    jax.clear_caches()
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
    jax.clear_caches()
