"""PyTorch's optimizer state goes on in JAX as it would have in PyTorch."""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_tour as jt
from tests.state.problem import DOWN, UP, make_params

PARAMS = make_params()
RNG = np.random.default_rng(3)


def adam_arrays() -> dict[str, dict[str, Any]]:
    """As (out, in), like a Linear; PyTorch's step is a float."""
    shapes = {UP: (8, 6), DOWN: (6, 8), "blocks/0/up/bias": (8,), "blocks/0/down/bias": (6,)}
    return {
        name: {
            "step": np.float32(7.0),
            "exp_avg": RNG.standard_normal(shape).astype(np.float32),
            "exp_avg_sq": np.square(RNG.standard_normal(shape)).astype(np.float32),
        }
        for name, shape in shapes.items()
    }


#: What PyTorch itself saved, and the steps that it took then: `golden/make_torch_state_golden.py`.
GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden" / "torch_state.npz", allow_pickle=False)
KELLER_JORDAN = jt.Orthogonalizer("keller_jordan")
GOES_ON: dict[str, tuple[Any, dict[str, Any]]] = {
    "adamw": (jt.adamw(0.02, weight_decay=0.1), {}),
    "sgd": (jt.momentum(0.02), {"momentum_buffer": "sum"}),
    "muon": (jt.muon(0.02, weight_decay=0.1, orthogonalizer=KELLER_JORDAN, routing={"kernel": "matrix"}), {}),
}


@pytest.mark.parametrize("name", GOES_ON)
def test_a_run_that_pytorch_saved_takes_pytorchs_next_steps(name: str, x64: None):
    tx, arguments = GOES_ON[name]
    paths = {"weight": "kernel", "bias": "bias"}  # a Linear's in Flax's names
    names = [other for other in paths if f"{name}/before/{other}" in GOLDEN]

    def as_flax(arrays: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        return {paths[other]: jnp.asarray(array.T) for other, array in arrays.items()}

    state_dict = {
        paths[other]: {
            key.split("/")[-1]: GOLDEN[key] for key in GOLDEN.files if key.startswith(f"{name}/state/{other}/")
        }
        for other in names
    }
    params = as_flax({other: GOLDEN[f"{name}/before/{other}"] for other in names})
    old = jt.moments_from_torch(state_dict, transpose=["kernel"], **arguments)
    count = None if name == "adamw" else 5  # of these three AdamW alone counts
    migration = jt.migrate_state(old, tx, params, count=count)
    assert migration.report.is_complete
    state, update = migration.state, jax.jit(tx.update)
    for step in range(5):
        gradients = as_flax({other: GOLDEN[f"gradients/{other}"][step] for other in names})
        updates, state = update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        expected = as_flax({other: GOLDEN[f"{name}/after/{other}/{step}"] for other in names})
        # Measured: 5e-16 at most. The order of summation may differ on other machines.
        for path, value in expected.items():
            np.testing.assert_allclose(params[path], value, rtol=0, atol=1e-10, err_msg=f"{path} after {step + 1}")


def test_adamw_takes_one_step_of_pytorch():
    arrays = adam_arrays()
    tx = jt.adamw(0.1, weight_decay=0.0)
    migration = jt.migrate_state(jt.moments_from_torch(arrays, transpose=["**/kernel"]), tx, PARAMS)
    assert migration.report.is_complete
    updates, state = jax.jit(tx.update)(jax.tree.map(jnp.zeros_like, PARAMS), migration.state, PARAMS)
    assert state[0].count == 8
    m, v = (arrays[UP][key].T for key in ("exp_avg", "exp_avg_sq"))
    m_hat, v_hat = 0.9 * m / (1 - 0.9**8), 0.999 * v / (1 - 0.999**8)  # the rule of torch.optim.Adam with g = 0
    expected = -0.1 * m_hat / (np.sqrt(v_hat) + 1e-8)
    np.testing.assert_allclose(updates["blocks"]["0"]["up"]["kernel"], expected, rtol=1e-4)


def test_muon_keeps_the_momentum_buffer_as_an_average_and_that_of_sgd_as_a_sum():
    buffers = {name: {"momentum_buffer": arrays["exp_avg"]} for name, arrays in adam_arrays().items()}
    muon = jt.moments_from_torch(buffers, transpose=True)
    state = jt.migrate_state(muon, jt.muon(0.1), PARAMS, count=9).state.inner_states["matrix"][0][0]
    np.testing.assert_array_equal(state.mu["blocks"]["0"]["up"]["kernel"], buffers[UP]["momentum_buffer"].T)
    assert state.count == 9
    sgd = jt.moments_from_torch(buffers, transpose=True, momentum_buffer="sum")
    trace = jt.migrate_state(sgd, jt.momentum(0.1), PARAMS, count=9).state[1].trace
    np.testing.assert_array_equal(trace["blocks"]["0"]["up"]["kernel"], buffers[UP]["momentum_buffer"].T)


def test_a_moment_that_is_not_transposed_is_an_error_with_the_way_out():
    with pytest.raises(ValueError, match=rf"'{DOWN}'.*\(6, 8\).*\(8, 6\); name it in transpose"):
        jt.migrate_state(jt.moments_from_torch(adam_arrays()), jt.adamw(0.1), PARAMS)


def test_one_pattern_transposes_what_it_matches_alone():
    old = jt.moments_from_torch(adam_arrays(), transpose="blocks/*/up/kernel")
    shapes = {moment.parameter: moment.array.shape for moment in old.moments()}
    assert (shapes[UP], shapes[DOWN]) == ((6, 8), (6, 8))


@pytest.mark.parametrize(
    ("arrays", "arguments", "message"),
    [
        ({UP: {"exp_average": np.ones(2)}}, {}, f"'{UP}'.*'exp_avg'.*got 'exp_average'"),
        ({UP: np.ones(2)}, {}, f"'{UP}' must be a mapping"),
        ({UP: {"step": 1.5}}, {}, f"step of '{UP}'"),
        ({UP: {}}, {"transpose": ["*/weight"]}, "transpose has the pattern"),
        ({UP: {}}, {"momentum_buffer": "ema"}, "momentum_buffer"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any], arrays: Any, message: str):
    with pytest.raises(ValueError, match=message):
        jt.moments_from_torch(arrays, **arguments)
