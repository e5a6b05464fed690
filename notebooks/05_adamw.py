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
# **Is AdamW different from Adam when the loss has no L2 term? And if it has one, is that the same as decay?** In the
# picture all weights begin at one, and only the noise of their gradients differs.
#
# *20 minutes to read, half a minute to run. Before it: [chapter 4](04_adam.ipynb).*

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


# %% tags=["picture"]
eta, lam, steps = 0.01, 0.1, 1000
sigma = jnp.array([1.0, 3.0, 10.0])[:, None]  # three groups of 2,000 weights, all 1 at first
noise = sigma * jax.random.normal(jax.random.key(0), (steps, 3, 2000))
paths = {
    "Adam, L2": walk(jt.adam(eta, l2=lam), jnp.ones((3, 2000)), noise).mean(-1),
    "AdamW": walk(jt.adamw(eta, weight_decay=lam), jnp.ones((3, 2000)), noise).mean(-1),
}

figure, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
for name, key in (("AdamW", "adamw"), ("Adam, L2", "adam")):
    ax.plot(paths[name], **plots.line(key))
for end, size in zip(paths["Adam, L2"][-1], sigma[:, 0], strict=True):
    ax.text(steps + 10, end, f"Adam, L2, σ = {size:g}", va="bottom")
ax.text(steps + 10, paths["AdamW"][-1, 0], "AdamW, every σ", va="top")
ax.set(xlabel="step", ylabel="mean weight", ylim=(0, 1.05), xlim=(0, 1.28 * steps))
plt.show()

# %% [markdown]
# Under AdamW all weights decay alike. With L2 in the loss, Adam divides the decay by the size of the gradient: weights
# with large gradients hardly shrink.
#
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
expected = {"Adam, L2": np.exp(-eta * lam * steps / sigma[:, 0]), "AdamW": np.full(3, np.exp(-eta * lam * steps))}
for name, path in paths.items():
    print(f"{name:9} mean weight at sigma 1, 3, 10: {path[-1]}   by the formula {expected[name]}")
    np.testing.assert_allclose(path[-1], expected[name], atol=0.03)  # the mean of 2,000 is off by about 0.005

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
# ## L1, and the proximal step
#
# L2 makes weights small. L1, $\lambda \sum |\theta_i|$, makes them *zero*. Its slope is $\lambda\,
# \mathrm{sign}(\theta)$, which does not shrink with the weight, so a gradient step jumps back and forth over zero and
# never lands. The *proximal* step lands. It takes the gradient step of the loss alone, to $z$, and then solves for the
# penalty exactly:
#
# $$\mathrm{prox}(z) = \arg\min_\theta\ \tfrac{1}{2 \eta} (\theta - z)^2 + \lambda |\theta|
#   = \mathrm{sign}(z)\, \max(|z| - \eta \lambda,\ 0) .$$
#
# *Proof.* For $\theta > 0$ the derivative $(\theta - z) / \eta + \lambda$ vanishes at $z - \eta \lambda$, if that is
# positive. The case $\theta < 0$ is its mirror. Otherwise the two sides both rise away from zero, and zero is the
# minimum. $\square$
#
# Sparse regression: of 40 weights five matter, and there are fewer examples than weights. Two ways to the same penalty.

# %%
rng = np.random.default_rng(0)
X, weights = rng.standard_normal((30, 40)) / np.sqrt(30), np.zeros(40)
weights[[3, 8, 15, 22, 30]] = [2.0, -3.0, 1.5, -2.0, 2.5]
y, eta, lam = X @ weights, 0.2, 0.05


def soft_threshold(z, by):
    """The proximal step of L1."""
    return np.sign(z) * np.maximum(np.abs(z) - by, 0)


subgradient, proximal, ridge = np.zeros(40), np.zeros(40), np.zeros(40)
for _ in range(5000):
    subgradient = subgradient - eta * (X.T @ (X @ subgradient - y) + lam * np.sign(subgradient))
    proximal = soft_threshold(proximal - eta * X.T @ (X @ proximal - y), eta * lam)
    ridge = ridge - eta * (X.T @ (X @ ridge - y) + lam * ridge)
zeros = {"L1, gradient": subgradient, "L1, proximal": proximal, "L2": ridge}
for name, found in zeros.items():
    print(f"{name:12} exact zeros: {np.sum(found == 0):2} of 40, largest error {np.abs(found - weights).max():.2f}")
assert np.sum(proximal == 0) > 25 and np.sum(subgradient == 0) == np.sum(ridge == 0) == 0
assert np.abs(proximal - weights).max() < 0.5 < np.abs(ridge - weights).max()

# %% [markdown]
# AdamW's decay is such a step, too. The proximal step of $\frac{\lambda}{2} \theta^2$ is $z / (1 + \eta \lambda)$, and
# $1 - \eta \lambda$ is that to first order. It is taken apart from the gradient, so Adam's denominator never sees it.
#
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
# ## Exercises

# %% tags=["checks"]


def check_prox(prox):
    """Exercise 1"""
    theta = np.linspace(-3, 3, 60_001)
    for z, eta, lam in ((2.0, 0.5, 1.0), (-1.0, 0.1, 3.0), (0.3, 1.0, 0.2)):
        best = theta[np.argmin((theta - z) ** 2 / (2 * eta) + lam / 2 * theta**2)]
        ours = float(prox(z, eta, lam))
        assert abs(ours - best) < 1e-3, (
            f"at z = {z}, eta = {eta}, lambda = {lam} the minimum is {best:.3f}, not {ours:.3f}"
        )


def check_half_life(half_life):
    """Exercise 2"""
    for eta, lam in ((0.1, 0.2), (0.01, 0.5)):
        path = walk(jt.adamw(eta, weight_decay=lam), jnp.ones(1), jnp.zeros((400, 1)))[:, 0]
        counted, ours = int(np.argmax(path <= 0.5)) + 1, float(half_life(eta, lam))
        assert abs(ours - counted) <= 1, (
            f"at eta {eta}, lambda {lam} a weight halves in {counted} steps, not {ours:.1f}"
        )


# %% [markdown]
# **1. The proximal step of L2.** Minimize $\frac{1}{2 \eta} (\theta - z)^2 + \frac{\lambda}{2} \theta^2$.


# %%
def prox(z, eta, lam):
    """The minimizer."""
    return z - eta * lam * z  # AdamW's, which is close


grade(check_prox, prox)

# %% tags=["solution"]


def prox_solution(z, eta, lam):
    """(theta - z) / eta + lambda theta = 0."""
    return z / (1 + eta * lam)


assert grade(check_prox, prox_solution)

# %% [markdown]
# **2. Half-life.** After how many steps has AdamW halved a weight that receives no gradient? That is the memory of the
# weights, and a reason to think of $\eta \lambda$ as one number.


# %%
def half_life(eta, lam):
    """Steps to a half."""
    return 1 / (eta * lam)  # the right size


grade(check_half_life, half_life)

# %% tags=["solution"]


def half_life_solution(eta, lam):
    """(1 - eta lambda)^t = 1/2."""
    return np.log(0.5) / np.log(1 - eta * lam)


assert grade(check_half_life, half_life_solution)

# %% [markdown]
# ## Papers
#
# Loshchilov & Hutter 2019, [Decoupled Weight Decay Regularization](https://arxiv.org/abs/1711.05101). Zhuang et al.
# 2022, [Understanding AdamW through Proximal Methods](https://arxiv.org/abs/2202.00089). Parikh & Boyd 2014, [Proximal
# Algorithms](https://doi.org/10.1561/2400000003).
