"""The tests of this folder need a session of eight virtual devices; in any other session they are not collected.

JAX fixes the number of devices when it starts, so the command says it:

```text
XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m pytest tests/mesh
```
"""

from __future__ import annotations

import pathlib

import jax
import pytest

HERE = pathlib.Path(__file__).resolve().parent
DEVICES = 8
COMMAND = f"XLA_FLAGS=--xla_force_host_platform_device_count={DEVICES} python -m pytest tests/mesh"


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Leave this folder out of an ordinary session, and refuse to run it there when it is asked for by path."""
    if jax.device_count() == DEVICES:
        return None
    for argument in config.args:
        path = pathlib.Path(config.invocation_params.dir, argument.split("::")[0]).resolve()
        if path.is_relative_to(HERE):
            raise pytest.UsageError(f"tests/mesh needs {DEVICES} devices, got {jax.device_count()}: {COMMAND}")
    return True
