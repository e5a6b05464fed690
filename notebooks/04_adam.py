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
# # 4. Adam and bias correction
#
# **Adam has a learning-rate schedule that nobody wrote down. Where is it?** Momentum divided by the root of RMSProp's
# average, and one correction of both: the picture is what that does to the rate.
#
# *25 minutes to read, half a minute to run. Before it: [chapter 2](02_momentum.ipynb) and
# [chapter 3](03_adaptive_rates.ipynb).*

# %% tags=["setup"]
import dataclasses
import inspect

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxopt_tour as jt
from jaxopt_tour.problems.landscapes import styblinski_tang
from jaxopt_tour.problems.stationary import minima
from jaxopt_tour.tour import plots
from jaxopt_tour.tour.exercises import grade
from jaxopt_tour.tour.rollout import rollout

# Steps on two numbers are quickest on a CPU, whatever else there is.
jax.config.update("jax_default_device", jax.devices("cpu")[0])


def updates_for(tx, gradients):
    """What a rule makes of a sequence of gradients."""
    _, made = jax.lax.scan(lambda state, g: tx.update(g, state)[::-1], tx.init(jnp.zeros_like(gradients[0])), gradients)
    return np.array(made)


# %% tags=["picture"]


def rho(t, b1, b2):
    """The factor by which bias correction changes the update at step t."""
    return np.sqrt(1 - b2**t) / (1 - b1**t)


t = np.arange(1, 5001, dtype=np.float64)
figure, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
styles = ("-", (0, (5, 2)), (0, (1, 1.5)))
for (b1, b2), style in zip(((0.9, 0.999), (0.95, 0.95), (0.9, 0.95)), styles, strict=True):
    ax.plot(t, rho(t, b1, b2), color=plots.line("adamw")["color"], linestyle=style, label=f"β₁ = {b1}, β₂ = {b2}")
ax.axhline(1, color="0.6", linewidth=0.7)
ax.set(xscale="log", xlabel="step t", ylabel="ρ(t; β₁, β₂)", ylim=(0, None))
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# The factor by which bias correction changes the step, over time. At the usual decay rates it is a warm-up over
# thousands of steps. At equal ones it is a spike.
#
# ## The rule
#
# $$m_t = \beta_1 m_{t-1} + (1 - \beta_1)\, g_t, \qquad v_t = \beta_2 v_{t-1} + (1 - \beta_2)\, g_t^2,$$
#
# $$\hat m_t = \frac{m_t}{1 - \beta_1^t}, \qquad \hat v_t = \frac{v_t}{1 - \beta_2^t}, \qquad
#   u_t = \frac{\hat m_t}{\sqrt{\hat v_t} + \epsilon} .$$

# %%
print(inspect.getsource(jt.scale_by_adam))

# %% [markdown]
# ## Why divide by $1 - \beta^t$
#
# Unrolled from $m_0 = 0$, $m_t = (1 - \beta_1) \sum_{k=1}^{t} \beta_1^{t-k} g_k$. The weights sum to $1 - \beta_1^t$,
# not to one: with gradients of mean $\bar g$ the mean of $m_t$ is $(1 - \beta_1^t)\, \bar g$, too small at first.
# Dividing makes the weights sum to one. A constant gradient shows it: $\hat m = g$ and $\hat v = g^2$ at every step,
# so every update is exactly its sign.

# %%
constant = jnp.tile(jnp.array([-2.0, 1e-3, 500.0]), (100, 1))
u = updates_for(jt.scale_by_adam(eps=0.0), constant)
np.testing.assert_allclose(u, np.sign(constant), rtol=1e-4)

# %% [markdown]
# ## The correction as a schedule
#
# With $\epsilon = 0$ the two divisors come out of the fraction, and the corrected update is the plain one times
#
# $$\rho(t; \beta_1, \beta_2) = \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t} .$$
#
# It ends at one. On the way it is the schedule of the picture.

# %%


gradients = jax.random.normal(jax.random.key(0), (300, 4))
for b1, b2 in ((0.9, 0.999), (0.95, 0.95), (0.9, 0.95)):
    corrected, plain = (
        updates_for(jt.scale_by_adam(b1, b2, eps=0.0, bias_correction=on), gradients) for on in (True, False)
    )
    np.testing.assert_allclose(corrected, rho(t[:300, None], b1, b2) * plain, rtol=1e-3, atol=1e-6)

# %% [markdown]
# For the defaults (0.9, 0.999) it begins at $\sqrt{1 - \beta_2}/(1 - \beta_1) = 0.32$, falls for a dozen steps, and
# then rises slowly: a warm-up over some thousand steps. For equal betas $b$ it is $1/\sqrt{1 - b^t}$: a spike above
# one that only falls. In general it rises at $t$ where
#
# $$\frac{\beta_2^t \log\beta_2}{2\,(1 - \beta_2^t)} < \frac{\beta_1^t \log\beta_1}{1 - \beta_1^t} ,$$
#
# the sign of the derivative of $\log\rho$. Both sides are negative.

# %%
slow, spike = rho(t, 0.9, 0.999), rho(t, 0.95, 0.95)
lowest = int(t[slow.argmin()])
print(f"(0.9, 0.999): {slow[0]:.3f} at step 1, lowest {slow.min():.3f} at step {lowest}, {slow[999]:.3f} at step 1000")
assert 10 <= lowest <= 15 and np.all(np.diff(slow)[lowest:4000] > 0) and slow.max() < 1
print(f"(0.95, 0.95): {spike[0]:.2f} at step 1")
assert spike[0] > 4 and np.all(np.diff(spike) <= 0)


def rises(t, b1, b2):
    """Whether rho increases at t, by the condition above."""
    return b2**t * np.log(b2) / (2 * (1 - b2**t)) < b1**t * np.log(b1) / (1 - b1**t)


np.testing.assert_array_equal(rises(t[1:50] - 0.5, 0.9, 0.999), np.diff(slow)[:49] > 0)

# %% [markdown]
# ## Correction and start are two switches
#
# Starting the averages at the first gradient, $m_0 = g_1$ and $v_0 = g_1^2$, is the other way to have unbiased averages
# under a constant gradient. Doing both corrects twice. The size of the first update tells the four apart:

# %%
b1, b2 = 0.9, 0.999
first = {}
for start in ("zeros", "first_gradient"):
    for on in (True, False):
        tx = jt.scale_by_adam(b1, b2, 0.0, bias_correction=on, initial_moments=start)
        first[start, on] = float(updates_for(tx, jnp.full((1, 1), 7.0))[0, 0])
for (start, on), size in first.items():
    print(f"start: {start:14}  bias correction: {on!s:5}  first update {size:.4f}")
np.testing.assert_allclose(
    list(first.values()), [1, (1 - b1) / np.sqrt(1 - b2), np.sqrt(1 - b2) / (1 - b1), 1], rtol=1e-3
)

# %% [markdown]
# Unrolled, the averages at every $t$ are
#
# $$m_t = \beta_1^t m_0 + (1 - \beta_1) \sum_{k=1}^t \beta_1^{t-k} g_k ,$$
#
# divided by $1 - \beta_1^t$ with the correction, and the same for $v_t$ with $\beta_2$ and $g_k^2$. So the weights sum
# to
#
# | | start at zero | start at the first gradient |
# |---|---|---|
# | corrected | $1$ | $1 / (1 - \beta^t)$ |
# | not corrected | $1 - \beta^t$ | $1$ |
#
# and $\epsilon$ shortens the first step, in the same order, by
#
# | | start at zero | start at the first gradient |
# |---|---|---|
# | corrected | $1 / (1 + \epsilon / \vert g \vert)$ | $1 / (1 + \epsilon \sqrt{1 - \beta_2} / \vert g \vert)$ |
# | not corrected | $1 / (1 + \epsilon / (\sqrt{1 - \beta_2}\, \vert g \vert))$ | $1 / (1 + \epsilon / \vert g \vert)$ |
#
# From zero the two divisors together are $\rho(t)\, m_t / (\sqrt{v_t} + \epsilon \sqrt{1 - \beta_2^t})$: the correction
# also makes $\epsilon$ smaller in early steps. Dividing by $1 - \beta$ in place of $1 - \beta^t$ would be no correction
# at all: it is one factor for all steps, which the learning rate has already.

# %%
g, eps, steps = np.asarray(jax.random.normal(jax.random.key(1), (60, 4)), np.float64), 0.1, np.arange(1, 61)[:, None]


def average(b, values, start, corrected):
    """The average of the values after each step, by its weights."""
    t = np.arange(1, len(values) + 1)[:, None]
    sums = np.array([(1 - b) * b ** np.arange(last - 1, -1, -1) @ values[:last] for last in t[:, 0]])
    return (sums + (b**t * values[0] if start == "first_gradient" else 0)) / (1 - b**t if corrected else 1)


by_eps = dict(zip(first, [1, 1 / np.sqrt(1 - b2), np.sqrt(1 - b2), 1], strict=True))
for (start, on), size in first.items():
    ours = updates_for(jt.scale_by_adam(b1, b2, eps, bias_correction=on, initial_moments=start), jnp.asarray(g))
    m_hat, v_hat = average(b1, g, start, on), average(b2, g**2, start, on)
    np.testing.assert_allclose(ours, m_hat / (np.sqrt(v_hat) + eps), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(ours[0], size * np.sign(g[0]) / (1 + eps * by_eps[start, on] / np.abs(g[0])), rtol=1e-3)

m, v = average(b1, g, "zeros", False), average(b2, g**2, "zeros", False)
corrected = updates_for(jt.scale_by_adam(b1, b2, eps), jnp.asarray(g))
by_rho = rho(steps, b1, b2) * m / (np.sqrt(v) + eps * np.sqrt(1 - b2**steps))
np.testing.assert_allclose(corrected, by_rho, rtol=1e-3, atol=1e-5)

# %% [markdown]
# The usual argument for the correction takes all gradients to have one mean. In training the mean drifts. The corrected
# weights still sum to one, so $\hat m_t$ is a mean of *past* means: behind a gradient that grows by one a step it lags
# $\beta_1 / (1 - \beta_1) = 9$ steps.

# %%
drifting = np.arange(1.0, 301.0)[:, None]
np.testing.assert_allclose(drifting[-1] - average(0.9, drifting, "zeros", True)[-1], 9, rtol=1e-6)

# %% [markdown]
# ## Two views: a sign, and a variance
#
# Without memory, $\beta_1 = \beta_2 = 0$, Adam is sign descent: $g / \sqrt{g^2}$. With memory, write $\sigma_t^2 = v_t
# - m_t^2$. For equal decay rates this is an average of squared surprises, the distances of gradients from the momentum
# before them:
#
# $$\sigma_t^2 = \beta\, \sigma_{t-1}^2 + \beta (1 - \beta)\, (g_t - m_{t-1})^2 ,
#   \qquad u_t = \frac{m_t}{\sqrt{m_t^2 + \sigma_t^2}} = \frac{\mathrm{sign}(m_t)}{\sqrt{1 + \sigma_t^2 / m_t^2}} .$$
#
# *Proof.* Put $m_t = m_{t-1} + (1 - \beta)\, d$ with $d = g_t - m_{t-1}$ into $v_t - m_t^2$. The mixed terms cancel,
# and $d^2$ has the factor $(1 - \beta) - (1 - \beta)^2 = \beta (1 - \beta)$. $\square$
#
# So Adam steps by the sign of the momentum, shortened where the gradient surprises it: by the ratio of noise to signal.

# %%
memoryless = updates_for(jt.scale_by_adam(0.0, 0.0, eps=0.0), gradients)
np.testing.assert_allclose(memoryless, np.sign(gradients), rtol=1e-5)

b, m, variance, views = 0.95, np.zeros(4), np.zeros(4), []
for each in np.asarray(gradients, np.float64):
    variance = b * variance + b * (1 - b) * (each - m) ** 2
    m = b * m + (1 - b) * each
    views.append(np.sign(m) / np.sqrt(1 + variance / m**2))
plain = updates_for(jt.scale_by_adam(b, b, eps=0.0, bias_correction=False), gradients)
np.testing.assert_allclose(plain, views, rtol=1e-2, atol=1e-4)
print(f"pure noise: the mean size of an update is {np.abs(plain[100:]).mean():.2f}; without noise it is 1")

# %% [markdown]
# ## On the landscape
#
# The size of a step is the rate times a number of about one or less, so Adam walks at a steady speed where SGD leaps.
# At this rate it settles in the first valley. A thousand times the loss is the same path.

# %%
landscape = styblinski_tang()
louder = dataclasses.replace(landscape, fn=lambda x: 1000 * landscape.fn(x))
runs = {"sgd": rollout(jt.sgd(0.02), landscape, 1200), "adam": rollout(jt.adam(0.01), landscape, 1200)}

np.testing.assert_allclose(rollout(jt.adam(0.01), louder, 1200).params, runs["adam"].params, atol=1e-3)
assert np.abs(runs["adam"].update).max() < 0.0101
assert np.abs(runs["sgd"].update).max() > 1

valley = min(minima(landscape), key=lambda point: np.abs(point.params - runs["adam"].params[-1]).max())
print("adam ends in a", valley.kind, "at", np.round(valley.params, 3))
assert valley.kind == "local minimum" and np.abs(valley.params - runs["adam"].params[-1]).max() < 1e-3

figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.2), layout="constrained")
plots.trajectories(plots.mark_minima(plots.contours(left, landscape), landscape), landscape, runs)
left.set_aspect("equal")
left.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=8)
plots.state_over_time(right, "adam", runs["adam"]).get_legend().set_loc("center right")
plt.show()

# %% [markdown]
# The right picture is one coordinate: the gradient falls, $m$ follows it with a lag of some ten steps, and $\sqrt v$
# (not corrected) rises and then falls slowly, because its memory is a thousand steps long.
#
# ## Change one thing
#
# Change $\beta_2$: with a short memory $\sqrt v$ follows the gradient. What becomes of the steps near the minimum?

# %%
b2 = 0.999  # try 0.9, 0.5, 0.9999

run = rollout(jt.adam(0.05, b1=0.9, b2=b2), landscape, 300)
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.2), layout="constrained")
plots.state_over_time(left, "adam", run).get_legend().set_loc("center right")
plots.effective_rates(right, "adam", run)
plt.show()

# %% [markdown]
# ## Exercises

# %% tags=["checks"]


def check_steps(steps_until):
    """Exercise 1"""
    for b2, level in ((0.999, 0.99), (0.95, 0.9), (0.999, 0.5)):
        counted = int(np.argmax(np.sqrt(1 - b2 ** np.arange(1, 20_000)) >= level)) + 1
        ours = float(steps_until(b2, level))
        assert abs(ours - counted) <= 1, f"at b2 = {b2} the root reaches {level} after {counted} steps, not {ours:.0f}"


def check_eps(half_eps):
    """Exercise 2"""
    for start, on in first:
        eps = float(half_eps(3.0, 0.999, start, on))
        tx = [jt.scale_by_adam(0.9, 0.999, each, bias_correction=on, initial_moments=start) for each in (0.0, eps)]
        full, shortened = (float(updates_for(each, jnp.full((1, 1), 3.0))[0, 0]) for each in tx)
        assert np.isclose(shortened, full / 2, rtol=1e-3), (
            f"start {start}, correction {on}: the step is {shortened / full:.3f} of its length, not a half"
        )


# %% [markdown]
# **1. How long is the warm-up?** The part of $\rho$ that lasts is $\sqrt{1 - \beta_2^t}$. After how many steps does it
# reach a level?


# %%
def steps_until(b2, level):
    """The first t with sqrt(1 - b2^t) at the level."""
    return 1 / (1 - b2)  # the memory, not the answer


grade(check_steps, steps_until)

# %% tags=["solution"]


def steps_until_solution(b2, level):
    """b2^t = 1 - level^2: nearly 4,000 steps to 0.99 at the defaults."""
    return np.ceil(np.log(1 - level**2) / np.log(b2))


assert grade(check_steps, steps_until_solution)

# %% [markdown]
# **2. When is $\epsilon$ large?** Which $\epsilon$ halves the first step, in each of the four cases? The table above
# has the answer in another form.


# %%
def half_eps(g, b2, start, corrected):
    """For a gradient g, a decay rate b2, a start ("zeros" or "first_gradient") and a switch."""
    return abs(g)  # in two of the cases


grade(check_eps, half_eps)

# %% tags=["solution"]


def half_eps_solution(g, b2, start, corrected):
    """What stands under eps in the table has to be as large as eps: the root of the second moment, as it is used."""
    if start == "zeros":
        return abs(g) if corrected else abs(g) * np.sqrt(1 - b2)
    return abs(g) / np.sqrt(1 - b2) if corrected else abs(g)


assert grade(check_eps, half_eps_solution)

# %% [markdown]
# ## Papers
#
# Kingma & Ba 2015, [Adam](https://arxiv.org/abs/1412.6980). Orvieto & Gower 2025, [In Search of Adam's Secret
# Sauce](https://arxiv.org/abs/2505.21829), on equal decay rates and the variance view. Balles & Hennig 2018,
# [Dissecting Adam](https://arxiv.org/abs/1705.07774), on sign and variance.
