# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Appendix: an optimizer of your own
#
# **What does it take to write an optimizer?** Two functions. A chain of them is an optimizer again, and every rule of
# this tour is made that way. The picture is the one that this chapter writes.
#
# *15 minutes to read, half a minute to run. Before it: [chapter 4](04_adam.ipynb).*

# %% tags=["setup"]
import inspect

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import jaxopt_tour as jt
from jaxopt_tour.problems.landscapes import styblinski_tang
from jaxopt_tour.tour import plots
from jaxopt_tour.tour.exercises import grade
from jaxopt_tour.tour.rollout import rollout

# Steps on small arrays are quickest on a CPU, whatever else there is.
jax.config.update("jax_default_device", jax.devices("cpu")[0])


@jax.jit
def random_tree(seed):
    """Two matrices and a bias."""
    keys = jax.random.split(jax.random.key(seed), 3)
    shapes = {"first": (16, 8), "second": (8, 4), "bias": (4,)}
    return {name: jax.random.normal(key, shape) for key, (name, shape) in zip(keys, shapes.items(), strict=True)}


def assert_same_updates(a, b, params, rtol=1e-5, atol=1e-6):
    """Two optimizers make the same of five gradients."""
    states, (first, second) = (a.init(params), b.init(params)), (jax.jit(tx.update) for tx in (a, b))
    for seed in range(5):
        grads = random_tree(100 + seed)
        (u, s), (w, t) = first(grads, states[0], params), second(grads, states[1], params)
        states = s, t
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), u, w)


params = random_tree(0)

# %% tags=["picture"]


def scale_by_lion(b1=0.9, b2=0.99):
    """Lion's rule."""

    def init(params):
        return jax.tree.map(jnp.zeros_like, params)

    def update(grads, m, params=None):
        u = jax.tree.map(lambda g, m: jnp.sign(b1 * m + (1 - b1) * g), grads, m)
        return u, jax.tree.map(lambda g, m: b2 * m + (1 - b2) * g, grads, m)

    return optax.GradientTransformation(init, update)


landscape, steps = styblinski_tang(), 1000
falling = optax.cosine_decay_schedule(0.05, steps)
runs = {
    "lion": rollout(optax.chain(scale_by_lion(), optax.scale_by_learning_rate(0.05)), landscape, steps),
    "lion, falling": rollout(optax.chain(scale_by_lion(), optax.scale_by_learning_rate(falling)), landscape, steps),
}
colors = {"lion": "#0072b2", "lion, falling": "#d55e00"}
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.2), layout="constrained")
plots.mark_minima(plots.contours(left, landscape), landscape)
for name, run in runs.items():
    left.plot(*run.params.T, label=name, color=colors[name], linewidth=1.6, zorder=4)
    right.plot(np.abs(run.gradient).max(-1), label=name, color=colors[name], linewidth=0.9)
left.set_aspect("equal")
right.set(xlabel="step", ylabel="largest entry of the gradient", yscale="log")
right.legend(frameon=False)
plt.show()

# %% [markdown]
# Lion, with a constant rate and with one that falls to zero.
#
# ## Two functions
#
# $$\text{init}: \theta \mapsto s_0, \qquad \text{update}: (g_t, s_{t-1}, \theta) \mapsto (u_t, s_t) .$$
#
# A chain hands the $u$ of one to the next as its $g$; `optax.apply_updates` adds the last. Here is a short one of the
# library's, whole:

# %%
print(inspect.getsource(jt.scale_by_sign))

# %% [markdown]
# ## A rule of your own
#
# Lion (Chen et al. 2023) is the sign of one average of the gradient, with another average kept:
#
# $$u_t = \mathrm{sign}(\beta_1 m_{t-1} + (1 - \beta_1)\, g_t), \qquad m_t = \beta_2 m_{t-1} + (1 - \beta_2)\, g_t .$$
#
# A rule for one array, lifted to trees by `jax.tree.map`, and done. Here is what drew the picture. Optax has it too, so
# we can check.

# %%
print(inspect.getsource(scale_by_lion))


assert_same_updates(scale_by_lion(), optax.scale_by_lion(), params)

# %% [markdown]
# ## The ready-made ones are chains
#
# AdamW is Adam's rule, decay, rate. Muon is momentum, orthogonalization, shape factor, decay, rate; a matrix plays each
# part alone:

# %%
adamw = optax.chain(jt.scale_by_adam(), jt.add_decayed_weights(0.1), optax.scale_by_learning_rate(1e-3))
assert_same_updates(adamw, jt.adamw(1e-3, weight_decay=0.1), params)

matrices = {name: params[name] for name in ("first", "second")}
muon = optax.chain(
    jt.scale_by_momentum(0.95, form="ema", nesterov=True),
    jt.orthogonalize_via_newton_schulz(jt.Orthogonalizer(dtype="float32")),
    jt.scale_by_matrix_shape("match_rms_adamw"),
    jt.add_decayed_weights(0.1),
    optax.scale_by_learning_rate(1e-3),
)
axes = {name: jt.MatrixAxes(fan_in=0, fan_out=1) for name in matrices}
whole = jt.muon(1e-3, weight_decay=0.1, routing=axes, orthogonalizer=jt.Orthogonalizer(dtype="float32"))
states, grads = (muon.init(matrices), whole.init(matrices)), {name: random_tree(1)[name] for name in matrices}
u, w = (jax.jit(tx.update)(grads, state, matrices)[0] for tx, state in zip((muon, whole), states, strict=True))
jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), u, w)

# %% [markdown]
# ## The order matters
#
# Clipping *before* a rule that divides by the size of the gradient does little: Adam undoes a constant factor. Clipping
# *after* it bounds the step.

# %%


def length(tree):
    """Of all entries together."""
    return float(optax.tree.norm(tree))


def first_update(tx, grads):
    """What an optimizer makes of its first gradient."""
    return jax.jit(tx.update)(grads, tx.init(params), params)[0]


loud = jax.tree.map(lambda g: 100 * g, random_tree(1))
for place, tx in {
    "before": optax.chain(optax.clip_by_global_norm(1.0), jt.scale_by_adam()),
    "after": optax.chain(jt.scale_by_adam(), optax.clip_by_global_norm(1.0)),
    "nowhere": jt.scale_by_adam(),
}.items():
    print(f"clipped {place:8} length of the first update {length(first_update(tx, loud)):.3f}")

before = optax.chain(optax.clip_by_global_norm(1.0), jt.scale_by_adam(eps=0.0))
after = optax.chain(jt.scale_by_adam(eps=0.0), optax.clip_by_global_norm(1.0))
size = sum(leaf.size for leaf in jax.tree.leaves(params))
# Clipped before, every entry is still a sign; clipped after, the step has length one.
np.testing.assert_allclose(length(first_update(before, loud)), size**0.5, rtol=1e-4)
np.testing.assert_allclose(length(first_update(after, loud)), 1, rtol=1e-4)

# %% [markdown]
# ## Around a chain
#
# Schedules go where a rate goes. `inject_hyperparams` puts a rate into the state, where it can be changed between
# steps. `MultiSteps` adds up gradients of several small batches: two halves make the step of the whole.

# %%
tx = optax.inject_hyperparams(jt.adamw)(learning_rate=1e-3)
state = tx.init(params)
one, _ = jax.jit(tx.update)(random_tree(1), state, params)
state.hyperparams["learning_rate"] = jnp.float32(2e-3)
two, _ = jax.jit(tx.update)(random_tree(1), state, params)
jax.tree.map(lambda x, y: np.testing.assert_allclose(2 * x, y, rtol=1e-5), one, two)

halves = random_tree(1), random_tree(2)
mean = jax.tree.map(lambda x, y: (x + y) / 2, *halves)
accumulating = optax.MultiSteps(jt.adamw(1e-3), every_k_schedule=2)
state, update = accumulating.init(params), jax.jit(accumulating.update)
nothing, state = update(halves[0], state, params)
together, state = update(halves[1], state, params)
assert length(nothing) == 0
expected = first_update(jt.adamw(1e-3), mean)
jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-8), together, expected)

# %% [markdown]
# ## Yours on the landscape
#
# `rollout` takes any Optax transformation. The update of Lion is a sign, so its path runs along diagonals and axes,
# and at a constant rate it ends by jumping about the minimum; a rate that falls to zero lets it settle.

# %%
away = {name: float(np.abs(run.gradient[-20:]).max()) for name, run in runs.items()}
print("largest gradient of the last 20 steps:", away)
assert away["lion, falling"] < 0.1 * away["lion"]

# %% [markdown]
# ## Change one thing
#
# Put something else into the chain, in front of the rule or behind it.

# %%
tx = optax.chain(
    optax.clip(1.0),  # try optax.add_noise(1.0, 0.5, key=0), jt.scale_by_momentum(0.9), optax.centralize()
    scale_by_lion(),
    optax.scale_by_learning_rate(falling),
)
run = rollout(tx, landscape, steps)
print("ends at", run.params[-1], "with f =", run.loss[-1])

# %% [markdown]
# ## Exercises

# %% tags=["checks"]


def check_signum(transformation):
    """Exercise 1"""
    assert_same_updates(transformation, jt.signum(0.01, beta=0.9), params)


def check_independent(optimizer):
    """Exercise 2"""
    nothing = jax.tree.map(jnp.zeros_like, params)
    for rate in (1e-3, 1e-2):
        tx = optimizer(rate)
        update, _ = tx.update(nothing, tx.init(params), params)
        share = float(update["bias"][0] / params["bias"][0])
        assert np.isclose(share, -0.01), f"at rate {rate} a weight without gradient changes by {share:.5f} of itself"
        grads = random_tree(7)
        moved = jax.tree.map(lambda u, p: u + 0.01 * p, tx.update(grads, tx.init(params), params)[0], params)
        expected = jax.tree.map(lambda g, rate=rate: -rate * jnp.sign(g), grads)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), moved, expected)


# %% [markdown]
# **1. Signum from parts.** The sign of a momentum in the average form, $\beta = 0.9$, at rate 0.01. Chain three
# transformations of this library and of Optax.

# %%
my_signum = optax.chain(jt.scale_by_sign(), optax.scale_by_learning_rate(0.01))  # no memory

grade(check_signum, my_signum)

# %% tags=["solution"]
signum_solution = optax.chain(
    jt.scale_by_momentum(0.9, form="ema"), jt.scale_by_sign(), optax.scale_by_learning_rate(0.01)
)

assert grade(check_signum, signum_solution)

# %% [markdown]
# **2. Decay apart from the rate.** AdamW multiplies its decay by the rate. Build an Adam whose weights shrink by 1 % a
# step at any rate. `add_decayed_weights` adds its share of the weights to what passes, and updates are *added* to
# weights.


# %%
def independent_decay(learning_rate):
    """Adam, and a decay of 0.01 a step."""
    return optax.chain(
        jt.scale_by_adam(), jt.add_decayed_weights(0.01), optax.scale_by_learning_rate(learning_rate)
    )  # AdamW


grade(check_independent, independent_decay)

# %% tags=["solution"]


def independent_solution(learning_rate):
    """The decay comes after the rate, with its own sign."""
    return optax.chain(
        jt.scale_by_adam(), optax.scale_by_learning_rate(learning_rate), optax.add_decayed_weights(-0.01)
    )


assert grade(check_independent, independent_solution)

# %% [markdown]
# ## Papers
#
# Chen et al. 2023, [Lion](https://arxiv.org/abs/2302.06675).
