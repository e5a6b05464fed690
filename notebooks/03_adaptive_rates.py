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
# # 3. Adaptive rates: AdaGrad, RMSProp, AdaDelta
#
# **One learning rate for all weights is a compromise. Can every weight have its own, found on the way?** AdaGrad,
# RMSProp and AdaDelta read it off the sizes of past gradients. On the right of the picture is what that costs.
#
# *25 minutes to read, half a minute to run. Before it: [chapter 1](01_sgd.ipynb).*

# %% tags=["setup"]
import dataclasses
import inspect

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxopt_tour as jt
from jaxopt_tour.problems.landscapes import quadratic, ravine
from jaxopt_tour.tour import measures, plots
from jaxopt_tour.tour.exercises import grade
from jaxopt_tour.tour.rollout import rollout

# Steps on two numbers are quickest on a CPU, whatever else there is.
jax.config.update("jax_default_device", jax.devices("cpu")[0])


def updates_for(tx, gradients):
    """What a rule makes of a sequence of gradients."""
    state, made = tx.init(jnp.zeros_like(gradients[0])), []
    for g in gradients:
        u, state = jax.jit(tx.update)(g, state)
        made.append(u)
    return np.array(made)


# %% tags=["picture"]
bowl = quadratic(condition_number=100.0)
rules = {
    "adagrad": jt.adagrad(0.5, eps=1e-10),
    "rmsprop": jt.rmsprop(0.05, eps=1e-8),
    "rmsprop-centered": jt.rmsprop(0.02, eps=1e-8, centered=True),
    "adadelta": jt.adadelta(1.0, eps=1e-6),
}
turned = ravine()
along, across = sum(turned.start) / np.sqrt(2), (turned.start[1] - turned.start[0]) / np.sqrt(2)
straight = dict(start=(across, along))  # the bowl is steep in x, the ravine across

figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained", sharey=True)
on_bowl = {name: rollout(tx, bowl, 300, **straight) for name, tx in rules.items()}
on_ravine = {name: rollout(tx, turned, 300) for name, tx in rules.items()}
plots.losses(axes[0], bowl, on_bowl).set_title("straight: steep and flat are coordinates")
plots.losses(axes[1], turned, on_ravine).set_title("turned by 45 degrees")
axes[1].legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# The same bowl twice, a hundred times steeper in one direction than in the other. Straight, each direction is a
# coordinate with a rate of its own. Turned by 45 degrees, AdaGrad needs many more steps to the same loss.
#
# ## AdaGrad
#
# Divide by the root of the sum of all squares so far:
#
# $$r_t = r_{t-1} + g_t^2, \qquad u_t = \frac{g_t}{\sqrt{r_t} + \epsilon} .$$
#
# The first update is the sign of the gradient. Under a constant gradient $r_t = t g^2$ and $u_t = 1/\sqrt t$, whatever
# $g$ is: units cancel, and the rate only ever falls.

# %%
print(inspect.getsource(jt.scale_by_adagrad))

# %%
constant = jnp.tile(jnp.array([1e-3, 1.0, 1e3]), (50, 1))  # three weights with gradients of three sizes
falling = updates_for(jt.scale_by_adagrad(), constant)
np.testing.assert_allclose(falling, np.tile(1 / np.sqrt(np.arange(1, 51))[:, None], 3), rtol=1e-5)

# %% [markdown]
# With other gradients $r_t$ is $t$ times their mean square, so $\sqrt{r_t} = \sqrt t\; \mathrm{RMS}(g_1, \ldots, g_t)$.
# A weight whose gradient is mostly zero, such as that of a rare word, has a small RMS and a large rate. One that gets a
# gradient every tenth step makes steps $\sqrt{10}$ times as long.

# %%
gradients = jax.random.normal(jax.random.key(0), (200, 3)) * jnp.array([1e-2, 1.0, 1e2])
t = np.arange(1, 201)[:, None]
rms = np.sqrt(np.cumsum(np.square(np.asarray(gradients, np.float64)), axis=0) / t)
np.testing.assert_allclose(
    updates_for(jt.scale_by_adagrad(eps=0.0), gradients), gradients / (np.sqrt(t) * rms), rtol=1e-4
)

often_and_rare = (jnp.arange(191)[:, None] % jnp.array([1, 10]) == 0).astype(jnp.float32)
often, rare = updates_for(jt.scale_by_adagrad(), often_and_rare)[190]  # 191 gradients against 20
print(f"the next step is {rare / often:.2f} times as long for the rare one")
np.testing.assert_allclose(rare / often, np.sqrt(191 / 20), rtol=1e-4)

# %% [markdown]
# In training: a linear model whose eight features occur in every second example, every fourth, ..., one in 256. Each
# rule has its best rate of a grid. SGD has one rate for all, which the frequent features bound, so weights of rare ones
# hardly move. AdaGrad learns them.

# %%
rng = np.random.default_rng(0)
frequency = 0.5 ** np.arange(1, 9)
present = (rng.random((500, 16, 8)) < frequency).astype(np.float32)  # 500 batches of 16 examples
truth = jnp.ones(8)


def error_of(tx):
    """What is still wrong with every weight after 500 steps, as a share of it."""

    def step(carry, x):
        w, state = carry
        update, state = tx.update(x.T @ (x @ (w - truth)) / len(x), state, w)
        return (w + update, state), None

    (w, _), _ = jax.lax.scan(step, (jnp.zeros(8), tx.init(jnp.zeros(8))), jnp.asarray(present))
    return np.abs(np.asarray(w - truth))


left = {
    name: min((error_of(make(rate)) for rate in grid), key=lambda e: np.nan_to_num(e, nan=np.inf).sum())
    for name, make, grid in (("sgd", jt.sgd, (0.1, 0.3, 1.0, 2.0)), ("adagrad", jt.adagrad, (0.1, 0.3, 1.0, 3.0)))
}
for name, error in left.items():
    print(f"{name:8} error by feature, frequent to rare:", np.round(error, 2))
assert left["sgd"][-1] > 10 * left["adagrad"][-1]

# %% [markdown]
# ## The whole matrix, and Shampoo
#
# $r_t$ is the diagonal of $G_t = \sum_k g_k g_k^\top$. AdaGrad with the whole matrix, $u_t = G_t^{-1/2} g_t$, sees
# directions, not coordinates, but a weight matrix of $m \times n$ entries has a $G_t$ of $mn \times mn$. Shampoo keeps
# the two small matrices $L = \sum_k W_k W_k^\top$ and $R = \sum_k W_k^\top W_k$ of the gradients $W_k$ in matrix form.
# If their rank is at most $r$, then
#
# $$\tfrac1r\, G_t \preceq L^{1/2} \otimes R^{1/2}, \qquad
#   (L^{1/2} \otimes R^{1/2})^{-1/2}\, \mathrm{vec}(W) = \mathrm{vec}(L^{-1/4}\, W R^{-1/4}) .$$
#
# Its step is AdaGrad's with that larger matrix in place of $G_t$.

# %%


def power(a, exponent):
    """A power of a symmetric positive definite matrix."""
    values, vectors = np.linalg.eigh(a)
    return vectors * values**exponent @ vectors.T


W = np.random.default_rng(0).standard_normal((30, 3, 4))  # 30 gradients of a 3 x 4 matrix
L, R = np.einsum("tij,tkj->ik", W, W), np.einsum("tij,tik->jk", W, W)
full, kronecker = np.einsum("ti,tj->ij", *2 * [W.reshape(30, 12)]), np.kron(power(L, 0.5), power(R, 0.5))
assert np.linalg.eigvalsh(kronecker - full / 3).min() > 0  # of rank 3
shampoo = jt.scale_by_shampoo(None, axes=jt.MatrixAxes(fan_in=0, fan_out=1))  # sums, as AdaGrad has
u = updates_for(shampoo, jnp.asarray(W, jnp.float32))[-1]
np.testing.assert_allclose(u.ravel(), power(kronecker, -0.5) @ W[-1].ravel(), rtol=1e-3, atol=1e-4)

# %% [markdown]
# AdaGrad with the whole matrix has what the diagonal lost when the valley was turned. Turn the coordinates by $R$, and
# $G$ becomes $R G R^\top$, so the step turns with them. The diagonal does not turn.

# %%


def full_adagrad(H, start, eta=0.5, steps=100):
    """Losses of AdaGrad with the whole matrix on 1/2 x^T H x."""
    x, G, losses = np.array(start), 1e-8 * np.eye(2), []
    for _ in range(steps):
        losses.append(0.5 * x @ H @ x)
        g = H @ x
        G += np.outer(g, g)
        x = x - eta * power(G, -0.5) @ g
    return np.array(losses)


R = np.array([[1, -1], [1, 1]]) / np.sqrt(2)
H, x0 = np.diag([10.0, 0.1]), np.array([1.0, 4.0])
on_straight, on_turned = full_adagrad(H, x0), full_adagrad(R @ H @ R.T, R @ x0)
np.testing.assert_allclose(on_straight, on_turned, rtol=1e-6)
print(f"whole matrix after 100 steps: {on_straight[-1]:.2e} straight, {on_turned[-1]:.2e} turned")

# %% [markdown]
# ## RMSProp
#
# A sum never forgets. RMSProp takes an average over about the last $1/(1 - \beta)$ steps instead, so the rate can rise
# again:
#
# $$s_t = \beta\, s_{t-1} + (1 - \beta)\, g_t^2, \qquad u_t = \frac{g_t}{\sqrt{s_t} + \epsilon} .$$
#
# The average starts at zero, so the first update has size $1/\sqrt{1 - \beta}$: 3.2 at $\beta = 0.9$.
#
# *Centered* RMSProp divides by the standard deviation, $\sqrt{s - m^2}$ with $m$ the average of $g$. A gradient that is
# always the same has less and less of it: after a few steps the updates grow, until something changes.

# %%
print(inspect.getsource(jt.scale_by_rmsprop))

# %%
plain, centered = (updates_for(jt.scale_by_rmsprop(0.9, centered=c), constant)[:, 1] for c in (False, True))
np.testing.assert_allclose(plain[0], 1 / np.sqrt(1 - 0.9), rtol=1e-5)
np.testing.assert_allclose(plain[-1], 1, rtol=0.01)
share = 0.9 ** np.arange(1, 51)  # s - m^2 = (1 - share) - (1 - share)^2
np.testing.assert_allclose(centered, 1 / np.sqrt(share * (1 - share)), rtol=1e-3)
assert centered[-1] > 10 * plain[-1]

figure, ax = plt.subplots(figsize=(6.5, 3.4), layout="constrained")
ax.plot(np.arange(1, 51), falling[:, 1], label="adagrad", **plots.line("adagrad"))
ax.plot(np.arange(1, 51), plain, label="rmsprop", **plots.line("rmsprop"))
ax.plot(np.arange(1, 51), centered, label="rmsprop-centered", **plots.line("rmsprop-centered"))
ax.set(yscale="log", xlabel="step", ylabel="update / rate", title="under a constant gradient")
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# ## Large gradients at the start
#
# A bad start or a few broken examples, and the first gradients are a hundred times too large. AdaGrad's sum keeps them
# for good. After $k$ such steps of size $M$ its rate is at most $\eta / (M \sqrt k)$ times what a unit gradient needs.
# RMSProp's average has forgotten them after a few times $1/(1 - \beta)$ steps.
#
# Here the loss of a parabola is multiplied by 100 in its first five steps, and the rates are those that are good
# without.

# %%


def distance(tx, loud_steps, steps=200):
    """Distance from the minimum of x^2 / 2 at every step; the gradient is 100 times as large in the first ones."""

    def step(carry, t):
        x, state = carry
        update, state = tx.update(x * jnp.where(t < loud_steps, 100.0, 1.0), state, x)
        return (x + update, state), jnp.abs(x)

    return np.asarray(jax.lax.scan(step, (jnp.float32(10), tx.init(jnp.float32(0))), jnp.arange(steps))[1])


names = {"adagrad": jt.adagrad(2.0), "rmsprop": jt.rmsprop(0.2, beta=0.9)}
far = {(name, loud): distance(tx, loud) for name, tx in names.items() for loud in (0, 5)}
for (name, loud), path in far.items():
    print(f"{name:8} {loud} loud steps: {path[-1]:.3f} from the minimum after 200 steps")
assert far["adagrad", 0][-1] < 0.01 and far["adagrad", 5][-1] > 3
assert far["rmsprop", 5][-1] < 0.3  # its steps are 0.2 long

# %% [markdown]
# ## AdaDelta
#
# $g/\sqrt{s}$ is a bare number, and a weight has units. AdaDelta multiplies by the root mean square of its own past
# updates, which are in the units of the weight:
#
# $$s_t = \beta s_{t-1} + (1 - \beta) g_t^2, \qquad
#   u_t = \frac{\sqrt{d_{t-1} + \epsilon}}{\sqrt{s_t + \epsilon}}\, g_t, \qquad
#   d_t = \beta d_{t-1} + (1 - \beta) u_t^2 .$$
#
# With $d_0 = 0$ the first update has size $\sqrt{\epsilon/(1 - \beta)}$: steps grow from nothing, and $\epsilon$ says
# how fast.

# %%
print(inspect.getsource(jt.scale_by_adadelta))

# %%
grown = updates_for(jt.scale_by_adadelta(0.9, eps=1e-6), constant)[:, 1]
np.testing.assert_allclose(grown[0], np.sqrt(1e-6 / (1 - 0.9)), rtol=1e-3)
print(f"from {grown[0]:.4f} to {grown[-1]:.4f} in 50 steps")
assert np.all(np.diff(grown) > 0)

# %% [markdown]
# Hold the average of its updates fixed, and AdaDelta is RMSProp with $\epsilon$ inside the root:

# %%
delta = updates_for(jt.scale_by_adadelta(0.9, eps=1e-6), gradients)
rmsprop = updates_for(jt.scale_by_rmsprop(0.9, eps=1e-6, eps_in_sqrt=True), gradients)
d = np.zeros(3)
for u_delta, u_rmsprop in zip(delta, rmsprop, strict=True):
    np.testing.assert_allclose(u_delta, np.sqrt(d + 1e-6) * u_rmsprop, rtol=1e-3)
    d = 0.9 * d + 0.1 * u_delta**2

# %% [markdown]
# ## No scale
#
# All four ignore the scale of the loss (up to $\epsilon$): a thousand times the loss is the same path. SGD would need a
# thousandth of the rate.

# %%
louder = dataclasses.replace(bowl, fn=lambda x: 1000 * bowl.fn(x))
runs = {name: rollout(tx, bowl, 400) for name, tx in rules.items()}
for name, tx in rules.items():
    away = np.abs(rollout(tx, louder, 40).params - runs[name].params[:41]).max()
    print(f"{name:17} paths differ by at most {away:.1e}")
    assert away < 0.01

# %% [markdown]
# ## The rate of each coordinate
#
# The bowl is a hundred times steeper in $x$ than in $y$. AdaGrad's two rates differ accordingly from the first step
# on, and only fall. RMSProp's rise again near the minimum, where gradients are small: it does not settle at a
# constant rate, and $x$ keeps moving by steps of the size of the rate. AdaGrad does settle.

# %%
rates = {name: np.asarray(measures.effective_learning_rate(run)) for name, run in runs.items()}
np.testing.assert_allclose(rates["adagrad"][0, 1] / rates["adagrad"][0, 0], 10 * 2 / (0.1 * 4), rtol=1e-3)
assert np.nanmax(np.diff(rates["adagrad"], axis=0) / rates["adagrad"][:-1]) < 1e-4  # only falls
assert np.nanmax(rates["rmsprop"][50:, 0]) > 2 * np.nanmin(rates["rmsprop"][:50, 0])  # rises again

late = {name: np.abs(run.update[-50:, 0]).max() for name, run in runs.items()}
print("longest late step in x:", late)
assert late["adagrad"] < 1e-3
np.testing.assert_allclose(late["rmsprop"], 0.05, rtol=0.01)  # the rate

figure, axes = plt.subplots(1, 3, figsize=(14, 4), layout="constrained")
plots.trajectories(plots.contours(axes[0], bowl), bowl, runs)
axes[0].legend(fontsize=8)
plots.effective_rates(axes[1], "adagrad", runs["adagrad"])
plots.effective_rates(axes[2], "rmsprop", runs["rmsprop"])
plt.show()

# %% [markdown]
# ## One rate per coordinate, on a turned valley
#
# The ravine is this very bowl, turned by 45 degrees. SGD does not notice: its path is the turned path. The rules above
# do, because they work coordinate by coordinate, and now both coordinates have gradients of one size. What they knew on
# the bowl is gone.

# %%
np.testing.assert_allclose(
    rollout(jt.sgd(0.05), turned, 300).loss, rollout(jt.sgd(0.05), bowl, 300, **straight).loss, rtol=1e-3, atol=1e-5
)

for name in ("adagrad", "rmsprop"):
    print(f"{name:8} after 100 steps: {on_bowl[name].loss[100]:.2e} straight, {on_ravine[name].loss[100]:.2e} turned")
    assert on_bowl[name].loss[100] < on_ravine[name].loss[100]

# %% [markdown]
# ## Change one thing
#
# Change the memory $\beta$. Short memory forgets the start at once and jumps about; long memory is AdaGrad's neighbor.

# %%
beta = 0.9  # try 0.0 (that is sign descent), 0.5, 0.99, 0.999

run = rollout(jt.rmsprop(0.05, beta=beta), bowl, 200)
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
plots.trajectories(plots.contours(left, bowl), bowl, {"rmsprop": run})
plots.effective_rates(right, "rmsprop", run)
plt.show()

# %% [markdown]
# ## Exercises

# %% tags=["checks"]


def check_travelled(travelled):
    """Exercise 1"""
    for arrivals in (1, 20, 191):
        measured = updates_for(jt.scale_by_adagrad(eps=0.0), jnp.ones((arrivals, 1))).sum()
        ours = float(travelled(arrivals))
        assert np.isclose(ours, measured, rtol=1e-3), f"{arrivals} gradients move it by {measured:.3f}, not {ours:.3f}"


def check_whole(direction):
    """Exercise 2"""
    random = np.random.default_rng(0)
    g, turn = random.standard_normal((9, 4)), np.linalg.qr(random.standard_normal((4, 4)))[0]
    G = g.T @ g
    d = np.asarray(direction(G, g[0]))
    assert np.allclose(direction(turn @ G @ turn.T, turn @ g[0]), turn @ d), "turned coordinates should turn the step"
    diagonal = np.diag(np.diag(G))
    assert np.allclose(direction(diagonal, g[0]), g[0] / np.sqrt(np.diag(G))), "on a diagonal G it should be AdaGrad"


# %% [markdown]
# **1. How far does a rare weight get?** The step of a rare weight is longer, but it has fewer of them. How far does
# AdaGrad move a weight at rate one that has received `arrivals` gradients, all alike? What is that for 191 and for 20?


# %%
def travelled(arrivals):
    """The sum of all its steps."""
    return arrivals  # not it


grade(check_travelled, travelled)

# %% tags=["solution"]


def travelled_solution(arrivals):
    """1 + 1/sqrt 2 + ... + 1/sqrt n, about 2 sqrt n: a tenth of the gradients, a third of the way."""
    return np.sum(1 / np.sqrt(np.arange(1, arrivals + 1)))


assert grade(check_travelled, travelled_solution)

# %% [markdown]
# **2. The whole matrix.** Write $G^{-1/2} g$ for a symmetric positive definite $G$, with `np.linalg.eigh`. The check
# turns the coordinates.


# %%
def whole_direction(G, g):
    """The step of AdaGrad with the whole matrix."""
    return g / np.sqrt(np.diag(G))  # the diagonal's


grade(check_whole, whole_direction)

# %% tags=["solution"]


def whole_solution(G, g):
    """Divide by the root along every eigenvector."""
    values, vectors = np.linalg.eigh(G)
    return vectors @ (vectors.T @ g / np.sqrt(values))


assert grade(check_whole, whole_solution)

# %% [markdown]
# ## Papers
#
# Duchi, Hazan & Singer 2011, [AdaGrad](https://jmlr.org/papers/v12/duchi11a.html). Hinton 2012, [RMSProp, lecture
# 6](https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf). Graves 2013,
# [centered RMSProp](https://arxiv.org/abs/1308.0850). Zeiler 2012, [AdaDelta](https://arxiv.org/abs/1212.5701). Gupta,
# Koren & Singer 2018, [Shampoo](https://arxiv.org/abs/1802.09568), lemma 8 for the inequality.
