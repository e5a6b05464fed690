"""Rollouts end where slow loops in float64 end; sweeps are rollouts side by side; what is read off them is right."""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_tour as jt
from jaxopt_tour.problems.landscapes import make_landscape, styblinski_tang
from jaxopt_tour.problems.stationary import minima
from jaxopt_tour.tour.measures import angles, effective_learning_rate, gap, singular_values
from jaxopt_tour.tour.presets import OPTIMIZERS, SOURCE, muon_on_everything
from jaxopt_tour.tour.rollout import rollout, sweep

# --- the source's runs once more: plain loops in float64, nothing of the library --------------------------------------


def slope(x):
    return 2 * x**3 - 16 * x + 2.5


def sgd(x, steps, eta=0.02):
    for _ in range(steps):
        x = x - eta * slope(x)
    return x


def momentum(x, steps, eta=0.02, beta=0.9):
    v = 0 * x
    for _ in range(steps):
        v = beta * v - eta * slope(x)  # the source's velocity
        x = x + v
    return x


def nesterov(x, steps, eta=0.02, beta=0.9):
    m = 0 * x
    for _ in range(steps):
        g = slope(x)
        m = beta * m + g
        x = x - eta * (g + beta * m)
    return x


def adagrad(x, steps, eta=0.4, eps=1e-8):
    r = 0 * x
    for _ in range(steps):
        g = slope(x)
        r = r + g * g
        x = x - eta * g / (np.sqrt(r) + eps)
    return x


def rmsprop(x, steps, eta=0.01, beta=0.9, eps=1e-8):
    s = 0 * x
    for _ in range(steps):
        g = slope(x)
        s = beta * s + (1 - beta) * g * g
        x = x - eta * g / (np.sqrt(s) + eps)
    return x


def rmsprop_centered(x, steps, eta=0.01, beta=0.9, eps=1e-8):
    m, s = 0 * x, 0 * x
    for _ in range(steps):
        g = slope(x)
        m = beta * m + (1 - beta) * g
        s = beta * s + (1 - beta) * g * g
        x = x - eta * g / (np.sqrt(np.maximum(s - m * m, 0)) + eps)
    return x


def adam(x, steps, eta=0.01, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0):
    m, v = 0 * x, 0 * x
    for t in range(1, steps + 1):
        g = slope(x)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        step = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        x = x - eta * weight_decay * x - eta * step
    return x


def adamw(x, steps):
    return adam(x, steps, weight_decay=0.01)


def muon(x, steps, eta=0.01, beta=0.95, weight_decay=0.01, eps=1e-7):
    m = 0 * x
    for _ in range(steps):
        g = slope(x)
        m = beta * m + (1 - beta) * g
        u = beta * m + (1 - beta) * g
        o = u / (np.linalg.norm(u) + eps)  # a column's iterate stays along the column: only its length changes
        for _ in range(5):
            length = o @ o
            o = 3.4445 * o + (-4.7750 * length + 2.0315 * length**2) * o
        x = x - eta * (0.2 * np.sqrt(2) * o + weight_decay * x)
    return x


BY_HAND = {
    "sgd": sgd,
    "momentum": momentum,
    "nesterov": nesterov,
    "adagrad": adagrad,
    "rmsprop": rmsprop,
    "rmsprop-centered": rmsprop_centered,
    "adam": adam,
    "adamw": adamw,
    "muon": muon,
}

#: Who does not come to rest at a constant rate: RMSProp swings by half its rate to either side of the minimum (and
#: rests on it where the gradient happens to round to zero), Muon circles it at constant speed, 0.0028 a step. Where in
#: its swing a run stops is decided by the last bits.
RESTLESS = {"rmsprop": 0.0051, "rmsprop-centered": 0.0051, "muon": 0.006}


class TestTheSource:
    @pytest.mark.parametrize("name", SOURCE.optimizers)
    def test_goes_and_ends_where_a_loop_in_float64_does(self, name, x64):
        run = rollout(SOURCE.make(name), make_landscape(SOURCE.landscape), SOURCE.steps, start=SOURCE.start)
        assert run.params.shape == (1201, 2) and run.params.dtype == np.float64
        for step in (1, 30, 150):
            np.testing.assert_allclose(run.params[step], BY_HAND[name](np.array(SOURCE.start), step), atol=1e-11)
        end = BY_HAND[name](np.array(SOURCE.start), SOURCE.steps)
        np.testing.assert_allclose(run.params[-1], end, atol=RESTLESS.get(name, 1e-10))

    @pytest.mark.parametrize("name", SOURCE.optimizers)
    def test_ends_there_in_float32_as_well(self, name):
        run = rollout(SOURCE.make(name), make_landscape(SOURCE.landscape), SOURCE.steps, start=SOURCE.start)
        assert run.params.dtype == np.float32
        end = BY_HAND[name](np.array(SOURCE.start), SOURCE.steps)
        # a minimum contracts the roundings, of 2e-7 each, to a few
        np.testing.assert_allclose(run.params[-1], end, atol=RESTLESS.get(name, 2e-5))

    def test_only_momentum_carries_the_run_to_the_global_minimum(self):
        landscape = make_landscape(SOURCE.landscape)
        lowest = minima(landscape)[0]
        reached = {
            name
            for name in SOURCE.optimizers
            if np.abs(rollout(SOURCE.make(name), landscape, SOURCE.steps).params[-1] - lowest.params).max() < 0.1
        }
        assert reached == {"momentum", "nesterov"}

    def test_nine_optimizers_take_under_two_seconds_once_compiled(self):
        landscape, optimizers = make_landscape(SOURCE.landscape), [SOURCE.make(name) for name in SOURCE.optimizers]
        assert len(optimizers) == 9

        def everything():
            return jax.block_until_ready([rollout(tx, landscape, SOURCE.steps) for tx in optimizers])

        everything()
        start = time.perf_counter()
        everything()
        # About 0.01 s on a quiet machine, so the bound holds on a busy one.
        assert time.perf_counter() - start < 2

    def test_an_unknown_optimizer_is_named(self):
        with pytest.raises(ValueError, match=r"optimizer must be one of 'sgd', .*; got 'lion'"):
            SOURCE.make("lion")


class TestRollout:
    def test_is_a_plain_loop_that_keeps_everything(self):
        landscape, tx = make_landscape("himmelblau"), jt.adam(0.1)
        run = rollout(tx, landscape, 7)
        params = landscape.init()
        state = tx.init(params)
        for t in range(7):
            loss, gradient = jax.value_and_grad(landscape.fn)(params)
            update, state = tx.update(gradient, state, params)
            # float32 fused into one program and step by step differ in the last bits
            np.testing.assert_allclose(run.params[t], params, rtol=1e-5)
            np.testing.assert_allclose(run.loss[t], loss, rtol=1e-5)
            np.testing.assert_allclose(run.gradient[t], gradient, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(run.update[t], update, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(run.state["m"][t], optax.tree.get(state, "mu"), rtol=1e-4)
            np.testing.assert_allclose(run.state["v"][t], optax.tree.get(state, "nu"), rtol=1e-4)
            params = optax.apply_updates(params, update)
        np.testing.assert_allclose(run.params[7], params, rtol=1e-5)
        np.testing.assert_allclose(run.gradient[7], jax.grad(landscape.fn)(params), rtol=1e-4)

    def test_compiles_once_for_all_starts_and_keys(self):
        landscape, tx = make_landscape("quadratic"), jt.sgd(0.1)
        count = {"traced": 0}
        for i in range(3):
            rollout(tx, CountedLandscape(landscape, count), 5, jax.random.key(i), start=(i, 1.0))
        assert count["traced"] == 2  # the step and the last gradient, once each

    @pytest.mark.parametrize("name", OPTIMIZERS)
    def test_keeps_the_state_that_there_is(self, name):
        state = rollout(OPTIMIZERS[name](1e-3), make_landscape("saddle"), 3).state
        assert set(state) == {
            "sgd": set(), "signsgd": set(), "adagrad": {"v"}, "rmsprop": {"v"}, "adadelta": {"v", "d"},
            "momentum": {"m"}, "nesterov": {"m"}, "signum": {"m"}, "muon": {"m"},
        }.get(name, {"m", "v"})  # fmt: skip

    def test_keeps_only_what_is_asked_for(self):
        assert set(rollout(jt.adam(0.1), make_landscape("saddle"), 3, record=["v"]).state) == {"v"}

    def test_takes_trees(self):
        class Two:
            def init(self, start=None):
                return {"a": jnp.ones(3), "b": jnp.ones(())}

            def loss(self, params, key):
                return jnp.sum(params["a"] ** 2) + params["b"] ** 2

        run = rollout(jt.sgd(0.25), Two(), 2)
        np.testing.assert_allclose(run.params["a"], [[1] * 3, [0.5] * 3, [0.25] * 3])
        assert run.params["b"].shape == (3,)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"steps": 0}, "steps must be an integer >= 1, got 0"),
            ({"record": ["q"]}, "record must be one of 'm', 'v', 'd'; got 'q'"),
            ({"record": ["v"]}, r"record=\('v',\): this optimizer's state has no 'v'"),
        ],
    )
    def test_a_wrong_argument_is_named(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            rollout(jt.sgd(0.1), make_landscape("saddle"), **{"steps": 3, **arguments})


class TestSweep:
    def test_is_rollouts_side_by_side(self):
        landscape = make_landscape("himmelblau").with_noise(0.1)
        starts = np.array([[0.0, 0.0], [1.0, -1.0], [2.0, 2.0]])
        many = sweep(jt.adam, landscape, 6, learning_rates=[0.1, 0.01], starts=starts, seeds=[3, 4, 5, 6])
        assert many.params.shape == (2, 3, 4, 7, 2) and many.state["v"].shape == (2, 3, 4, 6, 2)
        one = rollout(jt.adam(0.01), landscape, 6, jax.random.key(5), start=starts[1])
        np.testing.assert_allclose(many.params[1, 1, 2], one.params, rtol=1e-5)
        assert len(np.unique(np.asarray(many.loss[..., -1]))) == 24

    def test_axes_are_there_only_where_several_were_given(self):
        landscape = make_landscape("matrix-regression")
        assert sweep(jt.sgd, landscape, 3, learning_rates=0.1).params.shape == (4, 2, 2)
        assert sweep(jt.sgd, landscape, 3, learning_rates=[0.1], seeds=2).params.shape == (1, 4, 2, 2)
        assert sweep(jt.sgd, landscape, 3, learning_rates=0.1, starts=[[1, 2], [3, 4]]).loss.shape == (2, 4)

    def test_seeds_of_a_problem_without_noise_are_alike(self):
        run = sweep(jt.sgd, make_landscape("saddle"), 5, learning_rates=0.1, seeds=[0, 1])
        assert np.all(run.params[0] == run.params[1])


class TestMuonOnAVector:
    def test_every_step_has_the_same_length(self):
        run = rollout(muon_on_everything(0.1, orthogonalizer="exact"), styblinski_tang(), 50)
        # 0.2 sqrt(2) of the rate: the shape factor of a 2 x 1 matrix
        np.testing.assert_allclose(np.linalg.norm(run.update, axis=-1), 0.1 * 0.2 * np.sqrt(2), rtol=1e-5)

    def test_on_a_matrix_it_is_the_librarys_muon(self):
        landscape = make_landscape("matrix-regression")
        ours = rollout(muon_on_everything(0.1, 0.01), landscape, 20)
        routed = jt.muon(0.1, weight_decay=0.01, routing=lambda path, leaf: "matrix")
        np.testing.assert_allclose(ours.params, rollout(routed, landscape, 20).params, rtol=1e-5, atol=1e-6)

    def test_goes_down_both_singular_directions_at_one_speed(self):
        landscape = make_landscape("matrix-regression")
        run = rollout(muon_on_everything(0.5, orthogonalizer="exact"), landscape, 10)
        moved = np.diff(landscape.plane.coordinates(run.params), axis=0)
        np.testing.assert_allclose(moved, -0.5 * 0.2 * np.sqrt(2), rtol=1e-3)  # both coordinates, every step
        # SGD's two speeds differ by the curvatures, 4 and 0.16, times the distances.
        steepest = np.diff(landscape.plane.coordinates(rollout(jt.sgd(0.01), landscape, 1).params), axis=0)
        np.testing.assert_allclose(steepest, [[-0.01 * 4 * 2.2, -0.01 * 0.16 * 3.4]], rtol=1e-3)


class TestMeasures:
    def test_sgds_effective_rate_is_its_rate(self):
        for name in ("himmelblau", "matrix-regression"):
            run = rollout(jt.sgd(0.01), make_landscape(name), 20)
            np.testing.assert_allclose(effective_learning_rate(run), 0.01, rtol=1e-5)

    def test_sign_descent_has_a_fixed_step_and_so_a_rate_of_one_over_the_gradient(self):
        run = rollout(jt.signsgd(0.01), make_landscape("himmelblau"), 20)
        np.testing.assert_allclose(effective_learning_rate(run), 0.01 / np.abs(run.gradient[:-1]), rtol=1e-5)

    def test_sgd_goes_straight_down_and_its_angles_are_zero(self):
        run = rollout(jt.sgd(0.001), make_landscape("himmelblau"), 20)
        measured = angles(run)
        # arccos of 1 - 1e-7 is 0.03 degrees
        np.testing.assert_allclose(measured["gradient"], 0, atol=0.1)
        assert np.isnan(measured["previous"][0]) and np.all(measured["previous"][1:] < 20)

    def test_angles_are_numpys(self):
        run = rollout(jt.momentum(0.002), make_landscape("himmelblau"), 20)
        update, gradient = (np.asarray(each, np.float64) for each in (run.update, run.gradient[:-1]))
        between = [np.degrees(np.arccos(u @ -g / np.linalg.norm(u) / np.linalg.norm(g))) for u, g in zip(
            update[1:], gradient[1:], strict=True
        )]  # fmt: skip
        np.testing.assert_allclose(angles(run)["gradient"][1:], between, atol=0.05)

    def test_singular_values_of_a_sweep(self):
        run = sweep(muon_on_everything, make_landscape("matrix-regression"), 5, learning_rates=[0.1, 0.2])
        found = singular_values(run)
        assert {name: values.shape for name, values in found.items()} == dict.fromkeys(
            ("gradient", "momentum", "update"), (2, 5, 2)
        )
        np.testing.assert_allclose(
            found["gradient"][1, 3], np.linalg.svd(np.asarray(run.gradient[1, 3]), compute_uv=False), rtol=1e-5
        )
        # Muon's update has two equal singular values where the gradient's differ sixteenfold.
        assert np.all(found["gradient"][0, 0, 0] > 10 * found["gradient"][0, 0, 1])
        np.testing.assert_allclose(found["update"][0, 0], 0.1 * 0.2 * np.sqrt(2), rtol=0.02)

    def test_a_vectors_singular_value_is_its_length(self):
        run = rollout(muon_on_everything(0.1), styblinski_tang(), 5)
        found = singular_values(run)
        np.testing.assert_allclose(found["gradient"][:, 0], np.linalg.norm(run.gradient[:-1], axis=-1), rtol=1e-5)
        assert found["momentum"].shape == (5, 1)

    def test_gap_is_never_negative(self):
        run = rollout(jt.sgd(0.02), styblinski_tang(), 5)
        assert np.all(gap(run, float(run.loss.min()) + 1) >= 0)


class CountedLandscape:
    """A landscape that counts how often its loss is traced; all of them are one to the cache."""

    def __init__(self, landscape, count):
        self.landscape, self.count = landscape, count
        self.init = landscape.init

    def __eq__(self, other):
        return isinstance(other, CountedLandscape) and other.landscape is self.landscape

    def __hash__(self):
        return hash(self.landscape)

    def loss(self, params, key):
        self.count["traced"] += 1
        return self.landscape.loss(params, key)
