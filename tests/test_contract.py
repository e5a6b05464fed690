"""Every public optimizer x every promise that all of them keep by themselves.

The numbers are those of the contract: 1 state, 2 transformations of JAX, 5 dtypes, 6 extreme gradients, 7 lowering. 3
and 4, composition and containers, are in `test_composition.py`. The eighth, agreement with an oracle, is held by the
tests of each rule and by `test_against_torch.py`, the ninth by `test_wrong_arguments.py`, the tenth by
`state/test_check.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_tour as jt
from tests.contenders import Contender, every_factory, every_kind_of_state, every_optimizer, make_gradients, make_params
from tests.steps import assert_close, assert_finite, avals, loss, one_update, run, step_of

INT32_MAX = np.iinfo(np.int32).max


# 1. State.


@every_optimizer
def test_the_state_is_arrays_like_the_parameters_and_an_int32_count(contender: Contender):
    params = make_params()
    tx = contender()
    assert isinstance(tx, optax.GradientTransformation)
    shapes = {leaf.shape for leaf in jax.tree.leaves(params)}
    kernel = params["up"]["kernel"].shape
    for path, leaf in jax.tree_util.tree_leaves_with_path(tx.init(params)):
        name = jax.tree_util.keystr(path)
        fields = [key.name for key in path if isinstance(key, jax.tree_util.GetAttrKey)]
        assert fields, f"{name} is in no NamedTuple"
        if fields[-1] == "count":
            assert (leaf.shape, leaf.dtype) == ((), jnp.int32), name
            continue
        assert jnp.issubdtype(leaf.dtype, jnp.floating), name
        square = leaf.ndim >= 2 and leaf.shape[-1] == leaf.shape[-2]  # of rows, of columns, or a size for each matrix
        reduced = leaf.shape in ((1, kernel[1]), (kernel[0], 1), (1, 1))
        assert (
            leaf.shape in shapes
            or (contender.square_state and square and leaf.shape[-1] in (1, *kernel))
            or (contender.reduced_state and reduced)
        ), name


@every_factory
def test_the_count_counts_and_stops_at_its_end(contender: Contender):
    params = make_params()
    tx = contender(optax.constant_schedule(contender.learning_rate))
    _, state = run(tx, params)
    counts = [value for _, value in optax.tree.get_all_with_path(state, "count")]
    assert counts and all(count == 3 for count in counts)
    late = optax.tree.set(state, count=jnp.asarray(INT32_MAX, jnp.int32))
    updates, late = jax.jit(tx.update)(make_gradients(params), late, params)
    assert all(count == INT32_MAX for _, count in optax.tree.get_all_with_path(late, "count"))
    assert_finite(updates)


@every_optimizer
def test_structure_and_dtypes_of_the_state_never_change(contender: Contender):
    params = make_params()
    tx = contender()
    before = jax.eval_shape(tx.init, params)
    updates, after = jax.eval_shape(tx.update, params, before, params)
    assert jax.tree.structure(before) == jax.tree.structure(after)
    assert avals(before) == avals(after)
    assert avals(updates) == avals(jax.eval_shape(lambda p: p, params))

    @jax.jit
    def maybe(do: Any, params: Any, state: Any) -> Any:
        return jax.lax.cond(do, step_of(tx), lambda *carry: carry, params, state)

    carry = params, tx.init(params)
    for do in (True, False):
        carry = maybe(do, *carry)
    chex.assert_trees_all_equal_shapes_and_dtypes(carry, (params, tx.init(params)))


@every_factory
def test_an_unknown_keyword_is_ignored(contender: Contender):
    params = make_params()
    tx = contender()
    updates, _ = tx.update(make_gradients(params), tx.init(params), params, value=1.0, something_else=None)
    assert_close(updates, one_update(tx, make_gradients(params), params))


# 2. JAX's transformations.


@pytest.mark.versions
@every_optimizer
def test_jit_and_scan_change_nothing(contender: Contender):
    params = make_params()
    tx = contender()
    carry = params, tx.init(params)
    for _ in range(2):
        carry = step_of(tx)(*carry)
    assert_close(run(tx, params, 2), carry)


@every_optimizer
def test_vmap_over_rates_and_over_starts(contender: Contender):
    params = make_params()
    rates = jnp.array([0.5, 1.0]) * contender.learning_rate
    starts = jax.tree.map(lambda p: jnp.stack([p, -2 * p]), params)

    def final(rate: Any, start: Any) -> Any:
        return run(contender(rate), start)[0]

    batch = jax.jit(jax.vmap(final))(rates, starts)
    single = jax.jit(final)
    for i in range(2):
        expected = single(rates[i], jax.tree.map(lambda p, i=i: p[i], starts))
        assert_close(jax.tree.map(lambda p, i=i: p[i], batch), expected, rtol=1e-4)


@pytest.mark.versions
@every_factory
def test_hyper_gradients_are_finite_where_a_gradient_is_exactly_zero(contender: Contender):
    params = make_params() | {"gate": {"kernel": jnp.ones((3, 5)), "bias": jnp.ones(5)}}

    def objective(params: Any) -> jax.Array:
        return loss(params["up"]) + jnp.square(params["gain"] - 1.5)  # its gradient starts at zero

    def final_loss(rate: Any, start: Any) -> jax.Array:
        return objective(run(contender(rate), start, 20, objective)[0])

    gradients = jax.jit(jax.grad(final_loss, argnums=(0, 1)))(contender.learning_rate, params)
    assert_finite(gradients)
    if contender.factory not in (jt.signsgd, jt.signum):  # a sign has no derivative
        assert gradients[0] != 0


@pytest.mark.versions
@every_kind_of_state
def test_parameters_and_state_can_be_donated(contender: Contender):
    params = make_params()
    tx = contender()
    expected = run(tx, params, 2)
    step = jax.jit(step_of(tx), donate_argnums=(0, 1))
    carry = jax.tree.map(jnp.copy, params), tx.init(params)
    given = jax.tree.leaves(carry)
    for _ in range(2):
        carry = step(*carry)  # a buffer that is donated twice raises, one that cannot be used warns: an error here
    assert_close(carry, expected)
    assert all(leaf.is_deleted() for leaf in given)


@every_factory
def test_it_compiles_once(contender: Contender):
    tx = contender(optax.constant_schedule(contender.learning_rate))
    chex.clear_trace_counter()  # it counts by the function's name
    step = jax.jit(chex.assert_max_traces(step_of(tx), n=1))
    carry = make_params(), tx.init(make_params())
    for _ in range(3):
        carry = step(*carry)


# 5. Dtypes.


@every_optimizer
def test_an_update_has_the_dtype_of_its_parameter(contender: Contender, x64: None):
    tx = contender()
    params = {dtype: make_params(dtype) for dtype in ("float64", "float32", "bfloat16", "float16")}
    gradients = {dtype: make_gradients(tree) for dtype, tree in params.items()}
    states = {dtype: tx.init(tree) for dtype, tree in params.items()}
    update_each = jax.jit(lambda g, s, p: {dtype: tx.update(g[dtype], s[dtype], p[dtype]) for dtype in p})
    for dtype, (updates, state) in update_each(gradients, states, params).items():
        assert {str(leaf.dtype) for leaf in jax.tree.leaves(updates)} == {dtype}
        chex.assert_trees_all_equal_shapes_and_dtypes(state, states[dtype])
        assert_finite(updates)
        assert np.any(updates["up"]["kernel"])


@every_optimizer
def test_dtypes_can_be_mixed_and_gradients_wider_than_parameters(contender: Contender):
    params = make_params()
    params["up"]["kernel"] = params["up"]["kernel"].astype(jnp.bfloat16)
    params["gain"] = params["gain"].astype(jnp.float16)
    gradients = make_gradients(make_params())
    tx = contender()
    state = tx.init(params)
    updates, after = jax.jit(tx.update)(gradients, state, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)


def steady(tx: optax.GradientTransformation, params: Any, steps: int) -> Any:
    """The last of many updates under a constant gradient of 1/2."""
    gradients = jax.tree.map(lambda p: jnp.full_like(p, 0.5), params)

    def body(state: Any, _: None) -> tuple[Any, None]:
        return tx.update(gradients, state, params)[1], None

    state, _ = jax.jit(lambda: jax.lax.scan(body, tx.init(params), length=steps - 1))()
    return tx.update(gradients, state, params)[0]


NEAR_ONE = {
    "adam": jt.adam(1.0, b2=0.9999),
    "adam without correction": jt.adam(1.0, b2=0.9999, bias_correction=False),
    "adamw": jt.adamw(1.0, b2=0.9999),
    "adam from the first gradient": jt.adam(1.0, b2=0.9999, bias_correction=False, initial_moments="first_gradient"),
    "laprop": jt.laprop(1.0, b2=0.9999),
    "eadam": jt.eadam(1.0, b2=0.9999),
    "rmsprop": jt.rmsprop(1.0, beta=0.9999),
    "rmsprop centered": jt.rmsprop(1.0, beta=0.9999, centered=True, mu_dtype="float32"),
    "adadelta": jt.adadelta(1.0, beta=0.9999),
    "momentum": jt.momentum(1.0, beta=0.9999, mu_dtype="float32"),
    "momentum ema": jt.momentum(1.0, beta=0.9999, form="ema", mu_dtype="float32"),
    "muon": jt.muon(1.0, rest=jt.adamw(1.0, b2=0.9999)),
}


@pytest.mark.parametrize("name", NEAR_ONE)
def test_a_decay_near_one_does_not_lose_itself_in_bfloat16(name: str):
    # bfloat16 rounds 0.9999 to 1, and a sum stops growing once a term is below 1/256 of it: v would stop at a third of
    # its value. After 2,000 steps the update for bfloat16 parameters must still be float32's, up to what bfloat16 does
    # to a first moment: with b1 = 0.9 it stops (1/256) / 0.1 = 4 % from its end at worst.
    params = {"bias": jnp.ones(3)}
    wide = steady(NEAR_ONE[name], params, 2000)
    narrow = steady(NEAR_ONE[name], jax.tree.map(lambda p: p.astype(jnp.bfloat16), params), 2000)
    chex.assert_trees_all_close(jax.tree.map(lambda u: u.astype(jnp.float32), narrow), wide, rtol=4e-2)


@pytest.mark.parametrize(
    ("field", "tx"),
    {
        "momentum": ("trace", lambda dtype: jt.momentum(0.1, mu_dtype=dtype)),
        "nesterov": ("trace", lambda dtype: jt.nesterov(0.1, mu_dtype=dtype)),
        "signum": ("mu", lambda dtype: jt.signum(0.1, mu_dtype=dtype)),
        "adagrad": ("sum_of_squares", lambda dtype: jt.adagrad(0.1, nu_dtype=dtype)),
        "adadelta": ("delta", lambda dtype: jt.adadelta(0.1, nu_dtype=dtype)),
        "rmsprop": ("nu", lambda dtype: jt.rmsprop(0.1, nu_dtype=dtype)),
        "rmsprop centered": ("mean", lambda dtype: jt.rmsprop(0.1, centered=True, mu_dtype=dtype)),
        "rmsprop momentum": ("trace", lambda dtype: jt.rmsprop(0.1, momentum=0.9, mu_dtype=dtype)),
        "adam": ("mu", lambda dtype: jt.adam(0.1, mu_dtype=dtype)),
        "adamw": ("mu", lambda dtype: jt.adamw(0.1, mu_dtype=dtype)),
        "laprop": ("ratio", lambda dtype: jt.laprop(0.1, mu_dtype=dtype)),
        "eadam": ("mu", lambda dtype: jt.eadam(0.1, mu_dtype=dtype)),
    }.values(),
)
def test_the_dtype_of_an_accumulator_is_an_argument(field: str, tx: Callable[[str], optax.GradientTransformation]):
    params = {"bias": jnp.ones(3)}
    for dtype in ("bfloat16", "float32"):
        assert optax.tree.get(tx(dtype).init(params), field)["bias"].dtype == dtype
        chex.assert_trees_all_equal_dtypes(one_update(tx(dtype), params, params), params)


# 6. Extreme gradients.


def rank_one(shape: tuple[int, ...]) -> np.ndarray:
    return np.outer(*(np.arange(1.0, size + 1) for size in shape)) if len(shape) == 2 else np.ones(shape)


def ill_conditioned(shape: tuple[int, ...]) -> np.ndarray:
    if len(shape) != 2:
        return np.logspace(-20, 0, max(1, int(np.prod(shape)))).reshape(shape)
    u, _, vt = np.linalg.svd(np.random.default_rng(0).standard_normal(shape), full_matrices=False)
    return (u * np.logspace(0, -12, min(shape))) @ vt


EXTREMES = {
    "zero": np.zeros,
    "tiny": lambda shape: np.full(shape, 1e-30),
    "huge": lambda shape: np.full(shape, 1e30),
    "rank one": rank_one,
    "ill-conditioned": ill_conditioned,
    "one huge among zeros": lambda shape: np.where(np.arange(np.prod(shape)).reshape(shape) == 0, 1e30, 0),
}


@every_optimizer
def test_extreme_gradients_give_finite_updates(contender: Contender):
    params = make_params()
    tx = contender()
    update = jax.jit(tx.update)
    for name, make in EXTREMES.items():
        gradients = jax.tree.map(lambda p, make=make: jnp.asarray(make(p.shape), p.dtype), params)
        state = tx.init(params)
        for step in range(3):
            updates, state = update(gradients, state, params)
            for path, leaf in jax.tree_util.tree_leaves_with_path(updates):
                assert np.all(np.isfinite(leaf)), f"{name}, step {step}, {jax.tree_util.keystr(path)}: {leaf}"
        # It must recover too: an ordinary gradient after the extreme one.
        updates, _ = update(make_gradients(params), state, params)
        assert_finite(updates)


# 7. Lowering.


@pytest.mark.versions
@every_factory
def test_it_lowers_for_every_platform_on_this_one(contender: Contender):
    from jax import export

    params = make_params()
    tx = contender()
    exported = export.export(jax.jit(step_of(tx)), platforms=["cpu", "cuda", "tpu"])(params, tx.init(params))
    assert exported.platforms == ("cpu", "cuda", "tpu")
