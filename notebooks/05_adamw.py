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
# # 5. AdamW and weight decay
#
# Is AdamW different from Adam when the loss has no L2 term? And if it has one, is that the same as decay?

# %%
import inspect

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import jaxopt_tour as jt
from jaxopt_tour.problems.landscapes import styblinski_tang
from jaxopt_tour.tour import plots
from jaxopt_tour.tour.rollout import rollout

# Steps on two numbers are quickest on a CPU, whatever else there is.
jax.config.update("jax_default_device", jax.devices("cpu")[0])
landscape = styblinski_tang()


def walk(tx, theta, gradients):
    """Parameters after each step, for gradients that are given."""

    def step(carry, g):
        theta, state = carry
        u, state = tx.update(g, state, theta)
        theta = optax.apply_updates(theta, u)
        return (theta, state), theta

    return np.asarray(jax.lax.scan(step, (theta, tx.init(theta)), gradients)[1])


# %% [markdown]
# ## Where it stands in the chain
#
# $$\text{coupled (L2):}\quad g \leftarrow g + \lambda\theta \ \text{ before the rule}; \qquad
#   \text{decoupled:}\quad \theta \leftarrow \theta - \eta\,(u + \lambda\theta) = (1 - \eta\lambda)\,\theta - \eta u .$$
#
# The library has one transformation for both. In `adam` it stands before the rule, in `adamw` after it. `checked_chain`
# is `optax.chain` that refuses the state of another optimizer:

# %%
for optimizer in (jt.adam, jt.adamw):
    source = inspect.getsource(optimizer)
    print(f"def {optimizer.__name__}(...):\n    ...\n{source[source.rindex('    return checked_chain(') :]}")

# %% [markdown]
# ## Is AdamW different from Adam without L2?
#
# Yes, while its $\lambda$ is not zero: it shrinks every weight by $1 - \eta\lambda$ at each step, whatever the loss is.
# And how do you get Adam from AdamW? Set $\lambda = 0$: then the paths are the same, bit for bit.

# %%
adam = rollout(jt.adam(0.05), landscape, 200)
np.testing.assert_array_equal(rollout(jt.adamw(0.05, weight_decay=0.0), landscape, 200).params, adam.params)
assert np.abs(rollout(jt.adamw(0.05, weight_decay=0.1), landscape, 200).params - adam.params).max() > 0.01

nothing = jnp.zeros((100, 2))  # no loss at all
shrunk = walk(jt.adamw(0.1, weight_decay=0.2), jnp.array([1.0, -8.0]), nothing)
np.testing.assert_allclose(shrunk[-1], np.array([1.0, -8.0]) * (1 - 0.1 * 0.2) ** 100, rtol=1e-4)

# %% [markdown]
# ## Is L2 in the loss the same as decay?
#
# For SGD it is: $\theta - \eta(g + \lambda\theta)$ either way. For Adam it is not. The term $\lambda\theta$ passes
# through $m$ and $v$ with the gradient and is divided by $\sqrt v$. With gradients that are noise of size
# $\sigma \gg \lambda\theta$, $\sqrt v$ is about $\sigma$, so coupled L2 shrinks a weight by about
# $\eta\lambda/\sigma$ a step: weights with large gradients hardly decay. Decoupled, all shrink by $\eta\lambda$.

# %%
coupled = jt.sgd(0.05, l2=0.1)
decoupled = optax.chain(jt.add_decayed_weights(0.1), optax.scale(-0.05))  # there is no rule to stand before or after
np.testing.assert_array_equal(rollout(coupled, landscape, 50).params, rollout(decoupled, landscape, 50).params)

# %%
eta, lam, steps = 0.01, 0.1, 1000
sigma = jnp.array([1.0, 3.0, 10.0])[:, None]  # three groups of 2,000 weights, all 1 at first
noise = sigma * jax.random.normal(jax.random.key(0), (steps, 3, 2000))
paths = {
    "Adam, L2": walk(jt.adam(eta, l2=lam), jnp.ones((3, 2000)), noise).mean(-1),
    "AdamW": walk(jt.adamw(eta, weight_decay=lam), jnp.ones((3, 2000)), noise).mean(-1),
}

expected = {"Adam, L2": np.exp(-eta * lam * steps / sigma[:, 0]), "AdamW": np.full(3, np.exp(-eta * lam * steps))}
for name, path in paths.items():
    print(f"{name:9} mean weight at sigma 1, 3, 10: {path[-1]}   by the formula {expected[name]}")
    np.testing.assert_allclose(path[-1], expected[name], atol=0.03)  # the mean of 2,000 is off by about 0.005

figure, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
for name, key in (("AdamW", "adamw"), ("Adam, L2", "adam")):
    ax.plot(paths[name], **plots.line(key))
for end, size in zip(paths["Adam, L2"][-1], sigma[:, 0], strict=True):
    ax.text(steps + 10, end, f"Adam, L2, σ = {size:g}", va="bottom")
ax.text(steps + 10, paths["AdamW"][-1, 0], "AdamW, every σ", va="top")
ax.set(xlabel="step", ylabel="mean weight", ylim=(0, 1.05), xlim=(0, 1.28 * steps))
plt.show()

# %% [markdown]
# ## Where they come to rest
#
# Under a constant gradient $g$, coupled L2 rests where the loss with its L2 term is lowest, $g + \lambda\theta =
# 0$, so $\theta = -g/\lambda$: it keeps the size of $g$. AdamW rests where $u = -\lambda\theta$, and $u$ is the sign
# of $g$: $|\theta| = 1/\lambda$ for every weight. AdamW bounds weights; L2 weighs them against the loss.

# %%
g = jnp.array([0.05, -0.2, 1.0])
steady = jnp.tile(g, (20_000, 1))
falling = optax.linear_schedule(0.05, 0.0, 20_000)
l2 = walk(jt.adam(falling, l2=0.5), jnp.zeros(3), steady)[-1]
adamw = walk(jt.adamw(falling, weight_decay=0.5), jnp.zeros(3), steady)[-1]
print("gradient", g, "\nAdam, L2", l2, "\nAdamW   ", adamw)
np.testing.assert_allclose(l2, -g / 0.5, rtol=0.01)
np.testing.assert_allclose(adamw, -np.sign(g) / 0.5, rtol=0.01)

# %% [markdown]
# ## On the landscape
#
# The valley is at (2.75, 2.75). L2 moves the minimum to where $\nabla f = -\lambda\theta$. AdamW pulls harder: its
# $\lambda\theta$ stands against an update of size one, not against the gradient.

# %%
lam = 0.3
runs = {
    "adam": rollout(jt.adam(0.02), landscape, 800),
    "Adam, L2": rollout(jt.adam(0.02, l2=lam), landscape, 800),
    "adamw": rollout(jt.adamw(0.02, weight_decay=lam), landscape, 800),
}
ends = {name: np.asarray(run.params[-1]) for name, run in runs.items()}
l2_slope = np.asarray(runs["Adam, L2"].gradient[-1]) + lam * ends["Adam, L2"]
print("Adam", ends["adam"], " with L2", ends["Adam, L2"], " AdamW", ends["adamw"])
np.testing.assert_allclose(l2_slope, 0, atol=0.01)
assert ends["adamw"][0] < ends["Adam, L2"][0] < ends["adam"][0]

figure, ax = plt.subplots(figsize=(6.4, 4), layout="constrained")
for name, line in (("adam", "adam"), ("Adam, L2", "eadam"), ("adamw", "adamw")):
    ax.plot(runs[name].params[:, 0], label=name, **plots.line(line))
ax.set(xlabel="step", ylabel="x", ylim=(2, 4.2))
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# ## What decays
#
# Norms and biases usually do not. A mask is a tree of booleans, or a function that makes one. `cautious=True` leaves a
# weight alone where the step moves it away from zero.

# %%
params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
only_matrices = lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)  # noqa: E731
tx = jt.adamw(0.1, weight_decay=0.5, mask=only_matrices)
updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
np.testing.assert_allclose(updates["kernel"], -0.1 * 0.5, rtol=1e-6)
np.testing.assert_array_equal(updates["bias"], 0)

# %% [markdown]
# ## Change one thing
#
# Change $\lambda$. After many steps all weights are within $1/\lambda$, the dotted square: from which value on is that
# the whole story?

# %%
lam = 0.5  # try 0.1, 0.3, 0.6, 1

run = rollout(jt.adamw(0.02, weight_decay=lam), landscape, 6000)
figure, ax = plt.subplots(figsize=(5.4, 4.6), layout="constrained")
plots.trajectories(plots.mark_minima(plots.contours(ax, landscape), landscape), landscape, {"adamw": run})
ax.plot(np.array([-1, 1, 1, -1, -1]) / lam, np.array([-1, -1, 1, 1, -1]) / lam, ":", color="black")
ax.set_aspect("equal")
plt.show()
print("ends at", run.params[-1], " 1 / lambda is", 1 / lam)
assert np.abs(run.params[-1]).max() < 1.01 / lam

# %% [markdown]
# ## Papers
#
# Loshchilov & Hutter 2019, [Decoupled Weight Decay Regularization](https://arxiv.org/abs/1711.05101).
